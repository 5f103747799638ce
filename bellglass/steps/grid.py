"""The large calibration: the starter on every initialisation with every data order, and null edits of it beside.

Row k of the grid and the null edits on its diagonal are asked for together, so that an edit is trained near in time to
the starter it is paired with. What is settled is not run again: an interrupted calibration goes on at its next row.

Not covered: the gate trains parent and child at the same moment, here an edit only comes soon after: where a machine's
speed wanders, pairing helps the gate more than is measured here. And trials here are judged without the proof, so a
pair of the gate takes a little longer than two of them.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict, replace

from bellglass import trial_ids
from bellglass.calibration import Calibration, Conditions
from bellglass.nulls import Null, edited
from bellglass.records import Json, Trial
from bellglass.steps import gate
from bellglass.steps.panel import calibration_order, from_panel
from bellglass.steps.trial import Lab, Order
from bellglass.store.lineage import Lineage
from bellglass.store.state import State
from bellglass.variance import components, pairing

LEAST_PAIRS = 3  # of a null edit, to say anything about pairing
PLAYED = 200  # simulated decisions behind a mean number of pairs


def trainings(seeds: int, edits: Sequence[Null]) -> int:
    return seeds * (seeds + len(edits))


def measure(
    lab: Lab, lineage: Lineage, state: State, conditions: Conditions, *, seeds: int, edits: Sequence[Null]
) -> Calibration:
    """Raises LoopFault when a training of the starter failed. An edit whose trainings fail is left out."""
    starter = lineage.read(state.starter)
    commits = {null.name: lineage.commit(edited(starter, null), state.starter, null.about) for null in edits}
    for k in range(seeds):
        row = [calibration_order(lab, trial_ids.calibration(k, j), state.starter) for j in range(seeds)]
        beside = [calibration_order(lab, trial_ids.calibration(k, k, name), commit) for name, commit in commits.items()]
        lab.run(_near(row, beside, k))
    grid = [state.trials[trial_ids.calibration(i, j)] for i in range(seeds) for j in range(seeds)]
    return replace(from_panel(conditions, grid), parts=_parts(state.trials, seeds, edits, lab.bench.side_by_side))


def _near(row: list[Order], beside: list[Order], k: int) -> list[Order]:
    """The diagonal first, then its edits, then the rest of the row."""
    return [row[k], *beside, *row[:k], *row[k + 1 :]]


def _parts(trials: dict[str, Trial], seeds: int, edits: Sequence[Null], side_by_side: int) -> Json:
    table = [[_score(trials, trial_ids.calibration(i, j)) for j in range(seeds)] for i in range(seeds)]
    found = components([[score for score in row if score is not None] for row in table])
    diagonal = [(table[k][k], k) for k in range(seeds)]
    kinds = {}
    for null in edits:
        both = [(parent, _score(trials, trial_ids.calibration(k, k, null.name))) for parent, k in diagonal]
        pairs = [(parent, child) for parent, child in both if parent is not None and child is not None]
        if len(pairs) >= LEAST_PAIRS:
            kinds[null.name] = {"about": null.about, **asdict(pairing(pairs))}
    return {
        "seeds": seeds,
        "initialisation": found.initialisation,
        "data_order": found.data_order,
        "rest": found.rest,
        "pairing": kinds,
        "side_by_side": side_by_side,
    }


def _score(trials: dict[str, Trial], trial_id: str) -> float | None:
    verdict = trials[trial_id].verdict
    return None if verdict is None else verdict.score


def pair_seconds(found: Calibration) -> float:
    """Wall time of parent and child: at the same time where two fit side by side."""
    return found.trial_seconds * (1 if found.parts["side_by_side"] > 1 else 2)


def pairs_taken(rules: gate.Rules, gain: float) -> float:
    """The mean number of pairs until the gate decides, played on normal scores that pairing does not help."""
    rng, taken = random.Random(0), 0
    for _ in range(PLAYED):
        pairs = [(rng.gauss(0.0, rules.noise.sd), rng.gauss(-gain, rules.noise.sd)) for _ in range(rules.max_pairs)]
        taken += len(gate.played(pairs, rules).parent_scores)
    return taken / PLAYED
