"""The render stage: score.yaml to environment-neutral Kubernetes objects.

The same bytes serve every zone: no secret, no tag, no namespace, nothing random. Conventions that bind and harden
build on: everything is named after the app; the need `db` is mounted from Secret `<app>-db-binding` at `/bindings/db`;
a `route` renders to nothing; a `volume` uses PersistentVolumeClaim `<app>-<need>`, or an emptyDir when its
class is `ephemeral`. Resources of one type, class and id are one need, under the first of their names; each name keeps
its own folder in /bindings. render_kinds.py says which controller it becomes.
"""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Any

from sekisho.canonical import digest_of_json
from sekisho.errors import Refusal
from sekisho.model import IMAGE_HOST, Manifests, Need
from sekisho.score import PlaceholderError, Problem, Problems, Reference, Workload, load_score, resolve, start_order
from sekisho.score.environment import BINDING_ROOT, binding_secret, bound_needs, environment
from sekisho.score.files import MAX_FILE, Read
from sekisho.score.probes import probes
from sekisho.score.quantity import cpu_text, is_binary, memory_bytes, memory_text, milli_cpus
from sekisho.score.source import step
from sekisho.score.workload import Container, File
from stages.render_kinds import controller, is_setting, shape_of

USER = 10001
"""User and group of every workload; standard images own nothing of it."""
MAX_APP = 50
"""Leaves room for what is named after the app: namespace `app-<app>`, Service `<app>-route`."""

_PINNED = re.compile(rf"{re.escape(IMAGE_HOST)}/[a-z0-9]+([._/-][a-z0-9]+)*@sha256:[0-9a-f]{{64}}")
_APP = re.compile(rf"[a-z][a-z0-9-]{{0,{MAX_APP - 2}}}[a-z0-9]")
_DEFAULT_REQUEST = {"cpu": 50, "memory": 64 * 2**20}
_DEFAULT_LIMIT = {"cpu": 500, "memory": 256 * 2**20}
LANGUAGE_ANNOTATION = "build.sekisho.dev/language"
"""Says which language a folder is that looks like two; see stages/build/detect.py."""
_PORT = "PORT"
_OWN_PREFIXES = ("kubernetes.io", "k8s.io", "sekisho.dev", "k8s.score.dev")
_MAX_ANNOTATIONS = 64 * 1024
_MAX_PREFIX = 253
"""Of an annotation's key; a DNS subdomain (k8s.io/apimachinery/pkg/util/validation, IsQualifiedName)."""
_STORAGE = re.compile(r"[1-9][0-9]*(Ki|Mi|Gi)")
_CONTAINER_SECURITY = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
}
_POD_SECURITY = {
    "runAsNonRoot": True,
    "runAsUser": USER,
    "runAsGroup": USER,
    "fsGroup": USER,
    "seccompProfile": {"type": "RuntimeDefault"},
}


def render(
    score: bytes,
    *,
    app: str,
    image: str,
    launcher: tuple[str, ...] = (),
    where: str = "score.yaml",
    read: Read | None = None,
) -> Manifests:
    """Render a Score file to objects without a namespace.

    Args:
        score: the bytes of score.yaml.
        app: the app's name; must be the file's metadata.name.
        image: reference of the built image, `registry.sekisho.internal/...@sha256:...`; stands where the file says `.`.
        launcher: what that image puts in front of every command (`Image.launcher`); a container's own command stands
            behind it as well, although Kubernetes' `command` replaces an image's entrypoint.
        where: the file's name in messages.
        read: reads what `source:` names beside score.yaml (`sekisho.score.reader`); without it such files are refused.

    Raises:
        Problems: (a Refusal) everything that is wrong with the file, with JSON pointer and line.
        Refusal: `image` is not pinned by digest.
    """
    if not _PINNED.fullmatch(image):
        raise Refusal(f"The image {image[:200]!r} is not a digest of {IMAGE_HOST}.")
    return _Render(load_score(score, where, read), app, image, launcher).manifests()


class _Render:
    """One rendering; gathers all problems before it refuses."""

    def __init__(self, workload: Workload, app: str, image: str, launcher: tuple[str, ...]) -> None:
        self.workload = workload
        self.app = app
        self.image = image
        self.launcher = launcher
        self.problems: list[Problem] = []
        self.labels = {"app.kubernetes.io/managed-by": "sekisho", "app.kubernetes.io/name": app}

    def manifests(self) -> Manifests:
        self._check_name()
        needs = self._needs()
        shape, annotations = shape_of(self.workload, self.problems), self._annotations()
        configs = [config for container in self.workload.containers if (config := self._config_map(container))]
        pod = self._pod()
        if shape.side_by_side and any("persistentVolumeClaim" in volume for volume in pod["volumes"]):
            message = "Pods that run side by side cannot share one volume."
            self._problem("/metadata/annotations", message, "Run one at a time, or keep the data in a service.")
        if configs:
            # Mounted files do not change under a running container; a changed digest starts new pods.
            annotations["sekisho.dev/files"] = digest_of_json(configs)
        template: dict[str, Any] = {"metadata": {"labels": dict(self.labels)}, "spec": pod}
        if annotations:
            template["metadata"]["annotations"] = annotations
        runs = controller(shape, self.app, self._metadata(self.app), template)
        objects = [self._service_account(), *configs, *self._service(), runs]
        if self.problems:
            raise Problems(self.workload.source.file, list(dict.fromkeys(self.problems)))
        return Manifests(app=self.app, objects=tuple(objects), needs=needs)

    def _problem(self, pointer: str, message: str, remedy: str = "") -> None:
        self.problems.append(self.workload.problem(pointer, message, remedy))

    def _check_name(self) -> None:
        name = self.workload.name
        if name != self.app:
            self._problem(
                "/metadata/name", f"The name is {name!r}, and the repository is {self.app!r}.", "Use one name."
            )
        elif not _APP.fullmatch(name):
            remedy = f"Begin with a letter; use 2 to {MAX_APP} of a-z, 0-9 and '-'."
            self._problem("/metadata/name", "The name does not fit the names that Kubernetes allows.", remedy)

    def _metadata(self, name: str) -> dict[str, Any]:
        return {"name": name, "labels": dict(self.labels)}

    # -- needs ----------------------------------------------------------------------------------------------------

    def _needs(self) -> tuple[Need, ...]:
        needs: dict[str, Need] = {}
        for resource in self.workload.resources.values():
            params = {
                key: self._param(value, step(f"{resource.pointer}/params", key))
                for key, value in resource.params.items()
            }
            if resource.type == "volume" and resource.resource_class == "ephemeral":
                continue
            name = self.workload.shared[resource.name]
            # No id: it is the workload's own, and a zone tells it from others by the app and this name.
            need = Need(name=name, type=resource.type, resource_class=resource.resource_class, params=params)
            needs[name] = needs[name] if name in needs and not params else need
        return tuple(needs.values())

    def _param(self, value: Any, pointer: str) -> Any:
        if isinstance(value, dict):
            return {key: self._param(item, step(pointer, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [self._param(item, f"{pointer}/{index}") for index, item in enumerate(value)]
        return self._plain(value, pointer, "Write the value itself.") if isinstance(value, str) else value

    def _plain(self, text: str, pointer: str, remedy: str) -> str:
        """Return a text with its placeholders filled in; refuse those that only a zone can fill."""
        parts = self._resolved(text, pointer)
        for part in parts:
            if isinstance(part, Reference):
                need = part.parts[1]
                message = f"{part.text} is known in the zone only, and can hold a secret; it cannot stand here."
                self._problem(pointer, message, remedy.format(need=need, output=".".join(part.parts[2:])))
        return "".join(str(part) for part in parts if isinstance(part, str))

    def _resolved(self, text: str, pointer: str) -> tuple[Any, ...]:
        try:
            return resolve(text, dict(self.workload.metadata))
        except PlaceholderError as error:
            self._problem(pointer, str(error))
            return ()

    # -- objects --------------------------------------------------------------------------------------------------

    def _annotations(self) -> dict[str, str]:
        """Return the annotations that go onto the pods."""
        kept: dict[str, str] = {}
        for key, value in sorted(self.workload.annotations.items()):
            prefix = key.rpartition("/")[0]
            if key == LANGUAGE_ANNOTATION or is_setting(key):
                continue  # for the build stage and for the controller, which say what is wrong with it
            if any(prefix == own or prefix.endswith(f".{own}") for own in _OWN_PREFIXES):
                remedy = "Use a prefix of your own; docs/score.md lists the annotations that the line reads."
                self._problem(step("/metadata/annotations", key), "This annotation belongs to the platform.", remedy)
            elif len(prefix) > _MAX_PREFIX:
                message = f"Score allows so long a prefix, Kubernetes {_MAX_PREFIX} characters."
                self._problem(step("/metadata/annotations", key), message, "Use a shorter one.")
            else:
                kept[key] = value
        if sum(len(key) + len(value) for key, value in kept.items()) > _MAX_ANNOTATIONS:
            self._problem("/metadata/annotations", "The annotations are bigger than 64 KiB together.")
        return kept

    def _service_account(self) -> dict[str, Any]:
        return {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": self._metadata(self.app),
            "automountServiceAccountToken": False,
        }

    def _service(self) -> list[dict[str, Any]]:
        if not self.workload.ports:
            return []
        ports = [
            {"name": port.name, "port": port.port, "protocol": port.protocol, "targetPort": port.target}
            for port in self.workload.ports
        ]
        selector = {"app.kubernetes.io/name": self.app}
        spec = {"type": "ClusterIP", "selector": selector, "ports": ports}
        return [{"apiVersion": "v1", "kind": "Service", "metadata": self._metadata(self.app), "spec": spec}]

    # -- files ----------------------------------------------------------------------------------------------------

    def _config_map(self, container: Container) -> dict[str, Any] | None:
        if not container.files:
            return None
        text: dict[str, str] = {}
        binary: dict[str, str] = {}
        size = 0
        for file in container.files:
            size += len(file.content) if isinstance(file.content, bytes) else len(file.content.encode())
            if isinstance(file.content, bytes):
                binary[_file_key(file)] = base64.b64encode(file.content).decode()
            elif file.expand:
                remedy = f"Read {BINDING_ROOT}/{{need}}/{{output}} when the program starts, or use a variable."
                text[_file_key(file)] = self._plain(file.content, file.at, remedy)
            else:
                text[_file_key(file)] = file.content
        if size > MAX_FILE:
            message = f"The files of a container are bigger than {MAX_FILE} bytes together."
            self._problem(f"{container.pointer}/files", message, "Let the big ones be part of the image.")
        config: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": self._metadata(f"{self.app}-{container.name}-files"),
        }
        return config | ({"data": text} if text else {}) | ({"binaryData": binary} if binary else {})

    # -- pod ------------------------------------------------------------------------------------------------------

    def _pod(self) -> dict[str, Any]:
        self.volumes: dict[str, dict[str, Any]] = {}
        by_name = {container.name: container for container in self.workload.containers}
        first = [by_name[name] for name in start_order(self.workload.containers) if by_name[name].before]
        main = [container for container in self.workload.containers if not container.before]
        pod: dict[str, Any] = {
            "serviceAccountName": self.app,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "securityContext": dict(_POD_SECURITY),
        }
        if first:
            pod["initContainers"] = [self._container(container) for container in first]
        pod["containers"] = [self._container(container, alone=len(by_name) == 1) for container in main]
        pod["volumes"] = [{"name": name, **self.volumes[name]} for name in sorted(self.volumes)]
        return pod

    def _container(self, container: Container, *, alone: bool = False) -> dict[str, Any]:
        found: dict[str, Any] = {"name": container.name, "image": self._image(container)}
        if container.command:
            found["command"] = [*(self.launcher if container.image == "." else ()), *container.command]
        if container.args:
            found["args"] = list(container.args)
        if env := self._environment(container):
            found["env"] = env
        if alone and self.workload.ports:
            ports = sorted({(port.target, port.protocol) for port in self.workload.ports})
            found["ports"] = [{"containerPort": port, "protocol": protocol} for port, protocol in ports]
        found |= probes(self.workload, container, self.problems)
        found["resources"] = _resources(container)
        found["securityContext"] = {**_CONTAINER_SECURITY, "capabilities": {"drop": ["ALL"]}}
        found["volumeMounts"] = self._mounts(container)
        return found

    def _environment(self, container: Container) -> list[dict[str, Any]]:
        """Return a container's variables. What is built here listens on $PORT, so that score.yaml alone names the port.

        Of several TCP ports it is the first in the file; a PORT of the developer's own counts.
        """
        env = environment(self.workload, container, self.app, self.problems)
        if container.image == "." and _PORT not in container.variables:
            order = list((self.workload.source.value.get("service") or {}).get("ports") or {})
            ports = sorted(self.workload.ports, key=lambda port: order.index(port.name))
            env.extend([{"name": _PORT, "value": str(port.target)} for port in ports if port.protocol == "TCP"][:1])
        return env

    def _image(self, container: Container) -> str:
        if container.image == ".":
            return self.image
        if not _PINNED.fullmatch(container.image):
            message = f"The image {container.image[:80]!r} is not one of the line's own, by digest."
            remedy = (
                f"Write image: . for what is built here, or {IMAGE_HOST}/standard/NAME@sha256:... for a standard image."
            )
            if "${" in container.image:
                message, remedy = "Score expands no placeholders in an image.", f"Write the image itself. {remedy}"
            self._problem(f"{container.pointer}/image", message, remedy)
        return container.image

    def _mounts(self, container: Container) -> list[dict[str, Any]]:
        mounts: dict[str, dict[str, Any]] = {}
        for mount in container.mounts:
            if (name := self._volume(mount.source, f"{mount.pointer}/source")) is None:
                continue
            entry: dict[str, Any] = {"name": name, "mountPath": mount.target}
            path = mount.path.strip("/")
            if ".." in path.split("/"):
                self._problem(f"{mount.pointer}/path", "The path leads out of the volume.", "Leave '..' out.")
            if path:
                entry["subPath"] = path
            if mount.read_only:
                entry["readOnly"] = True
            mounts[mount.target] = entry
        mounts |= self._file_mounts(container)
        for need in bound_needs(self.workload):
            first = self.workload.shared[need]
            name = _short(f"binding-{first}")
            # 0440: the workload's group (fsGroup) reads it, nobody writes.
            self.volumes[name] = {"secret": {"secretName": binding_secret(self.app, first), "defaultMode": 0o440}}
            mounts[f"{BINDING_ROOT}/{need}"] = {"name": name, "mountPath": f"{BINDING_ROOT}/{need}", "readOnly": True}
        if "/tmp" not in mounts:  # noqa: S108 - the container's
            self.volumes["tmp"] = {"emptyDir": {}}
            mounts["/tmp"] = {"name": "tmp", "mountPath": "/tmp"}  # noqa: S108
        return [mounts[target] for target in sorted(mounts)]

    def _file_mounts(self, container: Container) -> dict[str, dict[str, Any]]:
        if not container.files:
            return {}
        name = _short(f"files-{container.name}")
        keys = [(_file_key(file), file.mode) for file in container.files]
        items = [{"key": key, "path": key, "mode": mode} for key, mode in sorted(keys)]
        self.volumes[name] = {"configMap": {"name": f"{self.app}-{container.name}-files", "items": items}}
        return {
            file.target: {"name": name, "mountPath": file.target, "subPath": _file_key(file), "readOnly": True}
            for file in container.files
        }

    def _volume(self, source: str, pointer: str) -> str | None:
        """Return the pod volume's name of a mount's source: a resource of type volume, by placeholder or by name."""
        parts = self._resolved(source, pointer)
        reference = parts[0] if len(parts) == 1 and isinstance(parts[0], Reference) else None
        if reference is not None and len(reference.parts) > 2:  # noqa: PLR2004 - resources, its name
            message = f"{reference.text}: a volume has no outputs."
            self._problem(pointer, message, f"Write ${{resources.{reference.parts[1]}}}.")
            return None
        need = reference.parts[1] if reference is not None else source
        resource = self.workload.resources.get(need)
        if resource is None or resource.type != "volume":
            remedy = "Declare a resource of type volume and name it: source: ${resources.NAME}."
            self._problem(pointer, "This is not a resource of type volume.", remedy)
            return None
        first = self.workload.shared[need]
        name = _short(f"volume-{first}")
        if resource.resource_class != "ephemeral":
            self.volumes[name] = {"persistentVolumeClaim": {"claimName": f"{self.app}-{first}"}}
            return name
        twins = (twin for twin in self.workload.resources.values() if self.workload.shared[twin.name] == first)
        size = next((twin.params["size"] for twin in twins if "size" in twin.params), None)
        if size is not None and not (isinstance(size, str) and _STORAGE.fullmatch(size)):
            self._problem(f"{resource.pointer}/params", "The size is not one such as 512Mi or 2Gi.")
        limit = (
            {"sizeLimit": memory_text(memory_bytes(size), binary=True)}
            if isinstance(size, str) and _STORAGE.fullmatch(size)
            else {}
        )
        self.volumes[name] = {"emptyDir": limit}
        return name


def _resources(container: Container) -> dict[str, Any]:
    """Return requests and limits; a default never contradicts what the developer wrote."""
    limits: dict[str, str] = {}
    requests: dict[str, str] = {}
    for kind in ("cpu", "memory"):
        measure = milli_cpus if kind == "cpu" else memory_bytes
        limit = measure(container.limits[kind]) if kind in container.limits else None
        request = measure(container.requests[kind]) if kind in container.requests else None
        if limit is None:
            limit = max(_DEFAULT_LIMIT[kind], request or 0)
        if request is None:
            request = min(_DEFAULT_REQUEST[kind], limit)
        limits[kind] = _amount(kind, limit, container.limits.get(kind, container.requests.get(kind, "")))
        requests[kind] = _amount(kind, request, container.requests.get(kind, container.limits.get(kind, "")))
    return {"requests": requests, "limits": limits}


def _amount(kind: str, amount: int, written: str) -> str:
    return cpu_text(amount) if kind == "cpu" else memory_text(amount, binary=is_binary(written) or not written)


def _file_key(file: File) -> str:
    """Return the ConfigMap key of a file: its name for people, a hash for uniqueness."""
    base = re.sub(r"[^-._a-zA-Z0-9]", "_", file.target.rpartition("/")[2])[:100]
    return f"{base}.{hashlib.sha256(file.target.encode()).hexdigest()[:8]}"


def _short(name: str) -> str:
    """Return a name that fits a DNS label (63 characters)."""
    return name if len(name) <= 63 else f"{name[:54]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"  # noqa: PLR2004
