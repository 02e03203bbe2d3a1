"""Valid examples of every lock file and manifest that a push can bring, and ways to spoil them, by a seed."""

from __future__ import annotations

import copy
import json
import random
import re
from collections.abc import Mapping
from typing import Any

from stages.build.languages.rust_skeleton import toml

HASH = "sha256:" + "a" * 64
INTEGRITY = "sha512-" + "A" * 86 + "=="
SUM = "h1:" + "A" * 43 + "="

SPOILED: Mapping[str, str] = {
    "@huge@": "9" * 5_000,
    "@hex@": "0x" + "f" * 5_000,
    "@deep@": "[" * 50_000,
    "@nested@": "[" * 60 + "]" * 60,
    "@many@": "[" * 200 + "]" * 200,
    "@half@": '"a\\ud800b"',
    "@nul@": '"a\\u0000b"',
    "@infinite@": "1e999",
    "@day@": "2024-13-45",
    "@time@": "1979-05-27T07:32:00Z",
    "@version@": '"' + "9" * 5_000 + '"',
    "@marker@": '"python_version > ' + "'" + "9" * 5_000 + "'" + '"',
    "@parens@": '"' + "(" * 3_000 + '"',
    "@range@": '">=' + "9" * 5_000 + '"',
    "@pinned@": '"==' + "9" * 5_000 + '"',
    "@asked@": '"foo; ' + "(" * 3_000 + '"',
    "@nothing@": "null",
}
"""What stands for values that Python's own writers do not write."""
_VALUES: tuple[Any, ...] = (
    *SPOILED, True, 0, -1, 1.5, "", "x", " ", "\\", "..", "/", "a\nb", "*", "**/x", "==1", "1.0", "git+https://x/y",
    "./x", "x" * 2_000, [], [[]], [["x"]], [1], ["x"], ["@huge@"], {}, {"x": 1}, {"x": {"x": ["x"]}}, {"": ""},
    {"workspace": True}, {"path": "x"}, {"path": "@nul@"},
)  # fmt: skip
_WORDS = (
    "", " ", "\n", "\0", "\x85", '"', "'", "`", "\\", "\\ud800", '"\\ud800"', '"a\\u0000b"', "(" * 3_000, "[" * 3_000,
    "9" * 5_000, "\u0663", "\u00b2", "=", "==", ":", "::", '"":', "=>", "/", "..", "@", "#", "{", "}", "<x>", "</x>",
    "&x;", "*", "**", "${PORT}", "$(x)", "&&", ";", "x" * 3_000, "\ufeff", "\u2028", "<!DOCTYPE x>", "null", "true",
)  # fmt: skip
_TOKEN = re.compile(r"\w+|\s+|[^\w\s]")


def spoil_value(value: Mapping[str, Any], chance: random.Random) -> dict[str, Any]:
    """Return a value in which one or two things are others, are gone, or are called otherwise."""
    found: dict[str, Any] = copy.deepcopy(dict(value))
    for _ in range(chance.choice((1, 1, 1, 2))):
        places = list(_places(found))
        if not places:
            break
        holder, key = chance.choice(places)
        what = chance.random()
        if what < 0.1:
            del holder[key]
        elif what < 0.2 and isinstance(holder, dict):
            holder[str(chance.choice(_VALUES))] = holder.pop(key)
        elif what < 0.3:
            other, of_other = chance.choice(places)
            if _still(other, of_other):
                holder[key] = copy.deepcopy(other[of_other])
        else:
            holder[key] = copy.deepcopy(chance.choice(_VALUES))
    return found


def _places(value: Any) -> Any:
    for key in list(value) if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], (dict, list)):
            yield from _places(value[key])


def _still(holder: Any, key: Any) -> bool:
    return key in holder if isinstance(holder, dict) else key < len(holder)


def spoil_text(text: str, chance: random.Random) -> str:
    """Return a text in which one to three words are others."""
    words = _TOKEN.findall(text)
    for _ in range(chance.choice((1, 1, 2, 3))):
        if words:
            words[chance.randrange(len(words))] = chance.choice((*_WORDS, chance.choice(words)))
    return "".join(words)


def as_json(value: Mapping[str, Any]) -> str:
    """Return a value as JSON, with what cannot be written there."""
    return _replaced(json.dumps(value, indent=1))


def as_toml(value: Mapping[str, Any]) -> str:
    """Return a value as TOML, with what cannot be written there."""
    return _replaced(toml(value))


def _replaced(text: str) -> str:
    for name, written in SPOILED.items():
        if name in text:
            text = text.replace(f'"{name}"', written).replace(name, "x")
    return text


PYPROJECT: Mapping[str, Any] = {
    "project": {
        "name": "shop", "requires-python": ">=3.11", "dependencies": ["flask>=3; python_version > '3'", "x[a]==1"],
        "dynamic": ["version"], "scripts": {"shop": "shop.app:main"}, "optional-dependencies": {"docs": ["mkdocs"]},
    },
    "dependency-groups": {"docs": ["mkdocs"]},
    "tool": {
        "poetry": {"name": "shop", "dependencies": {"python": "^3.11", "flask": {"version": "3", "extras": ["a"],
                   "markers": "os_name == 'posix'"}, "x": [{"version": "1"}]}, "scripts": {"a": "b:c"}},
        "sekisho": {"build": {"command": ["python3", "make.py"], "output": "public", "collectstatic": False}},
        "fastapi": {"entrypoint": "a:b"},
    },
}  # fmt: skip
UV: Mapping[str, Any] = {
    "version": 1, "requires-python": ">=3.11",
    "package": [
        {"name": "shop", "version": "1.0", "source": {"editable": "."}, "dependencies": [
            {"name": "flask", "marker": "os_name == 'posix'", "extra": ["a"]}, {"name": "own", "version": "1"}],
         "optional-dependencies": {"docs": [{"name": "flask"}]}},
        {"name": "own", "version": "1", "source": {"editable": "packages/own"}},
        {"name": "flask", "version": "3.0", "source": {"registry": "https://pypi.org/simple"},
         "resolution-markers": ["os_name == 'posix'"], "dependencies": [], "sdist": {"hash": HASH},
         "wheels": [{"hash": HASH, "url": "x"}], "optional-dependencies": {"a": [{"name": "own"}]}},
    ],
}  # fmt: skip
POETRY: Mapping[str, Any] = {
    "package": [
        {"name": "flask", "version": "3.0", "python-versions": ">=3.8", "files": [{"file": "x", "hash": HASH}],
         "dependencies": {"x": {"version": "1", "extras": ["a"], "optional": True, "markers": "extra == 'a'"},
                          "y": ["1", {"version": "2"}]}, "extras": {"a": ["x (>=1)"]}},
        {"name": "x", "version": "1", "files": [{"file": "x", "hash": HASH}], "markers": "os_name == 'posix'"},
        {"name": "y", "version": "1", "source": {"type": "legacy", "url": "x"}},
    ],
    "metadata": {"lock-version": "2.0", "files": {"y": [{"hash": HASH}]}},
}  # fmt: skip
POETRY_2: Mapping[str, Any] = {
    "package": [
        {"name": "x", "version": "1", "groups": ["main"], "optional": False, "files": [{"hash": HASH}],
         "markers": {"main": "os_name == 'posix'"}},
    ],
    "metadata": {"lock-version": "2.1"},
}  # fmt: skip
PDM: Mapping[str, Any] = {
    "package": [{"name": "x", "version": "1", "groups": ["default"], "marker": "os_name == 'posix'",
                 "files": [{"file": "x", "hash": HASH}]}],
}  # fmt: skip
PYLOCK: Mapping[str, Any] = {
    "lock-version": "1.0", "requires-python": ">=3.8", "default-groups": ["main"],
    "packages": [
        {"name": "x", "version": "1", "marker": "'main' in dependency_groups", "requires-python": ">=3",
         "wheels": [{"hashes": {"sha256": "a" * 64}}], "sdist": {"hashes": {"sha256": "a" * 64}}},
        {"name": "own", "version": "1", "directory": {"path": "."}},
    ],
}  # fmt: skip
PIPFILE: Mapping[str, Any] = {
    "_meta": {"requires": {"python_version": "3.11"}},
    "default": {"x": {"version": "==1.0", "hashes": [HASH], "markers": "os_name == 'posix'", "index": "pypi"}},
    "develop": {},
}
CARGO: Mapping[str, Any] = {
    "package": {"name": "shop", "version": "0.1.0", "edition": "2021", "rust-version": {"workspace": True},
                "default-run": "shop", "autobins": True, "build": "build.rs", "metadata": {"sekisho": {"bin": "shop",
                "features": ["x"]}}},
    "project": {"name": "shop"},
    "lib": {"name": "shop", "crate-type": ["lib"]},
    "bin": [{"name": "shop", "path": "src/main.rs", "required-features": ["x"]}],
    "features": {"default": ["x"], "x": []},
    "dependencies": {"serde": "1", "own": {"path": "crates/own", "version": "1"}, "w": {"workspace": True}},
    "target": {"cfg(unix)": {"dependencies": {"libc": "1"}}},
    "workspace": {"members": ["crates/*", "crates/own"], "exclude": ["x"], "default-members": ["."],
                  "package": {"rust-version": "1.80"}, "dependencies": {"w": "1"}},
    "patch": {"crates-io": {"libc": {"path": "crates/own"}}},
    "replace": {"libc:1.0.0": {"path": "crates/own"}},
    "profile": {"release": {"lto": True}},
}  # fmt: skip
CARGO_LOCK: Mapping[str, Any] = {
    "version": 4,
    "package": [
        {"name": "serde", "version": "1.0.0", "source": "registry+https://github.com/rust-lang/crates.io-index",
         "checksum": "a" * 64, "dependencies": ["libc"]},
        {"name": "shop", "version": "0.1.0", "dependencies": ["serde"]},
    ],
    "metadata": {"x": "y"},
}  # fmt: skip
CARGO_CONFIG: Mapping[str, Any] = {
    "build": {"rustflags": ["-C", "target-cpu=x86-64", "--cfg", "x"], "jobs": 1}, "env": {"A": {"value": "x"}},
    "target": {"cfg(unix)": {"rustflags": "-C lto"}}, "profile": {"release": {"lto": True}}, "net": {"retry": 1},
}  # fmt: skip
TOOLCHAIN: Mapping[str, Any] = {"toolchain": {"channel": "1.80.1", "components": ["x"]}}
PACKAGE: Mapping[str, Any] = {
    "name": "shop", "version": "1.0.0", "main": "server.js", "packageManager": "npm@10",
    "scripts": {"start": "NODE_ENV=production node server.js", "build": "vite build --outDir out", "prestart": "x"},
    "dependencies": {"left-pad": "^1.0.0"}, "devDependencies": {"vite": "1"}, "optionalDependencies": {"o": "1"},
    "engines": {"node": ">=20"}, "volta": {"node": "20.1.0"}, "workspaces": ["packages/*"], "overrides": {"x": "1"},
    "bin": {"a": "b"}, "bundleDependencies": ["x"], "peerDependenciesMeta": {"x": {"optional": True}},
}  # fmt: skip
NPM: Mapping[str, Any] = {
    "name": "shop", "lockfileVersion": 3,
    "packages": {
        "": {"name": "shop", "dependencies": {"left-pad": "^1.0.0"}, "devDependencies": {"vite": "1"},
             "optionalDependencies": {"o": "1"}, "workspaces": ["packages/*"]},
        "node_modules/left-pad": {"version": "1.3.0", "integrity": INTEGRITY, "bin": {"pad": "cli.js"},
                                  "resolved": "https://registry.npmjs.org/left-pad/-/left-pad-1.3.0.tgz",
                                  "optionalDependencies": {"o": "1"}, "os": ["linux"], "cpu": ["x64"]},
        "node_modules/vite": {"version": "1.0.0", "integrity": INTEGRITY, "dev": True, "bin": "vite.js"},
        "node_modules/o": {"version": "1.0.0", "integrity": INTEGRITY, "optional": True, "libc": ["glibc"]},
        "node_modules/w": {"resolved": "packages/w", "link": True},
        "packages/w": {"version": "1.0.0"},
        "node_modules/vite/node_modules/x": {"version": "1.0.0", "inBundle": True},
    },
}  # fmt: skip
ANGULAR: Mapping[str, Any] = {
    "projects": {"shop": {"architect": {"build": {"options": {"outputPath": {"base": "dist/x"}}}}}}
}
SCORE: Mapping[str, Any] = {
    "apiVersion": "score.dev/v1b1",
    "metadata": {"name": "shop", "annotations": {"build.sekisho.dev/language": "node"}},
    "containers": {"web": {"image": "."}},
}
MAVEN: Mapping[str, Any] = {
    "format": "sekisho.dev/recorded/v1", "files": {"maven/org/x/a/1.0/a-1.0.jar": HASH, "maven/a/b/1/b-1.pom": HASH},
}  # fmt: skip

REQUIREMENTS = f"""# a lock
flask[async]==3.0 ; python_version > "3" and (os_name == "posix") \\
    --hash={HASH} \\
    --hash={HASH}
x==1.0 --hash={HASH}
"""
YARN = f"""# yarn lockfile v1


"@a/b@^1.0.0", "left-pad@1 || 2":
  version "1.3.0"
  resolved "https://registry.yarnpkg.com/left-pad/-/left-pad-1.3.0.tgz#{"a" * 40}"
  integrity {INTEGRITY}
  dependencies:
    "@a/c" "^1.0.0"
  optionalDependencies:
    o "1"

o@1:
  version "1.0.0"
  resolved "https://registry.yarnpkg.com/o/-/o-1.0.0.tgz#{"a" * 40}"
""".replace('"@a/b@^1.0.0", ', "")
PNPM = f"""lockfileVersion: '9.0'

settings:
  autoInstallPeers: true

importers:

  .:
    dependencies:
      left-pad:
        specifier: ^1.0.0
        version: 1.3.0

  packages/w:
    optionalDependencies:
      o:
        specifier: '1'
        version: 1.0.0

packages:

  left-pad@1.3.0:
    resolution: {{integrity: {INTEGRITY}}}
    engines: {{node: '>=10'}}
    cpu: [x64]
    os: [linux]

  o@1.0.0:
    resolution: {{integrity: {INTEGRITY}, tarball: 'https://registry.npmjs.org/o/-/o-1.0.0.tgz'}}

snapshots:

  left-pad@1.3.0:
    dependencies:
      o: 1.0.0

  o@1.0.0:
    optional: true
"""
GO_MOD = """module example.com/shop

go 1.21

require (
	github.com/a/b v1.2.3 // indirect
	"github.com/c/d" v0.0.0
	example.com/own v0.0.0
)

replace github.com/c/d v0.0.0 => github.com/e/f v1.0.0
replace example.com/own => ./own
exclude github.com/a/b v1.2.2
"""
GO_WORK = "go 1.21\n\nuse (\n\t.\n\t./own\n)\n"
GO_SUM = "".join(f"{name} v1.2.3 {SUM}\n{name} v1.2.3/go.mod {SUM}\n" for name in ("github.com/a/b", "github.com/e/f"))
GO_MAIN = """//go:build linux && (amd64 || !go1.20)

package main

import (
	_ "embed"
	"fmt"
	x "github.com/a/b"
	`example.com/shop/inner`
)

//go:embed "templates/*.html" all:static `x[a-z]`
var files string

func main() { fmt.Println(files, 'x', x.Y) }
"""
POM = """<?xml version="1.0" encoding="UTF-8"?>
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <artifactId>shop</artifactId><packaging>pom</packaging>
  <properties><java.version>${x}</java.version><x>1.8</x></properties>
  <modules><module>web</module></modules>
  <build><plugins><plugin><artifactId>spring-boot-maven-plugin</artifactId>
    <configuration><release>17</release></configuration></plugin></plugins></build>
</project>
"""
PROCFILE = "release: x\nweb: A=1 cd inner && exec gunicorn -b \"0.0.0.0:${PORT:-80}\" 'shop.wsgi' && node server.js\n"
SETTINGS = """import os
STATIC_ROOT: str = "x"
INSTALLED_APPS = ["django.contrib.staticfiles"]
KEY = os.environ["KEY"]
PORT = env.int("PORT")
"""
MANAGE = 'import os\nos.environ.setdefault("DJANGO_SETTINGS_MODULE", "site.settings")\n'
FLASK = 'from flask import Flask\napp = Flask(__name__)\ndef create_app(x=1):\n    return Flask("x")\n'
READTHEDOCS = """version: 2
mkdocs: {configuration: mkdocs.yml}
python:
  install:
    - requirements: docs/requirements.txt
    - {method: pip, path: .}
"""
