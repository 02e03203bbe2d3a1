"""Rust: which binary, which steps, which files; pure plans from a folder."""

from __future__ import annotations

import json
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from build_cases import Make

from sekisho.errors import Refusal
from stages.build.language import Artifact, Plan, Unlocked
from stages.build.languages.rust import Rust
from stages.build.languages.rust_config import read_settings
from stages.build.locks_cargo import INDEX
from stages.build.project import Project
from stages.build.takes import left_out

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "tokaido"
OFFERED = ("1.96", "1.85")
SUM = "ab" * 32
PACKAGE = '[package]\nname = "app"\nversion = "1.2.3"\nedition = "2021"\n'
CRATE = f'[[package]]\nname = "itoa"\nversion = "1.0.0"\nsource = "{INDEX}"\nchecksum = "{SUM}"\n'
LOCK = 'version = 4\n[[package]]\nname = "app"\nversion = "1.2.3"\ndependencies = ["itoa"]\n' + CRATE


def plan(project: Project) -> Plan:
    found = Rust().plan(project, OFFERED)
    assert isinstance(found, Plan)
    return found


def artifacts(found: Plan) -> tuple[Artifact, ...]:
    assert isinstance(found.artifacts, tuple)
    return found.artifacts


def settings(found: Plan, step: str = "build") -> dict[str, Any]:
    file = next(item.files["settings.json"] for item in found.steps if item.name == step)
    return dict(json.loads(file))


def simple(**more: str) -> dict[str, str]:
    return {"Cargo.toml": PACKAGE, "Cargo.lock": LOCK, "src/main.rs": "fn main() {}"} | more


def test_the_example_is_planned() -> None:
    found = plan(Project(EXAMPLE))
    assert found.runtime.command == ("/usr/local/bin/tokaido",)
    assert found.runtime.directory == "/app"
    assert [step.name for step in found.steps] == ["crates", "dependencies", "build"]
    assert found.listed_by == "crates"
    assert {artifact.ecosystem for artifact in artifacts(found)} == {"crates"}
    assert found.no_command is None


def test_only_the_build_sees_the_workloads_code(make: Make) -> None:
    found = plan(make(simple()))
    assert [(step.name, step.source, step.keep) for step in found.steps] == [
        ("crates", None, True), ("dependencies", None, True), ("build", (), False),
    ]  # fmt: skip


def test_without_crates_there_is_one_step(make: Make) -> None:
    found = plan(make(simple(**{"Cargo.lock": "version = 4\n"})))
    assert [step.name for step in found.steps] == ["build"]
    assert found.listed_by == ""


def test_the_binary_that_is_named_as_score_yaml_names_the_app_starts_whatever_the_folder_is_called(make: Make) -> None:
    files = simple() | {"src/bin/one.rs": "fn main() {}", "src/bin/two_three.rs": "fn main() {}"}
    del files["src/main.rs"]
    assert plan(make(files)).no_command is not None
    score = "apiVersion: score.dev/v1b1\nmetadata: {name: two-three}\n"
    found = plan(make(files | {"score.yaml": score}))
    assert (found.no_command, found.runtime.command) == (None, ("/usr/local/bin/two_three",))


@pytest.mark.parametrize("said", ['"two\\nthree"', "Two", "a" * 64, "[x]", '"\\x1b[2J"', "''"])
def test_a_name_that_is_none_is_not_repeated(make: Make, said: str) -> None:
    project = make(simple() | {"score.yaml": f"metadata: {{name: {said}}}\n"})
    assert project.name == project.root.name


def test_in_haste_only_the_build_differs_and_names_what_is_not_optimised(make: Make) -> None:
    member = PACKAGE.replace('name = "app"', 'name = "part"')
    assert member != PACKAGE
    files = simple() | {"Cargo.toml": PACKAGE + "[workspace]\nmembers = ['part']\n", "part/Cargo.toml": member,
                        "part/src/lib.rs": ""}  # fmt: skip
    found = plan(make(files))
    assert found.hasty[:-1] == found.steps[:-1]
    assert found.hasty[-1] == replace(found.steps[-1], command=(*found.steps[-1].command, "app", "part"))


# -- what is in the key of the compiled crates -----------------------------------------------------------------------


def kept(project: Project) -> bytes:
    step = next(step for step in plan(project).steps if step.name == "dependencies")
    return step.files["settings.json"]


@pytest.mark.parametrize(
    "change",
    [
        {"src/main.rs": "fn main() { println!() }"},
        {"src/other.rs": ""},
        {"README.md": "x"},
        {"Cargo.toml": PACKAGE + 'description = "x"\nauthors = ["y"]\n'},
        {"Cargo.toml": PACKAGE.replace("1.2.3", "1.2.4"), "Cargo.lock": LOCK.replace("1.2.3", "1.2.4")},
        {"Cargo.toml": "# a comment\n" + PACKAGE + "[lints.rust]\nunsafe_code = 'forbid'\n"},
    ],
)
def test_a_commit_that_changes_no_dependency_finds_them_compiled(make: Make, change: dict[str, str]) -> None:
    before = kept(make(simple()))
    assert kept(make(simple(**change))) == before


@pytest.mark.parametrize(
    "change",
    [
        {"Cargo.lock": LOCK.replace("1.0.0", "1.0.1")},
        {"Cargo.toml": PACKAGE + '[dependencies]\nitoa = {version = "1", features = ["x"]}\n'},
        {"Cargo.toml": PACKAGE + "[profile.release]\nlto = true\n"},
        {"Cargo.toml": PACKAGE + "[features]\ndefault = []\n"},
        {".cargo/config.toml": '[build]\nrustflags = ["-C", "target-cpu=x86-64-v3"]\n'},
        {"build.rs": "fn main() {}"},
    ],
)
def test_what_changes_how_crates_are_compiled_compiles_them_anew(make: Make, change: dict[str, str]) -> None:
    before = kept(make(simple()))
    assert kept(make(simple(**change))) != before


def test_the_skeleton_is_a_workspace_without_code(make: Make) -> None:
    root = '[workspace]\nmembers = ["crates/*"]\nexclude = ["crates/old"]\n[workspace.dependencies]\nitoa = "1"\n'
    found = plan(
        make(
            {
                "Cargo.toml": root,
                "Cargo.lock": LOCK + '[[package]]\nname = "core"\nversion = "0.1.0"\n',
                "crates/app/Cargo.toml": PACKAGE + '[dependencies]\ncore = {path = "../core", version = "0.1"}\n',
                "crates/app/src/main.rs": 'fn main() { println!("secret") }',
                "crates/core/Cargo.toml": PACKAGE.replace('"app"', '"core"') + '[lib]\ncrate-type = ["cdylib"]\n',
                "crates/core/src/lib.rs": "pub fn secret() {}",
                "crates/core/build.rs": "fn main() { secret() }",
                "crates/old/Cargo.toml": "[package]\nname = 'old'\n",
                "crates/notes/readme.txt": "",
            }
        )
    )
    files = settings(found)["skeleton"]
    assert sorted(files) == [
        "Cargo.lock", "Cargo.toml",
        "crates/app/Cargo.toml", "crates/app/src/main.rs",
        "crates/core/Cargo.toml", "crates/core/build.rs", "crates/core/src/lib.rs",
    ]  # fmt: skip
    assert "secret" not in json.dumps(files)
    app, core = (tomllib.loads(files[f"crates/{name}/Cargo.toml"]) for name in ("app", "core"))
    assert app["package"]["version"] == "0.0.0"
    assert app["dependencies"] == {"core": {"path": "../core"}}
    assert core["lib"] == {"crate-type": ["cdylib"], "path": "src/lib.rs"}
    lock = {item["name"]: item["version"] for item in tomllib.loads(files["Cargo.lock"])["package"]}
    assert lock == {"app": "0.0.0", "core": "0.0.0", "itoa": "1.0.0"}
    assert tomllib.loads(files["Cargo.toml"])["workspace"]["dependencies"] == {"itoa": "1"}


def test_patched_crates_keep_their_versions(make: Make) -> None:
    patched = PACKAGE + '[patch.crates-io]\nitoa = {path = "itoa"}\n'
    files = settings(
        plan(
            make(
                simple(
                    **{
                        "Cargo.toml": patched,
                        "itoa/Cargo.toml": '[package]\nname = "itoa"\nversion = "1.0.0"\n',
                        "itoa/src/lib.rs": "",
                    }
                )
            )
        )
    )["skeleton"]
    assert tomllib.loads(files["Cargo.toml"])["package"]["version"] == "1.2.3"
    assert tomllib.loads(files["itoa/Cargo.toml"])["package"]["version"] == "1.0.0"


# -- which binary ----------------------------------------------------------------------------------------------------


def binaries(*names: str, more: str = "") -> dict[str, str]:
    return {"Cargo.toml": PACKAGE + more, "Cargo.lock": LOCK} | {f"src/bin/{name}.rs": "" for name in names}


@pytest.mark.parametrize(
    ("files", "start"),
    [
        (binaries("serve"), "serve"),
        (binaries("serve", "app"), "app"),
        (binaries("serve", "shop", "app"), "shop"),
        (binaries("serve", "shop", more='default-run = "serve"\n'), "serve"),
        (binaries("serve", "shop", more='[package.metadata.sekisho]\nbin = "serve"\n'), "serve"),
        (binaries("one") | {"src/bin/two/main.rs": "", "src/main.rs": ""}, "app"),
        ({"Cargo.toml": PACKAGE + '[[bin]]\nname = "x"\npath = "src/main.rs"\n', "src/main.rs": ""}, "x"),
        (binaries("a", "b", more='[[bin]]\nname = "a"\nrequired-features = ["off"]\n'), "b"),
        (
            binaries(
                "a",
                "app",
                more='[features]\ndefault = ["on"]\non = []\n[[bin]]\nname = "a"\nrequired-features = ["on"]',
            ),
            "app",
        ),
    ],
)
def test_the_binary_that_starts_is_found(make: Make, files: dict[str, str], start: str) -> None:
    found = plan(make({"Cargo.lock": LOCK} | files))
    assert found.runtime.command == (f"/usr/local/bin/{start}",)
    assert settings(found)["binaries"] == [start]


def test_the_program_of_a_workspace_is_found_among_its_members(make: Make) -> None:
    member = '[package]\nname = "{}"\nversion = "0.1.0"\n'
    found = plan(
        make(
            {
                "Cargo.toml": '[workspace]\nmembers = ["api", "lib", "tool"]\ndefault-members = ["api"]\n',
                "Cargo.lock": "version = 4\n",
                "api/Cargo.toml": member.format("api"), "api/src/main.rs": "",
                "lib/Cargo.toml": member.format("lib"), "lib/src/lib.rs": "",
                "tool/Cargo.toml": member.format("tool"), "tool/src/main.rs": "",
            }
        )
    )  # fmt: skip
    assert found.runtime.command == ("/usr/local/bin/api",)
    assert settings(found)["manifests"] == {"api/Cargo.toml": ["api"]}


def test_where_nothing_decides_all_are_built_and_score_has_to_say(make: Make) -> None:
    found = plan(make(binaries("serve", "work")))
    assert found.runtime.command == ()
    assert settings(found)["binaries"] == ["serve", "work"]
    assert found.no_command is not None
    assert "serve, work" in str(found.no_command)
    assert '[package.metadata.sekisho] bin = "serve"' in found.no_command.remedy


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"Cargo.toml": PACKAGE, "src/lib.rs": ""}, "no binary"),
        ({"Cargo.toml": PACKAGE + '[package.metadata.sekisho]\nbin = "x"\n', "src/main.rs": ""}, "which is not there"),
        ({"Cargo.toml": PACKAGE + '[package.metadata.sekisho]\nrun = "x"\n', "src/main.rs": ""}, "may have `bin`"),
        ({"Cargo.toml": PACKAGE + "[package.metadata.sekisho]\nfeatures = ['a b']\n", "src/main.rs": ""}, "not a list"),
        ({"Cargo.toml": PACKAGE + '[[bin]]\nname = "../x"\npath = "x.rs"\n'}, "not a name for a binary"),
        ({"Cargo.toml": PACKAGE, "src/bin/a b.rs": ""}, "not a name for a binary"),
        ({"Cargo.toml": "[package]\n", "src/main.rs": ""}, "names no package"),
        ({"Cargo.toml": ""}, "neither a package nor a workspace"),
        ({"Cargo.toml": "[package"}, "not TOML"),
        ({"Cargo.toml": "a = " + "[" * 100_000}, "not TOML"),
        ({"Cargo.toml": '[workspace]\nmembers = ["gone"]\n'}, "There is no gone/Cargo.toml"),
        ({"Cargo.toml": '[workspace]\nmembers = ["../other"]\n'}, "leads out of the workload's folder"),
        ({"Cargo.toml": PACKAGE + '[dependencies]\nx = {path = "/etc"}\n'}, "leads out of the workload's folder"),
        ({"Cargo.toml": PACKAGE + '[dependencies]\nx = {path = "a/../../b"}\n'}, "leads out of the workload's folder"),
        ({"Cargo.toml": PACKAGE + '[dependencies]\nx = {git = "https://example.org/x"}\n'}, "comes from a git"),
        ({"Cargo.toml": PACKAGE + '[target.x.dependencies]\nx = {git = "https://example.org"}\n'}, "comes from a git"),
        ({"Cargo.toml": PACKAGE + '[patch.crates-io]\nx = {git = "https://example.org"}\n'}, "comes from a git"),
        ({"Cargo.toml": PACKAGE + '[dependencies]\nx = {version = "1", registry = "r"}\n'}, "another registry"),
        ({"Cargo.toml": PACKAGE.replace('"2021"', "{workspace = true}")}, "belongs to a workspace outside"),
        ({"Cargo.toml": PACKAGE + "[dependencies]\nx.workspace = true\n"}, "belongs to a workspace outside"),
    ],
)
def test_what_cannot_be_built_is_said_in_one_sentence(make: Make, files: dict[str, str], said: str) -> None:
    with pytest.raises(Refusal, match=said) as caught:
        Rust().plan(make({"Cargo.lock": "version = 4\n"} | files), OFFERED)
    assert "Cargo.toml" in caught.value.where
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("manifest", "remedy"),
    [
        ('[workspace]\nmembers = ["../other"]\n', "or put score.yaml into the folder that holds both."),
        (PACKAGE + "[dependencies]\nx.workspace = true\n", "Put score.yaml into the workspace's folder, and name the"),
    ],
)
def test_a_workload_that_needs_the_folder_above_is_the_one_with_score_yaml(
    make: Make, manifest: str, remedy: str
) -> None:
    with pytest.raises(Refusal) as caught:
        Rust().plan(make({"Cargo.lock": "version = 4\n", "Cargo.toml": manifest}), OFFERED)
    assert remedy in caught.value.remedy


# -- version of Rust -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "version", "notes"),
    [
        ({}, "1.96", 0),
        ({"rust-toolchain.toml": '[toolchain]\nchannel = "stable"\n'}, "1.96", 0),
        ({"rust-toolchain.toml": '[toolchain]\nchannel = "1.96.0"\n'}, "1.96", 0),
        ({"rust-toolchain.toml": '[toolchain]\nchannel = "1.72"\n'}, "1.96", 1),
        ({"rust-toolchain": "1.80.1\n"}, "1.96", 1),
        ({"Cargo.toml": PACKAGE + 'rust-version = "1.88"\n'}, "1.96", 0),
    ],
)
def test_the_version_is_one_of_those_offered(make: Make, files: dict[str, str], version: str, notes: int) -> None:
    found = plan(make(simple(**files)))
    assert found.version == version
    assert len(found.notes) == notes


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"rust-toolchain.toml": '[toolchain]\nchannel = "nightly-2026-01-01"\n'}, "not a release"),
        ({"rust-toolchain": "nightly"}, "not a release"),
        ({"rust-toolchain.toml": '[toolchain]\nchannel = "1.97"\n'}, r"1\.97 or newer is asked for; offered: 1\.96"),
        ({"Cargo.toml": PACKAGE + 'rust-version = "2.0"\n'}, r"2\.0 or newer"),
        ({"rust-toolchain.toml": "channel = ["}, "not TOML"),
    ],
)  # fmt: skip
def test_a_version_that_is_not_offered_is_refused(make: Make, files: dict[str, str], said: str) -> None:
    with pytest.raises(Refusal, match=said) as caught:
        Rust().plan(make(simple(**files)), OFFERED)
    assert caught.value.remedy


# -- no lock ---------------------------------------------------------------------------------------------------------


def test_without_a_lock_cargo_makes_one(make: Make) -> None:
    found = Rust().plan(make({"Cargo.toml": PACKAGE, "src/main.rs": ""}), OFFERED)
    assert isinstance(found, Unlocked)
    assert found.produces == ("Cargo.lock",)
    assert found.ecosystems == ("crates",)
    assert found.decided_by == ("Cargo.toml",)
    assert "cargo generate-lockfile" in found.refusal.remedy


def test_what_was_resolved_is_laid_over(make: Make) -> None:
    project = make({"Cargo.toml": PACKAGE, "src/main.rs": ""}).with_files({"Cargo.lock": LOCK.encode()})
    assert [artifact.save_as for artifact in artifacts(plan(project))] == ["itoa-1.0.0.crate"]


# -- .cargo/config.toml ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "flags", "left"),
    [
        ('[build]\nrustflags = ["-C", "target-cpu=x86-64-v2", "--cfg", "x"]\n',
         ("-C", "target-cpu=x86-64-v2", "--cfg", "x"), ""),
        ('[build]\nrustflags = "-Copt-level=3 -Dwarnings"\n', ("-C", "opt-level=3", "-Dwarnings"), ""),
        ('[target.x86_64-unknown-linux-gnu]\nlinker = "clang"\nrustflags = ["-C", "link-arg=-fuse-ld=lld"]\n',
         (), "-C link-arg=-fuse-ld=lld, [target] linker"),
        ('[target.x86_64-pc-windows-msvc]\nlinker = "x"\nrustflags = ["-C", "target-cpu=y"]\n', (), ""),
        ('[target."cfg(unix)"]\nrunner = "evil"\n', (), "[target] runner"),
        ('[build]\nrustc-wrapper = "sccache"\ntarget = "x"\njobs = 4\n', (), "[build] rustc-wrapper, [build] target"),
        ('[source.crates-io]\nreplace-with = "x"\n[registries.x]\nindex = "y"\n', (), "[source], [registries]"),
        ('[build]\nrustflags = ["-C", "target-cpu=native", "-L", "/etc", "--extern=x=/y"]\n',
         (), "-C target-cpu=native, the flag -L, the flag /etc, the flag --extern=x=/y"),
        ("[alias]\nb = 'build'\n[net]\nretry = 2\n", (), ""),
    ],
)  # fmt: skip
def test_of_cargos_settings_only_what_changes_the_code_holds(
    make: Make, text: str, flags: tuple[str, ...], left: str
) -> None:
    found = read_settings(make({".cargo/config.toml": text}))
    assert found.flags == flags
    assert found.notes == ((f"Of .cargo/config.toml the line leaves out: {left}.",) if left else ())


def test_variables_are_let_through_but_not_the_lines_own(make: Make) -> None:
    text = (
        '[env]\nAPP_NAME = "x"\nPATH = "/evil"\nRUSTC = "y"\nCARGO_HOME = "z"\nHERE = {value = "a", relative = true}\n'
    )
    found = read_settings(make({".cargo/config.toml": text}))
    assert found.variables == {"APP_NAME": "x"}
    assert found.notes == (
        "Of .cargo/config.toml the line leaves out: [env] PATH, [env] RUSTC, [env] CARGO_HOME, [env] HERE.",
    )


def test_a_setting_that_is_no_text_is_refused(make: Make) -> None:
    with pytest.raises(Refusal, match="not a variable"):
        read_settings(make({".cargo/config.toml": "[env]\nX = 1\n"}))
    with pytest.raises(Refusal, match="not TOML"):
        read_settings(make({".cargo/config.toml": "[env"}))


# -- what is beside the binary ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "there"),
    [
        ("templates/index.html", True), ("migrations/1_init.sql", True), ("configuration/base.yaml", True),
        ("static/app.js", True), ("stations.csv", True),
        ("src/main.rs", False), ("crates/a/src/lib.rs", False), ("Cargo.lock", False), ("crates/a/Cargo.toml", False),
        (".env", False), (".cargo/config.toml", False), (".sqlx/query-1.json", False), ("target/release/app", False),
        ("tests/api/main.rs", False), ("README.md", False), ("Dockerfile", False), ("score.yaml", False),
    ],
)  # fmt: skip
def test_what_a_program_reads_is_beside_it_and_its_source_is_not(make: Make, path: str, *, there: bool) -> None:
    take = plan(make(simple())).takes[0]
    assert take.into == "app"
    assert left_out(take.exclude)(path) is not there


def test_rocket_is_told_to_listen_for_others(make: Make) -> None:
    found = plan(make(simple(**{"Cargo.lock": LOCK + CRATE.replace("itoa", "rocket")})))
    assert found.runtime.environment["ROCKET_ADDRESS"] == "0.0.0.0"  # noqa: S104
    assert len(found.notes) == 1


def test_sqlx_checks_queries_without_a_database(make: Make) -> None:
    found = plan(make(simple(**{"Cargo.lock": LOCK + CRATE.replace("itoa", "sqlx")})))
    assert [step.environment.get("SQLX_OFFLINE") for step in found.steps] == [None, "true", "true"]


SQLX = LOCK + CRATE.replace("itoa", "sqlx") + CRATE.replace("itoa", "sqlx-macros")


@pytest.mark.parametrize(
    "more",
    [
        {".sqlx/query-ab.json": "{}", "src/db.rs": 'sqlx::query!("SELECT 1")'},
        {"sqlx-data.json": "{}", "src/db.rs": 'query_as!(User, "SELECT 1")'},
        {"src/db.rs": 'sqlx::query("SELECT 1")'},
    ],
)
def test_queries_that_need_no_database_are_built(make: Make, more: dict[str, str]) -> None:
    assert plan(make(simple(**{"Cargo.lock": SQLX, **more}))).steps


def test_queries_that_need_a_database_to_compile_are_refused(make: Make) -> None:
    files = {"Cargo.lock": SQLX, "src/db.rs": 'let x = sqlx::query_as!(User, "SELECT 1");'}
    with pytest.raises(Refusal, match="there is none where the line builds") as caught:
        plan(make(simple(**files)))
    assert caught.value.where == "src/db.rs"
    assert "cargo sqlx prepare" in caught.value.remedy
