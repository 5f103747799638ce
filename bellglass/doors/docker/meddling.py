"""What other clients of the engine do to this driver's guests: kill, pause, stop, remove. Heard as its events.

A guest that somebody else ended has not failed (blame.py). What we do to it ourselves comes after its end was noticed,
so whatever was heard until then was somebody else's.

Not covered: an engine that says nothing, or says it too late; a guest that is killed past the engine shows as a signal.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping

from bellglass.doors.docker.engine import Engine
from bellglass.errors import BellglassError

MEDDLING = ("kill", "pause", "stop", "restart", "update", "exec_start", "destroy")
END = "die"
KEPT = 1000  # containers; nobody asks about one that ended long ago
LATE_SECONDS = 0.5  # that an event may come after the state that it tells of


class Meddling:
    """Listens from the first `listen` on, and again where the engine has hung up."""

    def __init__(self, engine: Engine, labels: Mapping[str, str]) -> None:
        self._engine, self._labels = engine, labels
        self._heard: dict[str, list[str]] = {}
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._stop: Callable[[], None] = lambda: None

    def listen(self) -> None:
        with self._changed:
            if self._thread is not None and self._thread.is_alive():
                return
            events, self._stop = self._engine.events(self._labels)
            self._thread = threading.Thread(target=self._run, args=(events,), name="docker-events", daemon=True)
            self._thread.start()

    def of(self, container: str, *, ended: bool) -> str:
        """What somebody else did to it, in the engine's words. `ended`: its end is to be among what was heard."""
        until = time.monotonic() + LATE_SECONDS
        with self._changed:
            while ended and END not in self._heard.get(container, ()) and (left := until - time.monotonic()) > 0:
                self._changed.wait(left)
            return next((word for word in self._heard.pop(container, ()) if word in MEDDLING), "")

    def close(self) -> None:
        self._stop()

    def _run(self, events: Iterator[tuple[str, str]]) -> None:
        with contextlib.suppress(BellglassError):
            for container, action in events:
                word = action.partition(":")[0]
                if word in MEDDLING or word == END:
                    with self._changed:
                        self._heard.setdefault(container, []).append(word)
                        if len(self._heard) > KEPT:
                            del self._heard[next(iter(self._heard))]
                        self._changed.notify_all()
