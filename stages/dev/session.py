"""One run of `sekisho dev`: everything that is opened at its beginning and closed at its end."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

from sekisho.developers import namespace_of
from sekisho.errors import PermanentError, Refusal, SekishoError, TemporaryError
from sekisho.kube import Kube
from sekisho.kube_forward import Dialer
from sekisho.model import Binding, Image
from sekisho.score import SCORE, load_score, read_score, reader
from sekisho.standard import load_standard
from sekisho.vault import FileVault
from stages.bind import Services, meet
from stages.dev.caretaker import Caretaker
from stages.dev.cluster import Cluster
from stages.dev.forward import Forward, listen
from stages.dev.hint import Gate, Hint
from stages.dev.holding import BEAT_SECONDS, LEASE_SECONDS, Holding
from stages.dev.image import Made, Workbench
from stages.dev.leftovers import Leftovers, work_folder
from stages.dev.logs import Logs
from stages.dev.objects import Composition, compose
from stages.dev.place import Place
from stages.dev.rollout import Outcome, Pods, Rollout
from stages.dev.screen import Screen
from stages.dev.workcopy import Copy
from stages.render import render


def app_of(folder: Path) -> str:
    """Return the name of the app in a folder, as its score.yaml says.

    Raises:
        Refusal: there is no score.yaml, or it is not valid.
    """
    return load_score(read_score(folder), SCORE, reader(folder)).name


class Session:
    """What the loop works with.

    Args:
        folder: the working copy.
        place: the developer's place.
        screen: what the developer sees.
        port: the port of this machine; 0 chooses.
        debug: let faults of the program through.
        optimised: compile each version as for a release.
    """

    def __init__(
        self,
        folder: Path,
        place: Place,
        screen: Screen,
        *,
        port: int = 0,
        debug: bool = False,
        optimised: bool = False,
    ) -> None:
        self.folder = folder
        self.place = place
        self.screen = screen
        self.debug = debug
        self.app = app_of(folder)
        self.namespace = namespace_of(place.developer, self.app)
        self.kube = Kube.connect(place.kubeconfig, place.context)
        self._port = port
        self._standard = load_standard(place.policies)
        self._vault = FileVault(place.root / "vault" / self.app)
        self._dialer = Dialer(self.kube)
        self._holding = Holding(self.kube, place.developer, self.namespace)
        self._forwards: dict[int, Forward] = {}
        self._reserved: socket.socket | None = None
        self._needs: tuple[tuple[str, str], ...] = ()
        self._stop = threading.Event()
        self._closing = contextlib.ExitStack()
        self.bench = Workbench(place, self.app, folder, optimised=optimised)
        self.cluster = Cluster(self.kube, self._vault, self.namespace, screen.note)

    def open(
        self,
        *,
        lost: Callable[[SekishoError], None],
        changed: Callable[[], None],
        outcome: Callable[[Outcome], None],
        hint: Callable[[Hint], None],
    ) -> None:
        """Take the namespace and begin to watch it.

        Args:
            lost: told when the namespace is no longer this process's.
            changed: told when the pods changed.
            outcome: told what became of a version.
            hint: told what the gate would say.

        Raises:
            Refusal: this app runs already, or the namespace is not the developer's.
            TemporaryError: the dev cluster is not reachable.
            PermanentError: the port that was asked for is taken.
        """
        self.screen.opened(self.app, self.place.developer, self.namespace)
        place = self.place
        if self._port:
            # Before anything is taken: without the port that was asked for there is nothing to begin.
            self._reserved = listen(self.namespace, self._port, exactly=True)
            self._closing.callback(self._reserved.close)
        # First of all: from the moment that the namespace is taken, somebody is there to clear up.
        caretaker = Caretaker(
            place.kubeconfig, place.context, self.namespace, self._holding.holder, self._leftovers(self.app)
        )
        self._closing.callback(self._give_back, caretaker)
        self._holding.take(self.screen.note)
        threading.Thread(target=self._keep, args=(lost,), name="heartbeat", daemon=True).start()
        with contextlib.suppress(SekishoError):  # without an engine nothing is built either, and that is told then
            self.bench.sweep()
        # Not before the namespace is held: another process may be using the copy.
        self.copy = Copy(self.folder, place.root / "copies" / self.app)
        self.gate = Gate(place.policies, hint, self.folder)
        self._closing.callback(self.gate.close)
        self.pods = Pods(self.kube, self.namespace, self.app, changed)
        self.logs = Logs(self.kube, self.namespace, self.screen.log)
        self.rollout = Rollout(self._dialer, self.pods, self.namespace, outcome)
        self._closing.callback(self.rollout.forget)

    def composed(self, made: Made) -> Composition:
        """Return all objects of a build: rendered as by the gate, bound by the dev profile, tuned for the dev cluster.

        Raises:
            Refusal: score.yaml is not valid, was renamed, or needs what the dev zone does not offer.
        """
        data = read_score(self.copy.folder)
        read = reader(self.copy.folder)
        name = load_score(data, SCORE, read).name
        if name != self.app:
            raise Refusal(
                f"The app is called {name} now, and began as {self.app}.",
                where=SCORE,
                remedy="Change the name back, or end this with Ctrl-C and start again.",
            )
        image = made.image
        manifests = render(data, app=self.app, image=image.reference, launcher=image.launcher, where=SCORE, read=read)
        services = Services(self._standard, self.place.root / "secrets")
        met = meet(manifests, self.place.profile, self._vault, services, namespace=self.namespace)
        self._tell_needs(met.bindings)
        return compose(
            met.objects,
            app=self.app,
            namespace=self.namespace,
            image=image.reference,
            zone=self.place.profile.zone,
            language=image.language,
        )

    def reach(self, composition: Composition) -> None:
        """Have a port of this machine for each port of the workload's Service."""
        wanted = {port.port: port for port in composition.ports}
        for number in set(self._forwards) - set(wanted):
            self._forwards.pop(number).close()
        for number, port in wanted.items():
            if number in self._forwards:
                continue
            self._forwards[number] = Forward(self._dialer, self.namespace, port.target, self._listener(number))
            self.screen.address(port.name, self._forwards[number].url)

    def point_to(self, pod: str, composition: Composition) -> None:
        """Send callers to a pod."""
        for port in composition.ports:
            if forward := self._forwards.get(port.port):
                forward.point_to(pod, port.target)

    def hang_up(self) -> None:
        """End idle connections to the program, so that it can end at once."""
        for forward in self._forwards.values():
            forward.hang_up()

    def vouch(self, image: Image) -> None:
        """Attach the developer's statement to an image, beside the work."""

        def attach() -> None:
            with contextlib.suppress(SekishoError):  # nobody waits for it, and nobody believes it
                self.bench.vouch(image)

        threading.Thread(target=attach, name="statement", daemon=True).start()

    def close(self) -> None:
        """Give everything back: the namespace with all that is in it goes."""
        self._stop.set()
        for forward in self._forwards.values():
            forward.close()
        self._closing.close()
        self.bench.close()

    def _give_back(self, caretaker: Caretaker) -> None:
        # When this is interrupted, the caretaker was not dismissed, and does it.
        try:
            removed = self._holding.release()
        except TemporaryError as error:
            self.screen.note(f"{self.namespace} cannot be removed just now and will be: {error.what}")
            return
        except PermanentError:
            removed = False  # it never was ours
        caretaker.dismiss()
        if removed:
            self.screen.closed(f"{self.namespace} is being removed, with all that was in it.")

    def _listener(self, number: int) -> socket.socket:
        """Return where callers of a port of the Service come in; the first is the one that was asked for."""
        reserved, self._reserved = self._reserved, None
        asked = 0 if self._forwards else self._port
        return reserved or listen(self.namespace, asked or number, exactly=bool(asked))

    def _leftovers(self, app: str) -> Leftovers:
        place = self.place
        return Leftovers(place.docker, place.registry, work_folder(place.root, app))

    def _clear(self, namespace: str) -> None:
        """Clear what the builds of another app left, whose namespace is on its way out."""
        for folder in work_folder(self.place.root, self.app).parent.iterdir():
            if namespace_of(self.place.developer, folder.name) == namespace:
                self._leftovers(folder.name).clear()

    def _tell_needs(self, bindings: tuple[Binding, ...]) -> None:
        needs = tuple((item.need, f"{item.type} by {item.provider}") for item in bindings if item.secret)
        for name, text in needs:
            if (name, text) not in self._needs:
                self.screen.need(name, text)
        self._needs = needs

    def _keep(self, lost: Callable[[SekishoError], None]) -> None:
        """Say every few seconds that this process lives, and at first clear away what died."""
        with contextlib.suppress(SekishoError):
            for name in self._holding.sweep():
                self.screen.note(f"Removed {name}, which a command that was killed had left.")
                self._clear(name)
        beaten = time.monotonic()
        while not self._stop.wait(BEAT_SECONDS):
            try:
                self._holding.beat()
                beaten = time.monotonic()
            except TemporaryError as error:
                if time.monotonic() - beaten > LEASE_SECONDS:
                    lost(error)
                    return
            except PermanentError as error:
                if not self._stop.is_set():
                    lost(error)
                return


def debugging() -> bool:
    """Tell whether faults of the program shall be shown whole."""
    return os.environ.get("SEKISHO_DEBUG") == "1"
