"""The tables of `loop.db`, made in one way: a database that came from elsewhere with anything else in it is refused.

A trigger would run when the owner appends, a view would answer for a table.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from bellglass.errors import LoopFault
from bellglass.store.chain import damaged

FORMAT = 1
APPLICATION_ID = 0x62656C6C  # "bell"

SIGNATURES = "CREATE TABLE IF NOT EXISTS signatures (seq INTEGER PRIMARY KEY, mac TEXT NOT NULL)"
SCHEMA = f"""
BEGIN;
CREATE TABLE events (
    seq INTEGER PRIMARY KEY, time REAL NOT NULL, kind TEXT NOT NULL, body TEXT NOT NULL,
    prev TEXT NOT NULL, hash TEXT NOT NULL
);
CREATE TABLE inbox (
    id INTEGER PRIMARY KEY AUTOINCREMENT, time REAL NOT NULL, kind TEXT NOT NULL, body TEXT NOT NULL
);
{SIGNATURES};
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {FORMAT};
COMMIT;
"""


def require_own_tables(folder: Path, connection: sqlite3.Connection) -> None:
    """LoopFault for a database that is no ledger, or has more in it than one."""
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if application != APPLICATION_ID or version < 1:
        raise damaged(folder, "no bellglass ledger")
    if version > FORMAT:
        raise LoopFault(
            f"ledger {folder}",
            f"format {version}, from a newer bellglass",
            f"format {FORMAT} or older",
            "git pull in a checkout, else pip install --upgrade bellglass",
            code="newer_format",
        )
    # Asked of SQLite: whoever opens and closes the file beside it gives up the locks of this process on it.
    # Where nothing can be written it answers otherwise, and needs no asking: a crash of ours would leave a journal.
    if os.access(folder, os.W_OK) and connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        raise damaged(folder, "a database without a write-ahead log")
    query = "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY name"
    with closing(sqlite3.connect(":memory:")) as ours:
        ours.executescript(SCHEMA)
        expected = ours.execute(query).fetchall()
    found = connection.execute(query).fetchmany(len(expected) + 1)
    without_signatures = [row for row in expected if row[1] != "signatures"]  # as an earlier version made it
    if found not in (expected, without_signatures):
        strange = [f"{row[0]} {row[1]}" for row in found if row not in expected] or ["a table less"]
        raise damaged(folder, f"what bellglass does not make in its database ({strange[0]!a:.80})")
