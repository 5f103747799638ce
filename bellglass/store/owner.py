"""Who owns a loop: a lock on `loop.lock` that the operating system drops when its holder dies, however it dies.

The file also names the holder, so that the one who is refused can be told whom to ask. The name is for people; only
the lock decides.

Not covered: a network file system, where such locks may be fiction (paths refuses those); a person who deletes the
lock file of a running loop.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from pathlib import Path

from bellglass.errors import LoopFault
from bellglass.paths import LOCK_NAME, typed
from bellglass.processes import Process, is_running, named

POLL_SECONDS = 0.02


def owner_of(folder: Path) -> Process | None:
    """The live process that says it owns the loop."""
    try:
        noted = json.loads((folder / LOCK_NAME).read_text("utf-8"))
        owner = Process(int(noted["pid"]), str(noted["start"]))
    except (OSError, ValueError, KeyError, TypeError):  # absent, empty after a clean end, or half written
        return None
    return owner if is_running(owner) else None


def take_lock(folder: Path, wait_seconds: float = 0.0) -> int:
    """An open descriptor that holds the lock. LoopFault when another process has it; OSError when the disk fails."""
    deadline = time.monotonic() + wait_seconds
    handle = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        while not _locked(handle):
            if time.monotonic() >= deadline:
                raise _owned(folder)
            time.sleep(POLL_SECONDS)
        me = named(os.getpid())
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps({"pid": me.pid, "start": me.start}).encode(), 0)
    except BaseException:
        os.close(handle)
        raise
    return handle


def drop_lock(handle: int | None) -> None:
    if handle is None:
        return
    try:
        taken = os.fstat(handle)
        os.ftruncate(handle, 0)
        os.utime(handle, ns=(taken.st_atime_ns, taken.st_mtime_ns))  # the newest loop is the one last taken, not left
    finally:
        os.close(handle)


def _locked(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _owned(folder: Path) -> LoopFault:
    owner = owner_of(folder)
    if owner is None:
        found = "in use by another process"
    elif owner.pid == os.getpid():
        found = f"in use by this process already (pid {owner.pid})"
    else:
        found = f"in use by process {owner.pid}"
    return LoopFault(
        f"loop {folder.name}",
        found,
        "no other owner",
        f"bellglass status, or bellglass stop {typed(folder)}",
        code="loop_owned",
    )
