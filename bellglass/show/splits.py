"""What the splits tell about a loop: how far its improver fitted `select`, how often each was looked at. Pure.

Every trial of a gate is judged on `confirm` and scored on `select`, with the same weights. An improver is scored on
`select` alone, so a child that gains more there than on `confirm` was fitted to those documents, by search or by luck.
No decision reads this, and no improver hears it.

Not covered: `select` is one set of documents, so a gap may be an accident of it. It is then there in every generation,
whoever improves.
"""

from __future__ import annotations

from collections.abc import Sequence

from bellglass import trial_ids
from bellglass.records import Interval, Json, Trial
from bellglass.stats import CONFIDENCE, mean_interval
from bellglass.store.state import State


def fitted(gate: Sequence[Trial]) -> Interval | None:
    """Over one generation's trials of the gate: the child's gain over its parent on `select` minus that on `confirm`.

    Positive where it was fitted; None where fewer than two pairs were measured on both.
    """
    trials = {trial.trial_id: trial for trial in gate}
    gaps = []
    for trial_id, child in trials.items():
        if partner := trial_ids.partner(trial_id):
            parent = trials.get(partner)
            above, below = _gap(child), None if parent is None else _gap(parent)
            if above is not None and below is not None:
                gaps.append(above - below)
    return mean_interval(gaps, CONFIDENCE) if len(gaps) > 1 else None


def _gap(trial: Trial) -> float | None:
    """Its score on `confirm` minus that on `select`, like with like: without the proof's correction."""
    verdict = trial.verdict
    if verdict is None or verdict.select_score is None:
        return None
    correction = 0.0 if verdict.proof is None else max(0.0, verdict.proof.mean_gap_bits)
    return verdict.score - correction - verdict.select_score


def looks(state: State) -> Json:
    """How many verdicts each split has given; of `confirm` also on how many sets of documents.

    `again` counts the sets of a fixed corpus that had been judged on before: its slices are used in turn (tasks.py).
    """
    judged = [trial for trial in state.trials.values() if trial.verdict is not None]
    gates = [trial for trial in judged if trial.purpose == "gate"]
    panels = [trial for trial in judged if trial.purpose == "panel"]
    beside = sum(trial.verdict is not None and trial.verdict.select_score is not None for trial in gates)
    sets = {trial_ids.documents_of(trial.trial_id) for trial in (*gates, *panels)}
    used = {2 * trial_ids.generation_of(trial.trial_id) + (trial.purpose == "panel") for trial in (*gates, *panels)}
    slices = state.created.get("confirm_slices", 1)
    parts = {number % slices for number in used} if slices > 1 else used
    return {
        "select": sum(trial.purpose in ("explore", "calibrate") for trial in judged) + beside,
        "confirm": len(gates) + len(panels),
        "confirm_sets": len(sets),
        "confirm_slices": slices,
        "again": len(used) - len(parts),
        "final": sum(trial.purpose == "final" for trial in judged),
    }


def looks_line(state: State) -> str:
    found = looks(state)
    if found["confirm_slices"] > 1:
        confirm = f"on {found['confirm_slices']} slices in turn, {found['again']} of them used again"
    else:
        confirm = f"on {found['confirm_sets']} fresh sets of documents"
    opened = state.final is not None and state.champion != state.starter
    final = f"{found['final']}, opened once" if opened else "not opened"
    return f"verdicts by split: select {found['select']}; confirm {found['confirm']} {confirm}; final {final}"
