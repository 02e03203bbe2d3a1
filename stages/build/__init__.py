"""The build stage: from a commit to an image, without a Dockerfile.

What needs the engine is imported when it is asked for: `sekisho check` plans a build without one, and people wait.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stages.build.image import Builder
    from stages.build.stage import BuildInput, BuildRecord, BuildStage

__all__ = ["BuildInput", "BuildRecord", "BuildStage", "Builder"]

_PLACES = {"Builder": "image", "BuildInput": "stage", "BuildRecord": "stage", "BuildStage": "stage"}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
