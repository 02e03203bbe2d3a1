"""Where a developer's dev cluster is, with its registry and the Docker engine that builds.

Three kinds, as a profile's `cluster.provider` says. The embedded zone (`local`) has all of it. For a cluster that
exists (`kubeconfig`, `kind`) the developer's own Docker engine builds, and SEKISHO_DEV_REGISTRY names the registry that
the cluster's nodes pull `registry.sekisho.internal` from.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sekisho.developers import developer_name
from sekisho.errors import PermanentError, UsageError
from sekisho.profile import ClusterSpec, Profile, load_profile
from sekisho.zones import Port, Zone, ZoneHome, address

REGISTRY_VARIABLE = "SEKISHO_DEV_REGISTRY"
PROFILE_VARIABLE = "SEKISHO_DEV_PROFILE"
POLICIES_VARIABLE = "SEKISHO_POLICIES"
"""Policies to try before the platform team takes them over: a standard image, a rule of the gate."""
_PROJECT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Place:
    """What a developer works with."""

    developer: str
    """The developer's name in the cluster."""
    profile: Profile
    kubeconfig: Path
    context: str
    registry: str
    """URL of the registry's writable face."""
    docker: Path
    """Socket of the Docker engine that builds."""
    policies: Path
    root: Path
    """The developer's own folder: builder's key, credentials of bound services, caches."""


def find_place(login: str, environment: Mapping[str, str]) -> Place:
    """Return the place of a developer.

    Args:
        login: the person's login name; empty asks the system.
        environment: variables.

    Raises:
        PermanentError: the dev zone was never up, or may not be used by this user.
        UsageError: the profile names no cluster, or nothing says where the registry is.
    """
    profile = load_profile(_profile(environment))
    cluster = profile.cluster
    if cluster is None:
        raise UsageError(
            "The dev profile names no cluster.", where=profile.zone, remedy="Add `cluster: {provider: local}` to it."
        )
    if cluster.provider == "local":
        return _embedded(login, profile, environment)
    return _existing(login, profile, cluster, environment)


def _profile(environment: Mapping[str, str]) -> Path:
    if PROFILE_VARIABLE in environment:
        return Path(environment[PROFILE_VARIABLE]).expanduser()
    written = ZoneHome(Zone.DEV).profile
    return written if os.access(written, os.R_OK) else _PROJECT / "cluster-profiles" / "dev.yaml"


def _embedded(login: str, profile: Profile, environment: Mapping[str, str]) -> Place:
    from sekisho.embedded import developers  # noqa: PLC0415 -- brings what only this kind needs
    from sekisho.embedded.services import docker_folder  # noqa: PLC0415

    home = developers.invite(login or developers.login())
    return Place(
        developer=home.name,
        profile=profile,
        kubeconfig=home.kubeconfig,
        context="",
        registry=f"http://{address(Zone.DEV)}:{Port.REGISTRY_WRITE}",
        docker=docker_folder(Zone.DEV) / "docker.sock",
        policies=Path(environment.get(POLICIES_VARIABLE) or ZoneHome(Zone.DEV).policies),
        root=home.root,
    )


def _existing(login: str, profile: Profile, cluster: ClusterSpec, environment: Mapping[str, str]) -> Place:
    import getpass  # noqa: PLC0415

    from sekisho.clusters import provider_for  # noqa: PLC0415

    registry = environment.get(REGISTRY_VARIABLE, "")
    if not registry.startswith(("http://", "https://")):
        raise UsageError(
            "Nothing says where the dev cluster's registry is.",
            where=f"zone {profile.zone}, provider {cluster.provider}",
            remedy=f"Set {REGISTRY_VARIABLE}=http://HOST:PORT; the cluster's nodes must pull registry.sekisho.internal "
            "from the same registry.",
        )
    state = environment.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    policies = Path(environment.get(POLICIES_VARIABLE) or _PROJECT / "policies")
    name = developer_name(login or getpass.getuser())
    root = Path(state) / "sekisho" / "dev" / name
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    return Place(
        developer=name,
        profile=profile,
        kubeconfig=provider_for(profile).kubeconfig(),
        context=cluster.context,
        registry=registry,
        docker=_engine(environment.get("DOCKER_HOST", "")),
        policies=policies,
        root=root,
    )


def _engine(host: str) -> Path:
    """Return the socket of the developer's own Docker engine."""
    if host and not host.startswith("unix://"):
        raise PermanentError(
            "The Docker engine is not on this machine.",
            where="DOCKER_HOST",
            remedy="Steps read the working copy from this machine's disk: use an engine that runs here.",
        )
    return Path(host.removeprefix("unix://") or "/var/run/docker.sock")
