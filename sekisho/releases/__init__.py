"""Releases: one OCI artifact each, with its evidence beside it, verified whole or not at all.

`artifact` says how a release is stored, `closure` which documents belong to it, `rules` (pure) when it counts,
`transfer` how it moves from one registry to another, `bundle` how it is verified from a file, offline.
"""

from sekisho.releases.artifact import load_release, put_release, summary_statement
from sekisho.releases.bundle import Check, ReleaseBundle, VerificationReport, export_bundle, verify_bundle
from sekisho.releases.closure import Closure, fetch_closure
from sekisho.releases.rules import Requirement, VerifiedRelease
from sekisho.releases.transfer import copy_release, is_complete, verify_release

__all__ = [
    "Check",
    "Closure",
    "ReleaseBundle",
    "Requirement",
    "VerificationReport",
    "VerifiedRelease",
    "copy_release",
    "export_bundle",
    "fetch_closure",
    "is_complete",
    "load_release",
    "put_release",
    "summary_statement",
    "verify_bundle",
    "verify_release",
]
