"""What the compiler would say of files that are not in the commit, or that need C: said before, and clearly."""

from __future__ import annotations

import posixpath

from sekisho.errors import Refusal
from stages.build.languages.go_tree import Reach, Seen, Tree

_GENERATORS = (
    ("*.templ", "templ generate"),
    ("sqlc.yaml", "sqlc generate"),
    ("sqlc.yml", "sqlc generate"),
    ("buf.gen.yaml", "buf generate"),
    ("gqlgen.yml", "go run github.com/99designs/gqlgen generate"),
)


def check(tree: Tree, reach: Reach) -> None:
    """Refuse a program that cannot be built from what is committed.

    Raises:
        Refusal: the first thing that is missing, where it is asked for, and how to make it.
    """
    if reach.cgo:
        seen = reach.cgo[0]
        raise Refusal(
            'The program uses cgo (import "C"), and Go programs are built here without a C compiler.',
            where=seen.where,
            remedy="Use a package in plain Go, or put what needs C behind `//go:build cgo` with another way beside it.",
        )
    if reach.missing:
        raise _missing(tree, reach.missing[0])
    for folder in reach.folders:
        _check_templ(tree, folder)
    if reach.unmatched:
        raise _unmatched(tree, reach.unmatched[0])


def uncovered(tree: Tree, reach: Reach) -> Seen | None:
    """Return the first import of a package of others that is in no required module."""
    for path, where in reach.others.items():
        if not any(path == module or path.startswith(f"{module}/") for module in tree.required):
            return Seen(path, where)
    return None


def check_modules(tree: Tree, reach: Reach) -> None:
    """Refuse a program that imports a package of no required module.

    Raises:
        Refusal: the first such import.
    """
    seen = uncovered(tree, reach)
    if seen is not None:
        raise Refusal(
            f"{seen.what[:200]} is imported, and no module that go.mod requires has it.",
            where=seen.where,
            remedy="Run: go mod tidy; then commit go.mod and go.sum.",
        )


def _missing(tree: Tree, seen: Seen) -> Refusal:
    """A package that is imported and has no Go files: mostly generated code that is not committed."""
    command = _generator(tree)
    if seen.what.endswith("/docs"):
        command = command or "swag init"
    remedy = f"If it is generated, make it ({command}) and commit it." if command else "Commit it, or mend the import."
    return Refusal(
        f"{seen.what[:200]} is imported, and the commit has no Go files for it.",
        where=seen.where,
        remedy=remedy,
    )


def _check_templ(tree: Tree, folder: str) -> None:
    prefix = f"{folder}/" if folder else ""
    for path in tree.files:
        if path.endswith(".templ") and posixpath.dirname(path) == folder:
            made = f"{path.removesuffix('.templ')}_templ.go"
            if made.removeprefix(prefix) not in tree.by_folder.get(folder, ()):
                raise Refusal(
                    f"{path} is a template whose Go code, {made}, is not in the commit.",
                    where=path,
                    remedy="Run: templ generate; then commit what it made (see .gitignore).",
                )


def _unmatched(tree: Tree, seen: Seen) -> Refusal:
    """An embedded file that is not there: mostly a web interface that another tool builds."""
    folder = posixpath.dirname(seen.where.rpartition(":")[0])
    place = posixpath.normpath(posixpath.join(folder, seen.what.removeprefix("all:").split("*")[0]))
    manifest = ""
    while not manifest and place not in ("", ".", "/"):
        candidate = posixpath.join(place, "package.json")
        manifest = candidate if tree.project.has(candidate) else ""
        place = posixpath.dirname(place)
    if not manifest and tree.project.has("package.json"):
        manifest = "package.json"
    if manifest:
        where = posixpath.dirname(manifest) or "the top folder"
        remedy = f"It seems to be built from {manifest}: run its build in {where} and commit what it made."
    else:
        remedy = "Commit the files: nothing but the Go compiler runs here, no generator and no other tool."
    return Refusal(f"{seen.what} is embedded, and the commit has no such files.", where=seen.where, remedy=remedy)


def _generator(tree: Tree) -> str:
    for pattern, command in _GENERATORS:
        if tree.project.files(pattern):
            return command
    return ""
