"""Which files of a workload stand beside its program, for it to read while it runs. Pure.

All but what the program was made of and what only people use: Go's own files, what is compiled in by `go:embed`,
tests, settings of tools, manifests of other ways to deploy; and the sources of a web interface, a folder with a
package.json, but for what its own build leaves there. Templates, styles, migrations and the like keep their places
below the working directory.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from stages.build.takes import left_out

PATTERNS = (
    "**/.*",
    "**/*.go", "**/go.mod", "**/go.sum", "go.work", "go.work.sum", "**/*.pgo", "**/*.s", "**/*.templ", "**/*.proto",
    "vendor", "**/testdata", "**/node_modules", "test", "tests", "e2e",
    "chart", "charts", "deploy", "deployment", "deployments", "docker", "helm", "k8s", "kubernetes", "kustomize",
    "packaging", "terraform",
    "score.yaml", "Procfile", "Makefile", "Taskfile.yml", "Taskfile.yaml", "justfile", "sqlc.yaml", "sqlc.yml",
    "buf.yaml", "buf.gen.yaml", "air.toml", "renovate.json", "**/Dockerfile*", "**/Containerfile*", "docker-compose*",
    "compose.yaml", "compose.yml", "skaffold.yaml", "cloudbuild.yaml", "heroku.yml", "app.json", "fly.toml",
    "flake.nix", "flake.lock", "Vagrantfile",
    "*.md", "LICENSE*", "COPYING*", "PATENTS", "AUTHORS", "CONTRIBUTORS", "CODEOWNERS",
)  # fmt: skip


_BUILT = ("build", "dist", "out", "public", "static", "assets", "templates")
"""Folders beside a package.json that hold what is served."""


def beside(files: Sequence[str], embedded: Collection[str]) -> tuple[tuple[str, ...], bool]:
    """Return what is left out of the image, as patterns of a take, and whether anything stays.

    Args:
        files: all paths of the workload.
        embedded: paths that are compiled into the program.
    """
    out = left_out(PATTERNS)
    staying = {path for path in files if not out(path)}
    interfaces = {path.removesuffix("package.json") for path in staying if path.endswith("/package.json")}
    served = tuple(f"{folder}{name}/" for folder in interfaces for name in _BUILT)
    sources = {path for path in staying if path.startswith(tuple(interfaces)) and not path.startswith(served)}
    # A name with a star in it would match others as well: it stays.
    gone = {path for path in staying & set(embedded) | sources if not set(path) & set("*?")}
    kept = _with_folders(staying - gone)
    more = []
    for path in sorted(gone):
        parts = path.split("/")
        # The highest folder in which nothing stays.
        for depth in range(1, len(parts) + 1):
            top = "/".join(parts[:depth])
            if top not in kept:
                more.append(top)
                break
    return (*PATTERNS, *dict.fromkeys(more)), bool(staying - gone)


def _with_folders(paths: Collection[str]) -> frozenset[str]:
    found = set(paths)
    for path in paths:
        while "/" in path:
            path = path.rpartition("/")[0]  # noqa: PLW2901
            found.add(path)
    return frozenset(found)
