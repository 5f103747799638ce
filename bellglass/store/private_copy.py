"""Copy a loop's database into memory as it was at one moment, while its owner goes on writing.

Readers work on such a copy. SQLite itself would map a file of the owner's (`loop.db-shm`) and make it where there is
none: so a reader needed a disk that can be written, and died when that file was cut off under it.

The database lags behind its log: what is committed lies in the log first, and the owner copies it over from time to
time, page by page. So the database is read first, whatever state it is in, and the log afterwards: it holds every page
that can have been copied over meanwhile, as long as it was not started over (write_ahead.py tells). Where there is no
log, a second reading must find the same.

Not covered: whoever may write the folder can put a file of theirs in place. What is read is checked by the ledger, like
all of a loop.
"""

from __future__ import annotations

import os
import stat
import threading
import time
from pathlib import Path

from bellglass.errors import LoopFault
from bellglass.paths import LEDGER_NAME
from bellglass.store.chain import damaged
from bellglass.store.folder import GUARDED, refused
from bellglass.store.limits import LEDGER_BYTES_MAX, too_large
from bellglass.store.write_ahead import WriteAhead

TRIES, PAUSE_SECONDS = 500, 0.02  # an owner starts the log over after some hundred events
CHUNK_BYTES = 1 << 20
SETTLED_NS = 100_000_000  # a change sooner after another than this may leave the file's time as it was
SQLITE, LOGGED, UNLOGGED = b"SQLite format 3\0", b"\2\2", b"\1\1"

FileId = tuple[int, int]


class PrivateCopy:
    """For one thread at a time; close it."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._path = folder, folder / LEDGER_NAME
        self._file: int | None = None
        self._log: WriteAhead | None = None
        self._image = bytearray()
        self._settled: tuple[int, int] | None = None  # size and time of a database without a log

    def news(self) -> bytearray | None:
        """The database as it is now, for SQLite to take into memory; None where it is as it was when last asked."""
        try:
            if self._goes_on():
                assert self._log is not None
                count = self._add()
                if count is not None and self._log.holds:
                    return self._unlogged() if count else None
            for _ in range(TRIES):
                if self._read():
                    return self._unlogged()
                time.sleep(PAUSE_SECONDS)
        except BaseException:
            self.forget()
            raise
        raise LoopFault(
            f"ledger {self._folder}", "changes faster than it can be read", "a moment's rest", "the same command again",
            code="ledger_busy",
        )  # fmt: skip

    def forget(self) -> None:
        """Read all of it when next asked."""
        if self._log is not None:
            self._log.close()
        self._log, self._settled, self._image = None, None, bytearray()

    def close(self) -> None:
        self.forget()
        handle, self._file = self._file, None
        if handle is not None:
            _close(handle)

    def _goes_on(self) -> bool:
        """Whether what was read last can be read on from."""
        if self._file is None or self._log is None or not self._log.holds:
            return False
        there = os.stat(self._path, follow_symlinks=False)
        if not os.path.samestat(there, os.fstat(self._file)):
            return False
        return bool(self._log.header) or self._settled == (there.st_size, there.st_mtime_ns)

    def _read(self) -> bool:
        """All of it; False where it changed meanwhile."""
        self.forget()
        file = self._opened()
        self._log = WriteAhead(self._path.with_name(f"{LEDGER_NAME}-wal"))
        before = os.fstat(file)
        if abs(time.time_ns() - before.st_mtime_ns) > SETTLED_NS:
            self._settled = (before.st_size, before.st_mtime_ns)
        self._image = _content(self._folder, file)
        if self._image.startswith(SQLITE) and self._image[18:20] != LOGGED:
            raise damaged(self._folder, "a database without a write-ahead log")
        if not self._log.header:
            return self._log.holds and _same(file, self._image)
        return self._add() is not None and self._log.holds

    def _opened(self) -> int:
        """The database's descriptor: the same one as long as it is the same file."""
        there = os.stat(self._path, follow_symlinks=False)
        if self._file is not None and not os.path.samestat(there, os.fstat(self._file)):
            handle, self._file = self._file, None
            _close(handle)
        if self._file is None:
            if not stat.S_ISREG(there.st_mode):
                raise refused(self._folder, LEDGER_NAME, "no regular file")
            self._file = os.open(self._path, os.O_RDONLY | GUARDED)
        return self._file

    def _add(self) -> int | None:
        """Put in place what the log holds behind what was read of it: how many pages there are then, 0 where nothing
        was added; None where the log was cut off meanwhile."""
        assert self._log is not None
        try:
            count, pages = self._log.committed(LEDGER_BYTES_MAX)
        except ValueError as error:
            raise too_large(self._folder, str(error)) from None
        if not count:
            return 0
        size = self._log.page_bytes
        if self._image[16:18] != (size % 0xFFFF).to_bytes(2):  # the largest, 65,536, is written as 1
            raise damaged(self._folder, "a write-ahead log of another database")
        if count * size > LEDGER_BYTES_MAX:
            raise too_large(self._folder, f"more than {LEDGER_BYTES_MAX >> 20} MB")
        del self._image[count * size :]
        self._image.extend(bytes(count * size - len(self._image)))
        for number, at in pages.items():
            page = self._log.page(at)
            if not page:
                return None
            if number <= count:
                self._image[(number - 1) * size : number * size] = page
        return count

    def _unlogged(self) -> bytearray:
        """SQLite has no log for a database in memory."""
        if self._image.startswith(SQLITE):
            self._image[18:20] = UNLOGGED
        image = self._image
        if self._log is None or not self._log.header:  # nothing can be read on from it
            self._image = bytearray()
        return image


def _content(folder: Path, file: int) -> bytearray:
    image = bytearray()
    while chunk := os.pread(file, CHUNK_BYTES, len(image)):
        image += chunk
        if len(image) > LEDGER_BYTES_MAX:
            raise too_large(folder, f"more than {LEDGER_BYTES_MAX >> 20} MB")
    return image


def _same(file: int, image: bytearray) -> bool:
    at = 0
    while chunk := os.pread(file, CHUNK_BYTES, at):
        if image[at : at + len(chunk)] != chunk:
            return False
        at += len(chunk)
    return at == len(image)


# SQLite's own locks
#
# They are POSIX locks, and a process loses all of those that it has on a file when it closes any descriptor of it: then
# another process that closes the database would take itself for the last one, and remove the log that is in use. So a
# copy's descriptor is closed only when no connection of this process is open to the same file.

_GUARD = threading.Lock()
_CONNECTIONS: dict[FileId, int] = {}
_LEFT_OPEN: dict[FileId, list[int]] = {}


def keep_locks(path: Path) -> FileId:
    """Call before SQLite opens this file, and `let_go` with the answer when it has closed it."""
    with _GUARD:
        found = _id(os.stat(path))
        _CONNECTIONS[found] = _CONNECTIONS.get(found, 0) + 1
    return found


def let_go(found: FileId) -> None:
    with _GUARD:
        _CONNECTIONS[found] -= 1
        if _CONNECTIONS[found] == 0:
            del _CONNECTIONS[found]
            for handle in _LEFT_OPEN.pop(found, []):
                os.close(handle)


def _close(handle: int) -> None:
    with _GUARD:
        found = _id(os.fstat(handle))
        if found in _CONNECTIONS:
            _LEFT_OPEN.setdefault(found, []).append(handle)
        else:
            os.close(handle)


def _id(found: os.stat_result) -> FileId:
    return found.st_dev, found.st_ino
