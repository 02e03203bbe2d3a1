"""What a failed step's last words mean, and what to do about it. Pure.

The words are a stranger's and prove nothing: they decide which advice is shown, never whether the step failed.
"""

from __future__ import annotations

import re

from sekisho.builds import SandboxLimits

_FULL = re.compile(r"no space left on device|\bENOSPC\b|disk quota exceeded", re.IGNORECASE)
_PROCESSES = re.compile(
    r"cannot fork|fork: retry|can't start new thread|unable to create (?:new )?native thread"
    r"|failed to create new OS thread|\bEAGAIN\b|resource temporarily unavailable",
    re.IGNORECASE,
)
_NETWORK = re.compile(
    r"could ?n[o']t resolve|temporary failure in name resolution|name or service not known|no such host"
    r"|\bEAI_AGAIN\b|\bENOTFOUND\b|\bENETUNREACH\b|network is unreachable|UnknownHostException|getaddrinfo",
    re.IGNORECASE,
)
_SOURCE_ONLY = re.compile(r"^([A-Za-z0-9._-]{1,100})==\S+ has only a source package here", re.MULTILINE)
"""As stages/build/languages/python_install.py says it."""
_NEWER_PYTHON = re.compile(r"does\s+not\s+satisfy\s+Python\s*>=\s*3\.([0-9]{1,2})\b", re.IGNORECASE)
"""As uv says it, over several lines."""
OTHERWISE = "Run the step where there is no network and correct it."
OFFLINE = "A build step has no network: commit what it fetches, or have it come as a locked package."


def remedy_of(words: str, limits: SandboxLimits, *, starved: bool = False) -> str:
    """Return what the developer can do about a step that failed.

    Args:
        words: the end of its log.
        limits: what it might use.
        starved: whether the kernel ended it for its memory.
    """
    if starved:
        return "Let it use less (fewer workers at once, smaller inputs), or ask the platform team for more."
    if _FULL.search(words):
        return (
            f"Let it write less: its folder holds {limits.output >> 20} MiB and {limits.files} files, "
            f"/tmp holds {limits.scratch >> 20} MiB. The platform team sets the limits."  # noqa: S108  (a tmpfs of the container)
        )
    if _PROCESSES.search(words):
        return (
            f"Let it start fewer at once: a step has {limits.processes} processes and threads. "
            "The platform team sets the limit."
        )
    if found := _SOURCE_ONLY.search(words):
        return (
            f"Lock a version of {found[1]} that has a wheel for this Python on Linux x86_64, or a package that has "
            "one, as psycopg2-binary is for psycopg2."
        )
    if newer := _NEWER_PYTHON.findall(words):
        return (
            f"Write 3.{max(map(int, newer))} or newer, as the platform team offers it, into .python-version, or say it "
            "in requires-python of pyproject.toml: where nothing is said, the preferred Python is taken."
        )
    if _NETWORK.search(words):
        return OFFLINE
    return OTHERWISE
