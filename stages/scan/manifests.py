"""The scan of rendered objects: misconfigurations, by the rules that are built into the pinned scanner.

The answer does not depend on which image digest the objects name, so it is kept by the objects without it. Comments of
the kind `trivy:ignore` have no effect: the objects are written out anew as JSON, which has none.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any, Final

from sekisho.canonical import canonical, digest_of_json
from sekisho.model import IMAGE_HOST, Finding, Manifests, Tool
from stages.scan import parse, trivy
from stages.scan.kept import kept_findings

_RECIPE: Final = "sekisho-scan-manifests/1"
_FLAGS: Final = ("--cache-backend", "memory", "--skip-check-update", "--misconfig-scanners", "kubernetes")


def scan_manifests(binary: Path, manifests: Manifests, cache: Path, tool: Tool) -> tuple[Finding, ...]:
    """Return what is wrong with rendered objects.

    Args:
        binary: the pinned scanner.
        manifests: the objects.
        cache: folder for answers that are kept.
        tool: the scanner's identity.

    Raises:
        TemporaryError: the scanner was killed.
        PermanentError: it failed, or did not look at every object.
    """
    if not manifests.objects:
        return ()
    key = digest_of_json([_RECIPE, tool.digest, _without_digests(manifests).decode()])
    return kept_findings(cache / "manifests", key, lambda: _found(binary, manifests, cache))


def _found(binary: Path, manifests: Manifests, cache: Path) -> tuple[Finding, ...]:
    with tempfile.TemporaryDirectory(prefix="manifests-", dir=cache) as scratch:
        objects, rules = Path(scratch, "objects"), Path(scratch, "rules")
        objects.mkdir()
        rules.mkdir()
        # The scanner knows a list of trusted registries: ours takes its place (rule KSV-0125).
        (rules / "trusted.json").write_bytes(canonical({"ksv0125": {"trusted_registries": [IMAGE_HOST]}}))
        names = _write_objects(manifests, objects)
        flags = (*_FLAGS, "--config-data", str(rules))
        report = trivy.scan(binary, "config", str(objects), flags, cache=cache)
    parse.check_report(report, "config")
    parse.check_targets(report, names)
    return parse.merged(parse.misconfigurations(report, names))


def _write_objects(manifests: Manifests, folder: Path) -> dict[str, str]:
    """Write each object to a file, in the namespace that it will have, and return the object of each file."""
    names: dict[str, str] = {}
    for number, item in enumerate(manifests.objects):
        metadata = {**item.get("metadata", {}), "namespace": f"app-{manifests.app}"}
        value: dict[str, Any] = {**item, "metadata": metadata}
        name = f"{number:03d}.json"
        (folder / name).write_text(json.dumps(value, indent=1), encoding="utf-8")
        names[name] = f"{item.get('kind', '')}/{metadata.get('name', '')}"
    return names


def _without_digests(manifests: Manifests) -> bytes:
    """Return the manifests with every image of the zone's own named by repository alone."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [plain(item) for item in value]
        if isinstance(value, str) and value.startswith(f"{IMAGE_HOST}/"):
            repository, _, digest = value.partition("@sha256:")
            return f"{repository}@sha256:" if digest else value
        return value

    return canonical(plain(manifests.model_dump(mode="json")))
