"""What the splits tell: who was fitted to `select`, and how often each split was looked at."""

from __future__ import annotations

import random

import pytest

from bellglass.records import Budget, Claim, Proof, Seeds, Trial, Verdict
from bellglass.show.splits import fitted, looks, looks_line
from bellglass.store.state import Generation, State, to_json, trial_from


def trial(trial_id: str, purpose: str, score: float, select: float | None = None, corrected: float = 0.0) -> Trial:
    proof = Proof(10, corrected, 0.0, 0.0, 0.0, agrees=True) if purpose == "gate" else None
    verdict = Verdict(score + max(0.0, corrected), score, 0.0, {}, 0.01, 100, proof, select)
    budget, claim = Budget("steps", 1, 1.0), Claim(score, 1, 1)
    return Trial(trial_id, "c" * 40, purpose, Seeds(1, 2), budget, claim, verdict, None, None, 1.0, 1.0, 1.0)


def state(*trials: Trial, **created: object) -> State:
    found = State(created=created)
    for one in trials:
        found.keep_trial(one)
    found.generations = {number: Generation(number, "p") for number in (1, 2, 3)}
    return found


def gate(number: int, select_gain: float, confirm_gain: float, pairs: int = 8) -> list[Trial]:
    """Pairs whose child gains that much on each split, with noise of its own."""
    chance, made = random.Random(number), []
    for k in range(pairs):
        confirm, select = 2.0 + chance.gauss(0, 0.05), 1.9 + chance.gauss(0, 0.05)
        made.append(trial(f"g{number}-pair-{k}-parent", "gate", confirm, select))
        scores = confirm - confirm_gain + chance.gauss(0, 0.01), select - select_gain + chance.gauss(0, 0.01)
        made.append(trial(f"g{number}-pair-{k}-child", "gate", *scores))
    return made


def test_a_child_that_gains_on_select_alone_is_shown_as_fitted_and_a_better_one_is_not() -> None:
    found = state(*gate(1, select_gain=0.2, confirm_gain=0.0), *gate(2, select_gain=0.2, confirm_gain=0.2))
    overfit, better = fitted(found.trials_of(1, "gate")), fitted(found.trials_of(2, "gate"))
    assert overfit is not None
    assert better is not None
    assert overfit.mean == pytest.approx(0.2, abs=0.02)
    assert overfit.low > 0.0
    assert better.low < 0.0 < better.high


def test_the_proofs_correction_is_no_fit() -> None:
    pairs = [trial(f"g1-pair-{k}-parent", "gate", 2.0, 1.9) for k in range(3)]
    pairs += [trial(f"g1-pair-{k}-child", "gate", 1.5, 1.4, corrected=0.7) for k in range(3)]
    found = fitted(pairs)
    assert found is not None
    assert found.mean == pytest.approx(0.0, abs=1e-12)


def test_what_was_not_measured_is_not_guessed() -> None:
    body = to_json(trial("g1-pair-0-child", "gate", 2.0, 1.9))
    del body["verdict"]["select_score"], body["clock"]  # as a ledger from before has it
    old = trial_from(body)
    assert old.verdict is not None
    assert old.verdict.select_score is None
    assert fitted([old, trial("g1-pair-0-parent", "gate", 2.1, 2.0)]) is None
    assert fitted(gate(1, 0.1, 0.1, pairs=1)) is None, "one pair has no interval"


def test_each_split_counts_its_own_verdicts() -> None:
    found = state(
        trial("cal-0x0", "calibrate", 2.0),
        trial("g1-explore-0", "explore", 2.0),
        *gate(1, 0.1, 0.1, pairs=3),
        *gate(2, 0.1, 0.1, pairs=1),
        *(trial(f"g1-panel-{k}", "panel", 1.9) for k in range(2)),
        trial("final-pair-0-starter", "final", 2.0),
    )
    assert looks(found) == {
        "select": 10, "confirm": 10, "confirm_sets": 6, "confirm_slices": 1, "again": 0, "final": 1,
    }  # fmt: skip
    assert looks_line(found).endswith("confirm 10 on 6 fresh sets of documents; final not opened")
    found.final, found.champion = {}, "another than the starter"
    assert looks_line(found).endswith("final 1, opened once")
    del found.trials["final-pair-0-starter"]  # as where all failed
    assert looks_line(found).endswith("final 0, opened once")


def test_a_fixed_corpus_says_when_a_slice_comes_again() -> None:
    found = state(*gate(1, 0, 0, pairs=1), *gate(2, 0, 0, pairs=1), *gate(3, 0, 0, pairs=1), confirm_slices=4)
    found.final = {}
    assert looks(found)["again"] == 1
    assert "on 4 slices in turn, 1 of them used again; final not opened" in looks_line(found)
