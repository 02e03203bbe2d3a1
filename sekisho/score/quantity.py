"""Kubernetes quantities, in the form in which the API server gives them back.

Rendering the canonical form keeps a later comparison with the live object free of differences that are none
(k8s.io/apimachinery/pkg/api/resource, CanonicalizeBytes).
"""

from __future__ import annotations

import re
from decimal import ROUND_CEILING, Decimal

_BINARY = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50, "Ei": 2**60}
_DECIMAL = {"k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15, "E": 10**18}
_MEMORY = re.compile(r"([0-9]+(?:\.[0-9]+)?)([A-Za-z]*)")


def milli_cpus(text: str) -> int:
    """Return a Score cpu quantity (`2`, `0.5`, `125m`) in thousandths of a CPU, rounded up."""
    if text.endswith("m"):
        return int(text[:-1])
    return int((Decimal(text) * 1000).to_integral_value(ROUND_CEILING))


def cpu_text(milli: int) -> str:
    """Return thousandths of a CPU in canonical form."""
    return str(milli // 1000) if milli % 1000 == 0 else f"{milli}m"


def memory_bytes(text: str) -> int:
    """Return a memory quantity in bytes, rounded up.

    Raises:
        ValueError: not a number with one of the known suffixes.
    """
    match = _MEMORY.fullmatch(text)
    # Score writes K where Kubernetes writes k.
    suffix = "k" if match and match[2] == "K" else match[2] if match else "?"
    factor = 1 if not suffix else (_BINARY | _DECIMAL).get(suffix)
    if match is None or factor is None:
        raise ValueError(text)
    return int((Decimal(match[1]) * factor).to_integral_value(ROUND_CEILING))


def memory_text(count: int, *, binary: bool) -> str:
    """Return bytes in canonical form, with the biggest suffix of its family that leaves a whole number."""
    best = str(count)
    if count:
        for suffix, factor in (_BINARY if binary else _DECIMAL).items():
            if count % factor == 0:
                best = f"{count // factor}{suffix}"
    return best


def is_binary(text: str) -> bool:
    """Tell whether a memory quantity uses a binary suffix (Ki, Mi, ...)."""
    return text.endswith("i")
