"""The build zone, put together: its stages with their keys, its registry, its feed and its memory.

One object a process, made at first use: a run that is started from the dashboard finds the same as one that a push
started.
"""

from __future__ import annotations

import functools
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from flows.commits import CommitBook
from flows.events import EventLog
from sekisho.canonical import Digest
from sekisho.errors import Refusal
from sekisho.feed import CommitRecord, FeedStore, ProgressStore
from sekisho.keys import FileSigner, Trust, TrustFile
from sekisho.limits import Limits
from sekisho.model import StandardImage
from sekisho.registry import Registry
from sekisho.releases import export_bundle, verify_release
from sekisho.releases.judgement import export_verdict
from sekisho.releases.locks import export_lock
from sekisho.standard import StandardImages
from sekisho.verdict_rules import RULES, RuleText, with_policies
from sekisho.witness import WITNESS_FILE, WitnessBook
from sekisho.zones import Network, Port, Zone, ZoneHome, address
from stages.build import Builder, BuildStage
from stages.build.artifacts import Fetcher
from stages.build.indexes import Indexes
from stages.build.resolver import Resolver
from stages.judge import JudgeStage, Rules, load_rules
from stages.scan import ScanStage
from stages.seal import SealStage
from stages.standards import Signers, StandardsStage

"""The embedded builder runs on a laptop: SLSA Build L1, by its own name, never to be mistaken for a build cluster's."""


@dataclass(frozen=True)
class Gatekeeper:
    """Everything the inner loop works with."""

    home: ZoneHome
    registry: Registry
    trust: Trust
    events: EventLog
    commits: CommitBook
    feed: FeedStore
    progress: ProgressStore
    build: BuildStage
    scan: ScanStage
    judge: JudgeStage
    seal: SealStage
    policy: str
    """Digest of the policies in force."""
    limits: Limits
    standard: StandardImages
    standards: StandardsStage
    queue: Path
    witness: WitnessBook
    rules: Mapping[str, RuleText] = field(default_factory=lambda: RULES)
    """What the rules of a verdict say of themselves."""

    @contextmanager
    def checkout_folder(self, commit: str) -> Iterator[Path]:
        """Give a folder for a commit's files that is gone afterwards."""
        work = self.home.cache / "checkouts"
        work.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f"{commit[:12]}-", dir=work))
        try:
            yield folder / "tree"
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def stale(self, record: CommitRecord) -> bool:
        """Return whether a commit's verdict was given under policies that are no longer in force."""
        return record.verdict is None or record.verdict.policy != self.policy

    def in_force(self, name: str) -> Digest | None:
        """Return the digest of the standard image of this name that may be built on, None where there is none."""
        try:
            image = self.standard.get(name)
        except Refusal:
            return None
        return Digest(image.digest) if self.standards.passed(image) else None

    def bundle(self, release: Digest) -> bytes | None:
        """Return a release's documents for offline verification, or None if it is not offered."""
        offer = self.feed.offer(release)
        if offer is None:
            return None
        witnessed = self.witness.times()
        return export_bundle(
            verify_release(self.registry, offer, self.trust.current(), witnessed=witnessed)
        ).canonical()

    def witness_offered(self) -> None:
        """Note what was sealed here before the zone kept a book of what it saw."""
        self.witness.catch_up(
            self.feed.offers(),
            lambda offer: verify_release(self.registry, offer, self.trust.current()).statements,
            int(time.time()),
        )

    def judgement(self, app: str, commit: str) -> bytes | None:
        """Return the newest judgement of a commit as a file, or None."""
        verdict = export_verdict(self.registry, app, commit, self.trust.current())
        return verdict.canonical() if verdict else None

    def lock(self, app: str, commit: str) -> bytes | None:
        """Return the lock that was resolved for a commit as a file, or None."""
        found = export_lock(self.registry, app, commit, self.trust.current())
        return found.canonical() if found else None


def builder(home: ZoneHome, registry: Registry, rules: Rules, cleared: Callable[[StandardImage], None]) -> Builder:
    """Return the zone's builder: its engine, its caches, and the only way out to the package indexes."""
    indexes = Indexes.from_environment(proxy=f"http://{address(Network.CONSOLE)}:{Port.EGRESS_PROXY}")
    return Builder(
        registry,
        rules.standard,
        rules.builds,
        cache=home.cache,
        docker_socket=home.root / "docker" / "docker.sock",
        cleared=cleared,
        fetcher=Fetcher(home.cache, indexes),
        resolver=lambda ecosystems: Resolver(indexes, home.cache / "work", cache=home.cache, ecosystems=ecosystems),
    )


@functools.cache
def gatekeeper() -> Gatekeeper:
    """Return the build zone's parts.

    Raises:
        PermanentError: a key, the trust root or the policies are missing or cannot be read: the zone does not start.
    """
    home = ZoneHome(Zone.BUILD)
    registry = Registry(f"http://127.0.0.1:{Port.REGISTRY_WRITE}")
    trust = TrustFile(home.trust / "root.json")
    witness = WitnessBook(home.state / WITNESS_FILE)
    rules = load_rules(home.policies)
    who = rules.builds.builder
    verifier = FileSigner.load(home.keys / "verifier.pem", "verifier")
    signer = FileSigner.load(home.keys / "builder.pem", "builder")
    scanner = FileSigner.load(home.keys / "scanner.pem", "scanner")
    standards = StandardsStage(
        registry, rules.standard, rules.limits, Signers(signer, scanner, verifier), home.cache / "trivy"
    )
    events = EventLog(home.state / "events")
    shutil.rmtree(home.cache / "checkouts", ignore_errors=True)
    return Gatekeeper(
        home=home,
        registry=registry,
        trust=trust,
        events=events,
        commits=CommitBook(home.state / "commits", events),
        feed=FeedStore(home.state / "feed.jsonl"),
        progress=ProgressStore(home.state / "progress.jsonl"),
        build=BuildStage(builder(home, registry, rules, standards.cleared), signer, builder_id=who.id),
        scan=ScanStage(registry, scanner, cache=home.cache / "trivy"),
        judge=JudgeStage(registry, verifier, rules),
        seal=SealStage(registry, trust, verifier, witness=witness, levels=(f"SLSA_BUILD_LEVEL_{who.level}",)),
        policy=rules.policies.digest,
        limits=rules.limits,
        standard=rules.standard,
        standards=standards,
        queue=home.git / "queue",
        witness=witness,
        rules=with_policies(rules.policies),
    )
