"""`python -m stages.dev PATH`: the working copy in the dev cluster, again at every save. No gate stands there.

The same builder, the same rendering and the same binding as on the line; what differs is written in docs/dev.md.
Nothing that is made here is believed by any zone: the builder's key is the developer's own.

    workcopy  which files are the workload's, and a copy of them that holds still
    watching  tells when files were saved
    place     where the developer's dev cluster, registry and Docker engine are
    image     the builder, on a copy of the working copy
    objects   what is different about objects in the dev cluster; pure
    cluster   the developer's namespace: claimed, kept, applied to, cleaned
    pods      which pod runs which version, and how it fares; pure
    rollout   follows the pods of each version until it answers, or fails
    forward   127.0.0.1:<port> to the pod that runs the newest good version
    logs      the workload's own words
    lock      makes the lock of a working copy that has none, to be committed
    hint      what the gate would say
    screen    what the developer sees
    loop      all of it, again at every save
"""
