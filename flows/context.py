"""The build zone, put together: its stages with their keys, its registry, its feed and its memory.

One object a process, made at first use: a run that is started from the dashboard finds the same as one that a push
started.
"""

from __future__ import annotations

import functools
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from flows.commits import CommitBook
from flows.events import EventLog
from sekisho.canonical import Digest
from sekisho.feed import CommitRecord, FeedStore, ProgressStore
from sekisho.keys import FileSigner, TrustRoot, load_trust
from sekisho.limits import Limits
from sekisho.registry import Registry
from sekisho.releases import export_bundle, verify_release
from sekisho.zones import Network, Port, Zone, ZoneHome, address
from stages.build import BuildStage
from stages.judge import JudgeStage, load_rules
from stages.scan import ScanStage
from stages.seal import SealStage

BUILDER_ID = "https://sekisho.dev/builders/embedded-unhosted/v1"
"""The embedded builder runs on a laptop: SLSA Build L1, by its own name, never to be mistaken for a build cluster's."""


@dataclass(frozen=True)
class Gatekeeper:
    """Everything the inner loop works with."""

    home: ZoneHome
    registry: Registry
    trust: TrustRoot
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
    queue: Path

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

    def bundle(self, release: Digest) -> bytes | None:
        """Return a release's documents for offline verification, or None if it is not offered."""
        offer = self.feed.offer(release)
        if offer is None:
            return None
        return export_bundle(verify_release(self.registry, offer, self.trust)).canonical()


@functools.cache
def gatekeeper() -> Gatekeeper:
    """Return the build zone's parts.

    Raises:
        PermanentError: a key, the trust root or the policies are missing or cannot be read: the zone does not start.
    """
    home = ZoneHome(Zone.BUILD)
    registry = Registry(f"http://127.0.0.1:{Port.REGISTRY_WRITE}")
    trust = load_trust(home.trust / "root.json")
    rules = load_rules(home.policies)
    verifier = FileSigner.load(home.keys / "verifier.pem", "verifier")
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
        build=BuildStage(
            registry,
            rules.standard,
            FileSigner.load(home.keys / "builder.pem", "builder"),
            cache=home.cache,
            docker_socket=home.root / "docker" / "docker.sock",
            proxy=f"http://{address(Network.CONSOLE)}:{Port.EGRESS_PROXY}",
            builder_id=BUILDER_ID,
        ),
        scan=ScanStage(registry, FileSigner.load(home.keys / "scanner.pem", "scanner"), cache=home.cache / "trivy"),
        judge=JudgeStage(registry, verifier, policies=rules.policies, limits=rules.limits, standard=rules.standard),
        seal=SealStage(registry, trust, verifier),
        policy=rules.policies.digest,
        limits=rules.limits,
        queue=home.git / "queue",
    )
