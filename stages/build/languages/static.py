"""Static sites: files, served by the standard image as it is."""

from __future__ import annotations

from stages.build.compose import Runtime

SITE = "srv/www"
"""Folder in the image that the standard image serves."""


def runtime() -> Runtime:
    """Return how a static site starts: as the standard image says."""
    return Runtime(command=(), directory="/", environment={})
