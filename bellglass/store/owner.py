"""Who owns a loop: whoever holds the lock on `loop.lock`, which the operating system drops when its holder dies.

Which process that is, its owner notes in the user's state folder under the lock's device and inode, and never in the
loop: a folder may come from somebody else, and whoever is named can be killed.

Not covered: a network file system, where such locks may be fiction (paths refuses those); a person who deletes the
lock file of a running loop; the name of an owner of another user, or with another state folder.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shlex
import time
from pathlib import Path

from bellglass.errors import LoopFault, SetupError
from bellglass.paths import LOCK_NAME, typed
from bellglass.processes import Process, is_running, named
from bellglass.store import state_folder
from bellglass.store.folder import GUARDED, open_written

POLL_SECONDS = 0.02
LOOKS_SECONDS = 0.1  # who only looks whether a lock is held has it for an instant


def owner_of(folder: Path) -> Process | None:
    """The live process of this user that holds the loop's lock now; of a lock that is another loop's, too, nobody."""
    try:
        handle = os.open(folder / LOCK_NAME, os.O_RDONLY | GUARDED)
    except OSError:
        return None
    try:
        if os.fstat(handle).st_nlink != 1:  # a second name of the lock of a loop that runs elsewhere
            return None
        return None if _locked(handle, fcntl.LOCK_SH) else _noted(handle)
    finally:
        os.close(handle)


def is_owned(folder: Path) -> bool:
    """Whether anybody holds the loop's lock."""
    try:
        handle = os.open(folder / LOCK_NAME, os.O_RDONLY | GUARDED)
    except OSError:
        return False
    try:
        return not _locked(handle, fcntl.LOCK_SH)
    finally:
        os.close(handle)


def take_lock(folder: Path, wait_seconds: float = 0.0) -> int:
    """An open descriptor that holds the lock. LoopFault when another process has it; OSError when the disk fails."""
    deadline = time.monotonic() + max(wait_seconds, LOOKS_SECONDS)
    handle = open_written(folder / LOCK_NAME)
    try:
        while not _locked(handle, fcntl.LOCK_EX):
            if time.monotonic() >= deadline:
                raise owned_by_another(folder)
            time.sleep(POLL_SECONDS)
        me = named(os.getpid())
        state_folder.write(_note(handle), json.dumps({"pid": me.pid, "start": me.start}).encode())
        os.utime(handle)  # the newest loop is the one last taken
    except BaseException:
        os.close(handle)
        raise
    return handle


def drop_lock(handle: int | None) -> None:
    if handle is None:
        return
    try:
        with contextlib.suppress(OSError, SetupError):  # a note without a lock names nobody
            state_folder.drop(_note(handle))
    finally:
        os.close(handle)


def _note(handle: int) -> str:
    found = os.fstat(handle)
    return f"owners/{found.st_dev}-{found.st_ino}"


def _noted(handle: int) -> Process | None:
    try:
        noted = json.loads(state_folder.read(_note(handle)) or b"")
        owner = Process(int(noted["pid"]), str(noted["start"]))
    except (SetupError, ValueError, KeyError, TypeError):
        return None
    return owner if is_running(owner) else None


def _locked(handle: int, how: int) -> bool:
    try:
        fcntl.flock(handle, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def owned_by_another(folder: Path) -> LoopFault:
    """Says whom to ask, where that is known."""
    owner = owner_of(folder)
    ask = f"bellglass status, or bellglass stop {typed(folder)}"
    if owner is None:
        found = "in use by a process that was not started by this user, or with another state folder"
        ask = f"lsof {shlex.quote(str(folder / LOCK_NAME))}"
    elif owner.pid == os.getpid():
        found = f"in use by this process already (pid {owner.pid})"
    else:
        found = f"in use by process {owner.pid}"
    return LoopFault(f"loop {folder.name}", found, "no other owner", ask, code="loop_owned")
