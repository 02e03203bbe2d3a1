"""What each language needs: one class a language. A new one is one module with such a class, named here."""

from __future__ import annotations

from stages.build.language import Language
from stages.build.languages.go import Go
from stages.build.languages.java import Java
from stages.build.languages.node import Node
from stages.build.languages.python import Python
from stages.build.languages.rust import Rust
from stages.build.languages.static import Static

LANGUAGES: tuple[Language, ...] = (Python(), Node(), Go(), Rust(), Java(), Static())
"""The order is that in which they are named to people; what a folder is, `stages/build/detect.py` decides."""
