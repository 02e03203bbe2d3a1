"""What is said about a standard image, by whom: how it was made, what is in it, whether it may be built on. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from packageurl import PackageURL

from sekisho.canonical import Digest, hex_of
from sekisho.model import IMAGE_HOST, Result, StandardImage
from sekisho.releases.judgement import JUDGE_ID
from sekisho.standard import LockEntry, StandardSpec
from sekisho.statements import SUMMARY, Statement, Subject
from stages.standards.documents import StandardVerdict

BUILD_TYPE: Final = "https://sekisho.dev/standard-image/v1"
"""Explained in docs/standard-images.md."""
BUILDER_ID: Final = "https://sekisho.dev/builders/standard-images/v1"


def provenance(spec: StandardSpec, entry: LockEntry) -> dict[str, Any]:
    """Return the builder's predicate about a standard image: SLSA provenance v1. Pure.

    What it was made from is what the image builder wrote into the lock: every Debian package with its version and
    source, and every archive by digest.
    """
    return {
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": {"image": spec.name, "version": spec.version, "recipe": {"digest": entry.recipe}},
            "internalParameters": {"owner": spec.owner, "endOfLife": spec.end_of_life.isoformat()},
            "resolvedDependencies": [
                *(_debian(package, entry.sources) for package in entry.packages),
                *({"uri": item.purl, "downloadLocation": item.url, "digest": {"sha256": item.sha256}}
                  for item in entry.archives),
            ],
        },
        "runDetails": {"builder": {"id": BUILDER_ID}, "metadata": {"finishedOn": entry.built_at}},
    }  # fmt: skip


def with_archives(sbom: dict[str, Any], entry: LockEntry) -> dict[str, Any]:
    """Return a bill of materials with the archives that are in the image, which no package database names. Pure."""
    known = {str(item.get("purl", "")) for item in sbom["components"]}
    added = [
        {
            "type": "application",
            "bom-ref": f"archive:{item.purl}",
            "name": PackageURL.from_string(item.purl).name,
            "version": PackageURL.from_string(item.purl).version,
            "purl": item.purl,
            "hashes": [{"alg": "SHA-256", "content": item.sha256}],
        }
        for item in {archive.purl: archive for archive in entry.archives}.values()
        if item.purl not in known
    ]
    components = sorted([*sbom["components"], *added], key=lambda item: str(item["bom-ref"]))
    (root,) = sbom["dependencies"]
    depends = sorted(str(item["bom-ref"]) for item in components)
    return {**sbom, "components": components, "dependencies": [{**root, "dependsOn": depends}]}


def _debian(package: str, sources: Mapping[str, str]) -> dict[str, Any]:
    name, _, version = package.partition("=")
    source, _, of = sources.get(name, package).partition("=")
    purl = PackageURL(
        "deb", "debian", name, version, {"upstream": f"{source}@{of}"} if (source, of) != (name, version) else {}
    )
    return {"name": name, "uri": purl.to_string()}


def summary(verdict: StandardVerdict, subject: StandardImage, name: str, about: Digest) -> Statement:
    """Return the verdict as a verification summary (https://slsa.dev/spec/v1.2/verification_summary)."""
    passed = verdict.result is Result.PASSED
    used = (verdict.provenance, verdict.scan, verdict.sbom)
    return Statement(
        subjects=(Subject(name=name, digest=about),),
        predicate_type=SUMMARY,
        predicate={
            "verifier": {"id": JUDGE_ID},
            "resourceUri": f"{IMAGE_HOST}/{subject.repository}@{subject.digest}",
            "policy": {"uri": "sekisho:policies/limits", "digest": {"sha256": hex_of(verdict.rules)}},
            "inputAttestations": [{"digest": {"sha256": hex_of(digest)}} for digest in used],
            "verificationResult": str(verdict.result),
            "verifiedLevels": [] if passed else ["FAILED"],
        },
    )
