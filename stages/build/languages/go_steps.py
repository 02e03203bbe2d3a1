"""The steps that build a Go workload, as they run in the sandbox.

The packages of others are compiled once for a list of imports and kept: what comes out is a part of Go's build cache,
whose entries are found by a digest of all that decides them (toolchain, flags, sources), and the sources that the
compiler reads again. The workload's own packages are compiled and linked at each build, on top of a cache of its own
made of links to the standard library's entries and the kept ones. The go command runs no code of a module or of the
workload: there is no cgo, generators are not run, and no file of theirs sets a flag (`GOENV=off`, `GOFLAGS`).
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from stages.build.language import PACKAGES_FILE, Step

DEPENDENCIES, BUILD = "dependencies", "build"
PROGRAMS = "bin"
"""Folder of the binaries in the build step's output."""

FLAGS = ("-trimpath", "-buildvcs=false", "-pgo=off", "-gcflags=all=-dwarf=false")
"""Those with which the standard library in the image go-build is compiled as well (standard-images.yaml); with other
ones it is compiled anew at each build."""
LINK = "-ldflags=-s -w -buildid="
WORK = "work"

_STANDARD = "/usr/local/go-cache"
_TEMPORARY = "/tmp"  # noqa: S108  (a tmpfs of the container)

_ENVIRONMENT: Mapping[str, str] = {
    "CGO_ENABLED": "0",
    "GO111MODULE": "on",
    "GOAMD64": "v1",
    "GOARCH": "amd64",
    "GOCACHE": f"{_TEMPORARY}/cache",
    "GOENV": "off",
    "GOFLAGS": "",
    "GOMODCACHE": f"{_TEMPORARY}/mod",
    "GOOS": "linux",
    "GOPATH": f"{_TEMPORARY}/gopath",
    "GOPROXY": "off",
    "GOSUMDB": "off",
    "GOTMPDIR": _TEMPORARY,
    "GOTOOLCHAIN": "local",
    "GOVCS": "*:off",
}

_COLLECT_SELDOM = {"GOGC": "400", "GOMEMLIMIT": "768MiB"}
"""The compiler and the linker end before their garbage matters: a tenth of a small program's build."""

# Counters and uploads of the go command would cost a process at each run.
_TELEMETRY = """mkdir -p /tmp/.config/go/telemetry
echo off >/tmp/.config/go/telemetry/mode
"""
# A cache of this build's own, of links to what is only read. The time in trim.txt keeps the go command from looking for
# old entries, by whose links' targets it would judge.
_TRIMMED = """rm -f $GOCACHE/trim.txt
date +%s >$GOCACHE/trim.txt
"""
_CACHE_OF_LINKS = f"""mkdir -p $GOCACHE
cp -as {_STANDARD}/. $GOCACHE
{_TRIMMED}"""
_KEPT_TOO = f"""cp -asn /in/{DEPENDENCIES}/cache/. $GOCACHE
ln -s /in/{DEPENDENCIES}/mod $GOMODCACHE
"""
# For one run of the go command: a link for each of the 256 folders to which nothing was added, a third of the time.
# What the command cannot write there it does without.
_CACHE_OF_FOLDERS = f"""mkdir -p $GOCACHE
ln -st $GOCACHE {_STANDARD}/*
cd /in/{DEPENDENCIES}/cache
set -- [0-9a-f][0-9a-f]
cd $GOCACHE
if [ -d "$1" ]; then
  rm "$@"
  cp -as $(printf '{_STANDARD}/%s ' "$@") .
fi
cd /out/{WORK}
{_TRIMMED}"""

# A package that cannot be compiled by itself is left to the build step, which says why: only there is it known whether
# the program needs it. What is kept of the sources is what the go command reads again.
_DEPENDENCIES = """mkdir -p /out/mod/cache
ln -s /out/mod $GOMODCACHE
xargs -d '\\n' go list -e -f '{{{{if not (or .Error .DepsErrors)}}}}{{{{.ImportPath}}}}{{{{end}}}}' \\
  </in/line/imports >/tmp/good
if grep -q . /tmp/good; then
  grep . /tmp/good | xargs -d '\\n' go build {flags} || echo 'Some packages are left to the build step.'
fi
xargs -d '\\n' go list -e -deps -f '{{{{if and (not .Standard) .Dir}}}}{{{{$dir := .Dir}}}}{files}{{{{end}}}}' \\
  </in/line/imports | sort -u >/tmp/needed
find $GOMODCACHE/ -path $GOMODCACHE/cache -prune -o -type f -print | sort >/tmp/all
comm -23 /tmp/all /tmp/needed | xargs -d '\\n' -r rm -f
find $GOMODCACHE/cache -type f ! -name '*.mod' ! -name '*.ziphash' ! -name '*.info' -delete
find /out/cache \\( -type l -o -name trim.txt \\) -delete
echo 'What the build step reads again of the modules.' >/out/mod/README
cd /out
rm -rf work
"""
_READ_AGAIN = ("GoFiles", "IgnoredGoFiles", "SFiles", "HFiles", "SysoFiles", "EmbedFiles")

_LIST = """for program in /out/bin/*; do go version -m "$program"; done | awk -F '\\t' '
  function put() {
    gsub(/\\+/, "%2B", version)
    if (version ~ /^v[0-9]/ && path ~ /^[^.\\/]/) print "pkg:golang/" tolower(path) "@" version
    path = version = ""
  }
  { if ($2 != "=>") put() }
  $2 == "dep" || $2 == "=>" { path = $3; version = $4 }
  END { put() }' | sort -u >/out/PACKAGES
"""


@dataclass(frozen=True)
class Target:
    """A program to build."""

    package: str
    """As the go command takes it: `./cmd/server`."""
    name: str


def dependencies(
    imports: Sequence[str], manifests: Sequence[str], environment: Mapping[str, str], *, packages: bool
) -> Step:
    """Return the step that compiles the packages of others.

    Args:
        imports: their import paths.
        manifests: files and folders of the workload that say in which versions.
        environment: variables of this workload.
        packages: whether their sources are fetched; else they are in the workload.
    """
    files = "".join(f'{{{{range .{kind}}}}}{{{{$dir}}}}/{{{{.}}}}{{{{"\\n"}}}}{{{{end}}}}' for kind in _READ_AGAIN)
    script = _DEPENDENCIES.format(flags=shlex.join(FLAGS), files=files)
    return Step(
        name=DEPENDENCIES,
        command=("/bin/sh", "-euc", f"{_TELEMETRY}{_CACHE_OF_LINKS}{script}"),
        directory=WORK,
        source=tuple(manifests),
        packages=packages,
        files={"imports": "".join(f"{path}\n" for path in imports).encode()},
        environment={
            **_ENVIRONMENT,
            "GOCACHE": "/out/cache",
            "GOPROXY": "file:///in/packages",
            "GOFLAGS": "-modcacherw",
            **environment,
        },
        keep=True,
        what="compilation of the modules",
    )


def build(targets: Sequence[Target], environment: Mapping[str, str], *, kept: bool) -> Step:
    """Return the step that compiles and links the workload, and lists what is in it.

    Args:
        targets: the programs.
        environment: variables of this workload.
        kept: whether there is a step before that compiled the packages of others.
    """
    script = _TELEMETRY + (_CACHE_OF_FOLDERS if kept and len(targets) == 1 else _CACHE_OF_LINKS)
    if kept:
        script += _KEPT_TOO
    script += "mkdir -p /out/bin /out/.sekisho\n"
    for target in targets:
        command = ["go", "build", *FLAGS, LINK, "-o", f"/out/{PROGRAMS}/{target.name}", target.package]
        script += shlex.join(command) + "\n"
    script += _LIST.replace("/out/PACKAGES", f"/out/{PACKAGES_FILE}")
    return Step(
        name=BUILD,
        command=("/bin/sh", "-euc", script),
        directory=WORK,
        source=(),
        uses=(DEPENDENCIES,) if kept else (),
        environment={**_ENVIRONMENT, **_COLLECT_SELDOM, **environment},
        what="build of the program",
    )


def resolution(environment: Mapping[str, str]) -> Step:
    """Return the step that makes go.sum, asking the index and the checksum database behind it."""
    return Step(
        name="resolve",
        command=("/bin/sh", "-euc", f"{_TELEMETRY}go mod tidy\ntouch go.sum\n"),
        directory=WORK,
        source=(),
        environment={
            **_ENVIRONMENT,
            "GOPROXY": "http://127.0.0.1:8001/go",
            "GOSUMDB": "sum.golang.org",
            "GOFLAGS": "-mod=mod -modcacherw",
            **environment,
        },
        what="resolution of the modules",
    )
