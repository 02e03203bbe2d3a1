"""Interoperation with the real cosign and crane: what the line signs they verify, and what they sign the line verifies.

Each test runs on a registry with the referrers API and on one without; on the other one with it the last test does a
bit of each, and a long run does all.
"""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from peers import FORMS, OFFLINE, WITH_API, Command, form_flag, running, write_key

from sekisho.canonical import Digest, digest_of
from sekisho.cosign_legacy import SIGNATURE_ANNOTATION, legacy_signatures, legacy_statements, sign_image
from sekisho.evidence import attach_statement, find_statements, load_statement
from sekisho.keys import FileSigner, TrustedKey, TrustRoot, key_id_of, trusted_key
from sekisho.records import put_record
from sekisho.registry import Registry
from sekisho.releases import verify_release
from sekisho.releases.transfer import copy_release
from sekisho.stage import run_stage
from sekisho.statements import PROVENANCE, SBOM, SCAN, SUMMARY, Statement, Subject

COSIGN_PREDICATE = "https://sigstore.dev/cosign/sign/v1"
NOW = 1_790_000_000
TYPES = {
    PROVENANCE: ("builder", "slsaprovenance1"),
    SBOM: ("scanner", "cyclonedx"),
    SCAN: ("scanner", SCAN),
    SUMMARY: ("verifier", SUMMARY),
}


@pytest.fixture(scope="module", params=["distribution", WITH_API[0], pytest.param(WITH_API[1], marks=pytest.mark.long)])
def registry_kind_url(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param == "distribution":
        yield request.getfixturevalue("registry_url")
        return
    with running(request.param) as url:
        yield url


@pytest.fixture
def place(line, registry_kind_url):
    """The small line of the unit tests, on each kind of registry."""
    return replace(line, registry=Registry(registry_kind_url))


@pytest.fixture
def cosign(tmp_path, signers):
    for name, signer in signers.items():
        (tmp_path / f"{name}.pub").write_text(signer.public_key)
    return Command("cosign", tmp_path)


@pytest.fixture(scope="module")
def imported(tmp_path_factory, signers):
    """Our keys as cosign keeps them: `import-key-pair`, once, for it stretches the password; gives the key's file."""
    importing = Command("cosign", tmp_path_factory.mktemp("imported"))

    def call(name):
        key = importing.folder / f"{name}.key"
        if not key.exists():
            pem = write_key(signers[name], importing.folder / f"{name}.pem")
            importing.good("import-key-pair", "--key", str(pem), "--output-key-prefix", name)
        return key

    return call


@pytest.fixture
def keys(cosign, imported):
    """Puts an imported key before cosign, and its configuration for signing without any service."""
    (cosign.folder / "offline.json").write_text(cosign.good("signing-config", "create"))

    def chosen(name: str, form: str = "bundle") -> tuple[str, ...]:
        shutil.copy(imported(name), cosign.folder)
        return signing(name, form)

    return chosen


def signing(name: str, form: str = "bundle") -> tuple[str, ...]:
    """Return cosign's options for signing without a log: each form has its own."""
    older = ("--use-signing-config=false", "--tlog-upload=false")
    offline = ("--signing-config", "offline.json") if form == "bundle" else older
    return ("--key", f"{name}.key", form_flag(form), *offline, "--allow-http-registry", "--yes")


def reference(registry: Registry, repository: str, digest: str) -> str:
    return f"{registry.url.removeprefix('http://')}/{repository}@{digest}"


def sealed(place, app):
    return run_stage(place.seal_stage(), place.seal_input(app)).value


# -- ours, verified by cosign ----------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_cosign_verifies_what_the_gate_let_through(place, cosign, form):
    release = sealed(place, "co-verify")
    image = release.release.image
    options = ("--key", "verifier.pub", form_flag(form), *OFFLINE)
    here = reference(place.registry, image.repository, image.digest)
    whole = reference(place.registry, release.repository, release.digest)

    said = json.loads(cosign.good("verify", *options, here))
    cosign.good("verify", *options, whole)
    for stranger in ("stranger", "staging"):
        cosign.refused("verify", "--key", f"{stranger}.pub", form_flag(form), *OFFLINE, here)
    # An image of the same repository that nobody signed.
    other = reference(place.registry, image.repository, place.image("co-verify", "d" * 40).digest)
    cosign.refused("verify", *options, other)
    # Of a bundle cosign prints the first subject: the summary is about the release, then about its image.
    assert {item["critical"]["image"]["docker-manifest-digest"] for item in said} <= {image.digest, release.digest}


def test_cosign_knows_no_roles(place, cosign):
    """Why only the verifier's key means "passed": to cosign any bundle of a key signs the image, in the older form
    only what the verifier wrote. docs/interoperability.md says so; if cosign changes, this test asks to change that."""
    image = sealed(place, "co-roles").release.image
    here = reference(place.registry, image.repository, image.digest)

    cosign.good("verify", "--key", "builder.pub", form_flag("bundle"), *OFFLINE, here)
    for role in ("builder", "scanner"):
        cosign.refused("verify", "--key", f"{role}.pub", form_flag("legacy"), *OFFLINE, here)


@pytest.mark.parametrize("form", FORMS)
def test_cosign_verifies_every_statement(place, cosign, form):
    image = sealed(place, "co-attest").release.image
    here = reference(place.registry, image.repository, image.digest)
    bare = place.image("co-attest", "e" * 40)

    def verify(role, kind, where=here):
        return cosign("verify-attestation", "--key", f"{role}.pub", "--type", kind, form_flag(form), *OFFLINE, where)

    for predicate_type, (role, kind) in TYPES.items():
        good = verify(role, kind)
        assert good.returncode == 0, (predicate_type, good.stderr)
        assert predicate_type in _predicate_types(good.stdout)
        wrong_role = "builder" if role != "builder" else "scanner"
        assert verify(wrong_role, kind).returncode != 0, f"{predicate_type} by {wrong_role}"
        unsigned = reference(place.registry, bare.repository, bare.digest)
        assert verify(role, kind, unsigned).returncode != 0, f"{predicate_type} of another image"
    assert verify("builder", "spdxjson").returncode != 0
    assert verify("stranger", SUMMARY).returncode != 0


def _predicate_types(text: str) -> set[str]:
    """Return the types in the envelopes that cosign prints, one a line."""
    envelopes = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    return {json.loads(base64.b64decode(item["payload"]))["predicateType"] for item in envelopes}


def test_cosign_verifies_a_release_as_a_file(place, cosign):
    """Without any registry: the summary's subject is the digest of the release's manifest, so that is the blob."""
    release = sealed(place, "co-file")
    raw = place.registry.get_manifest(release.repository, release.digest)
    (cosign.folder / "release.json").write_bytes(raw.data)
    (cosign.folder / "changed.json").write_bytes(raw.data + b" ")
    (cosign.folder / "summary.json").write_bytes(
        load_statement(place.registry, release.repository, Digest(release.summary))
    )
    command = ("verify-blob-attestation", "--bundle", "summary.json", "--type", SUMMARY, OFFLINE[0])

    cosign.good(*command, "--key", "verifier.pub", "release.json")
    cosign.refused(*command, "--key", "verifier.pub", "changed.json")
    cosign.refused(*command, "--key", "builder.pub", "release.json")


@pytest.mark.parametrize("form", FORMS)
def test_a_no_never_verifies_as_an_image_or_a_release(place, cosign, form):
    image = place.image("co-failed")
    for predicate_type in (PROVENANCE, SCAN, SBOM):
        place.attest(image, predicate_type)
    record = put_record(place.registry, "verdicts/co-failed", "commit-x", place.revision("co-failed"))
    failed = Statement(
        subjects=(Subject(digest=record),), predicate_type=SUMMARY, predicate={"verificationResult": "FAILED"}
    )
    attach_statement(place.registry, "verdicts/co-failed", failed, place.signers["verifier"])

    options = ("--key", "verifier.pub", form_flag(form), *OFFLINE)
    here = reference(place.registry, image.repository, image.digest)
    cosign.refused("verify", *options, here)
    cosign.refused("verify-attestation", "--type", SUMMARY, *options, here)
    cosign.refused("verify", *options, reference(place.registry, "releases/co-failed", image.digest))


# -- cosign's, verified by ours --------------------------------------------------------------------------------


@pytest.fixture
def find(place):
    def call(image, role, predicate_type, *, form="bundle", trust=None, subject=""):
        search = find_statements if form == "bundle" else legacy_statements
        found = search(
            place.registry,
            image.repository,
            Digest(subject or image.digest),
            trust=trust or place.trust,
            role=role,
            predicate_type=predicate_type,
            zone="staging" if role == "zone" else "",
        )
        return [getattr(item, "statement", item) for item in found]

    return call


def test_the_line_verifies_what_cosign_signs(place, cosign, keys, find):
    image, other = place.image("co-signs"), place.image("co-signs", "f" * 40)
    cosign.good("sign", *keys("builder"), reference(place.registry, image.repository, image.digest))

    (statement,) = find(image, "builder", COSIGN_PREDICATE)
    assert statement.covers(image.digest)
    assert find(image, "verifier", COSIGN_PREDICATE) == []
    assert find(image, "builder", PROVENANCE) == []
    assert find(other, "builder", COSIGN_PREDICATE) == []


def test_the_line_verifies_cosigns_older_signature(place, cosign, keys):
    passed, built = place.image("co-signs-old"), place.image("co-signs-old", "f" * 40)
    for image, key in ((passed, "verifier"), (built, "builder"), (built, "stranger")):
        cosign.good("sign", *keys(key, "legacy"), reference(place.registry, image.repository, image.digest))

    def signatures(image):
        return legacy_signatures(place.registry, image.repository, Digest(image.digest), trust=place.trust, at=NOW)

    assert len(signatures(passed)) == 1
    assert signatures(built) == ()
    # A right signature, moved under another image's tag.
    moved = place.registry.get_manifest(passed.repository, f"sha256-{passed.digest[7:]}.sig")
    place.registry.put_manifest(built.repository, moved.data, moved.media_type, tag=f"sha256-{built.digest[7:]}.sig")
    assert signatures(built) == ()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("predicate_type", "kind", "predicate"),
    [
        (SCAN, SCAN, {"findings": []}),
        (SBOM, "cyclonedx", {"bomFormat": "CycloneDX", "specVersion": "1.6"}),
        ("https://cosign.sigstore.dev/attestation/v1", "custom", {"free": "text"}),
    ],
)
def test_the_line_verifies_what_cosign_attests(place, cosign, keys, find, form, predicate_type, kind, predicate):
    image, other = place.image("co-attests"), place.image("co-attests-other")
    (cosign.folder / "predicate.json").write_text(json.dumps(predicate))
    cosign.good(
        "attest", *keys("scanner", form), "--type", kind, "--predicate", "predicate.json",
        reference(place.registry, image.repository, image.digest),
    )  # fmt: skip

    found = find(image, "scanner", predicate_type, form=form)
    assert [item.predicate_type for item in found] == [predicate_type]
    if kind != "custom":
        assert found[0].predicate == predicate
    assert find(image, "builder", predicate_type, form=form) == []
    assert find(image, "verifier", predicate_type, form=form) == []
    assert find(image, "scanner", PROVENANCE, form=form) == []
    assert find(other, "scanner", predicate_type, form=form) == []
    retired = TrustRoot(keys=(trusted_key(place.signers["scanner"], not_after=NOW),))
    assert find(image, "scanner", predicate_type, form=form, trust=retired) == []


@pytest.mark.parametrize("form", FORMS)
def test_a_key_that_cosign_made_counts_for_its_role_only(place, cosign, keys, find, form):
    keys("builder")
    cosign.good("generate-key-pair", "--output-key-prefix", "own")
    pem = (cosign.folder / "own.pub").read_text()
    trust = TrustRoot(keys=(*place.trust.keys, _trusted(pem)))
    image = place.image(f"co-generated-{form}")
    (cosign.folder / "predicate.json").write_text('{"buildDefinition": {"buildType": "x"}, "runDetails": {}}')
    cosign.good(
        "attest", *signing("own", form), "--type", "slsaprovenance1", "--predicate", "predicate.json",
        reference(place.registry, image.repository, image.digest),
    )  # fmt: skip

    (statement,) = find(image, "builder", PROVENANCE, form=form, trust=trust)
    assert statement.predicate["buildDefinition"]["buildType"] == "x"
    assert find(image, "builder", PROVENANCE, form=form) == []
    assert find(image, "scanner", PROVENANCE, form=form, trust=trust) == []


def _trusted(pem: str) -> TrustedKey:
    key = load_pem_public_key(pem.encode())
    return TrustedKey(role="builder", key_id=key_id_of(key), public_key=pem)


# -- both on one image -----------------------------------------------------------------------------------------


def test_both_write_to_one_image_in_turn(place, cosign, keys, find):
    image = place.image("co-turns")
    here = reference(place.registry, image.repository, image.digest)
    place.attest(image, PROVENANCE)
    cosign.good("sign", *keys("builder"), here)
    place.attest(image, SCAN)
    cosign.good("sign", *keys("scanner"), here)
    place.attest(image, SBOM)

    for role, predicate_type in (
        ("builder", PROVENANCE),
        ("scanner", SCAN),
        ("scanner", SBOM),
        ("builder", COSIGN_PREDICATE),
        ("scanner", COSIGN_PREDICATE),
    ):
        assert len(find(image, role, predicate_type)) == 1, predicate_type
    assert len(place.registry.listed_referrers(image.repository, Digest(image.digest))) == 5
    for predicate_type in (PROVENANCE, SCAN, SBOM):
        role, kind = TYPES[predicate_type]
        cosign.good("verify-attestation", "--key", f"{role}.pub", "--type", kind, form_flag("bundle"), *OFFLINE, here)


def test_both_write_to_one_image_at_once(request, place, cosign, keys, find):
    """Ours are found whatever cosign does meanwhile. cosign's own entry in an index that two change can be lost by
    its nature: without the API it is signed again until it is seen, which happens about never."""
    image = place.image("co-at-once")
    here = reference(place.registry, image.repository, image.digest)
    options = keys("builder")
    with_api = request.node.callspec.params["registry_kind_url"] in WITH_API
    for _ in range(2):
        processes = [cosign.start("sign", *options, here) for _ in range(2)]
        said = []
        while any(process.poll() is None for process in processes):
            said.append(place.attest(image, SCAN, change={"number": len(said)}))
        for process in processes:
            _, errors = process.communicate()
            assert process.returncode == 0, errors
        listed = {item.digest for item in place.registry.referrers(image.repository, Digest(image.digest))}
        assert listed >= set(said)
    if with_api:
        assert len(find(image, "builder", COSIGN_PREDICATE)) == 4
    for _ in range(5):
        if find(image, "builder", COSIGN_PREDICATE):
            break
        cosign.good("sign", *options, here)
    assert find(image, "builder", COSIGN_PREDICATE)
    cosign.good("verify-attestation", "--key", "scanner.pub", "--type", SCAN, form_flag("bundle"), *OFFLINE, here)


def test_two_verifiers_keys_overlap(place, cosign, tmp_path):
    """Rotation: the old key and the new one sign the same image; each is enough, until the old one is retired."""
    image = sealed(place, "co-rotate").release.image
    new = FileSigner.create(tmp_path / "new.pem", "verifier")
    (cosign.folder / "new.pub").write_text(new.public_key)
    here = reference(place.registry, image.repository, image.digest)
    digest = Digest(image.digest)
    summary = Statement(
        subjects=(Subject(digest=image.digest),), predicate_type=SUMMARY, predicate={"verificationResult": "PASSED"}
    )
    attach_statement(place.registry, image.repository, summary, new)

    for form in FORMS:
        for name in ("verifier", "new"):
            cosign.good("verify", "--key", f"{name}.pub", form_flag(form), *OFFLINE, here)
    old = next(key for key in place.trust.keys if key.role == "verifier")
    both = TrustRoot(keys=(old.model_copy(update={"not_after": NOW}), trusted_key(new, not_before=NOW)))

    def count(at):
        found = find_statements(
            place.registry, image.repository, digest, trust=both, role="verifier", predicate_type=SUMMARY, at=at
        )
        return len(found), len(legacy_signatures(place.registry, image.repository, digest, trust=both, at=at))

    assert (count(NOW - 1), count(NOW), count(NOW + 1)) == ((1, 1), (2, 2), (1, 1))


# -- copies ----------------------------------------------------------------------------------------------------


def test_a_copy_by_crane_has_no_signatures_and_ours_has_all(place, cosign, second_registry_url):
    release = sealed(place, "co-copy")
    image = release.release.image
    target = Registry(second_registry_url)
    crane = Command("crane", cosign.folder)
    copied = f"crane/{place.registry.url.rpartition(':')[2]}/co-copy"
    crane.good(
        "copy", "--insecure", reference(place.registry, image.repository, image.digest),
        f"{target.url.removeprefix('http://')}/{copied}:copied",
    )  # fmt: skip
    assert target.get_manifest(copied, image.digest) is not None
    assert target.referrers(copied, Digest(image.digest)) == ()
    options = ("--key", "verifier.pub", *OFFLINE)
    for form in FORMS:
        cosign.refused("verify", form_flag(form), *options, reference(target, copied, image.digest))

    offer = place.offer("co-copy")
    verified = verify_release(place.registry, offer, place.trust, at=NOW)
    copy_release(place.registry, target, verified, cosign.folder / "work", trust=place.trust, at=NOW)
    for form in FORMS:
        cosign.good("verify", form_flag(form), *options, reference(target, image.repository, image.digest))
        cosign.good("verify", form_flag(form), *options, reference(target, release.repository, offer.release))
        for role, kind in TYPES.values():
            cosign.good(
                "verify-attestation", "--type", kind, "--key", f"{role}.pub", form_flag(form), *OFFLINE,
                reference(target, image.repository, image.digest),
            )  # fmt: skip
    assert digest_of(target.get_manifest(release.repository, offer.release).data) == offer.release
    assert verify_release(target, offer, place.trust, at=NOW).release == verified.release


def test_cosigns_older_signature_is_copied_as_well(place, cosign, keys, second_registry_url, tmp_path):
    """What a person signed with the verifier's key and the real cosign crosses the border like our own."""
    image = sealed(place, "co-copy-old").release.image
    cosign.good("sign", *keys("verifier", "legacy"), reference(place.registry, image.repository, image.digest))
    offer = place.offer("co-copy-old")
    target = Registry(second_registry_url)
    verified = verify_release(place.registry, offer, place.trust, at=NOW)
    copy_release(place.registry, target, verified, tmp_path / "work", trust=place.trust, at=NOW)

    def signatures(registry):
        found = legacy_signatures(registry, image.repository, Digest(image.digest), trust=place.trust, at=NOW)
        return {(layer.digest, layer.annotations[SIGNATURE_ANNOTATION]) for layer in found}

    assert len(signatures(place.registry)) == 2
    assert signatures(target) >= signatures(place.registry)


def test_a_signature_by_our_own_hand_on_a_bare_image(place, cosign):
    image = place.image("co-bare")
    sign_image(place.registry, image.repository, Digest(image.digest), place.signers["verifier"])
    here = reference(place.registry, image.repository, image.digest)

    cosign.good("verify", "--key", "verifier.pub", form_flag("legacy"), *OFFLINE, here)
    cosign.refused("verify", "--key", "builder.pub", form_flag("legacy"), *OFFLINE, here)


@pytest.mark.parametrize("registry_kind_url", WITH_API[1:], indirect=True)
def test_the_other_registry_with_the_api_in_short(place, cosign, keys, find, second_registry_url):
    image = sealed(place, "co-short").release.image
    here = reference(place.registry, image.repository, image.digest)
    for form in FORMS:
        options = (form_flag(form), *OFFLINE)
        cosign.good("verify", "--key", "verifier.pub", *options, here)
        cosign.refused("verify", "--key", "stranger.pub", *options, here)
        for role, kind in TYPES.values():
            cosign.good("verify-attestation", "--key", f"{role}.pub", "--type", kind, *options, here)
        cosign.refused("verify-attestation", "--key", "scanner.pub", "--type", SUMMARY, *options, here)

    (cosign.folder / "predicate.json").write_text('{"free": "text"}')
    said = ("--type", "custom", "--predicate", "predicate.json", here)
    cosign.good("sign", *keys("builder"), here)
    place.attest(image, SCAN, change={"number": 1})
    cosign.good("attest", *keys("scanner"), *said)
    cosign.good("attest", *keys("scanner", "legacy"), *said)
    cosign.good("sign", *keys("verifier", "legacy"), here)

    def own(form):
        return len(find(image, "scanner", "https://cosign.sigstore.dev/attestation/v1", form=form))

    assert len(find(image, "builder", COSIGN_PREDICATE)) == own("bundle") == own("legacy") == 1
    assert find(image, "verifier", COSIGN_PREDICATE) == []
    assert len(find(image, "scanner", SCAN)) == len(find(image, "scanner", SCAN, form="legacy")) == 2
    signatures = legacy_signatures(place.registry, image.repository, Digest(image.digest), trust=place.trust, at=NOW)
    assert len(signatures) == 2

    target, offer = Registry(second_registry_url), place.offer("co-short-copy")
    verified = verify_release(place.registry, offer, place.trust, at=NOW)
    copy_release(place.registry, target, verified, cosign.folder / "work", trust=place.trust, at=NOW)
    copied = verified.release.image
    for form in FORMS:
        there = reference(target, copied.repository, copied.digest)
        cosign.good("verify", "--key", "verifier.pub", form_flag(form), *OFFLINE, there)
