"""What search.py measured, as arithmetic and as a section of docs/benchmarks.md. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple

import page

from bellglass.commands.console import interval_text
from bellglass.records import Interval
from bellglass.stats import CONFIDENCE, mean, mean_interval, paired_interval

GOAL = 2.0
WAYS = ("greedy", "raced")
LEGEND = """\
Seconds: of training, the parent's runs included, until the way's champion is at least as good as greedy's last one on a
panel of seeds and documents that no way has seen (the same rule for greedy itself), of all that its stream took. A
ratio is 0 where racing never got there. The champion that both reach: the less good of the two ways' last ones.
Scores: bits above the floor, lower is better. Not better: the panel's mean does not favour it. A champion of greedy's
has one edit more, one of raced's all that a race and the gate kept."""


@dataclass(frozen=True)
class Step:
    """One champion of a way: what was kept to make it, after how many training seconds, its scores on the panel."""

    kept: str
    seconds: float
    scores: tuple[float, ...] | None  # None: a training of the panel failed
    at_gate: float = 0.0  # of the seconds

    @property
    def true(self) -> float:
        assert self.scores is not None
        return mean(self.scores)


class Seconds(NamedTuple):
    """Of training, until a champion was there."""

    explored: float
    searched: float  # the gate's, too
    in_loop: float  # and those of the calibration, and of retraining each new champion: as many


@dataclass(frozen=True)
class Walk:
    steps: tuple[Step, ...]  # the starter first
    seconds: float  # of training, over the whole stream
    apart: float  # seconds of the calibration, which loops keep for each other
    at_gate: float = 0.0  # of the seconds

    @property
    def measured(self) -> bool:
        """Whether starter and last champion have scores."""
        return self.steps[0].scores is not None and self.last.scores is not None

    @property
    def last(self) -> Step:
        return self.steps[-1]

    def reaches(self, target: float) -> Seconds | None:
        """Until a champion is at least as good as that."""
        for adopted, step in enumerate(self.steps):
            if step.scores is not None and step.true <= target:
                return Seconds(step.seconds - step.at_gate, step.seconds, step.seconds + self.apart * (1 + adopted))
        return None

    def gains(self) -> list[Interval | None]:
        """Of each champion over the one before, on the panel; None where its own panel failed."""
        found: list[Interval | None] = []
        for before, after in pairwise(self.steps):
            if before.scores is not None:
                pairs = list(zip(before.scores, after.scores or (), strict=False))
                found.append(paired_interval(pairs, CONFIDENCE) if pairs else None)
        return found


@dataclass(frozen=True)
class Replicate:
    number: int
    ways: Mapping[str, Walk]
    machines: frozenset[str] = frozenset()

    @property
    def complete(self) -> bool:
        """Whether there is something to compare."""
        return all(way in self.ways and self.ways[way].measured for way in WAYS)

    @property
    def target(self) -> float:
        return self.ways["greedy"].last.true

    @property
    def common(self) -> float:
        """A score on the panel that greedy and racing both reach."""
        return max(self.ways[way].last.true for way in WAYS)

    def ratio(self, charged: Literal["explored", "searched", "in_loop"], target: float) -> float | None:
        """How many times fewer seconds racing needs; 0 where it never gets there, None where greedy need not search."""
        many, few = (self.ways[way].reaches(target) for way in WAYS)
        if many is None or not many.searched:
            return None
        return 0.0 if few is None else many.searched / getattr(few, charged)

    def difference(self, seconds: float = math.inf) -> Interval:
        """True score of greedy's last champion by then, minus that of racing's: positive where racing's is better."""
        by_then = [step for step in self.ways["greedy"].steps if step.seconds <= seconds and step.scores is not None]
        ends = [step.scores or () for step in (by_then[-1], self.ways["raced"].last)]
        return paired_interval(list(zip(*ends, strict=True)), CONFIDENCE)


def false_keeps(walk: Walk) -> tuple[int, int, int]:
    """(kept, of these not better on the panel, of these better and clear of zero)."""
    gains = walk.gains()
    worse = sum(gain is None or gain.mean <= 0.0 for gain in gains)
    return len(gains), worse, sum(gain is not None and gain.low > 0.0 for gain in gains)


def median(values: Sequence[float | None], digits: int = 2) -> str:
    found = [value for value in values if value is not None]
    if not found:
        return "–"
    middle, least, most = (f"{of(found):.{digits}f}" for of in (statistics.median, min, max))
    return f"{middle} ({least} to {most})"


def _number(value: float | None, otherwise: str = "–") -> str:
    return otherwise if value is None else f"{value:.2f}"


def _seconds(replicate: Replicate, way: str) -> str:
    whole, found = replicate.ways[way].seconds, replicate.ways[way].reaches(replicate.target)
    return f"{'never' if found is None else f'{found.searched:.0f}'} of {whole:.0f}"


def lines(found: Sequence[Replicate]) -> str:
    rows = []
    for replicate in found:
        if not replicate.complete:
            continue
        kept, worse, clear = false_keeps(replicate.ways["greedy"])
        rows.append(
            [
                str(replicate.number),
                *(_seconds(replicate, way) for way in WAYS),
                _number(replicate.ratio("searched", replicate.target)),
                *(_number(replicate.ways[way].last.true) for way in WAYS),
                interval_text(replicate.difference(), sign="+"),
                f"{kept}: {worse} not better, {clear} clear of zero",
            ]
        )
    head = ["replicate", "greedy: s", "raced: s", "greedy / raced", "greedy's panel score", "raced's"]
    return page.table([*head, "raced better by (95%)", "kept by greedy"], rows)


def section(found: Sequence[Replicate], wanted: int, command: str, task: str) -> str:
    whole = [replicate for replicate in found if replicate.complete]
    steps = {way: [false_keeps(r.ways[way]) for r in whole] for way in WAYS}
    kept = {way: f"{sum(k for k, _, _ in s)} kept, {sum(w for _, w, _ in s)} not better" for way, s in steps.items()}
    ratios = [replicate.ratio("searched", replicate.target) for replicate in whole]
    raced, greedy = [r.ways["raced"] for r in whole], [r.ways["greedy"].seconds for r in whole]
    explored, gates = [walk.seconds - walk.at_gate for walk in raced], [walk.at_gate for walk in raced]
    early = [replicate.difference(seconds) for replicate, seconds in zip(whole, explored, strict=True)]
    head = ["figure", "median (least to most)", "goal"]
    rows = [
        ["training seconds to greedy's champion: greedy over raced", median(ratios), f"≥ {GOAL:g}"],
        ["training seconds to the champion that both reach: greedy over raced",
         median([replicate.ratio("searched", replicate.common) for replicate in whole]), f"≥ {GOAL:g}"],
        ["the same, raced's calibration and retrained champions charged",
         median([replicate.ratio("in_loop", replicate.common) for replicate in whole]), "–"],
        ["the same, raced's gate not charged; greedy pays for none",
         median([replicate.ratio("explored", replicate.common) for replicate in whole]), "–"],
        ["training seconds in all: of raced's exploring; of its gate; of greedy",
         "; ".join(median(part, 0) for part in (explored, gates, greedy)), "–"],
        ["replicates in which racing reached greedy's champion", f"{sum(map(bool, ratios))} of {len(whole)}", "all"],
        ["score on the panel: raced better than greedy by (95%, over replicates)",
         _over([replicate.difference() for replicate in whole]), "not worse"],
        ["the same where greedy stops when it has trained for as long as raced has explored", _over(early), "–"],
        *([f"champions of {way}, on the panel", kept[way], "0 not better"] for way in kept),
    ]  # fmt: skip
    return "\n\n".join([_head(whole, wanted, command, task), page.table(head, rows), LEGEND, lines(whole)])


def _over(differences: Sequence[Interval]) -> str:
    means = [difference.mean for difference in differences]
    return interval_text(mean_interval(means, CONFIDENCE), sign="+") if len(means) > 1 else "one replicate only"


def _head(whole: Sequence[Replicate], wanted: int, command: str, task: str) -> str:
    machines = page.machines((("; ".join(sorted(one.machines)), str(one.number)) for one in whole), "replicate ")
    return (
        f"Machine: {machines}. Command: `{command}`, task `{task}`; {len(whole)} of {wanted} replicates ran. "
        "Real trainings, without a glass. The proposals are the offline improver's menu, which people wrote."
    )
