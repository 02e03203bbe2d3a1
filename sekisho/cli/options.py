"""Options that several groups of commands have."""

from __future__ import annotations

from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
OfZone = Annotated[str, typer.Option("--zone", help="The zone.", metavar="ZONE")]
