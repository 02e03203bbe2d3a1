"""A command in the sandbox, and the shell script that carries it out there. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from stages.build.language import Ahead
from stages.build.sandbox_pipes import LOG, OUTPUT

INPUTS = "/in"
"""Folder in the sandbox whose entries are what the step may read."""
SEED, OVERLAY, INDEX, PIPES = "seed", "overlay", "index", "pipes"
"""Inputs with a meaning: `seed` and then `overlay` are copied into the step's folder; with `index`, a forwarder from
127.0.0.1:8001 to its socket runs beside the step; `pipes` is the way out."""
AHEAD, RUN, BEGIN, SCRIPT = "ahead", "run", "begin", "step.sh"
"""In a container that was made ready: what runs before there is a step, the step, and the pipe that says to begin."""
Hold = Callable[[], AbstractContextManager[Path]]
"""Gives an input's path, and keeps what is there until it is closed."""
KILLED, ITSELF_KILLED, STARVED = 137, 97, 96
"""Exit status of a container that was killed; of a step whose command was; of one that failed for its memory."""
_KILLS = "/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control"
"""Where the kernel counts, before it kills, what it ends for its memory: cgroup v2 (Documentation/admin-guide/
cgroup-v2.rst) and v1. The engine hears of it by an event, which may come late or never when the container ends."""

# 137 is left to what happens to the container as a whole.
_FAILED = (
    f"status=$?; if [ $status = {KILLED} ]; then status={ITSELF_KILLED}; fi; "
    f"for kills in {' '.join(_KILLS)}; do if [ -r $kills ]; then while read -r name count; do "
    f"case $name=$count in oom_kill=0) ;; oom_kill=*) status={STARVED} ;; esac; done <$kills; fi; done; exit $status"
)
"""What the shell does with the status of a command that failed."""


@dataclass(frozen=True)
class Command:
    """One command and all that it sees."""

    command: tuple[str, ...]
    directory: str = "."
    """Folder below /out to run in."""
    inputs: Mapping[str, Path] = field(default_factory=dict)
    """Name and path of what it may read, as /in/<name>."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables; never a secret."""
    outputs: tuple[str, ...] = ()
    """What to give back, as paths below /out; empty gives back all. What is not there is left out."""
    what: str = "build step"
    """What this is, for messages."""
    seconds: int | None = None
    """Longest run, if shorter than the limit."""
    ahead: Ahead | None = None
    """What its container may do before all of the above is known; None where that helps nothing."""
    lasting: Mapping[str, Hold] = field(default_factory=dict)
    """Those inputs that the next such command has as well, and how each is kept until then."""


def script(command: Command, inputs: Iterable[str]) -> str:
    """Return the shell script of a step: copy in, run, give back.

    Args:
        command: the step.
        inputs: names of what it may read.
    """
    names = set(inputs)
    folder = shlex.quote(f"/out/{command.directory}")
    way = f"{INPUTS}/{PIPES}"
    lines = ["set -e", f"exec >{way}/{LOG} 2>&1 </dev/null", f"mkdir -p {folder}"]
    lines += [f"cp -R {INPUTS}/{name}/. {folder}" for name in (SEED, OVERLAY) if name in names]
    if INDEX in names:
        forward = f"UNIX-CONNECT:{INPUTS}/{INDEX}/index.sock"
        lines.append(f"socat TCP-LISTEN:8001,bind=127.0.0.1,fork,reuseaddr {forward} &")
        ask = "socat -u OPEN:/dev/null TCP:127.0.0.1:8001"
        lines.append(f"tries=0; until {ask} 2>/dev/null || [ $tries = 50 ]; do tries=$((tries + 1)); sleep 0.1; done")
    lines += [f"cd {folder}", f"{shlex.join(command.command)} || {{ {_FAILED}; }}", "cd /out"]
    tar = f"exec tar --create --file={way}/{OUTPUT} --format=gnu --hard-dereference --numeric-owner"
    if command.outputs:
        wanted = " ".join(shlex.quote(f"./{path}") for path in command.outputs)
        lines.append(f'set -- ; for path in {wanted}; do if [ -e "$path" ]; then set -- "$@" "$path"; fi; done')
        lines.append(f'{tar} --files-from=/dev/null -- "$@"')
    else:
        lines.append(f"{tar} .")
    return "\n".join(lines)


def waiting_script(ahead: Ahead, directory: str) -> str:
    """Return the shell script of a container that is made ready: start what takes long, wait, carry the step out."""
    way, folder = f"{INPUTS}/{PIPES}", shlex.quote(f"/out/{directory}")
    lines = ["set -e", f"exec >{way}/{LOG} 2>&1 </dev/null", f"mkdir -p {folder}", f"cd {folder}"]
    lines += [f"{shlex.join(ahead.command)} &"] if ahead.command else []
    lines += [f"read -r _ <{way}/{BEGIN}", "cd /out", f"exec /bin/sh {INPUTS}/{RUN}/{SCRIPT}"]
    return "\n".join(lines)


def begun_script(command: Command) -> str:
    """Return the script of a step in a container that was made ready, which did not know the step's variables."""
    exports = [f"export {name}={shlex.quote(value)}" for name, value in sorted(command.environment.items())]
    return "\n".join([*exports, script(command, command.inputs)])
