"""Lock files of uv, Poetry, pipenv, PDM and PEP 751: real ones made by the tools, and bad ones."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sekisho.errors import Refusal
from stages.build.language import Unlocked
from stages.build.languages.python_packages import Packages, find_packages
from stages.build.languages.python_project import PyProject
from stages.build.locks import Target
from stages.build.locks_plain import parse_pdm_lock, parse_pipfile_lock, parse_pylock
from stages.build.locks_poetry import Wanted, parse_poetry_lock
from stages.build.locks_uv import parse_uv_lock
from stages.build.project import Project

REAL = Path(__file__).parent / "data" / "python_locks"
A, B = "a" * 64, "b" * 64
TARGET = Target()

# What each tool says for `flask`, `httpx[socks]`, `langdetect`, and colorama on Windows only; no extra, no group.
EXPECTED = frozenset(
    {"anyio", "blinker", "certifi", "click", "flask", "h11", "httpcore", "httpx", "idna", "itsdangerous", "jinja2",
     "langdetect", "markupsafe", "six", "socksio", "typing-extensions", "werkzeug"}
)  # fmt: skip

# PDM took a pre-release of httpx, which needs other packages.
EXPECTED_PDM = frozenset(
    {"blinker", "click", "flask", "httpx", "itsdangerous", "jinja2", "langdetect", "markupsafe", "six", "truststore",
     "typing-extensions", "werkzeug"}
)  # fmt: skip


def found(folder: Path) -> Packages:
    project = Project(folder)
    packages = find_packages(project, PyProject.read(project), TARGET)
    assert isinstance(packages, Packages)
    return packages


@pytest.mark.parametrize(
    ("folder", "file"),
    [
        ("uv", "uv.lock"),
        ("poetry2", "poetry.lock"),
        ("poetry1", "poetry.lock"),
        ("pipenv", "Pipfile.lock"),
        ("pdm", "pdm.lock"),
    ],
)
def test_every_tool_says_the_same_packages(folder: str, file: str) -> None:
    packages = found(REAL / folder)
    assert packages.file == file
    assert packages.names == (EXPECTED_PDM if folder == "pdm" else EXPECTED)
    text = (REAL / folder / file).read_text().split("\n")
    for item in packages.locked:
        near = "\n".join(text[item.line - 1 : item.line + 2])
        assert re.search(rf'"{re.escape(item.name)}"', near.replace("_", "-"), re.IGNORECASE), item
    langdetect = next(item for item in packages.locked if item.name == "langdetect")
    assert "cbc1fef89f8d062739774bd51eda3da3274006b3661d199c2655f6b3f6d605a0" in langdetect.hashes
    assert langdetect.version == "1.0.9"


def test_pylock_takes_its_default_groups_only() -> None:
    text = (REAL / "uv" / "pylock.toml").read_text()
    names = {item.name for item in parse_pylock(text, target=TARGET)}
    assert names >= EXPECTED
    assert "colorama" not in names


def test_a_group_of_uv_can_be_taken_as_well() -> None:
    text = (REAL / "uv" / "uv.lock").read_text()
    docs = parse_uv_lock(text, project="shop", wanted=(), target=TARGET, group="docs")
    assert {"mkdocs", "flask"} <= {item.name for item in docs.packages}
    assert "pytest" not in {item.name for item in docs.packages}
    extra = parse_uv_lock(text, project="shop", wanted=(), target=TARGET, group="pg")
    assert "pg8000" in {item.name for item in extra.packages}


@pytest.mark.parametrize("folder", ["uv", "poetry2", "poetry1"])
def test_a_lock_older_than_its_project_is_refused(folder: str, tmp_path: Path) -> None:
    for path in (REAL / folder).iterdir():
        if path.name != "pylock.toml":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    project = tmp_path / "pyproject.toml"
    text = project.read_text()
    project.write_text(
        text.replace('"langdetect==1.0.9"', '"langdetect==1.0.9", "new-thing"')
        if folder == "uv"
        else text.replace('langdetect = "1.0.9"', 'langdetect = "1.0.9"\nnew-thing = "*"')
    )
    with pytest.raises(Refusal, match=r"older than pyproject.toml: it does not know new-thing") as caught:
        found(tmp_path)
    assert "lock" in caught.value.remedy


def uv(*packages: str, root: str = 'dependencies = [{ name = "one" }]') -> str:
    head = f'version = 1\n\n[[package]]\nname = "shop"\nversion = "1"\nsource = {{ virtual = "." }}\n{root}\n'
    return head + "".join(f"\n[[package]]\n{package}\n" for package in packages)


def one(name: str = "one", version: str = "1.0", more: str = "", sha: str = A) -> str:
    return (
        f'name = "{name}"\nversion = "{version}"\nsource = {{ registry = "https://pypi.org/simple" }}\n'
        f'wheels = [{{ url = "https://x/{name}.whl", hash = "sha256:{sha}" }}]\n{more}'
    )


def read_uv(text: str) -> dict[str, str]:
    return {item.name: item.version for item in parse_uv_lock(text, project="", wanted=(), target=TARGET).packages}


def test_of_two_versions_an_edge_names_its_own() -> None:
    forks = (
        "resolution-markers = [\"python_full_version < '3.12'\"]",
        "resolution-markers = [\"python_version > '3.11'\"]",
    )
    text = uv(one(), one(version="2.0"), root='dependencies = [{ name = "one", version = "2.0" }]')
    assert read_uv(text) == {"one": "2.0"}
    assert read_uv(uv(one(more=forks[0]), one(version="2.0", more=forks[1]))) == {"one": "1.0"}
    with pytest.raises(Refusal, match="2 packages for this target"):
        read_uv(uv(one(), one(version="2.0")))


def test_extras_and_rings_of_packages() -> None:
    ring = 'dependencies = [{ name = "two", extra = ["x"] }]'
    back = 'dependencies = [{ name = "one" }]\n[package.optional-dependencies]\nx = [{ name = "three" }]'
    text = uv(one(more=ring), one("two", more=back, sha=B), one("three"), one("four"))
    assert read_uv(text) == {"one": "1.0", "two": "1.0", "three": "1.0"}


def test_own_packages_in_the_workload_are_named_and_others_refused(tmp_path: Path) -> None:
    member = 'name = "one"\nversion = "1"\nsource = { editable = "packages/one" }\n'
    workspace = parse_uv_lock(uv(member), project="", wanted=(), target=TARGET)
    assert (workspace.packages, workspace.folders) == ((), ("packages/one",))
    for source in ('{ editable = "../other" }', '{ directory = "/etc" }', '{ git = "https://x/y?rev=1#2" }',
                   '{ url = "https://x/one.whl" }', '{ path = "one.whl" }'):  # fmt: skip
        with pytest.raises(Refusal, match="not from the package index"):
            read_uv(uv(f'name = "one"\nversion = "1"\nsource = {source}\n'))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "version = 2\n",
        "x = [",
        "version = 1\npackage = 3\n",
        "version = 1\n[[package]]\nversion = '1'\nsource = { virtual = '.' }\n",
        "version = 1\nrequires-python = '>=3.14'\n",
        uv(),
        uv(one("../../etc/passwd"), root='dependencies = [{ name = "../../etc/passwd" }]'),
        uv(one(version="../1")),
        uv(one(sha="0" * 63)),
        uv(one().replace("sha256:", "md5:")),
        uv('name = "one"\nversion = "1"\nsource = { registry = "https://x" }\n'),
        uv(one().replace("wheels = [{", "wheels = [3, {")),
        uv(one(), root='dependencies = [{ name = "one", marker = "os_name ===" }]'),
        uv(one(), root='dependencies = [{ name = "one", marker = 3 }]'),
        uv(one(), root='dependencies = [{ name = "one", extra = 3 }]'),
        uv(one(), root="dependencies = 3"),
        "version = 1\n" + "a = " + "[" * 5000,
    ],
)
def test_no_uv_lock(text: str) -> None:
    with pytest.raises(Refusal) as caught:
        read_uv(text)
    assert caught.value.where.startswith("uv.lock")
    assert caught.value.remedy


PDM = (
    '[metadata]\n[[package]]\nname = "{}"\nversion = "{}"\ngroups = ["default"]\n'
    'files = [{{file = "x", hash = "{}"}}]\n'
)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[[package]]\nname = 'one'\nversion = '1'\n", "which group"),
        (PDM.format("one", "1", f"sha256:{A}") + 'git = "https://x"\n', "comes from a git"),
        (PDM.format("a/b", "1", f"sha256:{A}"), "not the name"),
        (PDM.format("one", "1", "md5:00"), "no sha256"),
        (
            PDM.format("one", "1", f"sha256:{A}") + PDM.format("one", "2", f"sha256:{B}").split("\n", 1)[1],
            "pinned twice",
        ),
    ],
)
def test_no_pdm_lock(text: str, says: str) -> None:
    with pytest.raises(Refusal, match=says):
        parse_pdm_lock(text, target=TARGET)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ([], "not a JSON object"),
        ({}, "no default section"),
        ({"default": {"one": 3}}, "no default section"),
        ({"default": {"one": {"version": "*"}}}, "not pinned"),
        ({"default": {"one": {"git": "https://x", "ref": "1"}}}, "comes from a git"),
        ({"default": {"one": {"path": ".", "editable": True}}}, "comes from a path"),
        ({"default": {"one": {"version": "==1", "hashes": "sha256:"}}}, "not a list"),
        ({"default": {"one": {"version": "==1"}}}, "no sha256"),
        ({"default": {"../one": {"version": "==1", "hashes": [f"sha256:{A}"]}}}, "not the name"),
    ],
)
def test_no_pipfile_lock(value: object, says: str) -> None:
    with pytest.raises(Refusal, match=says):
        parse_pipfile_lock(json.dumps(value), target=TARGET)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "lock-version"),
        ('lock-version = "1.0"\nrequires-python = ">=3.14"', "is for Python >=3.14"),
        ('lock-version = "1.0"\ndefault-groups = 3', "default-groups"),
        ('lock-version = "1.0"\n[[packages]]\nname = "one"\nversion = "1"\n', "no sha256"),
        ('lock-version = "1.0"\n[[packages]]\nname = "one"\nvcs = {type = "git", url = "x"}\n', "comes from a vcs"),
        ('lock-version = "1.0"\n[[packages]]\nname = "one"\nversion = "1"\nmarker = "x y"\n', "cannot be judged"),
        (
            'lock-version = "1.0"\n[[packages]]\nname = "one"\nversion = "1"\nwheels = [{hashes = {md5 = "0"}}]',
            "sha256",
        ),
    ],
)
def test_no_pylock(text: str, says: str) -> None:
    with pytest.raises(Refusal, match=says):
        parse_pylock(text, target=TARGET)


def test_groups_and_extras_of_a_pylock_are_judged() -> None:
    package = (
        '[[packages]]\nname = "{}"\nversion = "1"\nmarker = "{}"\nwheels = [{{hashes = {{sha256 = "' + A + '"}}}}]\n'
    )
    text = 'lock-version = "1.0"\ndependency-groups = ["dev"]\ndefault-groups = ["base"]\n'
    text += package.format("one", "'base' in dependency_groups") + package.format("two", "'dev' in dependency_groups")
    text += package.format("three", "'x' in extras") + package.format("four", "sys_platform == 'linux'")
    assert [item.name for item in parse_pylock(text, target=TARGET)] == ["four", "one"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no metadata"),
        ('[metadata]\n[[package]]\nname = "two"\nversion = "1"\n', "does not know one"),
        ('[metadata]\n[[package]]\nname = "one"\nversion = "1"\ngroups = ["main"]\n', "no sha256"),
        ('[metadata]\n[[package]]\nname = "one"\nversion = "1"\ngroups = ["main"]\nfiles = 3\n', "files is not"),
        (
            '[metadata]\n[[package]]\nname = "one"\nversion = "1"\ngroups = ["main"]\n[package.source]\ntype = "git"\n',
            "a git",
        ),
        (
            '[metadata]\n[[package]]\nname = "one"\nversion = "1"\n[[package]]\nname = "one"\nversion = "2"\n',
            "2 packages",
        ),
    ],
)
def test_no_poetry_lock(text: str, says: str) -> None:
    with pytest.raises(Refusal, match=says):
        parse_poetry_lock(text, wanted=(Wanted("one"),), target=TARGET)


def test_files_of_poetry_before_lock_format_2() -> None:
    text = f'[metadata.files]\none = [{{file = "x", hash = "sha256:{A}"}}]\n[[package]]\nname = "one"\nversion = "1"\n'
    assert parse_poetry_lock(text, wanted=(Wanted("one"),), target=TARGET)[0].hashes == (A,)


@settings(deadline=None, max_examples=60)
@given(st.text(max_size=300) | st.text("[]{}=\"'\n.packgehsv1#,", max_size=200))
def test_no_text_makes_a_reader_fail_in_another_way(text: str) -> None:
    for read in (
        read_uv,
        lambda text: parse_pdm_lock(text, target=TARGET),
        lambda text: parse_pylock(text, target=TARGET),
        lambda text: parse_pipfile_lock(text, target=TARGET),
        lambda text: parse_poetry_lock(text, wanted=(), target=TARGET),
    ):
        try:
            read(text)
        except Refusal:
            continue


def tree(folder: Path, files: dict[str, str | bytes]) -> Project:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data.encode() if isinstance(data, str) else data)
    return Project(folder)


def search(project: Project) -> Packages | Unlocked:
    return find_packages(project, PyProject.read(project), TARGET)


@pytest.mark.parametrize(
    ("files", "resolved", "remedy"),
    [
        ({"requirements.txt": "flask\n"}, "requirements.txt", "git mv requirements.txt requirements.in && uv pip"),
        ({"requirements.txt": "", "requirements.in": "flask\n"}, "requirements.in", "requirements.in -o"),
        (
            {"requirements/base.txt": "x", "requirements/production.txt": "-r base.txt"},
            "requirements/production.txt",
            "uv",
        ),
        ({"pyproject.toml": "[project]\nname='x'\ndependencies=['flask']\n"}, "pyproject.toml", "uv pip compile"),
        ({"pyproject.toml": "[project]\nname='x'\n[tool.uv]\nx=1\n"}, "pyproject.toml", "uv lock"),
        ({"pyproject.toml": "[tool.poetry.dependencies]\nflask='*'\n"}, "pyproject.toml", "poetry lock"),
        ({"setup.py": "", "README": ""}, "setup.py", "uv pip compile"),
    ],
)
def test_without_a_lock_it_says_how_to_resolve(
    tmp_path: Path, files: dict[str, str | bytes], resolved: str, remedy: str
) -> None:
    found = search(tree(tmp_path, files))
    assert isinstance(found, Unlocked)
    assert found.step.command[-1] == resolved
    assert found.produces == ("requirements.txt",)
    assert found.refusal.where == resolved
    assert remedy in found.refusal.remedy


@pytest.mark.parametrize(
    ("files", "decided_by"),
    [
        ({"requirements.txt": "flask\n# -r not.txt\n"}, ("requirements.txt",)),
        ({"requirements.txt": "-r other.txt\n"}, None),
        ({"requirements.txt": "flask\n -c other.txt\n"}, None),
        ({"requirements.txt": "./own\n"}, None),
        ({"requirements.txt": "own @ file:own\n"}, None),
        ({"requirements.txt": "-e .\n"}, None),
        ({"pyproject.toml": "[project]\nname='x'\ndependencies=['flask']\n"}, ("pyproject.toml",)),
        ({"pyproject.toml": "[project]\nname='x'\ndynamic=['dependencies']\n"}, None),
    ],
)
def test_which_files_decide_what_is_resolved(
    tmp_path: Path, files: dict[str, str | bytes], decided_by: tuple[str, ...] | None
) -> None:
    found = search(tree(tmp_path, files))
    assert isinstance(found, Unlocked)
    assert found.decided_by == decided_by


def test_what_was_resolved_is_a_lock(tmp_path: Path) -> None:
    project = tree(tmp_path, {"requirements.txt": "flask\n"})
    resolved = project.with_files({"requirements.txt": f"# x\nflask==3.1 --hash=sha256:{A}\n".encode()})
    packages = search(resolved)
    assert isinstance(packages, Packages)
    assert [item.where for item in packages.locked] == ["requirements.txt:2"]


def test_an_empty_requirements_file_says_that_there_are_none(tmp_path: Path) -> None:
    packages = search(tree(tmp_path, {"requirements.txt": "# nothing\n\n"}))
    assert isinstance(packages, Packages)
    assert packages.locked == ()


def test_hashed_requirements_come_before_the_tools_own_lock(tmp_path: Path) -> None:
    text = (REAL / "uv" / "uv.lock").read_text()
    packages = search(tree(tmp_path, {"requirements.txt": f"flask==3.1 --hash=sha256:{A}", "uv.lock": text}))
    assert isinstance(packages, Packages)
    assert packages.names == {"flask"}
    assert "uv.lock is not used" in packages.notes[0]


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"Pipfile": ""}, "Pipfile without its lock"),
        ({"README": ""}, "nothing says which packages"),
        ({"uv.lock": b"\xff\xfe\x00"}, "not UTF-8"),
        ({"requirements.txt": "flask==1 --hash=sha256:x".encode("utf-16")}, "not UTF-8"),
        ({"requirements.txt": b"#\n" * (2 << 20)}, "larger than"),
        ({"uv.lock": b"#\n" * (5 << 20)}, "larger than"),
        ({"requirements.txt": f"-r requirements.txt\nflask==1 --hash=sha256:{A}\n"}, "option -r"),
    ],
)
def test_bad_files_are_refused(tmp_path: Path, files: dict[str, str | bytes], says: str) -> None:
    with pytest.raises(Refusal, match=says):
        search(tree(tmp_path, files))


def test_a_million_lines_are_refused_or_read(tmp_path: Path) -> None:
    packages = "".join(f"p{number}==1 --hash=sha256:{A}\n" for number in range(20_000))
    with pytest.raises(Refusal, match="more than 2000 packages"):
        search(tree(tmp_path / "many", {"requirements.txt": packages}))
    empty = search(tree(tmp_path / "empty", {"requirements.txt": "\n" * 1_000_000}))
    assert isinstance(empty, Packages)
    tables = "".join(f"[[package]]\nname='p{number}'\n" for number in range(20_000))
    with pytest.raises(Refusal, match="more than 10000 packages"):
        search(tree(tmp_path / "tables", {"uv.lock": f"version = 1\n{tables}"}))


def test_a_link_is_no_lock(tmp_path: Path) -> None:
    (tmp_path / "uv.lock").symlink_to(REAL / "uv" / "uv.lock")
    with pytest.raises(Refusal, match="nothing says which packages"):
        search(Project(tmp_path))
