"""Panels: one bundle trained on several seeds, for scores that decide nothing.

`calibrate` trains the starter before the first generation: how far scores spread over seeds, which is what the gate's
decisions start from. `retrain` trains a new champion again on fresh documents: the scores that made it champion were
lucky by being chosen, so people, and the generations that follow, see these instead.

Not covered: the champion's own noise when it differs from the starter's by much; panels are pooled.
"""

from __future__ import annotations

from collections.abc import Sequence

from bellglass import trial_ids
from bellglass.calibration import Calibration, Conditions, Shelf
from bellglass.errors import LoopFault
from bellglass.records import Json, Noise, Trial
from bellglass.stats import mean, sample_sd
from bellglass.steps import gate
from bellglass.steps.trial import Lab, Order
from bellglass.store.state import State
from bellglass.variance import components, pooled


def calibrate(lab: Lab, state: State, conditions: Conditions, shelf: Shelf, *, seeds: int) -> Json:
    """The body of `loop.calibrated`: from the shelf where one fits, else from trainings of the starter."""
    stored, why = shelf.find(conditions, least_df=seeds - 1)
    if stored is not None:
        return {**stored.as_json(), "measured": False, "why": "stored for these conditions"}
    trials = lab.run([calibration_order(lab, trial_ids.calibration(k, k), state.starter) for k in range(seeds)])
    found = from_panel(conditions, trials)
    if shelf.knows_more(found):
        why += f"; it stays, until bellglass calibrate {conditions.task} replaces it"
    else:
        shelf.keep(found)
    return {**found.as_json(), "measured": True, "why": why}


def from_panel(conditions: Conditions, trials: list[Trial]) -> Calibration:
    """Raises LoopFault when the starter cannot be calibrated on: then no successor could be compared with it."""
    failed = [trial for trial in trials if trial.verdict is None]
    if failed:
        found = f"trial {failed[0].trial_id} failed: {failed[0].fault}"
        raise LoopFault("calibration", found, "a starter whose trials succeed", "bellglass log", code="starter_fails")
    verdicts = [trial.verdict for trial in trials if trial.verdict is not None]
    scores = tuple(verdict.score for verdict in verdicts)
    noise = spread(trials)
    if noise.sd == 0.0:
        needed = "a starter that uses its seeds"
        raise LoopFault(
            "calibration", "one score under different seeds", needed, "bellglass log", code="starter_without_noise"
        )
    return Calibration(
        conditions=conditions,
        noise=noise,
        scores=scores,
        document_se=mean([verdict.sampling_se for verdict in verdicts]),
        trial_seconds=round(mean([trial.wall_seconds + trial.judge_seconds for trial in trials]), 3),
        parts={},
    )


def most_gain(lab: Lab, scores: Sequence[float]) -> float | None:
    """The largest gain that there is, for the starter's scores; None where nobody knows the floor."""
    return mean(scores) if lab.bench.task.floor == "exact" else None


def spread(trials: Sequence[Trial]) -> Noise:
    """Of the starter's scores among a calibration's trials, some of which may be null edits.

    From a whole grid all of it is used: its diagonal alone would throw most of the trainings away.
    """
    scores: dict[tuple[int, int], float] = {}
    for trial in trials:
        if trial.verdict is not None and (place := trial_ids.place(trial.trial_id)):
            scores[place] = trial.verdict.score
    seeds = range(max(i for i, _ in scores) + 1)
    if len(seeds) > 1 and len(scores) == len(seeds) ** 2:
        return components([[scores[i, j] for j in seeds] for i in seeds]).noise
    return Noise(sample_sd(list(scores.values())), len(scores) - 1)


def retrain(lab: Lab, number: int, successor: str, *, seeds: int) -> list[Trial]:
    """The trainer of the champion-to-be, on new seeds and on documents nobody has been scored on."""
    return lab.run([order(lab, trial_ids.panel(number, k), "panel", number, successor) for k in range(seeds)])


def noise_of(state: State, before: int) -> Noise:
    """What the panels up to that generation say about the spread of one score."""
    calibration = state.calibration
    if calibration is None:
        needed = "one, made before the first generation"
        raise LoopFault("the gate", "no calibration in the ledger", needed, "bellglass verify", code="not_calibrated")
    panels = [Noise(**calibration["noise"])]
    for gen in state.adopted():
        if gen.number < before:
            scores = [t.verdict.score for t in state.trials_of(gen.number, "panel") if t.verdict is not None]
            if len(scores) > 1:
                panels.append(Noise(sample_sd(scores), len(scores) - 1))
    return pooled(panels)


def rules_of(state: State, number: int) -> gate.Rules:
    """How generation `number` is decided. From the ledger alone, so that anybody derives the same."""
    config = state.config
    return gate.Rules(
        error=gate.spend(config["alpha"], number),
        noise=noise_of(state, number),
        max_pairs=config["max_pairs"],
        seeks_equality=config["scaffold_rule"] == "neutral",
    )


def calibration_order(lab: Lab, trial_id: str, commit: str) -> Order:
    return order(lab, trial_id, "calibrate", 0, commit)


def order(lab: Lab, trial_id: str, purpose: str, generation: int, commit: str) -> Order:
    """A training with all of the preset's budget."""
    return Order(trial_id, commit, purpose, generation, lab.bench.preset.budget)


def faults(trials: list[Trial]) -> str:
    """Which of them failed, or nothing."""
    return ", ".join(f"{trial.trial_id}: {trial.fault}" for trial in trials if trial.verdict is None)
