"""Go workloads through the real sandbox, from the real index: the example, and the shapes that repositories have."""

import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from sekisho.embedded.netns import call_in, namespace
from sekisho.errors import Refusal
from sekisho.registry import Registry
from sekisho.zones import Port, Zone
from stages.build.__main__ import Bench

pytestmark = pytest.mark.e2e
PROJECT = Path(__file__).parents[2]
EXAMPLE = PROJECT / "examples" / "tegata"
LINKED = ("pkg:golang/golang.org/x/text@v0.43.0", "pkg:golang/rsc.io/qr@v0.2.0")
GREET = 'package greet\n\nfunc Name() string { return "traveller" }\n'
MAIN = 'package main\n\nimport "example.org/greet"\n\nfunc main() { println(greet.Name()) }\n'
MOD = "module example.org/gate\n\ngo 1.26\n"


@pytest.fixture(scope="module")
def bench(zones, tmp_path_factory):
    del zones  # only: they are up
    return Bench(cache=tmp_path_factory.mktemp("cache"), policies=PROJECT / "policies")


def tree(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


def program(built, tmp_path):
    """Return what the program in an image writes; it is static, so that it runs anywhere."""
    layer = next(layer for layer in built.image.layers if layer.kind == "application")
    archive = tmp_path / "layer.tar.gz"

    def pull():
        registry = Registry(f"http://127.0.0.1:{Port.REGISTRY_WRITE}")
        registry.pull_blob(built.image.repository, layer.digest, archive, size=layer.size)

    call_in(namespace(Zone.BUILD), pull)
    with tarfile.open(archive) as tar:
        names = tar.getnames()
        binary = next(name for name in names if name.startswith("usr/local/bin/"))
        tar.extract(binary, tmp_path, filter="data")
    done = subprocess.run([tmp_path / binary], capture_output=True, text=True, check=True, timeout=60)
    return done.stderr.strip(), names


@pytest.mark.long
def test_the_same_files_give_the_same_image_from_another_folder_with_another_cache(bench, tmp_path):
    first = bench.build(EXAMPLE, name="go-example")[0]
    assert first.made.locked == LINKED
    elsewhere = tmp_path / "some" / "where" / "else"
    shutil.copytree(EXAMPLE, elsewhere)
    cold = Bench(cache=tmp_path / "cache", policies=PROJECT / "policies").build(elsewhere, name="go-example")[0]
    warm = bench.build(elsewhere, name="go-example")[0]
    assert first.image.digest == cold.image.digest == warm.image.digest


def test_without_go_sum_the_line_makes_the_one_that_is_committed(bench, tmp_path):
    copy = tmp_path / "tegata"
    shutil.copytree(EXAMPLE, copy)
    (copy / "go.sum").unlink()
    built = bench.build(copy, name="go-unlocked")[0]
    assert built.resolved["go.sum"] == (EXAMPLE / "go.sum").read_bytes()
    assert built.made.locked == LINKED


SHAPES = {
    "vendored": (
        {
            "go.mod": f"{MOD}\nrequire example.org/greet v1.0.0\n",
            "main.go": MAIN,
            "vendor/modules.txt": "# example.org/greet v1.0.0\n## explicit; go 1.26\nexample.org/greet\n",
            "vendor/example.org/greet/greet.go": GREET,
        },
        ("pkg:golang/example.org/greet@v1.0.0",),
    ),
    "replaced": (
        {
            "go.mod": f"{MOD}\nrequire example.org/greet v1.0.0\n\nreplace example.org/greet => ./greet\n",
            "main.go": MAIN,
            "greet/go.mod": "module example.org/greet\n\ngo 1.26\n",
            "greet/greet.go": GREET,
        },
        (),
    ),
    "workspace": (
        {
            "go.work": "go 1.26\n\nuse (\n\t./cmd\n\t./greet\n)\n",
            "cmd/go.mod": "module example.org/cmd\n\ngo 1.26\n\nrequire example.org/greet v0.0.0\n",
            "cmd/gate/main.go": MAIN,
            "greet/go.mod": "module example.org/greet\n\ngo 1.26\n",
            "greet/greet.go": GREET,
        },
        (),
    ),
    "plain": (
        {
            "go.mod": MOD,
            "main.go": MAIN.replace("example.org/greet", "example.org/gate/greet"),
            "greet/greet.go": GREET,
            "templates/page.html": "x",
        },
        (),
    ),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_the_shapes_that_repositories_have(bench, tmp_path, shape):
    files, linked = SHAPES[shape]
    built = bench.build(tree(tmp_path / "gate", files), name=f"go-{shape}")[0]
    assert built.made.locked == linked
    said, names = program(built, tmp_path)
    assert said == "traveller"
    assert [name for name in names if name.startswith("app/")] == (
        ["app/templates", "app/templates/page.html"] if shape == "plain" else []
    )


def test_what_the_compiler_says_reaches_the_developer(bench, tmp_path):
    files = {"go.mod": MOD, "main.go": "package main\n\nfunc main() {\n\tprintln(missing)\n}\n"}
    with pytest.raises(Refusal, match=r"main\.go:4:10: undefined: missing"):
        bench.build(tree(tmp_path / "gate", files), name="go-broken")


def test_a_file_that_the_lock_does_not_describe_is_refused(bench, tmp_path):
    copy = tmp_path / "tegata"
    shutil.copytree(EXAMPLE, copy)
    lock = (copy / "go.sum").read_text()
    good = lock.split("rsc.io/qr v0.2.0 h1:")[1].split("\n")[0]
    other = lock.split("golang.org/x/text v0.43.0 h1:")[1].split("\n")[0]
    (copy / "go.sum").write_text(lock.replace(good, other))
    with pytest.raises(Refusal, match=r"rsc\.io/qr"):
        bench.build(copy, name="go-tampered")
