"""Foreign JSON, read strictly: what two readers could understand in two ways is an error. Pure.

UTF-8; no key twice; no NaN, Infinity or number that overflows to one; no lone surrogate, which nobody could write out
again.

Not covered: depth. Who reads a guest's JSON caps its size first, and its nesting where that matters.
"""

from __future__ import annotations

import json
import math
from typing import NoReturn

from bellglass.records import Json


def loads(raw: bytes) -> Json:
    """ValueError for anything that is not strict JSON."""
    try:
        value = json.loads(
            raw.decode("utf-8"), object_pairs_hook=_pairs, parse_constant=_no_constant, parse_float=_finite
        )
        if b"\\u" in raw:  # only an escape can make a lone surrogate
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except RecursionError:
        raise ValueError("nested too deep") from None
    return value


def _pairs(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key twice")
    return found


def _no_constant(word: str) -> NoReturn:
    raise ValueError(word)


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(digits)
    return value
