"""Developers of the embedded dev zone: a folder for each, with a credential of their own for the dev cluster.

The certificate is signed by the dev zone's own authority, which nobody but root reads. `sekisho dev` on the embedded
zone runs as root all the same, because the zone's Docker socket is root's; what it does in the cluster, it does with
the developer's own rights.
"""

from __future__ import annotations

import getpass
import os
from dataclasses import dataclass
from pathlib import Path

from sekisho.developers import GROUP, USER_PREFIX, developer_name
from sekisho.embedded import cluster_config
from sekisho.embedded.cluster_home import ClusterHome
from sekisho.embedded.owners import Owner, ensure_folder, write_file
from sekisho.embedded.pki import Leaf
from sekisho.errors import PermanentError
from sekisho.zones import Zone, ZoneHome


@dataclass(frozen=True)
class DeveloperHome:
    """Where a developer's things for the dev zone are (root's, mode 0700)."""

    name: str

    @property
    def root(self) -> Path:
        """The developer's folder."""
        return ZoneHome(Zone.DEV).root / "developers" / self.name

    @property
    def kubeconfig(self) -> Path:
        """Kubeconfig with the developer's own rights, and no more."""
        return self.root / "kubeconfig"


def login() -> str:
    """Return the login name of the person who calls, also behind sudo."""
    return os.environ.get("SUDO_USER") or getpass.getuser()


def invite(login_name: str) -> DeveloperHome:
    """Give a developer a folder and a credential; again and again without harm. Root only.

    Raises:
        PermanentError: the dev zone was never up, or the caller is not root.
    """
    home = DeveloperHome(developer_name(login_name))
    cluster = ClusterHome(Zone.DEV)
    if os.geteuid() != 0:
        raise PermanentError(
            "The embedded dev zone is root's: its Docker socket and the keys of its cluster.",
            where=str(home.root),
            remedy="Start it with sudo: sudo sekisho dev",
        )
    if not cluster.authority.certificate.exists():
        raise PermanentError(
            "The dev zone was never up.", where=str(cluster.root), remedy="Start it: sekisho up --zones dev"
        )
    ensure_folder(home.root.parent, 0o700, Owner())
    ensure_folder(home.root, 0o700, Owner())
    leaf = Leaf(f"developer-{home.name}", f"{USER_PREFIX}{home.name}", (GROUP,))
    cluster.authority.ensure(f"sekisho {Zone.DEV}", (leaf,))
    write_file(home.kubeconfig, cluster_config.kubeconfig(cluster, leaf.name), 0o600, Owner())
    return home
