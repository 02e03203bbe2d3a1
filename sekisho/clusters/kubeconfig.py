"""Clusters that exist: somebody else runs them, a kubeconfig says how they are reached."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from sekisho.clusters.interface import ClusterStatus
from sekisho.clusters.readiness import check_kubeconfig, readiness
from sekisho.errors import PermanentError, SekishoError, TemporaryError
from sekisho.profile import Profile


class ExistingCluster:
    """A cluster by its kubeconfig and context."""

    name: ClassVar[str] = "kubeconfig"

    def __init__(self, profile: Profile) -> None:
        if profile.cluster is None or not profile.cluster.kubeconfig:
            raise PermanentError("The profile names no kubeconfig.", where=profile.zone)
        self.zone = profile.zone
        self.path = Path(profile.cluster.kubeconfig).expanduser()
        self.context = profile.cluster.context

    def up(self) -> None:
        """Check that the API server answers; nothing is started.

        Raises:
            PermanentError: the file or context is not usable.
            TemporaryError: the API server is not ready.
        """
        status = readiness(self.path, self.context, self._state())
        if status.state != "ready":
            raise TemporaryError(
                f"The cluster is not ready: {status.message}",
                where=status.server,
                remedy="Ask whoever runs the cluster; check the way there and the credentials.",
                delay=5,
            )

    def down(self) -> None:
        """Nothing: the cluster is somebody else's."""

    def status(self) -> ClusterStatus:
        """Return its state."""
        try:
            return readiness(self.path, self.context, self._state())
        except SekishoError as error:
            return self._state().model_copy(update={"message": str(error)})

    def kubeconfig(self) -> Path:
        """Return the profile's kubeconfig, checked."""
        check_kubeconfig(self.path, self.context)
        return self.path

    def _state(self) -> ClusterStatus:
        return ClusterStatus(zone=self.zone, provider=self.name, state="absent")
