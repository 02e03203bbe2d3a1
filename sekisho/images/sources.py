"""Where the files of an image come from: the project's own, or the pinned scanner."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from sekisho import tools
from sekisho.canonical import digest_of_file
from sekisho.errors import PermanentError, Refusal
from sekisho.tools.locate import SCANNER_SHA256
from sekisho.tools.lock import architecture, load_lock

TOOL = "tool:"


def project_root() -> Path:
    """Return the directory with policies/ and images/."""
    return Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Sources:
    """Finds the files that recipes name."""

    root: Path
    """The project's root; nothing outside it goes into an image by path."""

    def identity(self, source: str) -> str:
        """Return what stands for a source's content in an image's key.

        For the scanner that is its pinned digest: its bytes are checked when they are used, not at every look.

        Raises:
            Refusal: the source is outside the project.
            PermanentError: the file is not there.
        """
        if source == f"{TOOL}trivy":
            return os.environ.get(SCANNER_SHA256) or load_lock().scanner.sha256.get(architecture(), "")
        return digest_of_file(self._project_file(source))

    def open(self, source: str) -> Path:
        """Return the file to copy.

        Raises:
            Refusal: the source is none that a recipe may name.
            PermanentError: the file is not there.
            VerificationError: the scanner is not the pinned one.
        """
        if source == f"{TOOL}trivy":
            return tools.trivy()[0]
        return self._project_file(source)

    def _project_file(self, source: str) -> Path:
        if source.startswith(TOOL):
            raise Refusal(f"No recipe of this kind may take {source!r}.", remedy="Use a path below the project.")
        return _inside((self.root / source).resolve(), self.root.resolve(), source)


def _inside(path: Path, root: Path, source: str) -> Path:
    if not path.is_relative_to(root):
        raise Refusal(f"The source {source!r} is outside its root.", where=str(root))
    if not path.is_file():
        raise PermanentError(f"The source {source!r} is not there.", where=str(root))
    return path
