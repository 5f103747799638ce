"""The gate: adopt a successor, reject it, call it equal, or ask for another pair. Pure.

A pair is (parent's score, child's score) under the same seeds; lower scores are better.
After every pair `decide` looks at the mean gain over a standard error whose variance is the pairs' own, shrunk towards
what two unpaired trainings of the parent would show (`Noise`, from trainings that decide nothing). docs/statistics.md
derives each line below; benchmarks/gate_simulation.py measures how often it is wrong.

Repeated scores are not evidence. When a pair is bit-equal, or one side has the same score under two different seeds,
then something was not run, not seeded or not changed; the decision says so and nothing is pooled. Only where equality
is sought do bit-equal pairs answer the question, when all are.

Not covered: a child whose spread over seeds is many times its parent's and shows in none of its pairs; nor one that is
bit-equal to its parent, but for seeds that no pair had.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from bellglass.records import GateDecision, GateWord, Interval, Noise
from bellglass.stats import mean, sample_sd, shrunk_variance, t_quantile

LOOKS = (3, 5, 8, 13, 21, 34)  # numbers of pairs after which a successor may be adopted or called equal
PRIOR_PAIRS = 2.0  # what the prior counts for, in pairs: more would hide a child that is noisier than its parent
LOSER_ERROR = 0.1  # a successor this surely worse gets no more pairs
HOPE = 0.9  # nor one that even the optimistic end of this interval would not carry over the last bound
POWER = 0.8  # of detecting the smallest gain that is told to a person
EQUAL_ERROR = 0.05  # of calling a difference of `EQUAL_WITHIN` no difference
EQUAL_WITHIN = 1.0  # in units of the parent's noise
EQUAL_DF = 2  # of that noise, at least: an estimate on one is too often so large that a difference hides in it

Pairs = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Rules:
    """What one decision may use: its share of the loop's error, the noise it starts from, the most pairs."""

    error: float  # of adopting a successor that is no better
    noise: Noise
    max_pairs: int
    seeks_equality: bool = False  # "equal" is an answer, too

    def __post_init__(self) -> None:
        if not 0.0 < self.error < 0.5:
            raise ValueError(f"an error between 0 and 0.5 is needed, not {self.error}")
        if self.max_pairs < LOOKS[0]:
            raise ValueError(f"adopting takes at least {LOOKS[0]} pairs, not {self.max_pairs}")

    @property
    def looks(self) -> tuple[int, ...]:
        """When the gate may adopt: ever more pairs apart, and once all are spent."""
        return (*(look for look in LOOKS if look < self.max_pairs), self.max_pairs)

    @property
    def tells_equal(self) -> bool:
        """Whether pairs are also spent to tell "equal" from "not better"."""
        return self.seeks_equality and self.noise.df >= EQUAL_DF


@dataclass(frozen=True, slots=True)
class _Seen:
    """The pairs so far, in numbers."""

    n: int
    gain: float
    variance: float
    df: float

    @property
    def se(self) -> float:
        return math.sqrt(self.variance / self.n)

    def reach(self, error: float) -> float:
        """How far a one-sided bound with this error lies from the mean. By the lower tail: 1 - error may round to 1."""
        return -t_quantile(error, self.df) * self.se


def spend(alpha: float, generation: int) -> float:
    """The error that generation 1, 2, 3, ... may use, so that the whole loop, however long, uses at most `alpha`."""
    if generation < 1:
        raise ValueError(f"generations are counted from 1, not {generation}")
    return alpha / (generation * (generation + 1))


def decide(pairs: Pairs, rules: Rules) -> GateDecision:
    """What the pairs say; "more" asks for another one, and never comes once all are spent."""
    bad = [score for pair in pairs for score in pair if not math.isfinite(score)]
    if bad:
        raise ValueError(f"a failure is never a number: {bad[0]} among the scores")
    if not pairs:
        return _decision("more", "no pair yet", pairs, None)
    if rules.seeks_equality and _unchanged(pairs):
        unchanged = f"all {len(pairs)} pairs are bit-equal: the edit changed nothing that is judged"
        return _decision("equal" if len(pairs) >= LOOKS[0] else "more", unchanged, pairs, None)
    repeated = _repeated(pairs)
    if repeated:
        return _decision("reject", repeated, pairs, None)
    seen = _look(pairs, rules.noise)
    looking = seen.n in rules.looks
    share = rules.error / len(rules.looks)
    gain = _interval(seen, share)
    error = f"error {rules.error:.2g}, all looks together"
    bound = f"gain {seen.gain:+.4f}, at least {gain.low:+.4f} over {seen.n} pairs ({error})"
    if looking and gain.low > 0.0:
        return _decision("adopt", bound, pairs, gain)
    if looking and rules.tells_equal and _equal(seen, rules):
        same = f"{EQUAL_WITHIN * rules.noise.sd:.4f}"
        return _decision("equal", f"gain {seen.gain:+.4f} over {seen.n} pairs: no difference over {same}", pairs, gain)
    if seen.n >= rules.max_pairs:
        return _decision("reject", f"{bound}: not clear of zero", pairs, gain)
    if seen.gain < -seen.reach(LOSER_ERROR):
        return _decision("reject", f"gain {seen.gain:+.4f} over {seen.n}: worse than its parent", pairs, gain)
    if seen.n > 1 and not rules.tells_equal and _hopeless(seen, share, rules):
        return _decision("reject", f"{bound}: more pairs would hardly change that", pairs, gain)
    return _decision("more", bound, pairs, gain)


def played(pairs: Pairs, rules: Rules) -> GateDecision:
    """The decision as these pairs come one after the other: those behind it are not looked at."""
    decision = decide((), rules)
    for n in range(1, len(pairs) + 1):
        if decision.decision != "more":
            break
        decision = decide(pairs[:n], rules)
    return decision


def failed(why: str, pairs: Pairs = ()) -> GateDecision:
    """The decision when a trial of the successor failed: a failure is never a number. `pairs`: those that finished."""
    return _decision("reject", why, pairs, None)


def smallest_gain(rules: Rules) -> float:
    """The gain that all pairs together detect four times in five when pairing does not help, and the noise is as told.

    An estimate on few seeds is as often too small as too large; benchmarks/gate_simulation.py counts what that costs.
    """
    seen = _Seen(rules.max_pairs, 0.0, _prior_variance(rules.noise), _prior_weight(rules.noise) + rules.max_pairs - 1)
    return seen.reach(rules.error / len(rules.looks)) + seen.reach(1.0 - POWER)


def _prior_variance(noise: Noise) -> float:
    return 2.0 * noise.sd**2  # of the difference of two unpaired trainings


def _prior_weight(noise: Noise) -> float:
    return min(PRIOR_PAIRS, float(noise.df))


def _look(pairs: Pairs, noise: Noise) -> _Seen:
    return _Seen(len(pairs), mean([parent - child for parent, child in pairs]), *spread_of_gains(pairs, noise))


def spread_of_gains(pairs: Pairs, noise: Noise) -> tuple[float, float]:
    """The variance of one pair's gain, and the degrees of freedom that it rests on."""
    gains = [parent - child for parent, child in pairs]
    own = sample_sd(gains) ** 2 if len(gains) > 1 else 0.0
    weight = _prior_weight(noise)
    return shrunk_variance(own, len(gains) - 1, _prior_variance(noise), weight), weight + len(gains) - 1


def _interval(seen: _Seen, error: float) -> Interval:
    reach = seen.reach(error)
    return Interval(mean=seen.gain, low=seen.gain - reach, high=seen.gain + reach, n=seen.n)


def _equal(seen: _Seen, rules: Rules) -> bool:
    """Both one-sided tests hold: the gain is neither above nor below what counts as a difference."""
    reach = seen.reach(EQUAL_ERROR / len(rules.looks))
    return abs(seen.gain) + reach < EQUAL_WITHIN * rules.noise.sd


def _hopeless(seen: _Seen, share: float, rules: Rules) -> bool:
    """Whether the pairs to come would miss the last bound even if each showed the optimistic end of the gain."""
    last = rules.max_pairs
    best = (seen.n * seen.gain + (last - seen.n) * (seen.gain + seen.reach(1.0 - HOPE))) / last
    end = _Seen(last, best, seen.variance, _prior_weight(rules.noise) + last - 1)
    return best <= end.reach(share)


def _unchanged(pairs: Pairs) -> bool:
    """Every pair is bit-equal, and no two are alike: the seeds were used."""
    return all(parent == child for parent, child in pairs) and len({parent for parent, _ in pairs}) == len(pairs)


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


def _decision(word: GateWord, why: str, pairs: Pairs, gain: Interval | None) -> GateDecision:
    return GateDecision(
        decision=word,
        why=why,
        gain=gain,
        parent_scores=tuple(parent for parent, _ in pairs),
        child_scores=tuple(child for _, child in pairs),
    )
