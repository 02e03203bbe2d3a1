"""`sekisho`: the commands, their options and their help. What they do is in the modules beside, imported when called.

Exit codes: 0 yes, 1 a 'no' of the line or a fault, 2 wrong use. Errors say what, where and what to do on standard
error; SEKISHO_DEBUG=1 shows the traceback too.
"""

# ruff: noqa: D301, FBT001, FBT002, PLR0917 -- the functions' signatures and docstrings are the options and the help:
# flags are booleans with defaults, and `\b` keeps lines as they are.

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from sekisho.errors import SekishoError

_INTERRUPTED = 130


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

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
Zones = Annotated[str, typer.Option("--zones", help="Some zones only, with commas: build,ops,staging.", metavar="A,B")]
OfZone = Annotated[str, typer.Option("--zone", help="The zone.", metavar="ZONE")]
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


advisories = typer.Typer(
    name="advisories",
    help="What you deny as of now: a package and its versions, in a list of your own (docs/scanning.md).",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(advisories, short_help="Deny packages as of now, and list what is denied.")


@advisories.command("list", short_help="List what is denied in the running zone.")
def advisories_list(zone: OfZone = "build", json: Json = False) -> None:
    """List the advisories of your own that a zone's scans look into.

    \b
    Example: sekisho advisories list
    """
    from sekisho.cli import advisories as commands  # noqa: PLC0415

    commands.show(zone, as_json=json)


@advisories.command("publish", short_help="Publish the list: in force with the next scan.")
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


@app.command(short_help="Run a working copy in the dev cluster, again at every save.")
def dev(
    path: Annotated[Path, typer.Argument(help="Working copy with a score.yaml.", metavar="[PATH]")] = Path(),
    port: Annotated[int, typer.Option("--port", help="Port of this machine; by default the workload's own.")] = 0,
    who: Annotated[
        str, typer.Option("--as", help="Who you are; by default your login name.", envvar="SEKISHO_DEVELOPER")
    ] = "",
    json: Annotated[bool, typer.Option("--json", help="Print one JSON event a line instead of text.")] = False,
) -> None:
    """Run a working copy in the dev cluster, again at every save, until Ctrl-C.

    No gate stands there; what it would say is shown as a hint.

    \b
    Example: sekisho dev examples/guestbook
    """
    from sekisho.cli import dev as commands  # noqa: PLC0415

    commands.dev(path, port=port, who=who, as_json=json)


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


# -- keys --------------------------------------------------------------------------------------------------------

keys_app = typer.Typer(
    name="keys",
    help="Whose keys count: list them, make one anew, take one back. See docs/keys.md.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(keys_app)
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


# -- running it --------------------------------------------------------------------------------------------------


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code. Prints errors; raises none."""
    if os.environ.get("SEKISHO_DEBUG") == "1":
        return _called(arguments)
    try:
        return _called(arguments)
    except SekishoError as error:
        _print_error(error)
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        sys.stderr.write("\nsekisho: interrupted; what was done is kept.\n")
        return _INTERRUPTED
    except BrokenPipeError:
        # Whoever read the output has enough; nothing can be said to them any more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:  # noqa: BLE001 -- a person must never meet a traceback
        sys.stderr.write(f"sekisho: this is a fault of the program: {type(error).__name__}: {error}\n")
        sys.stderr.write("  remedy: run it again with SEKISHO_DEBUG=1 and report what it prints\n")
        return 1


def _called(arguments: Sequence[str]) -> int:
    try:
        code: Any = app(args=list(arguments), prog_name="sekisho", standalone_mode=False)
    except typer.Exit as done:
        return done.exit_code
    except Exception as error:
        show_usage: Callable[[], None] | None = getattr(error, "show", None)  # the parser's own errors
        if show_usage is None:
            raise
        show_usage()
        return int(getattr(error, "exit_code", 2))
    return code if isinstance(code, int) else 0


def _print_error(error: SekishoError) -> None:
    sys.stderr.write(f"sekisho: {error.what}\n")
    if error.where:
        sys.stderr.write(f"  where:  {error.where}\n")
    if error.remedy:
        sys.stderr.write(f"  remedy: {error.remedy}\n")


def main() -> None:
    """Run the command line of this process."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
