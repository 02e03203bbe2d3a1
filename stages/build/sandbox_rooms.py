"""Containers, one for each run; and containers that were made ready for a run that is not known yet.

A compiler that runs on a virtual machine (Maven) takes longer to get going than to compile. While nothing is built, a
container is started that is in all like the one that the next such step would get: no network, the same limits, the
same image. In it runs what the language wants to have started (`Ahead`), which sees nothing of any workload but the
packages that its lock names. It is handed out once, to a step with the same packages, and goes when its step goes.
Where none is ready, or it has gone, a step gets a new one as ever.

What else such a step may read is laid into the one folder that its container sees, read-only, by links.
"""

from __future__ import annotations

import atexit
import errno
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from sekisho.canonical import Digest, digest_of, digest_of_json
from sekisho.errors import PermanentError, TemporaryError
from stages.build.engine import Engine
from stages.build.language import Ahead
from stages.build.linking import link_tree
from stages.build.pack import Entry, merged
from stages.build.sandbox_command import AHEAD, BEGIN, PIPES, RUN, SCRIPT, Command, begun_script, waiting_script
from stages.build.sandbox_pipes import LOG, OUTPUT, Pipe
from stages.build.unpack import write_tree

IDLE_SECONDS = 1_800.0
"""How long a container waits for a step; what it holds of the machine's memory is given back then."""
_MOST = 4
"""Containers that wait; one more, and the oldest goes."""
_TRIES, _PAUSE = 20, 0.005
"""How often, and how many seconds apart, it is looked whether a container waits for its step: it may have started just
now."""

Make = Callable[[str, str, Mapping[str, Path]], str]
"""Starts a container: image's id, shell script, and what it sees below /in, where an empty name is /in itself; returns
its id."""


@dataclass(frozen=True)
class Room:
    """A container for one run."""

    container: str
    pipes: Mapping[str, int]
    """What comes out of it, to read from."""
    begin: Callable[[], None]
    """Has the step run."""


@dataclass
class _Waiting:
    """A container without a step."""

    folder: Path
    pipes: dict[str, int]
    container: str
    held: ExitStack
    since: float = field(default_factory=time.monotonic)

    @property
    def inputs(self) -> Path:
        return self.folder / "in"


class Rooms:
    """Keeps containers ready. Safe for use by several threads.

    Args:
        engine: the Docker engine.
        make: starts a container.
        work: folder for files in passing.
        idle: seconds after which one that nobody needed goes.
    """

    def __init__(self, engine: Engine, make: Make, work: Path, idle: float = IDLE_SECONDS) -> None:
        self._engine = engine
        self._make = make
        self._work = work
        self._idle = idle
        self._lock = threading.Lock()
        self._ready: dict[Digest, _Waiting] = {}
        self._closed = False
        self._timer: threading.Timer | None = None
        atexit.register(self.close)

    def take(self, image: str, command: Command, held: ExitStack) -> Room | None:
        """Return a container that waits for such a command, with all that the command reads; None where none does.

        Args:
            image: id of the image.
            command: what will run.
            held: gives back what is not the container, when it is closed.
        """
        if command.ahead is None:
            return None
        held.callback(self._engine.later, partial(self._prepare, image, command, command.ahead))
        with self._lock:
            room = self._ready.pop(_key(image, command, command.ahead), None)
        if room is None:
            return None
        begin = self._opened(room)
        if begin is None:
            self._drop(room)
            return None
        held.callback(self._leave, room)
        held.callback(os.close, begin)
        try:
            furnish(room.inputs, command)
        except BaseException:
            self._engine.remove(room.container)
            raise
        return Room(room.container, room.pipes, partial(_begin, begin))

    def close(self) -> None:
        """Give back all that wait, and make none any more."""
        with self._lock:
            rooms, self._closed = list(self._ready.values()), True
            self._ready.clear()
            if self._timer is not None:
                self._timer.cancel()
        for room in rooms:
            self._drop(room)
        atexit.unregister(self.close)

    def _prepare(self, image: str, last: Command, ahead: Ahead) -> None:
        """Make one ready for a command such as the last one, if none is. One call at a time."""
        key = _key(image, last, ahead)
        with self._lock:
            if key in self._ready or self._closed:
                return
        with suppress(TemporaryError, PermanentError, OSError):
            room = self._made(image, last, ahead)
            with self._lock:
                closed = self._closed
                if not closed:
                    self._ready[key] = room
            if closed:
                self._drop(room)
        self._expire()

    def _made(self, image: str, last: Command, ahead: Ahead) -> _Waiting:
        with ExitStack() as stack:
            folder = Path(tempfile.mkdtemp(dir=self._work, prefix="ready-"))
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            inside = folder / "in"
            for path in (folder, inside, *(inside / name for name in (PIPES, AHEAD, RUN, *last.lasting))):
                path.mkdir(exist_ok=True)
                path.chmod(0o755)  # whatever the umask: the sandbox's user reads it
            entries = [Entry(name, "file", size=len(data), data=data) for name, data in sorted(ahead.files.items())]
            write_tree(merged([entries], where=AHEAD), inside / AHEAD)
            way = inside / PIPES
            pipes = {name: stack.enter_context(Pipe(way / name)) for name in (OUTPUT, LOG)}
            os.mkfifo(way / BEGIN)
            (way / BEGIN).chmod(0o644)
            inputs = {name: stack.enter_context(hold()) for name, hold in last.lasting.items()}
            container = self._make(image, waiting_script(ahead, last.directory), {"": inside, **inputs})
            return _Waiting(folder, pipes, container, stack.pop_all())

    def _opened(self, room: _Waiting) -> int | None:
        """Open the pipe at whose other end a container waits for its step; None where no container does."""
        for _ in range(_TRIES):
            try:
                return os.open(room.inputs / PIPES / BEGIN, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
            except OSError as error:
                if error.errno != errno.ENXIO:  # nobody reads
                    return None
            time.sleep(_PAUSE)
        return None

    def _expire(self) -> None:
        """Let go what waits for too long, or is too much."""
        now = time.monotonic()
        with self._lock:
            oldest = sorted(self._ready.items(), key=lambda item: item[1].since)
            gone = [key for key, room in oldest if now - room.since >= self._idle]
            gone += [key for key, _ in oldest[:-_MOST] if key not in gone]
            rooms = [self._ready.pop(key) for key in gone]
            if self._timer is not None:
                self._timer.cancel()
            self._timer = None
            if self._ready and not self._closed:
                first = min(room.since for room in self._ready.values())
                self._timer = threading.Timer(first + self._idle - now, self._expire)
                self._timer.daemon = True
                self._timer.start()
        for room in rooms:
            self._drop(room)

    def _drop(self, room: _Waiting) -> None:
        """Let a container go that got no step."""
        self._engine.remove(room.container)
        self._leave(room)

    def _leave(self, room: _Waiting) -> None:
        self._engine.later(room.held.close)


def furnish(folder: Path, command: Command) -> None:
    """Lay all that a command reads into the folder that its container sees, and the command itself."""
    for name in set(command.inputs) - set(command.lasting):
        link_tree(command.inputs[name], folder / name)
    place = folder / RUN / SCRIPT
    place.write_text(begun_script(command), encoding="utf-8")
    place.chmod(0o644)


def _begin(pipe: int) -> None:
    try:
        os.write(pipe, b"\n")
    except BrokenPipeError as error:
        raise TemporaryError("A container that was ready has gone.", where="Docker engine", delay=1.0) from error


def _key(image: str, command: Command, ahead: Ahead) -> Digest:
    """Return the digest of all that a container that is made ready is made from."""
    return digest_of_json(
        {
            "image": image,
            "directory": command.directory,
            "command": list(ahead.command),
            "files": {name: digest_of(data) for name, data in ahead.files.items()},
            "inputs": {name: str(command.inputs[name]) for name in command.lasting},
        }
    )
