"""Stop a loop from outside its driver: politely first, then for certain.

The hard way works with the driver hung or dead: SIGKILL it (by pid and start time), which closes its guests' pipes;
kill what is left by label; check that nothing is; take the lock and write down how it ended. Killed is only a process
that holds the loop's lock and that this user's state folder names: nothing in the loop's folder says whom.

Of a loop that is not ours nothing is written, and only a driver that is there is stopped.

Not covered: a driver on another machine, or of another user.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from bellglass.errors import BellglassError
from bellglass.paths import typed, user_name
from bellglass.processes import Process, is_running
from bellglass.store.ledger import Ledger, require_ours
from bellglass.store.ours import standing_to_show
from bellglass.store.owner import is_owned, owned_by_another, owner_of

POLL_SECONDS = 0.05
LOCK_SECONDS = 5.0
NAMED_SECONDS = 1.0  # an owner that begins or ends holds the lock for a moment without its name

Killer = Callable[[], int]  # ends this loop's guests; returns how many are still there


def stop(folder: Path, kill_guests: Killer, *, polite_seconds: float, reason: str) -> str:
    """What was done, in a line. Raises when something is still running."""
    began = time.monotonic()
    owner = _driver(folder)
    if owner is None:
        with Ledger.open(folder) as ledger:
            require_ours(folder, ledger.standing())
    if owner is not None and polite_seconds > 0 and _ours(folder):
        with Ledger.open(folder) as ledger:
            ledger.post("stop", {"who": user_name(), "reason": reason})
        if _gone(owner, polite_seconds):
            _require_none_left(kill_guests)
            _withdraw_stops(folder)
            return f"stopped politely in {time.monotonic() - began:.1f} s; bellglass resume {typed(folder)} goes on"
    if owner is not None:
        _kill(folder, owner)
    _require_none_left(kill_guests)
    _withdraw_stops(folder)
    if owner is None:
        return f"{folder.name} was not running; no guest of it is left"
    if not _ours(folder):
        return f"killed in {time.monotonic() - began:.1f} s"
    with Ledger.open(folder, write=True, wait_seconds=LOCK_SECONDS) as ledger:
        ledger.append("loop.ended", {"why": "stopped", "detail": f"killed by {user_name()}: {reason}"})
    return f"killed in {time.monotonic() - began:.1f} s; bellglass resume {typed(folder)} goes on"


def _withdraw_stops(folder: Path) -> None:
    """A stop that no driver took would end the next `resume` as it begins."""
    if not _ours(folder):
        return
    with Ledger.open(folder, write=True, wait_seconds=LOCK_SECONDS) as ledger:
        for request in ledger.take():
            if request.kind == "stop":
                why = "the driver was gone before it took this"
                ledger.append("request.refused", {"request": request.body, "why": why}, answers=request.id)


def _driver(folder: Path) -> Process | None:
    """Who owns the loop; None where nobody does. Raises before any guest is killed where it is nobody of this user."""
    deadline = time.monotonic() + NAMED_SECONDS
    while (owner := owner_of(folder)) is None and is_owned(folder):
        if time.monotonic() > deadline:
            raise owned_by_another(folder)
        time.sleep(POLL_SECONDS)
    return owner


def _ours(folder: Path) -> bool:
    with Ledger.open(folder) as ledger:
        return standing_to_show(ledger).ours


def _gone(owner: Process, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while is_running(owner):
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


def _kill(folder: Path, owner: Process) -> None:
    if owner_of(folder) == owner:
        os.kill(owner.pid, signal.SIGKILL)
    if not _gone(owner, LOCK_SECONDS):
        raise BellglassError(
            "the driver", f"process {owner.pid} survives SIGKILL", "its end", f"ps -p {owner.pid}", code="not_stopped"
        )


def _require_none_left(kill_guests: Killer) -> None:
    left = kill_guests()
    if left:
        raise BellglassError(
            "the loop's guests", f"{left} still there", "none", "bellglass stop --now", code="not_stopped"
        )
