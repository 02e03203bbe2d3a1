"""What a provider of a capability is given and must do, and the shape of a Service Binding.

Source of the Secret's shape: Service Binding Specification for Kubernetes 1.1, "Provisioned Service".
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

from sekisho.errors import Refusal
from sekisho.model import Binding, Need, StandardImage
from sekisho.profile import Capability
from sekisho.vault import Vault

FINGERPRINT = "sekisho.dev/binding-fingerprint"
NEED = "sekisho.dev/need"
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_IDENTIFIER_LENGTH = 63
_PASSWORD_BYTES = 32


class Standard(Protocol):
    """The standard images in force."""

    def get(self, name: str) -> StandardImage:
        """Return a standard image by name."""
        ...


@dataclass(frozen=True)
class Services:
    """What providers may use.

    Args:
        standard: the standard images of the zone's policies.
        secrets: the folder with the passwords of the zone's own services, one file each.
    """

    standard: Standard
    secrets: Path


@dataclass(frozen=True)
class Request:
    """One need and the capability that shall meet it."""

    app: str
    zone: str
    need: Need
    capability: Capability
    objects: tuple[dict[str, Any], ...]
    """The release's own objects; never changed by a provider."""
    services: Services
    namespace: str
    """Where the release's objects will be."""

    @property
    def name(self) -> str:
        """The name of what is made for the need: `<app>-<need>`."""
        return f"{self.app}-{self.need.name}"

    @property
    def secret(self) -> str:
        """The name of the need's Secret."""
        return f"{self.name}-binding"

    @property
    def by(self) -> str:
        """Who explains: stage, need and capability."""
        capability = self.capability
        return f"bind: need {self.need.name} by {capability.type}/{capability.resource_class} ({capability.provider})"

    def labels(self, name: str) -> dict[str, str]:
        """Return the labels of an object that the zone adds."""
        return {
            "app.kubernetes.io/name": name,
            "app.kubernetes.io/part-of": self.app,
            "app.kubernetes.io/managed-by": "sekisho",
        }

    def refuse(self, what: str, remedy: str = "") -> Refusal:
        """Return the Refusal of this need."""
        return Refusal(
            f"Need {self.need.name!r} cannot be met in zone {self.zone}: {what}",
            where=f"score.yaml resources/{self.need.name}",
            remedy=remedy,
        )


class Provider(Protocol):
    """Makes one kind of service available to a workload."""

    def names(self, request: Request) -> tuple[tuple[str, str], ...]:
        """Return kind and name of each object that `bind` will give."""
        ...

    def check(self, request: Request) -> None:
        """Refuse what cannot be met. Has no effect."""
        ...

    def bind(self, request: Request, vault: Vault) -> Binding:
        """Make the service available; safe to run again."""
        ...


def check_need(request: Request, known: Collection[str] = ()) -> None:
    """Refuse a need with an unusable name, a shared identity, or parameters that nobody would honour."""
    if not _NAME.fullmatch(request.need.name) or not _NAME.fullmatch(request.secret):
        raise request.refuse(
            f"{request.secret[:90]!r} cannot be the name of an object.",
            "Name the resource with at most a few dozen lower-case letters, digits and dashes.",
        )
    if request.need.id:
        raise request.refuse("a service shared between workloads (id) is not offered.", "Leave `id` out.")
    unknown = sorted(set(request.need.params) - set(known))
    if unknown:
        raise request.refuse(
            f"the parameters {', '.join(unknown)[:200]} are not known here.",
            f"Known parameters: {', '.join(sorted(known)) or 'none'}.",
        )


def identifier(app: str, need: str) -> str:
    """Return the name of an app's role and database: unique for (app, need), at most 63 characters."""
    # No app or need has an underscore, so that `a` + `b-c` and `a-b` + `c` stay apart.
    name = f"{app.replace('-', '$')}_{need.replace('-', '$')}"
    if "$" in name or len(name) > _IDENTIFIER_LENGTH:
        tail = hashlib.sha256(f"{app}/{need}".encode()).hexdigest()[:8]
        plain = re.sub(r"[^a-z0-9_]", "_", name)[: _IDENTIFIER_LENGTH - len(tail) - 1]
        return f"{plain}_{tail}"
    return name


def postgres_entries(
    request: Request, vault: Vault, *, host: str, port: int, username: str, database: str
) -> dict[str, str]:
    """Return the Service Binding entries of a PostgreSQL, with the password the vault has, or a new one."""
    kept = vault.get(request.app, request.need.name) or {}
    same = kept.get("provider") == request.capability.provider and kept.get("username") == username
    password = kept["password"] if same and kept.get("password") else secrets.token_urlsafe(_PASSWORD_BYTES)
    entries = {
        "type": "postgresql",
        "provider": request.capability.provider,
        "host": host,
        "port": str(port),
        "username": username,
        "password": password,
        "database": database,
        "uri": f"postgresql://{quote(username, safe='')}:{quote(password, safe='')}@{_bracketed(host)}:{port}"
        f"/{quote(database, safe='')}",
    }
    if entries != kept:
        vault.put(request.app, request.need.name, entries)
    return entries


def binding_secret(request: Request, fingerprint: str, entries: Mapping[str, str]) -> dict[str, Any]:
    """Return the need's Secret without its data; apply fills it in from the vault."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": request.secret,
            "labels": request.labels(request.app),
            "annotations": {FINGERPRINT: fingerprint, NEED: request.need.name},
        },
        "type": f"servicebinding.io/{entries['type']}",
    }


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
