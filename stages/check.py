"""`python -m stages.check PATH`: the gate's judgement on a working copy, before any push.

The same source rules, detection, lock, rendering and policies as the gate; what only the gate can judge (the built
image) is said, not guessed. Nothing is built, sent or changed, and nothing of the working copy is run.

Exit codes: 0 nothing stands in the way so far, 1 the gate would refuse, 2 the command or the policies are at fault.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sekisho.canonical import digest_of, digest_of_file
from sekisho.errors import PermanentError, Refusal, SekishoError, UsageError
from sekisho.model import IMAGE_HOST, AdvisoryDatabase, Finding, Manifests, Reason, Result, Verdict
from sekisho.tools import trivy as find_trivy
from sekisho.verdict_forms import FORMS, written
from sekisho.verdict_rules import with_policies
from sekisho.verdict_text import SCREEN, clean
from stages.judge import Rules, load_rules, reasons_of
from stages.judge_rules import finding_reasons, reason, workload_reasons
from stages.uncommitted import WHERE as WORKING_COPY
from stages.uncommitted import check_uncommitted

_PLACEHOLDER = digest_of(b"sekisho check: the image is built by the gate")


@dataclass(frozen=True)
class Scanner:
    """A way to look into a working copy."""

    look: Callable[[Path, Manifests | None], tuple[Finding, ...]]
    """Returns what is wrong with a folder and its manifests; raises SekishoError when it cannot look."""
    missing: str = ""
    """What it does not look for, as a note for people; empty when nothing is missing."""
    blind: frozenset[str] = frozenset({"scan/coverage"})
    """Rules that it cannot answer here: finding nothing is no pass of these."""


def default_policies() -> Path:
    """Return the policies folder: SEKISHO_POLICIES, or the one beside this project's code."""
    return Path(os.environ.get("SEKISHO_POLICIES", Path(__file__).resolve().parent.parent / "policies"))


def check(
    tree: Path,
    rules: Rules,
    *,
    at: int,
    scanner: Callable[[], Scanner | None] | Scanner | None = None,
    source: Path | None = None,
) -> Verdict:
    """Judge a working copy as far as that is possible before a push.

    Args:
        tree: the folder with score.yaml.
        rules: the policies.
        at: the time, seconds since the epoch.
        scanner: looks into the tree; None when there is none on this machine. What gives it is asked last.
        source: the working copy itself, where the tree is a copy of it that holds none of git's words.
    """
    reasons: list[Reason] = []
    with _refusals("source", reasons):
        check_uncommitted(source or tree)
    app, manifests = _rendered(tree, reasons)
    with ThreadPoolExecutor(1) as pool:
        # The scanner is a process of its own, and takes longest.
        scan = pool.submit(_scanned, tree, manifests, scanner)
        _look(tree, rules, reasons)
        if manifests is not None:
            standard = rules.standard if rules.standard.locked else None
            reasons += workload_reasons(manifests, None, standard, rules.limits)
            reasons += rules.policies.check_objects(manifests.objects, namespace=f"app-{app}")
        findings, blind, said = scan.result()
    notes = ["The gate alone builds and scans the image; what it finds there is not known yet."]
    if not rules.standard.locked:
        notes.append("These policies hold no digests of standard images; the gate's do.")
    if findings is not None:
        today = dt.datetime.fromtimestamp(at, tz=dt.UTC).date()
        answers = finding_reasons(app, findings, rules.limits, today)
        reasons += [answer for answer in answers if answer.result != "pass" or answer.rule not in blind]
    notes += said
    failed = any(found.result == "fail" for found in reasons)
    return Verdict(
        app=app,
        commit=WORKING_COPY,
        result=Result.FAILED if failed else Result.PASSED,
        policy=rules.policies.digest,
        reasons=tuple(dict.fromkeys(reasons)),
        notes=tuple(notes),
    )


def _scanned(
    tree: Path, manifests: Manifests | None, scanner: Callable[[], Scanner | None] | Scanner | None
) -> tuple[tuple[Finding, ...] | None, frozenset[str], list[str]]:
    """Return what the scanner found (None where it did not look), what it is blind for, and what to tell people."""
    nothing = "Not looked for here: vulnerabilities of locked packages, and secrets. The gate does."
    here = scanner() if callable(scanner) else scanner
    if here is None:
        return None, frozenset(), [nothing]
    try:
        found = here.look(tree, manifests)
    except SekishoError as error:
        return None, frozenset(), [f"The scanner did not work: {error}", nothing]
    blind = here.blind if manifests is not None else here.blind | {"scan/misconfigurations"}
    return found, blind, [here.missing] if here.missing else []


@contextmanager
def _refusals(stage: str, reasons: list[Reason]) -> Iterator[None]:
    """Turn a stage's refusal into its reasons."""
    try:
        yield
    except Refusal as refusal:
        reasons.extend(reasons_of(refusal, stage))


def _rendered(tree: Path, reasons: list[Reason]) -> tuple[str, Manifests | None]:
    from sekisho.score import SCORE, load_score, read_score, reader  # noqa: PLC0415 - `--help` answers without it
    from stages.render import render  # noqa: PLC0415

    app = tree.resolve().name
    with _refusals("render", reasons):
        data = read_score(tree)
        # The repository's name is not known here; the file's own name stands for it.
        read = reader(tree)
        app = load_score(data, SCORE, read).name
        manifests = render(data, app=app, image=f"{IMAGE_HOST}/apps/{app}@{_PLACEHOLDER}", where=SCORE, read=read)
        reasons.append(reason("render/score", "pass", f"{SCORE} is valid.", stage="render"))
        return app, manifests
    return app, None


def _look(tree: Path, rules: Rules, reasons: list[Reason]) -> None:
    """Answer what the build will ask first: which language, which version, is everything locked, how does it start."""
    from stages.build.commands import check_command  # noqa: PLC0415
    from stages.build.language import Unlocked  # noqa: PLC0415
    from stages.build.planning import draft  # noqa: PLC0415
    from stages.build.project import Project  # noqa: PLC0415

    project = Project(tree)
    with _refusals("build", reasons):
        found = draft(project, rules.standard)
        plan = found.plan
        reasons.append(reason("build/language", "pass", found.detection.why, stage="build"))
        notes = (*found.detection.notes, *(() if isinstance(plan, Unlocked) else plan.notes))
        reasons.extend(reason("build/note", "warn", note, stage="build") for note in notes)
        if rules.standard.locked:
            rules.standard.for_language(plan.built_in or plan.language, plan.version)
        if isinstance(plan, Unlocked):
            if not rules.builds.resolves(plan.language):
                raise plan.refusal
            message = f"{plan.refusal.what} The gate resolves the packages once, and keeps the lock for that commit."
            reasons.append(reason("build/lock", "warn", message, plan.refusal.remedy, stage="build"))
            return
        reasons.append(reason("build/lock", "pass", f"{len(plan.locked)} packages are locked.", stage="build"))
        check_command(project, plan)
        reasons.append(reason("build/start", "pass", "It is said how the workload starts.", stage="build"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m stages.check", description=(__doc__ or "").split("\n", maxsplit=1)[0]
    )
    parser.add_argument("path", type=Path, nargs="?", default=Path(), help="the folder with score.yaml")
    parser.add_argument("--source", type=Path, default=None, help="the working copy that PATH is a copy of")
    parser.add_argument("--policies", type=Path, default=None, help="the policies folder (SEKISHO_POLICIES)")
    parser.add_argument("--format", choices=FORMS, default="text", help="how the verdict is printed")
    parser.add_argument("--json", action="store_const", const="json", dest="format", help="short for --format json")
    parser.add_argument("--all", action="store_true", help="every rule, also those that passed, however long")
    options = parser.parse_args(arguments)
    try:
        if not options.path.is_dir():
            raise UsageError("There is no such folder.", where=str(options.path))
        # Whether it is the pinned scanner takes reading all of it, which the other processor can do meanwhile.
        with ThreadPoolExecutor(1) as pool:
            scanner = pool.submit(local_scanner)
            rules = _rules(options.policies)
            verdict = check(options.path, rules, at=int(time.time()), scanner=scanner.result, source=options.source)
    except SekishoError as error:
        sys.stderr.write(f"sekisho check: {clean(str(error))}\n")
        return UsageError.exit_code
    limit = None if options.all else SCREEN
    sys.stdout.buffer.write(written(verdict, options.format, with_policies(rules.policies), limit=limit))
    sys.stdout.buffer.flush()
    return 0 if verdict.result is Result.PASSED else 1


def _rules(policies: Path | None) -> Rules:
    folder = policies or default_policies()
    if not folder.is_dir():
        raise PermanentError("There is no policies folder.", where=str(folder), remedy="Give it with --policies.")
    return load_rules(folder)


def local_scanner() -> Scanner | None:
    """Return this machine's scanner, or None where it is not installed.

    Advisories are those that Trivy itself keeps (TRIVY_CACHE_DIR, ~/.cache/trivy); nothing is fetched.
    """
    from stages.scan import Database, scan_tree, sweep  # noqa: PLC0415

    try:
        find_trivy()
    except SekishoError:
        return None
    cache = Path.home() / ".cache" / "sekisho" / "check"
    sweep(cache)
    folder = Path(os.environ.get("TRIVY_CACHE_DIR", Path.home() / ".cache" / "trivy"))
    updated = _advisories(folder)
    if not updated:
        missing = "Not looked for here: vulnerabilities of locked packages (no advisories on this machine)."
        blind = frozenset({"scan/coverage", "scan/vulnerabilities"})
        return Scanner(lambda tree, manifests: scan_tree(tree, cache=cache, manifests=manifests), missing, blind)
    metadata = digest_of_file(folder / "db" / "metadata.json")
    database = Database(folder, AdvisoryDatabase(digest=metadata, updated_at=updated, kind="mirror"))
    return Scanner(
        lambda tree, manifests: scan_tree(tree, cache=cache, database=database, manifests=manifests),
        f"Looked into this machine's advisories of {updated}; the gate's may be newer.",
    )


def _advisories(folder: Path) -> str:
    """Return the date of the advisories in a Trivy cache; empty where there are none."""
    try:
        updated = json.loads((folder / "db" / "metadata.json").read_bytes())["UpdatedAt"]
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    return str(updated) if (folder / "db" / "trivy.db").is_file() else ""


if __name__ == "__main__":
    raise SystemExit(main())
