"""bind: each need of a release meets the zone's real service.

The manifests are the same bytes in every zone; what differs comes in here, from the zone's profile. The result is a
function of the signed manifests, the profile and the zone's own credentials, and says of each added object why.

Rules:
    1. Every need is checked before anything is made: an unmet need stops the line with nothing touched.
    2. Credentials are kept in the zone's vault first, and only then given to a server.
    3. No credential is in the result: a Secret comes without data, with a fingerprint that apply checks.
    4. Binding again changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from sekisho.errors import Refusal
from sekisho.model import Binding, Bound, Explained, Manifests, Need, SealedRelease
from sekisho.profile import Capability, Profile
from sekisho.refs import Ref
from sekisho.vault import Vault
from stages.bind.contract import FINGERPRINT, Provider, Request, Services, Standard
from stages.bind.external import PostgresExternal
from stages.bind.in_cluster import PostgresInCluster
from stages.bind.simple import NodePort, Volume

__all__ = ["Met", "Services", "Standard", "bind", "meet"]

_PROVIDERS: Mapping[str, Provider] = {
    "postgres-in-cluster": PostgresInCluster(),
    "postgres-external": PostgresExternal(),
    "node-port": NodePort(),
    "volume": Volume(),
}


def bind(manifests: Manifests, sealed: SealedRelease, profile: Profile, vault: Vault, services: Services) -> Bound:
    """Bind every need of a release to the zone's services.

    Args:
        manifests: the release's environment-neutral objects and needs.
        sealed: the release that they belong to.
        profile: the zone's profile, with its capabilities.
        vault: keeps the credentials.
        services: standard images, and the passwords of the zone's own services.

    Raises:
        Refusal: a need is unmet, asks for what the capability cannot do, or its objects collide with the release's.
        TemporaryError: a service of the zone is not reachable.
        PermanentError: the zone's own configuration is wrong.
    """
    if manifests.app != sealed.release.app:
        raise Refusal(f"The manifests are of {manifests.app}, the release is of {sealed.release.app}.")
    met = meet(manifests, profile, vault, services, namespace=f"app-{manifests.app}")
    return Bound(app=manifests.app, zone=profile.zone, release=sealed.digest, **vars(met))


@dataclass(frozen=True)
class Met:
    """Objects whose every need is met."""

    objects: tuple[dict[str, Any], ...]
    bindings: tuple[Binding, ...]
    explained: tuple[Explained, ...]


def meet(manifests: Manifests, profile: Profile, vault: Vault, services: Services, *, namespace: str) -> Met:
    """Meet every need of rendered objects, released or not.

    Args:
        manifests: the environment-neutral objects and needs.
        profile: the zone's profile, with its capabilities.
        vault: keeps the credentials.
        services: standard images, and the passwords of the zone's own services.
        namespace: where the objects will be.

    Raises:
        Refusal, TemporaryError, PermanentError: as `bind`.
    """
    matched = [(need, _capability(need, profile)) for need in manifests.needs]
    requests = [
        Request(manifests.app, profile.zone, need, capability, manifests.objects, services, namespace)
        for need, capability in matched
    ]
    for request in requests:
        _PROVIDERS[request.capability.provider].check(request)
    _no_collision(manifests.objects, requests)
    bindings = tuple(_PROVIDERS[request.capability.provider].bind(request, vault) for request in requests)
    objects = list(deepcopy(manifests.objects))
    explained = [item for binding in bindings for item in binding.explained]
    for binding in bindings:
        if binding.fingerprint:
            explained += _mark(objects, binding)
        objects += binding.objects
    return Met(tuple(objects), bindings, tuple(explained))


def _capability(need: Need, profile: Profile) -> Capability:
    capability = profile.capability(need.type, need.resource_class)
    if capability is None:
        offers = ", ".join(sorted(f"{item.type}/{item.resource_class}" for item in profile.capabilities)) or "nothing"
        raise Refusal(
            f"Unmet need {need.name!r}: zone {profile.zone} offers no {need.type}/{need.resource_class}; "
            f"it offers {offers}.",
            where=f"score.yaml resources/{need.name}",
            remedy=f"Ask for what the zone offers, or have the platform team add the capability to {profile.zone}.",
        )
    return capability


def _no_collision(objects: tuple[dict[str, Any], ...], requests: list[Request]) -> None:
    taken = {(ref.kind, ref.name): "the release" for ref in map(Ref.of, objects)}
    for request in requests:
        for kind, name in _PROVIDERS[request.capability.provider].names(request):
            owner = taken.setdefault((kind, name), f"need {request.need.name!r}")
            if owner != f"need {request.need.name!r}":
                raise Refusal(
                    f"{kind}/{name} would be made for need {request.need.name!r}, and {owner} already has one.",
                    where=f"score.yaml resources/{request.need.name}",
                    remedy="Rename the resource in score.yaml.",
                )


def _mark(objects: list[dict[str, Any]], binding: Binding) -> Iterator[Explained]:
    """Write the credentials' fingerprint on each pod template that uses them, so that a change rolls the pods."""
    key = f"{FINGERPRINT}.{binding.need}"
    for obj in objects:
        template = obj.get("spec", {}).get("template") if isinstance(obj.get("spec"), dict) else None
        if not isinstance(template, dict) or not _mentions(template, binding.secret):
            continue
        metadata = template.setdefault("metadata", {})
        metadata.setdefault("annotations", {})[key] = binding.fingerprint
        yield Explained(
            object=Ref.of(obj).short,
            path=f"/spec/template/metadata/annotations/{key.replace('/', '~1')}",
            why="New credentials must reach the running pods: the fingerprint changes with them.",
            by=f"bind: need {binding.need}",
        )


def _mentions(value: Any, secret: str) -> bool:
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "secretName" and inner == secret:
                return True
            if (
                key in {"secretKeyRef", "secretRef", "secret"}
                and isinstance(inner, dict)
                and inner.get("name") == secret
            ):
                return True
            if _mentions(inner, secret):
                return True
        return False
    return isinstance(value, list) and any(_mentions(inner, secret) for inner in value)
