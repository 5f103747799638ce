"""The gate: what is adopted, what is not, and how often it is wrong."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bellglass.steps import gate


def test_a_gain_clear_of_the_noise_is_adopted() -> None:
    decision = gate.decide([(2.00, 1.80), (2.10, 1.88), (1.95, 1.74)], alpha=0.05)
    assert decision.decision == "adopt"
    assert decision.gain is not None
    assert 0.0 < decision.gain.low < decision.gain.mean < decision.gain.high
    assert decision.parent_scores == (2.00, 2.10, 1.95)
    assert decision.child_scores == (1.80, 1.88, 1.74)


def test_a_gain_inside_the_noise_is_rejected() -> None:
    decision = gate.decide([(2.0, 1.8), (2.1, 2.2), (1.9, 1.7)], alpha=0.05)
    assert decision.decision == "reject"
    assert decision.gain is not None
    assert decision.gain.mean > 0.0 > decision.gain.low
    assert "not clear of zero" in decision.why


def test_a_child_that_is_surely_worse_is_rejected() -> None:
    assert gate.decide([(1.80, 2.00), (1.88, 2.10), (1.74, 1.95)], alpha=0.05).decision == "reject"


def test_one_pair_is_never_enough() -> None:
    decision = gate.decide([(2.0, 0.1)], alpha=0.05)
    assert (decision.decision, decision.gain) == ("reject", None)
    assert gate.decide([], alpha=0.05).decision == "reject"


def test_bit_equal_pairs_are_reported_and_not_pooled() -> None:
    decision = gate.decide([(2.0, 1.5), (2.1, 1.6), (1.9, 1.9)], alpha=0.2)
    assert (decision.decision, decision.gain) == ("reject", None)
    assert "1 of 3 pairs are bit-equal" in decision.why


def test_identical_scores_under_different_seeds_are_reported_and_not_pooled() -> None:
    decision = gate.decide([(2.0, 1.5), (2.1, 1.5), (1.9, 1.5)], alpha=0.2)
    assert (decision.decision, decision.gain) == ("reject", None)
    assert "child scored identically" in decision.why
    assert "parent scored identically" in gate.decide([(2.0, 1.5), (2.0, 1.6)], alpha=0.2).why


def test_a_failure_rejects_and_keeps_the_pairs_that_finished() -> None:
    decision = gate.failed("a trial of the child failed: overran", [(2.0, 1.5)])
    assert decision.decision == "reject"
    assert "overran" in decision.why
    assert (decision.gain, decision.parent_scores, decision.child_scores) == (None, (2.0,), (1.5,))


def test_a_score_that_is_no_number_never_reaches_the_decision() -> None:
    with pytest.raises(ValueError, match="never a number"):
        gate.decide([(2.0, 1.0), (2.0001, float("nan"))], alpha=0.1)


def test_equal_bundles_are_adopted_no_more_often_than_alpha_says() -> None:
    rng = random.Random(11)
    adopted = 0
    for _ in range(3000):
        shared = [rng.gauss(2.0, 0.1) for _ in range(3)]
        pairs = [(s + rng.gauss(0, 0.05), s + rng.gauss(0, 0.05)) for s in shared]
        adopted += gate.decide(pairs, alpha=0.05).decision == "adopt"
    assert 0.035 <= adopted / 3000 <= 0.065


@given(alpha=st.floats(0.001, 0.4), generations=st.integers(1, 400))
def test_the_error_of_a_whole_loop_stays_below_alpha(alpha: float, generations: int) -> None:
    spent = [gate.spend(alpha, g) for g in range(1, generations + 1)]
    assert sum(spent) < alpha
    assert all(later < earlier for earlier, later in itertools.pairwise(spent))


def test_generation_zero_is_never_gated() -> None:
    with pytest.raises(ValueError, match="from 1"):
        gate.spend(0.05, 0)


def test_an_alpha_that_would_adopt_losers_is_refused() -> None:
    with pytest.raises(ValueError, match="alpha"):
        gate.decide([(2.0, 1.5), (2.1, 1.6)], alpha=0.5)
