"""A loop's folder while it is made: under another name, until all of it is on the disk.

So there is a whole loop or none, wherever the power fails. What another left half made is removed by whoever comes
next.

Not covered: a maker on another machine that shares the folder; bellglass refuses network file systems for this, too.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from bellglass import processes
from bellglass.errors import SetupError
from bellglass.paths import MAKING
from bellglass.store.blobs import fsync_folder, make_folder


def begin_folder(home: Path, loop_id: str) -> Path:
    """Where the loop is made."""
    for old in home.glob(f"{MAKING}*"):
        if not processes.is_running(_maker(old.name)):
            shutil.rmtree(old, ignore_errors=True)
    me = processes.named(os.getpid())
    making = home / f"{MAKING}{me.pid}-{_spelled(me.start)}-{loop_id}"
    try:
        make_folder(making)
    except OSError as error:
        found, needed = str(error.strerror), "a folder this user may write"
        raise SetupError(
            f"loop folder {making}", found, needed, "bellglass run --loops FOLDER", code="folder_unwritable"
        ) from error
    return making


def _maker(name: str) -> processes.Process:
    pid, start = [*name.removeprefix(MAKING).split("-"), "", ""][:2]
    now = processes.start_time(int(pid)) if pid.isdecimal() else None
    return processes.Process(int(pid), now) if now and _spelled(now) == start else processes.Process(0, "")


def _spelled(start: str) -> str:
    """A process's start time as part of a file's name."""
    return re.sub(r"[^0-9A-Za-z]", "_", start)


def end_folder(making: Path, folder: Path) -> None:
    """Give it its name."""
    os.replace(making, folder)
    fsync_folder(folder.parent)
