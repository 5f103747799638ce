"""Adopt or reject a successor from paired verdicts.

`decide` is the one function that a sequential test replaces later: a fixed number of pairs, a one-sided t bound on the
gain. A pair is (parent's score, child's score) under the same seeds, trained at the same time; lower scores are better.

Repeated scores are not evidence. When a pair is bit-equal, or one side has the same score under two different seeds,
then something was not run, not seeded or not changed; the decision says so and nothing is pooled.

Not covered: gains whose distribution over seeds is far from normal. With few pairs a t bound is only as good as that.
"""

from __future__ import annotations

from collections.abc import Sequence

from bellglass.records import GateDecision
from bellglass.stats import paired_interval

MIN_PAIRS = 2  # below, there is no estimate of noise

Pairs = Sequence[tuple[float, float]]


def spend(alpha: float, generation: int) -> float:
    """The error that generation 1, 2, 3, ... may use, so that the whole loop, however long, uses at most `alpha`."""
    if generation < 1:
        raise ValueError(f"generations are counted from 1, not {generation}")
    return alpha / (generation * (generation + 1))


def decide(pairs: Pairs, *, alpha: float) -> GateDecision:
    """Adopt when the gain's lower bound at one-sided error `alpha` is above 0."""
    if not 0.0 < alpha < 0.5:
        raise ValueError(f"alpha must lie between 0 and 0.5, not {alpha}")
    if len(pairs) < MIN_PAIRS:
        return _reject(f"{len(pairs)} pairs say nothing about noise; at least {MIN_PAIRS} are needed", pairs)
    repeated = _repeated(pairs)
    if repeated:
        return _reject(repeated, pairs)
    gain = paired_interval(pairs, 1.0 - 2.0 * alpha)  # its low end is the one-sided bound at alpha
    adopt = gain.low > 0.0
    bound = f"gain {gain.mean:+.4f}, at least {gain.low:+.4f} over {gain.n} pairs (one-sided error {alpha:.2g})"
    return GateDecision(
        decision="adopt" if adopt else "reject",
        why=bound if adopt else f"{bound}: not clear of zero",
        gain=gain,
        parent_scores=tuple(parent for parent, _ in pairs),
        child_scores=tuple(child for _, child in pairs),
    )


def failed(why: str, pairs: Pairs = ()) -> GateDecision:
    """The decision when a trial of the successor failed: a failure is never a number. `pairs`: those that finished."""
    return _reject(why, pairs)


def _repeated(pairs: Pairs) -> str:
    """What is suspicious about the scores, or nothing."""
    equal = sum(parent == child for parent, child in pairs)
    if equal:
        return f"{equal} of {len(pairs)} pairs are bit-equal: the edit changed nothing that is judged; not pooled"
    for side, name in enumerate(("parent", "child")):
        distinct = len({pair[side] for pair in pairs})
        if distinct < len(pairs):
            found = f"{distinct} different scores in {len(pairs)} pairs"
            return f"the {name} scored identically under different seeds ({found}); not pooled"
    return ""


def _reject(why: str, pairs: Pairs) -> GateDecision:
    return GateDecision(
        decision="reject",
        why=why,
        gain=None,
        parent_scores=tuple(parent for parent, _ in pairs),
        child_scores=tuple(child for _, child in pairs),
    )
