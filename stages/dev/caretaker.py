"""`python -m stages.dev.caretaker`: clears up after a `sekisho dev` that could not do so itself.

It waits at a pipe, whose other end the command holds. A command that ends well says so; one that was killed does not,
its end of the pipe closes, and its namespace is removed if it still is that command's, and then what its builds left in
the Docker engine. It loads nothing until then.
"""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from sekisho.programs import program, surroundings
from stages.dev.leftovers import Leftovers

_DONE = b"done\n"
_ATTEMPTS = 20
_PAUSE = 3.0


class Caretaker:
    """The waiting process, as the command sees it.

    Args:
        kubeconfig: of the dev cluster, with the developer's rights.
        context: its context; empty for its current one.
        namespace: what to remove.
        holder: who must hold it still.
        leftovers: what to clear when that was so.
    """

    def __init__(
        self, kubeconfig: Path, context: str, namespace: str, holder: str, leftovers: Leftovers | None = None
    ) -> None:
        builds = (str(leftovers.docker), leftovers.registry, str(leftovers.work)) if leftovers else ()
        self._process = subprocess.Popen(
            program(__name__, str(kubeconfig), context, namespace, holder, *builds),
            env=surroundings(),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            # Ctrl-C and a closed terminal reach the command, not this one.
            start_new_session=True,
        )

    def dismiss(self) -> None:
        """Say that there is nothing to clear up."""
        if self._process.stdin is not None:
            try:
                self._process.stdin.write(_DONE)
                self._process.stdin.close()
            except OSError:
                return  # gone itself: nothing to tell
        self._process.wait(timeout=10)


def main(arguments: list[str]) -> int:
    """Wait, and clear up if need be; returns the exit code."""
    kubeconfig, context, namespace, holder, *builds = arguments
    if sys.stdin.buffer.read(len(_DONE)) == _DONE:
        return 0
    from sekisho.errors import SekishoError, TemporaryError  # noqa: PLC0415 -- most of the time none of this is ever needed
    from sekisho.kube import Kube  # noqa: PLC0415
    from stages.dev.holding import remove_if_held  # noqa: PLC0415

    kube = Kube.connect(Path(kubeconfig), context)
    for _ in range(_ATTEMPTS):
        try:
            removed = remove_if_held(kube, namespace, holder)
        except TemporaryError:
            time.sleep(_PAUSE)
        else:
            if removed and builds:
                # Now: the app's next session waits until the namespace is gone, and builds nothing before that.
                with suppress(SekishoError, OSError):  # else it is for that session to clear
                    docker, registry, work = builds
                    Leftovers(Path(docker), registry, Path(work)).clear()
            return 0
    return 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
