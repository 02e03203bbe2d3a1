"""`sekisho keys`: its commands, their options and their help. What they do is in `keys`, imported when called."""

# ruff: noqa: D301, FBT002 -- as in `commands`: the functions' signatures and docstrings are the options and the help.

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sekisho.cli.options import Json

keys_app = typer.Typer(
    name="keys",
    help="Whose keys count: list them, make one anew, take one back. See docs/keys.md.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
Root = Annotated[
    Path | None, typer.Option("--trust", help="One trust root; by default those of all zones on this machine.")
]


@keys_app.command(name="list", short_help="List keys, and what each counts for.")
def list_keys(trust: Root = None, json: Json = False) -> None:
    """List the keys of this machine's trust roots, with their roles, ends and revocations.

    \b
    Example: sekisho keys list --json
    """
    from sekisho.cli import keys as commands  # noqa: PLC0415

    commands.list_keys(trust, as_json=json)


@keys_app.command(name="rotate", short_help="Make a role's key anew.")
def rotate_key(
    role: Annotated[str, typer.Argument(help="builder, scanner, verifier or zone.", metavar="ROLE")],
    zone: Annotated[str, typer.Option("--zone", help="With the role zone: whose.", metavar="ZONE")] = "",
    overlap: Annotated[
        str, typer.Option("--overlap", help="How long the old key counts for what is first seen.", metavar="30d|12h")
    ] = "30d",
    json: Json = False,
) -> None:
    """Make a role's key anew. What was seen while the old key counted goes on counting.

    \b
    Example: sekisho keys rotate verifier --overlap 30d
    """
    from sekisho.cli import keys as commands  # noqa: PLC0415

    commands.rotate(role, zone, overlap, as_json=json)


@keys_app.command(name="revoke", short_help="Take a key's word back from a time on.")
def revoke_key(
    key: Annotated[str, typer.Argument(help="The key's id, or the beginning of it.", metavar="KEY")],
    since: Annotated[
        str,
        typer.Option(
            "--from",
            help="What zones first saw then or later does not count; `always`: nothing does.",
            metavar="TIME|always",
        ),
    ],
    reason: Annotated[str, typer.Option("--reason", help="Why; it stands in the trust roots and the audit file.")],
    trust: Root = None,
    json: Json = False,
) -> None:
    """Take a key's word back: what a zone first saw before that time counts, and nothing else does.

    Running zones heed it at once. There is no way back but to edit the trust roots by hand.

    \b
    Example: sekisho keys revoke 4f1c9a --from 2026-11-20T00:00:00Z --reason 'stolen laptop'
    """
    from sekisho.cli import keys as commands  # noqa: PLC0415

    commands.revoke(key, since, reason, trust, as_json=json)
