"""The tables of `loop.db`, made in one way: a database that came from elsewhere with anything else in it is refused.

A trigger would run when the owner appends, a view would answer for a table.
"""

from __future__ import annotations

import functools
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

WHAT_IS_IN_IT = "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY name"


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
    expected = _made_by_us()
    found = connection.execute(WHAT_IS_IN_IT).fetchmany(len(expected) + 1)
    without_signatures = [row for row in expected if row[1] != "signatures"]  # as an earlier version made it
    if found not in (expected, without_signatures):
        strange = [f"{row[0]} {row[1]}" for row in found if row not in expected] or ["a table less"]
        raise damaged(folder, f"what bellglass does not make in its database ({strange[0]!a:.80})")


@functools.cache
def _made_by_us() -> list[tuple[str, ...]]:
    with closing(sqlite3.connect(":memory:")) as ours:
        ours.executescript(SCHEMA)
        return ours.execute(WHAT_IS_IN_IT).fetchall()
