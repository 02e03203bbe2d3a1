"""What of a workload's .cargo/config.toml holds in the line's build. Pure.

Where packages come from, which programs stand in for the compiler, and where the output goes is the line's to say.
What changes the meaning of the code is let through: flags of the compiler that need nothing from outside, variables,
and profiles. Everything left out is named, so that nobody has to guess.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from sekisho.errors import Refusal
from stages.build.languages.rust_workspace import MAX_BYTES
from stages.build.project import Project
from stages.build.strict_toml import read_toml

TARGET = "x86_64-unknown-linux-gnu"
FILES = (".cargo/config.toml", ".cargo/config")

_CODEGEN = ("target-cpu", "target-feature", "opt-level", "codegen-units", "lto", "panic", "overflow-checks", "strip",
            "debug-assertions", "debuginfo", "force-frame-pointers", "relocation-model", "embed-bitcode",
            "symbol-mangling-version", "inline-threshold")  # fmt: skip
_LEVELS = ("-A", "-W", "-D", "-F", "--allow", "--warn", "--deny", "--forbid", "--cfg", "--check-cfg", "--cap-lints")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_RESERVED = re.compile(r"CARGO_(?!PKG_)|RUSTC|RUSTFLAGS|RUSTDOC|RUSTUP_|PATH$|LD_|HOME$|SOURCE_DATE_EPOCH$|PORT$")
_SILENT = ("alias", "term", "net", "http", "install", "cargo-new", "future-incompat-report", "doc", "cache", "resolver")
"""Tables that change nothing in a build without network."""
_MATCHING = re.compile(r"cfg\((unix|target_os\s*=\s*\"linux\"|all\(\)|not\(windows\)|target_family\s*=\s*\"unix\")\)")


@dataclass(frozen=True)
class Settings:
    """What is let through."""

    flags: tuple[str, ...] = ()
    """For rustc."""
    variables: Mapping[str, str] = field(default_factory=dict)
    profiles: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def read_settings(project: Project) -> Settings:
    """Return what holds of the workload's own cargo configuration.

    Raises:
        Refusal: the file is not TOML, or its variables are not text.
    """
    path = next((name for name in FILES if project.has(name)), None)
    text = project.text(path, limit=MAX_BYTES) if path else None
    if path is None or text is None:
        return Settings()
    value = read_toml(text, file=path, remedy="Correct the line.")
    left: list[str] = []
    flags = tuple(_flags(value, left))
    variables = _variables(value.get("env"), path, left)
    profiles = value.get("profile")
    left += _left_out(value)
    notes = (f"Of {path} the line leaves out: {', '.join(dict.fromkeys(left))}.",) if left else ()
    return Settings(flags, variables, profiles if isinstance(profiles, dict) else {}, notes)


def _flags(value: Mapping[str, Any], left: list[str]) -> Iterator[str]:
    """Yield rustc's flags as cargo would choose them: a target's before those of [build]."""
    targets = value.get("target")
    found: list[str] = []
    for name, table in targets.items() if isinstance(targets, dict) else ():
        if isinstance(table, dict) and (name == TARGET or _MATCHING.fullmatch(name)):
            found += _words(table.get("rustflags"))
    if not found:
        build = value.get("build")
        found = _words(build.get("rustflags")) if isinstance(build, dict) else []
    words = iter(found)
    for word in words:
        option, _, rest = word.partition("=") if word.startswith("--") else (word, "", "")
        if word in ("-C", "--codegen") or option == "--codegen":
            yield from _codegen(rest or next(words, ""), left)
        elif word.startswith("-C"):
            yield from _codegen(word[2:], left)
        elif option in _LEVELS:
            yield from (option, rest or next(words, ""))
        elif word[:2] in _LEVELS:
            yield word
        else:
            left.append(f"the flag {word[:40]}")


def _codegen(said: str, left: list[str]) -> Iterator[str]:
    name = said.partition("=")[0]
    native = said.startswith("target-cpu") and said.endswith("=native")
    if name in _CODEGEN and not native:
        yield from ("-C", said)
    else:
        left.append(f"-C {said[:40]}")


def _words(value: object) -> list[str]:
    if isinstance(value, str):
        return value.split()
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def _variables(table: object, path: str, left: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, item in table.items() if isinstance(table, dict) else ():
        text = item.get("value") if isinstance(item, dict) else item
        if not isinstance(text, str) or not _VARIABLE.fullmatch(name) or "\0" in text:
            raise Refusal(f"[env] {name[:80]!r} is not a variable with a text.", where=path, remedy='NAME = "value"')
        if _RESERVED.match(name) or (isinstance(item, dict) and item.get("relative")):
            left.append(f"[env] {name}")
        else:
            found[name] = text
    return found


def _left_out(value: Mapping[str, Any]) -> Iterator[str]:
    for key in value:
        if key not in (*_SILENT, "env", "profile", "build", "target"):
            yield f"[{key}]"
    build = value.get("build")
    for key in build if isinstance(build, dict) else ():
        if key not in ("rustflags", "jobs", "incremental"):
            yield f"[build] {key}"
    targets = value.get("target")
    for name, table in targets.items() if isinstance(targets, dict) else ():
        here = name == TARGET or _MATCHING.fullmatch(name)
        for key in table if isinstance(table, dict) and here else ():
            if key != "rustflags":
                yield f"[target] {key}"
