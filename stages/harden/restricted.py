"""Pod Security Standards, level `restricted`: fill in what is missing, refuse what contradicts.

Source: https://kubernetes.io/docs/concepts/security/pod-security-standards/ (v1.36). Stricter in two things: no token
of the Kubernetes API in a workload's pod, and no volumes from images.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any

from sekisho.errors import Refusal
from sekisho.workloads import containers_of, pointer

_VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}
_SECCOMP = {"RuntimeDefault", "Localhost"}
_SELINUX = {"", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"}
_SYSCTLS = {
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
}
_APPARMOR_ANNOTATION = "container.apparmor.security.beta.kubernetes.io/"
_PROBES = ("livenessProbe", "readinessProbe", "startupProbe")

Problem = tuple[str, str]
"""JSON pointer and what is wrong there."""


def violations(template: Mapping[str, Any]) -> tuple[Problem, ...]:
    """Return what keeps a pod template out of `restricted`; pointers are relative to the template."""
    spec = template.get("spec") or {}
    annotations = (template.get("metadata") or {}).get("annotations") or {}
    found = [
        (pointer("metadata", "annotations", key), "AppArmor must be runtime/default or localhost")
        for key, value in annotations.items()
        if key.startswith(_APPARMOR_ANNOTATION) and value != "runtime/default" and not value.startswith("localhost/")
    ]
    found += _pod_level(spec)
    found += _volumes(spec)
    pod_context = spec.get("securityContext") or {}
    containers = list(containers_of(spec))
    if not containers:
        found.append(("/spec/containers", "a pod without containers"))
    for field, index, container in containers:
        found += _container(("spec", field, index), container, pod_context)
    return tuple(found)


def restrict(template: Mapping[str, Any], *, where: str) -> tuple[dict[str, Any], tuple[Problem, ...]]:
    """Return the template with what `restricted` asks for filled in, and the pointers that were filled.

    Raises:
        Refusal: the template contradicts the level; names each field.
    """
    result = deepcopy(dict(template))
    spec = result.setdefault("spec", {})
    added: list[Problem] = []

    def fill(target: dict[str, Any], key: str, value: Any, at: tuple[str | int, ...], why: str) -> None:
        if target.get(key) is None:
            target[key] = value
            added.append((pointer(*at, key), why))

    context = _mapping(spec, "securityContext")
    at: tuple[str | int, ...] = ("spec", "securityContext")
    fill(context, "runAsNonRoot", True, at, "Pod Security restricted: never root")
    fill(context, "seccompProfile", {"type": "RuntimeDefault"}, at, "Pod Security restricted: the runtime's seccomp")
    if spec.get("automountServiceAccountToken") is not False:
        spec["automountServiceAccountToken"] = False
        added.append(("/spec/automountServiceAccountToken", "A workload has no business with the Kubernetes API"))
    for field, index, container in containers_of(spec):
        context = _mapping(container, "securityContext")
        at = ("spec", field, index, "securityContext")
        fill(context, "allowPrivilegeEscalation", False, at, "Pod Security restricted: no setuid")
        fill(context, "capabilities", {"drop": ["ALL"]}, at, "Pod Security restricted: no capabilities")
    problems = violations(result)
    if problems:
        listed = "; ".join(f"{path}: {text}" for path, text in problems[:10])
        raise Refusal(
            f"{where} cannot run under Pod Security restricted: {listed}.",
            where=where,
            remedy="Take these fields out of the workload; a platform's agent that needs them runs as a DaemonSet.",
        )
    return result, tuple(added)


def _mapping(parent: dict[str, Any], key: str) -> dict[str, Any]:
    value = parent.get(key)
    if value is None:
        value = parent[key] = {}
    return value if isinstance(value, dict) else {}


def _pod_level(spec: Mapping[str, Any]) -> Iterator[Problem]:
    for key in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(key):
            yield pointer("spec", key), "the host's namespaces are the host's"
    if spec.get("automountServiceAccountToken") is not False:
        yield "/spec/automountServiceAccountToken", "must be false"
    context = spec.get("securityContext") or {}
    for sysctl in context.get("sysctls") or []:
        if sysctl.get("name") not in _SYSCTLS:
            yield "/spec/securityContext/sysctls", f"{sysctl.get('name')} is not a safe sysctl"
    yield from _context(("spec", "securityContext"), context)


def _volumes(spec: Mapping[str, Any]) -> Iterator[Problem]:
    for index, volume in enumerate(spec.get("volumes") or []):
        kinds = {key for key, value in volume.items() if key != "name" and value is not None}
        if not kinds <= _VOLUMES:
            yield pointer("spec", "volumes", index), f"volume type {', '.join(sorted(kinds - _VOLUMES))}"
        for source in (volume.get("projected") or {}).get("sources") or []:
            if source.get("serviceAccountToken") or source.get("clusterTrustBundle"):
                yield pointer("spec", "volumes", index, "projected"), "no token of the Kubernetes API"


def _container(
    at: tuple[str | int, ...], container: Mapping[str, Any], pod_context: Mapping[str, Any]
) -> Iterator[Problem]:
    context = container.get("securityContext") or {}
    here = (*at, "securityContext")
    yield from _context(here, context)
    if context.get("privileged"):
        yield pointer(*here, "privileged"), "privileged"
    if context.get("allowPrivilegeEscalation") is not False:
        yield pointer(*here, "allowPrivilegeEscalation"), "must be false"
    capabilities = context.get("capabilities") or {}
    if "ALL" not in (capabilities.get("drop") or []):
        yield pointer(*here, "capabilities", "drop"), "must drop ALL"
    if extra := set(capabilities.get("add") or []) - {"NET_BIND_SERVICE"}:
        yield pointer(*here, "capabilities", "add"), f"adds {', '.join(sorted(map(str, extra)))}"
    if context.get("procMount") not in {None, "Default"}:
        yield pointer(*here, "procMount"), "must be Default"
    if not (context.get("runAsNonRoot") or (context.get("runAsNonRoot") is None and pod_context.get("runAsNonRoot"))):
        yield pointer(*here, "runAsNonRoot"), "must be true here or for the pod"
    profile = (context.get("seccompProfile") or pod_context.get("seccompProfile") or {}).get("type")
    if profile not in _SECCOMP:
        yield pointer(*here, "seccompProfile"), "must be RuntimeDefault or Localhost, here or for the pod"
    for index, port in enumerate(container.get("ports") or []):
        if port.get("hostPort"):
            yield pointer(*at, "ports", index, "hostPort"), "ports of the host are the host's"
    yield from _hosts(at, container)


def _hosts(at: tuple[str | int, ...], container: Mapping[str, Any]) -> Iterator[Problem]:
    actions = [(key, container.get(key) or {}) for key in _PROBES]
    lifecycle = container.get("lifecycle") or {}
    actions += [(key, lifecycle.get(key) or {}) for key in ("postStart", "preStop")]
    for key, action in actions:
        for kind in ("httpGet", "tcpSocket"):
            if (action.get(kind) or {}).get("host"):
                yield pointer(*at, key, kind, "host"), "probes go to the pod itself"


def _context(at: tuple[str | int, ...], context: Mapping[str, Any]) -> Iterator[Problem]:
    if context.get("runAsUser") == 0:
        yield pointer(*at, "runAsUser"), "root"
    if context.get("runAsNonRoot") is False:
        yield pointer(*at, "runAsNonRoot"), "must not be false"
    seccomp = context.get("seccompProfile")
    if seccomp is not None and seccomp.get("type") not in _SECCOMP:
        yield pointer(*at, "seccompProfile", "type"), "must be RuntimeDefault or Localhost"
    selinux = context.get("seLinuxOptions") or {}
    if selinux.get("type", "") not in _SELINUX or selinux.get("user") or selinux.get("role"):
        yield pointer(*at, "seLinuxOptions"), "SELinux user, role or type"
    if (context.get("windowsOptions") or {}).get("hostProcess"):
        yield pointer(*at, "windowsOptions", "hostProcess"), "host process"
    if (context.get("appArmorProfile") or {}).get("type") == "Unconfined":
        yield pointer(*at, "appArmorProfile"), "AppArmor must not be Unconfined"
