"""Events that hang together: each carries the hash of the one before it, and its own over all it says. Pure.

Not covered: who wrote them. A chain that was forged from its first event on is whole.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from bellglass.errors import LoopFault
from bellglass.records import Json

GENESIS = "0" * 64
MOST_DIGITS = 40  # of a whole number, so that each fits a float; a seed has 19


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


def body_from(text: str) -> Json:
    """What was written down so. ValueError or RecursionError for what `canonical` never wrote, or nobody counts in."""
    return _DECODER.decode(text)


def _whole(digits: str) -> int:
    if len(digits) > MOST_DIGITS:
        raise ValueError("a number too large")
    return int(digits)


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError("a number too large")
    return value


def _no_constant(word: str) -> NoReturn:
    raise ValueError(word)


_QUOTED = json.JSONEncoder().encode  # made once; of a text it is the text as JSON
_DECODER = json.JSONDecoder(parse_int=_whole, parse_float=_finite, parse_constant=_no_constant)


def digest(seq: int, when: float, kind: str, body: str, prev: str) -> str:
    """Over these five as one JSON list, put together by hand, because a chain is as long as its loop.

    What only a forged event has, another number or an endless time, is left to `json`, which writes the rest alike.
    """
    if type(seq) is int and type(when) is float and math.isfinite(when):
        text = f"[{seq},{when!r},{_QUOTED(kind)},{_QUOTED(body)},{_QUOTED(prev)}]"
    else:
        text = json.dumps([seq, when, kind, body, prev], separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


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
            yield Event(number, when, kind, body_from(body), before, hash_)
        except (ValueError, RecursionError):  # a forged event with a right hash
            raise broken(folder, seq) from None


def broken(folder: Path, seq: int) -> LoopFault:
    return damaged(folder, f"chain broken at event {seq}")


def damaged(folder: Path, found: str) -> LoopFault:
    return LoopFault(
        f"ledger {folder}", found, "an unbroken ledger", "restore the folder from a copy", code="ledger_damaged"
    )
