"""OpenVEX: what a statement must name, when it holds, and that a fault in one stops the line."""

from __future__ import annotations

import datetime as dt
import json
import re
from pathlib import Path
from typing import Any

import pytest

from sekisho.errors import PermanentError
from sekisho.limits import load_limits
from sekisho.model import Finding, Severity
from sekisho.policy import policy_digest
from sekisho.vex import VexClaim, image_of, load_vex, weigh
from sekisho.waivers import Place

DIGEST = "sha256:" + "a" * 64
TODAY = dt.date(2026, 11, 26)
PLACE = Place("shop", DIGEST, "python", "sha256:" + "b" * 64)
FINDING = Finding(
    kind="vulnerability", id="CVE-2026-1", severity=Severity.CRITICAL, title="", where="requirements.txt",
    package="jinja2", installed="2.10", owner="workload", purl="pkg:pypi/jinja2@2.10",
)  # fmt: skip
SHOP = "registry.sekisho.internal/apps/shop"
INDEX = """\
format: sekisho.dev/vex/v1
documents:
  - file: vex/shop.json
    owner: security team
    reason: the call graph was reviewed by hand
    expires: 2026-12-31
"""


def statement(**change: Any) -> dict[str, Any]:
    value = {
        "vulnerability": {"name": "CVE-2026-1", "aliases": ["GHSA-xxxx-xxxx-xxxx"]},
        "products": [{"@id": SHOP, "subcomponents": [{"@id": "pkg:pypi/jinja2@2.10"}]}],
        "status": "not_affected",
        "justification": "vulnerable_code_not_in_execute_path",
        "impact_statement": "templates are compiled at build time",
    } | change
    return {key: item for key, item in value.items() if item is not None}


def document(*statements: dict[str, Any], **change: Any) -> dict[str, Any]:
    return {
        "@context": "https://openvex.dev/ns/v0.2.0",
        "@id": "https://example.org/vex/shop",
        "author": "Security Team",
        "timestamp": "2026-11-01T00:00:00Z",
        "version": 1,
        "statements": list(statements) or [statement()],
    } | change


def folder(tmp_path: Path, value: dict[str, Any], index: str = INDEX) -> Path:
    (tmp_path / "vex.yaml").write_text(index)
    (tmp_path / "vex").mkdir(exist_ok=True)
    (tmp_path / "vex" / "shop.json").write_text(json.dumps(value, indent=2))
    return tmp_path


def holding(tmp_path: Path, value: dict[str, Any], finding: Finding = FINDING, place: Place = PLACE) -> bool:
    return weigh(load_vex(folder(tmp_path, value)), place, finding, TODAY)[0] is not None


def test_without_documents_there_are_no_claims(tmp_path: Path) -> None:
    assert load_vex(tmp_path) == ()


def test_a_claim_has_owner_reason_scope_and_end(tmp_path: Path) -> None:
    (claim,) = load_vex(folder(tmp_path, document()))
    assert claim == VexClaim(
        file="vex/shop.json", owner="security team", reason="the call graph was reviewed by hand",
        expires=dt.date(2026, 12, 31), ids=("CVE-2026-1", "GHSA-xxxx-xxxx-xxxx"), repository="apps/shop",
        packages=("pkg:pypi/jinja2@2.10",), status="not_affected",
        why="vulnerable_code_not_in_execute_path: templates are compiled at build time",
        at=dt.datetime(2026, 11, 1, tzinfo=dt.UTC),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (SHOP, ("apps/shop", "")),
        (f"{SHOP}@{DIGEST}", ("apps/shop", DIGEST)),
        (f"pkg:oci/shop?repository_url={SHOP}", ("apps/shop", "")),
        (f"pkg:oci/shop@sha256%3A{'a' * 64}?repository_url={SHOP}", ("apps/shop", DIGEST)),
        ("registry.sekisho.internal/standard/python", ("standard/python", "")),
    ],
)
def test_what_a_product_names(name: str, expected: tuple[str, str]) -> None:
    assert image_of(name) == expected


@pytest.mark.parametrize(
    "name",
    ["", "shop", "apps/shop", "pkg:oci/shop", "pkg:pypi/jinja2@2.10", "docker.io/apps/shop", f"{SHOP}@sha256:1",
     f"pkg:oci/cart?repository_url={SHOP}", "registry.sekisho.internal/mirror/x", f"{SHOP}/../cart"],
)  # fmt: skip
def test_a_product_that_is_none_of_the_lines_images(name: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  (packageurl's own words, or ours)
        image_of(name)


PRODUCTS = [{"@id": SHOP, "subcomponents": [{"@id": "pkg:pypi/jinja2"}]}]


@pytest.mark.parametrize(
    ("change", "holds"),
    [
        ({}, True),
        ({"justification": None}, True),
        ({"impact_statement": None}, True),
        ({"status": "fixed", "justification": None}, True),
        ({"status": "under_investigation", "justification": None}, False),
        ({"status": "affected", "justification": None, "action_statement": "update it"}, False),
        ({"vulnerability": {"name": "CVE-2026-2"}}, False),
        ({"vulnerability": {"name": "CVE-2026-2", "aliases": ["CVE-2026-1"]}}, True),
        ({"products": PRODUCTS}, True),
        ({"products": [{"@id": "", "identifiers": {"purl": f"pkg:oci/shop?repository_url={SHOP}"},
                        "subcomponents": [{"@id": "x", "identifiers": {"purl": "pkg:pypi/Jinja2"}}]}]}, True),
        ({"products": [{**PRODUCTS[0], "@id": f"{SHOP}@{DIGEST}"}]}, True),
        ({"products": [{**PRODUCTS[0], "@id": f"{SHOP}@sha256:{'c' * 64}"}]}, False),
        ({"products": [{**PRODUCTS[0], "@id": "registry.sekisho.internal/apps/cart"}]}, False),
        ({"products": [{**PRODUCTS[0], "@id": "registry.sekisho.internal/standard/python"}]}, False),
        ({"products": [{"@id": SHOP, "subcomponents": [{"@id": "pkg:pypi/jinja2@2.9"}]}]}, False),
        ({"products": [{"@id": SHOP, "subcomponents": [{"@id": "pkg:npm/jinja2@2.10"}]}]}, False),
        ({"products": [{"@id": SHOP, "subcomponents": [{"@id": "pkg:pypi/jinja2@2.10?x=y"}]}]}, False),
    ],
)  # fmt: skip
def test_when_a_statement_holds_a_finding(tmp_path: Path, change: dict[str, Any], holds: bool) -> None:  # noqa: FBT001
    assert holding(tmp_path, document(statement(**change))) == holds


def test_a_statement_about_a_standard_image_holds_for_what_stands_on_it(tmp_path: Path) -> None:
    finding = FINDING.model_copy(
        update={"owner": "platform", "package": "libssl3", "installed": "3.0.1",
                "purl": "pkg:deb/debian/libssl3@3.0.1?arch=amd64&distro=debian-12.1"}
    )  # fmt: skip
    products = [{"@id": "registry.sekisho.internal/standard/python",
                 "subcomponents": [{"@id": "pkg:deb/debian/libssl3"}]}]  # fmt: skip
    value = document(statement(products=products))
    assert holding(tmp_path, value, finding)
    assert holding(tmp_path, value, finding, Place("standard-python", DIGEST, "python", DIGEST))
    assert not holding(tmp_path, value, finding, Place("shop", DIGEST, "node", DIGEST))
    assert not holding(tmp_path, value, finding.model_copy(update={"owner": "workload"}))


def test_a_secret_and_a_finding_of_unknown_package_are_never_held(tmp_path: Path) -> None:
    assert not holding(tmp_path, document(), FINDING.model_copy(update={"kind": "secret"}))
    assert not holding(tmp_path, document(), FINDING.model_copy(update={"purl": ""}))


def test_the_newest_word_counts_and_a_doubt_wins(tmp_path: Path) -> None:
    doubt = statement(status="under_investigation", justification=None, impact_statement=None)
    older, same, newer = "2026-10-01T00:00:00Z", "2026-11-01T00:00:00Z", "2026-11-02T00:00:00+01:00"
    assert holding(tmp_path, document(statement(), {**doubt, "timestamp": older}))
    assert not holding(tmp_path, document(statement(), {**doubt, "timestamp": same}))
    assert not holding(tmp_path, document(statement(), {**doubt, "timestamp": newer}))


def test_an_expired_document_holds_no_more_and_says_so(tmp_path: Path) -> None:
    claims = load_vex(folder(tmp_path, document()))
    assert weigh(claims, PLACE, FINDING, dt.date(2026, 12, 31))[0] == claims[0]
    assert weigh(claims, PLACE, FINDING, dt.date(2027, 1, 1)) == (
        None,
        "The VEX document vex/shop.json of security team expired on 2026-12-31.",
    )


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"@context": "https://openvex.dev/ns/v0.0.1"}, "/@context"),
        ({"author": None}, "/author"),
        ({"timestamp": "2026-11-01"}, "/timestamp"),
        ({"statements": []}, "/statements"),
        ({"more": 1}, "/more"),
        ({"statements": [statement(justification=None, impact_statement=None)]}, "needs a justification"),
        ({"statements": [statement(justification="because")]}, "/statements/0/justification"),
        ({"statements": [statement(status="fixed")]}, "a justification belongs to not_affected"),
        ({"statements": [statement(status="affected", justification=None)]}, "needs an action_statement"),
        ({"statements": [statement(status="fine")]}, "/statements/0/status"),
        ({"statements": [statement(products=[])]}, "/statements/0/products"),
        ({"statements": [statement(products=[{"@id": SHOP}])]}, "name the packages"),
        ({"statements": [statement(products=[{"@id": "pkg:pypi/jinja2", "subcomponents": PRODUCTS}])]}, "products/0"),
        ({"statements": [statement(products=[{"@id": SHOP, "subcomponents": [{"@id": "jinja2"}]}])]},
         "/statements/0/products/0/subcomponents/0"),
    ],
)  # fmt: skip
def test_a_document_that_is_not_understood_stops_the_line(tmp_path: Path, value: dict[str, Any], said: str) -> None:
    with pytest.raises(PermanentError) as caught:
        load_vex(folder(tmp_path, document(**value)))
    assert said in str(caught.value)
    assert caught.value.where.startswith(f"{tmp_path}/vex/shop.json:")


def test_an_error_names_the_line(tmp_path: Path) -> None:
    with pytest.raises(PermanentError) as caught:
        load_vex(folder(tmp_path, document(statement(status="fine"))))
    lines = (tmp_path / "vex" / "shop.json").read_text().splitlines()
    assert lines[int(caught.value.where.rpartition(":")[2]) - 1].strip() == '"status": "fine",'


@pytest.mark.parametrize(
    ("index", "said"),
    [
        ("format: sekisho.dev/vex/v1\n", "not listed"),
        (INDEX.replace("shop.json", "cart.json"), "not listed"),
        (INDEX.replace("vex/shop.json", "../shop.json"), "/documents/0/file"),
        (INDEX.replace("    owner: security team\n", ""), "/documents/0/owner"),
        (INDEX.replace("    expires: 2026-12-31\n", ""), "/documents/0/expires"),
        (INDEX.replace("the call graph was reviewed by hand", "ok"), "/documents/0/reason"),
        (INDEX + INDEX.partition("documents:\n")[2], "listed twice"),
    ],
)
def test_each_document_is_listed_once_with_owner_reason_and_end(tmp_path: Path, index: str, said: str) -> None:
    place = folder(tmp_path, document(), index)
    with pytest.raises(PermanentError, match=said):
        load_vex(place)


def test_a_listed_document_that_is_not_there_and_one_that_is_no_json(tmp_path: Path) -> None:
    (tmp_path / "vex.yaml").write_text(INDEX)
    with pytest.raises(PermanentError, match="cannot be read"):
        load_vex(tmp_path)
    folder(tmp_path, document())
    (tmp_path / "vex" / "shop.json").write_text('{"@context": ')
    with pytest.raises(PermanentError, match="cannot be read"):
        load_vex(tmp_path)


def test_the_digest_of_the_policies_covers_each_document(tmp_path: Path) -> None:
    one = policy_digest(folder(tmp_path, document()))
    assert policy_digest(folder(tmp_path, document(version=2))) != one
    assert policy_digest(folder(tmp_path, document(), INDEX.replace("2026-12-31", "2027-12-31"))) != one


def test_the_examples_of_the_documentation_are_valid(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "scanning.md").read_text()
    blocks = re.findall(r"^```(?:yaml|json)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    (own,) = [block for block in blocks if "advisories/v1" in block]
    (waivers,) = [block for block in blocks if "waivers/v1" in block]
    (index,) = [block for block in blocks if "vex/v1" in block]
    (statements,) = [block for block in blocks if "@context" in block]
    (unfixed,) = [block for block in blocks if block.startswith("unfixed:")]
    (tmp_path / "vex").mkdir()
    rule = "unfixed: {platform: warn, workload: fail}\n"
    limits = (Path(__file__).parents[2] / "policies" / "limits.yaml").read_text()
    assert rule in limits
    files = {"advisories.yaml": own, "waivers.yaml": waivers, "vex.yaml": index, "vex/shop.json": statements,
             "limits.yaml": limits.replace(rule, unfixed)}  # fmt: skip
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    found = load_limits(tmp_path)
    assert (len(found.waivers), len(found.vex), found.own_advisories) == (3, 1, True)
