"""A loop's folder as it lies on the disk. It may come from somebody else, so nothing in it is reached through a link.

Every entry is a regular file or a folder, or the loop is refused as it is opened; and whoever opens a file of it says
`O_NOFOLLOW` all the same, and `O_NONBLOCK`, because a pipe would wait for a writer for ever.

Not covered: somebody who may write the folder while it is in use. What lies in `wandb/`, where wandb's own links are:
only the door to wandb and its log are there, and both look for links themselves.
"""

from __future__ import annotations

import errno
import os
import shlex
import stat
from collections.abc import Iterator
from pathlib import Path

from bellglass.errors import LoopFault

LOG_NAME = "driver.log"
WRITTEN = (
    "loop.db",
    "loop.db-wal",
    "loop.db-shm",
    "loop.lock",
    LOG_NAME,
)  # in place, so that a second name would be written, too
JOURNAL = "loop.db-journal"
FOREIGN = "wandb"
SECRET_BYTES = 32
MOST_ENTRIES = 5_000_000  # a thousand times a long loop's: a bound against a walk that never ends, no budget
MOST_DEPTH = 12  # ours is 4; wandb's deepest is 7
GUARDED = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def require_plain(folder: Path) -> None:
    """LoopFault where anything in a loop's folder would lead out of it."""
    for _ in entries(folder, (FOREIGN,)):
        pass
    # SQLite plays such a journal back before anything can be asked, and removes the file that it names as its head. The
    # file system is asked, because to some of them LOOP.DB-JOURNAL is the same name.
    if os.path.lexists(folder / JOURNAL):
        raise refused(folder, JOURNAL, "of a kind that bellglass's ledger never has")
    for name in WRITTEN:
        path = folder / name
        if path.exists() and path.lstat().st_nlink > 1:
            raise refused(folder, name, "a file that has another name elsewhere (copy the folder without hard links)")


def open_written(path: Path, how: int = 0) -> int:
    """A descriptor of a file that is written in place, made where there is none. OSError where it is anything else.

    `how`: flags beside.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT | GUARDED | how, 0o644)
    found = os.fstat(handle)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
        os.close(handle)
        raise OSError(errno.EINVAL, "no regular file with one name")
    return handle


def entries(folder: Path, closed: tuple[str, ...] = ()) -> Iterator[str]:
    """The path of everything below, `/` between parts. LoopFault at the first that is no regular file and no folder.

    `closed`: folders that are not looked into.
    """
    count, waiting = 0, [("", 0)]
    while waiting:
        prefix, depth = waiting.pop()
        for name, is_folder in _inside(folder, prefix):
            count += 1
            if count > MOST_ENTRIES or depth > MOST_DEPTH:
                how = f"more than {MOST_ENTRIES} entries" if count > MOST_ENTRIES else f"folders too deep, {name!a:.80}"
                raise LoopFault(
                    f"loop folder {folder}",
                    how,
                    "what bellglass wrote",
                    "restore it from a copy",
                    code="folder_refused",
                )
            if is_folder and name not in closed:
                waiting.append((f"{name}/", depth + 1))
            yield name


def _inside(folder: Path, prefix: str) -> Iterator[tuple[str, bool]]:
    try:
        listing = os.scandir(folder / prefix)
    except FileNotFoundError:  # its owner is at work
        return
    except OSError as error:
        raise refused(folder, prefix, f"a folder that can't be looked into ({error.strerror})") from error
    with listing:
        for entry in listing:
            is_folder = entry.is_dir(follow_symlinks=False)
            if not is_folder and not entry.is_file(follow_symlinks=False) and os.path.lexists(entry.path):
                raise refused(folder, prefix + entry.name, _what(Path(entry.path)))
            yield prefix + entry.name, is_folder


def _what(path: Path) -> str:
    return f"a link to {os.readlink(path)!a:.200}" if path.is_symlink() else "neither a file nor a folder"


def refused(folder: Path, name: str, found: str) -> LoopFault:
    """The one error for an entry that no loop has."""
    look = f"ls -l {shlex.quote(str(folder / name))}"
    entry, needed = f"{name!a:.200} is {found}", "regular files and folders alone"
    return LoopFault(f"loop folder {folder}", entry, needed, look, code="folder_refused")


def read_plain(path: Path, most_bytes: int) -> bytes:
    """A regular file's content. OSError where it is none, or larger."""
    handle = os.open(path, os.O_RDONLY | GUARDED)
    with open(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "no regular file")
        data = file.read(most_bytes + 1)
    if len(data) > most_bytes:
        raise OSError(errno.EFBIG, f"more than {most_bytes} bytes")
    return data
