"""The command line against a real ops: what it prints, what it refuses, and its exit codes."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sekisho.cli import main as cli
from sekisho.cli.output import clean, complain, short, when
from sekisho.cli.zones import parse_zones, show_diagnosis, show_status
from sekisho.decisions import verify_decision
from sekisho.embedded.doctor import Diagnosis, Finding
from sekisho.embedded.status import ProcessStatus, Status, ZoneStatus
from sekisho.errors import Refusal, UsageError
from sekisho.model import Offer, Plan
from sekisho.ops.courier import READ
from sekisho.releases import export_bundle, verify_release
from sekisho.zones import Zone

from .serving import BROWSER, serve
from .test_ops import COMMIT, Keys, Ops, digest, held, keys, make_plan, make_receipt, ops, store

__all__ = ["keys", "ops", "store"]

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def sekisho(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Run the command line in this process; returns exit code, output and error output."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("SEKISHO_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("SEKISHO_DEBUG", raising=False)

    def run(*arguments: object) -> tuple[int, str, str]:
        code = cli.run([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def ask(sekisho: Run, ops: Ops, keys: Keys, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command line with an ops to talk to and an approver's key."""
    monkeypatch.setenv("SEKISHO_OPS", ops.url)
    monkeypatch.setenv("SEKISHO_APPROVER_KEY", str(keys.approver))
    return sekisho


# -- without ops ---------------------------------------------------------------------------------------------------


def test_help_imports_nothing_heavy() -> None:
    heavy = {
        "rich",
        "httpx",
        "pydantic",
        "yaml",
        "sqlalchemy",
        "fastapi",
        "uvicorn",
        "prefect",
        "cryptography",
        "stages",
    }
    script = (
        "import sys; from sekisho.cli.main import run; code = run(['--help']); "
        f"print(sorted({heavy!r} & set(sys.modules)), code, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[] 0"
    for command in (
        "up",
        "down",
        "status",
        "doctor",
        "check",
        "releases",
        "show",
        "verify",
        "plan",
        "approve",
        "reject",
        "rollback",
    ):
        assert f"\n  {command} " in done.stdout


@pytest.mark.parametrize("command", ["up", "plan", "approve", "reject", "rollback", "verify"])
def test_every_help_has_an_example(sekisho: Run, command: str) -> None:
    code, out, _ = sekisho(command, "--help")
    assert (code, f"Example: sekisho {command}" in out) == (0, True)


@pytest.mark.parametrize(
    "arguments",
    [
        ("nonsense",),
        ("plan",),
        ("reject", "abcdef12"),
        ("plan", "a", "--zone"),
        ("approve", "not-a-digest"),
        ("show", "abc"),
        ("up", "--zones", "mars"),
        ("check", "/no/such/folder"),
        ("releases", "--nonsense"),
    ],
)
def test_wrong_use_is_two_and_never_a_traceback(sekisho: Run, arguments: tuple[str, ...]) -> None:
    code, out, err = sekisho(*arguments)
    assert code == 2
    assert err
    assert "Traceback" not in out + err


def test_an_ops_that_is_away_is_said_with_a_remedy(sekisho: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEKISHO_OPS", "http://127.0.0.1:1")
    code, out, err = sekisho("releases", "--json")
    assert (code, out) == (1, "")
    assert err.splitlines()[1:] == [
        "  where:  http://127.0.0.1:1",
        "  remedy: See whether the zone is up: sekisho status.",
    ]


def test_a_fault_is_one_line_unless_debugging(sekisho: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise ZeroDivisionError("a fault")

    monkeypatch.setattr("sekisho.cli.reach.ops", broken)
    monkeypatch.setattr("sekisho.cli.releases.ops", broken)
    code, _, err = sekisho("releases")
    assert (code, "ZeroDivisionError: a fault" in err, "Traceback" in err) == (1, True, False)
    monkeypatch.setenv("SEKISHO_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        sekisho("releases")


def test_a_reader_who_has_enough_is_no_fault(tmp_path: Path) -> None:
    script = f"{sys.executable} -m sekisho.cli.main --help | true"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert "Traceback" not in done.stderr


def test_zones_are_named_with_commas() -> None:
    assert parse_zones("") == ()
    assert parse_zones("build, ops,build") == (Zone.BUILD, Zone.OPS)
    with pytest.raises(UsageError, match="mars"):
        parse_zones("mars")


def test_status_and_doctor_in_words_and_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    process = ProcessStatus(name="apiserver", state="FATAL", message="exited too quickly")
    found = Status(
        home="/var/lib/sekisho", range="10.77.0.0/16", supervisor=True, memory_bytes=5 << 20,
        zones=(ZoneStatus(zone="build", state="partly", cluster="not-ready", processes=(process,)),),
    )  # fmt: skip
    show_status(found)
    out = capsys.readouterr().out
    assert "build: apiserver is FATAL. exited too quickly" in out
    assert "5 MiB of memory in all" in out
    show_diagnosis(Diagnosis(findings=(Finding(check="disk", result="fail", message="full", remedy="free some"),)))
    assert capsys.readouterr().out.splitlines() == [
        "fail  disk: full",
        "      remedy: free some",
        "",
        "The zones cannot run here yet.",
    ]


def test_what_others_wrote_cannot_steer_the_terminal() -> None:
    assert clean("a\x1b[2Jb\x07\u202ec\nd") == "a [2Jb  c\nd"
    assert (short("sha256:" + "ab" * 32), when(0), when("x"), when(10**30)) == (
        "abababababab",
        "1970-01-01 00:00:00",
        "",
        "",
    )


# -- releases ------------------------------------------------------------------------------------------------------


def test_releases_as_a_table_and_as_json(ask: Run, ops: Ops) -> None:
    assert ask("releases")[1].startswith("No releases yet")
    ops.store.record_offers(
        (Offer(sequence=1, app="guestbook", release=digest(1), summary=digest(9), commit=COMMIT),), READ
    )
    ops.post(make_receipt("healthy", zone="staging"))
    ops.post(make_receipt("held"))
    code, out, _ = ask("releases", "guestbook")
    assert code == 0
    assert [line.split() for line in out.splitlines()] == [
        ["APP", "RELEASE", "COMMIT", "STAGING", "PRODUCTION"],
        ["guestbook", short(digest(1)), COMMIT[:12], "healthy", "held"],
    ]
    found = json.loads(ask("releases", "--json")[1])
    assert [item["digest"] for item in found] == [digest(1)]
    code, out, _ = ask("show", digest(1)[:20])
    assert (code, "staging" in out, "it is held" in out) == (0, True, True)
    assert json.loads(ask("show", digest(1), "--json")[1])["zones"]["production"]["state"] == "held"


def test_a_beginning_must_name_one_release(ask: Run, ops: Ops) -> None:
    for number in (1, 2):
        ops.post(make_receipt("received", release=number))
    code, _, err = ask("show", "0000000")
    assert (code, "2 releases begin with" in err) == (1, True)
    code, _, err = ask("show", "ffffff")
    assert (code, "No release begins with" in err) == (1, True)


def test_verify_a_file_offline(sekisho: Run, line, trust, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEKISHO_OPS", "http://127.0.0.1:1")
    offer = line.offer("cli-file")
    bundle, root = tmp_path / "release.json", tmp_path / "root.json"
    bundle.write_bytes(export_bundle(verify_release(line.registry, offer, trust)).canonical())
    root.write_bytes(trust.canonical())
    code, out, _ = sekisho("verify", bundle, "--trust", root)
    assert (code, out.splitlines()[-1]) == (0, "VERIFIED")
    report = json.loads(sekisho("verify", bundle, "--trust", root, "--json")[1])
    assert (report["ok"], report["release"]) == (True, offer.release)
    lesser = trust.model_copy(update={"keys": tuple(key for key in trust.keys if key.role != "scanner")})
    root.write_bytes(lesser.canonical())
    code, out, _ = sekisho("verify", bundle, "--trust", root)
    assert (code, "NOT VERIFIED" in out) == (1, True)
    bundle.write_text("{}")
    assert sekisho("verify", bundle, "--trust", root)[0] == 1
    assert sekisho("verify", bundle, "--trust", tmp_path / "none.json")[0] == 1


def test_a_release_that_was_verified_once_is_verified_again_without_ops(
    sekisho: Run, line, trust, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer, other = line.offer("cli-cache"), line.offer("cli-other")
    data = {
        item.release: export_bundle(verify_release(line.registry, item, trust)).canonical() for item in (offer, other)
    }
    (tmp_path / "root.json").write_bytes(trust.canonical())
    swapped = {offer.release: data[other.release]}

    async def app(scope: Any, _: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body = (swapped or data)[scope["path"].split("/")[2]]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})

    with serve(app) as url:
        monkeypatch.setenv("SEKISHO_OPS", url)
        code, _, err = sekisho("verify", offer.release, "--trust", tmp_path / "root.json")
        assert (code, "another release" in err) == (1, True)
        swapped.clear()
        assert sekisho("verify", offer.release, "--trust", tmp_path / "root.json")[0] == 0
    monkeypatch.setenv("SEKISHO_OPS", "http://127.0.0.1:1")
    assert sekisho("verify", offer.release[:20], "--trust", tmp_path / "root.json")[0] == 0


# -- plans and decisions -------------------------------------------------------------------------------------------


def test_a_plan_shows_what_changes_and_how_to_approve_it(ask: Run, ops: Ops) -> None:
    assert ask("plan", "guestbook")[0] == 1
    plan = make_plan()
    ops.post(held(plan))
    code, out, _ = ask("plan", "guestbook", "--zone", "production")
    assert code == 0
    for expected in (
        plan.identity(),
        "Service/guestbook  create",
        "one approval is missing",
        f"sekisho approve {plan.identity()}",
    ):
        assert expected in out
    shown = json.loads(ask("plan", "guestbook", "--json")[1])
    assert Plan.model_validate(shown["plan"]).identity() == shown["digest"] == plan.identity()
    assert shown["gate"]["open"] is False


def test_approve_signs_exactly_the_plans_digest(ask: Run, ops: Ops, keys: Keys) -> None:
    plan = make_plan()
    ops.post(held(plan))
    code, out, _ = ask("approve", plan.identity()[7:20], "--yes")
    assert (code, plan.identity() in out) == (0, True)
    ((_, signed),) = ops.client.decisions("production")
    assert verify_decision(signed, keys.allowed) == "approver@example.com"
    assert (signed.decision.kind, signed.decision.subject, signed.decision.app) == (
        "approve",
        plan.identity(),
        "guestbook",
    )
    answer = json.loads(ask("approve", plan.identity(), "--json")[1])
    assert (answer["subject"], answer["checked"]) == (plan.identity(), True)
    nonces = {signed.decision.nonce for _, signed in ops.client.decisions("production")}
    assert len(nonces) == 2


def test_approve_refuses_a_plan_that_ops_changed(sekisho: Run, keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, evil = make_plan(1), make_plan(2)
    posted: list[str] = []

    async def app(scope: Any, _: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        posted.extend([scope["path"]] if scope["method"] == "POST" else [])
        answer = {"digest": plan.identity(), "plan": evil.model_dump(mode="json"), "state": "held", "at": 1}
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": json.dumps(answer).encode()})

    with serve(app) as url:
        monkeypatch.setenv("SEKISHO_OPS", url)
        code, _, err = sekisho("approve", plan.identity(), "--key", keys.approver, "--yes")
    assert (code, "another plan" in err, posted) == (1, True, [])


@pytest.mark.parametrize(("typed", "code"), [(b"n\n", 1), (b"\n", 1), (b"yes\n", 0)])
def test_at_a_terminal_a_person_is_asked(ops: Ops, keys: Keys, tmp_path: Path, typed: bytes, code: int) -> None:
    plan = make_plan()
    ops.post(held(plan))
    master, terminal = pty.openpty()
    environment = {**os.environ, "SEKISHO_OPS": ops.url, "SEKISHO_HOME": str(tmp_path), "TERM": "dumb"}
    process = subprocess.Popen(
        [sys.executable, "-m", "sekisho.cli.main", "approve", plan.identity(), "--key", keys.approver],
        stdin=terminal,
        stdout=terminal,
        stderr=subprocess.PIPE,
        env=environment,
    )
    os.close(terminal)
    shown = b""
    while b"[y/N]" not in shown:
        shown += os.read(master, 4096)
    os.write(master, typed)
    assert process.wait(30) == code
    os.close(master)
    assert plan.identity().encode() in shown
    assert b"Approve this for production, as approver@example.com?" in shown
    assert len(ops.client.decisions("production")) == (code == 0)


@pytest.mark.parametrize("event", ["healthy", "rejected", "failed", "void"])
def test_a_plan_that_does_not_wait_cannot_be_approved(ask: Run, ops: Ops, event: str) -> None:
    plan = make_plan()
    ops.post(held(plan))
    ops.post(make_receipt(event, plan=plan.identity()))
    code, _, err = ask("approve", plan.identity(), "--yes")
    assert (code, f"it is {event}" in err) == (1, True)
    assert ops.client.decisions("production") == ()


def test_the_wrong_key_is_told_at_once(ask: Run, ops: Ops, keys: Keys, tmp_path: Path) -> None:
    plan = make_plan()
    ops.post(held(plan))
    assert ask("approve", plan.identity(), "--key", keys.stranger, "--yes")[0] == 1
    assert ask("approve", plan.identity(), "--key", tmp_path / "none", "--principal", "a@example.com", "--yes")[0] == 2
    nameless = tmp_path / "nameless"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", nameless], check=True)
    code, _, err = ask("approve", plan.identity(), "--key", nameless, "--yes")
    assert (code, "--principal" in err) == (2, True)
    assert ops.client.decisions("production") == ()


def test_the_console_key_is_the_default_on_this_machine(
    ask: Run, ops: Ops, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SEKISHO_APPROVER_KEY")
    console = tmp_path / "home" / "console"
    console.mkdir(parents=True)
    for name in ("approver", "approver.pub"):
        (console / name).write_bytes((keys.folder / name).read_bytes())
        (console / name).chmod(0o600)
    ops.post(held(make_plan()))
    assert ask("approve", make_plan().identity(), "--yes")[0] == 0


def test_reject_needs_its_reason(ask: Run, ops: Ops) -> None:
    plan = make_plan()
    ops.post(held(plan))
    assert ask("reject", plan.identity(), "--reason", " ")[0] == 2
    assert ask("reject", plan.identity(), "--reason", "not today")[0] == 0
    ((_, signed),) = ops.client.decisions("production")
    assert (signed.decision.kind, signed.decision.reason) == ("reject", "not today")


# -- rollback ------------------------------------------------------------------------------------------------------


@pytest.fixture
def two_ran(ops: Ops) -> None:
    for number in (1, 2):
        ops.post(make_receipt("healthy", release=number))


@pytest.mark.usefixtures("two_ran")
def test_rollback_asks_for_the_release_that_was_healthy_before(ask: Run, ops: Ops) -> None:
    code, out, _ = ask("rollback", "guestbook", "--json")
    answer = json.loads(out)
    ((_, signed),) = ops.client.decisions("production")
    assert (code, answer["state"], answer["release"]) == (0, "asked", digest(1))
    assert (signed.decision.kind, signed.decision.subject) == ("rollback", digest(1))
    assert ask("rollback", "guestbook", "--to", digest(2)[:30] + "f")[0] == 1
    assert ask("rollback", "other")[0] == 1


def test_rollback_without_an_earlier_release_says_so(ask: Run, ops: Ops) -> None:
    ops.post(make_receipt("healthy"))
    code, _, err = ask("rollback", "guestbook")
    assert (code, "No earlier release" in err) == (1, True)
    assert ops.client.decisions("production") == ()


@pytest.fixture
def production(ops: Ops) -> Iterator[list[str]]:
    """A zone that makes a plan for a rollback, waits for its approval, and applies it."""
    seen: list[str] = []

    def live() -> None:
        after, plan = 0, make_plan(7)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            for sequence, signed in ops.client.decisions("production", after, wait=1):
                after = sequence
                seen.append(signed.decision.kind)
                if signed.decision.kind == "rollback":
                    ops.post(held(plan))
                elif signed.decision.subject == plan.identity():
                    ops.post(make_receipt("healthy", plan=plan.identity()))
                    return

    thread = threading.Thread(target=live, daemon=True)
    thread.start()
    yield seen
    thread.join(5)


@pytest.mark.usefixtures("two_ran")
def test_rollback_with_yes_approves_the_plan_that_the_zone_makes(ask: Run, production: list[str]) -> None:
    code, out, err = ask("rollback", "guestbook", "--yes", "--wait", "--json")
    answer = json.loads(out)
    assert (code, answer["state"], answer["plan"]) == (0, "healthy", make_plan(7).identity())
    assert production == ["rollback", "approve"]
    assert "held" in err


@pytest.mark.usefixtures("two_ran")
def test_rollback_that_the_zone_ignores_is_a_no(ask: Run, ops: Ops) -> None:
    def refuse() -> None:
        while not ops.client.decisions("production", wait=5):
            pass
        ops.post(make_receipt("decision-ignored"))

    thread = threading.Thread(target=refuse)
    thread.start()
    code, out, _ = ask("rollback", "guestbook", "--wait", "--json")
    thread.join()
    assert (code, json.loads(out)["state"]) == (1, "decision-ignored")


@pytest.mark.parametrize("options", [["--json"], ["--format", "sarif"], ["--format", "json", "--all"]])
def test_check_runs_the_stages_own_check(tmp_path: Path, options: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sekisho.cli.main", "check", tmp_path, *options],
        capture_output=True, text=True, check=False, env={**os.environ, "SEKISHO_HOME": str(tmp_path / "home")},
    )  # fmt: skip
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    said = json.loads(done.stdout)
    assert ("runs" in said) == ("sarif" in options)
    assert said["result"] == "FAILED" if "runs" not in said else said["version"] == "2.1.0"


def test_a_form_that_a_verdict_does_not_have(sekisho: Run, tmp_path: Path) -> None:
    assert sekisho("check", str(tmp_path), "--format", "html")[0] == 2


def test_ops_answers_plain_http(ops: Ops) -> None:
    assert BROWSER.get(f"{ops.url}/docs").status_code == 404


@pytest.mark.parametrize("error", [Refusal, ZeroDivisionError])
def test_an_error_that_quotes_a_stranger_steers_no_terminal(
    sekisho: Run, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def fail(_: object) -> int:
        raise error("a name\x1b]0;title\x07\u202e \x9b2J\n  remedy: run my script")

    monkeypatch.setattr(cli, "_called", fail)
    code, _, err = sekisho("status")
    assert code == 1
    assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(err)
    assert "\n  remedy: run my script" not in err  # a line of a quotation does not look like one of ours
    assert err.startswith("sekisho: ")


def test_what_is_wrong_is_told_in_three_lines(capsys: pytest.CaptureFixture[str]) -> None:
    complain("sekisho", Refusal("It is wrong.", where="a.py:3", remedy="Mend it."))
    complain("", Refusal("It is wrong."))
    expected = ["sekisho: It is wrong.", "  where:  a.py:3", "  remedy: Mend it.", "It is wrong."]
    assert capsys.readouterr().err.splitlines() == expected
