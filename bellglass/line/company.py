"""Who may live beside whom, where guests could hear each other.

A guest that proves a score must not hear the guest that gave it, nor anyone who did. Where a glass can't close every
exact channel between living guests, no other guest with bundle code lives while one proves: others wait, and it waits
for them. File locks, so that the rule also holds between the loops of one user. Who waits to be alone is let in before
those who come later.

Not covered: guests of another user of this machine.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from bellglass.errors import SetupError

STEP_SECONDS = 0.05


@contextlib.contextmanager
def company(folder: Path, *, alone: bool) -> Iterator[None]:
    """Held from before a guest gets a bundle until it has ended. `alone`: only once nobody else holds it."""
    with _opened(folder / "door") as door, _opened(folder / "room") as room:
        _take(door, fcntl.LOCK_EX)
        _take(room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(door, fcntl.LOCK_UN)
        yield


def _take(file: int, how: int) -> None:
    """Wait in steps: a thread inside a blocking call could not be interrupted."""
    while True:
        try:
            fcntl.flock(file, how | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            time.sleep(STEP_SECONDS)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    """A description of its own, so that threads of one process are told apart. Closing it gives the lock back."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        found, needed = error.strerror or str(error), "a folder this user may write"
        raise SetupError(
            f"the lock {path}", found, needed, "set XDG_STATE_HOME to a local folder", code="folder_unwritable"
        ) from error
    try:
        yield file
    finally:
        os.close(file)
