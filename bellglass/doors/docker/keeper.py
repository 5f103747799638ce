"""A keeper per image: a container of trusted code that holds every file of the image in memory while guests live.

Guests of one image share the page cache of its files. Where a guest can make a page go, and another can tell whether it
was there, they have a channel without timing and without an error. A keeper makes the state constant: what is mapped
can't be dropped, what is locked can't be reclaimed. sandbox/keeper.py does it, in a control group of its own, so that
no guest is charged for the image and none can push it out under its own limit.

What a keeper can't give is said as a reason, never raised: the glass then lets guests answer one at a time, and reads
the image again before the one that proves.

Not covered: other drivers of storage than those named here, until `doctor` has sent bits through them; what a guest
learns from the time that a page takes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import queue
import secrets
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass

from bellglass.doors.docker.engine import Engine, Facts, Gone, NotRunning
from bellglass.doors.docker.image import Image
from bellglass.doors.docker.pipe import AttachedPipe
from bellglass.doors.docker.profile import KEEPER_OOM_SCORE, PYTHON, Profile, create_body, differences
from bellglass.doors.docker.reaper import owner_labels, side_by_side
from bellglass.errors import BellglassError, SetupError
from bellglass.line.canary import Canary
from bellglass.paths import content_root
from bellglass.store import state_folder

WALK_SECONDS = 120.0  # a cold disk reads a gigabyte in this time
MARGIN_MB = 256  # for the interpreter, page tables, and files' last pages
KEPT_ON = ("overlay2 on extfs", "runc")  # storage and runtime under which tests/conformance/test_channels.py was passed


@dataclass(frozen=True, slots=True)
class Held:
    """What a keeper says of its last walk, in bytes of whole pages."""

    files: int
    bytes: int
    resident: int
    locked: bool
    missed: int
    overcommits: bool

    @property
    def lacking(self) -> str:
        """Why guests of the image may hear each other all the same; empty when they can't."""
        if self.missed:
            return f"{self.missed} files could not be held"
        if self.resident < self.bytes:
            return f"only {self.resident >> 20} of {self.bytes >> 20} MB are in memory"
        return ""


class Keeper:
    """One image's. `held` is None, and `lacking` says why, where it could not start."""

    def __init__(self, engine: Engine, image: Image, labels: Mapping[str, str], *, sings: bool = False) -> None:
        """`sings`: it is the canary of its glass, too."""
        self.sings = sings
        self._engine, self._name = engine, f"bellglass-keeper-{secrets.token_hex(6)}"
        self._pipe: AttachedPipe | None = None
        self._words: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._ended, self._closed = threading.Event(), False
        self.canary = Canary()
        self.held: Held | None = None
        self._fault = ""
        try:
            self._start(keeper_profile(image, labels, sings=sings))
            self.held = self._report()
        except (BellglassError, Gone, NotRunning) as fault:
            self._fault = getattr(fault, "found", "") or str(fault)
            self.close()
        except BaseException:
            self.close()
            raise

    @property
    def lacking(self) -> str:
        return self._fault if self.held is None else self.held.lacking

    @property
    def why_alone(self) -> str:
        """Why guests that it keeps an image for could hear each other all the same."""
        if self.held is not None and not self.held.overcommits:
            return self.lacking or "the kernel counts all guests' memory together (vm.overcommit_memory = 2)"
        return self.lacking

    @property
    def fallen(self) -> bool:
        """Whether it has ended although guests relied on it."""
        return self.held is not None and self._ended.is_set() and not self._closed

    def close(self) -> None:
        self._closed = True
        if self._pipe is not None:
            self._pipe.close()
        with contextlib.suppress(BellglassError):
            self._engine.remove(self._name)

    def _start(self, profile: Profile) -> None:
        container = self._engine.create(self._name, create_body(profile))
        self._pipe = AttachedPipe(self._engine.attach(container))
        threading.Thread(target=self._listen, args=(self._pipe,), name="keeper", daemon=True).start()
        self._engine.start(container)
        wrong = differences(self._engine.inspect(container) or {}, profile)
        if wrong:
            found = "; ".join(wrong[:4])
            raise SetupError(
                "the keeper of an image", found, "its profile", "bellglass doctor", code="container_not_as_asked"
            )

    def _listen(self, pipe: AttachedPipe) -> None:
        """A thread's work: its report, the canary's lines, and its end, which guests must not outlive."""
        rest, space, reported = b"", memoryview(bytearray(4096)), False
        with contextlib.suppress(OSError, BellglassError):
            while (count := pipe.read_into(space)) > 0:
                *lines, rest = (rest + bytes(space[:count])).split(b"\n")
                for line in lines:
                    if reported:
                        self.canary.heard(line)
                    else:
                        self._words.put(line)
                    reported = True
        self._ended.set()
        self._words.put(b"")
        pipe.dispose()

    def _report(self) -> Held:
        try:
            return Held(**json.loads(self._words.get(timeout=WALK_SECONDS)))
        except queue.Empty:
            found = f"silent for {WALK_SECONDS:.0f} s"
        except (TypeError, ValueError):
            words = self._pipe.stderr.decode("utf-8", "replace").strip().splitlines() if self._pipe else []
            found = words[-1][:200] if words else "it ended at once (out of memory?)"
        raise _unfit(found)


def read_again(engine: Engine, image: Image, labels: Mapping[str, str]) -> None:
    """Bring every page of the image into memory once, for a guest that is about to be alone with it. SetupError when
    that fails: it could then find what another guest has left there."""
    reader = Keeper(engine, image, labels)
    reader.close()
    if reader.lacking:
        raise _unfit(reader.lacking)


def _unfit(found: str) -> SetupError:
    needed = "an image whose files fit into memory"
    return SetupError("the keeper of an image", found, needed, "bellglass doctor", code="keeper_unfit")


def why_not_trusted(facts: Facts, runtime: str) -> str:
    """Why a keeper's word is not enough here; empty where it is, or where `doctor` has sent bits and none arrived."""
    runtime = runtime or facts.default_runtime
    if (facts.storage, runtime) == KEPT_ON or state_folder.read(_record(facts, runtime)) is not None:
        return ""
    here = f"{facts.storage} under {runtime}"
    return f"nobody has tried whether an image's pages stay in memory for {here}; bellglass doctor does"


def remember_trusted(facts: Facts, runtime: str) -> None:
    """For `doctor`: no bit arrived here although the sender did all it could."""
    state_folder.write(_record(facts, runtime or facts.default_runtime), b"passed\n")


def _record(facts: Facts, runtime: str) -> str:
    """By what the answer hangs on: another kernel, engine or keeper is asked anew."""
    code = (content_root() / "sandbox" / "keeper.py").read_bytes()
    conditions = "\n".join((facts.storage, runtime, facts.version, facts.kernel, hashlib.sha256(code).hexdigest()))
    return f"kept/{hashlib.sha256(conditions.encode()).hexdigest()[:32]}"


class Keepers:
    """One for each image of a glass, started when the first guest of it is wanted."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._of: dict[str, Future[Keeper]] = {}

    def of(self, image: Image, loop: Mapping[str, str]) -> Keeper:
        """Waits for its first walk, without making others wait who only ask whether one has fallen."""
        with self._lock:
            found = self._of.get(image.id)
            if found is None:
                coming = self._of[image.id] = Future()
        if found is None:
            found = coming
            try:
                sings = not any(keeper.sings for keeper in self._started())
                coming.set_result(Keeper(self._engine, image, owner_labels("keeper", loop), sings=sings))
            except BaseException as fault:  # who waits for it would wait for ever
                coming.set_exception(fault)
        return found.result()

    def fallen(self) -> bool:
        return any(keeper.fallen for keeper in self._started())

    def require(self) -> None:
        """SetupError when one has ended: what guests said since then may be what others told them."""
        if self.fallen():
            raise SetupError(
                "the keeper of an image's files",
                "it ended while guests were relying on it",
                "a daemon that keeps it, and memory for the images",
                "bellglass doctor, then bellglass resume",
                code="keeper_ended",
            )

    def canary(self) -> Canary:
        """One that sings where guests run; one that was never heard where there is none."""
        return next((keeper.canary for keeper in self._started() if keeper.sings and not keeper.fallen), Canary())

    def forget_fallen(self) -> bool:
        """The next guest of such an image gets a new keeper. Whether there were any: their guests must be gone."""
        with self._lock:
            fallen = [image for image, found in self._of.items() if found.done() and _fell(found)]
            for image in fallen:
                self._of.pop(image).result().close()
        return bool(fallen)

    def close(self) -> None:
        side_by_side(Keeper.close, self._started())

    def _started(self) -> list[Keeper]:
        with self._lock:
            return [found.result() for found in self._of.values() if found.done() and not found.exception()]


def _fell(found: Future[Keeper]) -> bool:
    return not found.exception() and found.result().fallen


def keeper_profile(image: Image, labels: Mapping[str, str], *, sings: bool = False) -> Profile:
    """Root without a capability but the one to lock memory; no place to write to; no bundle code ever."""
    code = (content_root() / "sandbox" / "keeper.py").read_text("utf-8")
    return Profile(
        uid=0,
        image=image.id,
        image_env=image.env,
        labels=labels,
        seccomp="",
        tmpfs=(),
        memory_mb=(image.bytes >> 20) + MARGIN_MB,
        pids=8,
        cpus=2.0,
        runtime="",
        nofile=8192,
        oom_score=KEEPER_OOM_SCORE,
        capabilities=("IPC_LOCK",),
        command=(PYTHON, "-I", "-c", code, *(() if sings else ("quiet",))),
    )
