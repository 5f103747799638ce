"""The truth about a loop: an append-only, hash-chained table of events in `loop.db`.

One process at a time owns the ledger, by a lock on `loop.lock` that the system drops when the process dies, and only
the owner appends. Others read at any time, and put requests into the inbox; the owner turns a request into an event
and removes it in one transaction, so a crash between the two can lose neither.

An event is acknowledged when `append` returns: by then it is on the disk. When the disk is full `append` raises,
nothing before it is lost, and a later `append` works once there is space.

Every event is signed by its user's key, and the head is noted in their state folder (ours.py): a loop that is not ours
by these is not opened for writing.

Not covered: whoever may write the folder can cut events off the end, or forge a whole new chain. That is found where
its head was noted, and elsewhere only by comparing with a head that somebody kept: `verify(head)`.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from bellglass.errors import BellglassError, LoopFault, SetupError
from bellglass.paths import LEDGER_NAME, refuse_network_filesystem, typed
from bellglass.records import Json
from bellglass.store import ours
from bellglass.store.blobs import DISK_FULL, fsync_folder
from bellglass.store.chain import GENESIS as GENESIS  # these belong to who speaks of a ledger
from bellglass.store.chain import Event as Event
from bellglass.store.chain import body_from, broken, chained, damaged
from bellglass.store.chain import canonical as canonical
from bellglass.store.chain import digest as digest
from bellglass.store.connections import BUSY_SECONDS, Copied, InPlace
from bellglass.store.folder import require_plain
from bellglass.store.limits import limited, too_large, weighed
from bellglass.store.ours import Standing
from bellglass.store.owner import drop_lock, take_lock
from bellglass.store.tables import SCHEMA, SIGNATURES, require_own_tables


@dataclass(frozen=True, slots=True)
class InboxRequest:
    """What another process asks of the owner. A decision's body names the hash of what its person was shown."""

    id: int
    time: float
    kind: str
    body: Json


class Ledger:
    """Made by `create` or `open`. Safe to use from several threads; close it, or use it as a context manager."""

    def __init__(self, folder: Path, source: InPlace | Copied, lock: int | None) -> None:
        self.folder = folder
        self._source, self._lock = source, lock
        self._guard = threading.RLock()
        self._tail: tuple[int, str] | None = None  # the owner's memory of the last event; None: look it up
        self._key: bytes | None = None  # an owner's, to sign with
        self._first: Event | None = None  # what the head is noted under
        self._unnoted: Event | None = None  # the head, until it is noted
        self._taken = 0  # requests up to this id were handed out by `take`

    @classmethod
    def create(cls, folder: Path) -> Ledger:
        """A new, empty ledger in `folder` (made when missing), owned by this process."""
        key = ours.ready()
        refuse_network_filesystem(folder)
        with _translated(folder):
            folder.mkdir(parents=True, exist_ok=True)
            lock = take_lock(folder)
        try:
            if (folder / LEDGER_NAME).exists():
                raise LoopFault(
                    f"loop folder {folder}", "a ledger already", "a new folder", "bellglass resume", code="loop_exists"
                )
            with _translated(folder):
                _make_file(folder)
                ledger = cls(folder, InPlace(folder / LEDGER_NAME), lock)
                ledger._key = key
                return ledger
        except BaseException:
            drop_lock(lock)
            raise

    @classmethod
    def open(cls, folder: Path, write: bool = False, wait_seconds: float = 0.0, *, received: bool = False) -> Ledger:
        """`write` takes ownership, waiting up to `wait_seconds` for an owner that is ending. A loop that is not ours is
        only opened so with `received`, by who takes it over."""
        _require_file(folder)
        refuse_network_filesystem(folder)
        with _translated(folder):
            require_plain(folder)
            lock = take_lock(folder, wait_seconds) if write else None
        try:
            if write and not received:  # before it is opened in a way in which SQLite would mend, or remove, anything
                with cls.open(folder) as reader:
                    require_ours(folder, reader.standing())
            with _translated(folder):
                source = _in_place(folder) if write else _copied(folder)
            ledger = cls(folder, source, lock)
        except BaseException:
            drop_lock(lock)
            raise
        try:
            if write:
                ledger._key = ours.ready()
        except BaseException:
            ledger.close()
            raise
        return ledger

    @property
    def owned(self) -> bool:
        return self._lock is not None

    @property
    def head(self) -> str:
        """The hash of the last event; GENESIS when there is none."""
        return self._last()[1]

    @property
    def last_seq(self) -> int:
        return self._last()[0]

    def standing(self) -> Standing:
        """Whose this loop is; LoopFault where the events that tell are damaged. The rest of the chain is not read."""
        return ours.standing(self)

    def append(self, kind: str, body: Mapping[str, Json], answers: int | None = None) -> Event:
        """Owner only. Durable on return. `answers` is the id of the request that this event disposes of."""
        return self._append(kind, body, "DELETE FROM inbox WHERE id IS ?", answers)

    def take_over(self, body: Mapping[str, Json]) -> Event:
        """Owner only: from this event on the loop is ours. What lay in its inbox goes: others had put it there."""
        with self._guard, _translated(self.folder):
            self._db.execute(SIGNATURES)  # a ledger of an earlier version has none
            return self._append(ours.TAKEN_OVER, body, "DELETE FROM inbox WHERE ? IS NULL", None)

    def _append(self, kind: str, body: Mapping[str, Json], dispose: str, answers: int | None) -> Event:
        text = canonical(body)
        with self._guard, _translated(self.folder):
            self._require_owner()
            seq, prev = self._last()
            # Forgotten until it is written: an interrupt in between must not leave a stale memory.
            self._tail = None
            when = time.time()
            event = Event(seq + 1, when, kind, json.loads(text), prev, digest(seq + 1, when, kind, text, prev))
            row = (event.seq, when, kind, text, prev, event.hash)
            self._note()  # what could not be noted before: then nothing more is written
            assert self._key is not None
            with limited(self._db), self._transaction():
                self._db.execute("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?)", row)
                self._db.execute("INSERT INTO signatures VALUES (?, ?)", (event.seq, ours.sign(self._key, event.hash)))
                self._db.execute(dispose, (answers,))
            self._tail = (event.seq, event.hash)
            self._first = self._first or (event if seq == 0 else self.marked()[0])
            self._unnoted = event
            with contextlib.suppress(SetupError):  # the event is on the disk, and a head may lag
                self._note()
        return event

    def _note(self) -> None:
        if self._first is not None and self._unnoted is not None:
            ours.note(self._first, self._unnoted)
            self._unnoted = None

    def events(self, after: int = 0) -> list[Event]:
        """Every event behind number `after`, each checked against the one before it."""
        query = "SELECT seq, time, kind, body, prev, hash FROM events WHERE seq >= ? ORDER BY seq"
        with self._reading() as db:
            rows = weighed(self.folder, db.execute(query, (max(after, 0),)))
            if after <= 0:
                return list(chained(self.folder, rows, 0, GENESIS))
            before = next(rows, None)
            if before is None:
                return []
            if before[0] != after:
                raise broken(self.folder, after)
            return list(chained(self.folder, rows, after, before[5]))

    def sound(self) -> tuple[list[Event], str]:
        """The events up to the first that does not fit the chain, and what is wrong with that; for showing alone."""
        found: list[Event] = []
        query = "SELECT seq, time, kind, body, prev, hash FROM events ORDER BY seq"
        try:
            with self._reading() as db:
                for event in chained(self.folder, weighed(self.folder, db.execute(query)), 0, GENESIS):
                    found.append(event)  # noqa: PERF402 - what came before a fault is kept
        except LoopFault as fault:
            return found, fault.found
        return found, ""

    def verify(self) -> int:
        """Derive the whole chain again; returns the number of events."""
        return len(self.verified())

    def verified(self) -> list[Event]:
        """All events, of a file that SQLite finds whole."""
        with self._guard, _translated(self.folder):
            found = self._db.execute("PRAGMA integrity_check(1)").fetchone()[0]
        if found != "ok":
            raise damaged(self.folder, str(found))
        return self.events()

    # Whose it is: what ours.Chain asks

    def marked(self) -> list[Event]:
        """Each checked alone; whether it stands in the chain, `events` says."""
        query = "SELECT seq, time, kind, body, prev, hash FROM events WHERE seq = 1 OR kind = ? ORDER BY seq"
        found: list[Event] = []
        with self._reading() as db:
            for row in weighed(self.folder, db.execute(query, (ours.TAKEN_OVER,))):
                seq, before = (row[0] - 1, row[4]) if type(row[0]) is int and row[0] > 1 else (0, GENESIS)
                found += chained(self.folder, [row], seq, before)
        return found

    def hash_at(self, seq: int) -> str | None:
        with self._reading() as db:
            row = db.execute("SELECT hash FROM events WHERE seq = ?", (seq,)).fetchone()
        return None if row is None else str(row[0])

    def signatures(self, after: int = 0) -> dict[int, str]:
        with self._reading() as db:
            if not db.execute("SELECT 1 FROM sqlite_schema WHERE name = 'signatures'").fetchone():
                return {}
            signed = "seq = 1 OR seq > ? OR seq IN (SELECT seq FROM events WHERE kind = ?)"
            query = f"SELECT seq, mac FROM signatures WHERE {signed}"
            rows = weighed(self.folder, db.execute(query, (after, ours.TAKEN_OVER)))
            return {int(seq): str(mac) for seq, mac in rows if type(seq) is int and str(mac).isascii()}

    # The inbox

    def post(self, kind: str, body: Mapping[str, Json]) -> int:
        """Anyone's request to the owner; returns its id. It waits there until an owner answers it."""
        row = (time.time(), kind, canonical(body))
        insert = "INSERT INTO inbox (time, kind, body) VALUES (?, ?, ?)"
        with self._guard, _translated(self.folder):
            if self.owned:
                return int(self._db.execute(insert, row).lastrowid or 0)
            # A moment's connection of its own, so that a reader stays one that cannot write.
            with closing(_in_place(self.folder)) as other:
                return int(other.now().execute(insert, row).lastrowid or 0)

    def pending(self) -> list[InboxRequest]:
        """Requests that no event has answered yet; for anyone."""
        try:
            with self._reading() as db:
                rows = weighed(self.folder, db.execute("SELECT id, time, kind, body FROM inbox ORDER BY id"))
                return [InboxRequest(id_, when, kind, body_from(body)) for id_, when, kind, body in rows]
        except (TypeError, ValueError, RecursionError) as error:
            raise damaged(self.folder, f"an unreadable request ({error})") from error

    def waiting(self) -> int:
        """How many requests there are, readable or not; a thousand may be more."""
        query = "SELECT count(*) FROM (SELECT 1 FROM inbox LIMIT 1000)"
        with self._reading() as db:
            return int(db.execute(query).fetchone()[0])

    def take(self) -> list[InboxRequest]:
        """Owner only: requests not handed out before by this object. One that no `append(answers=)` disposed of comes
        again to the next owner."""
        with self._guard:
            self._require_owner()
            fresh = [request for request in self.pending() if request.id > self._taken]
            self._taken = max([self._taken, *(request.id for request in fresh)])
        return fresh

    def close(self) -> None:
        with self._guard:
            self._source.close()
            lock, self._lock = self._lock, None
        drop_lock(lock)

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _last(self) -> tuple[int, str]:
        with self._reading() as db:
            if self._tail is not None:
                return self._tail
            row = db.execute("SELECT seq, hash FROM events ORDER BY seq DESC LIMIT 1").fetchone() or (0, GENESIS)
            if [type(value) for value in row] != [int, str]:
                raise damaged(self.folder, "a last event without a number or a hash")
            if self.owned:  # for a reader the end moves
                self._tail = row
            return row[0], row[1]

    def _require_owner(self) -> None:
        if not self.owned:
            raise LoopFault(
                f"ledger {self.folder}",
                "opened for reading",
                "Ledger.open(folder, write=True)",
                code="ledger_read_only",
            )

    @property
    def _db(self) -> sqlite3.Connection:
        """For a reader a copy of what there is now, another one whenever something has changed."""
        return self._source.now()

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._guard, _translated(self.folder):
            db = self._db
            with limited(db):
                yield db

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:  # SQLite has rolled back by itself after some errors
                self._db.execute("ROLLBACK")
            raise


def require_ours(folder: Path, standing: Standing) -> None:
    """LoopFault for a loop that came from elsewhere."""
    if not standing.ours:
        found, needed = f"received: {standing.why}", "a loop that is yours"
        again = f"bellglass {'verify' if standing.counterfeit else 'takeover'} {typed(folder)}"
        raise LoopFault(f"loop {folder.name}", found, needed, again, code="loop_received")


def _make_file(folder: Path) -> None:
    """Under another name first, so that a crash leaves either no ledger or a whole one."""
    making = folder / f"{LEDGER_NAME}.new"
    for leaving in folder.glob(f"{LEDGER_NAME}.new*"):
        leaving.unlink()
    making.touch()
    with closing(InPlace(making)) as source:
        source.now().execute("PRAGMA journal_mode = WAL")
        source.now().executescript(SCHEMA)
    os.replace(making, folder / LEDGER_NAME)
    fsync_folder(folder)
    fsync_folder(folder.parent)


def _in_place(folder: Path) -> InPlace:
    source = InPlace(folder / LEDGER_NAME)
    try:
        with limited(source.now()):
            require_own_tables(folder, source.now())
    except BaseException:
        source.close()
        raise
    return source


def _copied(folder: Path) -> Copied:
    source = Copied(folder)
    try:
        source.now()
    except BaseException:
        source.close()
        raise
    return source


def _require_file(folder: Path) -> None:
    if not folder.is_dir():
        raise LoopFault(
            f"loop folder {folder}", "no such folder", "a loop's folder", "bellglass status", code="no_loop_folder"
        )
    if not (folder / LEDGER_NAME).is_file():
        raise LoopFault(
            f"loop folder {folder}",
            f"no {LEDGER_NAME} in it",
            "a loop's folder",
            "bellglass status",
            code="no_loop_folder",
        )


def _code(error: sqlite3.Error) -> int:
    """SQLite's primary result code; 0 when Python raised without one."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


@contextmanager
def _translated(folder: Path) -> Iterator[None]:
    """Every failure of SQLite or of the disk as one of ours."""
    try:
        yield
    except sqlite3.IntegrityError as error:
        raise damaged(folder, f"{error}; another writer than the owner") from error
    except sqlite3.Error as error:
        raise _fault(folder, error) from error
    except UnicodeDecodeError as error:  # of SQLite's own words, where they quote a name
        raise damaged(folder, "tables with unreadable names") from error
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            _require_file(folder)
        if error.errno in DISK_FULL:
            raise _full(folder, str(error.strerror)) from error
        raise _unwritable(f"loop folder {folder}", folder, str(error.strerror)) from error


def _fault(folder: Path, error: sqlite3.Error) -> BellglassError:
    code = _code(error)
    if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
        return _full(folder, str(error))
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        return _unwritable(f"ledger {folder}", folder, str(error))
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        held = f"held by another program for {BUSY_SECONDS:.0f} s"
        return LoopFault(
            f"ledger {folder}", held, "access", "close other programs that opened loop.db", code="ledger_busy"
        )
    if code in (sqlite3.SQLITE_INTERRUPT, sqlite3.SQLITE_TOOBIG):
        return too_large(folder, "a row too large" if code == sqlite3.SQLITE_TOOBIG else "rows without end")
    return damaged(folder, str(error))


def _unwritable(thing: str, folder: Path, found: str) -> SetupError:
    return SetupError(
        thing, found, "a folder this user may write", f"ls -ld {shlex.quote(str(folder))}", code="folder_unwritable"
    )


def _full(folder: Path, found: str) -> SetupError:
    return SetupError(
        f"writing {folder}", found, "free disk space", "free some space, then bellglass resume", code="disk_full"
    )
