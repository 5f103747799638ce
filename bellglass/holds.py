"""Holds: whether trainings that were done again bear out what a gate recorded, and the words for it. Pure.

Not covered: what was done to get here; that is recheck.py, which also says what none of this can find.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bellglass.config import LoopConfig
from bellglass.paths import typed
from bellglass.records import Budget, Bundle, Json, Noise, Seeds, Trial
from bellglass.stats import CONFIDENCE, mean, t_quantile
from bellglass.steps import gate
from bellglass.steps.trial import Workbench
from bellglass.store.ours import Standing

RULE = (
    "the gains lie no further apart than noise explains in 19 of 20 cases, what failed fails again, and no proof "
    "disagrees anew"
)
EXACT_RULE = "all weights and scores, under the recorded clock, are the same to the bit"
CHANCE = "up to one honest verdict in 20 does this; --exact compares to the bit"
LUCK = "a gain that was adopted tends to be a lucky one, of which new seeds show less (docs/statistics.md)"


@dataclass(frozen=True, slots=True)
class Asked:
    generation: int
    seeds: int | None = None  # None: the gate's own; else so many new ones
    exact: bool = False
    task: Path | None = None  # the folder of a task of one's own
    device: str | None = None  # None: the loop's own, or of one that came from elsewhere the CPU

    def typed(self, folder: Path) -> str:
        """The command that asks this, but for the task's folder."""
        seeds = "" if self.seeds is None else f" --seeds {self.seeds}"
        where = "" if self.device is None else f" --device {self.device}"
        exact = " --exact" if self.exact else ""
        return f"bellglass recheck {typed(folder)} {self.generation}{seeds}{exact}{where}"


@dataclass(frozen=True, slots=True)
class Job:
    """One training to do again. `recorded` is None under new seeds."""

    trial_id: str
    bundle: Bundle
    seeds: Seeds
    budget: Budget
    recorded: Trial | None
    clock: Sequence[float] | None
    proved: bool  # as recorded; under new seeds all of its side were


@dataclass(frozen=True, slots=True)
class Case:
    """All that a recheck needs, read and checked before anything is trained."""

    asked: Asked
    standing: Standing  # whose bundles these are
    config: LoopConfig
    bench: Workbench
    rules: gate.Rules
    decision: str
    wrong: str  # what the ledger contradicts itself in, or nothing
    recorded: tuple[tuple[float, float], ...]
    failed: bool  # a recorded trial of the gate did, by its own doing
    jobs: tuple[tuple[Job, Job], ...]
    notes: tuple[str, ...]
    glasses: tuple[str, ...]  # which the loop ran in


@dataclass(frozen=True, slots=True)
class Again:
    """One trial, as recorded and as it came out now."""

    trial_id: str
    recorded: float | None
    again: float | None
    recorded_fault: str | None
    fault: str | None
    same_weights: bool | None  # None: nothing to compare with
    same: bool | None  # scores, on `select` too, proof and fault are those recorded, to the bit
    disproved: bool = False  # its proof disagrees, which the ledger does not say


@dataclass(frozen=True, slots=True)
class Outcome:
    generation: int
    exact: bool
    decision: str
    trials: tuple[Again, ...]
    gain: float | None
    gain_again: float | None
    explained: float | None  # how far apart the noise lets the two gains be
    decision_again: str
    holds: bool
    says_little: bool  # it holds, and would for nearly any gain
    why: str
    notes: tuple[str, ...]


def outcome_of(case: Case, trials: tuple[Again, ...]) -> Outcome:
    """What the trials say, parent's and child's in turn."""
    scores = [(parent.again, child.again) for parent, child in zip(trials[::2], trials[1::2], strict=True)]
    pairs = [(parent, child) for parent, child in scores if parent is not None and child is not None]
    gain, again = _mean_gain(case.recorded), _mean_gain(pairs)
    explained = None
    if case.recorded and pairs:
        explained = noise_explains(pairs, len(case.recorded), case.rules.noise)
    why = _why_not(case, trials, gain, again, explained)
    vague = gain is not None and explained is not None and explained > abs(gain)
    return Outcome(
        generation=case.asked.generation,
        exact=case.asked.exact,
        decision=case.decision,
        trials=trials,
        gain=gain,
        gain_again=again,
        explained=explained,
        decision_again=gate.played(pairs, case.rules).decision if len(pairs) == len(scores) else "reject",
        holds=not why,
        says_little=not why and not case.asked.exact and vague,
        why=why or (EXACT_RULE if case.asked.exact else RULE),
        notes=case.notes,
    )


def noise_explains(again: Sequence[tuple[float, float]], recorded: int, noise: Noise) -> float:
    """How far from the mean of so many recorded gains the mean of these new ones may lie.

    As in the gate, a gain's variance is that of the (new) gains, shrunk towards two unpaired trainings'. Under the same
    seeds recorded and new gains lie closer together than this counts on. Under new ones an honest adoption fails more
    often than one time in twenty where the gain is small, because it was chosen (benchmarks/gate_simulation.py).
    """
    variance, df = gate.spread_of_gains(again, noise)
    return t_quantile(0.5 + 0.5 * CONFIDENCE, df) * math.sqrt(variance * (1.0 / recorded + 1.0 / len(again)))


def _mean_gain(pairs: Sequence[tuple[float, float]]) -> float | None:
    return mean([parent - child for parent, child in pairs]) if pairs else None


def _why_not(
    case: Case, trials: tuple[Again, ...], gain: float | None, again: float | None, explained: float | None
) -> str:
    """The first reason why the verdict does not hold, or nothing."""
    if case.wrong:
        return case.wrong
    leak = next((trial.trial_id for trial in trials if trial.disproved), None)
    if leak is not None:
        return f"the proof of {leak} disagrees now, and the ledger does not say so"
    failed = [trial for trial in trials if trial.fault is not None]
    if case.asked.seeds is not None and case.failed != bool(failed):
        return (
            f"{failed[0].trial_id} {_word(failed[0].fault)}" if failed else "a recorded trial failed, and none does now"
        )
    for trial in trials if case.asked.seeds is None else ():
        if trial.recorded_fault not in (trial.fault, "lost"):
            return f"{trial.trial_id} was recorded as {_word(trial.recorded_fault)}, and is {_word(trial.fault)} now"
        repeats = trial.same and (trial.fault or trial.same_weights)
        if case.asked.exact and not repeats and trial.recorded_fault != "lost":
            return f"{trial.trial_id} is not the same to the bit"
    if gain is not None and again is not None and explained is not None and abs(again - gain) > explained:
        chosen = case.decision == "adopt" and case.asked.seeds is not None and again < gain
        lucky = f"; {LUCK}" if chosen else ""
        apart = f"the gains are {abs(again - gain):.4f} bits apart, and the noise explains {explained:.4f}"
        return f"{apart}; {CHANCE}{lucky}"
    return ""


def _word(fault: str | None) -> str:
    return "judged" if fault is None else f"failed ({fault})"


HEAD = "scores are as the gate compares them, above a known floor: raw verdicts, as status shows them, lie higher"


def trial_line(trial: Again) -> str:
    recorded, again = (
        f"{score:.5f}" if score is not None else fault or "–"
        for score, fault in ((trial.recorded, trial.recorded_fault), (trial.again, trial.fault))
    )
    said = {None: "", True: "  same weights", False: "  other weights"}[trial.same_weights if not trial.fault else None]
    said += "  its proof disagrees" if trial.disproved else ""
    return f"{trial.trial_id:<22} recorded {recorded:<10} again {again:<10}{said}"


def lines(outcome: Outcome) -> list[str]:
    """What people read below the trials."""
    told = [f"note: {note}" for note in outcome.notes]
    if outcome.gain is not None and outcome.gain_again is not None:
        explained = "" if outcome.exact else f"; the noise explains {outcome.explained:.5f} between them"
        told.append(f"gain recorded {outcome.gain:+.5f}, again {outcome.gain_again:+.5f}{explained}")
    again = "undecided" if outcome.decision_again == "more" else outcome.decision_again
    told.append(f"recorded: {outcome.decision}; the gate on the new scores alone: {again}")
    said = "holds" if outcome.holds else "does NOT hold"
    if outcome.says_little:
        said = "holds, but says little (the noise explains more than the recorded gain itself; more --seeds say more)"
    told.append(f"generation {outcome.generation} {said}: {outcome.why}")
    return told


def as_json(outcome: Outcome) -> Json:
    return asdict(outcome)
