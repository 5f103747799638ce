"""The proof's arithmetic, without guests: what a plan shows, and which gaps are believed."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bellglass.steps import proof as proofs
from bellglass.steps.proof import Bits


@settings(max_examples=40)
@given(
    count=st.integers(4, 60),
    width=st.integers(3, 40),
    rows=st.integers(1, 80),
    batch=st.integers(1, 9),
    seed=st.binary(),
)
def test_no_call_of_a_proof_ever_shows_an_answer_before_it_is_asked(
    count: int, width: int, rows: int, batch: int, seed: bytes
) -> None:
    """Every token is unique here, so a perfect memory of all calls so far is a set."""
    tokens = np.arange(count * width, dtype=np.int64).reshape(count, width)
    target = np.ones(tokens.shape, dtype=bool)
    target[:, 0] = False
    draw = proofs.Draw(seed)
    bits = draw.words("bits", count * width).reshape(count, width) / 2.0**64
    plan = proofs.plan(bits, target, np.ones_like(bits), draw, rows=rows, separable=False)
    asked = proofs.replaced(tokens, plan, draw)
    assert asked.shape == (len(plan.docs), width - 1)
    shown: set[int] = set()
    order = []
    for members in proofs.rounds(plan, draw):
        for call in proofs.batches(members, batch):
            shown |= set(asked[call].ravel().tolist())
            answers = tokens[plan.docs[call], plan.cols[call]].tolist()
            assert not shown & set(answers)
            kept = [asked[index, : plan.cols[index]] for index in call]
            assert all((row == tokens[plan.docs[i], : len(row)]).all() for row, i in zip(kept, call, strict=True))
            order += call.tolist()
    assert sorted(order) == list(range(len(plan.docs)))
    assert len(plan.docs) <= max(rows, 3)


def test_without_the_key_the_positions_cannot_be_known() -> None:
    tokens = np.zeros((50, 40))
    target = np.ones(tokens.shape, dtype=bool)
    plans = [
        proofs.plan(tokens, target, tokens, proofs.Draw(bytes([key]) * 32), rows=50, separable=False)
        for key in (1, 1, 2)
    ]
    assert (plans[0].cols == plans[1].cols).all()
    assert (plans[0].cols[:25] != plans[2].cols[:25]).mean() > 0.8


def test_uniform_positions_are_uniform_over_targets() -> None:
    target = np.zeros((400, 30), dtype=bool)
    target[:200, 5:10] = True
    target[200:, 10:30] = True
    nothing = np.zeros(target.shape)
    hits = np.zeros(target.shape)
    for key in range(60):
        plan = proofs.plan(nothing, target, nothing, proofs.Draw(bytes([key])), rows=400, separable=False)
        chosen = slice(0, plan.uniform)
        share = plan.weights / plan.weights.sum()
        np.add.at(hits, (plan.docs[chosen], plan.cols[chosen]), share)
    by_column = hits.sum(axis=0) / 60
    assert by_column[5:10].sum() == pytest.approx(200 * 5 / 5000, abs=0.01)
    assert by_column[10:].std() < 0.005
    assert not hits[~target].any()


def even_plan(uniform: int, targeted: int) -> proofs.Plan:
    count = uniform + targeted
    return proofs.Plan(np.arange(count), np.ones(count, np.int64), uniform, np.ones(uniform), np.arange(0))


def test_one_lucky_position_is_no_leak() -> None:
    gaps = np.zeros(48)
    gaps[30] = 5.0
    proof, _, scattered = proofs.compare(even_plan(24, 24), np.zeros(48), gaps)
    assert proof.agrees
    assert not scattered


def test_four_leaks_among_the_largest_gains_are_enough() -> None:
    gaps = np.zeros(48)
    gaps[[25, 31, 40, 47]] = [9.0, 3.0, 5.0, 8.8]
    proof, _, scattered = proofs.compare(even_plan(24, 24), np.zeros(48), gaps)
    assert not proof.agrees
    assert not scattered
    assert proof.mean_gap_bits == 0.0


def test_the_spread_of_a_leak_does_not_excuse_it_but_noise_on_both_sides_does() -> None:
    gaps = np.zeros(48)
    gaps[:24:4] = 2.0
    assert not proofs.compare(even_plan(24, 24), np.zeros(48), gaps)[0].agrees
    gaps[1:24:4] = -2.0
    proof, _, scattered = proofs.compare(even_plan(24, 24), np.zeros(48), gaps)
    assert proof.agrees
    assert scattered


def test_symmetric_noise_almost_never_looks_like_a_leak() -> None:
    rng = np.random.default_rng(5)
    alarms = 0
    for _ in range(500):
        proof, _, _ = proofs.compare(even_plan(24, 24), np.zeros(48), rng.normal(0, 0.015, 48))
        alarms += not proof.agrees
    assert alarms <= 3


@pytest.fixture(params=["defended", "noise of both halves", "credit for worse answers"])
def defence(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "noise of both halves":
        of_one = proofs._noise
        monkeypatch.setattr(proofs, "_noise", lambda uniform, targeted: of_one(np.append(uniform, targeted), targeted))
    if request.param == "credit for worse answers":
        monkeypatch.setattr(proofs, "_without_credit", lambda targeted: targeted)
    return request.param


def believed(uniform: Bits, targeted: Bits) -> bool:
    """No alarm, and no fault either."""
    gaps = np.append(uniform, targeted)
    proof, _, scattered = proofs.compare(even_plan(len(uniform), len(targeted)), np.zeros(len(gaps)), gaps)
    return proof.agrees and not scattered


def test_who_answers_worse_where_it_will_be_asked_does_not_hide_that_it_looks_everywhere(defence: str) -> None:
    """A model that looks gains 0.3 bits at each position, and spoils the answers that the targeted half is made of."""
    gaps = np.append(np.full(24, 0.3), np.full(24, -3.0))
    proof, _, _ = proofs.compare(even_plan(24, 24), np.zeros(48), gaps)
    assert proof.agrees == (defence == "noise of both halves")


def test_who_answers_worse_at_some_of_them_does_not_pay_for_looking_at_the_others(defence: str) -> None:
    """A leak too sparse for the uniform half."""
    targeted = np.tile([4.0, -4.5], 12)
    proof, _, scattered = proofs.compare(even_plan(24, 24), np.zeros(48), np.append(np.zeros(24), targeted))
    assert proof.agrees == (defence != "defended")
    assert scattered == (defence != "defended"), "and then it is no prediction"


def test_answers_that_scatter_only_where_the_gain_is_largest_are_no_prediction(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not believed(np.zeros(24), np.full(24, -0.5))
    monkeypatch.setattr(proofs, "_scatters", lambda gaps: False)
    assert believed(np.zeros(24), np.full(24, -0.5))


@pytest.mark.parametrize(("rows", "noise"), [(24, 0.003), (24, 0.015), (24, 0.04), (128, 0.015), (128, 0.04)])
@pytest.mark.parametrize("tails", ["normal", "heavy"])
def test_an_honest_model_that_rounds_almost_never_calls_a_person(rows: int, noise: float, tails: str) -> None:
    """Its targeted positions are the luckiest of several: gaps there are larger, and none of them was looked up."""
    rng = np.random.default_rng(7)

    def drawn(*size: int) -> Bits:
        values = rng.normal(size=size) if tails == "normal" else rng.standard_t(3, size) / math.sqrt(3.0)
        return values * noise / math.sqrt(2.0)

    alarms = 0
    for _ in range(1000):
        uniform = drawn(rows) - drawn(rows)
        targeted = drawn(rows) - drawn(rows, 4).min(axis=1)
        proof, _, scattered = proofs.compare(even_plan(rows, rows), np.zeros(2 * rows), np.append(uniform, targeted))
        alarms += not scattered and not proof.agrees
    assert alarms <= 4


def test_records_of_a_proof_hold_finite_numbers() -> None:
    for gaps in (np.zeros(8), np.full(8, 2.0), np.full(8, -2.0)):
        proof, error, _ = proofs.compare(even_plan(4, 4), np.zeros(8), gaps)
        assert all(math.isfinite(v) for v in (proof.gap_z, proof.targeted_z, error, proof.mean_gap_bits))
