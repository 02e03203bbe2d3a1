"""What yarn.lock and pnpm-lock.yaml may say."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sekisho.errors import Refusal
from stages.build.locks_pnpm import parse_pnpm_lock
from stages.build.locks_yarn import parse_yarn_lock

HASH = f"sha512-{base64.b64encode(bytes(64)).decode()}"
REGISTRY = "http://127.0.0.1:4873/"
YARN = f"""\
# yarn lockfile v1


"@scope/a@^1.0.0", "@scope/a@~1.2.0":
  version "1.2.3"
  resolved "https://registry.yarnpkg.com/@scope/a/-/a-1.2.3.tgz#0123456789012345678901234567890123456789"
  integrity {HASH}
  dependencies:
    b "^2.0.0"
  optionalDependencies:
    c "*"

b@^2.0.0:
  version "2.0.0"
  resolved "https://registry.npmjs.org/b/-/b-2.0.0.tgz#0123456789012345678901234567890123456789"

c@*:
  version "3.0.0"
  resolved "https://mirror.example/npm/c/-/c-3.0.0.tgz"
  integrity {HASH}

"other@npm:real@^1":
  version "1.0.0"
  resolved "https://registry.yarnpkg.com/real/-/real-1.0.0.tgz"
  integrity {HASH}
"""
PNPM = f"""\
lockfileVersion: '9.0'

settings:
  autoInstallPeers: true

importers:

  .:
    dependencies:
      '@scope/a':
        specifier: ^1.0.0
        version: 1.2.3(b@2.0.0)
      other:
        specifier: npm:real@^1
        version: real@1.0.0
    devDependencies:
      d:
        specifier: ^4.0.0
        version: 4.0.0

  packages/one:
    dependencies:
      c:
        specifier: '*'
        version: 3.0.0

packages:

  '@scope/a@1.2.3':
    resolution: {{integrity: {HASH}}}
    engines: {{node: '>=10'}}
    deprecated: |-
      Read this: it is old
    peerDependencies:
      b: ^2.0.0

  b@2.0.0:
    resolution: {{integrity: {HASH}, tarball: https://mirror.example/b/-/b-2.0.0.tgz}}

  c@3.0.0:
    resolution: {{integrity: {HASH}}}

  d@4.0.0:
    resolution: {{integrity: {HASH}}}
    hasBin: true

  darwin@1.0.0:
    resolution: {{integrity: {HASH}}}
    cpu: [x64, arm64]
    os: [darwin]

  here@1.0.0:
    resolution: {{integrity: {HASH}}}
    os: [linux, '!win32']

  real@1.0.0:
    resolution: {{integrity: {HASH}}}

snapshots:

  '@scope/a@1.2.3(b@2.0.0)':
    dependencies:
      b: 2.0.0
    optionalDependencies:
      darwin: 1.0.0
      here: 1.0.0

  b@2.0.0: {{}}

  c@3.0.0: {{}}

  d@4.0.0: {{}}

  darwin@1.0.0:
    optional: true

  here@1.0.0:
    optional: true

  real@1.0.0: {{}}
"""


def yarn(text: str, **production: str) -> dict[str, tuple[str, bool, bool]]:
    found = parse_yarn_lock(text, production, registry=REGISTRY)
    return {item.place: (item.path, item.dev, item.optional) for item in found.packages}


def test_yarn_names_versions_and_what_production_needs() -> None:
    found = parse_yarn_lock(YARN, {"@scope/a": "^1.0.0"}, registry=REGISTRY)
    assert [(item.path, item.dev, item.optional, item.line) for item in found.packages] == [
        ("@scope/a/-/a-1.2.3.tgz", False, False, 4),
        ("b/-/b-2.0.0.tgz", False, False, 13),
        ("c/-/c-3.0.0.tgz", False, True, 17),
        ("real/-/real-1.0.0.tgz", True, True, 22),
    ]
    assert found.packages[1].digest == "sha1:0123456789012345678901234567890123456789"
    assert found.packages[3].place == "node_modules/other"


def test_yarn_is_handed_the_same_lock_with_files_of_the_sandbox_only() -> None:
    lines = parse_yarn_lock(YARN, {}, registry=REGISTRY).normalised.decode().splitlines()
    resolved = [line for line in lines if line.startswith("  resolved")]
    assert len(resolved) == 4
    assert all(line.startswith(f'  resolved "{REGISTRY}') for line in resolved)
    assert [line for line in lines if not line.startswith("  resolved")] == [
        line for line in YARN.splitlines() if not line.startswith("  resolved")
    ]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("https://mirror.example/npm/c/-/c-3.0.0.tgz", "git+https://github.com/x/c.git#0"),
        ("https://mirror.example/npm/c/-/c-3.0.0.tgz", "https://codeload.github.com/x/c/tar.gz/0"),
        ("https://mirror.example/npm/c/-/c-3.0.0.tgz", "file:./c-3.0.0.tgz"),
        ("https://mirror.example/npm/c/-/c-3.0.0.tgz", "https://mirror.example/npm/c/-/c-3.0.1.tgz"),
        ("https://mirror.example/npm/c/-/c-3.0.0.tgz", "https://[mirror.example/npm/c/-/c-3.0.0.tgz"),
        ('  resolved "https://mirror.example/npm/c/-/c-3.0.0.tgz"\n', ""),
        (f"{HASH}\n  dependencies", "sha512-short\n  dependencies"),
        ("b-2.0.0.tgz#0123456789012345678901234567890123456789", "b-2.0.0.tgz"),
        ('c@*:\n  version "3.0.0"', 'c@*:\n  version "../3.0.0"'),
        ("c@*:", "b@^2.0.0:"),
    ],
)
def test_yarn_what_is_not_of_the_index_by_a_hash_is_refused(old: str, new: str) -> None:
    assert old in YARN
    with pytest.raises(Refusal) as caught:
        yarn(YARN.replace(old, new))
    assert caught.value.where.startswith("yarn.lock:")
    assert caught.value.remedy


def test_yarn_of_the_second_kind_is_refused_with_the_one_command() -> None:
    with pytest.raises(Refusal, match="Yarn 2") as caught:
        yarn("__metadata:\n  version: 8\n")
    assert "npm install --package-lock-only" in caught.value.remedy


def test_pnpm_names_versions_platforms_and_what_production_needs() -> None:
    found = parse_pnpm_lock(PNPM)
    assert found.folders == ("packages/one",)
    assert [(item.path, item.dev, item.optional) for item in found.packages] == [
        ("@scope/a/-/a-1.2.3.tgz", False, False),
        ("b/-/b-2.0.0.tgz", False, False),
        ("c/-/c-3.0.0.tgz", False, False),
        ("d/-/d-4.0.0.tgz", True, False),
        ("here/-/here-1.0.0.tgz", False, True),
        ("real/-/real-1.0.0.tgz", False, False),
    ]
    assert found.packages[0].line == PNPM.splitlines().index("packages:") + 3


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("'9.0'", "'6.0'"),
        ("'9.0'", "5.4"),
        (f"  c@3.0.0:\n    resolution: {{integrity: {HASH}}}", "  c@3.0.0:\n    resolution: {}"),
        (f"  c@3.0.0:\n    resolution: {{integrity: {HASH}}}", "  c@3.0.0:\n    resolution: {integrity: sha512-x}"),
        (
            f"  c@3.0.0:\n    resolution: {{integrity: {HASH}}}",
            "  c@3.0.0:\n    resolution: {type: git, repo: https://x/y}",
        ),
        (f"  c@3.0.0:\n    resolution: {{integrity: {HASH}}}", "  c@3.0.0:\n    resolution: {directory: ../c}"),
        ("b/-/b-2.0.0.tgz", "b/-/b-2.0.1.tgz"),
        ("https://mirror.example/b", "https://[mirror.example/b"),
        ("  d@4.0.0:\n    res", "  d@https://codeload.github.com/x/d/tar.gz/0:\n    res"),
        ("  d@4.0.0:\n    res", "  ../d@4.0.0:\n    res"),
        ("  d@4.0.0:\n    res", "  c@3.0.0:\n    res"),
        ("  packages/one:", "  ../one:"),
        ("  packages/one:", "  /etc:"),
    ],
)
def test_pnpm_what_is_not_of_the_index_by_a_hash_is_refused(old: str, new: str) -> None:
    assert old in PNPM
    with pytest.raises(Refusal) as caught:
        parse_pnpm_lock(PNPM.replace(old, new))
    assert caught.value.remedy


def test_pnpm_a_workspace_above_the_workload_is_the_one_with_score_yaml() -> None:
    with pytest.raises(Refusal) as caught:
        parse_pnpm_lock(PNPM.replace("  packages/one:", "  ../one:"))
    assert caught.value.remedy == (
        "Put score.yaml into the folder that holds the whole workspace, beside pnpm-workspace.yaml."
    )


@given(st.text(max_size=200), st.integers(0, len(PNPM)), st.integers(0, len(YARN)))
def test_whatever_stands_in_a_lock_it_is_read_or_refused(text: str, pnpm_at: int, yarn_at: int) -> None:
    for read in (
        lambda: parse_pnpm_lock(PNPM[:pnpm_at] + text + PNPM[pnpm_at:]).packages,
        lambda: parse_yarn_lock(YARN[:yarn_at] + text + YARN[yarn_at:], {}, registry=REGISTRY).packages,
    ):
        try:
            found = read()
        except Refusal:
            continue
        assert all(".." not in item.path.split("/") and item.digest for item in found)
