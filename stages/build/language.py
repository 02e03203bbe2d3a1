"""The contract between the line and a language: pure plans, no effects.

A language looks at a workload's files and says what is to be done: which files to fetch by hash, which steps to run in
the sandbox, what of their output goes into which layer, and how the workload starts. The line does all of it: it
fetches, runs, packs, caches, pushes and signs. So a new language is one module with one class, and no language can
weaken what the builder promises.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from sekisho.errors import Refusal
from stages.build.compose import Runtime
from stages.build.project import Project

Ecosystem = Literal["pypi", "npm", "go", "crates", "maven"]

SOURCE = "source"
"""Name that stands for the workload's own files where a step's or layer's input is named."""
PACKAGES_FILE = ".sekisho/packages"
"""File in a step's output that lists what is in the image, a package URL a line; see `Plan.listed_by`."""


@dataclass(frozen=True)
class Artifact:
    """One file of a package index, by hash."""

    ecosystem: Ecosystem
    path: str
    """Path below the root of the ecosystem's public index, for example `left-pad/-/left-pad-1.3.0.tgz`."""
    digests: tuple[str, ...]
    """What the lock says of its bytes, all of which must hold: `sha256:<hex>`, `sha512:<hex>`, `sha1:<hex>`,
    `h1:<base64>` (a Go module's zip), `h1mod:<base64>` (a Go module's go.mod file)."""
    save_as: str
    """Path below `/in/packages` in the sandbox."""
    purl: str = ""
    """Package URL; empty for a file that is not a package of its own."""
    where: str = ""
    """Place in the lock file, for messages: `package-lock.json:120`."""


@dataclass(frozen=True)
class Wheels:
    """A Python lock: for each package a set of hashes, of which the one for the target is chosen while fetching.

    Fetched wheels stand in `/in/packages` with a `requirements.txt` that names each one's hash.
    """

    packages: tuple[object, ...]
    """`stages.build.locks.Locked`."""
    python: str = "3.11"
    """Version of Python that the wheels are for."""


@dataclass(frozen=True)
class Ahead:
    """What the container of a step may do before there is a step: start what takes long to start.

    It runs while nothing is built, in the folder that the step will run in, sees nothing of any workload but the
    fetched packages (if the step does), and decides nothing: with it and without it a step makes the same.
    """

    command: tuple[str, ...] = ()
    """Started in the background; empty: that the container has started is enough."""
    files: Mapping[str, bytes] = field(default_factory=dict)
    """Files that it sees as /in/ahead/<name>, read-only."""


@dataclass(frozen=True)
class Step:
    """One command in the sandbox: no network, no secret, an ordinary user; its output is /out.

    Everything that decides the output is in here or is named here, so that the line can find a kept output by a
    digest over it.
    """

    name: str
    """`dependencies`, `build`, …; unique in a plan."""
    command: tuple[str, ...]
    """Run in `/out/<directory>`. `("/bin/sh", "-eu", "-c", script)` where more than one program runs."""
    directory: str = "."
    """Folder below /out to run in; what of the source the step sees is copied there first, writable."""
    source: tuple[str, ...] | None = None
    """Which of the workload's files it sees: None none, `()` all, else these paths (files or folders)."""
    packages: bool = False
    """Whether it sees the fetched packages in /in/packages, read-only."""
    uses: tuple[str, ...] = ()
    """Names of earlier steps whose output it sees as /in/<name>, a read-only folder."""
    files: Mapping[str, bytes] = field(default_factory=dict)
    """Files that the line writes for it, as /in/line/<name>, read-only: settings, generated lists."""
    environment: Mapping[str, str] = field(default_factory=dict)
    keep: bool = False
    """Whether the line keeps the output for later builds, found by a digest of all that decides it. Only for a step
    that sees none of the workload's files but its manifests: no build may influence another's."""
    what: str = ""
    """What this is, for people: `install of the packages`."""
    seconds: int | None = None
    """Longest run; None: as the policy says."""
    ahead: Ahead | None = None
    """What its container may do before; only for a step that is not kept and uses none that is."""


@dataclass(frozen=True)
class Take:
    """Part of an output that goes into the image."""

    kind: Literal["dependencies", "application"]
    """One layer a kind; `dependencies` have a fixed time and are shared by commits. Where two takes of a layer give
    the same path, the later one's file counts."""
    source: str
    """Name of a step, or SOURCE for the workload's own files."""
    below: str = ""
    """Folder of that output, without slashes at its ends; empty takes all."""
    into: str = ""
    """Folder in the image, without slashes at its ends."""
    exclude: tuple[str, ...] = ()
    """Paths below `below` to leave out, each with what is below it; `*` and `?` stay within one component, and `**/` in
    front means at any depth."""


@dataclass(frozen=True)
class Plan:
    """What is to be done to make the image of one workload."""

    language: str
    version: str
    """One of the versions offered."""
    why: str
    """How the language was seen, one sentence for people."""
    runtime: Runtime
    takes: tuple[Take, ...]
    artifacts: tuple[Artifact, ...] | Wheels = ()
    steps: tuple[Step, ...] = ()
    hasty: tuple[Step, ...] = ()
    """Steps in the place of `steps`, where a program is to be looked at soon and goes no further: it may run slower.
    Empty where nothing is won by it."""
    built_in: str = ""
    """Language whose build image the steps run in, where it is another one: a static site made by Node. Its version is
    `version`; the image to run on is then the preferred one of `language`."""
    locked: tuple[str, ...] = ()
    """Package URLs that must be found in the image by the scan."""
    listed_by: str = ""
    """Name of a step that says in PACKAGES_FILE which packages are in the image, instead of `locked`; only for steps
    that run no code of the workload (a Go compiler)."""
    no_command: Refusal | None = None
    """Set when nothing says how the workload starts: counts unless score.yaml names a command."""
    notes: tuple[str, ...] = ()
    """What else people should know, one sentence each: what was assumed, ignored, or resolved."""


@dataclass(frozen=True)
class Unlocked:
    """The workload has no lock file. As the policy says, it is refused, or resolved once by the line.

    To resolve, the step runs in the sandbox with a way to the language's package index and to nothing else: the
    line's own read-only proxy at `http://127.0.0.1:8001/<ecosystem>/`, which notes each file's sha256. What the step
    leaves in `produces` is laid over the workload's files, kept as evidence for the commit, and the plan is made anew.
    """

    language: str
    version: str
    refusal: Refusal
    """For a policy that refuses: says the one command that makes the lock."""
    step: Step
    ecosystems: tuple[Ecosystem, ...]
    produces: tuple[str, ...] = ()
    """Paths of lock files, relative to the step's directory, of which each must be there afterwards."""
    built_in: str = ""
    """As in `Plan`."""
    record_as: str = ""
    """Name of a lock file that the line itself writes from what it noted, where the language has none (Maven):
    JSON, `{"format": "sekisho.dev/recorded/v1", "files": {"maven/<path>": "sha256:<hex>", …}}`, canonical."""
    tool: str = ""
    """Package of the build image whose release decides what is asked for (`maven`, which names its own plugins): with
    another one a record is made anew. Empty for languages whose lock holds for any release of their tools."""
    decided_by: tuple[str, ...] | None = None
    """Files of the workload that decide what is resolved (`pom.xml`); None: all of it may. Where they are as in an
    earlier commit of the same app, the line takes that commit's record (`record_as`) instead of resolving again, if
    nothing is in it that changes in an index."""


class Language(Protocol):
    """One language. Instances hold no state."""

    @property
    def name(self) -> str:
        """Name in standard-images.yaml: `python`."""
        ...

    @property
    def title(self) -> str:
        """Name for people: `Python`."""
        ...

    def recognise(self, project: Project) -> str:
        """Return the file that shows the language (`go.mod`), or an empty string."""
        ...

    def plan(self, project: Project, offered: tuple[str, ...]) -> Plan | Unlocked:
        """Return what is to be done.

        Args:
            project: the workload's files.
            offered: versions in standard-images.yaml, the platform team's preferred one first.

        Raises:
            Refusal: what is missing or wrong, in one clear sentence with its remedy.
        """
        ...
