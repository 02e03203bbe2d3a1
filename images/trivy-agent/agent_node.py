# ruff: noqa: INP001 - a file inside an image, not a package
"""What runs on a node, from the API server, and where its images are in the zone's registry."""

from __future__ import annotations

import json
import re
import ssl
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

IMAGE_HOST = "registry.sekisho.internal"
"""Host in every image reference of the line; REGISTRY is where this zone's registry really is."""
ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
HTTP_SECONDS = 15
PAGE = 200
ANSWER_LIMIT = 64 << 20
_REFERENCE = re.compile(r"(?:[a-z-]+://)?([^/@\s]+)/([a-z0-9._/-]+)(?::[\w.-]+)?@(sha256:[0-9a-f]{64})")


class Unreachable(Exception):
    """Something outside did not answer as it should; the message says what."""


@dataclass(frozen=True)
class Settings:
    """What the environment says."""

    node: str
    zone: str
    registry: str
    database: str
    interval: float
    port: int = 9480
    api: str = "https://kubernetes.default.svc"
    account: Path = ACCOUNT
    cache: Path = Path("/tmp/trivy")  # noqa: S108 - the pod's own emptyDir
    trivy: str = "trivy"

    @classmethod
    def from_environment(cls, environment: dict[str, str]) -> Settings:
        """Read the settings; raises ValueError with the name of what is missing or wrong."""
        values = {}
        for name in ("NODE_NAME", "ZONE", "REGISTRY", "TRIVY_DB_REPOSITORY"):
            values[name] = environment.get(name, "")
            if not values[name]:
                raise ValueError(f"the environment variable {name} is not set")
        host, port = environment.get("KUBERNETES_SERVICE_HOST"), environment.get("KUBERNETES_SERVICE_PORT", "443")
        api = f"https://{f'[{host}]' if ':' in host else host}:{port}" if host else cls.api
        interval = float(environment.get("INTERVAL") or "300")
        if interval <= 0:
            raise ValueError("INTERVAL must be more than 0 seconds")
        return cls(
            node=values["NODE_NAME"],
            zone=values["ZONE"],
            registry=values["REGISTRY"],
            database=values["TRIVY_DB_REPOSITORY"],
            interval=interval,
            port=int(environment.get("LISTEN") or "9480"),
            api=environment.get("KUBERNETES_API") or api,
        )


@dataclass(frozen=True)
class Running:
    """One image that runs on the node, and the pods it runs in."""

    reference: str
    """As the container runtime or the pod names it."""
    repository: str = ""
    digest: str = ""
    """Empty where the image cannot be scanned; then `why` says why."""
    pods: tuple[str, ...] = ()
    why: str = ""


def running_images(pods: list[dict[str, Any]]) -> list[Running]:
    """Return the distinct images of pods, from the answers of the API server."""
    found: dict[tuple[str, str], set[str]] = {}
    for pod in pods:
        metadata, status = pod.get("metadata") or {}, pod.get("status") or {}
        name = f"{metadata.get('namespace', '')}/{metadata.get('name', '')}"
        for kind in ("initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses"):
            for container in status.get(kind) or []:
                identity, image = str(container.get("imageID") or ""), str(container.get("image") or "")
                found.setdefault((identity, image), set()).add(name)
    merged: dict[tuple[str, str, str, str], set[str]] = {}
    for (identity, image), names in found.items():
        repository, digest, why = locate(identity, image)
        shown = f"{IMAGE_HOST}/{repository}@{digest}" if digest else identity or image
        merged.setdefault((shown, repository, digest, why), set()).update(names)
    return [
        Running(reference=shown, repository=repository, digest=digest, pods=tuple(sorted(names)), why=why)
        for (shown, repository, digest, why), names in sorted(merged.items())
    ]


def locate(identity: str, image: str) -> tuple[str, str, str]:
    """Return repository and digest in the zone's registry, and why an image is not to be found there."""
    for reference in (identity, image):
        match = _REFERENCE.fullmatch(reference)
        if match and match[1] == IMAGE_HOST:
            return match[2], match[3], ""
    if not identity:
        return "", "", "it was not pulled yet"
    match = _REFERENCE.fullmatch(identity) or _REFERENCE.fullmatch(image)
    if match:
        return "", "", f"it comes from {match[1]}, not from the zone's registry"
    return "", "", "the container runtime names no digest of a registry"


def list_pods(settings: Settings) -> list[dict[str, Any]]:
    """Return the node's pods. Raises Unreachable."""
    try:
        token = (settings.account / "token").read_text(encoding="ascii").strip()
        authority = settings.account / "ca.crt"
        context = ssl.create_default_context(cafile=str(authority)) if settings.api.startswith("https:") else None
    except (OSError, ValueError) as error:
        raise Unreachable(f"the ServiceAccount cannot be read: {error}") from error
    pods: list[dict[str, Any]] = []
    following = ""
    while True:
        query = {"fieldSelector": f"spec.nodeName={settings.node}", "limit": str(PAGE)}
        if following:
            query["continue"] = following
        url = f"{settings.api}/api/v1/pods?{urllib.parse.urlencode(query)}"
        answer = get(url, {"Authorization": f"Bearer {token}", "Accept": "application/json"}, context)[0]
        try:
            page = json.loads(answer)
            pods.extend(page["items"])
            following = page.get("metadata", {}).get("continue") or ""
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise Unreachable(f"the API server's list of pods cannot be read: {error}") from error
        if not following:
            return pods


def get(url: str, headers: dict[str, str], context: ssl.SSLContext | None = None) -> tuple[bytes, Any]:
    """Return body and headers of an answer. Raises Unreachable."""
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - http and https, from our own settings
    host = urllib.parse.urlsplit(url).netloc
    try:
        with urllib.request.urlopen(request, timeout=HTTP_SECONDS, context=context) as answer:  # noqa: S310
            data = answer.read(ANSWER_LIMIT + 1)
            if len(data) > ANSWER_LIMIT:
                raise Unreachable(f"{host} answers more than {ANSWER_LIMIT} bytes")
            return data, answer.headers
    except urllib.error.HTTPError as error:
        raise Unreachable(f"{host} answers {error.code} {error.reason}") from error
    except (OSError, ValueError) as error:
        raise Unreachable(f"{host} does not answer: {error}") from error
