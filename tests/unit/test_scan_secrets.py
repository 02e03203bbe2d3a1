"""Secrets, asked of the pinned scanner: wherever a commit or an image has one, also where the scanner passes by."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest
from scan_cases import BASE, TOKEN, World, count_runs, find_scanner
from test_scan import image, report

from sekisho.tools import trivy as find_trivy
from stages.scan import parse, unseen
from stages.scan.source import scan_source

LINE = f"token = '{TOKEN}'\n"
PLACES = [
    "a.py", "a.md", "noext", ".env", ".npmrc", "a.min.js", "a.css", "a.html", "a.log", "a.exe", "a.so", "a.class",
    "a.lock", "a.ipynb", "a.pem", "a.sqlite", "a.woff2", "a.mp4", "a.7z", "a.jar", "a.csv",
    "tests/a.py", "a_test.go", "testdata/a", "examples/a", "vendor/a.go", "docs/a.md", "locale/a", "a.dist-info/x",
    "usr/share/doc/x", "usr/lib/x", "opt/yarn-v1/x", "var/lib/dpkg/x", "usr/local/go/x", "wp-includes/x.php",
    "usr/local/lib/python3.9/x.py", "usr/lib/gems/x", "anaconda/x.log", "root/anaconda-ks.cfg",
    "var/log/anaconda/x.log",
]  # fmt: skip
"""Where the scanner looks, with its rules for exceptions taken away."""
PASSED_OVER = [
    "node_modules/x/a.js", "sub/node_modules/@s/x/a.js", "proc/x", "sys/x", "dev/a.py",
    "package-lock.json", "yarn.lock", "pnpm-lock.yaml", "go.sum", "go.mod", "Pipfile.lock", "sub/go.mod",
    "a.png", "a.zip", "a.svg", "a.gz", "a.tar", "a.pdf", "a.bin", "a.gif", "a.jpg", "a.doc", "a.deb", "a.rpm",
]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def scanner() -> Path:
    return find_scanner()


@pytest.fixture
def world(registry_url: str, tmp_path: Path) -> World:
    return World(registry_url, tmp_path)


def written(folder: Path, places: list[str], data: bytes = LINE.encode()) -> Path:
    for place in places:
        path = folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def found(folder: Path, cache: Path, *, committed: bool = True) -> set[str]:
    cache.mkdir(exist_ok=True)
    return {item.where for item in scan_source(folder, find_trivy(), cache, None, committed=committed).secrets}


def test_no_name_of_a_file_hides_a_secret(tmp_path: Path) -> None:
    tree = written(tmp_path / "tree", [*PLACES, *PASSED_OVER])
    (tree / "link.py").symlink_to("a.py")
    assert found(tree, tmp_path / "cache") == {f"{place}:1" for place in (*PLACES, *PASSED_OVER)}


def test_what_is_laid_out_anew_is_what_the_scanner_passes_over() -> None:
    assert [place for place in PLACES if unseen.passed_over(PurePosixPath(place))] == []
    assert [place for place in PASSED_OVER if not unseen.passed_over(PurePosixPath(place))] == []


def test_a_text_in_utf_16_is_read_and_the_line_is_named(tmp_path: Path) -> None:
    tree = written(tmp_path / "tree", ["windows.txt"], f"one\r\n{LINE}".encode("utf-16"))
    assert found(tree, tmp_path / "cache") == {"windows.txt:2"}


def test_what_nobody_commits_is_not_searched_in_a_working_copy(tmp_path: Path) -> None:
    tree = written(
        tmp_path / "tree", ["node_modules/x/a.js", ".git/config", ".venv/a.svg", "package-lock.json", "a.svg"]
    )
    assert found(tree, tmp_path / "cache", committed=False) == {"package-lock.json:1", "a.svg:1"}


def test_what_was_laid_out_before_is_not_scanned_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = count_runs(tmp_path, monkeypatch)
    tree = written(tmp_path / "tree", ["a.py", "yarn.lock"], b"nothing here\n")
    assert found(tree, tmp_path / "cache") == set()
    assert taken() == ["fs", "fs"]
    written(tree, ["a.py"])
    assert found(tree, tmp_path / "cache") == {"a.py:1"}
    assert taken() == ["fs"]
    written(tree, ["yarn.lock"])
    assert found(tree, tmp_path / "cache") == {"a.py:1", "yarn.lock:1"}
    assert taken() == ["fs", "fs"]


def test_a_tree_without_such_files_is_read_once(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    assert unseen.lay_out(written(tmp_path / "tree", ["a.py", "b/c.md"]), scratch) == {}
    assert list(scratch.iterdir()) == []


def test_a_secret_in_a_layer_below_that_a_layer_above_deletes(world: World) -> None:
    subject = world.subject("secret-deleted", BASE, {"app/key": LINE, "app/x": "x"}, above={"app/.wh.key": ""})
    findings = world.stage.perform(subject).findings
    assert [(item.kind, item.where, item.owner) for item in findings if item.kind == "secret"] == [
        ("secret", "/app/key:1", "workload")
    ]


def test_a_secret_that_a_locked_package_brought_along_is_told_apart_from_the_workloads_own(world: World) -> None:
    subject = world.subject(
        "secret-brought", BASE, {"app/key": LINE}, brought={"opt/deps/lib/tests.py": LINE, "opt/deps/lib/x": "x"}
    )
    findings = world.stage.perform(subject).findings
    assert {(item.where, item.owner, item.layer) for item in findings if item.kind == "secret"} == {
        ("/app/key:1", "workload", ""),
        ("/opt/deps/lib/tests.py:1", "workload", "dependencies"),
    }


def test_a_secret_in_the_settings_of_an_image(world: World) -> None:
    settings = {"Env": ["PATH=/bin", f"TOKEN={TOKEN}"], "Cmd": ["serve"]}
    subject = world.subject("secret-env", BASE, {"app/x": "x"}, settings=settings)
    scan = world.stage.perform(subject)
    (secret,) = [item for item in scan.findings if item.kind == "secret"]
    assert (secret.id, secret.where.partition(":")[0], secret.owner) == ("github-pat", "apps/secret-env", "workload")
    assert TOKEN not in scan.model_dump_json()


def test_the_settings_of_a_standard_image_are_the_platforms() -> None:
    secret = {"RuleID": "x", "Severity": "HIGH", "Title": "x", "StartLine": 1, "Layer": {}}
    found = report(Results=[{"Target": "x", "Secrets": [secret]}])
    own = image(base_digest=image().digest)
    assert [item.owner for item in (*parse.secrets(found, image()), *parse.secrets(found, own))] == [
        "workload",
        "platform",
    ]


def test_a_secret_in_a_committed_node_modules_is_found_by_the_stage(world: World) -> None:
    written(world.tree, ["node_modules/left-pad/index.js"])
    subject = world.subject("secret-modules", BASE, {"app/x": "x"})
    findings = world.stage.perform(subject).findings
    assert [(item.id, item.where) for item in findings if item.kind == "secret"] == [
        ("github-pat", "node_modules/left-pad/index.js:1")
    ]
