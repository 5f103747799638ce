"""What a guest of each role may send, and the turning of its frames into events.

`Policy` holds the caps of a role: frame types, operations, file names with their sizes, totals. `Intake` counts
against them and assembles files in memory. The first frame beyond a cap ends the guest with a fixed fault word.

Not covered: whether the content is true or sane. Weights, submissions and predictions are checked by the steps;
a log's text is the guest's own words and may hold anything, terminal escapes too.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from bellglass.errors import GuestFault, MalformedFrame
from bellglass.line.frames import MAX_BODY, Frame
from bellglass.records import Json, Role

MIB = 1 << 20
BURST_SECONDS = 5.0  # more than a pipe holds while the driver is away


@dataclass(frozen=True, slots=True)
class Ready:
    pass


@dataclass(frozen=True, slots=True)
class Log:
    stream: str  # "out" or "err"
    body: bytes  # the guest's own words, at most 64 KiB, usually but not surely UTF-8


class LogTail:
    """The end of what a guest printed, in bounded memory."""

    def __init__(self, most_bytes: int) -> None:
        self._most, self._kept = most_bytes, bytearray()

    def take(self, log: Log) -> None:
        self._kept += log.body
        if len(self._kept) > 4 * self._most:
            del self._kept[: -self._most]

    def __bytes__(self) -> bytes:
        return bytes(self._kept[-self._most :])


@dataclass(frozen=True, slots=True)
class Metric:
    name: str
    value: float
    step: int


@dataclass(frozen=True, slots=True)
class Request:
    id: int
    op: str
    args: Json  # a dict
    body: bytes


@dataclass(frozen=True, slots=True)
class FileReceived:
    name: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Done:
    code: int
    why: str  # one of frames.DONE_WORDS


Event: TypeAlias = Ready | Log | Metric | Request | FileReceived | Done


@dataclass(frozen=True, slots=True)
class FileRule:
    pattern: str  # the whole name must match
    largest: int  # bytes


@dataclass(frozen=True, slots=True)
class Policy:
    """The caps of one role. Totals are over the guest's life."""

    role: Role
    frames: frozenset[str]
    ops: frozenset[str]
    files: tuple[FileRule, ...]
    file_count: int
    file_bytes: int
    log_bytes: int
    metrics: int
    requests: int
    request_body: int
    bad_file: str = "refused"  # the fault word for a file it may not send
    outstanding: int = 8
    small_frames_per_second: float = 5000.0  # sustained; bursts of five times that pass
    pending_bytes: int = 512 * MIB  # events the steps have not taken yet
    pending_events: int = 20_000
    stall_seconds: float = 15.0
    quiet_seconds: float = 20.0  # a guest that has not even sent a beat for so long is given up


_ALWAYS = frozenset({"ready", "beat", "done"})
_TRAINER = r"trainer/(?:data|objective|model|train)\.py"

POLICIES = {
    Role.TRAIN: Policy(
        role=Role.TRAIN,
        frames=_ALWAYS | {"log", "metric", "request", "file"},
        ops=frozenset({"data", "time_left"}),
        files=(FileRule(r"out/weights\.safetensors", 256 * MIB), FileRule(r"out/[A-Za-z0-9_-]{1,40}\.json", 64 * 1024)),
        file_count=16,
        file_bytes=257 * MIB,
        log_bytes=8 * MIB,
        metrics=50_000,
        requests=2_000_000,
        request_body=0,
    ),
    # Numbers only: no logs, no metrics, no arguments, no names. What the model saw can't come back as text.
    Role.PREDICT: Policy(
        role=Role.PREDICT,
        frames=_ALWAYS | {"request", "file"},
        ops=frozenset({"next"}),
        files=(FileRule("logits", 256 * MIB),),
        file_count=200_000,
        file_bytes=64 * 1024 * MIB,
        log_bytes=0,
        metrics=0,
        requests=200_000,
        request_body=0,
        outstanding=1,
    ),
    Role.IMPROVE: Policy(
        role=Role.IMPROVE,
        frames=_ALWAYS | {"log", "request", "file"},
        ops=frozenset({"chat", "trial", "trials", "history", "budget", "note", "submit"}),
        files=(FileRule(rf"(?:submit|trial)/{_TRAINER}", 256 * 1024), FileRule(r"submit/scaffold/.+", 256 * 1024)),
        file_count=10_000,
        file_bytes=256 * MIB,
        log_bytes=8 * MIB,
        metrics=0,
        requests=20_000,
        request_body=MAX_BODY,
        bad_file="bad_submit",
    ),
}


class Intake:
    """Counts one guest's frames against its policy. Used by one thread; `answered` may come from others."""

    def __init__(self, policy: Policy, clock: Callable[[], float] = time.monotonic) -> None:
        self._policy, self._clock = policy, clock
        self._ready = False
        self.done: Done | None = None
        self._next_id = 1
        self._open_requests: set[int] = set()
        self._log_bytes = self._metrics = self._files = self._file_bytes = 0
        self._name: str | None = None  # the file under way
        self._chunks: list[bytes | bytearray] = []
        self._size = 0
        self._allowance = policy.small_frames_per_second * BURST_SECONDS
        self._allowed_at = clock()
        self.cpu_seconds = 0.0  # what the guest's supervisor last said

    def answered(self, request_id: int) -> None:
        self._open_requests.discard(request_id)

    def take(self, frame: Frame) -> Event | None:
        """The event that this frame completes, if any. Raises GuestFault beyond a cap."""
        if frame.type not in self._policy.frames:
            raise GuestFault("refused", f"a {self._policy.role} guest may not send {frame.type!r}")
        if len(frame.body) < 4096:
            self._count_small()
        if self.done or (frame.type in ("metric", "request", "file") and not self._ready):
            raise MalformedFrame("a frame before 'ready' or after 'done'")
        match frame.type:
            case "beat":
                self.cpu_seconds = float(frame.fields["cpu_s"])
                return None
            case "ready":
                if self._ready:
                    raise MalformedFrame("'ready' twice")
                self._ready = True
                return Ready()
            case "done":
                code = frame.fields["code"]
                if self._policy.role is Role.PREDICT:
                    code = min(code, 1)  # eight bits of a child's choosing are words too
                self.done = Done(code, frame.fields["why"])
                return self.done
            case "log":
                return self._log(frame)
            case "metric":
                return self._metric(frame)
            case "request":
                return self._request(frame)
            case _:
                return self._file(frame)

    def _count_small(self) -> None:
        rate, now = self._policy.small_frames_per_second, self._clock()
        self._allowance = min(rate * BURST_SECONDS, self._allowance + (now - self._allowed_at) * rate) - 1
        self._allowed_at = now
        if self._allowance < 0:
            raise GuestFault("flood", "frames per second")

    def _log(self, frame: Frame) -> Log:
        self._log_bytes += len(frame.body)
        if self._log_bytes > self._policy.log_bytes:
            raise GuestFault("flood", "log bytes")
        return Log(frame.fields["stream"], bytes(frame.body))

    def _metric(self, frame: Frame) -> Metric:
        self._metrics += 1
        if self._metrics > self._policy.metrics:
            raise GuestFault("flood", "metrics")
        return Metric(frame.fields["name"], float(frame.fields["value"]), frame.fields["step"])

    def _request(self, frame: Frame) -> Request:
        request_id, op = frame.fields["id"], frame.fields["op"]
        if request_id != self._next_id:  # consecutive, so that the number carries nothing
            raise MalformedFrame("request ids must count up from 1")
        self._next_id += 1
        if op not in self._policy.ops:
            raise GuestFault("refused", f"an operation that a {self._policy.role} guest may not ask for")
        if self._policy.role is Role.PREDICT and frame.fields["args"]:
            raise GuestFault("refused", "a predict guest may not send arguments")
        if request_id > self._policy.requests or len(frame.body) > self._policy.request_body:
            raise GuestFault("flood", "requests")
        self._open_requests.add(request_id)
        if len(self._open_requests) > self._policy.outstanding:
            raise GuestFault("flood", "requests outstanding")
        return Request(request_id, op, frame.fields["args"], bytes(frame.body))

    def _file(self, frame: Frame) -> FileReceived | None:
        name = frame.fields["name"]
        if self._name is None:
            self._name, self._chunks, self._size = name, [], 0
            self._files += 1
            if self._files > self._policy.file_count:
                raise GuestFault(self._policy.bad_file, "too many files")
        elif name != self._name:
            raise MalformedFrame("chunks of two files are mixed")
        self._size += len(frame.body)
        self._file_bytes += len(frame.body)
        if self._size > self._largest(name) or self._file_bytes > self._policy.file_bytes:
            raise GuestFault(self._policy.bad_file, "a file that is too large")
        self._chunks.append(frame.body)
        if not frame.fields["last"]:
            return None
        data = bytes(self._chunks[0]) if len(self._chunks) == 1 else b"".join(self._chunks)
        self._name, self._chunks = None, []
        return FileReceived(name, data)

    def _largest(self, name: str) -> int:
        for rule in self._policy.files:
            if re.fullmatch(rule.pattern, name):
                return rule.largest
        raise GuestFault(self._policy.bad_file, f"a file name that a {self._policy.role} guest may not send")
