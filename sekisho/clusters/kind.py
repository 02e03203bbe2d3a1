"""Clusters by kind (https://kind.sigs.k8s.io), for laptops with a Docker engine. kind is run as a program."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import ClassVar

from sekisho.clusters.interface import ClusterStatus
from sekisho.clusters.readiness import readiness
from sekisho.embedded.netns import run
from sekisho.errors import PermanentError, SekishoError
from sekisho.profile import Profile
from sekisho.zones import home

_WAIT_SECONDS = 180
_ENGINES = ("docker", "podman", "nerdctl")


class KindCluster:
    """A kind cluster named `sekisho-<zone>`."""

    name: ClassVar[str] = "kind"

    def __init__(self, profile: Profile) -> None:
        self.zone = profile.zone
        self.cluster = f"sekisho-{profile.zone}"

    def up(self) -> None:
        """Create the cluster unless it is there.

        Raises:
            PermanentError: kind is missing, or there is no container engine that can start a node.
        """
        engine = self._engine()
        if self._exists():
            # The file may have been lost while the cluster lives.
            run(
                [_kind(), "export", "kubeconfig", "--name", self.cluster, "--kubeconfig", self._path()],
                where=self.cluster,
            )
            return
        self._path().parent.mkdir(parents=True, exist_ok=True)
        try:
            run(
                [_kind(), "create", "cluster", "--name", self.cluster, "--kubeconfig", self._path(), "--wait", "120s"],
                timeout=_WAIT_SECONDS + 120,
                where=self.cluster,
            )
        except PermanentError as error:
            run([_kind(), "delete", "cluster", "--name", self.cluster], check=False, timeout=_WAIT_SECONDS)
            raise PermanentError(
                f"kind cannot start a node with {engine}: {error.what}",
                where=self.cluster,
                remedy="The engine must start privileged containers and reach the node image. On Linux with root the "
                "provider `local` needs no engine.",
            ) from error
        self._path().chmod(0o600)

    def down(self) -> None:
        """Delete the cluster."""
        if shutil.which("kind") or (home() / "bin" / "kind").exists():
            run([_kind(), "delete", "cluster", "--name", self.cluster], timeout=_WAIT_SECONDS, where=self.cluster)
        self._path().unlink(missing_ok=True)

    def status(self) -> ClusterStatus:
        """Return its state."""
        state = ClusterStatus(zone=self.zone, provider=self.name, state="absent")
        try:
            self._engine()
            if not self._exists():
                return state
            return readiness(self._path(), "", state)
        except SekishoError as error:
            return state.model_copy(update={"message": str(error)})

    def kubeconfig(self) -> Path:
        """Return the kubeconfig that kind wrote."""
        if not self._path().exists():
            raise PermanentError(
                "The kind cluster was never up.", where=self.cluster, remedy=f"sekisho up --zones {self.zone}"
            )
        return self._path()

    def _path(self) -> Path:
        return home() / "kind" / f"{self.zone}.kubeconfig"

    def _exists(self) -> bool:
        return self.cluster in run([_kind(), "get", "clusters"], where=self.cluster).stdout.split()

    def _engine(self) -> str:
        """Return the container engine that answers."""
        _kind()
        for engine in _ENGINES:
            if shutil.which(engine) and run([engine, "info"], check=False, timeout=30).returncode == 0:
                return engine
        raise PermanentError(
            "There is no container engine that can start a kind node.",
            where=self.cluster,
            remedy=f"Start one of {', '.join(_ENGINES)}. On Linux with root the provider `local` needs none.",
        )


def _kind() -> str:
    own = home() / "bin" / "kind"
    found = str(own) if own.exists() else shutil.which("kind")
    if not found:
        raise PermanentError(
            "kind is not installed.",
            where="PATH",
            remedy="See https://kind.sigs.k8s.io/docs/user/quick-start/#installation. On Linux with root the provider "
            "`local` does without.",
        )
    return found
