"""The peer: `docker build` of an equal Dockerfile, with an engine and a registry of its own, beside the zones."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sekisho.embedded.binaries import binary
from sekisho.images import docker_archive

PORT = 5599
_BASES = {"node": ("node-build",), "go": ("go-build",), "python": (), "static": ()}
_SECONDS = 1800
_AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"


@dataclass(frozen=True)
class Peer:
    """A running engine and registry."""

    folder: Path

    def build(self, language: str, context: Path, *, cold: bool = False) -> float:
        """Build, and return the seconds; `cold` without what earlier builds left."""
        if cold:
            self._docker("builder", "prune", "--all", "--force")
        start = time.monotonic()
        dockerfile = Path(__file__).parent / "peers" / f"{language}.Dockerfile"
        cache = ("--no-cache",) if cold else ()
        self._docker(
            "build", "--network=host", *cache, "--file", str(dockerfile), "--tag", self._tag(language), str(context)
        )
        return time.monotonic() - start

    def push(self, language: str) -> float:
        """Push what was built, and return the seconds."""
        start = time.monotonic()
        self._docker("push", self._tag(language))
        return time.monotonic() - start

    def size(self, language: str) -> int:
        """Return the bytes of the pushed image's compressed layers."""
        accept = "application/vnd.docker.distribution.manifest.v2+json, application/vnd.oci.image.manifest.v1+json"
        request = urllib.request.Request(
            f"http://127.0.0.1:{PORT}/v2/bench/{language}/manifests/latest", headers={"Accept": accept}
        )
        with urllib.request.urlopen(request) as answer:  # noqa: S310
            manifest = json.load(answer)
        return sum(layer["size"] for layer in manifest["layers"])

    def prepare(self, languages: tuple[str, ...], debian: Path) -> None:
        """Give the engine the images that Dockerfiles start from: a plain Debian, and our tools where they need them.

        Args:
            languages: which to prepare for.
            debian: a root file system of Debian 12 as a tar archive (debootstrap's or mmdebstrap's minbase).
        """
        self._docker("import", str(debian), "debian:12")
        for name in {name for language in languages for name in _BASES[language]}:
            archive = self.folder / f"{name}.tar"
            docker_archive(name, archive, tag=f"sekisho/{name}:latest")
            self._docker("load", "--input", str(archive))
            archive.unlink()
        for name in ("debian:12", *(f"sekisho/{name}" for language in languages for name in _BASES[language])):
            self._trust(name)

    def _trust(self, image: str) -> None:
        """Let an image's tools believe what this machine believes: an index may stand behind a company's authority."""
        context = self.folder / "trust"
        context.mkdir(exist_ok=True)
        shutil.copyfile(_AUTHORITIES, context / "machine.crt")
        names = ("SSL_CERT_FILE", "PIP_CERT", "NODE_EXTRA_CA_CERTS")
        settings = " ".join(f"{name}=/etc/machine.crt" for name in names)
        (context / "Dockerfile").write_text(f"FROM {image}\nCOPY machine.crt /etc/machine.crt\nENV {settings}\n")
        self._docker("build", "--tag", image, str(context))

    def _tag(self, language: str) -> str:
        return f"127.0.0.1:{PORT}/bench/{language}:latest"

    def _docker(self, *arguments: str) -> None:
        command = ["docker", "--host", f"unix://{self.folder}/docker.sock", *arguments]
        # The classic builder: BuildKit's client is a plugin that not every machine has.
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.folder), "DOCKER_BUILDKIT": "0"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=_SECONDS)
        if done.returncode:
            raise SystemExit(f"docker {arguments[0]} failed: {(done.stdout + done.stderr)[-2000:]}")


@contextmanager
def running(folder: Path) -> Iterator[Peer]:
    """Start the engine and the registry in a folder; both are gone afterwards, with all they kept."""
    folder.mkdir(parents=True)
    config = folder / "registry.json"
    config.write_text(
        json.dumps({
            "version": 0.1,
            "storage": {"filesystem": {"rootdirectory": str(folder / "registry")}},
            "http": {"addr": f"127.0.0.1:{PORT}"},
            "log": {"level": "error"},
        })
    )  # fmt: skip
    engine = [
        str(binary("dockerd")), f"--data-root={folder / 'data'}", f"--exec-root={folder / 'exec'}",
        f"--pidfile={folder / 'docker.pid'}", f"--host=unix://{folder / 'docker.sock'}", "--bridge=none",
        "--iptables=false", "--ip6tables=false", "--ip-forward=false", "--ip-masq=false", "--userland-proxy=false",
        "--exec-opt=native.cgroupdriver=cgroupfs", "--log-level=error",
    ]  # fmt: skip
    processes = [
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=(folder / f"{name}.log").open("wb"))
        for name, command in (("docker", engine), ("registry", [str(binary("registry")), "serve", str(config)]))
    ]
    try:
        deadline = time.monotonic() + 60
        while not (folder / "docker.sock").exists():
            if time.monotonic() > deadline or processes[0].poll() is not None:
                raise SystemExit(f"The peer's engine did not start: {(folder / 'docker.log').read_text()[-1000:]}")
            time.sleep(0.1)
        yield Peer(folder)
    finally:
        for process in processes:
            process.send_signal(signal.SIGTERM)
        for process in processes:
            process.wait(timeout=60)
        subprocess.run(["umount", "--lazy", str(folder / "exec/netns/default")], check=False, capture_output=True)
        shutil.rmtree(folder, ignore_errors=True)
