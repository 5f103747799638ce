"""The gate: what is adopted, what is not, when it stops, and how often it is wrong."""

from __future__ import annotations

import itertools
import math
import random
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bellglass.config import load
from bellglass.records import Noise
from bellglass.stats import sample_sd, t_cdf, t_quantile
from bellglass.steps import gate
from bellglass.steps.gate import Rules

RULES = Rules(error=0.025, noise=Noise(sd=0.05, df=3), max_pairs=8)


def pairs_of(gains: list[float]) -> list[tuple[float, float]]:
    """Pairs with these gains, no score twice."""
    return [(2.0 + 0.001 * k, 2.0 + 0.001 * k - gain) for k, gain in enumerate(gains)]


def test_a_gain_clear_of_the_noise_is_adopted_after_three_pairs() -> None:
    decision = gate.played(pairs_of([0.50, 0.52, 0.47, 0.5]), RULES)
    assert decision.decision == "adopt"
    assert decision.gain is not None
    assert decision.gain.n == 3
    assert 0.0 < decision.gain.low < decision.gain.mean < decision.gain.high
    assert decision.parent_scores == (2.0, 2.001, 2.002)


def test_however_large_a_gain_is_two_pairs_do_not_adopt() -> None:
    assert [gate.decide(pairs_of([5.0, 5.1])[:n], RULES).decision for n in range(3)] == ["more"] * 3


def test_a_clear_loser_stops_after_one_pair() -> None:
    decision = gate.played(pairs_of([-0.3, 0.5, 0.5]), RULES)
    assert (decision.decision, decision.gain.n) == ("reject", 1)  # type: ignore[union-attr]
    assert "worse than its parent" in decision.why


def test_a_gain_that_no_hope_carries_over_the_bound_stops_early() -> None:
    decision = gate.played(pairs_of([0.01, -0.01, 0.0]), RULES)
    assert (decision.decision, decision.gain.n) == ("reject", 2)  # type: ignore[union-attr]
    assert "hardly" in decision.why


@pytest.mark.parametrize(
    ("gains", "word"),
    [
        ([0.04, 0.14, 0.07, 0.05, 0.05, 0.09, -0.01, 0.08], "adopt"),
        ([0.08, 0.08, -0.03, 0.05, 0.06, 0.11, 0.04, -0.03], "reject"),
    ],
)
def test_a_close_call_goes_on_to_the_cap(gains: list[float], word: str) -> None:
    decision = gate.played(pairs_of(gains), RULES)
    assert (decision.decision, len(decision.parent_scores)) == (word, 8)


def test_pairs_behind_the_decision_are_not_looked_at() -> None:
    gains = [0.50, 0.52, 0.47]
    assert gate.played(pairs_of([*gains, -9.0, -9.1]), RULES) == gate.played(pairs_of(gains), RULES)
    assert gate.played(pairs_of(gains[:2]), RULES).decision == "more"


def test_between_looks_nothing_is_adopted() -> None:
    assert gate.decide(pairs_of([0.5] * 2 + [0.51] + [0.49]), RULES).decision == "more"  # four pairs: no look
    assert RULES.looks == (3, 5, 8)
    assert replace(RULES, max_pairs=4).looks == (3, 4)
    assert replace(RULES, max_pairs=10).looks == (3, 5, 8, 10)


def test_a_noisy_child_is_judged_by_its_own_noise() -> None:
    steady, wild = pairs_of([0.30, 0.29, 0.31]), pairs_of([0.70, -0.20, 0.40])
    assert gate.decide(steady, RULES).decision == "adopt"
    assert gate.decide(wild, RULES).decision != "adopt"


def test_equality_is_concluded_only_when_it_is_sought() -> None:
    gains = [0.004, -0.003, 0.001, 0.002, -0.001, 0.003, -0.002, 0.0015]
    seeking = replace(RULES, seeks_equality=True)
    decision = gate.played(pairs_of(gains), seeking)
    assert decision.decision == "equal"
    assert "no difference over 0.0500" in decision.why
    assert gate.played(pairs_of(gains), RULES).decision == "reject"
    assert gate.decide(pairs_of(gains), replace(seeking, max_pairs=13)).decision == "equal"
    assert gate.decide(pairs_of(gains), replace(RULES, max_pairs=13)).decision != "equal"
    assert gate.played(pairs_of([0.06, 0.04, 0.05, 0.06, 0.05, 0.04, 0.05, 0.06]), seeking).decision != "equal"


def test_bit_equal_pairs_are_reported_and_not_pooled() -> None:
    decision = gate.decide([(2.0, 1.5), (2.1, 1.6), (1.9, 1.9)], RULES)
    assert (decision.decision, decision.gain) == ("reject", None)
    assert "1 of 3 pairs are bit-equal" in decision.why


def test_where_equality_is_sought_three_bit_equal_pairs_are_equal() -> None:
    seeking, same = replace(RULES, seeks_equality=True), [(2.0, 2.0), (2.1, 2.1), (1.9, 1.9)]
    assert [gate.decide(same[:n], seeking).decision for n in (1, 2, 3)] == ["more", "more", "equal"]
    assert gate.decide(same, seeking).why.startswith("all 3 pairs are bit-equal")
    assert gate.decide(same, replace(seeking, noise=Noise(0.05, 1))).decision == "equal"  # no noise has a say in it
    assert gate.decide(same[:1], RULES).decision == "reject"


@pytest.mark.parametrize("pairs", [[(2.0, 2.0), (2.1, 1.6)], [(2.0, 2.0), (2.0, 2.0)]])
def test_bit_equal_pairs_among_others_or_under_unused_seeds_are_no_equality(pairs: list[tuple[float, float]]) -> None:
    assert gate.decide(pairs, replace(RULES, seeks_equality=True)).decision == "reject"


def test_identical_scores_under_different_seeds_are_reported_and_not_pooled() -> None:
    decision = gate.decide([(2.0, 1.5), (2.1, 1.5), (1.9, 1.5)], RULES)
    assert (decision.decision, decision.gain) == ("reject", None)
    assert "child scored identically" in decision.why
    assert "parent scored identically" in gate.decide([(2.0, 1.5), (2.0, 1.6)], RULES).why


def test_a_failure_rejects_and_keeps_the_pairs_that_finished() -> None:
    decision = gate.failed("a trial of the child failed: overran", [(2.0, 1.5)])
    assert decision.decision == "reject"
    assert "overran" in decision.why
    assert (decision.gain, decision.parent_scores, decision.child_scores) == (None, (2.0,), (1.5,))


def test_a_score_that_is_no_number_never_reaches_the_decision() -> None:
    with pytest.raises(ValueError, match="never a number"):
        gate.decide([(2.0, 1.0), (2.0001, float("nan"))], RULES)


@given(st.lists(st.tuples(st.floats(0.1, 9), st.floats(0.1, 9)), min_size=1, max_size=8))
def test_deciding_changes_nothing_and_is_the_same_twice(pairs: list[tuple[float, float]]) -> None:
    before = list(pairs)
    first = gate.decide(pairs, RULES)
    assert gate.decide(tuple(pairs), RULES) == first
    assert pairs == before
    assert first.decision != "more" or len(pairs) < RULES.max_pairs
    assert first.decision != "adopt" or len(pairs) >= 3


@given(
    gains=st.lists(st.floats(-1, 1), min_size=3, max_size=8, unique=True),
    shift=st.floats(0.01, 5),
    scale=st.floats(0.1, 10),
)
def test_units_and_levels_of_scores_do_not_matter(gains: list[float], shift: float, scale: float) -> None:
    rules = replace(RULES, noise=Noise(RULES.noise.sd * scale, RULES.noise.df))
    moved = [(shift + parent * scale, shift + child * scale) for parent, child in pairs_of(gains)]
    one, other = gate.decide(pairs_of(gains), RULES), gate.decide(moved, rules)
    if one.gain is not None and other.gain is not None and abs(one.gain.low) > 1e-6:
        assert one.decision == other.decision
        assert other.gain.low == pytest.approx(scale * one.gain.low, rel=1e-6, abs=1e-9)


@given(gain=st.floats(0.3, 2), extra=st.floats(0.01, 2))
def test_a_larger_gain_is_never_adopted_less(gain: float, extra: float) -> None:
    spread = [0.02, -0.01, 0.005]
    one = gate.decide(pairs_of([gain + s for s in spread]), RULES)
    more = gate.decide(pairs_of([gain + extra + s for s in spread]), RULES)
    assert one.decision != "adopt" or more.decision == "adopt"


@pytest.mark.parametrize("pairing", [0.0, 0.5])
def test_equal_bundles_are_hardly_ever_adopted_over_a_whole_loop(pairing: float) -> None:
    rng = random.Random(11)
    wrong, loops = 0, 400
    for _ in range(loops):
        noise = Noise((sum((rng.gauss(0, 1) ** 2 for _ in range(3)), 0.0) / 3) ** 0.5, 3)
        for generation in (1, 2, 3):
            rules = Rules(gate.spend(0.05, generation), noise, 8)
            draws = [[rng.gauss(0, 1) for _ in range(3)] for _ in range(8)]
            pairs = [(a * pairing**0.5 + b * (1 - pairing) ** 0.5, a * pairing**0.5 + c * (1 - pairing) ** 0.5)
                     for a, b, c in draws]  # fmt: skip
            if gate.played(pairs, rules).decision == "adopt":
                wrong += 1
                break
    assert wrong / loops <= 0.05  # 2% and 1% in benchmarks/gate_simulation.py


@given(alpha=st.floats(0.001, 0.4), generations=st.integers(1, 400))
def test_the_error_of_a_whole_loop_stays_below_alpha(alpha: float, generations: int) -> None:
    spent = [gate.spend(alpha, g) for g in range(1, generations + 1)]
    assert sum(spent) < alpha
    assert all(later < earlier for earlier, later in itertools.pairwise(spent))


def test_generation_zero_is_never_gated() -> None:
    with pytest.raises(ValueError, match="from 1"):
        gate.spend(0.05, 0)


def test_rules_that_would_adopt_losers_or_on_two_pairs_are_refused() -> None:
    with pytest.raises(ValueError, match="error"):
        replace(RULES, error=0.5)
    with pytest.raises(ValueError, match="at least 3"):
        replace(RULES, max_pairs=2)


def test_more_noise_hides_larger_gains() -> None:
    quiet, loud = gate.smallest_gain(RULES), gate.smallest_gain(replace(RULES, noise=Noise(0.1, 3)))
    assert 0.05 < quiet < 0.2
    assert loud == pytest.approx(2 * quiet)
    assert gate.smallest_gain(replace(RULES, max_pairs=3)) > quiet


def bound(pairs: list[tuple[float, float]], rules: Rules) -> tuple[float, float, float]:
    """Mean gain, its standard error, its degrees of freedom: docs/statistics.md once more, written from the page."""
    gains = [parent - child for parent, child in pairs]
    weight, n = min(2, rules.noise.df), len(gains)
    centre = sum(gains) / n
    squares = sum((gain - centre) ** 2 for gain in gains)
    variance = (weight * 2 * rules.noise.sd**2 + squares) / (weight + n - 1)
    return centre, (variance / n) ** 0.5, weight + n - 1


def clear_at(pairs: list[tuple[float, float]], rules: Rules) -> list[int]:
    """Every look at which these pairs are over the bound, had the gate not stopped before."""
    found = []
    for look in rules.looks:
        centre, error, df = bound(pairs[:look], rules)
        if centre > t_quantile(1 - rules.error / len(rules.looks), df) * error:
            found.append(look)
    return found


@pytest.mark.parametrize(
    ("error", "max_pairs", "calibrated"), [(0.025, 3, 1), (0.0012, 8, 3), (0.4, 9, 7), (0.01, 25, 2)]
)
def test_all_looks_of_a_decision_together_spend_no_more_than_its_error(
    error: float, max_pairs: int, calibrated: int
) -> None:
    rules = Rules(error, Noise(0.05, calibrated), max_pairs)
    pairs, spent = pairs_of([50.0 + 0.0001 * (k % 3) for k in range(max_pairs)]), 0.0
    for n in range(1, max_pairs + 1):
        decision = gate.decide(pairs[:n], rules)
        if decision.decision == "adopt":
            assert decision.gain is not None
            centre, se, df = bound(pairs[:n], rules)
            spent += 1.0 - t_cdf((centre - decision.gain.low) / se, df)
    assert 0.99 * error < spent <= error * (1 + 1e-6)


def no_score_twice(thousandths: list[int]) -> list[float]:
    return [gain / 1000 + 0.0001 * k + 0.00003 for k, gain in enumerate(thousandths)]


CLOSE = st.lists(st.integers(-100, 300), min_size=8, max_size=8).map(no_score_twice)
ALIKE = st.lists(st.integers(-60, 60), min_size=8, max_size=8).map(no_score_twice)


@given(gains=CLOSE, seeking=st.booleans(), calibrated=st.integers(1, 9))
def test_giving_up_early_never_turns_into_an_adoption(gains: list[float], seeking: bool, calibrated: int) -> None:
    rules = replace(RULES, noise=Noise(0.05, calibrated), seeks_equality=seeking)
    pairs = pairs_of(gains)
    decision = gate.played(pairs, rules)
    if decision.decision == "adopt":
        assert clear_at(pairs, rules)[0] == len(decision.parent_scores)


@given(gains=CLOSE)
def test_all_that_clears_a_look_before_it_is_given_up_is_adopted(gains: list[float]) -> None:
    decision, clear = gate.played(pairs_of(gains), RULES), clear_at(pairs_of(gains), RULES)
    assert (decision.decision == "adopt") == bool(clear and len(decision.parent_scores) >= clear[0])


@given(gains=CLOSE, look=st.sampled_from(RULES.looks))
def test_a_child_and_its_mirror_are_never_both_adopted(gains: list[float], look: int) -> None:
    words = [gate.decide(pairs_of([sign * gain for gain in gains[:look]]), RULES).decision for sign in (1, -1)]
    assert words.count("adopt") <= 1


@given(gains=ALIKE)
def test_a_noise_that_two_trainings_showed_never_tells_equal_and_spends_no_pairs_on_it(gains: list[float]) -> None:
    rules = replace(RULES, noise=Noise(0.05, 1))
    assert gate.played(pairs_of(gains), replace(rules, seeks_equality=True)) == gate.played(pairs_of(gains), rules)


@given(gains=ALIKE, max_pairs=st.integers(3, 8))
def test_equal_means_that_neither_side_may_be_better_by_the_noise(gains: list[float], max_pairs: int) -> None:
    rules = replace(RULES, seeks_equality=True, max_pairs=max_pairs)
    decision = gate.played(pairs_of(gains), rules)
    if decision.decision == "equal":
        n = len(decision.parent_scores)
        assert n in rules.looks
        centre, se, df = bound(pairs_of(gains)[:n], rules)
        reach = t_quantile(1 - 0.05 / len(rules.looks), df) * se
        assert -0.05 < centre - reach < centre + reach < 0.05


def test_the_worked_example_of_the_page_is_what_the_gate_says() -> None:
    page = (Path(__file__).parent.parent / "docs" / "statistics.md").read_text()
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in re.findall(r"(?m)^\| \d.*", page)]
    noise = Noise(sample_sd([2.507, 2.561, 2.473, 2.527]), 3)
    rules = Rules(gate.spend(0.05, 2), noise, 8)
    assert f"*s₀* = {noise.sd:.5f}" in page
    assert f"= {2 * noise.sd**2:.6f}" in page
    assert f"0.05/6/3 = {rules.error / 3:.5f}" in page
    pairs = [(float(line[1]), float(line[2])) for line in lines]
    for n in range(1, len(pairs) + 1):
        centre, se, df = bound(pairs[:n], rules)
        own = f"{sample_sd([a - b for a, b in pairs[:n]]) ** 2:.6f}" if n > 1 else "–"
        over = t_quantile(1 - rules.error / 3, df)
        decision = gate.decide(pairs[:n], rules)
        says = [f"{centre:.4f}", own, f"{se**2 * n:.6f}", f"{df}", f"{centre / se:.2f}", f"{over:.2f}"]
        assert lines[n - 1][3:] == [*says, decision.decision]
        assert decision.gain is not None
        assert decision.gain.low == pytest.approx(centre - over * se)
    assert f"`{decision.why}`" in page


@pytest.mark.parametrize("df", [1, 2, 3, 49])
def test_the_least_error_that_a_config_can_ask_for_still_has_its_bound(df: int) -> None:
    """The last generation of the longest loop, at the most looks."""
    longest = load(None, {"alpha": 1e-6, "generations": 100_000, "max_pairs": 50})
    rules = Rules(gate.spend(longest.alpha, longest.generations), Noise(sd=0.05, df=df), longest.max_pairs)
    each = rules.error / len(rules.looks)
    assert 1.0 - each == 1.0, "the upper tail cannot even name it"
    assert t_cdf(t_quantile(each, df), df) == pytest.approx(each, rel=1e-8)
    if df == 1:
        assert t_quantile(each, df) == pytest.approx(-1.0 / math.tan(math.pi * each), rel=1e-8)
    assert 0.0 < gate.smallest_gain(rules) < math.inf
    for n in range(1, 51):
        decision = gate.decide(pairs_of([0.5 + 0.01 * (k % 7) for k in range(n)]), rules)
        assert decision.gain is not None
        assert -math.inf < decision.gain.low < decision.gain.mean < decision.gain.high < math.inf
    assert decision.decision == "adopt"
