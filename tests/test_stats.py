"""The statistics against tables, against scipy where it is installed, and against themselves."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bellglass import stats

# Upper points of Student's t as printed in any table: (p, degrees of freedom, t).
T_TABLE = [
    (0.95, 1, 6.313751515),
    (0.975, 1, 12.706204736),
    (0.95, 2, 2.919985580),
    (0.975, 2, 4.302652730),
    (0.995, 2, 9.924843201),
    (0.975, 4, 2.776445105),
    (0.99, 5, 3.364929997),
    (0.999, 9, 4.296805662),
    (0.975, 30, 2.042272456),
    (0.975, 120, 1.979930405),
]


@pytest.mark.parametrize(("p", "df", "t"), T_TABLE)
def test_t_quantiles_are_those_of_the_table(p: float, df: float, t: float) -> None:
    assert stats.t_quantile(p, df) == pytest.approx(t, rel=1e-8)
    assert stats.t_cdf(t, df) == pytest.approx(p, rel=1e-8)


@settings(max_examples=150)
@given(p=st.floats(1e-9, 1 - 1e-9), df=st.floats(0.5, 1e5))
def test_quantile_and_cdf_undo_each_other(p: float, df: float) -> None:
    assert stats.t_cdf(stats.t_quantile(p, df), df) == pytest.approx(p, rel=1e-8, abs=1e-14)


@settings(max_examples=150)
@given(t=st.floats(-50, 50), step=st.floats(1e-3, 5), df=st.floats(0.5, 1e4))
def test_the_t_cdf_rises_and_is_symmetric(t: float, step: float, df: float) -> None:
    assert stats.t_cdf(t, df) <= stats.t_cdf(t + step, df)
    assert stats.t_cdf(-t, df) == pytest.approx(1.0 - stats.t_cdf(t, df), abs=1e-12)


@settings(max_examples=150)
@given(p=st.floats(1e-8, 1 - 1e-8), df=st.floats(0.5, 1e5), a=st.floats(0.1, 200), b=st.floats(0.1, 200))
def test_scipy_agrees(p: float, df: float, a: float, b: float) -> None:
    scipy_stats = pytest.importorskip("scipy.stats")
    scipy_special = pytest.importorskip("scipy.special")
    assert stats.t_quantile(p, df) == pytest.approx(float(scipy_stats.t.ppf(p, df)), rel=1e-7, abs=1e-7)
    assert stats.incomplete_beta(a, b, p) == pytest.approx(float(scipy_special.betainc(a, b, p)), rel=1e-8, abs=1e-12)


def test_an_interval_is_the_textbook_one() -> None:
    interval = stats.mean_interval([1.0, 2.0, 3.0], 0.95)
    assert (interval.mean, interval.n) == (2.0, 3)
    assert interval.high - 2.0 == pytest.approx(4.302652730 / math.sqrt(3), rel=1e-8)
    assert interval.low + interval.high == pytest.approx(4.0)


def test_a_paired_interval_sees_only_the_differences() -> None:
    interval = stats.paired_interval([(101.0, 100.0), (53.0, 51.0), (10.0, 7.0)], 0.9)
    assert interval == stats.mean_interval([1.0, 2.0, 3.0], 0.9)


def test_an_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = random.Random(7)
    covered = 0
    for _ in range(2000):
        interval = stats.mean_interval([rng.gauss(0.3, 2.0) for _ in range(3)], 0.9)
        covered += interval.low <= 0.3 <= interval.high
    assert 0.88 <= covered / 2000 <= 0.92


def test_equal_values_have_an_interval_of_no_width() -> None:
    interval = stats.mean_interval([0.1, 0.1, 0.1], 0.95)
    assert interval.low == interval.mean == interval.high


def test_one_value_has_no_interval_and_a_failure_is_no_number() -> None:
    with pytest.raises(ValueError, match="at least two"):
        stats.mean_interval([1.0], 0.95)
    with pytest.raises(ValueError, match="never a number"):
        stats.mean_interval([1.0, math.nan, 2.0], 0.95)


def test_a_probability_outside_the_unit_interval_is_refused() -> None:
    for p in (0.0, 1.0, -0.1, math.nan):
        with pytest.raises(ValueError, match="probability"):
            stats.t_quantile(p, 3)


def test_z_of_a_value_without_error_is_infinite_unless_it_is_zero() -> None:
    assert stats.z_score(0.0, 0.0) == 0.0
    assert stats.z_score(-1e-9, 0.0) == -math.inf
    assert stats.z_score(-1.0, 0.5) == -2.0
