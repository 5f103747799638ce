"""What bellglass needs from the outside, as Protocols. Doors implement them; only `wiring` picks the doors.

Not here: ports for things that have one implementation (ledger, lineage, bounds). `Board` is the exception: it keeps
wandb out of show/.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeAlias

from bellglass.gpus import gpu_of
from bellglass.line.intake import Event
from bellglass.records import CallKey, ChatReply, ChatRequest, Cost, GuestExit, Json, Role, Strain

Row: TypeAlias = dict[str, Json]
Table: TypeAlias = tuple[list[str], list[list[Json]]]  # columns, rows


class Stream(Protocol):
    """A duplex byte stream to one guest. `close` must unblock a reader and a writer on other threads."""

    def read_into(self, into: memoryview) -> int:
        """Bytes read, 0 at end of file."""

    def write(self, data: bytes | memoryview) -> None: ...

    def close(self) -> None: ...


MEMORY_MB = {Role.IMPROVE: 512, Role.TRAIN: 2048, Role.PREDICT: 2048}  # the working set of a role
GPU_MEMORY_MB = 8192  # of one that is given a GPU: its driver alone maps 1.5 GB to write to


def memory_mb(role: Role, device: str) -> int:
    return MEMORY_MB[role] if gpu_of(device) is None else GPU_MEMORY_MB


@dataclass(frozen=True, slots=True)
class GuestSpec:
    """What a glass must give a guest. Everything else about it is fixed by the role's profile."""

    role: Role
    labels: Mapping[str, str]  # loop, generation, trial; judge adds purpose: for people, the reaper, `stop`
    memory_mb: int
    deadline_seconds: float  # absolute life time of the guest
    lease_seconds: float = 10.0
    gpu: int | None = None  # which one; a guest sees that one alone, and calls it `cuda`


class Guest(Protocol):
    """A running guest that has said `ready`. Single use."""

    @property
    def id(self) -> str: ...

    def send(self, frame_type: str, body: bytes | memoryview = b"", **fields: Json) -> None:
        """Queue one frame; blocks at most the stall time-out, then raises GuestFault('stalled')."""

    def send_file(self, name: str, data: bytes | memoryview) -> None: ...

    def recv(self, timeout: float) -> Event | None:
        """The next event, or None at the time-out. Raises GuestFault once the guest has broken a rule or is lost."""

    def cpu_seconds(self) -> float:
        """CPU time of everything in the guest, measured by the host."""

    def end(self) -> GuestExit:
        """Close the pipe, kill, read the state, remove. Idempotent; never blocks longer than about ten seconds."""


class Glass(Protocol):
    name: str  # "docker" or "process"
    sealed: bool
    content: str  # what train and predict guests run from: other images, or another torch, are another content

    def find_why_alone(self) -> str:
        """Why a guest that proves a score has to be the only one with bundle code; empty where it need not be. May try
        it out with guests of its own, once."""

    def company(self, *, alone: bool = False, check: Callable[[], None] = lambda: None) -> AbstractContextManager[None]:
        """Held while a guest has a bundle, from before it gets it. May wait for others, where `find_why_alone` says so;
        `check` is called meanwhile, and ends the waiting by raising."""

    def open(self, spec: GuestSpec) -> Guest:
        """Start a guest, wait until it is ready. SetupError when the engine fails, GuestFault when the guest does."""

    def strain(self, since: float) -> Strain:
        """How busy this machine has been since that time of the monotonic clock."""

    def wait_until_free(self, seconds: float, check: Callable[[], None]) -> str:
        """Wait, no longer than that, until guests can get what they need here. Returns why they can't, or nothing."""

    def reap(self) -> int:
        """Remove what dead drivers of this user on this host left behind; returns how many."""

    def close(self) -> None:
        """End every guest this glass opened."""


class Model(Protocol):
    name: str
    hosted: bool  # True: costs money or leaves the machine; needs a sealed glass

    def forecast(self, request: ChatRequest) -> Cost:
        """An upper bound, reserved before the call. `usd` None when the price is unknown."""

    def chat(self, request: ChatRequest) -> ChatReply:
        """Raises ModelFault and nothing else."""


class CallBook(Protocol):
    """Where the gateway books model calls: reserve before, settle after, recall what a crash interrupted."""

    def recall(self, key: CallKey, request_sha: str) -> bytes | None:
        """The recorded reply to exactly this request at exactly this place, if it was settled before."""

    def reserve(self, key: CallKey, model: str, ask: Cost, request: bytes) -> None:
        """Raises BoundReached when the loop cannot afford it; then nothing was sent."""

    def settle(self, key: CallKey, cost: Cost, reply: bytes | None, facts: Mapping[str, Json]) -> None: ...


@dataclass(frozen=True, slots=True)
class Artifact:
    """A bundle or weights. Equal contents under one name are one version in W&B, whoever logs it how often."""

    name: str
    type: str
    aliases: tuple[str, ...]
    files: Mapping[str, bytes | Path]
    metadata: Row = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Opening:
    """What a run begins with."""

    id: str
    name: str
    group: str
    job_type: str  # "loop", "generation" or "trial"
    config: Row
    steps: tuple[tuple[str, str], ...]  # (which metrics, the one they are drawn over)
    notes: str = ""


class Run(Protocol):
    """One line of a board."""

    def log(self, row: Row, place: int, time: float | None) -> None:
        """`place` counts from nought; a run that was told this row before need not be told again."""

    def artifact(self, artifact: Artifact) -> None: ...

    def uses(self, name: str, alias: str) -> None:
        """An edge from an artifact that an earlier run made, where there is a server to ask for it."""

    def configure(self, config: Row) -> None: ...

    def finish(self, summary: Row, tables: Mapping[str, Table], exit_code: int = 0) -> None: ...


class Board(Protocol):
    """Where a loop is shown to others: Weights & Biases."""

    address: str  # where the loop's run can be seen; empty where it went to no server
    missing: list[str]

    def run(self, opening: Opening) -> Run: ...
