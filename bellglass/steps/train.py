"""Train: one bundle, one pair of seeds, one budget, in one fresh `train` guest. What comes back are claims and bytes.

The clock of the budget starts when the data enters (the guest asks for it once it has set up), and it is read by the
host alone: CPU seconds of everything in the guest, or wall seconds on a GPU, or counted `time_left` calls (`steps`).

What `time_left` was answered is all of the machine's speed that a trainer hears. So it is kept, and a training can be
run again under the recorded answers: on the same kind of CPU the weights are then the same to the bit.

Not covered: whether the weights are any good. That is the judge's. And a trainer that reads the system's own clocks,
or uses chance beyond its seeds: it cannot be run again exactly, which shows when somebody tries (recheck).
"""

from __future__ import annotations

import io
import json
import time
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from bellglass import tasks
from bellglass.curves import Curves
from bellglass.errors import GuestFault
from bellglass.gpus import gpu_of, guest_device
from bellglass.line.intake import Done, Event, FileReceived, Log, LogTail, Metric, Request
from bellglass.ports import Glass, Guest, GuestSpec, memory_mb
from bellglass.records import Budget, Bundle, Claim, GuestExit, Role, Seeds
from bellglass.tasks import Documents, Task
from bellglass.weights import WEIGHTS_FILE

SETUP_SECONDS = 120.0  # wall time for importing and building, without data
# Free of it, because more could be learning from what the bundle carries (docs/decisions/005):
SETUP_CPU_SECONDS = 1.0  # the starter takes 0.02
SETUP_GPU_SECONDS = 10.0  # of wall time, for the card's driver to start; nobody has measured how long that takes
OVERRUN_FACTOR, OVERRUN_SECONDS = 1.02, 0.15  # beyond the budget, for the step under way; more would be a free gain
LOG_TAIL_BYTES = 4000
REPLAY_SLACK = 4.0  # a run under recorded answers may be on a machine that much slower


@dataclass(frozen=True, slots=True)
class Training:
    fault: str | None
    claim: Claim
    files: Mapping[str, bytes]  # what it left; only WEIGHTS_FILE goes any further (docs/decisions/007)
    log: bytes
    train_seconds: float
    wall_seconds: float
    answers: Sequence[float] = ()  # what was left, each time it asked
    curves: bytes = b""  # what it reported while it trained: claims, for people
    exit: GuestExit | None = None  # None: there was no guest that was ready
    needed: float = 0.0  # CPU seconds that it was to get, once its clock had started


Watch = Callable[[Curves], None]  # told of the curves each time they grow; for people who look on


class Clock:
    """How much of a budget a guest has used, measured by the host. `recorded` answers replace the measured ones."""

    def __init__(self, budget: Budget, guest: Guest, recorded: Sequence[float] | None = None) -> None:
        self.budget, self._recorded = budget, recorded
        self._slack = 1.0 if recorded is None else REPLAY_SLACK
        self.asked = 0
        self.answers = array("d")
        self._created = time.monotonic()
        self._wall_from: float | None = None
        on_gpu = budget.kind == "gpu_seconds"
        self._meter = time.monotonic if on_gpu else guest.cpu_seconds
        self._free = SETUP_GPU_SECONDS if on_gpu else SETUP_CPU_SECONDS
        self._set_up_from = self._meter()
        self._counts_from = 0.0  # on the meter, once started; the part of the set-up that counts lies before

    def start(self) -> None:
        now = self._meter()
        self._wall_from, self._counts_from = time.monotonic(), now - self._set_up(now)

    def _set_up(self, now: float) -> float:
        return max(0.0, now - self._set_up_from - self._free)

    @property
    def started(self) -> bool:
        return self._wall_from is not None

    def wall(self) -> float:
        return 0.0 if self._wall_from is None else time.monotonic() - self._wall_from

    def used(self) -> float:
        if self.budget.kind == "steps":
            return float(max(0, self.asked - 1))
        now = self._meter()
        return now - self._counts_from if self.started else self._set_up(now)

    def ask(self) -> dict[str, float]:
        """The answer to one `time_left`. Under `steps` asking is what moves the clock."""
        self.asked += 1
        if self._recorded is None:
            left = max(0.0, self.budget.amount - self.used())
        else:
            left = self._recorded[self.asked - 1] if self.asked <= len(self._recorded) else 0.0
        self.answers.append(left)
        return {"left": left, "total": self.budget.amount}

    def enforce(self) -> None:
        if self._wall_from is None and time.monotonic() - self._created > SETUP_SECONDS:
            raise GuestFault("timeout", f"asked for no data within {SETUP_SECONDS:.0f} s")
        if self.wall() > self.budget.wall_seconds * self._slack:
            raise GuestFault("timeout", f"more than {self.budget.wall_seconds:.0f} s of wall time")
        if self.used() > (self.budget.amount * OVERRUN_FACTOR + OVERRUN_SECONDS) * self._slack:
            raise GuestFault("overran", f"more than {self.budget.amount:g} {self.budget.kind}")


@dataclass(slots=True)
class _Heard:
    """What one guest has said so far."""

    bits: float | None = None
    metrics: int = 0
    curves: Curves = field(default_factory=Curves)
    files: dict[str, bytes] = field(default_factory=dict)
    log: LogTail = field(default_factory=lambda: LogTail(LOG_TAIL_BYTES))


def train(
    glass: Glass,
    bundle: Bundle,
    docs: Documents,
    *,
    task: Task,
    seeds: Seeds,
    budget: Budget,
    labels: Mapping[str, str],
    device: str = "cpu",
    cancelled: Callable[[], bool] = lambda: False,
    recorded: Sequence[float] | None = None,
    watch: Watch = lambda curves: None,
) -> Training:
    """Never raises for what a bundle did: a fault is a result. SetupError (the engine's) passes through.

    `recorded`: what an earlier run of the same training was answered, to be answered again.
    """
    heard = _Heard()
    fault: GuestFault | None = None
    clock: Clock | None = None
    used = 0.0
    spec = GuestSpec(
        Role.TRAIN,
        labels,
        memory_mb(Role.TRAIN, device),
        SETUP_SECONDS + budget.wall_seconds * (1.0 if recorded is None else REPLAY_SLACK) + 60.0,
        gpu=gpu_of(device),
    )
    with glass.company(check=lambda: refuse_stopped(cancelled)):
        began = time.monotonic()
        try:
            guest = glass.open(spec)
        except GuestFault as error:
            return _result(error, heard, None, 0.0, time.monotonic() - began, None)
        try:
            clock = Clock(budget, guest, recorded)
            _send_bundle(guest, bundle)
            guest.send("start", args=_arguments(task, seeds, device))
            _converse(guest, clock, heard, docs, task, cancelled, watch)
        except GuestFault as error:
            fault = error
        finally:
            used = 0.0 if clock is None else clock.used()
            ended = guest.end()
            if ended.out_of_memory:
                fault = GuestFault("memory")
    return _result(fault, heard, clock, used, time.monotonic() - began, ended)


def refuse_stopped(cancelled: Callable[[], bool]) -> None:
    """Ends the waiting for others when the loop is stopped; nothing has been tried, and nobody hears of it."""
    if cancelled():
        raise GuestFault("lost", "the loop was stopped")


def _result(
    fault: GuestFault | None,
    heard: _Heard,
    clock: Clock | None,
    used: float,
    wall_seconds: float,
    ended: GuestExit | None,
) -> Training:
    log = bytes(heard.log)
    if fault is not None and not log:
        log = fault.detail.encode()
    return Training(
        fault=None if fault is None else fault.code,
        claim=Claim(heard.bits, clock.asked if clock else 0, heard.metrics),
        files=heard.files,
        log=log,
        train_seconds=round(used, 4),
        wall_seconds=round(wall_seconds, 4),
        answers=clock.answers if clock else (),
        curves=bytes(heard.curves),
        exit=ended,
        needed=clock.budget.amount if clock and clock.started and clock.budget.kind == "cpu_seconds" else 0.0,
    )


def _arguments(task: Task, seeds: Seeds, device: str) -> dict[str, object]:
    return {
        "init_seed": seeds.init_seed,
        "data_seed": seeds.data_seed,
        "threads": 1,
        "device": guest_device(device),
        "context": task.context,
        "vocab": task.vocab,
    }


def _send_bundle(guest: Guest, bundle: Bundle) -> None:
    for path in sorted(bundle):
        if path.startswith("trainer/"):
            guest.send_file(path, bundle[path])


def _send_data(guest: Guest, docs: Documents, task: Task) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(docs.tokens), allow_pickle=False)
    guest.send_file("data/tokens.npy", buffer.getbuffer())
    guest.send_file("data/meta.json", json.dumps(tasks.meta(task)).encode())


def _converse(
    guest: Guest, clock: Clock, heard: _Heard, docs: Documents, task: Task, cancelled: Callable[[], bool], watch: Watch
) -> None:
    """Answer the guest until it is done."""
    while True:
        refuse_stopped(cancelled)
        event = guest.recv(timeout=0.1)
        clock.enforce()
        if isinstance(event, Done):
            if event.why != "ok":
                raise GuestFault(event.why if event.why in ("crashed", "memory") else "crashed", event.why)
            if WEIGHTS_FILE not in heard.files:
                raise GuestFault("no_weights")
            return
        if isinstance(event, Request):
            _answer(guest, event, clock, docs, task)
        elif event is not None:
            _hear(heard, event, clock, watch)


def _answer(guest: Guest, request: Request, clock: Clock, docs: Documents, task: Task) -> None:
    if request.op == "time_left":
        guest.send("reply", id=request.id, ok=True, value=clock.ask())
    else:  # "data", the only other operation of the role; asked twice, the files are there already
        if not clock.started:
            clock.start()  # first: a guest that takes the data slowly does so in its own time
            _send_data(guest, docs, task)
        guest.send("reply", id=request.id, ok=True, value=None)


def _hear(heard: _Heard, event: Event, clock: Clock, watch: Watch) -> None:
    if isinstance(event, Metric):
        heard.metrics += 1
        heard.curves.take(event.name, event.step, clock.used(), event.value)
        watch(heard.curves)
        if event.name == "claim_bits":
            heard.bits = event.value
    elif isinstance(event, Log):
        heard.log.take(event)
    elif isinstance(event, FileReceived):
        heard.files[event.name] = event.data
