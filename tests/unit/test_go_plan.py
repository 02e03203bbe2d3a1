"""Go: which program, which modules, which steps, which files; pure plans from a folder."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from pathlib import Path

import pytest
from build_cases import Make

from sekisho.errors import Refusal
from stages.build.language import SOURCE, Artifact, Plan, Unlocked
from stages.build.languages.go import Go
from stages.build.languages.go_files import beside
from stages.build.languages.go_steps import FLAGS
from stages.build.plan_check import check_plan
from stages.build.project import Project
from stages.build.takes import left_out

ROOT = Path(__file__).resolve().parents[2]
OFFERED = ("1.27", "1.28")
HASH = base64.b64encode(hashlib.sha256(b"").digest()).decode()
MOD = "module example.org/team/shop\n\ngo 1.26\n"
MAIN = "package main\n\nfunc main() {}\n"
CHI = "github.com/go-chi/chi/v5"
CHI_MOD = f"{MOD}\nrequire {CHI} v5.2.0\n"
CHI_SUM = f"{CHI} v5.2.0 h1:{HASH}\n{CHI} v5.2.0/go.mod h1:{HASH}\n"
CHI_MAIN = f'package main\n\nimport (\n\t"net/http"\n\t"{CHI}/middleware"\n)\n\nfunc main() {{}}\n'


def plan(project: Project) -> Plan:
    found = Go().plan(project, OFFERED)
    assert isinstance(found, Plan)
    check_plan(found)
    return found


def refusal(project: Project) -> Refusal:
    with pytest.raises(Refusal) as caught:
        Go().plan(project, OFFERED)
    assert caught.value.where
    assert caught.value.remedy
    return caught.value


def paths(found: Plan) -> list[str]:
    assert isinstance(found.artifacts, tuple)
    assert all(isinstance(item, Artifact) for item in found.artifacts)
    return [item.path for item in found.artifacts]


def built(found: Plan) -> str:
    return found.steps[-1].command[-1]


# -- what is recognised, and which version --------------------------------------------------------------------------


def test_go_is_seen_by_its_files(make: Make) -> None:
    assert Go().recognise(make({"x/go.mod": MOD})) == ""
    assert Go().recognise(make({"main.go": MAIN})) == "main.go"
    assert Go().recognise(make({"go.work": ""})) == "go.work"
    assert Go().recognise(make({"go.mod": MOD})) == "go.mod"


def test_a_program_without_go_mod_is_told_how_to_get_one(make: Make) -> None:
    assert "go mod init" in refusal(make({"main.go": MAIN})).remedy


@pytest.mark.parametrize(
    ("directive", "version"), [("1.12", "1.27"), ("1.27.3", "1.27"), ("1.28", "1.28"), ("1.28rc1", "1.28")]
)
def test_the_first_version_that_is_new_enough_is_taken(make: Make, directive: str, version: str) -> None:
    assert plan(make({"go.mod": f"module x.org/y\ngo {directive}\n", "main.go": MAIN})).version == version


def test_a_newer_go_than_offered_is_refused_in_one_sentence(make: Make) -> None:
    found = refusal(make({"go.mod": "module x.org/y\n\ngo 1.29.1\n", "main.go": MAIN}))
    assert found.what == "go.mod asks for Go 1.29.1, and offered is 1.27, 1.28."
    assert found.where == "go.mod:3"


# -- modules -------------------------------------------------------------------------------------------------------


def test_a_program_of_its_own_has_one_step_and_needs_no_lock(make: Make) -> None:
    found = plan(make({"go.mod": MOD, "main.go": MAIN}))
    assert [step.name for step in found.steps] == ["build"]
    assert found.artifacts == ()
    assert found.listed_by == "build"
    assert found.runtime.command == ("/usr/local/bin/shop",)
    assert found.runtime.directory == "/app"


def test_what_is_imported_of_others_is_compiled_first_and_kept(make: Make) -> None:
    found = plan(make({"go.mod": CHI_MOD, "go.sum": CHI_SUM, "main.go": CHI_MAIN}))
    kept, last = found.steps
    assert (kept.keep, kept.packages, kept.source) == (True, True, ("go.mod", "go.sum"))
    assert kept.files == {"imports": f"{CHI}/middleware\n".encode()}
    assert (last.keep, last.packages, last.source, last.uses) == (False, False, (), ("dependencies",))
    assert paths(found) == [f"{CHI}/@v/v5.2.0.mod", f"{CHI}/@v/v5.2.0.zip"]


def test_a_change_of_the_own_code_changes_nothing_that_decides_the_kept_step(make: Make) -> None:
    files = {"go.mod": CHI_MOD, "go.sum": CHI_SUM, "main.go": CHI_MAIN}
    before = plan(make(files)).steps[0]
    after = plan(make({**files, "main.go": CHI_MAIN + "\nvar changed = 1\n", "web/page.html": "x"})).steps[0]
    assert before == after


def test_only_modules_that_go_mod_names_are_fetched_where_it_names_all(make: Make) -> None:
    extra = f"x.org/old v1.0.0 h1:{HASH}\nx.org/old v1.0.0/go.mod h1:{HASH}\n"
    files = {"go.sum": CHI_SUM + extra, "main.go": CHI_MAIN}
    new = paths(plan(make({**files, "go.mod": CHI_MOD})))
    old = paths(plan(make({**files, "go.mod": CHI_MOD.replace("go 1.26", "go 1.16")})))
    assert "x.org/old/@v/v1.0.0.zip" not in new
    assert "x.org/old/@v/v1.0.0.mod" in new
    assert "x.org/old/@v/v1.0.0.zip" in old


def test_a_replaced_module_is_fetched_by_its_new_name(make: Make) -> None:
    mod = f"{CHI_MOD}\nreplace {CHI} => example.org/Fork/chi v1.0.0\n"
    sums = f"example.org/Fork/chi v1.0.0 h1:{HASH}\nexample.org/Fork/chi v1.0.0/go.mod h1:{HASH}\n"
    found = paths(plan(make({"go.mod": mod, "go.sum": sums + CHI_SUM, "main.go": CHI_MAIN})))
    assert [path for path in found if path.endswith("zip")] == ["example.org/!fork/chi/@v/v1.0.0.zip"]


def test_a_folder_may_stand_for_a_module(make: Make) -> None:
    files = {
        "go.mod": f"{CHI_MOD}\nrequire lib v0.0.0\nreplace lib => ./third/lib\n",
        "go.sum": CHI_SUM,
        "main.go": 'package main\n\nimport _ "lib/inner"\n\nfunc main() {}\n',
        "third/lib/go.mod": f"module other\n\ngo 1.26\n\nrequire {CHI} v5.2.0\n",
        "third/lib/inner/x.go": "package inner\n",
        "third/lib/unused/x.go": f'package unused\n\nimport _ "{CHI}"\n',
    }
    kept = plan(make(files)).steps[0]
    assert kept.source == ("go.mod", "go.sum", "third/lib/go.mod")
    assert kept.files["imports"] == f"{CHI}\n".encode(), "packages of others may import what is replaced"


@pytest.mark.parametrize("folder", ["../lib", "./../lib", "/srv/lib", "./a/../../lib"])
def test_a_folder_outside_is_refused_with_what_can_be_done(make: Make, folder: str) -> None:
    found = refusal(make({"go.mod": f"{CHI_MOD}\nreplace {CHI} => {folder}\n", "main.go": CHI_MAIN}))
    assert "outside of the workload's folder" in found.what
    assert found.where == "go.mod:7"
    assert "go.work" in found.remedy


def test_a_folder_that_is_replaced_but_not_required_does_not_matter(make: Make) -> None:
    plan(make({"go.mod": f"{MOD}\nreplace x.org/y => ../y\n", "main.go": MAIN}))


def test_a_folder_without_go_mod_is_refused(make: Make) -> None:
    found = refusal(make({"go.mod": f"{CHI_MOD}\nreplace {CHI} => ./chi\n", "main.go": CHI_MAIN}))
    assert "no go.mod in that folder" in found.what


def test_vendored_packages_are_compiled_from_the_commit(make: Make) -> None:
    files = {
        "go.mod": CHI_MOD,
        "main.go": CHI_MAIN,
        "vendor/modules.txt": "",
        f"vendor/{CHI}/middleware/x.go": "package middleware\n",
    }
    found = plan(make(files))
    assert found.artifacts == ()
    assert (found.steps[0].packages, found.steps[0].source) == (False, ("go.mod", "vendor"))


def test_a_workspace_is_built_as_one(make: Make) -> None:
    files = {
        "go.work": "go 1.27\nuse (\n\t./api\n\t./lib\n)\n",
        "api/go.mod": "module example.org/api\n\ngo 1.26\n\nrequire example.org/lib v0.0.0\n",
        "api/main.go": 'package main\n\nimport _ "example.org/lib"\n\nfunc main() {}\n',
        "lib/go.mod": f"module example.org/lib\n\ngo 1.26\n\nrequire {CHI} v5.2.0\n",
        "lib/go.sum": CHI_SUM,
        "lib/lib.go": f'package lib\n\nimport _ "{CHI}"\n',
    }
    found = plan(make(files))
    assert found.runtime.command == ("/usr/local/bin/api",)
    assert found.steps[0].source == ("api/go.mod", "go.work", "lib/go.mod", "lib/go.sum")
    assert {step.environment["GOWORK"] for step in found.steps} == {""}
    assert paths(found) == [f"{CHI}/@v/v5.2.0.mod", f"{CHI}/@v/v5.2.0.zip"]


def test_a_workspace_that_leaves_out_the_module_at_the_top_does_not_count(make: Make) -> None:
    found = plan(make({"go.mod": MOD, "main.go": MAIN, "go.work": "go 1.26\nuse ../other\n"}))
    assert found.steps[0].environment["GOWORK"] == "off"


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"go.work": "go 1.26\n"}, "uses no module"),
        ({"go.work": "go 1.26\nuse ./api\n"}, "there is no api/go.mod"),
        ({"go.work": "go 1.26\nuse ../api\n"}, "outside of the workload's folder"),
        ({"go.work": "go 1.26\nuse ./a\n", "a/go.mod": CHI_MOD, "a/main.go": CHI_MAIN}, "there is no a/go.sum"),
    ],
)
def test_a_workspace_that_is_not_whole_is_refused(make: Make, files: Mapping[str, str], words: str) -> None:
    assert words in refusal(make(files)).what


def test_a_link_is_no_module_file(make: Make, tmp_path: Path) -> None:
    project = make({"main.go": MAIN})
    (tmp_path / "elsewhere").write_text(MOD)
    (project.root / "go.mod").symlink_to(tmp_path / "elsewhere")
    assert "no go.mod" in refusal(project).what


def test_a_file_in_another_encoding_is_refused(make: Make) -> None:
    project = make({"main.go": CHI_MAIN, "go.mod": CHI_MOD})
    (project.root / "go.sum").write_bytes(CHI_SUM.encode("utf-16"))
    assert "not UTF-8" in refusal(project).what


# -- without a lock -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mod", [CHI_MOD, MOD])
def test_without_go_sum_the_line_may_resolve(make: Make, mod: str) -> None:
    found = Go().plan(make({"go.mod": mod, "main.go": CHI_MAIN}), OFFERED)
    assert isinstance(found, Unlocked)
    assert "go mod tidy" in found.refusal.remedy
    assert found.produces == ("go.mod", "go.sum")
    assert found.ecosystems == ("go",)
    assert found.step.environment["GOPROXY"] == "http://127.0.0.1:8001/go"
    assert found.step.environment["GOSUMDB"] == "sum.golang.org"


def test_an_import_that_no_module_has_is_told_before_anything_is_fetched(make: Make) -> None:
    found = refusal(make({"go.mod": MOD, "go.sum": "", "main.go": CHI_MAIN}))
    assert found.what == f"{CHI}/middleware is imported, and no module that go.mod requires has it."
    assert found.where == "main.go:5"


# -- the program ----------------------------------------------------------------------------------------------------


def program(project: Project) -> tuple[str, ...]:
    found = plan(project)
    assert found.no_command is None
    return found.runtime.command


SCORE = "apiVersion: score.dev/v1b1\nmetadata:\n  name: checkout\n"


@pytest.mark.parametrize(
    ("files", "name"),
    [
        (["main.go", "cmd/other/main.go"], "shop"),
        (["cmd/shop/main.go", "cmd/other/main.go"], "shop"),
        (["cmd/checkout/main.go", "cmd/other/main.go"], "checkout"),
        (["cmd/one/main.go", "examples/two/main.go", "hack/three/main.go"], "one"),
        (["cmd/one/main.go", "server/main.go"], "one"),
        (["server/main.go", "tools/gen/main.go"], "server"),
        (["cmd/main.go"], "cmd"),
        (["tools/gen/main.go"], "gen"),
        (["services/web/cmd/web/main.go", "testdata/x/main.go", "_old/main.go", ".x/main.go"], "web"),
    ],
)
def test_the_program_that_starts(make: Make, files: list[str], name: str) -> None:
    assert program(make({"go.mod": MOD, "score.yaml": SCORE, **dict.fromkeys(files, MAIN)})) == (
        f"/usr/local/bin/{name}",
    )


def test_the_name_is_the_one_that_go_install_gives(make: Make) -> None:
    assert program(make({"go.mod": "module x.org/team/mail/v2\n", "main.go": MAIN})) == ("/usr/local/bin/mail",)


def test_the_folder_s_name_decides_nothing(tmp_path: Path) -> None:
    plans = []
    for name in ("one", "two"):
        for path in ("go.mod", "cmd/one/main.go", "cmd/two/main.go"):
            target = tmp_path / name / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(MOD if path == "go.mod" else MAIN)
        plans.append(plan(Project(tmp_path / name)))
    assert plans[0].steps == plans[1].steps
    assert plans[0].runtime == plans[1].runtime


def test_several_programs_are_all_built_and_one_has_to_be_named(make: Make) -> None:
    found = plan(make({"go.mod": MOD, "cmd/api/main.go": MAIN, "cmd/worker/main.go": MAIN, "examples/x/main.go": MAIN}))
    assert found.no_command is not None
    assert found.no_command.what.endswith("which one starts: ./cmd/api, ./cmd/worker.")
    assert "web: api" in found.no_command.remedy
    assert "-o /out/bin/api ./cmd/api" in built(found)
    assert "-o /out/bin/worker ./cmd/worker" in built(found)
    assert "examples" not in built(found)
    assert found.runtime.environment["PATH"].startswith("/usr/local/bin:")


def test_a_framework_with_an_example_and_a_generator_is_not_guessed(make: Make) -> None:
    found = plan(make({"go.mod": MOD, "examples/base/main.go": MAIN, "plugins/internal/types/main.go": MAIN}))
    assert found.no_command is not None
    assert found.no_command.what.endswith("./examples/base, ./plugins/internal/types.")


def test_programs_with_one_name_do_not_overwrite_each_other(make: Make) -> None:
    found = plan(make({"go.mod": MOD, "a/cmd/web/main.go": MAIN, "b/cmd/web/main.go": MAIN}))
    assert "-o /out/bin/web ./a/cmd/web" in built(found)
    assert "-o /out/bin/b-cmd-web ./b/cmd/web" in built(found)


def test_a_main_that_is_not_for_linux_or_only_for_a_tool_is_none(make: Make) -> None:
    files = {
        "go.mod": MOD,
        "cmd/web/main.go": MAIN,
        "gen.go": f"//go:build ignore\n\n{MAIN}",
        "lib.go": "package shop\n",
        "cmd/tray/main_windows.go": MAIN,
        "cmd/dev/main.go": f"//go:build dev\n\n{MAIN}",
    }
    assert program(make(files)) == ("/usr/local/bin/web",)


def test_a_main_package_without_a_function_main_is_none(make: Make) -> None:
    files = {"go.mod": MOD, "mockgen.go": "package main\n\n//go:generate true\n", "cmd/web/main.go": MAIN}
    assert program(make(files)) == ("/usr/local/bin/web",)


def test_a_library_is_refused(make: Make) -> None:
    assert "no program here" in refusal(make({"go.mod": MOD, "lib.go": "package shop\n"})).what


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("web: worker", ("worker",)),
        ("web: ./bin/worker --port 8080", ("worker", "--port", "8080")),
        ("web:bin/worker 'a b'", ("worker", "a b")),
        ("web: exec /app/worker", ("worker",)),
        ("web: go run ./cmd/worker -v", ("worker", "-v")),
        ("web: go run -race cmd/worker/main.go x", ("worker", "x")),
        ("web: go run .", ("shop",)),
        ("web: go run main.go", ("shop",)),
        ("web: server -a", ("shop", "-a")),
        ("worker: worker", ("shop",)),
    ],
)
def test_the_procfile_decides(make: Make, line: str, command: tuple[str, ...]) -> None:
    files = {"go.mod": MOD, "main.go": MAIN, "cmd/worker/main.go": MAIN, "Procfile": f"release: ./x\n{line}\n"}
    assert program(make(files)) == (f"/usr/local/bin/{command[0]}", *command[1:])


def test_variables_in_front_are_the_image_s(make: Make) -> None:
    found = plan(make({"go.mod": MOD, "main.go": MAIN, "Procfile": "web: GIN_MODE=release ./shop\n"}))
    assert found.runtime.environment["GIN_MODE"] == "release"
    assert found.runtime.command == ("/usr/local/bin/shop",)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("web: shop -p $PORT", "needs a shell"),
        ("web: a && b", "needs a shell"),
        ("web: shop 'x", "cannot be read"),
        ("web: A=b", "names no program"),
        ("web: a\nweb: b", "two `web` lines"),
        ("web: go run ./cmd/none", "no program here is called so"),
    ],
)
def test_a_procfile_that_cannot_be_is_refused(make: Make, line: str, words: str) -> None:
    found = refusal(make({"go.mod": MOD, "main.go": MAIN, "Procfile": f"{line}\n"}))
    assert words in found.what
    assert found.where.startswith("Procfile:")


# -- what is missing, before the compiler says it -------------------------------------------------------------------


def test_cgo_is_refused_where_it_is_the_only_way(make: Make) -> None:
    files = {"go.mod": MOD, "main.go": 'package main\n\n// #include <x.h>\nimport "C"\n\nfunc main() {}\n'}
    found = refusal(make(files))
    assert "cgo" in found.what
    assert found.where == "main.go:4"


def test_cgo_with_another_way_beside_it_is_not(make: Make) -> None:
    plan(make({"go.mod": MOD, "main.go": MAIN, "fast.go": '//go:build cgo\n\npackage main\n\nimport "C"\n'}))


def test_cgo_in_what_is_not_part_of_the_program_does_not_matter(make: Make) -> None:
    plan(make({"go.mod": MOD, "main.go": MAIN, "tools/x/x.go": 'package x\n\nimport "C"\n'}))


@pytest.mark.parametrize(
    ("more", "remedy"),
    [
        ({}, "Commit it"),
        ({"sqlc.yaml": ""}, "sqlc generate"),
        ({"buf.gen.yaml": ""}, "buf generate"),
        ({"internal/db/page.templ": ""}, "templ generate"),
    ],
)
def test_generated_code_that_is_not_committed_is_named(make: Make, more: Mapping[str, str], remedy: str) -> None:
    main = 'package main\n\nimport "example.org/team/shop/internal/db"\n\nfunc main() {}\n'
    found = refusal(make({"go.mod": MOD, "main.go": main, **more}))
    assert found.what == "example.org/team/shop/internal/db is imported, and the commit has no Go files for it."
    assert remedy in found.remedy


def test_a_template_without_its_code_is_named(make: Make) -> None:
    files = {"go.mod": MOD, "main.go": MAIN, "page.templ": ""}
    assert "templ generate" in refusal(make(files)).remedy
    plan(make({**files, "page_templ.go": "package main\n"}))


def embedding(pattern: str) -> dict[str, str]:
    main = f'package main\n\nimport "embed"\n\n//go:embed {pattern}\nvar files embed.FS\n\nfunc main() {{}}\n'
    return {"go.mod": MOD, "ui/ui.go": main}


def test_an_interface_that_another_tool_builds_is_named(make: Make) -> None:
    found = refusal(make({**embedding("all:dist"), "ui/package.json": "{}"}))
    assert found.what == "all:dist is embedded, and the commit has no such files."
    assert found.where == "ui/ui.go:5"
    assert "ui/package.json" in found.remedy


@pytest.mark.parametrize(
    ("pattern", "file", "there"),
    [
        ("dist", "ui/dist/a.js", True),
        ("dist/*", "ui/dist/a.js", True),
        ("dist/*.js", "ui/dist/a.js", True),
        ("dist/*.css", "ui/dist/a.js", False),
        ("*", "ui/dist/a.js", True),
        ("dist", "ui/dist/.hidden", False),
        ("dist", "ui/dist/_x/a.js", False),
        ("all:dist", "ui/dist/.hidden", True),
        ("dist/.hidden", "ui/dist/.hidden", True),
        ("dist", "dist/a.js", False),
        ('"with space"', "ui/with space", True),
        (".", "ui/a.js", True),
        ("di?t/[a-c].js", "ui/dist/b.js", True),
    ],
)
def test_embedded_files_are_matched_as_go_does(make: Make, pattern: str, file: str, there: bool) -> None:  # noqa: FBT001
    project = make({**embedding(pattern), file: "x"})
    if there:
        plan(project)
    else:
        assert "is embedded" in refusal(project).what


def test_patterns_without_end_are_refused(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stages.build.languages.go_tree._MAX_LOOKS", 10)
    files = {**embedding("* *.css ??? ????"), **{f"ui/{number}.css": "" for number in range(4)}}
    found = refusal(make(files))
    assert "too many" in found.what
    assert found.where == "ui/ui.go:5"


# -- what stands beside the program ---------------------------------------------------------------------------------

FILES = (
    ".env", ".github/x.yml", "Dockerfile", "LICENSE", "Makefile", "README.md", "content/post.md", "cmd/web/main.go",
    "go.mod", "go.sum", "migrations/1.sql", "score.yaml", "static/app.js", "static/embed.go", "static/in/logo.svg",
    "templates/index.html", "testdata/x", "tests/e2e.js", "ui/node_modules/x/y.js", "vendor/x/y.tmpl", "web/[a].html",
    "web/a.html",
)  # fmt: skip


def kept(embedded: tuple[str, ...]) -> list[str]:
    exclude, stays = beside(FILES, embedded)
    out = left_out(exclude)
    found = [path for path in FILES if not out(path)]
    assert stays is bool(found)
    return found


def test_what_a_program_may_read_stands_beside_it() -> None:
    assert kept(()) == [
        "content/post.md", "migrations/1.sql", "static/app.js", "static/in/logo.svg", "templates/index.html",
        "web/[a].html", "web/a.html",
    ]  # fmt: skip


def test_what_is_compiled_in_does_not() -> None:
    assert kept(("static/app.js", "static/in/logo.svg", "templates/index.html", "web/[a].html")) == [
        "content/post.md", "migrations/1.sql", "web/a.html"
    ]  # fmt: skip


def test_of_a_web_interface_only_what_its_build_left_stands_beside_it() -> None:
    files = ("ui/package.json", "ui/src/a.ts", "ui/index.html", "ui/dist/a.js", "ui/public/b.png", "web/index.html")
    exclude, stays = beside(files, ())
    out = left_out(exclude)
    assert [path for path in files if not out(path)] == ["ui/dist/a.js", "ui/public/b.png", "web/index.html"]
    assert stays


def test_a_name_with_a_star_hides_no_other() -> None:
    out = left_out(beside(("web/*.html", "web/a.html"), ("web/*.html",))[0])
    assert not out("web/a.html")


def test_a_folder_that_is_compiled_in_as_a_whole_is_one_pattern() -> None:
    exclude, _ = beside(FILES, ("static/app.js", "static/in/logo.svg"))
    assert exclude[-1] == "static"


def test_the_plan_takes_binary_and_files(make: Make) -> None:
    found = plan(make({"go.mod": MOD, "main.go": MAIN, "templates/x.html": "x"}))
    assert [(take.source, take.below, take.into) for take in found.takes] == [
        ("build", "bin", "usr/local/bin"),
        (SOURCE, "", "app"),
    ]
    assert len(plan(make({"templates/x.html": "x", "main.go": MAIN})).takes) == 2
    bare = Project(make({"bare/go.mod": MOD, "bare/main.go": MAIN}).root / "bare")
    assert len(plan(bare).takes) == 1


# -- notes and the example ------------------------------------------------------------------------------------------


def test_what_will_not_work_is_said(make: Make) -> None:
    sqlite = "github.com/mattn/go-sqlite3"
    files = {
        "go.mod": f"{MOD}require {sqlite} v1.14.0\n",
        "go.sum": f"{sqlite} v1.14.0 h1:{HASH}\n",
        "main.go": f'package main\n\nimport _ "{sqlite}"\n\nfunc main() {{}}\n',
        "default.pgo": "",
        "cmd/admin/main.go": MAIN,
    }
    notes = " ".join(plan(make(files)).notes)
    assert "needs cgo" in notes
    assert "default.pgo is not used" in notes
    assert "not built: ./cmd/admin" in notes


def test_no_file_of_a_workload_can_set_a_flag(make: Make) -> None:
    for step in plan(make({"go.mod": CHI_MOD, "go.sum": CHI_SUM, "main.go": CHI_MAIN})).steps:
        assert step.environment["GOENV"] == "off"
        assert step.environment["GOTOOLCHAIN"] == "local"
        assert step.environment["CGO_ENABLED"] == "0"
        assert step.environment["GOFLAGS"] in ("", "-modcacherw")
        assert all(flag in step.command[-1] for flag in FLAGS)


def test_the_standard_library_in_the_image_is_compiled_with_the_same_flags() -> None:
    recipe = (ROOT / "policies" / "standard-images.yaml").read_text(encoding="utf-8")
    assert f"go build {' '.join(FLAGS)} std" in recipe


def test_the_example(make: Make) -> None:
    found = plan(Project(ROOT / "examples" / "tegata"))
    assert found.runtime.command == ("/usr/local/bin/tegata",)
    assert paths(found) == [
        "golang.org/x/text/@v/v0.43.0.mod",
        "rsc.io/qr/@v/v0.2.0.mod",
        "golang.org/x/text/@v/v0.43.0.zip",
        "rsc.io/qr/@v/v0.2.0.zip",
    ]
    assert found.notes == ()
    assert len(found.takes) == 1, "everything is compiled in"
