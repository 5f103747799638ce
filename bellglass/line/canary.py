"""How busy this machine is, as the host measures it: what a process of ours gets, and whether the driver itself runs.

sandbox/keeper.py wants a core for a moment each second, and says how much of one it got. One runs where guests run, so
that it is treated as they are, and one beside this driver, whose answers they wait for.

Not covered: a machine that is slow in something else than its cores.
"""

from __future__ import annotations

import contextlib
import math
import shutil
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bellglass.paths import content_root

KEPT_SECONDS = 4 * 3600.0  # longer than any guest lives
REST_SECONDS = 1.0  # between two lines of a canary that gets what it wants
PULSE_SECONDS = 0.5
LOOK_SECONDS = 4.0
FULL_BYTES = 16 << 20
FREE = 0.25  # of a core


@dataclass(frozen=True, slots=True)
class _Moment:
    at: float  # on the monotonic clock
    got: float
    took: float


class Canary:
    """Hears the lines of one. Threads may ask it anything."""

    def __init__(self) -> None:
        self._moments: deque[_Moment] = deque()

    def heard(self, line: bytes) -> None:
        with contextlib.suppress(ValueError):
            got, took = (float(word) for word in line.split())
            now = time.monotonic()
            self._moments.append(_Moment(now, got, took))
            while self._moments[0].at < now - KEPT_SECONDS:
                self._moments.popleft()

    def share(self, since: float) -> float | None:
        """Of a core, that it got since then while it wanted one. A moment under way counts: it may take for ever."""
        moments = list(self._moments)
        if not moments:
            return None
        before = [moment for moment in moments if moment.at <= since]
        first, last = before[-1] if before else _Moment(since, 0.0, 0.0), moments[-1]  # it counts from its beginning
        waiting = max(0.0, time.monotonic() - max(last.at, since) - REST_SECONDS)
        took = last.took - first.took + waiting
        return (last.got - first.got) / took if took > 0.0 else None


class Beside(Canary):
    """One beside this driver, from `start` on."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self.process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None

    def start(self) -> None:
        """Also once more, where it has ended. One that can't be started is one that was never heard."""
        words = [sys.executable, "-I", "-S", "-B", str(content_root() / "sandbox" / "keeper.py"), "canary"]
        with self._lock, contextlib.suppress(OSError):
            if self.process is None or self.process.poll() is not None:
                self._end()
                self.process = subprocess.Popen(
                    words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
                )
                self._reader = threading.Thread(target=self._read, args=(self.process,), name="canary", daemon=True)
                self._reader.start()

    def close(self) -> None:
        with self._lock:
            self._end()

    def _read(self, process: subprocess.Popen[bytes]) -> None:
        for line in process.stdout or ():
            self.heard(line)

    def _end(self) -> None:
        if self.process is not None and self._reader is not None:
            self.process.kill()
            self.process.wait()
            self._reader.join()  # it has read the end
            for pipe in (self.process.stdin, self.process.stdout):
                if pipe is not None:
                    pipe.close()
            self.process = None


def is_full(disk: Path) -> bool:
    """Whether what is written there fails, or soon will. Not where nobody can say."""
    try:
        return shutil.disk_usage(disk).free < FULL_BYTES
    except OSError:
        return False


class Pulse:
    """Notes how long this driver stood still, and when the disk that guests work on was full, if they work on one."""

    def __init__(self, disk: Path | None = None) -> None:
        self._gaps: deque[tuple[float, float]] = deque()  # (when it ended, seconds), long ones alone
        self._disk, self._full_at = disk, -math.inf
        self._beat = time.monotonic()
        self._closed = threading.Event()
        threading.Thread(target=self._run, name="pulse", daemon=True).start()

    def close(self) -> None:
        self._closed.set()

    def late(self, since: float) -> float:
        """The longest since then, in seconds."""
        gaps = [gap for ended, gap in list(self._gaps) if ended >= since]
        return max([*gaps, time.monotonic() - self._beat - PULSE_SECONDS, 0.0])

    def was_full(self, since: float) -> bool:
        return self._full_at >= since or (self._disk is not None and is_full(self._disk))

    def _run(self) -> None:
        while not self._closed.wait(PULSE_SECONDS):
            now = time.monotonic()
            if self._disk is not None and is_full(self._disk):
                self._full_at = now
            gap = now - self._beat - PULSE_SECONDS
            if gap > PULSE_SECONDS:
                self._gaps.append((now, gap))
                while self._gaps[0][0] < now - KEPT_SECONDS:
                    self._gaps.popleft()
            self._beat = now


def least(canaries: Sequence[Canary], since: float) -> float | None:
    """The smallest share; None where none was heard."""
    return min((share for each in canaries if (share := each.share(since)) is not None), default=None)


def wait_until_free(canaries: Sequence[Canary], seconds: float, check: Callable[[], None]) -> str:
    """Until a process of ours gets a good part of a core over some moments, or nobody can say; why not, else ""."""
    until = time.monotonic() + seconds
    while True:
        since = time.monotonic()
        while time.monotonic() - since < LOOK_SECONDS:
            check()
            time.sleep(0.25)
        share = least(canaries, since)
        if share is None or share >= FREE:
            return ""
        if time.monotonic() >= until:
            return f"a process that wanted a core got {100 * share:.0f}% of one"
