"""The pause image that holds a pod's namespaces, brought into each cluster's containerd without a registry."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

from sekisho.embedded import netns
from sekisho.embedded.binaries import binary
from sekisho.embedded.cluster_config import PAUSE_IMAGE
from sekisho.embedded.cluster_home import ClusterHome
from sekisho.errors import PermanentError
from sekisho.zones import home

_INDEX = "application/vnd.oci.image.index.v1+json"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


def import_pause(cluster: ClusterHome) -> None:
    """Import the pause image into a zone's containerd, once for each version of it.

    Raises:
        PermanentError: there is no image to import, or containerd refuses it.
    """
    archive = pause_archive()
    # In containerd's own folder: whoever removes that folder removes the image and the mark together.
    mark = cluster.root / "containerd" / "pause-image"
    wanted = hashlib.sha256(archive).hexdigest()
    if mark.exists() and mark.read_text(encoding="ascii") == wanted:
        return
    path = cluster.root / "pause.tar"
    path.write_bytes(archive)
    netns.run(
        [
            binary("ctr"),
            "--address",
            cluster.containerd_socket,
            "--namespace",
            "k8s.io",
            "images",
            "import",
            "--no-unpack",
            path,
        ],
        where=f"{cluster.zone}: containerd",
    )
    path.unlink()
    mark.write_text(wanted, encoding="ascii")


def pause_archive() -> bytes:
    """Return the pause image as an OCI archive: the platform team's layout, else one made of Debian's catatonit."""
    layout = home() / "images" / "pause"
    return layout_archive(layout) if (layout / "index.json").exists() else _catatonit_archive()


def members() -> dict[str, bytes]:
    """Return the files of the pause image's archive by name."""
    found = {}
    with tarfile.open(fileobj=io.BytesIO(pause_archive())) as tar:
        for entry in tar:
            file = tar.extractfile(entry)
            found[entry.name] = file.read() if file else b""
    return found


def layout_archive(layout: Path) -> bytes:
    """Return an OCI layout (image-spec image-layout.md) with one image as an archive that names it as the pause image.

    Raises:
        PermanentError: not a layout with an image.
    """
    try:
        index = json.loads((layout / "index.json").read_bytes())
        descriptor = dict(index["manifests"][0])
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise PermanentError(
            "This is not an OCI layout with an image.",
            where=str(layout),
            remedy="Run scripts/setup; it makes the pause image.",
        ) from error
    blobs = {path.name: path.read_bytes() for path in sorted((layout / "blobs" / "sha256").iterdir())}
    return _archive(descriptor, blobs)


def _catatonit_archive() -> bytes:
    """Make the image from Debian's catatonit, which pauses when told `-P` and is one static file."""
    program = Path(binary("catatonit"))
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        entry = tarfile.TarInfo("pause")
        entry.size, entry.mode = program.stat().st_size, 0o755
        tar.addfile(entry, io.BytesIO(program.read_bytes()))
    packed = gzip.compress(layer.getvalue(), mtime=0)
    config = _json(
        {
            "architecture": _architecture(),
            "os": "linux",
            "config": {"Entrypoint": ["/pause", "-P"], "User": "65535:65535"},
            "rootfs": {"type": "layers", "diff_ids": [_digest(layer.getvalue())]},
        }
    )
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": _descriptor(_CONFIG, config),
            "layers": [_descriptor(_LAYER, packed)],
        }
    )
    blobs = {_digest(blob).removeprefix("sha256:"): blob for blob in (packed, config, manifest)}
    return _archive(_descriptor(_MANIFEST, manifest), blobs)


def _archive(descriptor: dict[str, Any], blobs: dict[str, bytes]) -> bytes:
    name = {"io.containerd.image.name": PAUSE_IMAGE, "org.opencontainers.image.ref.name": PAUSE_IMAGE}
    index = _json({"schemaVersion": 2, "mediaType": _INDEX, "manifests": [{**descriptor, "annotations": name}]})
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        files = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": index}
        files |= {f"blobs/sha256/{digest}": blob for digest, blob in blobs.items()}
        for path, data in files.items():
            entry = tarfile.TarInfo(path)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return archive.getvalue()


def _architecture() -> str:
    import platform  # noqa: PLC0415 -- only where the image is made

    return {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True).encode()


def _digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def _descriptor(media_type: str, data: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": _digest(data), "size": len(data)}
