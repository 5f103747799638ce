"""DockerGlass: one container per guest, one attached pipe, no other contact.

A guest's container is made by its profile, attached before it starts (nothing can be missed), compared with the
profile once it runs, and not auto-removed: first its state is read. What is left then runs no more, and is removed in
the background. Our end of the pipe is the guest's life line: it closes when this process dies, and it is always closed
*before* anything is killed, because a daemon that waits for a full pipe answers no `kill`, `inspect` or `rm` until
then. A watchdog does the same at the deadline.

Not covered: a kernel, runtime or GPU-driver exploit; a daemon that lies; a frozen driver, whose own watchdog is frozen
too: its guests end by their lease and deadline, and `kill_all` ends them from outside once the driver is killed.
"""

from __future__ import annotations

import contextlib
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from bellglass.doors.docker import image, reaper, selfcheck
from bellglass.doors.docker.engine import Engine, Gone, NotRunning
from bellglass.doors.docker.keeper import Keeper, Keepers, read_again, why_not_trusted
from bellglass.doors.docker.meddling import Meddling
from bellglass.doors.docker.meter import Meter
from bellglass.doors.docker.pipe import AttachedPipe
from bellglass.doors.docker.profile import (
    MAPPED_UIDS,
    UIDS,
    Profile,
    create_body,
    differences,
    profile_for,
    seccomp_file,
)
from bellglass.errors import BellglassError, GuestFault, SetupError
from bellglass.line.canary import Beside, Pulse, least, wait_until_free
from bellglass.line.company import company
from bellglass.line.intake import POLICIES, Event
from bellglass.line.wire import Line, greet
from bellglass.paths import content_root, state_home
from bellglass.ports import GuestSpec
from bellglass.records import GuestExit, Json, Role, Strain

READY_SECONDS = 60.0
BY_SIGNAL = 128  # what an exit code is above, where a signal ended the process
STATE_SECONDS = 3.0  # how long the engine may take to notice that a container has ended
WATCH_SECONDS = 0.25
DEADLINE_GRACE_SECONDS = 2.0  # the guest's own supervisor goes first


class DockerGuest:
    """ports.Guest over a container."""

    def __init__(
        self,
        engine: Engine,
        container: str,
        pipe: AttachedPipe,
        line: Line,
        deadline: float,
        remove: Callable[[str], None],
        require_kept: Callable[[], None],
        meddling: Meddling,
    ) -> None:
        self._engine, self.id, self._remove = engine, container, remove
        self.pipe, self.line = pipe, line
        self.deadline = deadline  # on the monotonic clock
        self._require_kept, self._meddling = require_kept, meddling
        self.meter: Meter | None = None
        self._expired, self._meddled = False, ""
        self._ending = threading.Lock()
        self._exit: GuestExit | None = None

    def send(self, frame_type: str, body: bytes | memoryview = b"", **fields: Json) -> None:
        with self._explained():
            self.line.send(frame_type, body, **fields)

    def send_file(self, name: str, data: bytes | memoryview) -> None:
        with self._explained():
            self.line.send_file(name, data)

    def recv(self, timeout: float) -> Event | None:
        with self._explained():
            return self.line.recv(timeout)

    def cpu_seconds(self) -> float:
        return self.meter.cpu_seconds() if self.meter is not None else 0.0

    @property
    def ended(self) -> bool:
        return self._exit is not None

    def sample(self) -> None:
        if self.meter is not None and not self.ended:
            self.meter.sample()

    def expire(self) -> None:
        """The watchdog's: pipe first, then the kill. What is left (state, removal) is `end`'s."""
        if not self._expired and not self.ended:
            self._meddled = self._meddling.of(self.id, ended=False)  # before we do something to it ourselves
            self._expired = True
            self.pipe.close()
            with contextlib.suppress(BellglassError):  # `end` and the reaper try again
                self._engine.kill(self.id)

    def end(self) -> GuestExit:
        with self._ending:
            if self._exit is None:
                self.sample()
                broke_off = self.line.broke_off
                self.line.close()
                self._exit = self._finish(broke_off)
                self.pipe.dispose()
            return self._exit

    def _finish(self, broke_off: bool) -> GuestExit:
        """Kill, read the state, have it removed. An engine that fails leaves work for the reaper, never an error."""
        code, signal, silent = None, 0, ""
        killed = "" if self.meter is None else self.meter.killed_for_memory()
        known = killed == "guest"
        try:
            if broke_off and not self._expired:
                signal = self._ended_from_outside()
            elif not self._expired:  # one that was paused, say, until its time was over
                self._meddled = self._meddling.of(self.id, ended=False)
            self._engine.kill(self.id)
            until = time.monotonic() + STATE_SECONDS
            while (facts := self._engine.inspect(self.id)) is not None:
                state = facts.get("State") or {}
                if not state.get("Running") or time.monotonic() > until:
                    code, known = state.get("ExitCode"), known or (not killed and bool(state.get("OOMKilled")))
                    break
                time.sleep(0.01)
        except BellglassError as fault:
            silent = fault.found or fault.thing
        self._remove(self.id)
        return GuestExit(code, known, 0 if known else signal, self._meddled, silent, killed == "machine")

    def _ended_from_outside(self) -> int:
        """The signal that its first process ended by, although nobody here has sent one. Notes who did, if known."""
        facts = self._engine.inspect(self.id)
        state = {} if facts is None else facts.get("State") or {}
        ended = not state.get("Running")
        self._meddled = self._meddling.of(self.id, ended=ended)
        code = state.get("ExitCode") or 0
        return code - BY_SIGNAL if ended and code > BY_SIGNAL else 0

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """A guest that just vanished may have had a reason that only the host knows."""
        try:
            yield
        except GuestFault as fault:
            if fault.code not in ("lost", "crashed"):
                raise
            self._require_kept()
            if self._expired or time.monotonic() > self.deadline:
                raise GuestFault("timeout", "its absolute deadline") from fault
            if self.out_of_memory():
                raise GuestFault("memory", "the kernel killed a process of it") from fault
            raise

    def out_of_memory(self) -> bool:
        if self._exit is not None:
            return self._exit.out_of_memory
        if self.meter is not None and (killed := self.meter.killed_for_memory()):
            return killed == "guest"
        with contextlib.suppress(BellglassError):
            facts = self._engine.inspect(self.id)
            return bool(facts and (facts.get("State") or {}).get("OOMKilled"))
        return False


class DockerGlass:
    name = "docker"
    sealed = True

    def __init__(
        self,
        engine: Engine | None = None,
        *,
        runtime: str | None = None,
        device: str = "cpu",
        warm: bool = True,
        prove: bool = True,
        keep: bool = True,
        loop: str = "",
    ) -> None:
        """SetupError when the engine or an image is missing.

        For tests: `warm=False` makes guests that don't import torch ahead; `prove=False` leaves out the self-check,
        by which the first `open` refuses a daemon whose limits don't hold; `keep=False` holds no image in memory.
        """
        self._owns_engine = engine is None
        self._engine = engine or Engine.connect()
        self._runtime = runtime or ""
        self._extra = () if warm else ("--cold",)
        known = self._engine.facts().runtimes
        if self._runtime and self._runtime not in known:
            raise SetupError(
                f"the container runtime {self._runtime!r}",
                f"the engine has {', '.join(known)}",
                "gVisor registered with Docker",
                "runsc install && sudo systemctl reload docker",
                code="runtime_missing",
            )
        self._images = image.find_all(self._engine, device)
        self.content = " ".join(sorted({self._images[role].id for role in (Role.TRAIN, Role.PREDICT)}))
        lists = (content_root() / "sandbox").glob("seccomp*.json")
        self._seccomp = {path.name: path.read_text("utf-8") for path in lists}
        self._guests: list[DockerGuest] = []
        self._lock = threading.Lock()
        # What has ended is removed in the background: a tenth of a second that no trial has to wait for.
        self._removals = ThreadPoolExecutor(max_workers=2, thread_name_prefix="docker-remove")
        self._proving, self._proven = threading.Lock(), not prove
        # Why bundle code can't be confined beyond its container here; empty where it is.
        self._bare = "confining bundle code beside a GPU's driver is untried" if device != "cpu" else ""
        self._keep, self._keepers = keep, Keepers(self._engine)
        self._loop = {"loop": loop} if loop else {}
        self._canary = Beside()
        self._pulse, self._meddling = Pulse(), Meddling(self._engine, reaper.own_labels())
        self._closing = threading.Event()
        self._watchdog: threading.Thread | None = None

    def find_why_alone(self) -> str:
        self._prove()
        if self._bare:
            return self._bare
        if not self._keep:
            return "this glass keeps no image in memory"
        untrusted = why_not_trusted(self._engine.facts(), self._runtime)
        return untrusted or self.keeper(Role.PREDICT).why_alone

    @contextlib.contextmanager
    def company(self, *, alone: bool = False, check: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Taken where it is not needed, too: a loop beside this one may need it. A guest that was quick to end may not
        have noticed that a keeper fell, so that is asked once more at the end."""
        alone = alone and bool(self.find_why_alone())
        with company(state_home() / "company", alone=alone, check=check):
            if alone:
                read_again(self._engine, self._images[Role.PREDICT], reaper.owner_labels("reader", self._loop))
            yield
            self._keepers.require()

    def keeper(self, role: Role) -> Keeper:
        """Of the image for guests of this role; started when it isn't there yet."""
        return self._keepers.of(self._images[role], self._loop)

    def open(self, spec: GuestSpec) -> DockerGuest:
        self._prove()
        if self._keep:
            self.keeper(spec.role)
        self._canary.start()
        self._meddling.listen()
        profile = self._profile(spec)
        guest = self._start(spec, profile)
        with self._lock:
            self._guests = [each for each in self._guests if not each.ended] + [guest]
            if self._watchdog is None:
                self._watchdog = threading.Thread(target=self._watch, name="docker-watchdog", daemon=True)
                self._watchdog.start()
        try:
            self._admit(guest, profile)
            greet(guest.line, spec, READY_SECONDS)
        except BellglassError as fault:
            exit_ = guest.end()
            raise self._why_not_ready(spec, guest, exit_, fault) from fault
        return guest

    def strain(self, since: float) -> Strain:
        return Strain(least([self._canary, self._keepers.canary()], since), self._pulse.late(since))

    def wait_until_free(self, seconds: float, check: Callable[[], None]) -> str:
        until = time.monotonic() + seconds
        while True:
            check()
            try:
                self._engine.ping()
                break
            except SetupError as silent:
                if time.monotonic() > until:
                    return silent.found
            time.sleep(1.0)
        if self._keepers.forget_fallen():
            self._end_guests()
        return wait_until_free([self._canary, self._keepers.canary()], until - time.monotonic(), check)

    def reap(self) -> int:
        return reaper.reap(self._engine)

    def close(self) -> None:
        self._closing.set()
        self._end_guests()
        self._removals.shutdown()
        self._keepers.close()
        self._meddling.close()
        self._pulse.close()
        self._canary.close()
        if self._owns_engine:
            self._engine.close()

    def _end_guests(self) -> None:
        with self._lock:
            guests, self._guests = self._guests, []
        reaper.side_by_side(DockerGuest.end, guests)

    def _remove(self, container: str) -> None:
        def remove() -> None:
            with contextlib.suppress(BellglassError):  # the reaper tries again
                self._engine.remove(container)

        try:
            self._removals.submit(remove)
        except RuntimeError:  # the glass is closed, and nothing waits for this guest
            remove()

    def _prove(self) -> None:
        with self._proving:
            if not self._proven:
                selfcheck.require_sealed(self._engine, runtime=self._runtime)
                self._bare = self._bare or selfcheck.why_bare(self._engine, self._runtime)
                self._proven = True

    def _profile(self, spec: GuestSpec) -> Profile:
        found = self._images[spec.role]
        uid = draw_uid(self._engine)
        profile = profile_for(
            spec,
            uid=uid,
            image=found.id,
            image_env=found.env,
            labels={**reaper.labels_of(spec), reaper.UID_LABEL: str(uid)},
            seccomp=self._seccomp[seccomp_file(spec, bare=bool(self._bare))],
            runtime=self._runtime,
        )
        bare = ("--bare",) if self._bare else ()
        return replace(profile, command=profile.command + self._extra + bare)

    def _start(self, spec: GuestSpec, profile: Profile) -> DockerGuest:
        """Create, attach, start: in this order, so that no byte is missed and no guest runs without its life line."""
        name = f"bellglass-{spec.role}-{secrets.token_hex(6)}"
        deadline = time.monotonic() + spec.deadline_seconds
        end: socket.socket | None = None
        try:
            container = self._engine.create(name, create_body(profile))
            end = self._engine.attach(container)
            self._engine.start(container)
        except (BellglassError, Gone, NotRunning) as fault:
            if end is not None:
                end.close()
            with contextlib.suppress(BellglassError):  # by name: a create that timed out may have made it
                self._engine.remove(name)
            if isinstance(fault, BellglassError):
                raise
            found = f"its container vanished: {fault}"
            raise SetupError(
                f"a {spec.role} guest", found, "a daemon that keeps it", "bellglass doctor", code="container_vanished"
            ) from fault
        pipe = AttachedPipe(end)
        line = Line(pipe, POLICIES[spec.role])
        return DockerGuest(
            self._engine, container, pipe, line, deadline, self._remove, self._keepers.require, self._meddling
        )

    def _admit(self, guest: DockerGuest, profile: Profile) -> None:
        """Nothing of a bundle has been sent yet: a container that is not as it should be never gets any."""
        facts = self._engine.inspect(guest.id)
        if facts is None:
            raise SetupError(
                "a container", "gone at once", "a daemon that keeps it", "bellglass doctor", code="container_vanished"
            )
        pid = int((facts.get("State") or {}).get("Pid") or 0)
        guest.meter = Meter(guest.id, pid, lambda: self._engine.cpu_seconds(guest.id))
        wrong = differences(facts, profile)
        if wrong:
            raise SetupError(
                "the container of a guest",
                "; ".join(wrong[:4]),
                "the frozen profile",
                "bellglass doctor",
                code="container_not_as_asked",
            )

    def _why_not_ready(
        self, spec: GuestSpec, guest: DockerGuest, ended: GuestExit, fault: BellglassError
    ) -> BellglassError:
        if not isinstance(fault, GuestFault):
            return fault
        if ended.out_of_memory:
            return GuestFault("memory", f"{spec.memory_mb} MB do not suffice to get ready")
        words = guest.pipe.stderr.decode("utf-8", "replace").strip().splitlines()
        if fault.code == "lost" and words:
            found = f"it ended with code {ended.code}: {words[-1][:200]}"
            return SetupError(
                f"the {spec.role} guest",
                found,
                "an image whose guest starts",
                "bellglass image build",
                code="guest_does_not_start",
            )
        return fault

    def _watch(self) -> None:
        while not self._closing.wait(WATCH_SECONDS):
            with self._lock:
                guests = list(self._guests)
            fallen = self._keepers.fallen()
            for guest in guests:
                guest.sample()
                if fallen or time.monotonic() > guest.deadline + DEADLINE_GRACE_SECONDS:
                    guest.expire()


_DRAWING = threading.Lock()
_DRAWN: set[int] = set()  # by this process; the engine lists a guest a moment later


def draw_uid(engine: Engine) -> int:
    """One that no living guest has: of a thousand million by chance; of the few of a daemon that maps ids, one that no
    container of ours has and that this process has not drawn before."""
    if not engine.facts().maps_ids:
        return secrets.choice(UIDS)
    with _DRAWING:
        taken = {each.labels.get(reaper.UID_LABEL) for each in engine.containers({})}
        left = [uid for uid in MAPPED_UIDS if str(uid) not in taken and uid not in _DRAWN]
        if not left:
            _DRAWN.clear()  # those that are in use are listed by now
            left = [uid for uid in MAPPED_UIDS if str(uid) not in taken]
        _DRAWN.add(uid := secrets.choice(left))
        return uid
