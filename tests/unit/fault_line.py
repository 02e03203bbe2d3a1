"""The inner loop with every part real but the engine and the build's container, over a registry that can break.

The zone's own assembly (`flows.context`), its own decisions (`flows.inner`, `flows.build_zone`), its stages, keys and
policies; the real scanner with a database of our own in a real registry. The image is put together without a build.
"""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import datetime as dt
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from fault_cases import Fault
from fault_proxy import Proxy

from flows import build_zone, context, glue, inner
from flows.build_zone import BuildZone, Push
from flows.context import Gatekeeper
from sekisho import registry_http
from sekisho.advisories import CONFIG_TYPE, REPOSITORY, TAG, SampleAdvisories, build_layer
from sekisho.advisories import LAYER_TYPE as DATABASE_LAYER
from sekisho.canonical import Digest, canonical, digest_of, digest_of_file, digest_of_json, hex_of
from sekisho.cosign_legacy import legacy_signatures
from sekisho.errors import TemporaryError
from sekisho.evidence import attach_statement
from sekisho.feed import CommitRecord
from sekisho.keys import FileSigner, Signer, TrustRoot, trusted_key
from sekisho.model import Image, Layer, Offer, Result, Tool, Verdict
from sekisho.oci import OCI_CONFIG, OCI_MANIFEST, Descriptor, make_manifest
from sekisho.receiver.hook import default_lines
from sekisho.records import get_record, put_record
from sekisho.registry import Registry
from sekisho.releases import verify_release
from sekisho.standard import LOCK_FILE, LockEntry, StandardLock
from sekisho.statements import PROVENANCE, SUMMARY, Statement, Subject
from sekisho.tools import trivy as find_trivy
from sekisho.zones import Zone, ZoneHome
from stages.build import BuildInput
from stages.build.compose import LAYER_TYPE
from stages.build.pack import Entry, write_layer
from stages.build.stage import BuildRecord
from stages.judge import Rules, load_rules
from stages.source import workload

APP = "shop"
ROOT = Path(__file__).parents[2]
BASE_DIGEST = digest_of(b"the standard image")
SCORE = """\
apiVersion: score.dev/v1b1
metadata:
  name: shop
containers:
  web:
    image: .
    resources:
      requests: {cpu: 50m, memory: 96Mi}
      limits: {cpu: 500m, memory: 192Mi}
    livenessProbe:
      httpGet: {path: /livez, port: 8080}
    readinessProbe:
      httpGet: {path: /healthz, port: 8080}
service:
  ports:
    http: {port: 8080, targetPort: 8080}
"""
PINNED = "pkg:pypi/holey@2.0"
FILES = {
    "score.yaml": SCORE,
    "requirements.txt": f"holey==2.0 --hash=sha256:{'0' * 64}\n",
    "app.py": "print('hello')\n",
}
STATUS = """Package: libold1
Status: install ok installed
Source: libold
Version: 3.0-1
Architecture: amd64
Maintainer: nobody <nobody@example.com>

"""
BASE = {"etc/os-release": 'ID=debian\nVERSION_ID="12"\n', "etc/debian_version": "12.1\n", "var/lib/dpkg/status": STATUS}
INSTALLED = {"opt/deps/holey-2.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: holey\nVersion: 2.0\n"}
ADVISORIES = """
format: sekisho.dev/sample-advisories/v1
updated_at: 2026-01-02T03:04:05Z
advisories:
  - {id: CVE-2000-0001, ecosystem: pip, package: holey, severity: CRITICAL, title: x, vulnerable: [<2], fixed: ["2"]}
  - {id: CVE-2000-0002, ecosystem: "debian 12", package: libold, severity: HIGH, title: "old", fixed: ["2.0-1"]}
"""
GIT = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1", "PATH": "/usr/bin:/bin", "HOME": "/nonexistent",
       "GIT_AUTHOR_NAME": "Ada", "GIT_AUTHOR_EMAIL": "ada@example.com", "GIT_COMMITTER_NAME": "Ada",
       "GIT_COMMITTER_EMAIL": "ada@example.com", "GIT_AUTHOR_DATE": "1760000000 +0000",
       "GIT_COMMITTER_DATE": "1760000000 +0000"}  # fmt: skip
_RULES: list[Rules] = []
_LATER = 1.0
"""Seconds; a longer sleep of the zone's loops is the wait before a commit is judged again."""


# -- a database ----------------------------------------------------------------------------------------------------


def database_layer(updated: dt.datetime | None = None) -> bytes:
    """Return an advisory database that was updated now, or when the test says."""
    value = {**yaml.safe_load(ADVISORIES), "updated_at": updated or dt.datetime.now(dt.UTC)}
    return build_layer(SampleAdvisories.model_validate(value))


def push_database(registry: Registry, layer: bytes, *, annotations: Mapping[str, str] | None = None) -> Digest:
    """Put a database where the zone's mirror of the public one stands; without an annotation its age is judged."""
    registry.put_blob(REPOSITORY, layer)
    registry.put_blob(REPOSITORY, b"{}")
    manifest = make_manifest(
        Descriptor.of(b"{}", CONFIG_TYPE), (Descriptor.of(layer, DATABASE_LAYER),), annotations=annotations or {}
    )
    return registry.put_manifest(REPOSITORY, manifest, OCI_MANIFEST, tag=TAG)


# -- the build, without a container --------------------------------------------------------------------------------


@dataclass
class Prebuilt:
    """The build stage's effects and notes, with layers of data instead of a build."""

    registry: Registry
    signer: Signer
    scratch: Path
    base: Mapping[str, str] = field(default_factory=lambda: BASE)
    installed: Mapping[str, str] = field(default_factory=lambda: INSTALLED)
    locked: tuple[str, ...] = (PINNED,)
    name: str = "build"

    def rest(self) -> None:
        """Nothing is ever left to be cleared away."""

    def key(self, subject: BuildInput) -> Digest:
        made_of = [dict(self.base), dict(self.installed), list(self.locked)]
        return digest_of_json([self.name, subject.revision.identity(), made_of, self.signer.key_id])

    def marker(self, subject: BuildInput) -> str:
        return next(path.name for path in workload(subject.tree, subject.revision).glob("requirements*.txt"))

    def find(self, subject: BuildInput) -> Image | None:
        repository = f"apps/{subject.revision.app}"
        record = get_record(self.registry, repository, self._tag(subject), BuildRecord)
        if record is None:
            return None
        needed = (record.image.digest, record.provenance)
        whole = all(self.registry.get_manifest(repository, digest) is not None for digest in needed)
        return record.image if whole else None

    def perform(self, subject: BuildInput) -> Image:
        repository = f"apps/{subject.revision.app}"
        folder = workload(subject.tree, subject.revision)
        code = {f"app/{path.name}": path.read_text() for path in sorted(folder.iterdir()) if path.is_file()}
        parts = (("base", self.base), ("dependencies", self.installed), ("application", code))
        layers = tuple(self._layer(repository, kind, files) for kind, files in parts)
        rootfs = {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]}
        config = canonical({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": rootfs})
        self.registry.put_blob(repository, config)
        manifest = make_manifest(
            Descriptor.of(config, OCI_CONFIG),
            tuple(Descriptor(LAYER_TYPE, layer.digest, layer.size) for layer in layers),
        )
        image = Image(
            repository=repository,
            digest=self.registry.put_manifest(repository, manifest, OCI_MANIFEST),
            language="python",
            base="python",
            base_digest=BASE_DIGEST,
            layers=layers,
            locked=self.locked,
        )
        said = provenance(image, subject.revision.commit)
        attached = attach_statement(self.registry, repository, said, self.signer)
        put_record(self.registry, repository, self._tag(subject), BuildRecord(image=image, provenance=attached))
        return image

    def _layer(self, repository: str, kind: Any, files: Mapping[str, str]) -> Layer:
        entries = [Entry(name, "file", size=len(text), data=text.encode()) for name, text in files.items()]
        packed = write_layer(entries, self.scratch / f"{kind}.tgz", time=0)
        self.registry.push_blob(repository, packed.path, packed.digest)
        return Layer(digest=packed.digest, diff_id=packed.diff_id, size=packed.size, kind=kind)

    def _tag(self, subject: BuildInput) -> str:
        return f"build-{hex_of(self.key(subject))[:40]}"


def provenance(image: Image, commit: str) -> Statement:
    """Return the builder's statement that an image was made of a commit."""
    return Statement(
        subjects=(Subject(name=image.repository, digest=image.digest),),
        predicate_type=PROVENANCE,
        predicate={"buildDefinition": {"resolvedDependencies": [{"digest": {"gitCommit": commit}}]}},
    )


# -- the zone ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """What the tests share: the registry's storage, the proxy before it, and snapshots of both registry and home."""

    proxy: Proxy
    storage: Path
    snapshots: Path
    commit: str = ""

    @property
    def reports(self) -> Path:
        """What the scanner said of this commit: one report for each of its modes."""
        return self.snapshots / "reports"

    def restore(self, name: str, home: Path) -> None:
        """Set the registry and a zone's home to a snapshot."""
        self.restore_registry(name)
        shutil.copytree(self.snapshots / name / "home", home, symlinks=True, dirs_exist_ok=True)

    def restore_registry(self, name: str) -> None:
        """Set the registry to a snapshot."""
        shutil.rmtree(self.storage, ignore_errors=True)
        shutil.copytree(self.snapshots / name / "registry", self.storage, copy_function=shutil.copyfile)

    def keep(self, name: str, home: Path) -> None:
        """Take a snapshot."""
        shutil.copytree(self.storage, self.snapshots / name / "registry")
        shutil.copytree(home, self.snapshots / name / "home", symlinks=True)


@dataclass(frozen=True)
class Outcome:
    """What a run left for people: the commit's state, its verdict, and every line that the pusher reads."""

    state: str
    verdict: Verdict | None
    text: str


class GateLine:
    """One build zone, started as its process starts it."""

    def __init__(self, place: Place, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.place, self.folder, self.patch = place, home, monkeypatch
        self.direct = Registry(place.proxy.upstream)
        """The registry itself, past the proxy."""
        self.timeout = 20.0
        self.reads_policies = False
        """Whether a test changes the policies folder."""
        self.tries = glue._RETRIES + 1
        """How often the engine's task tries a stage that has a temporary error."""
        self._loops: list[asyncio.AbstractEventLoop] = []
        self.new_loop()
        monkeypatch.setenv("SEKISHO_HOME", str(home))
        monkeypatch.setattr(registry_http, "_FIRST_DELAY", 0.0005)
        self.through = place.proxy.url
        """Where the line finds its registry."""
        monkeypatch.setattr(context, "Registry", lambda _: Registry(self.through, timeout=self.timeout))
        monkeypatch.setattr(context, "load_rules", self._rules)
        monkeypatch.setattr(inner, "step", self._step)
        monkeypatch.setattr(inner, "leave_artifact", self._no_page)
        monkeypatch.setattr(inner, "alive", _nothing)
        monkeypatch.setattr(inner, "gatekeeper", lambda: self.gate)
        monkeypatch.setattr(build_zone, "gatekeeper", lambda: self.gate)
        monkeypatch.setattr(build_zone, "inner_loop", inner.inner_loop.fn)
        monkeypatch.setattr(build_zone, "asyncio", SimpleNamespace(**{**vars(asyncio), "sleep": self._sleep}))
        self.home = ZoneHome(Zone.BUILD)
        self.gate: Gatekeeper
        self.zone: BuildZone

    def new_loop(self) -> None:
        """Begin with a loop of one's own, as a process that was forked must."""
        # An older one is kept: closing it would unregister its wake-up from the poll that a forked process shares.
        self._loops.append(asyncio.new_event_loop())
        self.loop = self._loops[-1]
        self._rest, self._go = asyncio.Event(), asyncio.Event()

    def close(self) -> None:
        """End what still waits."""
        self.loop.run_until_complete(self._end())
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()

    def _rules(self, folder: Path) -> Rules:
        """Read the policies; the project's own are read once for all tests."""
        if self.reads_policies:
            return load_rules(folder)
        if not _RULES:
            _RULES.append(load_rules(folder))
        return _RULES[0]

    # -- the engine's place ----------------------------------------------------------------------------------------

    async def _step(self, _name: str, _subject: str, call: Callable[[], Any]) -> Any:
        """Do what the engine's task does, by the line's own answer to what is tried again, without its pauses."""
        for left in reversed(range(self.tries)):
            try:
                return await asyncio.to_thread(call)
            except Exception as error:
                if not left or not await glue._is_temporary(None, None, _Raised(error)):  # type: ignore[arg-type]
                    raise
        raise AssertionError

    async def _no_page(self, *_: str) -> None:
        pass

    async def _sleep(self, seconds: float) -> None:
        if seconds < _LATER:
            await asyncio.sleep(seconds)
            return
        self._rest.set()
        await self._go.wait()

    # -- what happens ----------------------------------------------------------------------------------------------

    def start(self, **changes: Any) -> GateLine:
        """Start the zone's process: its own assembly reads keys, trust, policies."""
        gate = context.gatekeeper.__wrapped__()
        signer = FileSigner.load(self.home.keys / "builder.pem", "builder")
        self.gate = dataclasses.replace(gate, build=Prebuilt(gate.registry, signer, self.folder), **changes)
        self.zone = BuildZone()
        return self

    def push(self, branch: str = "main") -> Outcome:
        """Push the commit; run until it has a verdict, or rests after a fault."""
        self.loop.run_until_complete(self._take(Push(app=APP, commit=self.place.commit, branch=branch)))
        return self.goes_on()

    def goes_on(self) -> Outcome:
        """Let the zone go on by itself: what rests is taken up, what can be judged again is."""
        self._rest.clear()
        self._go.set()
        self.loop.run_until_complete(self._until_rest())
        return self.outcome()

    def restart(self) -> Outcome:
        """Start the zone's process anew and let it take up what it finds."""
        self.loop.run_until_complete(self._end())
        self.start()
        self.loop.run_until_complete(self._resume())
        return self.goes_on()

    def scanner(self, body: str = "", *, only: str = "") -> None:
        """Put a program in the scanner's place, pinned by its own digest as an administrator would.

        What it does not do itself, it repeats from the real scanner's reports about this commit: the scanner costs a
        second of CPU, and most faults are not the scanner's.

        Args:
            body: lines of a shell script; `$real` is the real scanner, `$out` the report's file.
            only: the mode that the body is for: `image`, `fs` or `config`; all where empty.
        """
        real, _ = find_trivy_past(self.patch)
        spoilt = f'[ "$1" = {only} ]' if only else ":"
        path = self.folder / "scanner"
        path.write_text(
            f"""#!/bin/sh
[ "$1" = --version ] && {{ echo "Version: 0.0.1"; exit 0; }}
real={real}
for word; do case "$last" in --output) out="$word";; esac; last="$word"; done
repeat() {{ cp {self.place.reports}/"$1.json" "$out"; }}
{spoilt} || {{ repeat "$1"; exit 0; }}
{body or 'repeat "$1"'}
"""
        )
        path.chmod(0o755)
        self.patch.setenv("SEKISHO_TRIVY", str(path))
        self.patch.setenv("SEKISHO_TRIVY_SHA256", digest_of_file(path).removeprefix("sha256:"))

    def real_scanner(self) -> None:
        """Take the real scanner, as the line does by itself."""
        for name in ("SEKISHO_TRIVY", "SEKISHO_TRIVY_SHA256"):
            self.patch.delenv(name, raising=False)

    def forget_manifests(self) -> None:
        """Let the scanner look at the manifests anew: what it said of them before is kept beside its cache."""
        cache = self.home.cache / "trivy"
        shared = cache.resolve()
        cache.unlink()
        cache.mkdir()
        for name in ("advisories", "layers"):
            if (shared / name).exists():
                (cache / name).symlink_to(shared / name)

    async def _take(self, push: Push) -> None:
        assert self.zone.take(push)

    def wipe_state(self) -> None:
        """Empty what the zone's process remembers: it is as new, with one commit in its repository."""
        shutil.rmtree(self.home.state)
        self.home.state.mkdir()

    def forget_verdict(self) -> None:
        """Let the zone forget what became of the commit, as if it had been killed before it wrote that down."""
        for path in (*(self.home.state / "commits").rglob("*.json"), *(self.home.state / "events").rglob("*.jsonl")):
            path.unlink()

    def takes_the_queue(self) -> Outcome:
        """Let the zone take what the receiver queued."""
        self.loop.run_until_complete(self.zone._turn())
        return self.goes_on()

    async def _resume(self) -> None:
        self.zone.resume()

    async def _end(self) -> None:
        waiting = asyncio.all_tasks() - {asyncio.current_task()}
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)

    async def _until_rest(self) -> None:
        await asyncio.sleep(0)
        self._go.clear()
        if not self.zone._running:
            await self.zone._advisories()
        rest = asyncio.ensure_future(self._rest.wait())
        running = list(self.zone._running.values())
        assert running, "nothing goes on by itself"
        async with asyncio.timeout(120):
            await asyncio.wait([rest, *running], return_when=asyncio.FIRST_COMPLETED)
        rest.cancel()

    def outcome(self) -> Outcome:
        record = self.record()
        lines = [line for event in record.events for line in event.get("text") or default_lines(dict(event))]
        return Outcome(record.state, record.verdict, re.sub(r"\s+", " ", " ".join(lines)))

    def record(self) -> CommitRecord:
        found = self.gate.commits.commit(APP, self.place.commit)
        assert found is not None
        return found

    # -- what must hold --------------------------------------------------------------------------------------------

    def traces(self) -> set[str]:
        """Return what says that this commit passed: in the registry, past the proxy, and in the feed."""
        found = set()
        repositories = self.place.storage / "docker/registry/v2/repositories"
        if any(repositories.glob(f"releases/{APP}/_manifests/revisions/sha256/*")):
            found.add("release")
        for tag in self.direct.tags(f"apps/{APP}"):
            if tag.endswith(".sig"):
                found.add("signature")
        for name in (f"apps/{APP}", f"releases/{APP}", f"verdicts/{APP}"):
            for path in repositories.glob(f"{name}/_manifests/revisions/sha256/*"):
                for descriptor in self.direct.referrers(name, Digest(f"sha256:{path.name}")):
                    if self._says_passed(name, descriptor.digest):
                        found.add(f"summary in {name.partition('/')[0]}")
        if FeedOf(self.home.state / "feed.jsonl").text:
            found.add("feed")
        return found

    def _says_passed(self, repository: str, digest: Digest) -> bool:
        manifest = self.direct.get_manifest(repository, digest)
        if manifest is None:
            return False
        payload = json.loads(self.direct.get_blob(repository, json.loads(manifest.data)["layers"][0]["digest"]))
        statement = json.loads(_base64(payload["dsseEnvelope"]["payload"]))
        return bool(
            statement["predicateType"] == SUMMARY and statement["predicate"].get("verificationResult") == "PASSED"
        )

    def check_fault(self, fault: Fault, outcome: Outcome, *, leaves: set[str] | None = None) -> None:
        """Check that a run ended as its fault says, with the reason in words, and nothing released.

        Args:
            fault: the fault.
            outcome: the run's.
            leaves: what may say PASSED: a fault after the judge's word leaves that word. Never the feed.
        """
        assert fault.says in outcome.text, outcome.text
        assert "Traceback" not in outcome.text
        assert self.traces() <= (leaves or set()) - {"feed"}
        if fault.ends == "FAILED":
            assert outcome.state == "failed", outcome.text
            assert outcome.verdict is not None
            assert outcome.verdict.result is Result.FAILED
            assert any(fault.says in reason.message for reason in outcome.verdict.failures)
            assert all(reason.remedy for reason in outcome.verdict.failures if fault.says in reason.message)
        else:
            assert fault.ends == "retried"
            assert outcome.state == "error", outcome.text
            assert outcome.verdict is None
            assert "which is neither a yes nor a no" in outcome.text
            assert "you need not push again" in outcome.text

    def check_released(self, outcome: Outcome) -> None:
        """Check that the commit passed and is released whole, once: an outer zone's rules take it."""
        assert (outcome.state, outcome.verdict and outcome.verdict.result) == ("passed", Result.PASSED), outcome.text
        (offer,) = self.gate.feed.offers()
        assert offer.commit == self.place.commit
        self.check_offer(offer)

    def check_offer(self, offer: Offer) -> None:
        """Check that an offer verifies past the proxy, and that older tools find one signature of each part."""
        trust, now = self.gate.trust.current(), int(time.time())
        image = verify_release(self.direct, offer, trust, at=now).release.image
        places = ((image.repository, image.digest), (f"releases/{APP}", offer.release))
        signed = [legacy_signatures(self.direct, name, Digest(of), trust=trust, at=now) for name, of in places]
        assert [len(found) for found in signed] == [1, 1]
        revisions = self.place.storage / f"docker/registry/v2/repositories/releases/{APP}/_manifests/revisions/sha256"
        releases = [
            path.name for path in revisions.iterdir() if self._is_release(Digest(f"sha256:{path.name}"))
        ]  # fmt: skip
        assert releases == [hex_of(offer.release)]

    def _is_release(self, digest: Digest) -> bool:
        manifest = self.direct.get_manifest(f"releases/{APP}", digest)
        return manifest is not None and b"vnd.sekisho.release" in manifest.data and b'"subject"' not in manifest.data


@dataclass(frozen=True)
class FeedOf:
    """The feed's file, read past the store."""

    path: Path

    @property
    def text(self) -> str:
        return self.path.read_text() if self.path.exists() else ""


@dataclass(frozen=True)
class _Raised:
    error: Exception

    async def aresult(self) -> None:
        error = copy.copy(self.error)
        if isinstance(error, TemporaryError):
            error.delay = 0.0
        raise error


@contextmanager
def _nothing() -> Iterator[None]:
    yield


def _base64(text: str) -> bytes:
    import base64

    return base64.b64decode(text)


# -- set up once ---------------------------------------------------------------------------------------------------


def make_home(home: Path, work: Path) -> str:
    """Write what the zone's process reads at its start; return the commit that is pushed to it."""
    zone = home / "zones" / "build"
    for name in ("keys", "trust", "state", "cache", "git/queue"):
        (zone / name).mkdir(parents=True)
    roles: tuple[Any, ...] = ("builder", "scanner", "verifier")
    signers = [FileSigner.create(zone / "keys" / f"{role}.pem", role) for role in roles]
    root = TrustRoot(keys=tuple(trusted_key(signer) for signer in signers))
    (zone / "trust" / "root.json").write_bytes(root.canonical())
    shutil.copytree(ROOT / "policies", zone / "policies")
    lock = StandardLock(images={"python": LockEntry(digest=BASE_DIGEST, built_at="2026-01-01T00:00:00Z")})
    (zone / "policies" / LOCK_FILE).write_text(lock.to_yaml())
    for name, text in FILES.items():
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).write_text(text)
    for words in (["init", "-q", "-b", "main"], ["add", "-A"], ["commit", "-q", "-m", "one"]):
        subprocess.run(["git", *words], cwd=work, env=GIT, check=True)
    bare = zone / "git" / f"{APP}.git"
    subprocess.run(["git", "clone", "-q", "--bare", "--no-hardlinks", str(work), str(bare)], env=GIT, check=True)
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=work, env=GIT, check=True, capture_output=True, text=True)
    return head.stdout.strip()


def find_trivy_past(patch: pytest.MonkeyPatch) -> tuple[Path, Tool]:
    """Return the real scanner, whatever a test put in its place."""
    with patch.context() as inside:
        for name in ("SEKISHO_TRIVY", "SEKISHO_TRIVY_SHA256"):
            inside.delenv(name, raising=False)
        return find_trivy()


def in_memory() -> Path | None:
    """Return a folder in memory, if the machine has one: these tests need no durability."""
    memory = Path("/dev/shm")
    return memory if os.access(memory, os.W_OK) else None
