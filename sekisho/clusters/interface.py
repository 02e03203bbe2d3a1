"""What the line asks of whoever provides a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal, Protocol

from sekisho.model import Document


class ClusterStatus(Document):
    """What a provider knows about its cluster now."""

    zone: str
    provider: str
    state: Literal["ready", "not-ready", "absent"]
    server: str = ""
    message: str = ""


class ClusterProvider(Protocol):
    """One zone's cluster. Every method is safe to call again."""

    name: ClassVar[str]

    def up(self) -> None:
        """Have the cluster run and answer.

        Raises:
            PermanentError: this machine or this profile cannot have it.
            TemporaryError: it did not come up in time.
        """

    def down(self) -> None:
        """End the cluster where the provider made it; one that it was only pointed at goes on."""

    def status(self) -> ClusterStatus:
        """Return its state; never raises for a cluster that is merely absent."""

    def kubeconfig(self) -> Path:
        """Return the file that the zone's process reaches it by.

        Raises:
            PermanentError: there is none yet.
        """
