"""The pins: what is fetched or built, in which version, from where. Read from tools.lock.json.

Each source may be moved to a mirror by the environment variable that it names; docs/tools.md lists them.
"""

from __future__ import annotations

import os
import platform
import re
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Literal

from pydantic import Field

from sekisho.errors import PermanentError
from sekisho.model import Document

HEX_PATTERN = r"^[0-9a-f]{64}$"
CHECKSUM_SUFFIX = ".sha256"

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_VERSION = re.compile(r"(?<![\d.])v?(\d+\.\d+(?:\.\d+)?)(?![\d.])")
_GO_VERSION = re.compile(r"\bgo(\d+)\.(\d+)(?:\.(\d+))?")
_GO_LINE = re.compile(r"^go (\d+)\.(\d+)(?:\.(\d+))?$", re.MULTILINE)

GoVersion = tuple[int, int, int]
Group = Literal["line", "test"]
"""What the zones need, and what only the tests need."""


class Pin(Document):
    """A tool that is fetched or built."""

    name: str
    package: str
    """Import path of the command."""
    minutes: int
    """Roughly how long a build takes with two cores and a cold cache."""
    version_argument: str = "--version"
    sha256: dict[str, str] = Field(default_factory=dict)
    """Architecture to hexadecimal digest of the official download; where given, no published checksum is read."""


class Source(Document):
    """One project: its official downloads and its Go module."""

    name: str
    version: str
    group: Group = "line"
    base: str = ""
    """Empty where nothing is published that could be downloaded: then it is always built."""
    mirror: str = ""
    """Environment variable with another base URL."""
    path: str = ""
    checksums: str = ""
    """Path of the file with the checksums of all downloads; empty where each has a file of its own beside it."""
    member: str = ""
    """Name of the binary inside the archive; empty where the download is the binary."""
    module: str
    directory: str
    """Name of the build directory."""
    variables: dict[str, str] = Field(default_factory=dict)
    """Go variables that the linker sets."""
    tools: tuple[Pin, ...]

    def url(self, tool: Pin, arch: str) -> str:
        """Return the address of the tool's official download, or of the mirror's; empty where there is none."""
        if not self.base:
            return ""
        return download_url(self.base, self.mirror, self.path, version=self.version, arch=arch, name=tool.name)

    def checksum_url(self, tool: Pin, arch: str) -> str:
        """Return the address of the file that holds the download's checksum."""
        if not self.checksums:
            return self.url(tool, arch) + CHECKSUM_SUFFIX
        return download_url(self.base, self.mirror, self.checksums, version=self.version, arch=arch, name=tool.name)

    @property
    def remedy(self) -> str:
        """What brings a tool of this source that is missing."""
        return "scripts/setup" if self.group == "line" else f"python -m sekisho.tools ensure --group {self.group}"


class GoPin(Document):
    """The Go toolchain for builds, where the machine's own is missing or too old."""

    version: str
    module: str
    sums: dict[str, str]
    """Architecture to the module's h1 sum, as in the public checksum database."""
    base: str
    mirror: str
    path: str
    sha256: dict[str, str] = Field(default_factory=dict)

    def url(self, arch: str) -> str:
        """Return the address of the official archive, or of the mirror's."""
        return download_url(self.base, self.mirror, self.path, version=self.version, arch=arch, name="go")


class ScannerPin(Document):
    """The scanner, pinned by the digest of its binary."""

    name: str
    version: str
    wheel: str
    """Python distribution that carries the binary."""
    sha256: dict[str, str]


class SystemTool(Document):
    """A tool that the distribution's packages give."""

    name: str
    package: str
    version_argument: str = "--version"


class Lock(Document):
    """tools.lock.json."""

    format: Literal["sekisho.dev/tools/v1"]
    go: GoPin
    sources: tuple[Source, ...]
    scanner: ScannerPin
    system: tuple[SystemTool, ...]

    def managed(self) -> tuple[tuple[Source, Pin], ...]:
        """Return every fetched or built tool with its source."""
        return tuple((source, tool) for source in self.sources for tool in source.tools)


@cache
def load_lock() -> Lock:
    """Return the pins that come with this version of Sekisho."""
    data = resources.files("sekisho").joinpath("tools.lock.json").read_text(encoding="utf-8")
    return Lock.parse(data, where="sekisho/tools.lock.json")


def module_directory(source: Source) -> Path:
    """Return the directory with the go.mod and go.sum that pin a source's build."""
    return Path(str(resources.files("sekisho").joinpath("tools", "modules", source.name)))


def download_url(base: str, mirror: str, path: str, **names: str) -> str:
    """Return an address below `base`, or below the value of the environment variable `mirror`."""
    return f"{os.environ.get(mirror, base).rstrip('/')}/{path.format(**names)}"


def architecture() -> str:
    """Return this machine's architecture in Go's words.

    Raises:
        PermanentError: neither amd64 nor arm64.
    """
    machine = platform.machine()
    if machine not in _ARCHITECTURES:
        raise PermanentError(
            f"The embedded clusters do not run on {machine}.",
            where="uname -m",
            remedy="Use a Linux machine with amd64 or arm64.",
        )
    return _ARCHITECTURES[machine]


def parse_version(text: str) -> str:
    """Return the first version in what a tool prints about itself, `1.36.3` or `15.18`; empty where there is none."""
    match = _VERSION.search(text)
    return match[1] if match else ""


def parse_go_version(text: str) -> GoVersion | None:
    """Return the version in the output of `go version`; None where there is none."""
    return _triple(_GO_VERSION.search(text))


def required_go(directories: tuple[Path, ...]) -> GoVersion:
    """Return the highest `go` line of the go.mod files in `directories`."""
    found = [_triple(_GO_LINE.search((directory / "go.mod").read_text("utf-8"))) for directory in directories]
    return max((version for version in found if version), default=(0, 0, 0))


def _triple(match: re.Match[str] | None) -> GoVersion | None:
    return (int(match[1]), int(match[2]), int(match[3] or 0)) if match else None
