"""A world to scan in: an image in a real registry, its source tree and manifests, and a database of our own."""

from __future__ import annotations

import io
import json
import stat
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from sekisho.advisories import REPOSITORY, TAG, pack_layer, push_database, push_layer
from sekisho.boltdb import Bucket
from sekisho.canonical import Digest, digest_of, digest_of_file
from sekisho.errors import PermanentError, VerificationError
from sekisho.keys import FileSigner
from sekisho.model import Finding, Image, Layer, Manifests, Revision
from sekisho.oci import OCI_CONFIG, OCI_MANIFEST, Descriptor, make_manifest
from sekisho.own_advisories import OwnAdvisories, push_own
from sekisho.registry import Registry
from sekisho.tools import trivy as find_trivy
from stages.build.compose import LAYER_TYPE
from stages.build.pack import Entry, write_layer
from stages.scan import ScanInput, ScanStage

TOKEN = "ghp_" + "abcdefghijklmnopqrstuvwxyz0123456789"
ADVISORIES = """
format: sekisho.dev/sample-advisories/v1
updated_at: 2026-01-02T03:04:05Z
advisories:
  - {id: CVE-2000-0001, ecosystem: pip, package: holey, severity: CRITICAL, title: x, vulnerable: [<2], fixed: ["2"]}
  - {id: CVE-2000-0002, ecosystem: "debian 12", package: libold, severity: HIGH, title: "old", fixed: ["2.0-1"]}
"""
STATUS = """Package: libold1
Status: install ok installed
Source: libold
Version: 1.0-1
Architecture: amd64
Maintainer: nobody <nobody@example.com>

"""
BASE = {"etc/os-release": 'ID=debian\nVERSION_ID="12"\n', "etc/debian_version": "12.1\n", "var/lib/dpkg/status": STATUS}
METADATA = b'{"Version": 2, "UpdatedAt": "2026-01-02T03:04:05Z", "NextUpdate": "2026-01-03T03:04:05Z"}'


class World:
    """An image in the registry, its source tree and manifests, and a stage to scan them."""

    def __init__(self, url: str, folder: Path) -> None:
        self.registry, self.folder = Registry(url), folder
        self.signer = FileSigner.create(folder / "scanner.pem", "scanner")
        (folder / "advisories.yaml").write_text(ADVISORIES)
        push_database(self.registry, folder / "advisories.yaml")
        self.cache = folder / "cache"
        self.stage = ScanStage(self.registry, self.signer, cache=self.cache)
        self.tree = folder / "tree"
        self.tree.mkdir()

    def layer(self, files: Mapping[str, str | bytes], kind: str, repository: str) -> Layer:
        contents = {name: data.encode() if isinstance(data, str) else data for name, data in files.items()}
        entries = [Entry(name, "file", size=len(data), data=data) for name, data in contents.items()]
        packed = write_layer(entries, self.folder / "layer", time=0)
        self.registry.push_blob(repository, packed.path, packed.digest)
        return Layer(digest=packed.digest, diff_id=packed.diff_id, size=packed.size, kind=kind)

    def subject(
        self,
        app: str,
        base: dict[str, str],
        files: Mapping[str, str | bytes],
        locked: tuple[str, ...] = (),
        *,
        deployed: bool = False,
        brought: Mapping[str, str | bytes] | None = None,
        above: Mapping[str, str | bytes] | None = None,
        settings: Mapping[str, Any] | None = None,
        commit: str = "1",
        tree: str = "2",
    ) -> ScanInput:
        repository = f"apps/{app}"
        layers = (self.layer(base, "base", repository),
                  *((self.layer(brought, "dependencies", repository),) if brought else ()),
                  self.layer(files, "application", repository),
                  *((self.layer(above, "application", repository),) if above else ()))  # fmt: skip
        rootfs = {"type": "layers", "diff_ids": [item.diff_id for item in layers]}
        labels = {"org.opencontainers.image.revision": commit * 40}
        config = json.dumps({"architecture": "amd64", "os": "linux", "rootfs": rootfs,
                             "config": {**(settings or {}), "Labels": labels}}).encode()  # fmt: skip
        self.registry.put_blob(repository, config)
        manifest = make_manifest(Descriptor(OCI_CONFIG, digest_of(config), len(config)),
                                 tuple(Descriptor(LAYER_TYPE, item.digest, item.size) for item in layers))  # fmt: skip
        digest = self.registry.put_manifest(repository, manifest, OCI_MANIFEST)
        image = Image(repository=repository, digest=digest, language="python", base="python",
                      base_digest="sha256:" + "0" * 64, layers=layers, locked=locked)  # fmt: skip
        revision = Revision(app=app, commit=commit * 40, tree=tree * 40, branch="main", author="a", committed_at=1)
        container = {"name": "c", "image": image.reference, "securityContext": {"privileged": True}}
        deployment = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": app},
                      "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {
                          "metadata": {"labels": {"a": "b"}}, "spec": {"containers": [container]}}}}  # fmt: skip
        return ScanInput(revision, image, self.tree, Manifests(app=app, objects=(deployment,) if deployed else ()))

    def advise(self, advisories: str, name: str = "advisories.yaml") -> Digest:
        """Let the mirror offer another sample."""
        path = self.folder / name
        path.write_text(advisories)
        return push_database(self.registry, path)

    def mirror(self, buckets: Mapping[bytes, Bucket], metadata: bytes = METADATA) -> Digest:
        """Let the mirror offer a database that does not say that it is a sample."""
        return push_layer(self.registry, pack_layer(buckets, metadata), {}, repository=REPOSITORY, tag=TAG)

    def deny(self, *advisories: Mapping[str, Any]) -> Digest:
        """Publish advisories of the operator's own."""
        titled = [{"title": "denied by the operator", **advisory} for advisory in advisories]
        value = {"format": "sekisho.dev/advisories/v1", "owner": "security team", "advisories": titled}
        return push_own(self.registry, OwnAdvisories.model_validate(value))


def jar(group: str, name: str, version: str) -> bytes:
    plain = io.BytesIO()
    with zipfile.ZipFile(plain, "w") as archive:
        about = f"groupId={group}\nartifactId={name}\nversion={version}\n"
        archive.writestr(f"META-INF/maven/{group}/{name}/pom.properties", about)
        archive.writestr("META-INF/MANIFEST.MF", "Manifest-Version: 1.0\n")
    return plain.getvalue()


def installed(name: str, version: str) -> dict[str, str]:
    return {
        f"opt/deps/{name}-{version}.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    }


def ids(findings: tuple[Finding, ...], kind: str) -> set[tuple[str, str]]:
    return {(item.id, item.owner) for item in findings if item.kind == kind}


def find_scanner() -> Path:
    """Return the pinned scanner, or skip."""
    try:
        return find_trivy()[0]
    except (PermanentError, VerificationError) as error:
        pytest.skip(str(error))


def put_fake(folder: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    """Put a program of the test's in the scanner's place, pinned by its own digest as an administrator would."""
    path = folder / "fake-trivy"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("SEKISHO_TRIVY", str(path))
    monkeypatch.setenv("SEKISHO_TRIVY_SHA256", digest_of_file(path).removeprefix("sha256:"))


def count_runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """Let the pinned scanner note each scan; the returned function gives their kinds since it was called last."""
    scanner, log = find_scanner(), folder / "runs"
    log.touch()
    put_fake(folder, monkeypatch, f'[ "$1" = --version ] || echo "$1" >> {log}\nexec {scanner} "$@"')

    def taken() -> list[str]:
        found = log.read_text().split()
        log.write_text("")
        return sorted(found)

    return taken
