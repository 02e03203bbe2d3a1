"""What each rule of a verdict asks, why, and what mends it: for reports that explain themselves (SARIF).

The admission policies say it of themselves, in their annotations; these are the judge's own rules and the stages'.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sekisho.policy import PolicySet  # compiles CEL when it is loaded


@dataclass(frozen=True)
class RuleText:
    """A rule, for people."""

    title: str
    why: str
    remedy: str


_MEND_ABOVE = "Mend what the earlier stages say; then push again."
RULES: Mapping[str, RuleText] = {
    "source/refused": RuleText(
        "The commit can be read",
        "Only what git's own hashes prove to be the pushed commit is built.",
        "Follow what the message says; then push a new commit.",
    ),
    "build/refused": RuleText(
        "The image can be built without a Dockerfile",
        "What the line builds itself it can rebuild, scan and rebase; what it does not understand it does not guess.",
        "Follow what the message says; docs/languages.md says what each language's build understands.",
    ),
    "build/language": RuleText(
        "The language is known",
        "The language decides the standard image and how the lock file is read.",
        "Add the file that the language is found by, or name it with build.sekisho.dev/language.",
    ),
    "build/lock": RuleText(
        "Every package is locked",
        "The same commit gives the same image, and the scan knows what it has to find, only when packages are locked.",
        "Commit a lock file.",
    ),
    "build/start": RuleText(
        "It is said how the workload starts",
        "Nobody guesses the command that production runs.",
        "Say it as docs/languages.md shows, or with `command` in score.yaml.",
    ),
    "build/note": RuleText(
        "What people should know about the build",
        "The line chose something that a reader may not expect.",
        "Nothing, if it is what you want.",
    ),
    "render/refused": RuleText(
        "score.yaml can be rendered",
        "A file that is not understood in every part would run as something that nobody wrote.",
        "Mend the value that the JSON pointer names; docs/score.md explains each field.",
    ),
    "render/score": RuleText(
        "score.yaml is valid",
        "It is compared with the published schema of score.dev/v1b1 and with what its values mean.",
        "Mend the value that the JSON pointer names; docs/score.md explains each field.",
    ),
    "scan/refused": RuleText(
        "The scanner could work",
        "What was not scanned has not passed.",
        "Follow what the message says; then push again.",
    ),
    "evidence/image": RuleText(
        "There is an image of this commit", "A verdict without an image would be about nothing.", _MEND_ABOVE
    ),
    "evidence/manifests": RuleText(
        "There are manifests of this commit", "A verdict without manifests would let anything run.", _MEND_ABOVE
    ),
    "evidence/scan": RuleText("This very image was scanned", "What was not scanned has not passed.", _MEND_ABOVE),
    "standard/current": RuleText(
        "The image stands on a current standard image",
        "The platform team mends standard images by replacing them; an old one is no longer mended.",
        "Push again: the line takes the current one.",
    ),
    "standard/end-of-life": RuleText(
        "The standard image is still mended",
        "After its end of life nobody mends a system any more.",
        "The platform team moves the standard image to a release that is still mended.",
    ),
    "workload/kinds": RuleText(
        "A workload has only the kinds that it may have",
        "Everything else, and all that is not in a namespace, is the platform's.",
        "Leave the object out.",
    ),
    "workload/images": RuleText(
        "Only this build and standard images run",
        "Of other images nobody here knows who made them, from what, and who mends them.",
        "Use `image: .`, or a standard image by the digest in standard-images.lock.yaml.",
    ),
    "schema/valid": RuleText(
        "Every object is one that the zones' Kubernetes versions take",
        "A server drops a field that it does not know without a word, and refuses an API that was removed.",
        "The platform team mends the rendering; a removed API is replaced by the one that the message names.",
    ),
    "admission/known-kinds": RuleText(
        "Every object is of a kind that the policies know",
        "What no rule looks at has not passed.",
        "Leave it out; the platform team adds kinds together with rules for them.",
    ),
    "scan/system": RuleText(
        "The scanner knows the operating system",
        "On an unknown system a scanner finds nothing, and nothing found is not a pass.",
        "The platform team looks at the standard image.",
    ),
    "scan/packages": RuleText(
        "Every locked package was seen in the image",
        "A package that the scanner did not see was not compared with any advisory.",
        "Bring the lock file up to date.",
    ),
    "scan/database": RuleText(
        "The advisories are fresh",
        "A scan against old advisories passes what everybody else knows to be broken.",
        "The platform team brings a fresh advisory database into the mirror.",
    ),
    "scan/vulnerabilities": RuleText(
        "No known vulnerability at or above the limit",
        "A published vulnerability is the first thing that is tried.",
        "Update the package and lock again. What sits in the standard image the platform team updates.",
    ),
    "scan/secrets": RuleText(
        "No secret in the commit or in the image",
        "A secret in an image or in a commit is known to the world; the only remedy is a new one.",
        "Revoke it now; then remove it and read it from /bindings or a variable.",
    ),
    "scan/misconfigurations": RuleText(
        "No misconfiguration at or above the limit",
        "The scanner's own rules look at the rendered objects a second time.",
        "Change what the finding names.",
    ),
    "scan/coverage": RuleText(
        "Everything could be scanned",
        "What was not scanned has not passed.",
        "Make it readable for the scanner, or remove it.",
    ),
}
"""By rule. A rule that is not here is reported by its name alone."""


def with_policies(policies: PolicySet) -> dict[str, RuleText]:
    """Return the texts of all rules, with those that the admission policies say of themselves."""
    return {
        **RULES,
        **{policy.rule: RuleText(policy.title, policy.why, policy.remedy) for policy in policies.policies},
    }
