"""Bounds on what is read of a ledger that somebody else may have made.

A file of a few kB can hold endless rows, because its pages may name each other again and again; and one that is large
but packs well travels as a small one. So a query ends after so many steps of SQLite, found or not, and what is kept of
its rows is weighed as it comes.

Not covered: what is made of the events afterwards, which is a few times their weight.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bellglass.errors import LoopFault
from bellglass.records import Json

ROW_BYTES_MAX = 4 << 20  # a recording takes no longer event either; ours have some thousand
MEMORY_BYTES_MAX = 512 << 20  # by the weights below: 8,000 generations of ten trainings each
LEDGER_BYTES_MAX = 512 << 20  # of its file: rows weigh more than they take there
ROW_WEIGHT, VALUE_WEIGHT = 500, 64  # bytes that Python takes for an event, and for each value in its body
STEPS_MAX = 10_000_000  # some seconds over endless rows; an honest event takes about ten
STEPS_AT_ONCE = 100_000


@contextmanager
def limited(db: sqlite3.Connection) -> Iterator[None]:
    """Every statement in here is interrupted when all of them have taken STEPS_MAX."""
    looks = iter(range(STEPS_MAX // STEPS_AT_ONCE))
    db.set_progress_handler(lambda: next(looks, None) is None, STEPS_AT_ONCE)
    try:
        yield
    finally:
        db.set_progress_handler(None, 0)


def weighed(folder: Path, rows: Iterable[tuple[Json, ...]]) -> Iterator[tuple[Json, ...]]:
    """The same rows; LoopFault as soon as they are more than a loop can have."""
    room = MEMORY_BYTES_MAX
    for row in rows:
        room -= ROW_WEIGHT + sum(_weight(value) for value in row if isinstance(value, str | bytes))
        if room < 0:
            raise too_large(folder, f"more than {MEMORY_BYTES_MAX >> 20} MB of rows")
        yield row


def _weight(value: str | bytes) -> int:
    """Of a text, and of the values where it is JSON."""
    values = sum(map(value.count, ",[{")) if isinstance(value, str) else 0
    return 2 * len(value) + VALUE_WEIGHT * values


def too_large(folder: Path, found: str) -> LoopFault:
    return LoopFault(
        f"ledger {folder}", found, "what a loop can have", "restore the folder from a copy", code="ledger_too_large"
    )
