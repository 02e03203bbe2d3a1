"""What is known of the tools and frameworks of the ecosystem: what they start, and where they leave a site. Data, pure.

Each line here stands for a default that thousands of repositories rely on without writing it down.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from stages.build.languages.node_manifest import Manifest
from stages.build.project import Project

NEXT = "node_modules/next/dist/bin/next"
"""The program of Next.js."""

_ANY = re.compile("")
_NONE_OR_DEV = re.compile(r"^(?!\s*(build|preview|optimize))")

DEVELOPMENT: Mapping[str, re.Pattern[str]] = {
    "vite": _NONE_OR_DEV,
    "react-scripts": re.compile("^start"),
    "react-app-rewired": re.compile("^start"),
    "craco": re.compile("^start"),
    "ng": re.compile("^(serve|s)"),
    "vue-cli-service": re.compile("^serve"),
    "eleventy": re.compile("--(serve|watch)"),
    "docusaurus": re.compile("^start"),
    "vitepress": re.compile(r"^(?!\s*(build|preview|serve))"),
    "vuepress": re.compile("^dev"),
    "astro": re.compile(r"^(dev|start)?\s*(--|$)"),
    "gatsby": re.compile("^(develop|start)"),
    "webpack-dev-server": _ANY,
    "webpack": re.compile("^(serve|.*--watch)"),
    "parcel": re.compile("^(?!build)"),
    "rsbuild": re.compile("^dev"),
    "rspress": re.compile("^dev"),
    "rollup": re.compile("-w|--watch"),
    "storybook": re.compile("^dev"),
    "start-storybook": _ANY,
    "live-server": _ANY,
    "browser-sync": _ANY,
    "lite-server": _ANY,
    "gulp": re.compile("^(serve|dev|watch|start)?$"),
    "hexo": re.compile("^(server|s)"),
    "expo": _ANY,
    "hugo": re.compile("server"),
    "concurrently": _ANY,
    "run-p": _ANY,
    "npm-run-all": _ANY,
}
"""Servers for development: name, and what of their arguments makes them one."""

SERVES_FOLDER: Mapping[str, re.Pattern[str]] = {
    "serve": _ANY,
    "http-server": _ANY,
    "sirv": _ANY,
    "vite": re.compile("^preview"),
    "astro": re.compile("^preview"),
    "docusaurus": re.compile("^serve"),
    "gatsby": re.compile("^serve"),
    "vitepress": re.compile("^(preview|serve)"),
    "rsbuild": re.compile("^preview"),
    "rspress": re.compile("^preview"),
    "gulp": re.compile("^preview"),
}
"""Servers of plain files."""


def _next(rest: tuple[str, ...]) -> tuple[str, ...]:
    """Next.js reads PORT and HOSTNAME; what its options say would be stronger."""
    kept: list[str] = []
    words = list(rest)
    while words:
        word = words.pop(0)
        if word in {"-p", "--port", "-H", "--hostname"}:
            words = words[1:]
        elif not word.startswith(("--port=", "--hostname=", "-p=", "--turbo")):
            kept.append(word)
    return tuple(kept)


WITHOUT_PORT: Mapping[str, Callable[[tuple[str, ...]], tuple[str, ...]]] = {"next": _next}
"""Programs whose options for a port are left out, since they read PORT themselves."""


def default_start(name: str, rest: tuple[str, ...]) -> tuple[str, ...] | None:
    """Return what node runs for a framework's own command, None for no such command."""
    first = rest[0] if rest else ""
    match name, first:
        case "next", "start" | "dev":
            return (NEXT, "start", *_next(rest[1:]))
        case "nest", "start":
            return ("dist/main.js",)
        case (("nuxt" | "nuxi"), "start" | "preview" | "dev"):
            return (".output/server/index.mjs",)
    return None


def framework_start(manifest: Manifest) -> tuple[str, ...]:
    """Return what node runs for a workload without a usable start script; empty where no framework says it."""
    if manifest.has("next"):
        return (NEXT, "start")
    if manifest.has("nuxt") and "generate" not in manifest.scripts.get("build", ""):
        return (".output/server/index.mjs",)
    if manifest.has("@sveltejs/adapter-node"):
        return ("build",)
    if manifest.has("@astrojs/node"):
        return ("dist/server/entry.mjs",)
    if "@react-router/serve" in manifest.dependencies:
        return ("node_modules/@react-router/serve/bin.cjs", "build/server/index.js")
    if "@remix-run/serve" in manifest.dependencies:
        return ("node_modules/@remix-run/serve/dist/cli.js", "build/server/index.js")
    if "@nestjs/core" in manifest.dependencies:
        return ("dist/main.js",)
    return ()


SELF_CONTAINED = (".output/server/index.mjs",)
"""Programs that bring what they need: no node_modules beside them."""


@dataclass(frozen=True)
class Site:
    """A tool that makes a site."""

    title: str
    folders: tuple[str, ...]
    """Where it may leave the site, likeliest first."""
    known: bool = True


_ANYWHERE = ("dist", "build", "out", "_site", "public", "dist/client", ".vitepress/dist", "docs/.vitepress/dist")
_SITES: tuple[tuple[str, Site], ...] = (
    ("@docusaurus/core", Site("Docusaurus", ("build",))),
    ("vitepress", Site("VitePress", ("docs/.vitepress/dist", ".vitepress/dist"))),
    ("vuepress", Site("VuePress", ("docs/.vuepress/dist", "src/.vuepress/dist", ".vuepress/dist"))),
    ("@11ty/eleventy", Site("Eleventy", ("_site",))),
    ("gatsby", Site("Gatsby", ("public",))),
    ("astro", Site("Astro", ("dist",))),
    ("next", Site("Next.js", ("out",))),
    ("nuxt", Site("Nuxt", (".output/public", "dist"))),
    ("@sveltejs/adapter-static", Site("SvelteKit", ("build",))),
    ("@angular/core", Site("Angular", ("dist",))),
    ("react-scripts", Site("Create React App", ("build",))),
    ("@craco/craco", Site("Create React App", ("build",))),
    ("@vue/cli-service", Site("Vue", ("dist",))),
    ("@rspress/core", Site("Rspress", ("doc_build",))),
    ("rspress", Site("Rspress", ("doc_build",))),
    ("@rsbuild/core", Site("Rsbuild", ("dist",))),
    ("hexo", Site("Hexo", ("public",))),
    ("vite", Site("Vite", ("dist",))),
    ("parcel", Site("Parcel", ("dist",))),
)
_CONFIGURED = re.compile(
    r"""^[^/*\n]*?\b(?:outDir|output|distDir|outputPath)\s*:\s*["'`]\.?/?([A-Za-z0-9_][A-Za-z0-9._/-]{0,99})["'`]""",
    re.MULTILINE,
)
_ON_COMMAND_LINE = re.compile(
    r"(?:--output|--out-dir|--outDir|--dest|--dist-dir|--output-path)[= ]\.?/?([A-Za-z0-9_][A-Za-z0-9._/-]{0,99})"
)
_DOCUMENTS = re.compile(r"\b(?:vitepress|vuepress)\s+build\s+\.?/?([A-Za-z0-9_][A-Za-z0-9._/-]{0,99})")
_CONFIGS = (
    "vite.config.ts", "vite.config.js", "vite.config.mjs", "vite.config.mts", "eleventy.config.js",
    "eleventy.config.mjs", "eleventy.config.cjs", ".eleventy.js", "astro.config.mjs", "astro.config.ts",
    "vue.config.js", "config/vite.config.js", "docs/.vitepress/config.ts", "docs/.vitepress/config.mts",
    ".vitepress/config.ts", ".vitepress/config.mts", "svelte.config.js",
)  # fmt: skip


_SERVERS = frozenset((
    "express", "fastify", "koa", "hono", "@hono/node-server", "restify", "@hapi/hapi", "@nestjs/core", "polka", "micro",
    "socket.io", "ws", "apollo-server", "@apollo/server", "@feathersjs/feathers", "sails", "@adonisjs/core", "h3",
    "@react-router/serve", "@remix-run/serve", "json-server",
))  # fmt: skip


def serves_requests(manifest: Manifest) -> bool:
    """Return whether production has a package to make servers with: then no build alone makes the workload."""
    return not _SERVERS.isdisjoint(manifest.dependencies)


def site_of(manifest: Manifest) -> Site:
    """Return the tool that makes the site, by the packages asked for."""
    for name, site in _SITES:
        if manifest.has(name):
            return site
    return Site("the build script", _ANYWHERE, known=False)


def site_folders(project: Project, manifest: Manifest, build: str) -> tuple[str, ...]:
    """Return the folders where the site may be after the build, likeliest first; each relative, none leading out."""
    text = manifest.scripts.get(build, "")
    named = [match[1] for match in _ON_COMMAND_LINE.finditer(text)]
    named += [f"{match[1].rstrip('/')}/.{tool}/dist" for match in _DOCUMENTS.finditer(text)
              for tool in ("vitepress", "vuepress")]  # fmt: skip
    for config in _CONFIGS:
        data = project.read(config)
        if data is not None:
            named += [match[1] for match in _CONFIGURED.finditer(data.decode("utf-8", "replace"))]
    site = site_of(manifest)
    if site.title == "Angular":
        named += _angular(project)
    # A page that is in the repository is what the build starts from, not what it makes.
    elsewhere = (folder for folder in _ANYWHERE if not project.has(f"{folder}/index.html"))
    found = [*named, *(site.folders if site.known else ()), *elsewhere]
    plain = [folder.strip("/") for folder in found if ".." not in folder.split("/") and "//" not in folder]
    return tuple(dict.fromkeys(folder for folder in plain if folder not in {"", ".", "static", "hybrid", "server"}))


def next_output(project: Project) -> str:
    """Return `standalone` or `export` where next.config says so, else an empty string."""
    for name in ("next.config.js", "next.config.mjs", "next.config.ts", "next.config.cjs"):
        data = project.read(name)
        if data is not None:
            found = re.search(
                r"""^[^/*\n]*\boutput\s*:\s*["'](standalone|export)["']""",
                data.decode("utf-8", "replace"),
                re.MULTILINE,
            )
            if found:
                return found[1]
    return ""


def _angular(project: Project) -> list[str]:
    data = project.read("angular.json")
    try:
        projects = json.loads(data or b"{}").get("projects", {})
        found: list[str] = []
        for name, item in projects.items():
            build = (item.get("architect") or item.get("targets") or {}).get("build", {})
            path = build.get("options", {}).get("outputPath", f"dist/{name}")
            base = path.get("base", f"dist/{name}") if isinstance(path, dict) else str(path)
            found += [f"{base}/browser", base]
    except (ValueError, AttributeError, TypeError, RecursionError):
        return []
    return found
