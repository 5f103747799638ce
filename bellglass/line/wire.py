"""The host's end of the one pipe: a `Line` joins a byte stream to queues of events and frames.

One reader thread parses, counts and queues, and never waits for disk, locks, models or the steps. One writer thread
sends what is queued and a beat when nothing is. Whoever waits for a guest does so in `recv` and `send`, with limits.

Not covered: killing. A guest that breaks a rule has its stream closed here; the glass kills and removes it.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from typing import Final

from bellglass.errors import GuestFault, SetupError
from bellglass.line.frames import MAX_BODY, WIRE_VERSION, FrameParser, encode
from bellglass.line.intake import Done, Event, FileReceived, Intake, Log, Policy, Ready
from bellglass.ports import GuestSpec, Stream
from bellglass.records import GUEST_FAULTS, Json

QUEUE_FRAMES: Final = 64
BEAT_SECONDS: Final = 2.0
CLOSED_HERE: Final = "closed by the host"


class Line:
    """`send`, `send_file` and `recv` raise the guest's fault once it has one, for ever after."""

    def __init__(self, stream: Stream, policy: Policy, *, beat_seconds: float = BEAT_SECONDS) -> None:
        self._stream, self._policy, self._beat_seconds = stream, policy, beat_seconds
        self._intake = Intake(policy)
        self._events: queue.SimpleQueue[tuple[Event | None, int]] = queue.SimpleQueue()
        self._pending_bytes = self._pending_events = 0
        self._pending_lock = threading.Lock()  # held for two additions at a time
        self._out: queue.Queue[tuple[bytes, bytes | memoryview] | None] = queue.Queue(QUEUE_FRAMES)
        self._fault: GuestFault | None = None
        self._closed = False
        self._heard = time.monotonic()
        self._writing_since: float | None = None
        self.bytes_in = self.bytes_out = self.logs_dropped = 0
        self._threads = [
            threading.Thread(target=self._read, name="line-reader", daemon=True),
            threading.Thread(target=self._write, name="line-writer", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    @property
    def broke_off(self) -> bool:
        """Whether the guest fell silent or ended without a word, and not because of what it sent or was done here."""
        return self._fault is not None and self._fault.code in ("lost", "stalled") and self._fault.detail != CLOSED_HERE

    @property
    def beat_cpu_seconds(self) -> float:
        """What the supervisor's last beat said. A claim, where the host can measure for itself."""
        return self._intake.cpu_seconds

    def send(self, frame_type: str, body: bytes | memoryview = b"", **fields: Json) -> None:
        header = encode(frame_type, fields, len(body))
        if frame_type == "reply":
            self._intake.answered(fields["id"])
        limit = time.monotonic() + self._policy.stall_seconds
        while True:
            self._raise_fault()
            try:
                return self._out.put((header, body), timeout=0.25)
            except queue.Full:
                if time.monotonic() > limit:
                    self._fail(GuestFault("stalled", "the guest does not read"))

    def send_file(self, name: str, data: bytes | memoryview) -> None:
        view = memoryview(data).cast("B") if len(data) else memoryview(b"")
        for start in range(0, max(len(view), 1), MAX_BODY):
            last = start + MAX_BODY >= len(view)
            self.send("file", view[start : start + MAX_BODY], name=name, last=last)

    def recv(self, timeout: float) -> Event | None:
        """The next event; None at the time-out. What came before a fault is given first, then the fault is raised."""
        limit = time.monotonic() + timeout
        while True:
            remaining = limit - time.monotonic()
            try:
                event, size = self._events.get(timeout=min(1.0, max(0.0, remaining)))
            except queue.Empty:
                self._check_stall()  # any fault comes through the queue, behind what was said before it
                if remaining <= 0:
                    return None
                continue
            if event is None:
                self._events.put((None, 0))  # stays the last one for every later call
                self._raise_fault()
                raise GuestFault("lost", "the guest has ended")
            with self._pending_lock:
                self._pending_bytes -= size
                self._pending_events -= 1
            return event

    def close(self) -> None:
        """Closes the stream, which unblocks both threads. Idempotent."""
        self._fail(GuestFault("lost", CLOSED_HERE))
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(timeout=2.0)

    def _fail(self, fault: GuestFault) -> None:
        """The first fault stays. Closing the stream is what makes the guest end."""
        with self._pending_lock:
            if self._fault is None:
                self._fault = fault
            first, self._closed = not self._closed, True
        if first:
            self._events.put((None, 0))
            self._stream.close()
            with contextlib.suppress(queue.Full):  # full: then the writer is in a write, which has just been ended
                self._out.put_nowait(None)

    def _raise_fault(self) -> None:
        if self._fault is not None:
            raise self._fault

    def _check_stall(self) -> None:
        now, since = time.monotonic(), self._writing_since
        if since is not None and now - since > self._policy.stall_seconds:
            self._fail(GuestFault("stalled", "the guest does not read"))
        if now - self._heard > self._policy.quiet_seconds:
            self._fail(GuestFault("stalled", "no beat from the guest"))

    def _read(self) -> None:
        parser = FrameParser()
        try:
            while (count := self._stream.read_into(parser.space())) > 0:
                self._heard = time.monotonic()
                self.bytes_in += count
                for frame in parser.feed(count):
                    event = self._intake.take(frame)
                    if event is not None:
                        self._queue_event(event, len(frame.body))
            fault = _fault_at_end(self._intake.done)
        except GuestFault as broken:
            fault = broken
        except (OSError, ValueError):  # reset by a guest that left something unread, or closed here meanwhile
            fault = _fault_at_end(self._intake.done)
        self._fail(fault)

    def _queue_event(self, event: Event, size: int) -> None:
        if isinstance(event, FileReceived):
            size = len(event.data)
        with self._pending_lock:
            full = self._pending_events >= self._policy.pending_events or (
                self._pending_bytes + size > self._policy.pending_bytes
            )
            if not full:
                self._pending_bytes += size
                self._pending_events += 1
        if not full:
            self._events.put((event, size))
        elif isinstance(event, Log):
            self.logs_dropped += 1  # nobody is reading; a log may be lost, memory may not
        else:
            raise GuestFault("flood", "more than the host has taken")

    def _write(self) -> None:
        beat = encode("beat", {})
        try:
            while not self._closed:
                try:
                    item = self._out.get(timeout=self._beat_seconds)
                except queue.Empty:
                    item = (beat, b"")
                if item is None:
                    return
                header, body = item
                self._writing_since = time.monotonic()
                self._stream.write(header)
                if len(body):
                    self._stream.write(body)
                self._writing_since = None
                self.bytes_out += len(header) + len(body)
        except (OSError, ValueError):
            # The guest closed its end. What it said before that is still being read: the reader gives the fault.
            self._writing_since = None


def _fault_at_end(done: Done | None) -> GuestFault:
    """What a late `send` or `recv` is told, so that it needn't have seen `done` to give the right reason."""
    if done is None:
        return GuestFault("lost", "ended without a word")
    return GuestFault(done.why if done.why in GUEST_FAULTS else "lost", "the guest has ended")


def greet(line: Line, spec: GuestSpec, timeout: float) -> None:
    """Say hello and wait for ready. GuestFault when the guest fails, SetupError when its image lacks something."""
    lease, deadline = spec.lease_seconds, spec.deadline_seconds
    line.send("hello", v=WIRE_VERSION, role=str(spec.role), lease_s=lease, deadline_s=deadline)
    limit = time.monotonic() + timeout
    while (remaining := limit - time.monotonic()) > 0:
        event = line.recv(remaining)
        if isinstance(event, Ready):
            return
        if isinstance(event, Done):
            if event.why == "no_torch":
                raise SetupError(
                    f"the {spec.role} guest",
                    "torch or lightning can't be imported inside it",
                    "an environment or image with the trainer's libraries",
                    "bellglass doctor",
                    code="library_missing",
                )
            raise GuestFault("lost", f"ended before it was ready ({event.why})")
    raise GuestFault("timeout", f"not ready after {timeout:.0f} s")
