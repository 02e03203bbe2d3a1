"""Fixtures of the unit tests: a real registry on this machine's loopback address."""

from __future__ import annotations

import gc
import gzip
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from build_cases import Make
from hypothesis import HealthCheck, settings

from sekisho import zones
from sekisho.canonical import Digest, canonical, digest_of, digest_of_json
from sekisho.evidence import attach_statement
from sekisho.keys import FileSigner, Role, TrustRoot, trusted_key
from sekisho.model import (
    AdvisoryDatabase,
    Archive,
    Coverage,
    Image,
    JudgeInput,
    Judgement,
    Layer,
    Manifests,
    Offer,
    Receipt,
    Result,
    Revision,
    Scan,
    Tool,
    Verdict,
)
from sekisho.oci import OCI_CONFIG, OCI_MANIFEST, Descriptor, make_manifest
from sekisho.receipts import receipt_statement
from sekisho.registry import Registry
from sekisho.releases.judgement import put_judgement, verdict_repository
from sekisho.stage import run_stage
from sekisho.statements import PROVENANCE, SBOM, SCAN, Statement, Subject
from stages.build.project import Project
from stages.seal import SealInput, SealStage

# How long an example takes says how busy the machine is: other processes test beside this one.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")

CONFIG = """\
version: 0.1
log:
  level: error
  accesslog:
    disabled: true
storage:
  filesystem:
    rootdirectory: {storage}
  delete:
    enabled: true
http:
  addr: 127.0.0.1:{port}
"""


def registry_binary() -> str | None:
    """Return Distribution's binary: the embedded one, else one on PATH under its own or Debian's name."""
    embedded = zones.home() / "bin" / "registry"
    if os.access(embedded, os.X_OK):
        return str(embedded)
    return shutil.which("docker-registry") or shutil.which("registry")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def start_registry(directory: Path, port: int) -> subprocess.Popen[bytes]:
    """Start a registry with its storage in `directory` and wait until it answers."""
    binary = registry_binary()
    if binary is None:
        pytest.skip("no registry binary: run scripts/setup, or install Debian's docker-registry")
    config = directory / "config.yml"
    config.write_text(CONFIG.format(storage=directory / "data", port=port), encoding="utf-8")
    # Collecting garbage is a fifth of its CPU time; it lives for some minutes.
    environment = {"PATH": os.environ["PATH"], "HOME": str(directory), "OTEL_TRACES_EXPORTER": "none", "GOGC": "800"}
    process = subprocess.Popen(
        [binary, "serve", str(config)],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=(directory / "registry.log").open("wb"),
    )
    for _ in range(200):
        if process.poll() is not None:
            pytest.fail((directory / "registry.log").read_text(encoding="utf-8")[-2000:])
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return process
        time.sleep(0.05)
    process.kill()
    pytest.fail("the registry did not come up in 10 s")


@contextmanager
def running_registry() -> Iterator[str]:
    """Run a registry with empty storage, in memory where the machine has a tmpfs: unit tests need no durability."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        port = free_port()
        process = start_registry(Path(folder), port)
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(timeout=10)


def pytest_collection_finish() -> None:
    """What is imported by now stays: no collection of garbage need go through it again, a quarter of a second each."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def registry_in() -> Callable[[Path], tuple[str, subprocess.Popen[bytes]]]:
    """Start a registry of one's own with its storage in a folder; whoever starts it ends it."""

    def start(folder: Path) -> tuple[str, subprocess.Popen[bytes]]:
        port = free_port()
        return f"http://127.0.0.1:{port}", start_registry(folder, port)

    return start


@pytest.fixture(scope="session")
def registry_url() -> Iterator[str]:
    """URL of a real registry, shared by the session: use repository names of your own."""
    with running_registry() as url:
        yield url


@pytest.fixture(scope="session")
def second_registry_url() -> Iterator[str]:
    """URL of another real registry: the zone that pulls."""
    with running_registry() as url:
        yield url


@pytest.fixture
def fresh_registry_url() -> Iterator[str]:
    """URL of a real registry of one test's own, empty: for what others must not find there."""
    with running_registry() as url:
        yield url


# -- a small line: keys, an image with evidence, what is sealed ------------------------------------------------

COMMIT = "c0ffee" + "0" * 34
NOW = 1_790_000_000


BILL = {"bomFormat": "CycloneDX"}
POLICIES = b"an archive"
"""Stands for the archive of a policies folder; the tests of the judge have a real one."""


def scan_of(image: Image) -> Scan:
    """Return a scan without findings."""
    return Scan(
        image=image.digest,
        scanner=Tool(name="trivy", version="0.76.0", digest=digest_of(b"trivy")),
        database=AdvisoryDatabase(digest=digest_of(b"database"), updated_at="2026-11-01T00:00:00Z", kind="sample"),
        findings=(),
        coverage=Coverage(os_family="debian", os_version="12", os_packages=1, language_packages=0, locked=0),
        sbom=digest_of_json(BILL),
    )


@dataclass(frozen=True)
class Line:
    """The build zone of the unit tests: its registry, its keys, and images with all evidence."""

    registry: Registry
    signers: dict[str, FileSigner]
    trust: TrustRoot

    def image(self, app: str, commit: str = COMMIT) -> Image:
        """Push an image of two layers."""
        layers = []
        for kind in ("base", "application"):
            content = f"{kind} of {app if kind == 'application' else 'python'}".encode() * 100
            data = gzip.compress(content, mtime=0)
            digest = self.registry.put_blob(f"apps/{app}", data)
            layers.append(Layer(digest=digest, diff_id=digest_of(content), size=len(data), kind=kind))
        config = canonical({"rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]}, "c": commit})
        self.registry.put_blob(f"apps/{app}", config)
        manifest = make_manifest(
            Descriptor.of(config, OCI_CONFIG),
            tuple(Descriptor("application/vnd.oci.image.layer.v1.tar+gzip", x.digest, x.size) for x in layers),
        )
        return Image(
            repository=f"apps/{app}",
            digest=self.registry.put_manifest(f"apps/{app}", manifest, OCI_MANIFEST),
            language="python",
            base="python",
            base_digest=digest_of(b"base"),
            layers=tuple(layers),
        )

    def attest(
        self, image: Image, predicate_type: str, commit: str = COMMIT, *, change: dict[str, Any] | None = None
    ) -> Digest:
        """Attach a statement of the right role to an image; `change` sets fields of its predicate."""
        predicate = {
            PROVENANCE: {"buildDefinition": {"resolvedDependencies": [{"digest": {"gitCommit": commit}}]}},
            SCAN: scan_of(image).model_dump(mode="json"),
            SBOM: BILL,
        }[predicate_type] | (change or {})
        statement = Statement(
            subjects=(Subject(name=image.repository, digest=image.digest),),
            predicate_type=predicate_type,
            predicate=predicate,
        )
        signer = self.signers["builder" if predicate_type == PROVENANCE else "scanner"]
        return attach_statement(self.registry, image.repository, statement, signer)

    def revision(self, app: str, commit: str = COMMIT) -> Revision:
        author = "Ann <ann@example.org>"
        return Revision(app=app, commit=commit, tree="b" * 40, branch="main", author=author, committed_at=NOW)

    def seal_input(self, app: str, commit: str = COMMIT, *, without: str = "", image: Image | None = None) -> SealInput:
        """Return what the seal stage takes, with the image's evidence in the registry."""
        image = image or self.image(app, commit)
        for predicate_type in (PROVENANCE, SCAN, SBOM):
            if predicate_type != without:
                self.attest(image, predicate_type, commit)
        manifests = Manifests(
            app=app,
            objects=(
                {"kind": "ConfigMap", "metadata": {"name": app}, "data": {"image": "anything"}},
                {
                    "kind": "Deployment",
                    "metadata": {"name": app},
                    "spec": {"template": {"spec": {"containers": [{"name": app, "image": image.reference}]}}},
                },
            ),
        )
        return SealInput(self.revision(app, commit), self.judgement(image, manifests, commit))

    def judgement(self, image: Image, manifests: Manifests, commit: str = COMMIT) -> Judgement:
        """Return a PASSED judgement, with its policies in the registry."""
        app = manifests.app
        judgement = Judgement(
            subject=JudgeInput(app=app, commit=commit, image=image, manifests=manifests, scan=scan_of(image)),
            at=NOW,
            policies=Archive(digest=digest_of(POLICIES), size=len(POLICIES)),
            verdict=Verdict(app=app, commit=commit, result=Result.PASSED, policy=digest_of(b"policy"), reasons=()),
        )
        put_judgement(self.registry, verdict_repository(app), judgement, POLICIES)
        return judgement

    def seal_stage(self) -> SealStage:
        return SealStage(self.registry, self.trust, self.signers["verifier"], clock=lambda: NOW)

    def offer(self, app: str, commit: str = COMMIT) -> Offer:
        """Seal a release and offer it."""
        sealed = run_stage(self.seal_stage(), self.seal_input(app, commit)).value
        return Offer(sequence=1, app=app, release=sealed.digest, summary=sealed.summary, commit=commit)

    def receipt(self, offer: Offer, *, event: str = "healthy", zone: str = "staging", signer: str = "") -> Offer:
        """Let a zone say something about a release; return the offer that names its receipt."""
        receipt = Receipt(zone=zone, app=offer.app, release=offer.release, event=event, at=NOW)
        key = self.signers[signer or zone]
        digest = attach_statement(self.registry, f"releases/{offer.app}", receipt_statement(receipt), key)
        return offer.model_copy(update={"receipt": digest})


@pytest.fixture(scope="session")
def signers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, FileSigner]:
    """A key for each role, and for the zones staging and production."""
    folder = tmp_path_factory.mktemp("keys")
    roles: dict[str, Role] = {"builder": "builder", "scanner": "scanner", "verifier": "verifier"}
    roles |= {"staging": "zone", "production": "zone", "stranger": "verifier"}
    return {name: FileSigner.create(folder / f"{name}.pem", role) for name, role in roles.items()}


@pytest.fixture(scope="session")
def trust(signers: dict[str, FileSigner]) -> TrustRoot:
    """A trust root with every signer but the stranger."""
    return TrustRoot(
        keys=tuple(
            trusted_key(signer, zone=name if signer.role == "zone" else "")
            for name, signer in signers.items()
            if name != "stranger"
        )
    )


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Write a workload's files into a folder, and return it as a project."""

    def write(files: Mapping[str, str]) -> Project:
        root = tmp_path / "shop"
        for name, text in files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return Project(root)

    return write


@pytest.fixture
def line(registry_url: str, signers: dict[str, FileSigner], trust: TrustRoot) -> Line:
    """The build zone: use app names of your own."""
    return Line(Registry(registry_url), signers, trust)
