"""harden: bound objects get the zone's agents, network rules and Pod Security. Pure and deterministic.

Rules:
    1. Only known kinds pass; a release brings no Secret, no role, and no Service that is reachable from outside.
    2. Every pod runs under Pod Security restricted: what is missing is filled in, what contradicts is refused.
    3. Every port of the workload is behind the zone's front agents, and the network lets nothing around them.
    4. Everything is denied but DNS, the way in that the profile names, and each binding's own address.
    5. Each field that is added or changed is explained.
    6. A Job's name ends in a digest of what it runs, for its template cannot be changed: another one is another Job,
       and the same one has run already.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from sekisho.canonical import digest_of_json, hex_of
from sekisho.errors import Refusal
from sekisho.model import Bound, Explained, Hardened, SealedRelease
from sekisho.profile import Agent, Profile
from sekisho.refs import Ref, apply_order
from sekisho.workloads import (
    WORKLOADS,
    containers_of,
    pod_template,
    pointer,
    selects,
    target_port,
    template_labels,
    template_path,
)
from stages.bind import Standard
from stages.harden.network import Rule, allow_binding, allow_dns, allow_ingress, default_deny
from stages.harden.restricted import restrict
from stages.harden.sidecars import choose_ports, is_front, listening, sidecar

__all__ = ["harden", "namespace_of"]

_FROM_RELEASE = {"ServiceAccount", "ConfigMap", "Service", "Deployment", "StatefulSet", "Job", "CronJob"}
_FROM_BINDING = {"Secret", "PersistentVolumeClaim", "Service", "StatefulSet", "ConfigMap"}
_PSS = "pod-security.kubernetes.io"


def namespace_of(app: str) -> str:
    """Return the namespace of an app, the same in every zone."""
    return f"app-{app}"


def harden(bound: Bound, profile: Profile, standard: Standard, release: SealedRelease) -> Hardened:
    """Harden bound objects for a zone.

    Args:
        bound: the release's objects with every need bound.
        profile: the zone's profile.
        standard: the standard images in force.
        release: the release, for the workload's environment.

    Raises:
        Refusal: an object cannot be run here safely; says which field.
    """
    if bound.zone != profile.zone or bound.release != release.digest:
        raise Refusal("The bound objects are of another zone or release.", where=f"{bound.zone}/{bound.app}")
    work = _Work(bound, profile, standard, release)
    work.run()
    return Hardened(
        app=bound.app,
        zone=bound.zone,
        release=bound.release,
        namespace=namespace_of(bound.app),
        objects=apply_order(work.objects),
        bindings=tuple(binding.model_copy(update={"objects": (), "explained": ()}) for binding in bound.bindings),
        explained=work.explanations(),
    )


class _Work:
    """One pass over an app's objects."""

    def __init__(self, bound: Bound, profile: Profile, standard: Standard, release: SealedRelease) -> None:
        self.bound = bound
        self.profile = profile
        self.standard = standard
        self.release = release
        self.provided = {Ref.of(obj).short for binding in bound.bindings for obj in binding.objects}
        self.objects: list[dict[str, Any]] = deepcopy(list(bound.objects))
        self.explained: list[Explained] = []
        self.behind: dict[str, dict[int, int]] = {}
        """By workload: each of its ports, and the port of the agent in front of it."""
        self.renamed: dict[str, str] = {}

    def run(self) -> None:
        if not self.objects:
            raise Refusal("The release has no objects.", where=self.bound.app)
        for obj in self.objects:
            self._check(obj)
        for obj in self.objects:
            if obj["kind"] in WORKLOADS:
                self._workload(obj)
        for obj in self.objects:
            if obj["kind"] == "Service" and self._is_way_in(obj):
                self._retarget(obj)
        rules = self._rules()
        namespace = namespace_of(self.bound.app)
        self.objects += [policy for policy, _ in rules]
        for obj in self.objects:
            obj["metadata"]["namespace"] = namespace
        self.explained.append(self._why("*", "/metadata/namespace", "Each app has its own namespace.", "namespace"))
        self.objects.append(self._namespace(namespace))
        self.explained += [explained for _, explained in rules]
        for obj in self.objects:
            if obj["kind"] == "Job":
                self._rename(obj)

    def explanations(self) -> tuple[Explained, ...]:
        """Return all that is said about fields, under the final names of their objects."""
        return tuple(
            item.model_copy(update={"object": self.renamed.get(item.object, item.object)})
            for item in (*self.bound.explained, *self.explained)
        )

    # -- checks ----------------------------------------------------------------------------------------------

    def _check(self, obj: dict[str, Any]) -> None:
        ref = Ref.of(obj)
        provided = ref.short in self.provided
        allowed = _FROM_BINDING if provided else _FROM_RELEASE
        if ref.kind not in allowed:
            raise Refusal(
                f"A release may not bring a {ref.kind}.",
                where=ref.short,
                remedy=f"Kinds of a release: {', '.join(sorted(allowed))}.",
            )
        if ref.namespace:
            raise Refusal("A release may not choose its namespace.", where=ref.short)
        if ref.kind == "Service" and not provided:
            spec = obj.get("spec") or {}
            if spec.get("type", "ClusterIP") != "ClusterIP" or spec.get("externalIPs") or spec.get("externalName"):
                raise Refusal(
                    "A release's Service may not open a way in from outside.",
                    where=ref.short,
                    remedy="Ask for a resource of type route; each zone decides how it is reached.",
                )
        if ref.kind == "ServiceAccount" and obj.get("automountServiceAccountToken") is not False:
            obj["automountServiceAccountToken"] = False
            self.explained.append(
                self._why(
                    ref.short,
                    "/automountServiceAccountToken",
                    "A workload has no business with the Kubernetes API.",
                    "Pod Security",
                )
            )

    def _is_way_in(self, service: Mapping[str, Any]) -> bool:
        selector = service["spec"].get("selector")
        selected = [obj for obj in self._own_workloads() if selects(selector, template_labels(obj))]
        if len(selected) > 1:
            raise Refusal(
                "It selects the pods of two workloads, which may stand behind different ports.",
                where=Ref.of(service).short,
            )
        return bool(selected)

    def _own_workloads(self) -> list[dict[str, Any]]:
        return [obj for obj in self.objects if obj["kind"] in WORKLOADS and Ref.of(obj).short not in self.provided]

    # -- pods ------------------------------------------------------------------------------------------------

    def _workload(self, obj: dict[str, Any]) -> None:
        short = Ref.of(obj).short
        path = template_path(obj["kind"])
        template = pod_template(obj)
        if template is None:
            raise Refusal("A workload without a pod template.", where=short)
        restricted, filled = restrict(template, where=short)
        parent: Any = obj
        for key in path[:-1]:
            parent = parent[key]
        parent[path[-1]] = restricted
        for at, why in filled:
            self.explained.append(self._why(short, pointer(*path) + at, why, "Pod Security"))
        if short in self.provided:
            return  # a service of the zone: it is the zone's own, and has no release
        self._environment(restricted, short, path)
        self._sidecars(obj, restricted, short, path)

    def _environment(self, template: dict[str, Any], short: str, path: tuple[str, ...]) -> None:
        wanted = {
            "SEKISHO_APP": self.bound.app,
            "SEKISHO_RELEASE": self.release.digest,
            "SEKISHO_ZONE": self.bound.zone,
        }
        for field, index, container in containers_of(template["spec"]):
            kept = [entry for entry in container.get("env") or [] if entry.get("name") not in wanted]
            container["env"] = kept + [{"name": name, "value": wanted[name]} for name in sorted(wanted)]
            at = pointer(*path, "spec", field, index, "env")
            why = f"The workload may say where it runs: {', '.join(sorted(wanted))}."
            self.explained.append(self._why(short, at, why, "environment"))

    def _sidecars(self, obj: dict[str, Any], template: dict[str, Any], short: str, path: tuple[str, ...]) -> None:
        agents = [agent for agent in self.profile.agents if agent.kind == "sidecar"]
        spec = template["spec"]
        targets = self._targets(obj, spec, short)
        fronts = [agent for agent in agents if is_front(agent)]
        behind = {target: target for target in targets}
        added: list[tuple[Agent, dict[str, Any]]] = []
        taken = listening(spec)
        names = {container["name"] for _, _, container in containers_of(spec)}
        # The first agent of the profile is the outermost: each one stands in front of what comes after it.
        for agent in reversed(fronts):
            image = self.standard.get(agent.image)
            chosen = choose_ports(agent, tuple(behind[target] for target in targets), taken, short)
            for index, target in enumerate(targets):
                inner = behind[target]
                suffix = f"-{index + 1}" if index else ""
                added.append((agent, sidecar(agent, image, target=inner, listen=chosen[inner], suffix=suffix)))
                behind[target] = chosen[inner]
                taken.add(chosen[inner])
        for agent in agents:
            if not is_front(agent):
                image = self.standard.get(agent.image)
                added.append((agent, sidecar(agent, image, target=None, listen=None, suffix="")))
        self.behind[short] = behind
        for index, (agent, container) in enumerate(added):
            if container["name"] in names:
                raise Refusal(
                    f"The workload has a container {container['name']!r}, which is the name of an agent.",
                    where=short,
                    remedy="Rename the container in score.yaml.",
                )
            at = pointer(*path, "spec", "initContainers", index)
            self.explained.append(self._why(short, at, agent.why, f"agent {agent.name}"))
        if added:
            spec["initContainers"] = [container for _, container in added] + list(spec.get("initContainers") or [])

    def _targets(self, obj: dict[str, Any], spec: dict[str, Any], short: str) -> tuple[int, ...]:
        found: set[int] = set()
        for service in self.objects:
            if service["kind"] != "Service" or not selects(service["spec"].get("selector"), template_labels(obj)):
                continue
            for port in service["spec"].get("ports") or []:
                where = f"Service/{service['metadata']['name']}"
                if port.get("protocol", "TCP") != "TCP":
                    raise Refusal("Only TCP ports can be put behind the zone's agents.", where=where)
                target = target_port(port, spec)
                if target is None:
                    raise Refusal(f"Its targetPort {port.get('targetPort')!r} is no port of {short}.", where=where)
                found.add(target)
        return tuple(sorted(found))

    def _rename(self, job: dict[str, Any]) -> None:
        before = Ref.of(job).short
        job["metadata"]["name"] += f"-{hex_of(digest_of_json(job))[:10]}"
        after = Ref.of(job).short
        self.renamed[before] = after
        why = "A Job cannot be changed: each version has its own name, and runs once."
        self.explained.append(self._why(after, "/metadata/name", why, "jobs"))

    # -- ways in and out -------------------------------------------------------------------------------------

    def _retarget(self, service: dict[str, Any]) -> None:
        short = Ref.of(service).short
        for obj in self._own_workloads():
            if not selects(service["spec"].get("selector"), template_labels(obj)):
                continue
            spec = (pod_template(obj) or {})["spec"]
            behind = self.behind[Ref.of(obj).short]
            for index, port in enumerate(service["spec"]["ports"]):
                target = target_port(port, spec)
                if target is None or behind.get(target, target) == target:
                    continue
                port["targetPort"] = behind[target]
                why = f"The way in leads to the agent in front of the workload's port {target}."
                at = pointer("spec", "ports", index, "targetPort")
                self.explained.append(self._why(short, at, why, "agents"))

    def _rules(self) -> list[Rule]:
        rules = [default_deny()]
        if self.profile.network.dns:
            rules.append(allow_dns(self.profile))
        for obj in self._own_workloads():
            ref = Ref.of(obj)
            labels = self._selector(obj)
            behind = self.behind[ref.short]
            if behind:
                ports = sorted(set(behind.values()))
                by = f"{ref.name} at {', '.join(map(str, ports))}"
                rules.append(allow_ingress(ref.name, labels, ports, self.profile, by))
            for binding in self.bound.bindings:
                rules += allow_binding(binding, ref.name, labels)
        return rules

    def _selector(self, obj: dict[str, Any]) -> dict[str, str]:
        declared = (obj.get("spec") or {}).get("selector") or {}
        labels = declared.get("matchLabels") or template_labels(obj)
        if not labels:
            raise Refusal("Its pods have no labels, so that no network rule can name them.", where=Ref.of(obj).short)
        return dict(labels)

    def _namespace(self, name: str) -> dict[str, Any]:
        labels = {f"{_PSS}/{mode}": "restricted" for mode in ("enforce", "audit", "warn")}
        labels |= {
            "sekisho.dev/governed": "true",
            "sekisho.dev/app": self.bound.app,
            "app.kubernetes.io/managed-by": "sekisho",
        }
        why = "The API server itself refuses pods that are not restricted, and applies the admission policies here."
        self.explained.append(self._why(f"Namespace/{name}", "/metadata/labels", why, "Pod Security"))
        return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}

    def _why(self, short: str, path: str, why: str, rule: str) -> Explained:
        return Explained(object=short, path=path, why=why, by=f"harden: {rule}")
