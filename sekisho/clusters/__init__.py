"""Clusters behind one interface: embedded ones, kind's, and those that exist."""

from __future__ import annotations

from sekisho.clusters.interface import ClusterProvider, ClusterStatus
from sekisho.errors import PermanentError
from sekisho.profile import Profile

__all__ = ["ClusterProvider", "ClusterStatus", "provider_for"]


def provider_for(profile: Profile) -> ClusterProvider:
    """Return the provider that a profile asks for.

    Raises:
        PermanentError: the zone has no cluster, or the provider cannot serve it.
    """
    if profile.cluster is None:
        raise PermanentError(f"The zone {profile.zone} has no cluster.", where=profile.zone)
    # Imported one by one: the embedded one brings much that the others do not need.
    if profile.cluster.provider == "local":
        from sekisho.clusters.local import LocalCluster  # noqa: PLC0415

        return LocalCluster(profile)
    if profile.cluster.provider == "kind":
        from sekisho.clusters.kind import KindCluster  # noqa: PLC0415

        return KindCluster(profile)
    from sekisho.clusters.kubeconfig import ExistingCluster  # noqa: PLC0415

    return ExistingCluster(profile)
