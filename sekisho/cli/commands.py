"""`sekisho`: the commands, their options and help. What they do is in the modules beside, imported when called."""

# ruff: noqa: D301, FBT001, FBT002, PLR0917 -- the functions' signatures and docstrings are the options and the help:
# flags are booleans with defaults, and `\b` keeps lines as they are.

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from sekisho.cli.advisories_app import advisories_app
from sekisho.cli.keys_app import keys_app
from sekisho.cli.options import Json, OfZone


class VerdictForm(StrEnum):
    """The forms of a verdict, for the help."""

    TEXT = "text"
    JSON = "json"
    SARIF = "sarif"


app = typer.Typer(
    name="sekisho",
    help="""Sekisho: one git push, judged, sealed, and pulled to production.

    A first day:

    \b
      sekisho up                                the zones of this machine
      sekisho dev examples/guestbook            your copy in the dev cluster, at every save
      sekisho check examples/guestbook          the gate's verdict, before any push
      git push http://.../guestbook.git main    the verdict comes within the push
      sekisho releases guestbook                how far each release has come
      sekisho plan guestbook --zone production  exactly what would be applied
      sekisho approve sha256:...                sign it with your SSH key

    Exit code 0: yes. 1: the line says no, or a fault. 2: wrong use.
    """,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Zones = Annotated[str, typer.Option("--zones", help="Some zones only, with commas: build,ops,staging.", metavar="A,B")]
Key = Annotated[
    Path | None,
    typer.Option(
        "--key", help="SSH key to sign with (a .pub file for a key in your agent).", envvar="SEKISHO_APPROVER_KEY"
    ),
]
Principal = Annotated[
    str,
    typer.Option("--principal", help="Your name in the zone's allowed_signers; by default the key's comment."),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
PlanName = Annotated[str, typer.Argument(help="Digest of the plan, or the beginning of it.", metavar="PLAN")]
AppName = Annotated[str, typer.Argument(help="The workload.", metavar="APP")]
Trust = Annotated[
    Path | None, typer.Option("--trust", help="Trust root to verify under; by default that of ops on this machine.")
]
At = Annotated[
    str,
    typer.Option(
        "--at", help="Verify as of this time (2026-11-26T12:00:00Z): under the keys that counted then.", metavar="TIME"
    ),
]


def _version(wanted: bool) -> None:
    if wanted:
        from sekisho import __version__  # noqa: PLC0415

        typer.echo(f"sekisho {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    _: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_version)] = False,
) -> None:
    pass


# -- the zones of this machine -----------------------------------------------------------------------------------


@app.command(short_help="Bring the zones of this machine up.")
def up(zones: Zones = "") -> None:
    """Bring the embedded zones up; again and again without harm.

    \b
    Example: sekisho up --zones build,ops,staging
    """
    from sekisho.cli import zones as commands  # noqa: PLC0415

    commands.up(zones)


@app.command(short_help="Stop the zones of this machine.")
def down(
    zones: Zones = "",
    purge: Annotated[bool, typer.Option("--purge", help="Remove their data, keys and trust as well.")] = False,
) -> None:
    """Stop the embedded zones; what they hold stays, unless --purge.

    \b
    Example: sekisho down --zones dev
    """
    from sekisho.cli import zones as commands  # noqa: PLC0415

    commands.down(zones, purge=purge)


@app.command(short_help="Show what runs, where, and whether it is well.")
def status(json: Json = False) -> None:
    """Show every zone's processes, ports and dashboards; exit code 1 when something is not well."""
    from sekisho.cli import zones as commands  # noqa: PLC0415

    raise typer.Exit(commands.status(as_json=json))


@app.command(short_help="Find out what this machine lacks.")
def doctor(json: Json = False) -> None:
    """Find out what this machine lacks, and what to do about it; exit code 1 when something is missing."""
    from sekisho.cli import zones as commands  # noqa: PLC0415

    raise typer.Exit(commands.doctor(as_json=json))


# -- before the push ---------------------------------------------------------------------------------------------


@app.command(short_help="Judge a working copy before any push.")
def check(
    path: Annotated[Path, typer.Argument(help="Working copy with a score.yaml.", metavar="[PATH]")] = Path(),
    form: Annotated[VerdictForm, typer.Option("--format", help="How the verdict is printed.")] = VerdictForm.TEXT,
    whole: Annotated[bool, typer.Option("--all", help="Every rule, also those that passed.")] = False,
    json: Json = False,
) -> None:
    """Judge a working copy as the gate would, before any push.

    \b
    Example: sekisho check examples/guestbook --format sarif > verdict.sarif
    """
    from sekisho.cli import check as commands  # noqa: PLC0415

    raise typer.Exit(commands.check(path, form="json" if json else form.value, whole=whole))


@app.command(short_help="List the standard images and what the gate says of each.")
def images(
    name: Annotated[str, typer.Argument(help="One image only, with all that was found.", metavar="[NAME]")] = "",
    json: Json = False,
) -> None:
    """List the standard images: version, owner, end of life, and the gate's verdict; exit code 1 when one has failed.

    \b
    Example: sekisho images python
    """
    from sekisho.cli import images as commands  # noqa: PLC0415

    raise typer.Exit(commands.images(name, as_json=json))


app.add_typer(advisories_app, short_help="Deny packages as of now, and list what is denied.")


@app.command(short_help="Run a working copy in the dev cluster, again at every save.")
def dev(
    path: Annotated[Path, typer.Argument(help="Working copy with a score.yaml.", metavar="[PATH]")] = Path(),
    port: Annotated[int, typer.Option("--port", help="Port of this machine; by default the workload's own.")] = 0,
    who: Annotated[
        str, typer.Option("--as", help="Who you are; by default your login name.", envvar="SEKISHO_DEVELOPER")
    ] = "",
    optimised: Annotated[
        bool, typer.Option("--optimised", help="Compile each save as for a release (Rust), not only what is committed.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON event a line instead of text.")] = False,
) -> None:
    """Run a working copy in the dev cluster, again at every save, until Ctrl-C.

    No gate stands there; what it would say is shown as a hint.

    \b
    Example: sekisho dev examples/guestbook
    """
    from sekisho.cli import dev as commands  # noqa: PLC0415

    commands.dev(path, port=port, who=who, optimised=optimised, as_json=json)


@app.command(short_help="Write the lock of a workload that has none, to be committed.")
def lock(
    subject: Annotated[
        str,
        typer.Argument(
            help="APP@COMMIT for what the line resolved; a folder, to have its lock made.", metavar="APP@COMMIT|FOLDER"
        ),
    ],
    into: Annotated[
        Path, typer.Option("--into", help="For APP@COMMIT: the workload's folder; by default this one.")
    ] = Path(),
    force: Annotated[bool, typer.Option("--force", help="Replace files that are different.")] = False,
    trust: Trust = None,
    at: At = "now",
    who: Annotated[
        str, typer.Option("--as", help="Who you are; by default your login name.", envvar="SEKISHO_DEVELOPER")
    ] = "",
    json: Json = False,
) -> None:
    """Write the lock files that the line resolved for a commit into a working copy, so that they can be committed.

    Each file must be the one that the commit's provenance names, under your own trust root. Given a folder instead, its
    lock is made in the dev zone, as the line would make it: the way to a lock where the policy resolves none.

    \b
    Example: sekisho lock guestbook@4f1c9a --into examples/guestbook
    """
    from sekisho.cli import lock as commands  # noqa: PLC0415

    options = commands.Options(into=into, force=force, trust=trust, at=at, who=who)
    raise typer.Exit(commands.lock(subject, options, as_json=json))


# -- releases ----------------------------------------------------------------------------------------------------


@app.command(short_help="List releases and how far each has come.")
def releases(
    app_name: Annotated[str, typer.Argument(help="Of one workload only.", metavar="[APP]")] = "", json: Json = False
) -> None:
    """List releases, newest first, and how far each has come.

    \b
    Example: sekisho releases guestbook --json
    """
    from sekisho.cli import releases as commands  # noqa: PLC0415

    commands.releases(app_name, as_json=json)


@app.command(short_help="Show one release.")
def show(
    release: Annotated[str, typer.Argument(help="Digest of the release, or the beginning of it.", metavar="RELEASE")],
    json: Json = False,
) -> None:
    """Show one release: where it comes from, what is in it, where it runs.

    \b
    Example: sekisho show 4f1c9a
    """
    from sekisho.cli import releases as commands  # noqa: PLC0415

    commands.show(release, as_json=json)


@app.command(short_help="Verify a release offline.")
def verify(
    release: Annotated[
        str, typer.Argument(help="Digest (or its beginning), or a bundle's file.", metavar="RELEASE|FILE")
    ],
    trust: Trust = None,
    at: At = "now",
    json: Json = False,
) -> None:
    """Verify all signatures and digests of a release, offline; exit code 1 when one does not hold.

    The release's bundle comes from a file or from ops, and is kept in ~/.cache/sekisho. Nothing in it is believed:
    every digest is computed again and every signature checked under your own trust root.

    \b
    Example: sekisho verify guestbook-release.json --trust trust/root.json
    """
    from sekisho.cli import releases as commands  # noqa: PLC0415

    raise typer.Exit(commands.verify(release, trust, at=at, as_json=json))


@app.command(short_help="Say why a release passed, or a commit was refused, and judge it again.")
def why(
    subject: Annotated[
        str,
        typer.Argument(
            help="Digest of a release (or its beginning), APP@COMMIT, or a file.", metavar="RELEASE|APP@COMMIT|FILE"
        ),
    ],
    trust: Trust = None,
    at: At = "now",
    policies: Annotated[
        Path | None, typer.Option("--policies", help="Unpack the policies of then into this new folder.")
    ] = None,
    save: Annotated[Path | None, typer.Option("--save", help="Also write what was fetched into this file.")] = None,
    json: Json = False,
) -> None:
    """Say why a release passed or a commit was refused, and by what; judge it again from the stored evidence, offline.

    Exit code 0: the same verdict, byte for byte. 1: another one, and what differs; or the evidence does not verify.

    \b
    Example: sekisho why guestbook@4f1c9a... --trust trust/root.json
    """
    from sekisho.cli import why as commands  # noqa: PLC0415

    options = commands.Options(trust=trust, at=at, policies=policies, save=save)
    raise typer.Exit(commands.why(subject, options, as_json=json))


# -- plans and decisions -----------------------------------------------------------------------------------------


@app.command(short_help="Show exactly what would be applied.")
def plan(app_name: AppName, zone: OfZone = "production", json: Json = False) -> None:
    """Show exactly what would be applied, what would change, why, and how to approve it.

    \b
    Example: sekisho plan guestbook --zone production
    """
    from sekisho.cli import plans as commands  # noqa: PLC0415

    commands.plan(app_name, zone, as_json=json)


@app.command(short_help="Approve exactly one plan, signed with your SSH key.")
def approve(
    plan_name: PlanName,
    key: Key = None,
    principal: Principal = "",
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Approve exactly one plan: compute its digest again, show it, sign the digest with your SSH key, send it.

    \b
    Example: sekisho approve sha256:9b2e... --key ~/.ssh/id_ed25519
    """
    from sekisho.cli import decide as commands  # noqa: PLC0415

    commands.approve(plan_name, commands.Approver(key, principal), yes=yes, as_json=json)


@app.command(short_help="Reject a plan, with the reason.")
def reject(
    plan_name: PlanName,
    reason: Annotated[str, typer.Option("--reason", help="Why; the developers read it.")],
    key: Key = None,
    principal: Principal = "",
    json: Json = False,
) -> None:
    """Reject a plan, with the reason.

    \b
    Example: sekisho reject 9b2e41 --reason 'not during the sale'
    """
    from sekisho.cli import decide as commands  # noqa: PLC0415

    commands.reject(plan_name, reason, commands.Approver(key, principal), as_json=json)


@app.command(short_help="Go back to an earlier release.")
def rollback(
    app_name: AppName,
    zone: OfZone = "production",
    to: Annotated[
        str, typer.Option("--to", help="Release to go back to; by default the one that was healthy before.")
    ] = "",
    reason: Annotated[str, typer.Option("--reason", help="Why.")] = "",
    wait: Annotated[bool, typer.Option("--wait", help="Wait until the release runs.")] = False,
    key: Key = None,
    principal: Principal = "",
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Go back to an earlier release: the zone makes a plan for it, which is approved as any other.

    With --yes, or when you say so at the terminal, the plan is approved as soon as the zone has made it.

    \b
    Example: sekisho rollback guestbook --zone production --wait --yes
    """
    from sekisho.cli import decide as commands  # noqa: PLC0415

    wish = commands.Rollback(app_name, zone, to, reason, wait=wait, yes=yes)
    raise typer.Exit(commands.rollback(wish, commands.Approver(key, principal), as_json=json))


# -- keys --------------------------------------------------------------------------------------------------------

app.add_typer(keys_app)
