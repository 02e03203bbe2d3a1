"""A Score workload as typed, frozen values: read, validated, and checked for what a schema cannot say."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sekisho.score.files import FileError, Read
from sekisho.score.placeholders import PlaceholderError, Reference, resolve
from sekisho.score.quantity import memory_bytes, milli_cpus
from sekisho.score.schema import schema_problems
from sekisho.score.source import Problem, Problems, Source, read_document, step
from sekisho.score.targets import target_problems

Ready = Literal["started", "healthy", "complete"]

_MOST = 2**53
"""Of bytes or thousandths of a CPU; canonical JSON and the API server are exact up to here."""


@dataclass(frozen=True)
class Port:
    """A port of the workload's service."""

    name: str
    port: int
    protocol: str
    target: int
    pointer: str


@dataclass(frozen=True)
class File:
    """A file that is laid into a container."""

    target: str
    content: str | bytes
    mode: int
    expand: bool
    pointer: str
    at: str
    """Pointer of the content: what a message about it points to."""


@dataclass(frozen=True)
class Mount:
    """A volume that is mounted into a container."""

    target: str
    source: str
    path: str
    read_only: bool
    pointer: str


@dataclass(frozen=True)
class Container:
    """A container, as the developer wrote it."""

    name: str
    image: str
    pointer: str
    command: tuple[str, ...]
    args: tuple[str, ...]
    variables: Mapping[str, str]
    files: tuple[File, ...]
    mounts: tuple[Mount, ...]
    before: Mapping[str, Ready]
    limits: Mapping[str, str]
    requests: Mapping[str, str]
    liveness: Mapping[str, Any] | None
    readiness: Mapping[str, Any] | None


@dataclass(frozen=True)
class Resource:
    """Something that the workload needs."""

    name: str
    type: str
    resource_class: str
    id: str
    params: Mapping[str, Any]
    pointer: str


@dataclass(frozen=True)
class Workload:
    """A whole score.yaml."""

    name: str
    metadata: Mapping[str, Any]
    annotations: Mapping[str, str]
    ports: tuple[Port, ...]
    containers: tuple[Container, ...]
    """Sorted by name."""
    resources: Mapping[str, Resource]
    shared: Mapping[str, str]
    """By resource: the first name that stands for the same thing (its own, where nothing is shared)."""
    source: Source

    def problem(self, pointer: str, message: str, remedy: str = "") -> Problem:
        """Return a problem of the value at `pointer`, with its line."""
        return self.source.problem(pointer, message, remedy)


def load_score(data: bytes, where: str = "score.yaml", read: Read | None = None) -> Workload:
    """Read and check a Score file (score.dev/v1b1).

    Args:
        data: the file's bytes, from a stranger.
        where: the file's name in messages.
        read: reads what `source:` names; without it such files are refused.

    Raises:
        Problems: everything that is wrong with it, each with JSON pointer and line.
    """
    source = read_document(data, where)
    problems = schema_problems(source)
    if problems:
        raise Problems(where, problems)
    workload, problems = _built(source, read)
    problems = problems + list(_order_problems(workload)) + list(_reference_problems(workload))
    if problems:
        raise Problems(where, problems)
    return workload


def _built(source: Source, read: Read | None) -> tuple[Workload, list[Problem]]:
    value = source.value
    problems: list[Problem] = []
    metadata = value["metadata"]
    ports = tuple(
        Port(
            name,
            port["port"],
            port.get("protocol", "TCP"),
            port.get("targetPort", port["port"]),
            f"/service/ports/{name}",
        )
        for name, port in sorted(value.get("service", {}).get("ports", {}).items())
    )
    seen: set[tuple[int, str]] = set()
    for port in ports:
        if (port.port, port.protocol) in seen:
            problems.append(source.problem(port.pointer, f"Port {port.port}/{port.protocol} is published twice."))
        seen.add((port.port, port.protocol))
    resources = {
        name: Resource(
            name,
            body["type"],
            body.get("class", "default"),
            body.get("id", ""),
            body.get("params", {}),
            f"/resources/{name}",
        )
        for name, body in sorted(value.get("resources", {}).items())
    }
    containers = tuple(
        _container(source, name, body, problems, read) for name, body in sorted(value["containers"].items())
    )
    workload = Workload(
        name=metadata["name"],
        metadata=metadata,
        annotations=metadata.get("annotations", {}),
        ports=ports,
        containers=containers,
        resources=resources,
        shared=_shared(metadata["name"], resources),
        source=source,
    )
    problems.extend(_sharing_problems(workload))
    return workload, problems


def _shared(workload: str, resources: Mapping[str, Resource]) -> dict[str, str]:
    """Return, by resource, the first one of the same type, class and id.

    A resource without an id has the id `<workload>.<resource>`: so Score's reference implementation names it.
    """
    first: dict[tuple[str, str, str], str] = {}
    return {
        name: first.setdefault((body.type, body.resource_class, body.id or f"{workload}.{name}"), name)
        for name, body in resources.items()
    }


def _sharing_problems(workload: Workload) -> Iterator[Problem]:
    given: dict[str, Mapping[str, Any]] = {}
    for name, resource in workload.resources.items():
        if resource.id and not resource.id.startswith(f"{workload.name}."):
            message = f"The id {resource.id!r} asks to share this with other workloads, and no zone offers that."
            remedy = f"Leave id out, or write {workload.name}.NAME to share it inside this workload."
            yield workload.problem(f"{resource.pointer}/id", message, remedy)
        if resource.params and given.setdefault(workload.shared[name], resource.params) != resource.params:
            message = f"It is the same as {workload.shared[name]!r} (type, class and id), with other params."
            yield workload.problem(f"{resource.pointer}/params", message, "Give params once, or the same.")


def _container(
    source: Source, name: str, body: dict[str, Any], problems: list[Problem], read: Read | None
) -> Container:
    pointer = f"/containers/{name}"
    resources = body.get("resources", {})
    container = Container(
        name=name,
        image=body["image"],
        pointer=pointer,
        command=tuple(body.get("command", ())),
        args=tuple(body.get("args", ())),
        variables=body.get("variables", {}),
        files=tuple(_file(source, entry, problems, read) for entry in _entries(body, pointer, "files")),
        mounts=tuple(_mount(*entry) for entry in _entries(body, pointer, "volumes")),
        before={other: entry["ready"] for other, entry in sorted(body.get("before", {}).items())},
        limits=resources.get("limits", {}),
        requests=resources.get("requests", {}),
        liveness=body.get("livenessProbe"),
        readiness=body.get("readinessProbe"),
    )
    problems.extend(target_problems(source, container.files, container.mounts))
    problems.extend(_compute_problems(source, container))
    return container


def _entries(body: dict[str, Any], pointer: str, key: str) -> list[tuple[str, dict[str, Any], str]]:
    """Return (target, entry, pointer) of files or volumes, whether written as a map or as the older list."""
    value = body.get(key, {})
    here = step(pointer, key)
    if isinstance(value, list):
        found = [(entry["target"], entry, step(here, index)) for index, entry in enumerate(value)]
    else:
        found = [(target, entry, step(here, target)) for target, entry in value.items()]
    return sorted(found, key=lambda entry: (entry[0], entry[2]))


def _file(source: Source, written: tuple[str, dict[str, Any], str], problems: list[Problem], read: Read | None) -> File:
    target, entry, pointer = written
    content: str | bytes = entry.get("content", "")
    at = step(pointer, next((key for key in ("source", "binaryContent") if key in entry), "content"))
    if "source" in entry:
        try:
            content = _text_or_bytes((read or _nothing)(entry["source"]))
        except FileError as error:
            remedy = "Name a file of the repository, such as source: settings.ini, or write it as content:."
            problems.append(source.problem(at, str(error), remedy))
    if "binaryContent" in entry:
        try:
            content = base64.b64decode(entry["binaryContent"], validate=True)
        except (binascii.Error, ValueError):
            problems.append(source.problem(at, "This is not base64.", "Write it as `base64 FILE` prints it."))
    expand = isinstance(content, str) and not entry.get("noExpand", False)
    return File(target, content, int(entry.get("mode", "0644"), 8), expand, pointer, at)


def _nothing(_path: str) -> bytes:
    raise FileError("score.yaml is alone here, without the files beside it.")


def _text_or_bytes(data: bytes) -> str | bytes:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data


def _mount(target: str, entry: dict[str, Any], pointer: str) -> Mount:
    return Mount(target, entry["source"], entry.get("path", ""), entry.get("readOnly", False), pointer)


def _compute_problems(source: Source, container: Container) -> Iterator[Problem]:
    measures = {"cpu": milli_cpus, "memory": memory_bytes}
    here = f"{container.pointer}/resources"
    for kind, measure in measures.items():
        limit = measure(container.limits[kind]) if kind in container.limits else None
        request = measure(container.requests[kind]) if kind in container.requests else 0
        if max(limit or 0, request) > _MOST:
            which = "requests" if request > _MOST else "limits"
            message = f"No machine has so much {kind}."
            yield source.problem(f"{here}/{which}/{kind}", message, "Write memory as 64Mi, and cpu as 250m.")
        elif limit == 0:
            yield source.problem(f"{here}/limits/{kind}", "A limit of nothing is no limit.", "Give a limit above 0.")
        elif limit is not None and request > limit:
            message = "More is requested than the limit allows."
            yield source.problem(f"{here}/requests/{kind}", message, "Raise the limit or lower the request.")


def _order_problems(workload: Workload) -> Iterator[Problem]:
    names = {container.name for container in workload.containers}
    broken = False
    for container in workload.containers:
        for other in container.before:
            pointer = f"{container.pointer}/before/{other}"
            if other not in names or other == container.name:
                broken = True
                message = "A container cannot be before itself." if other in names else "There is no such container."
                yield workload.problem(pointer, message, f"Name another of: {', '.join(sorted(names))}.")
    if not broken and len(start_order(workload.containers)) != len(names):
        yield workload.problem("/containers", "The order given by `before` goes in a circle.", "Break the circle.")


def start_order(containers: tuple[Container, ...]) -> list[str]:
    """Return names in an order that `before` allows, by name where it says nothing; shorter when there is a circle."""
    waits: dict[str, set[str]] = {container.name: set() for container in containers}
    for container in containers:
        for other in container.before:
            waits[other].add(container.name)
    order: list[str] = []
    while free := sorted(name for name, ahead in waits.items() if not ahead):
        order.append(free[0])
        del waits[free[0]]
        for ahead in waits.values():
            ahead.discard(free[0])
    return order


def _reference_problems(workload: Workload) -> Iterator[Problem]:
    for pointer, text in _expanded(workload):
        try:
            parts = resolve(text, dict(workload.metadata))
        except PlaceholderError as error:
            yield workload.problem(pointer, str(error), "Write $$ for a dollar that is meant as a dollar.")
            continue
        for part in parts:
            if isinstance(part, Reference) and (len(part.parts) < 2 or part.parts[1] not in workload.resources):  # noqa: PLR2004
                known = ", ".join(workload.resources) or "none is declared"
                yield workload.problem(pointer, f"{part.text} names no resource.", f"Resources: {known}.")


def _expanded(workload: Workload) -> Iterator[tuple[str, str]]:
    """Yield every text in which Score expands placeholders, with its pointer."""
    for container in workload.containers:
        for name, text in sorted(container.variables.items()):
            yield step(f"{container.pointer}/variables", name), text
        for file in container.files:
            if file.expand and isinstance(file.content, str):
                yield file.at, file.content
        for mount in container.mounts:
            yield f"{mount.pointer}/source", mount.source
    for resource in workload.resources.values():
        yield from _strings(resource.params, f"{resource.pointer}/params")


def _strings(value: Any, pointer: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield pointer, value
    elif isinstance(value, dict):
        for key, item in sorted(value.items()):
            yield from _strings(item, step(pointer, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _strings(item, step(pointer, index))
