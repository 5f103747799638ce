"""What `final` says: the gain of the champion over the starter, or why none is stated. Pure.

A pair whose starter failed is left out, and people are told. A failed training of the champion is never left out: a
trainer that gives up where its own result is bad would be known by its better ones alone. That holds for a `lost`
guest, too, because a model can end its guest without a word; nor is that run again, which would be a second draw.

Not covered: a champion that makes the starter's guest fail, which only the process glass allows: it isolates nothing.
"""

from __future__ import annotations

from collections.abc import Iterable

from bellglass import trial_ids
from bellglass.records import Interval, Json, Trial
from bellglass.stats import CONFIDENCE, paired_interval
from bellglass.steps import panel
from bellglass.steps.gate import Pairs


def gain(pairs: Pairs, trials: Iterable[Trial]) -> Interval | None:
    """Over the pairs that succeeded; None where something is lacking."""
    return None if lacks(pairs, trials) else paired_interval(pairs, CONFIDENCE)


def lacks(pairs: Pairs, trials: Iterable[Trial]) -> str:
    """Why there is no gain, or nothing."""
    return champion_failed(trials) or ("" if len(pairs) > 1 else "too few trials succeeded")


def champion_failed(trials: Iterable[Trial]) -> str:
    """The first training of the champion on `final` that failed, in a sentence about the gain."""
    champions = [trial for trial in trials if trial_ids.side_of(trial.trial_id) == trial_ids.FINAL_SIDES[1]]
    fault = next((trial.trial_id for trial in champions if trial.verdict is None), "")
    return f"no gain is stated, because a training of the champion failed ({fault})" if fault else ""


def failed_pairs(trials: Iterable[Trial]) -> str:
    """How many there were, and the first fault; nothing where none failed."""
    pairs: dict[str, list[Trial]] = {}
    for trial in trials:
        if trial_ids.is_final(trial.trial_id):
            pairs.setdefault(trial_ids.shared(trial.trial_id), []).append(trial)
    faults = [found for pair in pairs.values() if (found := panel.faults(pair))]
    return f"{len(faults)} of {len(pairs)} pairs failed, first {faults[0]}" if faults else ""


def recorded_gain(event: Json, pairs: Pairs, trials: Iterable[Trial]) -> Interval | None:
    """What `final.opened` must hold. Before it said what it `lacks`, failures of the champion were left out as well."""
    return gain(pairs, trials if "lacks" in event else ())
