"""The bill of materials: CycloneDX from the scanner's report, the same bytes for the same image and scanner. Pure.

The scanner's own CycloneDX output has a random serial number, a time and random references; this one has none of them.
Properties are named as the scanner names them, so that it reads the document back (`trivy sbom`) and finds the same.
Format: https://cyclonedx.org/docs/1.6/json/.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from packageurl import PackageURL

from sekisho.canonical import canonical
from sekisho.model import IMAGE_HOST, Image, Tool
from stages.scan.parse import Report, results

_PROPERTY = "aquasecurity:trivy:"


def components_of(report: Report) -> tuple[dict[str, Any], ...]:
    """Return what is in an image, each part once, in one order.

    Args:
        report: the scanner's report about the image, checked.
    """
    components: dict[str, dict[str, Any]] = {}
    os = report.get("Metadata", {}).get("OS") or {}
    if os.get("Family"):
        reference = f"os:{os['Family']}@{os.get('Name', '')}"
        components[reference] = {
            "type": "operating-system",
            "bom-ref": reference,
            "name": os["Family"],
            "version": str(os.get("Name", "")),
            "properties": _properties({"Class": "os-pkgs", "Type": os["Family"]}),
        }
    for result in results(report):
        for package in result.get("Packages") or ():
            component = _component(package, str(result.get("Type", "")))
            components.setdefault(component["bom-ref"], component)
    return tuple(components[key] for key in sorted(components))


def make_sbom(components: Sequence[Mapping[str, Any]], image: Image, scanner: Tool) -> dict[str, Any]:
    """Return the CycloneDX document of an image.

    Args:
        components: what is in it, of `components_of`.
        image: the image.
        scanner: what made the report.
    """
    repository = f"{IMAGE_HOST}/{image.repository}"
    name = image.repository.rpartition("/")[2]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "tools": {"components": [{"type": "application", "name": scanner.name, "version": scanner.version}]},
            "component": {
                "type": "container",
                "bom-ref": image.digest,
                "name": repository,
                "version": image.digest,
                "purl": PackageURL("oci", None, name, image.digest, {"repository_url": repository}).to_string(),
            },
        },
        "components": [dict(item) for item in components],
        "dependencies": [{"ref": image.digest, "dependsOn": [item["bom-ref"] for item in components]}],
    }


def sbom_bytes(sbom: Mapping[str, Any]) -> bytes:
    """Return the document's canonical bytes, whose digest the scan names."""
    return canonical(sbom)


def _component(package: Mapping[str, Any], kind: str) -> dict[str, Any]:
    purl = str((package.get("Identifier") or {}).get("PURL", ""))
    path = str(package.get("FilePath", ""))
    name, version = str(package.get("Name", "")), str(package.get("Version", ""))
    component: dict[str, Any] = {
        "type": "library",
        "bom-ref": "#".join(part for part in (purl or f"{kind}:{name}@{version}", path) if part),
        "name": name,
        "version": version,
    }
    if purl:
        component["purl"] = purl
    licenses = sorted({text for text in package.get("Licenses") or () if isinstance(text, str) and text})
    if licenses:
        component["licenses"] = [{"license": {"name": text}} for text in licenses]
    said = {
        "FilePath": path,
        "LayerDiffID": str((package.get("Layer") or {}).get("DiffID", "")),
        "PkgID": str(package.get("ID", "")),
        "PkgType": kind,
        "SrcEpoch": str(package.get("SrcEpoch") or ""),
        "SrcName": str(package.get("SrcName", "")),
        "SrcRelease": str(package.get("SrcRelease", "")),
        "SrcVersion": str(package.get("SrcVersion", "")),
    }
    component["properties"] = _properties(said)
    return component


def _properties(values: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"name": f"{_PROPERTY}{key}", "value": values[key]} for key in sorted(values) if values[key]]
