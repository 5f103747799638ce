"""What a trainer reports while it trains, kept as curves for people: claims, on which no decision rests.

A trainer may report as often as it likes; of each metric at most MOST_POINTS points are kept, evenly: whenever they are
full, every second one goes. Names come from the guest, so whoever shows them must treat them as text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TypeAlias

MOST_NAMES = 16
MOST_POINTS = 256

Point: TypeAlias = tuple[int, float, float]  # step, seconds of the budget used, value


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


def read(data: bytes) -> Mapping[str, Sequence[Point]]:
    found = json.loads(data)
    return {name: [(step, used, value) for step, used, value in points] for name, points in found.items()}
