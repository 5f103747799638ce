"""Pairs: two bundles trained under the same seeds and judged on the same documents, for the gate and for `final`.

Both sides train at the same time where two fit. Where they don't, as on a GPU or a single core, they take turns at
going first, and a lot says who begins: a machine's drift then favours neither.

Not covered: over an odd number of pairs one side was second once more, so that a part of the drift stays, as noise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from bellglass.records import Trial
from bellglass.steps import panel
from bellglass.steps.trial import Lab, derive_key

T = TypeVar("T")
Side = tuple[str, str]  # trial id, commit


def train_pair(lab: Lab, purpose: str, number: int, index: int, sides: Sequence[Side]) -> tuple[Trial, Trial]:
    """Pair `index` of generation `number`."""
    orders = [panel.order(lab, trial_id, purpose, number, commit) for trial_id, commit in sides]
    in_turn = turns(lab.bench.secret, f"{purpose}-{number}")
    first, second = in_turn(lab.run(in_turn(orders, index)), index)
    return first, second


def turns(secret: bytes, label: str) -> Callable[[Sequence[T], int], Sequence[T]]:
    """Puts the sides of pair `index` into the order in which they go, and back."""
    begins = derive_key(secret, f"turns-{label}")[0] % 2
    return lambda sides, index: sides[::-1] if (begins + index) % 2 else sides
