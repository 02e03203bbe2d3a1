"""Standard images: built from Debian packages into OCI layouts, pushed to zones, handed to the build sandbox."""

from sekisho.images.build import build_all
from sekisho.images.layout import docker_archive, lock_path, open_layout, push_layout

__all__ = ["build_all", "docker_archive", "lock_path", "open_layout", "push_layout"]
