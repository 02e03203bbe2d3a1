"""Command lines of Procfiles, held against a real shell."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sekisho.errors import Refusal
from stages.build.languages.python_launch import LAUNCHER
from stages.build.languages.python_words import plain, read_command_line

ENVIRONMENT = {"PATH": os.environ["PATH"], "PORT": "5000", "ARGS": "--workers 3  --threads 2", "EMPTY": ""}
SHOW = f"{sys.executable} -ISc 'import json, sys; print(json.dumps(sys.argv[1:]))'"


def words(text: str) -> list[str]:
    return [plain(word) for word in read_command_line(text, where="Procfile:1").last]


def launch(text: str, *, wait: bool = True) -> subprocess.Popen[str]:
    line = read_command_line(text, where="Procfile:1")
    command = [sys.executable, "-ISc", LAUNCHER, *line.launched()]
    process = subprocess.Popen(
        command, env={**line.environment, **ENVIRONMENT}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    if wait:
        process.wait(30)
    return process


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("gunicorn app:app", ["gunicorn", "app:app"]),
        ("  gunicorn   'a b'  \"c d\" e\\ f # why", ["gunicorn", "a b", "c d", "e f"]),
        ("a '' \"\"", ["a", "", ""]),
        ("exec gunicorn app:app", ["gunicorn", "app:app"]),
        ("poetry run gunicorn app:app", ["gunicorn", "app:app"]),
        ("env A=1 gunicorn app", ["gunicorn", "app"]),
        ("a --allow=* -k*", ["a", "--allow=*", "-k*"]),
        ("a 'x;y' '&&' \"|\"", ["a", "x;y", "&&", "|"]),
        (r"a \$PORT '$PORT' \"", ["a", "$PORT", "$PORT", '"']),
    ],
)
def test_plain_commands(text: str, expected: list[str]) -> None:
    assert words(text) == expected
    assert read_command_line(text, where="").is_plain()


def test_what_is_set_in_front_is_in_the_environment() -> None:
    line = read_command_line("export A=1 && cd src && B='x y' python main.py ${C:-d}", where="")
    assert line.environment == {"A": "1", "B": "x y", "C": "d"}
    assert line.folder == "src"
    assert line.commands == (("python", "main.py", "${C...}"),)
    assert not line.is_plain()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a | b", "a pipe"),
        ("a || b", "a pipe"),
        ("a > file", "a redirection"),
        ("a < file", "a redirection"),
        ("a & b", "a background process"),
        ("a &", "a background process"),
        ("(a)", "a subshell"),
        ("a `b`", "a command substitution"),
        ('a "`b`"', "a command substitution"),
        ("a $(b)", "is no variable"),
        ("a $((1))", "is no variable"),
        ("a $1", "is no variable"),
        ("a ${A#b}", "is no variable"),
        ("a ${A:-$B}", "is no variable"),
        ("a *.py", "a pattern"),
        ("a ~/b", "a home folder"),
        ("a {b,c}", "braces"),
        ("a 'b", "a quote"),
        ('a "b', "a quote"),
        ("a \\", "a backslash"),
        ("a \x00", "a control character"),
        ("if a; then b; fi", "`if`"),
        ("source venv/bin/activate && a", "`source`"),
        (". ./a && b", "`.`"),
        ("a && cd b", "`cd`"),
        ("A=$B c", "a value for A"),
        ("a && b; c", "in one line"),
        ("a ;; b", "an empty command"),
        ("&& a", "an empty command"),
        ("a &&", "an empty command"),
        ("", "an empty command"),
        ("exec", "without a command"),
        ("${A:-1} ${A:-2}", "two defaults"),
        ("export A", "`export`"),
        ("a" * 9000, "longer than"),
        ("A=1", "command is empty"),
    ],
)
def test_what_needs_a_shell_is_refused_by_its_name(text: str, says: str) -> None:
    with pytest.raises(Refusal) as caught:
        read_command_line(text, where="Procfile:3")
    assert says in caught.value.what
    assert caught.value.where == "Procfile:3"
    assert caught.value.remedy


PIECES = st.sampled_from(
    ["a", "-b", "--c=d", "$PORT", "${PORT}", "${PORT:-1}", "$ARGS", "${ARGS}", "$EMPTY", "${NONE:-x}", "'q r'", '"s t"',
     '"u $PORT"', "'$PORT'", '""', "''", "\\$", "\\ ", "=", ":", "0.0.0.0:", "'&&'", "';'", '"\\$x"', "#", ",", "/",
     "é"]
)  # fmt: skip


@settings(deadline=None, max_examples=80)
@given(st.lists(st.lists(PIECES, min_size=1, max_size=3).map("".join), max_size=6))
@example(["$EMPTY$EMPTY", "$EMPTY$PORT"])
def test_the_launcher_gives_a_program_what_a_shell_would(pieces: list[str]) -> None:
    text = " ".join([SHOW, *pieces])
    try:
        line = read_command_line(text, where="")
    except Refusal:
        return
    # A value that a shell would part into words is parted only where it stands alone: `$ARGS`, not `-x$ARGS`.
    if any("ARGS" in piece and piece not in ("$ARGS", "${ARGS}") for piece in pieces):
        return
    # The image has the default as a variable; the shell has it in the line.
    shell = subprocess.run(
        ["/bin/sh", "-c", text], env=ENVIRONMENT, capture_output=True, text=True, check=True, timeout=30
    ).stdout
    process = launch(text)
    assert process.communicate()[0] == shell
    assert json.loads(shell) is not None
    assert line.launched()


def test_commands_run_in_order_and_the_last_replaces_the_launcher(tmp_path: Path) -> None:
    process = launch(f"{SHOW} one && {SHOW} two $PORT")
    out, _ = process.communicate()
    assert [json.loads(line) for line in out.splitlines()] == [["one"], ["two", "5000"]]
    process = launch(f"/bin/false && {SHOW} two")
    assert (process.returncode, process.communicate()[0]) == (1, "")
    process = launch(f"/bin/false; {SHOW} two;")
    assert (process.returncode, json.loads(process.communicate()[0])) == (0, ["two"])
    process = launch("/none/there && b")
    assert process.returncode == 1
    assert "cannot start ['/none/there']" in process.communicate()[1]
    process = launch("$EMPTY")
    assert process.returncode == 1


def test_the_last_command_is_the_process_itself() -> None:
    process = launch("/bin/true && /bin/sleep $PORT", wait=False)
    try:
        while "sleep" not in Path(f"/proc/{process.pid}/cmdline").read_text():
            assert process.poll() is None
    finally:
        process.send_signal(signal.SIGTERM)
    assert process.wait(30) == -signal.SIGTERM


def test_a_signal_reaches_an_earlier_command_and_ends_the_start(tmp_path: Path) -> None:
    started = tmp_path / "started"
    code = f"import pathlib,time;pathlib.Path(r'{started}').touch();time.sleep(60)"
    process = launch(f'{sys.executable} -c "{code}" ; /bin/echo never', wait=False)
    while not started.exists():
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 128 + signal.SIGTERM
    assert process.communicate()[0] == ""
