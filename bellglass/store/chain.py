"""Events that hang together: each carries the hash of the one before it, and its own over all it says. Pure.

Not covered: who wrote them. A chain that was forged from its first event on is whole.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from bellglass.errors import LoopFault
from bellglass.records import Json

GENESIS = "0" * 64


@dataclass(frozen=True, slots=True)
class Event:
    seq: int
    time: float
    kind: str
    body: Json
    prev: str
    hash: str


def canonical(body: Mapping[str, Json]) -> str:
    """One text per value: sorted keys, no spaces, and ASCII, so that a lone surrogate in a guest's text is no crash."""
    return json.dumps(body, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(seq: int, when: float, kind: str, body: str, prev: str) -> str:
    return hashlib.sha256(json.dumps([seq, when, kind, body, prev], separators=(",", ":")).encode()).hexdigest()


def chained(folder: Path, rows: Iterable[tuple[Json, ...]], seq: int, prev: str) -> Iterator[Event]:
    for row in rows:
        seq += 1
        if len(row) != 6 or [type(value) for value in row] != [int, float, str, str, str, str]:
            raise broken(folder, seq)
        number, when, kind, body, before, hash_ = row
        if number != seq or before != prev or hash_ != digest(number, when, kind, body, before):
            raise broken(folder, seq)
        prev = hash_
        try:
            yield Event(number, when, kind, json.loads(body), before, hash_)
        except (ValueError, RecursionError):  # a forged event with a right hash
            raise broken(folder, seq) from None


def broken(folder: Path, seq: int) -> LoopFault:
    return damaged(folder, f"chain broken at event {seq}")


def damaged(folder: Path, found: str) -> LoopFault:
    return LoopFault(
        f"ledger {folder}",
        found,
        "an unbroken ledger",
        "restore the folder from a copy; bellglass verify",
        code="ledger_damaged",
    )
