"""A container's environment: literal values, values from a binding's Secret, and mixtures of both.

A mixture such as `postgres://${resources.db.host}/x` becomes a text in which Kubernetes itself fills in variables
that stand before it (`$(NAME)`, see the API's EnvVar.value), so no secret is ever part of the rendered objects.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any

from sekisho.score.placeholders import Part, Reference, resolve
from sekisho.score.source import Problem, step
from sekisho.score.workload import Container, Workload

BINDING_ROOT = "/bindings"
"""Where bindings are mounted: `SERVICE_BINDING_ROOT` of the Service Binding specification."""

UNBOUND_TYPES = frozenset({"route", "volume"})
"""Needs that give no Secret: the zone opens a way to the workload, or gives it space."""

_POSTGRES = ("type", "provider", "host", "port", "username", "password", "database", "uri")
_OUTPUTS = {"postgres": _POSTGRES}
_ALIASES = {"postgres": {"name": "database"}}
_SECRET_KEY = re.compile(r"[-._a-zA-Z0-9]{1,253}")
_VARIABLE = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]{0,252}")
_RESERVED = ("SEKISHO_", "SERVICE_BINDING_ROOT")


def binding_secret(app: str, need: str) -> str:
    """Return the name of the Secret that bind makes for a need."""
    return f"{app}-{need}-binding"


def bound_needs(workload: Workload) -> tuple[str, ...]:
    """Return the names of the resources that come with a Secret, sorted."""
    return tuple(name for name, resource in workload.resources.items() if resource.type not in UNBOUND_TYPES)


def environment(workload: Workload, container: Container, app: str, problems: list[Problem]) -> list[dict[str, Any]]:
    """Return the container's `env`, in an order in which every `$(NAME)` is known before it is used.

    Args:
        workload: the whole workload, for its metadata and resources.
        container: the container.
        app: the app's name, the beginning of each Secret's name.
        problems: grows by what cannot be rendered.
    """
    values: dict[str, tuple[Part, ...]] = {}
    mixed: set[tuple[str, str]] = set()
    keys: dict[tuple[str, ...], tuple[str, str]] = {}
    for name, text in sorted(container.variables.items()):
        pointer = step(f"{container.pointer}/variables", name)
        if not _VARIABLE.fullmatch(name) or name in {".", ".."} or name.startswith(_RESERVED):
            problems.append(workload.problem(pointer, "This variable name is not allowed.", _name_remedy(name)))
            continue
        parts = resolve(text, dict(workload.metadata))
        for part in parts:
            if isinstance(part, Reference):
                found = _output(workload, part, pointer, problems)
                keys[part.parts] = found
                if len(parts) > 1:
                    mixed.add(found)
        values[name] = parts
    names = _generated(mixed)
    env: list[dict[str, Any]] = []
    if bound_needs(workload):
        env.append({"name": "SERVICE_BINDING_ROOT", "value": BINDING_ROOT})
    env.extend(_from_secret(names[key], app, key) for key in sorted(mixed))
    for name, parts in values.items():
        if len(parts) == 1 and isinstance(parts[0], Reference):
            env.append(_from_secret(name, app, keys[parts[0].parts]))
        else:
            env.append({"name": name, "value": _text(parts, keys, names)})
    return env


def _text(parts: tuple[Part, ...], keys: dict[tuple[str, ...], tuple[str, str]], names: dict[Any, str]) -> str:
    if all(isinstance(part, str) for part in parts):
        plain = "".join(str(part) for part in parts)
        return plain.replace("$", "$$") if "$(" in plain or "$$" in plain else plain
    # Beside a $(NAME) every dollar is doubled: a lone one at the end of a text would escape the next $(NAME).
    return "".join(
        part.replace("$", "$$") if isinstance(part, str) else f"$({names[keys[part.parts]]})" for part in parts
    )


def _from_secret(name: str, app: str, key: tuple[str, str]) -> dict[str, Any]:
    need, output = key
    return {"name": name, "valueFrom": {"secretKeyRef": {"name": binding_secret(app, need), "key": output}}}


def _generated(keys: set[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """Return a variable name for each (need, output); those that would share one get a hash of what they stand for."""
    found: dict[tuple[str, str], str] = {}
    plain = [_plain_name(key) for key in keys]
    for key in keys:
        name = _plain_name(key)
        if plain.count(name) > 1:
            name += "_" + hashlib.sha256("\0".join(key).encode()).hexdigest()[:8].upper()
        found[key] = name
    return found


def _plain_name(key: tuple[str, str]) -> str:
    return "SEKISHO_REF_" + re.sub(r"[^A-Z0-9]", "_", "_".join(key).upper())


def _output(workload: Workload, reference: Reference, pointer: str, problems: list[Problem]) -> tuple[str, str]:
    """Return (need, Secret key) of a reference into resources; adds a problem where there is no such output."""
    name, *rest = reference.parts[1:]
    resource = workload.resources[name]
    output = ".".join(rest)
    output = _ALIASES.get(resource.type, {}).get(output, output)
    known = _OUTPUTS.get(resource.type)
    if resource.type in UNBOUND_TYPES:
        message = f"{reference.text}: a {resource.type} has no outputs, for it differs from zone to zone."
        problems.append(workload.problem(pointer, message, "Leave it out."))
    elif not rest:
        message = f"{reference.text} names a resource, but none of its outputs."
        problems.append(workload.problem(pointer, message, f"Write ${{resources.{name}.OUTPUT}}."))
    elif (known is not None and output not in known) or not _SECRET_KEY.fullmatch(output) or output.startswith(".."):
        message = f"{reference.text}: a {resource.type} has no output {output[:60]!r}."
        remedy = f"Its outputs: {', '.join(known)}." if known else "Name one output, such as host."
        problems.append(workload.problem(pointer, message, remedy))
    return workload.shared[name], output


def _name_remedy(name: str) -> str:
    if name.startswith(_RESERVED):
        return "SEKISHO_* and SERVICE_BINDING_ROOT are set by the platform; choose another name."
    return "Use A-Z, a-z, 0-9, '_', '-' and '.', not beginning with a digit."
