"""Pairs: two bundles trained under the same seeds and judged on the same documents, for the gate and for `final`.

Not covered: two sides that don't fit beside each other see different moments of the machine; over two pairs a steady
drift cancels, a sudden one does not.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

from bellglass.records import Trial
from bellglass.steps import panel
from bellglass.steps.trial import Lab

T = TypeVar("T")


def train_pair(
    lab: Lab, number: int, purpose: str, index: int, ids: Iterable[str], commits: Iterable[str]
) -> tuple[Trial, Trial]:
    """Both sides of pair `index` of generation `number`, at the same time where two fit."""
    sides = zip(ids, commits, strict=True)
    orders = [panel.order(lab, trial_id, purpose, number, commit) for trial_id, commit in sides]
    first, second = taking_turns(lab.run(taking_turns(orders, index)), index)
    return first, second


def taking_turns(sides: Sequence[T], index: int) -> Sequence[T]:
    """Where two don't fit, the other side goes first in every second pair, so that a drift favours neither."""
    return sides[::-1] if index % 2 else sides
