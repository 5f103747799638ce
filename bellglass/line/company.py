"""Who may live beside whom, where guests could hear each other.

A guest that proves a score must not hear the guest that gave it, nor anyone who did. Where a glass can't close every
exact channel between living guests, no other guest with bundle code lives while one proves: others wait, and it waits
for them. File locks, so that the rule also holds between the loops of one user: `turn` is held while one waits, so
that who wants to be alone is let in before those who come later; `present` by everybody, while they are there.

Who is there already lets their own process's others in without a turn: a session's trials are judged while its guest
waits for them, and must not queue behind somebody who waits for that guest to end.

Not covered: guests of another user of this machine.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bellglass.errors import SetupError

STEP_SECONDS = 0.05


@dataclass(slots=True)
class _Here:
    """Those of this process who are beside others, in one folder."""

    count: int = 0
    present: int = -1  # the lock that they hold together
    counting: threading.Lock = field(default_factory=threading.Lock)
    entering: threading.Lock = field(default_factory=threading.Lock)


_HERE: dict[Path, _Here] = {}
_MAKING = threading.Lock()


@contextlib.contextmanager
def company(folder: Path, *, alone: bool, check: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Held from before a guest gets a bundle until it has ended. `alone`: only once nobody else holds it.

    `check` is called while it waits, and ends the waiting by raising.
    """
    with _alone(folder, check) if alone else _beside(folder, check):
        yield


@contextlib.contextmanager
def _alone(folder: Path, check: Callable[[], None]) -> Iterator[None]:
    present = _entered(folder, fcntl.LOCK_EX, check)
    try:
        yield
    finally:
        os.close(present)


@contextlib.contextmanager
def _beside(folder: Path, check: Callable[[], None]) -> Iterator[None]:
    with _MAKING:
        here = _HERE.setdefault(folder, _Here())
    if not _joined(here):
        with here.entering:
            if not _joined(here):
                present = _entered(folder, fcntl.LOCK_SH, check)
                with here.counting:
                    here.count, here.present = 1, present
    try:
        yield
    finally:
        with here.counting:
            here.count -= 1
            if not here.count:
                os.close(here.present)


def _joined(here: _Here) -> bool:
    with here.counting:
        here.count += here.count > 0
        return here.count > 0


def _entered(folder: Path, how: int, check: Callable[[], None]) -> int:
    """The descriptor whose closing gives the place up again."""
    turn, present = _opened(folder / "turn"), -1
    try:
        present = _opened(folder / "present")
        _take(turn, fcntl.LOCK_EX, check)
        _take(present, how, check)
    except BaseException:
        if present >= 0:
            os.close(present)
        raise
    finally:
        os.close(turn)
    return present


def _take(file: int, how: int, check: Callable[[], None]) -> None:
    """Wait in steps, because nothing interrupts a thread that waits inside a call."""
    while True:
        try:
            fcntl.flock(file, how | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            check()
            time.sleep(STEP_SECONDS)


def _opened(path: Path) -> int:
    """A description of its own: locks tell these apart, not processes or threads."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        found, needed = error.strerror or str(error), "a folder this user may write"
        raise SetupError(
            f"the lock {path}", found, needed, "set XDG_STATE_HOME to a local folder", code="folder_unwritable"
        ) from error
