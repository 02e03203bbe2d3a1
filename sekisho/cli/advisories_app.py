"""`sekisho advisories`: its commands, their options and help. What they do is in `advisories`, imported when called."""

# ruff: noqa: D301, FBT002 -- as in `commands`: the functions' signatures and docstrings are the options and the help.

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sekisho.cli.options import Json, OfZone

advisories_app = typer.Typer(
    name="advisories",
    help="What you deny as of now: a package and its versions, in a list of your own (docs/scanning.md).",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@advisories_app.command("list", short_help="List what is denied in the running zone.")
def advisories_list(zone: OfZone = "build", json: Json = False) -> None:
    """List the advisories of your own that a zone's scans look into.

    \b
    Example: sekisho advisories list
    """
    from sekisho.cli import advisories as commands  # noqa: PLC0415

    commands.show(zone, as_json=json)


@advisories_app.command("publish", short_help="Publish the list: in force with the next scan.")
def advisories_publish(
    path: Annotated[
        Path | None,
        typer.Argument(help="The list; by default policies/advisories.yaml of this installation.", metavar="[FILE]"),
    ] = None,
    zone: OfZone = "build",
) -> None:
    """Publish advisories of your own in the running zone: every scan from now on looks into them.

    \b
    Example: sekisho advisories publish policies/advisories.yaml
    """
    from sekisho.cli import advisories as commands  # noqa: PLC0415

    commands.publish(path, zone)
