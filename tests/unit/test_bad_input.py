"""What the builder is promised to stand: each ends with a clear sentence and its remedy, and nothing is harmed.

Commits and locks here, from git's objects to the stage's answer. What a running step does is in
tests/e2e/test_sandbox_escape.py; docs/builder.md has the table of all cases.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from build_cases import builder_for, standard_image
from git_cases import Repository

from sekisho.errors import Refusal
from sekisho.keys import FileSigner
from sekisho.model import Image, StandardImage
from sekisho.registry import Registry
from stages import source
from stages.build import BuildInput, BuildStage

VERSIONS = {"python": "3.11", "node": "24.21.0", "go": "1.27", "rust": "1.96", "java": "17", "static": "1.4"}
HASH = "sha512-" + "A" * 86 + "=="
SHA = "a" * 64
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n"
CARGO = '[package]\nname = "app"\nversion = "0.1.0"\nedition = "2021"\n'

Commit = Callable[[Repository], str]


class Standards:
    """One image for everything."""

    def __init__(self, image: StandardImage) -> None:
        self.image = image

    def offered(self, language: str) -> tuple[str, ...]:
        return (VERSIONS[language],)

    def for_language(self, language: str, version: str = "") -> tuple[StandardImage, StandardImage | None]:
        del language, version
        return self.image, self.image


@dataclass
class Zone:
    """The build zone as far as a commit meets it."""

    repository: Repository
    registry: Registry
    folder: Path
    stage: BuildStage
    app: str

    def push(self, commit: str) -> Image:
        revision = source.revision(self.repository.path, self.app, commit, "main")
        tree = source.checkout(self.repository.path, commit, self.folder / "trees" / commit)
        return self.stage.perform(BuildInput(revision, tree))

    def kept(self) -> list[str]:
        """Return what builds left: files in work and cache, and the folders of commits that were refused."""
        found = [path.relative_to(self.folder).as_posix() for path in (self.folder / "cache" / "work").rglob("*")]
        return found + [path.as_posix() for path in self.folder.rglob("passwd")]


@pytest.fixture
def zone(registry_url: str, tmp_path: Path, request: pytest.FixtureRequest) -> Zone:
    registry = Registry(registry_url)
    builder = builder_for(registry, tmp_path, Standards(standard_image(registry, tmp_path)))
    stage = BuildStage(builder, FileSigner.create(tmp_path / "builder.pem", "builder"),
                       builder_id="https://sekisho.dev/builders/test/v1")  # fmt: skip
    app = "bad-" + "".join(letter if letter.isalnum() else "-" for letter in request.node.callspec.id)[:30].strip("-")
    return Zone(Repository(tmp_path / "app.git"), registry, tmp_path, stage, app)


def of_files(files: Mapping[str, bytes | str]) -> Commit:
    """Return a commit of plain files at the top."""

    def made(repository: Repository) -> str:
        blobs = {name: data.encode() if isinstance(data, str) else data for name, data in files.items()}
        return repository.commit(*(("100644", name, repository.blob(data)) for name, data in sorted(blobs.items())))

    return made


def of_entry(mode: str, name: str, data: bytes = b"x") -> Commit:
    """Return a commit of one entry of any kind."""
    return lambda repository: repository.commit((mode, name, repository.blob(data)))


def bomb(repository: Repository, *, folders: bool = False) -> str:
    """Return a commit of more than a million files in three trees; or of folders with nothing in them."""
    names = [f"{number:03d}" for number in range(110)]
    mode, sha = ("40000", repository.tree()) if folders else ("100644", repository.blob(b""))
    for _ in range(3):
        mode, sha = "40000", repository.tree(*((mode, name, sha) for name in names))
    return repository.git("commit-tree", "-m", "bomb", sha)


def deep(repository: Repository) -> str:
    """Return a commit of one file below a hundred folders."""
    return repository.commit(("40000", "a", repository.nested(100, repository.blob(b"x"), mode="100644")))


def npm_lock(path: str, **more: object) -> str:
    root = {"name": "app", "version": "1.0.0", "dependencies": {"a": "1.0.0"}}
    entry = {"version": "1.0.0", "resolved": "https://registry.npmjs.org/a/-/a-1.0.0.tgz", "integrity": HASH, **more}
    return json.dumps({"name": "app", "lockfileVersion": 3, "packages": {"": root, path: entry}})


def npm(lock: str) -> Commit:
    package = {"name": "app", "version": "1.0.0", "scripts": {"start": "node a.js"}, "dependencies": {"a": "1.0.0"}}
    return of_files({"package.json": json.dumps(package), "package-lock.json": lock, "a.js": ""})


def crate(name: str) -> Commit:
    lock = (
        'version = 3\n[[package]]\nname = "app"\nversion = "0.1.0"\n'
        f'[[package]]\nname = "{name}"\nversion = "1.0.0"\n'
        f'source = "registry+https://github.com/rust-lang/crates.io-index"\nchecksum = "{SHA}"\n'
    )
    return of_files({"Cargo.toml": CARGO, "Cargo.lock": lock, "main.rs": "fn main() {}"})


CASES: dict[str, tuple[Commit, str, str]] = {
    "path-that-leaves-the-tree": (of_entry("100644", ".."), "leaves its tree", "Remove that path"),
    "path-into-git": (of_entry("100644", ".GIT"), "is reserved", "Remove that path"),
    "link-to-the-system": (of_entry("120000", "a", b"/etc/passwd"), "absolute target", "Link inside the tree only"),
    "link-out-of-the-tree": (of_entry("120000", "a", b"../../x"), "leads out of its tree", "Link inside the tree only"),
    "link-that-never-ends": (of_entry("120000", "a", b"a"), "never ends", "Remove the link"),
    "device": (of_entry("20666", "null"), "submodule", "Commit the files themselves"),
    "a-million-files": (bomb, "More than 50000 files", "Remove what the workload does not need"),
    "a-million-folders": (lambda repository: bomb(repository, folders=True), "More than 50000 folders", "Remove what"),
    "folders-without-end": (deep, "folders deep", "Nest the folders less deeply"),
    "name-in-latin-1": (of_entry("100644", "caf\udce9.txt"), "is not UTF-8", "Rename the file"),
    "link-to-latin-1": (of_entry("120000", "a", b"caf\xe9.txt"), "is not UTF-8", "Rename the file that it points to"),
    "time-of-another-age": (lambda repository: repository.commit_at(1 << 40), "between 1970 and 2242", "git commit"),
    "name-with-an-escape": (of_entry("100644", "a\x1b[31m"), "control characters", "Rename the file"),
    "file-in-utf-16": (
        of_files({"requirements.txt": "flask\n".encode("utf-16"), "app.py": ""}), "UTF-8", "Save it as UTF-8",
    ),
    "two-languages": (
        of_files({"go.mod": "module a\n\ngo 1.27\n", "Cargo.toml": CARGO}),
        "two things at once: go.mod (Go), Cargo.toml (Rust)", "build.sekisho.dev/language: go",
    ),
    "nothing-at-all": (of_files({}), "There are no files here", "Commit the workload"),
    "nothing-to-build": (of_files({"README.md": "# hi"}), "nothing here that the line knows", "requirements.txt"),
    "submodule": (
        lambda repository: repository.commit(("160000", "lib", "1" * 40)), "'lib' is a submodule",
        "git rm --cached lib; rm -rf lib/.git; git add lib. If the folder is empty, first: git submodule update",
    ),
    "lfs-pointer": (
        of_files({".gitattributes": "*.png filter=lfs diff=lfs merge=lfs -text\n", "logo.png": POINTER}),
        "Git LFS pointer", "git lfs pull; git lfs untrack '*.png'; git add --renormalize .",
    ),
    "lfs-pointer-that-nothing-tracks": (
        of_entry("100644", "logo.png", POINTER), "Git LFS pointer", "Put the file itself in its place",
    ),
    "npm-lock-out-of-the-tree": (npm(npm_lock("node_modules/../../etc/passwd")), "package-lock.json", "npm install"),
    "npm-lock-to-another-host": (
        npm(npm_lock("node_modules/a", resolved="http://evil.example/a.tgz")), "evil.example", "a published version",
    ),
    "cargo-lock-out-of-the-tree": (crate("../../etc/passwd"), "not the name of a crate", "cargo generate-lockfile"),
    "go-sum-out-of-the-tree": (
        of_files({"go.mod": "module a.org/b\n\ngo 1.27\n\nrequire x.org/y v1.0.0\n",
                  "main.go": "package main\n\nfunc main() {}\n",
                  "go.sum": f"x.org/../y v1.0.0 h1:{'A' * 43}=\n"}), "go.sum", "go mod tidy",
    ),
    "uv-lock-out-of-the-tree": (
        of_files({"pyproject.toml": '[project]\nname = "app"\nversion = "1"\ndependencies = ["a"]\n',
                  "Procfile": "web: python3 -m app\n",
                  "uv.lock": 'version = 1\nrequires-python = ">=3.11"\n[[package]]\nname = "app"\nversion = "1"\n'
                             'source = { virtual = "." }\ndependencies = [{ name = "../../etc/passwd" }]\n'}),
        "uv.lock", "uv lock",
    ),
    "maven-module-out-of-the-tree": (
        of_files({"pom.xml": "<project><modelVersion>4.0.0</modelVersion><groupId>a</groupId><artifactId>a</artifactId>"
                             "<version>1</version><packaging>pom</packaging><modules><module>../other</module></modules>"
                             "</project>"}), "lies outside", "Put score.yaml into the folder that holds all modules",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_bad_input_ends_with_a_sentence_and_its_remedy_and_harms_nothing(zone: Zone, case: str) -> None:
    bad, says, remedy = CASES[case]
    commit = bad(zone.repository)
    with pytest.raises(Refusal) as caught:
        zone.push(commit)
    refusal = caught.value
    assert says in f"{refusal.what} {refusal.where}"
    assert refusal.remedy
    assert remedy in refusal.remedy
    assert len(str(refusal)) < 1000
    assert str(refusal).isprintable()
    assert zone.kept() == []
    good = zone.push(of_files({"index.html": "<p>hello"})(zone.repository))
    assert good.language == "static"
    assert zone.kept() == []
