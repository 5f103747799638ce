"""What the decisions of benchmarks/gate.py say, in tables. Pure.

A cell's trainings are one stream of pairs that are alike, because the gate decides from the past alone when to stop and
what follows is drawn afresh. So the streams also serve the two rules that bellglass does not use: keep-if-lower, which
takes the first pair of each decision, and an unpaired t test with a fixed number of trainings.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import page  # noqa: E402
from gate_log import Found, Pair  # noqa: E402
from gate_worlds import ALPHA, MAX_PAIRS, SEEDS, share_interval  # noqa: E402

from bellglass import nulls  # noqa: E402
from bellglass.stats import CONFIDENCE, mean_interval, t_quantile  # noqa: E402
from bellglass.steps import gate  # noqa: E402

NULLS = tuple(null.name for null in nulls.ALL)
GAINS = (0.5, -0.5, 1.0, -1.0, 2.0, -2.0, 4.0, -4.0)  # in units of the starter's noise
ERROR = gate.spend(ALPHA, 1)  # what generation 1 of a loop may use
FIXED = MAX_PAIRS  # trainings a side of the test beside: as many as the gate may use at most
MOST_FIXED = 60
RESAMPLES = 2000
LEAST = 3  # decisions; with fewer a row says nothing


def gain_name(gain: float) -> str:
    return f"gain {gain:+g}"


@dataclass(frozen=True)
class Planted:
    """The starter's score near its own budget: a parabola in the logarithm of the budget, and the spread around it."""

    linear: float
    bend: float
    noise: float

    def worse(self, log_factor: float) -> float:
        """What a score grows by when the budget is multiplied."""
        return self.linear * log_factor + self.bend * log_factor**2

    def factor(self, cell: str) -> float:
        """The budget of that cell's child over its parent's."""
        if cell in NULLS:
            return 1.0
        wanted = -float(cell.removeprefix("gain ")) * self.noise
        low, high = math.log(0.5), math.log(2.0)  # scores fall from here to there
        if not self.worse(high) < wanted < self.worse(low):
            raise SystemExit(f"{cell} noise units need a budget beyond half or twice the parent's: more seconds needed")
        for _ in range(60):
            middle = 0.5 * (low + high)
            low, high = (middle, high) if self.worse(middle) > wanted else (low, middle)
        return math.exp(0.5 * (low + high))


def fit(slope: Mapping[tuple[float, int], float]) -> Planted:
    """Least squares; every seed has every budget, so the luck that a seed brings to all of them bends nothing.

    The noise is that of one training at the starter's own budget over seeds: what a loop calibrates to.
    """
    logs = [math.log(factor) for factor, _ in slope]
    bend, linear, _ = (float(value) for value in np.polyfit(logs, list(slope.values()), 2))
    curve = Planted(linear, bend, 0.0)
    levelled = [score - curve.worse(math.log(f)) for (f, _), score in slope.items()]
    return Planted(linear, bend, float(np.std(levelled, ddof=1)))


# Rules beside the gate's


def keep_if_lower(decisions: Sequence[tuple[str, list[Pair]]]) -> int:
    """How many would be kept after one training of each side."""
    return sum(child < parent for parent, child in (pairs[0] for _, pairs in decisions))


def t_adopts(parents: np.ndarray, children: np.ndarray) -> np.ndarray:
    """Rows of scores -> whether an unpaired one-sided t test at the gate's error finds the child better."""
    n = parents.shape[1]
    se = np.sqrt((parents.var(axis=1, ddof=1) + children.var(axis=1, ddof=1)) / n)
    return parents.mean(axis=1) - children.mean(axis=1) > t_quantile(1.0 - ERROR, 2 * n - 2) * se


def windows(stream: Sequence[Pair], n: int) -> tuple[np.ndarray, np.ndarray]:
    """Consecutive experiments of n unpaired trainings a side: parents of every other pair, children of the others."""
    count = len(stream) // (2 * n)
    cut = np.array(stream[: count * 2 * n]).reshape(count, n, 2, 2)
    return cut[:, :, 0, 0], cut[:, :, 1, 1]


def t_power(stream: Sequence[Pair], n: int) -> float:
    """Of n trainings a side, drawn again from the stream: unpaired, because each side is drawn by itself."""
    rng = np.random.default_rng(n)
    parents, children = (rng.choice([pair[side] for pair in stream], (RESAMPLES, n)) for side in (0, 1))
    return float(t_adopts(parents, children).mean())


def t_needs(stream: Sequence[Pair], power: float) -> int | None:
    """The fewest trainings a side with which that test adopts as often."""
    return next((n for n in range(2, MOST_FIXED + 1) if t_power(stream, n) >= power), None)


def power_of(adopted: int, of: int) -> float:
    """What to ask of another rule: the share that was seen, and for "every time" the power with an even chance of that.

    A share of 1 would ask it never to miss, which is more than was seen of the gate.
    """
    return adopted / of if adopted < of else 0.5 ** (1.0 / of)


# Tables


def stream_of(found: Found, cell: str) -> list[Pair]:
    """All pairs of a cell's decisions, each less the mean of its block's parents: a machine's drift is not noise."""
    places = sorted(place for place in found.words if place[1] == cell)
    levels = {place: found.level(place[0]) for place in places}
    return [(p - levels[place], c - levels[place]) for place in places for p, c in found.pairs[place]]


def share(hits: int, of: int) -> str:
    low, high = share_interval(hits, of)
    return f"{hits} of {of}: {hits / of:.1%} [{low:.1%}, {high:.1%}]"


def gain_of(stream: Sequence[Pair], noise: float) -> str:
    interval = mean_interval([(parent - child) / noise for parent, child in stream], CONFIDENCE)
    return f"{interval.mean:+.2f} [{interval.low:+.2f}, {interval.high:+.2f}]"


def null_row(found: Found, cell: str, about: str, noise: float) -> list[str]:
    decisions, stream = found.decided(cell), stream_of(found, cell)
    adopted = sum(word == "adopt" for word, _ in decisions)
    parents, children = windows(stream, FIXED)
    unpaired = share(int(t_adopts(parents, children).sum()), len(parents)) if len(parents) else "–"
    pairing = float(np.corrcoef(np.array(stream).T)[0, 1])
    spread = float(np.std([c for _, c in stream], ddof=1) / np.std([p for p, _ in stream], ddof=1))
    return [
        f"{cell}: {about}",
        share(adopted, len(decisions)),
        f"{len(stream) / len(decisions):.1f}",
        share(keep_if_lower(decisions), len(decisions)),
        unpaired,
        gain_of(stream, noise),
        f"{spread:.1f}",
        f"{pairing:+.2f}",
    ]


def nulls_table(found: Found, noise: float) -> str:
    head = ["null", "the gate adopts (95%)", "pairs", "keep-if-lower adopts", f"unpaired t, {FIXED} a side, adopts",
            "gain in noise units", "child's spread over parent's", "correlation"]  # fmt: skip
    known = [null for null in nulls.ALL if len(found.decided(null.name)) >= LEAST]
    rows = [null_row(found, null.name, null.about, noise) for null in known]
    alike = [decision for null in known if null in nulls.EQUAL_SPREAD for decision in found.decided(null.name)]
    if alike:
        adopted = sum(word == "adopt" for word, _ in alike)
        pairs = sum(len(pairs) for _, pairs in alike) / len(alike)
        rows.append(["all of like spread", share(adopted, len(alike)), f"{pairs:.1f}",
                     share(keep_if_lower(alike), len(alike)), "", "", "", ""])  # fmt: skip
    return page.table(head, rows)


SHARED = (
    "The nulls of a block share its calibration: decisions are independent within a null's row, not across rows. The "
    "last row's interval counts all of them as independent, so it may be too narrow."
)


def gain_row(found: Found, gain: float, planted: Planted) -> list[str]:
    decisions, stream = found.decided(gain_name(gain)), stream_of(found, gain_name(gain))
    adopted = sum(word == "adopt" for word, _ in decisions)
    trainings = 2 * len(stream) / len(decisions)
    row = [
        f"{gain:+g}",
        f"{planted.factor(gain_name(gain)):.3f}",
        gain_of(stream, planted.noise),
        share(adopted, len(decisions)),
        f"{trainings:.1f}",
        share(keep_if_lower(decisions), len(decisions)),
    ]
    if gain < 0.0:
        return [*row, "", "", ""]
    needs = t_needs(stream, power_of(adopted, len(decisions))) if adopted else None
    times = "" if needs is None else f"{2 * needs / trainings:.1f}"
    return [*row, f"{t_power(stream, FIXED):.0%}", "–" if needs is None else str(2 * needs), times]


def gains_table(found: Found, planted: Planted) -> str:
    head = ["planted, noise units", "child's budget", "gain that came of it", "the gate adopts (95%)",
            "trainings a decision", "keep-if-lower adopts", f"unpaired t, {2 * FIXED} trainings, adopts",
            "trainings it needs for the gate's power", "times the gate's"]  # fmt: skip
    known = [gain for gain in sorted(GAINS) if len(found.decided(gain_name(gain))) >= LEAST]
    return page.table(head, [gain_row(found, gain, planted) for gain in known])


def machines(found: Found) -> str:
    """Which machine trained for what. A block that was cut off may have two."""
    blocks = len(found.calibrations)
    made = []
    for machine, places in found.machines.items():
        made += [(machine, "the slope")] * (None in places)
        made += [(machine, f"{len(places - {None})} of {blocks} blocks")] * (places != {None})
    return page.machines(made)


def section(found: Found, seconds: float, command: str) -> str:
    made = len(found.words)
    if not made:
        return f"Nothing measured yet. Command: `{command}`."
    planted = fit(found.slope)
    trainings = 2 * sum(len(pairs) for pairs in found.pairs.values())
    trainings += len(found.slope) + sum(len(scores) for scores in found.calibrations.values())
    fewest = min((len(found.decided(name)) for name in NULLS), default=0)
    goal = "" if fewest >= 72 else " Partial: an upper bound of 5% takes at least 72 decisions of a null."
    so_far = (
        f"{made} decisions so far, from {trainings} real trainings of {seconds:g} CPU-seconds each, in "
        f"{len(found.calibrations)} blocks with a calibration of {SEEDS} seeds each.{goal} "
        f"Machine: {machines(found)}. Command: `{command}`; it goes on where it stopped."
    )
    about_nulls = (
        f"**Nulls**: changes that change nothing that matters, under the error of generation 1 ({ERROR:g}). The gain "
        f"is over all pairs, in units of the noise of one training ({planted.noise:.4f} bits): a null whose gain is "
        "clearly below zero is a small loss (half batches cost time). A child whose spread is twice its parent's has "
        "four times its variance, which is beyond what the gate promises for ([statistics.md](statistics.md))."
    )
    about_gains = (
        f"**Gains and losses**, planted by the child's budget: near its own, a tenth more changes the score by "
        f"{planted.worse(math.log(1.1)):+.3f} bits. Trainings are those of parent and child; a loop adds the {SEEDS} "
        "of its calibration, once. The unpaired test has the gate's error and a number of trainings fixed beforehand; "
        "its figures are drawn again from the same trainings. The gate's power is taken to be its share, but where it "
        f"adopted every time, the power with an even chance of that: {power_of(24, 24):.1%} for 24 of 24."
    )
    limits = "Not covered: other documents (all trainings share theirs), the glass and the proof, longer budgets."
    tables = nulls_table(found, planted.noise), gains_table(found, planted)
    return "\n\n".join((so_far, about_nulls, tables[0], SHARED, about_gains, tables[1], limits))
