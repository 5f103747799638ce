"""Open a loop's database: in place for who writes it, as a private copy in memory for who reads it."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from bellglass.store.limits import ROW_BYTES_MAX, limited
from bellglass.store.private_copy import PrivateCopy, keep_locks, let_go
from bellglass.store.tables import require_own_tables

BUSY_SECONDS = 20.0
PRAGMAS = (
    "trusted_schema = 0",
    "cell_size_check = 1",
    "mmap_size = 0",
    "synchronous = FULL",
    "fullfsync = 1",
    "checkpoint_fullfsync = 1",
)


class InPlace:
    """The file itself, with SQLite's locks on it."""

    def __init__(self, path: Path) -> None:
        uri = f"{(path.parent.resolve() / path.name).as_uri()}?mode=rw"
        self._locks = keep_locks(path)
        try:
            self._connection = _prepared(
                sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
            )
        except BaseException:
            let_go(self._locks)
            raise
        self._open = True

    def now(self) -> sqlite3.Connection:
        return self._connection

    def close(self) -> None:
        self._connection.close()
        if self._open:
            let_go(self._locks)
        self._open = False


class Copied:
    """What a reader asks: the database as it is at each look, with nothing in it but a ledger's tables."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._copy = PrivateCopy(folder)
        self._connection: sqlite3.Connection | None = None
        self._open = True

    def now(self) -> sqlite3.Connection:
        if not self._open:
            raise sqlite3.ProgrammingError("a closed ledger")
        image = self._copy.news()
        if image is not None or self._connection is None:
            self._let_go()
            try:
                self._connection = self._in_memory(image or b"")
            except BaseException:
                self._copy.forget()
                raise
        return self._connection

    def close(self) -> None:
        self._let_go()
        self._copy.close()
        self._open = False

    def _let_go(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None

    def _in_memory(self, image: bytes | bytearray) -> sqlite3.Connection:
        connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        try:
            if image:
                connection.deserialize(image)
            _prepared(connection).execute("PRAGMA query_only = 1")
            with limited(connection):
                require_own_tables(self._folder, connection)
        except BaseException:
            connection.close()
            raise
        return connection


def _prepared(connection: sqlite3.Connection) -> sqlite3.Connection:
    """Closed again where it is of no use."""
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, ROW_BYTES_MAX)
    # A flipped byte may be no UTF-8: it must reach the check of the hash, which can say where it is.
    connection.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")
    try:
        for pragma in PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")
        with limited(connection):
            connection.execute("SELECT 1 FROM sqlite_schema").fetchone()  # only now does SQLite open the file
    except BaseException:
        connection.close()
        raise
    return connection
