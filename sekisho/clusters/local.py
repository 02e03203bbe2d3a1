"""The embedded default: real Kubernetes components in the zone's own network namespace (Linux, root)."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from sekisho.clusters.interface import ClusterStatus
from sekisho.embedded import netns
from sekisho.embedded.cluster_home import ClusterHome
from sekisho.embedded.kubeapi import KubeApi
from sekisho.embedded.zones import down, up
from sekisho.errors import PermanentError, SekishoError
from sekisho.profile import Profile
from sekisho.zones import CLUSTER_ZONES, Zone, ZoneHome


class LocalCluster:
    """A zone's embedded cluster, with its registry and databases."""

    name: ClassVar[str] = "local"

    def __init__(self, profile: Profile) -> None:
        if profile.zone not in {str(zone) for zone in CLUSTER_ZONES}:
            raise PermanentError(
                f"There is no embedded cluster for the zone {profile.zone}.",
                where=profile.zone,
                remedy=f"The embedded zones are {', '.join(CLUSTER_ZONES)}; others need provider kind or kubeconfig.",
            )
        self.zone = Zone(profile.zone)

    def up(self) -> None:
        """Bring the zone's cluster and services up, without the processes of the line."""
        up([self.zone], line=False)

    def down(self) -> None:
        """End the zone; its data stays."""
        down([self.zone])

    def status(self) -> ClusterStatus:
        """Return its state."""
        server = ClusterHome(self.zone).server
        state = ClusterStatus(zone=str(self.zone), provider=self.name, state="absent", server=server)
        if not netns.exists(netns.namespace(self.zone)) or not ClusterHome(self.zone).authority.certificate.exists():
            return state
        api = KubeApi(self.zone)
        try:
            ready = api.node_ready()
        except (SekishoError, OSError) as error:
            return state.model_copy(update={"state": "not-ready", "message": str(error)})
        finally:
            api.close()
        return state.model_copy(update={"state": "ready" if ready else "not-ready"})

    def kubeconfig(self) -> Path:
        """Return the zone's kubeconfig."""
        path = ZoneHome(self.zone).kubeconfig
        if not path.exists():
            raise PermanentError(
                "The zone's cluster was never up.", where=str(path), remedy=f"sekisho up --zones {self.zone}"
            )
        return path
