"""The hooks of every repository of the build zone: `pre-receive` and `post-receive`, by the name it is called with.

The receiver writes this file out as the hooks; it runs as `python3 -I -S` and uses the standard library only, imported
late, because every push waits for it.

pre-receive refuses what must never come in: refs other than branches and tags (refs/replace would change what git
shows), and rewriting or deleting the release branch. It notes each commit that comes, so that a commit is found again
when everything is killed between storing it and post-receive.

post-receive queues each pushed commit durably, then asks the zone's process for the stages' events and prints them
to the pusher. It never fails: what is stored is stored, whoever hangs up.
"""

from __future__ import annotations

import json
import os
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

ZERO = "0" * 40
BRANCHES = "refs/heads/"
TAGS = "refs/tags/"
RELEASE_BRANCH = "refs/heads/main"
MAX_REFS = 50
MAX_NAME = 200
GIT_SECONDS = 60
CONNECT_SECONDS = 2
ANSWER_SECONDS = 30
IDLE_SECONDS = 300
TOTAL_SECONDS = 900
MAX_LINE = 1 << 20
WIDTH = 400
OK = 200


class HungUp(Exception):
    """The pusher is gone."""


def say(line: object) -> None:
    """Print one plain line: no control character of the server or of a file name reaches the pusher's terminal."""
    text = "".join(char if char.isprintable() else " " for char in str(line))[:WIDTH].rstrip()
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except (OSError, ValueError) as error:
        raise HungUp from error


def updates() -> list[tuple[str, str, str]]:
    """Read (old, new, ref) of every updated ref from standard input (githooks(5))."""
    found = []
    for line in sys.stdin.buffer.read().decode("utf-8", "surrogateescape").splitlines():
        old, new, ref = line.split(" ", 2)
        found.append((old, new, ref))
    return found


def queue_path(commit: str, ending: str = "json") -> str:
    """Return where a commit's entry stands in the queue."""
    return f"{os.environ['SEKISHO_QUEUE']}/{os.environ['SEKISHO_APP']}-{commit}.{ending}"


def write_entry(path: str, entry: dict[str, Any]) -> None:
    """Write one queue file in one step, durably."""
    directory = os.path.dirname(path)  # noqa: PTH120
    temporary = f"{directory}/.new-{os.getpid()}-{time.time_ns()}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o660)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(entry, file, sort_keys=True)
            file.flush()
            os.fsync(file.fileno())
            os.fchmod(file.fileno(), 0o660)
        os.replace(temporary, path)  # noqa: PTH105
    except BaseException:
        os.unlink(temporary)  # noqa: PTH108
        raise
    folder = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def entry_of(commit: str, ref: str) -> dict[str, Any]:
    """Return the queue entry of a commit."""
    return {
        "app": os.environ["SEKISHO_APP"],
        "commit": commit,
        "branch": ref[len(BRANCHES) :],
        "pushed_by": os.environ["SEKISHO_PUSHED_BY"],
    }


def is_forward(old: str, new: str) -> bool:
    """Return whether `new` has `old` in its history; a history that git does not get through counts as another."""
    import subprocess  # noqa: PLC0415

    command = ["git", "merge-base", "--is-ancestor", old, new]
    try:
        return subprocess.run(command, check=False, timeout=GIT_SECONDS).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def objection(old: str, new: str, ref: str) -> str:
    """Return why an update must not come in, or an empty string."""
    if not ref.startswith((BRANCHES, TAGS)):
        return "only branches and tags can be pushed here"
    if len(ref) > MAX_NAME or not ref.isprintable():
        return f"the name has more than {MAX_NAME} characters, or some that cannot be shown"
    if ref != RELEASE_BRANCH or old == ZERO:
        return ""
    if new == ZERO:
        return "the release branch cannot be deleted"
    if not is_forward(old, new):
        return "the release branch cannot be rewritten; add a commit that turns back what is wrong (git revert)"
    return ""


def pushed(wanted: list[tuple[str, str, str]]) -> Iterator[tuple[str, str]]:
    """Yield (commit, ref) of each branch that has a new commit, each commit once: for the release branch if it can."""
    seen = set()
    for _, new, ref in sorted(wanted, key=lambda update: update[2] != RELEASE_BRANCH):
        if ref.startswith(BRANCHES) and new != ZERO and new not in seen:
            seen.add(new)
            yield new, ref


def pre_receive() -> int:
    """Refuse what must not come in; note what comes."""
    wanted = updates()
    refused = [(ref, why) for old, new, ref in wanted if (why := objection(old, new, ref))]
    try:
        if len(wanted) > MAX_REFS:
            say(f"sekisho: refused: {len(wanted)} refs in one push, at most {MAX_REFS}; push them in parts")
            return 1
        for ref, why in refused:
            say(f"sekisho: refused {ref}: {why}")
        if refused:
            return 1
        try:
            for commit, ref in pushed(wanted):
                write_entry(queue_path(commit, "intent"), entry_of(commit, ref))
        except OSError as error:
            say(f"sekisho: refused: the receiver cannot keep the push ({error.strerror}); nothing was stored")
            say("sekisho: remedy: tell the platform team; push again when the disk has space")
            return 1
    except HungUp:
        return 1
    return 0


def post_receive() -> int:
    """Queue every pushed commit, then show what becomes of it."""
    wanted = updates()
    commits = list(pushed(wanted))
    for commit, ref in commits:
        try:
            write_entry(queue_path(commit), entry_of(commit, ref))
            os.unlink(queue_path(commit, "intent"))  # noqa: PTH108
        except OSError:  # the intent stands; the receiver makes it an entry later
            continue
    try:
        for _, new, ref in wanted:
            if ref.startswith(TAGS):
                say(f"sekisho: tag {ref[len(TAGS) :]}: ignored; releases are made from branches")
            elif new == ZERO:
                say(f"sekisho: branch {ref[len(BRANCHES) :]}: deleted; nothing to judge")
        for commit, ref in commits:
            follow(commit, ref)
    except HungUp:
        return 0
    return 0


def follow(commit: str, ref: str) -> None:
    """Show what becomes of one commit, or say that the verdict will follow."""
    import http.client  # noqa: PLC0415

    try:
        watch(commit, ref, http.client.HTTPConnection)
    except HungUp:
        raise
    except (OSError, ValueError, LookupError, TypeError, AttributeError, http.client.HTTPException):
        say(f"sekisho: {commit[:12]} is stored; the verdict will follow: the gatekeeper is being restarted")


def watch(commit: str, ref: str, connect: Any) -> None:
    """Hand a commit to the zone's process and print its events until the verdict."""
    app = os.environ["SEKISHO_APP"]
    host, _, port = os.environ["SEKISHO_ZONE_API"].rpartition(":")
    connection = connect(host, int(port), timeout=CONNECT_SECONDS)
    connection.connect()
    connection.sock.settimeout(ANSWER_SECONDS)
    body = entry_of(commit, ref)
    connection.request("POST", "/pushes", json.dumps(body), {"content-type": "application/json"})
    answer = connection.getresponse()
    said = answer.read(MAX_LINE)
    if not OK <= answer.status < OK + 100:
        raise ValueError(said[:200])
    say(f"sekisho: {app} {commit[:12]} ({body['branch']}) is stored")
    connection.close()  # the server may close as well; a fresh connection has no such race
    connection.timeout = IDLE_SECONDS
    connection.request("GET", f"/pushes/{app}/{commit}/events")
    answer = connection.getresponse()
    if answer.status != OK:
        raise ValueError(answer.status)
    until = time.monotonic() + TOTAL_SECONDS
    while time.monotonic() < until:
        line = answer.readline(MAX_LINE)
        if not line:
            raise ValueError("the stream ended before the verdict")
        if line.strip() and show(json.loads(line)):
            return
    raise ValueError("no verdict yet")


def show(event: dict[str, Any]) -> bool:
    """Print one event; return whether it was the last one."""
    lines = event.get("text")
    for line in lines if isinstance(lines, list) else default_lines(event):
        say(line)
    return bool(event.get("verdict") or event.get("last"))


def default_lines(event: dict[str, Any]) -> list[str]:
    """Return an event in words, where the server sent none."""
    verdict = event.get("verdict")
    if verdict:
        return [f"  {verdict.get('app', '')} {verdict.get('result', '')}"]
    state = event.get("state") or ""
    if not event.get("stage") or state == "start":
        return []
    seconds = event.get("seconds")
    took = f"{seconds:6.2f} s" if isinstance(seconds, (int, float)) else " " * 8
    lines = [f"  {event['stage']:<8} {state:<8} {took}  {event.get('message') or ''}"]
    for reason in event.get("reasons") or []:
        lines.append(f"    - {reason.get('message', '')} [{reason.get('where') or reason.get('rule', '')}]")
        if reason.get("remedy"):
            lines.append(f"      remedy: {reason['remedy']}")
    return lines


def main() -> int:
    """Run the hook whose name this file is called by."""
    if sys.argv[0].endswith("pre-receive"):
        return pre_receive()
    return post_receive()


if __name__ == "__main__":
    sys.exit(main())
