"""What trainings under way have reported so far, for people who watch: a small file for each, gone when it has ended.

No part of the record: a training's curves become a blob when it ends, and nothing is decided by either. Anybody may
delete the folder; what a crash leaves there goes when the loop is next opened for running.

Not covered: a folder that leads elsewhere; a loop with one in it is not opened (folder.py). A disk that is full or
gone: the curves are then not seen, and the loop's own writing says why.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import stat
import threading
import time
from collections.abc import Iterable
from pathlib import Path

from bellglass import curves
from bellglass.curves import Curves, Lines

EVERY_SECONDS = 1.0
MOST_BYTES = 1 << 20  # MOST_NAMES curves of MOST_POINTS take a third of it
NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,80}")


class LiveCurves:
    """`put` may be called for each report: it writes at most every second."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._written: dict[str, float] = {}

    def put(self, trial_id: str, found: Curves) -> None:
        now = time.monotonic()
        if now - self._written.get(trial_id, 0.0) < EVERY_SECONDS:
            return
        self._written[trial_id] = now
        making = self._folder / f".{trial_id}.{threading.get_native_id()}"
        with contextlib.suppress(OSError):
            self._folder.mkdir(exist_ok=True)
            making.write_bytes(bytes(found))
            making.replace(self._file(trial_id))

    def drop(self, trial_id: str) -> None:
        self._written.pop(trial_id, None)
        with contextlib.suppress(OSError):
            self._file(trial_id).unlink()

    def sweep(self) -> None:
        """Remove what a crash has left; for the loop's owner."""
        for path in self._folder.glob("*"):
            with contextlib.suppress(OSError):
                path.unlink()

    def stamp(self) -> str:
        """Another one whenever something was written or has ended."""
        found = []
        with contextlib.suppress(OSError):  # gone meanwhile: the next look tells
            found = [(file.name, file.stat().st_mtime_ns) for file in os.scandir(self._folder)]
        return hashlib.sha256(repr(sorted(found)).encode()).hexdigest()[:16]

    def read(self, trial_ids: Iterable[str]) -> dict[str, Lines]:
        """By trial, of those that have reported something. What cannot be read has not been reported yet."""
        found: dict[str, Lines] = {}
        for trial_id in trial_ids:
            with contextlib.suppress(OSError, ValueError):
                found[trial_id] = curves.read(self._bytes(trial_id))
        return found

    def _bytes(self, trial_id: str) -> bytes:
        handle = os.open(self._file(trial_id), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            return os.read(handle, MOST_BYTES) if stat.S_ISREG(os.fstat(handle).st_mode) else b""
        finally:
            os.close(handle)

    def _file(self, trial_id: str) -> Path:
        """Ids of a ledger that somebody else wrote may be anything."""
        if NAME.fullmatch(trial_id) is None:
            raise ValueError(f"{trial_id!a:.40} is no trial's id")
        return self._folder / f"{trial_id}.json"
