"""Releases: every rule has a test in which all but that rule holds, down to the verifier's own signature."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from sekisho.canonical import Digest, canonical, digest_of
from sekisho.errors import PermanentError, Refusal, VerificationError
from sekisho.evidence import attach_statement, load_statement
from sekisho.keys import TrustRoot
from sekisho.model import Archive, EvidenceRef, Image, Layer, Manifests, Offer, Reason, Release, Result
from sekisho.oci import OCI_MANIFEST
from sekisho.registry import Registry
from sekisho.releases import (
    ReleaseBundle,
    export_bundle,
    fetch_closure,
    load_release,
    put_release,
    summary_statement,
    verify_bundle,
    verify_release,
)
from sekisho.releases.artifact import RELEASE_TYPE, release_manifest
from sekisho.releases.judgement import (
    JUDGE_ID,
    judgement_input,
    judgement_manifest,
    load_judgement,
    named_judgement,
    put_judgement,
)
from sekisho.releases.rules import RULES, images_of
from sekisho.statements import PROVENANCE, SBOM, SCAN, peek_statement

from .conftest import POLICIES

NOW = 1_790_000_000
COMMIT = "c0ffee" + "0" * 34
FAILED = Reason(rule="r", stage="s", result="fail", message="m")
COVERAGE = {"os_family": "debian", "os_version": "12", "os_packages": 1, "language_packages": 0, "locked": 0}


@dataclass
class Forger:
    """Makes releases that are right in all but what a test changes, and signs each with the real verifier's key."""

    line: Any
    app: str
    image: Image = field(init=False)
    evidence: dict[str, EvidenceRef] = field(default_factory=dict)

    def __post_init__(self):
        self.image = self.line.image(self.app)
        for role, predicate_type in (("builder", PROVENANCE), ("scanner", SCAN), ("scanner", SBOM)):
            self.evidence[predicate_type] = EvidenceRef(
                role=role,
                predicate_type=predicate_type,
                manifest=self.line.attest(self.image, predicate_type),
                subject=self.image.digest,
            )

    def objects(self, image=None):
        containers = [{"name": self.app, "image": image or self.image.reference}]
        return ({"kind": "Deployment", "spec": {"template": {"spec": {"containers": containers}}}},)

    def judged(self, *, subject=None, verdict=None, policies=POLICIES) -> Digest:
        """Keep a judgement beside the release; each argument changes a part of it."""
        true = self.line.judgement(self.image, Manifests(app=self.app, objects=self.objects()))
        false = true.model_copy(
            update={
                "subject": true.subject.model_copy(update=subject or {}),
                "verdict": true.verdict.model_copy(update=verdict or {}),
                "policies": Archive(digest=digest_of(policies), size=len(policies)),
            }
        )
        return put_judgement(self.line.registry, f"releases/{self.app}", false, policies)

    def offer(self, *, release=None, manifests=None, summary=None, objects=None, judgement="") -> Offer:
        """Seal a release; each argument changes a part of it before the next part is made from it."""
        neutral = Manifests(app=self.app, objects=objects or self.objects())
        data = manifests or neutral.canonical()
        line = self.line
        revision = line.revision(self.app)
        made = Release(
            app=self.app,
            revision=revision,
            image=self.image,
            manifests=digest_of(data),
            policy=digest_of(b"policy"),
            evidence=tuple(self.evidence.values()),
        ).model_copy(update=release or {})
        digest = put_release(line.registry, made, data)
        statement = summary_statement(digest, made, at=NOW, levels=("SLSA_BUILD_LEVEL_1",), judgement=judgement)
        statement = summary(statement) if summary else statement
        repository = f"releases/{made.app}"
        attached = attach_statement(line.registry, repository, statement, line.signers["verifier"])
        return Offer(sequence=1, app=made.app, release=digest, summary=attached, commit=COMMIT)

    def refused(self, offer: Offer, rule: str, match: str = "") -> None:
        with pytest.raises(VerificationError, match=f"Rule {rule}: .*{match}"):
            verify_release(self.line.registry, offer, self.line.trust, at=NOW)


@pytest.fixture
def forger(line):
    return lambda app: Forger(line, app)


def verify(line, offer, **more):
    return verify_release(line.registry, offer, line.trust, at=NOW, **more)


def test_a_sealed_release_verifies(line):
    offer = line.offer("good")
    verified = verify(line, offer)

    assert verified.sealed.digest == offer.release
    assert verified.release.image.reference.startswith("registry.sekisho.internal/apps/good@sha256:")
    assert {statement.predicate_type for statement in verified.statements.values()} > {PROVENANCE, SCAN, SBOM}
    assert verified.manifests.app == "good"


def test_an_unchanged_forgery_is_no_forgery(line, forger):
    assert verify(line, forger("unchanged").offer())


def test_the_same_release_has_the_same_digest(line, forger):
    one = forger("same")
    first, second = one.offer(), one.offer()

    assert (first.release, first.summary) == (second.release, second.summary)
    raw = line.registry.get_manifest("releases/same", first.release)
    value = json.loads(raw.data)
    assert value["artifactType"] == value["config"]["mediaType"] == RELEASE_TYPE
    assert list(value["annotations"]) == ["org.opencontainers.image.revision"]
    assert line.registry.resolve("releases/same", f"release-{COMMIT}") == first.release


def test_load_gives_what_was_put(line, forger):
    offer = forger("load").offer()
    release, manifests = load_release(line.registry, "releases/load", Digest(offer.release))

    assert (release.app, digest_of(manifests)) == ("load", release.manifests)
    with pytest.raises(VerificationError, match="no such release"):
        load_release(line.registry, "releases/load", digest_of(b"none"))
    with pytest.raises(VerificationError, match="not a release"):
        load_release(line.registry, "apps/load", Digest(release.image.digest))
    with pytest.raises(PermanentError, match="not those that the release names"):
        put_release(line.registry, release, manifests + b" ")


# -- rule release ----------------------------------------------------------------------------------------------


def test_a_release_that_is_not_there(forger):
    one = forger("absent")
    offer = one.offer().model_copy(update={"release": digest_of(b"none")})
    one.refused(offer, "release", "missing")


def test_another_commit_or_app_than_offered(line, forger):
    one = forger("named")
    offer = one.offer()
    one.refused(offer.model_copy(update={"commit": "d" * 40}), "release", "another app or commit")
    with pytest.raises(Refusal):
        verify(line, offer.model_copy(update={"app": "unnamed"}))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ("annotation", "Rule release: .*something else"),
        ("subject", "Rule release: .*something else"),
        ("layer", "exactly its manifests"),
        ("config-type", "not a release"),
    ],
)
def test_a_release_manifest_with_something_more(line, forger, change, match):
    one = forger(f"more-{change}")
    offer = one.offer()
    repository = f"releases/{one.app}"
    value = json.loads(line.registry.get_manifest(repository, offer.release).data)
    if change == "annotation":
        value["annotations"]["x"] = "y"
    elif change == "layer":
        value["layers"].append(value["layers"][0])
    elif change == "config-type":
        value["config"]["mediaType"] = "application/json"
    else:
        value["subject"] = {"mediaType": OCI_MANIFEST, "digest": offer.release, "size": 1}
    digest = line.registry.put_manifest(repository, canonical(value), OCI_MANIFEST)
    with pytest.raises(VerificationError, match=match):
        verify(line, offer.model_copy(update={"release": digest}))


def test_a_release_of_before_its_parts_stood_in_it(line, forger):
    """Its parts are blobs alone, and its judgement's as well: it counts as it did."""
    one = forger("outlined")
    offer = one.offer(judgement=one.judged())
    repository = "releases/outlined"
    release, manifests = load_release(line.registry, repository, Digest(offer.release))
    older = line.registry.put_manifest(
        repository, release_manifest(release, manifests, inline=False), OCI_MANIFEST, tag="older"
    )
    assert older != offer.release
    assert load_release(line.registry, repository, older) == (release, manifests)
    judgement, _ = load_judgement(line.registry, repository, named(line, offer))
    data = judgement_manifest(judgement, inline=False)
    judged = line.registry.put_manifest(repository, data, OCI_MANIFEST, tag="judged-older")
    statement = summary_statement(older, release, at=NOW, levels=("SLSA_BUILD_LEVEL_1",), judgement=judged)
    summary = attach_statement(line.registry, repository, statement, line.signers["verifier"])
    verified = verify(line, offer.model_copy(update={"release": older, "summary": summary}))
    assert (verified.release, verified.judged) == (release, judged)


def test_a_release_with_an_unknown_field(line, forger):
    one = forger("unknown")
    offer = one.offer()
    release, manifests = load_release(line.registry, "releases/unknown", Digest(offer.release))
    config = canonical(release.model_dump(mode="json") | {"note": "x"})
    line.registry.put_blob("releases/unknown", config)
    data = release_manifest(release, manifests, inline=False)
    data = data.replace(release.identity().encode(), digest_of(config).encode())
    data = data.replace(b'"size":%d}' % len(release.canonical()), b'"size":%d}' % len(config))
    digest = line.registry.put_manifest("releases/unknown", data, OCI_MANIFEST)
    with pytest.raises(Refusal, match="note"):
        verify(line, offer.model_copy(update={"release": digest}))


# -- rules scope, manifests, image, reference ------------------------------------------------------------------


def test_a_release_with_another_apps_image(line, forger):
    other = forger("victim")
    one = forger("thief")
    offer = one.offer(
        release={"image": other.image, "evidence": tuple(other.evidence.values())},
        objects=one.objects(other.image.reference),
    )
    with pytest.raises(VerificationError, match="not one of thief"):
        verify(line, offer)


def test_a_release_with_another_apps_revision(line, forger):
    one = forger("rev")
    revision = line.revision("rev-other")
    with pytest.raises(VerificationError, match="not one of rev"):
        verify(line, one.offer(release={"revision": revision}))


def test_a_release_with_a_flood_of_evidence(line, forger):
    one = forger("flood")
    with pytest.raises(VerificationError, match="more than 32"):
        verify(line, one.offer(release={"evidence": (*one.evidence.values(),) * 11}))


def test_documents_that_are_too_large_together(line, forger, monkeypatch):
    offer = forger("large").offer()
    monkeypatch.setattr("sekisho.releases.closure.CLOSURE_LIMIT", 1000)
    with pytest.raises(Refusal, match="larger than 1000 bytes"):
        verify(line, offer)


def test_manifests_that_are_not_canonical_or_of_another_app(forger):
    one = forger("form")
    spaced = json.dumps(json.loads(Manifests(app="form", objects=one.objects()).canonical()), indent=1).encode()
    one.refused(one.offer(manifests=spaced), "manifests", "canonical")
    other = Manifests(app="another", objects=one.objects()).canonical()
    one.refused(one.offer(manifests=other), "manifests", "another app")
    one.refused(one.offer(manifests=b"[]"), "manifests")


@pytest.mark.parametrize("change", ["order", "missing", "size", "diff", "none"])
def test_an_image_with_other_layers_than_named(forger, change):
    one = forger(f"layers-{change}")
    base, app = one.image.layers
    layers: tuple[Layer, ...] = {
        "order": (app, base),
        "missing": (base,),
        "size": (base, app.model_copy(update={"size": app.size + 1})),
        "diff": (base, app.model_copy(update={"diff_id": base.diff_id})),
        "none": (),
    }[change]
    one.refused(one.offer(release={"image": one.image.model_copy(update={"layers": layers})}), "image")


def test_an_image_that_is_not_there(forger):
    one = forger("no-image")
    image = one.image.model_copy(update={"digest": digest_of(b"none")})
    offer = one.offer(release={"image": image}, objects=one.objects(image.reference))
    one.refused(offer, "image", "missing")


@pytest.mark.parametrize(
    "pod",
    [
        {"containers": [{"image": "registry.sekisho.internal/apps/evil@sha256:" + "0" * 64}]},
        {"containers": [{"image": "TAG"}]},
        {"containers": [{"image": "GOOD"}], "initContainers": [{"image": "busybox"}]},
        {"containers": [{"image": "GOOD"}, {"name": "none"}]},
        {"containers": [{"image": "GOOD"}], "ephemeralContainers": [{"image": "busybox"}]},
        {"containers": [{"image": "GOOD"}], "volumes": [{"image": {"reference": "busybox"}}]},
        {"containers": ["busybox"]},
        {"containers": []},
    ],
)
def test_manifests_that_run_another_image(forger, pod):
    one = forger("runs")
    text = json.dumps(pod).replace("GOOD", one.image.reference).replace("TAG", f"{one.image.repository}:latest")
    offer = one.offer(objects=({"kind": "Deployment", "spec": {"template": {"spec": json.loads(text)}}},))
    one.refused(offer, "reference")


def test_images_are_found_wherever_they_are():
    pod = {
        "containers": [{"image": "a"}],
        "initContainers": [{"image": "b"}],
        "volumes": [{"image": {"reference": "c"}}],
    }
    assert sorted(images_of({"kind": "List", "items": [{"spec": pod}, {"spec": {"template": {"spec": pod}}}]})) == [
        *"aabbcc"
    ]


# -- rules evidence, complete, provenance ----------------------------------------------------------------------


@pytest.mark.parametrize("missing", [PROVENANCE, SCAN, SBOM])
def test_each_kind_of_evidence_is_needed(forger, missing):
    one = forger("needs")
    del one.evidence[missing]
    one.refused(one.offer(), "complete", missing)


def test_one_kind_twice_is_not_two_kinds(forger):
    one = forger("twice")
    one.evidence["again"] = one.evidence[SCAN]
    one.refused(one.offer(), "complete")


def test_evidence_of_another_image_of_the_same_app(line, forger):
    """The newest scan found something, so an older image's clean one is put in its place."""
    one = forger("transplant")
    older = line.image("transplant", "d" * 40)
    clean = line.attest(older, SCAN)
    one.evidence[SCAN] = one.evidence[SCAN].model_copy(update={"manifest": clean})
    one.refused(one.offer(), "evidence", "kept beside something else")
    one.evidence[SCAN] = one.evidence[SCAN].model_copy(update={"subject": older.digest})
    one.refused(one.offer(), "evidence", "another image")


def test_evidence_that_is_kept_beside_the_image_and_about_another(line, forger):
    one = forger("beside")
    older = line.image("beside", "d" * 40)
    clean = line.attest(older, SCAN)
    raw = line.registry.get_manifest(one.image.repository, clean).data
    moved = line.registry.put_manifest(
        one.image.repository, raw.replace(older.digest.encode(), one.image.digest.encode()), OCI_MANIFEST
    )
    one.evidence[SCAN] = one.evidence[SCAN].model_copy(update={"manifest": moved})
    one.refused(one.offer(), "evidence", "not about")


def test_evidence_in_a_wrong_role(forger):
    one = forger("role")
    one.evidence[SCAN] = one.evidence[SCAN].model_copy(update={"role": "builder"})
    one.refused(one.offer(), "evidence", "not the builder's word")
    one.evidence[SCAN] = one.evidence[PROVENANCE].model_copy(update={"predicate_type": SCAN, "role": "scanner"})
    one.refused(one.offer(), "evidence", "not trusted as scanner")
    one.evidence[SCAN] = one.evidence[SBOM].model_copy(update={"predicate_type": SCAN})
    one.refused(one.offer(), "evidence", "predicate type")
    one.evidence[SCAN] = one.evidence[SBOM].model_copy(update={"predicate_type": "https://x.example/y"})
    one.refused(one.offer(), "evidence", "not the scanner's word")


def test_evidence_that_is_not_there(forger):
    one = forger("gone")
    one.evidence[SCAN] = one.evidence[SCAN].model_copy(update={"manifest": digest_of(b"none")})
    one.refused(one.offer(), "evidence", "missing")


def test_a_provenance_of_another_commit(line, forger):
    one = forger("commit")
    other = line.attest(one.image, PROVENANCE, "d" * 40)
    one.evidence[PROVENANCE] = one.evidence[PROVENANCE].model_copy(update={"manifest": other})
    one.refused(one.offer(), "provenance", "does not name the release's commit")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"image": digest_of(b"x")}, "another image"),
        ({"sbom": digest_of(b"x")}, "not the one that the scan made"),
        ({"extra": 1}, "not a valid Scan"),
        ({"findings": None}, "not a valid Scan"),
    ],
)
def test_a_scan_that_does_not_fit_its_image_or_sbom(line, forger, change, match):
    one = forger("scan")
    manifest = line.attest(one.image, SCAN, change=change)
    one.evidence[SCAN] = one.evidence[SCAN].model_copy(update={"manifest": manifest})
    one.refused(one.offer(), "scan", match)


# -- rules summary, inputs, staging ----------------------------------------------------------------------------


def edited(**changes):
    return lambda statement: statement.model_copy(update={"predicate": statement.predicate | changes})


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (edited(policy={"uri": "x", "digest": {"sha256": "0" * 64}}), "summary"),
        (edited(policy={}), "summary"),
        (edited(policy="x"), "summary"),
        (edited(resourceUri="registry.sekisho.internal/releases/other@sha256:0"), "summary"),
        (edited(inputAttestations=[]), "inputs"),
        (edited(inputAttestations=None), "inputs"),
        (lambda statement: statement.model_copy(update={"subjects": statement.subjects[:1]}), "summary"),
    ],
)
def test_a_summary_that_says_something_else(forger, change, rule):
    one = forger("summary")
    one.refused(one.offer(summary=change), rule)


def test_a_summary_that_leaves_out_or_adds_evidence(forger):
    def cut(statement):
        return edited(inputAttestations=statement.predicate["inputAttestations"][:-1])(statement)

    def add(statement):
        more = {"uri": "x", "digest": {"sha256": "0" * 64}}
        return edited(inputAttestations=[*statement.predicate["inputAttestations"], more])(statement)

    one = forger("inputs")
    for change in (cut, add):
        one.refused(one.offer(summary=change), "inputs", "exactly")


def test_the_summary_of_another_release(forger):
    """A downgrade: the PASSED of an earlier release, shown with a later one."""
    one = forger("earlier")
    earlier = one.offer()
    objects = (*one.objects(), {"kind": "Service"})
    later = one.offer(objects=objects)
    assert earlier.release != later.release
    one.refused(later.model_copy(update={"summary": earlier.summary}), "summary", "kept beside something else")


def test_a_summary_that_the_verifier_did_not_sign(line, forger):
    one = forger("unsigned")
    offer = one.offer()
    release, _ = load_release(line.registry, "releases/unsigned", Digest(offer.release))
    statement = summary_statement(Digest(offer.release), release, at=NOW, levels=())
    forged = attach_statement(line.registry, "releases/unsigned", statement, line.signers["stranger"])
    one.refused(offer.model_copy(update={"summary": forged}), "summary", "not trusted as verifier")
    one.refused(offer.model_copy(update={"summary": digest_of(b"none")}), "summary", "missing")


def test_the_receipt_of_another_release(line, forger):
    one = forger("receipts")
    first = line.receipt(one.offer())
    second = one.offer(objects=(*one.objects(), {"kind": "Service"}))
    with pytest.raises(VerificationError, match="Rule staging"):
        verify(line, second.model_copy(update={"receipt": first.receipt}), require=("verifier", "staging"))
    assert verify(line, first, require=("verifier", "staging"))


def named(line, offer):
    """Return the judgement that an offer's summary names."""
    bundle = load_statement(line.registry, f"releases/{offer.app}", Digest(offer.summary))
    return named_judgement(peek_statement(bundle), f"releases/{offer.app}")


# -- rule judgement --------------------------------------------------------------------------------------------


def test_a_release_with_its_judgement(line, forger):
    one = forger("judged")
    judged = one.judged()
    verified = verify(line, one.offer(judgement=judged))
    assert (verified.judged, verified.judgement.verdict.result) == (judged, Result.PASSED)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"verdict": {"result": Result.FAILED}}, "not a PASSED one"),
        ({"verdict": {"reasons": (FAILED,)}}, "not a PASSED one"),
        ({"subject": {"problems": (FAILED,)}}, "not a PASSED one"),
        ({"verdict": {"policy": digest_of(b"lax")}}, "another policy"),
        ({"verdict": {"commit": "d" * 40}}, "another app or commit"),
        ({"subject": {"commit": "d" * 40}}, "another app or commit"),
        ({"verdict": {"app": "other"}}, "another app or commit"),
        ({"subject": {"app": "other"}}, "another app or commit"),
        ({"subject": {"image": None}}, "another image"),
        ({"subject": {"scan": None}}, "another image"),
        ({"subject": {"manifests": None}}, "another image"),
        ({"subject": {"manifests": Manifests(app="judged-x", objects=())}}, "another image"),
    ],
)
def test_a_judgement_that_is_not_a_yes_to_this(forger, change, match):
    one = forger("misjudged")
    one.refused(one.offer(judgement=one.judged(**change)), "judgement", match)


def test_a_judgement_of_another_scan_of_the_same_image(line, forger):
    """Evidence swapped: the scan that was judged was a clean one, the release carries another."""
    one = forger("rescanned")
    judged = one.judged()
    tool = {"scanner": {"name": "trivy", "version": "0.0.1", "digest": digest_of(b"old")}}
    manifest = line.attest(one.image, SCAN, change=tool)
    one.evidence[SCAN] = one.evidence[SCAN].model_copy(update={"manifest": manifest})
    one.refused(one.offer(judgement=judged), "judgement", "another scan")


def test_the_judgement_of_another_release(line, forger):
    victim, thief = forger("judged-victim"), forger("judged-thief")
    theirs = victim.judged()
    thief.refused(thief.offer(judgement=theirs), "judgement", "The judgement is missing")
    raw = line.registry.get_manifest("releases/judged-victim", theirs)
    for layer in json.loads(raw.data)["layers"]:
        line.registry.mount_blob("releases/judged-thief", layer["digest"], "releases/judged-victim")
    line.registry.put_blob("releases/judged-thief", b"{}")
    line.registry.put_manifest("releases/judged-thief", raw.data, OCI_MANIFEST)
    thief.refused(thief.offer(judgement=theirs), "judgement", "another app or commit")


def test_something_else_than_a_judgement_is_named_as_one(line, forger):
    one = forger("no-judgement")
    offer = one.offer()
    with pytest.raises(VerificationError, match="not a judgement"):
        verify(line, one.offer(judgement=offer.release))
    for name in ("", "sha256:x", digest_of(b"none")):

        def call_it(statement, name=name):
            item = {"uri": f"registry.sekisho.internal/releases/no-judgement@{name}", "digest": {"sha256": name[7:]}}
            inputs = [*statement.predicate["inputAttestations"], item]
            return statement.model_copy(update={"predicate": statement.predicate | {"inputAttestations": inputs}})

        with pytest.raises(VerificationError, match=r"Rule (inputs|judgement)"):
            verify(line, one.offer(summary=call_it))


def test_two_judgements_or_one_out_of_place(line, forger):
    one = forger("two-judgements")
    judged, other = one.judged(), one.judged(verdict={"notes": ("Another.",)})

    def arranged(*order):
        def change(statement):
            known = statement.predicate["inputAttestations"]
            more = judgement_input("releases/two-judgements", other)
            inputs = [([*known, more])[index] for index in order]
            return statement.model_copy(update={"predicate": statement.predicate | {"inputAttestations": inputs}})

        return change

    assert verify(line, one.offer(judgement=judged))
    for order in ((0, 1, 2, 3, 4), (3, 0, 1, 2), (0, 1, 2, 3, 3)):
        one.refused(one.offer(judgement=judged, summary=arranged(*order)), "inputs", "exactly")


def test_a_judgement_without_its_policies(line, forger, trust):
    one = forger("no-policies")
    offer = one.offer(judgement=one.judged(policies=b"these only"))
    closure = fetch_closure(line.registry, offer)
    documents = {digest: data for digest, data in closure.documents.items() if data != b"these only"}
    encoded = {digest: base64.b64encode(data).decode() for digest, data in documents.items()}
    report = verify_bundle(ReleaseBundle(offer=offer, documents=encoded).canonical(), trust, at=NOW)
    assert [check.name for check in report.failures] == ["judgement"]


# -- words of the same key ---------------------------------------------------------------------------------------


def test_the_judges_word_is_not_the_gatekeepers(forger):
    """The verifier's key signs what the judge says too: never enough for a release, whatever it covers."""
    one = forger("judges-word")

    def of_the_judge(statement):
        return statement.model_copy(update={"predicate": statement.predicate | {"verifier": {"id": JUDGE_ID}}})

    def of_nobody(statement):
        return statement.model_copy(update={"predicate": statement.predicate | {"verifier": "x"}})

    for change in (of_the_judge, of_nobody):
        one.refused(one.offer(summary=change), "summary", "not the gatekeeper's word")


def test_the_inputs_of_another_release(line, forger):
    """Each statement named is a true one, of the same image even: but not this release's."""
    one = forger("inputs-other")
    other = line.attest(one.image, SCAN, change={"findings": []} | {"coverage": {**COVERAGE, "os_packages": 2}})

    def swap(statement):
        inputs = [dict(item) for item in statement.predicate["inputAttestations"]]
        inputs[1] = {"uri": f"registry.sekisho.internal/apps/inputs-other@{other}", "digest": {"sha256": other[7:]}}
        return statement.model_copy(update={"predicate": statement.predicate | {"inputAttestations": inputs}})

    one.refused(one.offer(summary=swap), "inputs", "exactly")


# -- offline ---------------------------------------------------------------------------------------------------


@pytest.fixture
def exported(line):
    return export_bundle(verify(line, line.receipt(line.offer("offline"))))


def test_a_release_verifies_from_a_file(exported, trust):
    report = verify_bundle(exported.canonical(), trust, require=("verifier", "staging"), at=NOW)

    assert report.ok
    assert [check.name for check in report.checks] == ["documents", *(name for name, _ in RULES)]
    assert report.failures == ()
    assert (report.app, report.release) == ("offline", exported.offer.release)


def test_the_file_holds_no_layer(exported, line):
    release, _ = load_release(line.registry, "releases/offline", Digest(exported.offer.release))
    assert not {layer.digest for layer in release.image.layers} & set(exported.documents)


def test_a_file_under_another_trust_root(exported, trust):
    nobody = verify_bundle(exported.canonical(), TrustRoot(keys=()), at=NOW)
    no_builder = TrustRoot(keys=tuple(key for key in trust.keys if key.role != "builder"))
    report = verify_bundle(exported.canonical(), no_builder, at=NOW)

    assert not nobody.ok
    assert not report.ok
    assert {check.name for check in report.failures} >= {"evidence"}
    assert "builder" in report.failures[0].detail


def test_a_document_without_a_canonical_form_is_refused(line, forger, trust):
    """10^20 reads as JSON and cannot be written as canonical JSON: a refusal, not a fault that is tried for ever."""
    one = forger("no-form")
    data = (
        Manifests(app=one.app, objects=(*one.objects(), {"n": 12345})).canonical().replace(b"12345", b"1" + b"0" * 20)
    )
    offer = one.offer(manifests=data)
    one.refused(offer, "manifests", "no canonical form")
    documents = fetch_closure(line.registry, offer).documents
    encoded = {digest: base64.b64encode(content).decode() for digest, content in documents.items()}
    report = verify_bundle(ReleaseBundle(offer=offer, documents=encoded).canonical(), trust, at=NOW)
    assert "manifests" in {check.name for check in report.failures}


def test_what_hangs_on_a_failed_rule_is_reported_as_not_checked(line, forger, trust):
    one = forger("hangs")
    other = Manifests(app="another", objects=one.objects()).canonical()
    del one.evidence[PROVENANCE]
    offer = one.offer(manifests=other)
    documents = fetch_closure(line.registry, offer).documents
    bundle = ReleaseBundle(
        offer=offer, documents={digest: base64.b64encode(data).decode() for digest, data in documents.items()}
    )
    report = verify_bundle(bundle.canonical(), trust, at=NOW)

    assert [check.name for check in report.failures] == ["manifests", "reference", "complete", "provenance"]
    assert [check.name for check in report.failures if "Not checked" in check.detail] == ["reference", "provenance"]


def test_each_document_of_the_file_is_needed(exported, trust):
    for digest in exported.documents:
        documents = {name: text for name, text in exported.documents.items() if name != digest}
        cut = ReleaseBundle(offer=exported.offer, documents=documents)
        assert not verify_bundle(cut.canonical(), trust, require=("verifier", "staging"), at=NOW).ok


def test_a_changed_byte_in_any_document_is_reported(exported, trust):
    for digest, text in exported.documents.items():
        data = bytearray(base64.b64decode(text))
        data[len(data) // 2] ^= 1
        changed = exported.documents | {digest: base64.b64encode(bytes(data)).decode()}
        report = verify_bundle(ReleaseBundle(offer=exported.offer, documents=changed).canonical(), trust, at=NOW)
        assert report.failures[0].name == "documents"
        assert not report.ok


def test_a_changed_offer_is_reported(exported, trust):
    other = digest_of(b"other")
    for change in ({"app": "other"}, {"commit": "d" * 40}, {"release": other}, {"summary": other}, {"receipt": other}):
        bundle = exported.model_copy(update={"offer": exported.offer.model_copy(update=change)})
        assert not verify_bundle(bundle.canonical(), trust, require=("verifier", "staging"), at=NOW).ok


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b"\xff", b'{"format":"x"}', b'{"a":1,"a":1}', b"[" * 50_000])
def test_what_is_no_bundle_is_refused(data, trust):
    with pytest.raises(Refusal):
        verify_bundle(data, trust)


def test_a_document_that_is_not_base64_or_has_no_digest_is_reported(exported, trust):
    for documents in ({exported.offer.release: "!"}, {"sha256:x": "AAAA"}, {"../x": "AAAA"}):
        bundle = exported.model_copy(update={"documents": documents})
        assert not verify_bundle(bundle.canonical(), trust, at=NOW).ok


def test_a_closure_is_fetched_from_its_own_app_only(line, forger):
    one = forger("fetch")
    offer = one.offer()
    closure = fetch_closure(line.registry, offer)

    assert {offer.release, offer.summary, one.image.digest} <= set(closure.documents)
    assert fetch_closure(Registry(line.registry.url), offer.model_copy(update={"app": "nobody"})).documents == {}
