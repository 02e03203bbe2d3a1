"""Where the programs are: the pinned tools, and the few of the distribution that every machine has."""

from __future__ import annotations

from functools import lru_cache

from sekisho.tools.locate import tool


@lru_cache(maxsize=64)
def binary(name: str) -> str:
    """Return the path of a program.

    Raises:
        PermanentError: nowhere to be found; says how to get it.
    """
    return str(tool(name))
