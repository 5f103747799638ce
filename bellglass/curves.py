"""What a trainer reports while it trains, kept as curves for people: claims, on which no decision rests.

A trainer may report as often as it likes; of each metric at most MOST_POINTS points are kept, evenly: whenever they are
full, every second one goes. Names come from the guest, so whoever shows them must treat them as text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from bellglass.records import Json

MOST_NAMES = 16
MOST_POINTS = 256
MOST_VALUE = 1e300

Point: TypeAlias = tuple[int, float, float]  # step, seconds of the budget used, value
Lines: TypeAlias = Mapping[str, Sequence[Point]]  # by metric


class Curves:
    def __init__(self) -> None:
        self._points: dict[str, list[Point]] = {}
        self._every: dict[str, int] = {}
        self._heard: dict[str, int] = {}

    def take(self, name: str, step: int, seconds: float, value: float) -> None:
        if name not in self._points and len(self._points) == MOST_NAMES:
            return
        points = self._points.setdefault(name, [])
        heard, every = self._heard.get(name, 0), self._every.get(name, 1)
        self._heard[name] = heard + 1
        if heard % every:
            return
        points.append((step, round(seconds, 3), value))
        if len(points) > MOST_POINTS:
            del points[1::2]
            self._every[name] = every * 2

    def __bytes__(self) -> bytes:
        """Nothing at all where nothing was reported."""
        return json.dumps(self._points).encode() if self._points else b""


def read(data: bytes) -> Lines:
    """ValueError for anything but curves: a loop's files may come from somebody else."""
    try:
        found = json.loads(data)
    except RecursionError:
        raise ValueError("nested too deep") from None
    if not isinstance(found, dict) or not all(isinstance(points, list) for points in found.values()):
        raise ValueError("no curves")
    return {name: [_point(point) for point in points] for name, points in found.items()}


def _point(found: Json) -> Point:
    if not isinstance(found, list) or [_plain(part) for part in found] != [True] * 3:
        raise ValueError("no point of a curve")
    step, used, value = found
    return step, used, value


def _plain(found: Json) -> bool:
    """A finite number, as the wire carries them."""
    return type(found) in (int, float) and abs(found) < MOST_VALUE
