"""The few statistics that decisions rest on: Student's t, and intervals of means.

Pure Python and `math` only, so that importing costs nothing. Values agree with tables and with scipy to at least seven
digits (tests/test_stats.py); the gate needs three.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache

from bellglass.records import Interval

CONFIDENCE = 0.95  # of every interval that people are shown, but for the gate's own
_TINY = 1e-300


def t_cdf(t: float, df: float) -> float:
    """P(T <= t) of Student's t with `df` degrees of freedom."""
    if df <= 0.0:
        raise ValueError(f"degrees of freedom must be positive, not {df}")
    if t > 0.0:
        return 1.0 - t_cdf(-t, df)
    square = t * t
    return 0.5 * _beta_tail(0.5 * df, 0.5, df / (df + square), square / (df + square))


@lru_cache(maxsize=4096)  # solving takes a millisecond, and decisions ask for the same few again and again
def t_quantile(p: float, df: float) -> float:
    """The t with t_cdf(t, df) == p."""
    _open_unit(p)
    if df <= 0.0:
        raise ValueError(f"degrees of freedom must be positive, not {df}")
    if p == 0.5:
        return 0.0
    # Solved in the lower tail, where the CDF keeps its relative precision.
    return -t_quantile(1.0 - p, df) if p > 0.5 else -_solve(lambda t: t_cdf(-t, df), p)


def incomplete_beta(a: float, b: float, x: float) -> float:
    """The regularised incomplete beta function I_x(a, b)."""
    return _beta_tail(a, b, x, 1.0 - x)


def mean(values: Sequence[float]) -> float:
    """The arithmetic mean, with exact summation."""
    if not values:
        raise ValueError("a mean needs at least one value")
    return math.fsum(values) / len(values)


def sample_sd(values: Sequence[float]) -> float:
    """The standard deviation with n - 1 in the denominator."""
    if len(values) < 2:
        raise ValueError(f"a standard deviation needs at least two values, not {len(values)}")
    if min(values) == max(values):
        return 0.0  # the mean of equal values can differ from them in the last digit, which is no spread
    centre = mean(values)
    return math.sqrt(math.fsum((v - centre) ** 2 for v in values) / (len(values) - 1))


def mean_interval(values: Sequence[float], confidence: float) -> Interval:
    """The two-sided t interval of the mean. Its low end is the one-sided bound at confidence (1 + confidence) / 2."""
    _open_unit(confidence)
    bad = [v for v in values if not math.isfinite(v)]
    if bad:
        raise ValueError(f"a failure is never a number: {bad[0]} among the values")
    n = len(values)
    if n < 2:
        raise ValueError(f"an interval needs at least two values, not {n}")
    centre = mean(values)
    half = t_quantile(0.5 + 0.5 * confidence, n - 1) * sample_sd(values) / math.sqrt(n)
    return Interval(mean=centre, low=centre - half, high=centre + half, n=n)


def paired_interval(pairs: Sequence[tuple[float, float]], confidence: float) -> Interval:
    """The t interval of first minus second, over pairs."""
    return mean_interval([first - second for first, second in pairs], confidence)


def shrunk_variance(own: float, df: float, prior: float, weight: float) -> float:
    """An estimate on `df` degrees of freedom drawn towards a prior that counts for `weight` of them."""
    if own < 0.0 or prior < 0.0 or df < 0.0 or weight < 0.0 or df + weight == 0.0:
        raise ValueError(f"no variance from {own} on {df} and {prior} on {weight}")
    return (df * own + weight * prior) / (df + weight)


def z_score(value: float, error: float) -> float:
    """How many standard errors `value` is from 0. An error of 0 gives 0 for 0, else an infinite z of its sign."""
    if error < 0.0:
        raise ValueError(f"a standard error cannot be negative: {error}")
    if error == 0.0:
        return 0.0 if value == 0.0 else math.copysign(math.inf, value)
    return value / error


def _open_unit(p: float) -> None:
    if not 0.0 < p < 1.0:
        raise ValueError(f"a probability strictly between 0 and 1 is needed, not {p}")


def _solve(tail: Callable[[float], float], p: float) -> float:
    """The x >= 0 with tail(x) == p, for a falling `tail` with tail(0) = 0.5: doubling, a guess, then bisection."""
    high = 1.0
    while tail(high) > p:
        high *= 2.0
    low, high = _narrowed(tail, p, 0.0, high)
    while True:
        middle = 0.5 * (low + high)
        if middle in (low, high):
            return middle
        if tail(middle) > p:
            low = middle
        else:
            high = middle


def _narrowed(tail: Callable[[float], float], p: float, low: float, high: float) -> tuple[float, float]:
    """Ends as close around it as a few secant steps find, on the logarithm of the tail, which bends little.

    They are ends all the same: tail(low) > p >= tail(high). A poor guess costs time, and nothing else.
    """
    x, y = (low, high), (math.log(0.5 / p), math.log(max(tail(high), _TINY) / p))
    for _ in range(8):
        guess = x[1] - y[1] * (x[1] - x[0]) / (y[1] - y[0]) if y[0] != y[1] else math.nan
        guess = guess if low < guess < high else 0.5 * (low + high)
        height = math.log(max(tail(guess), _TINY) / p)
        low, high = (guess, high) if height > 0.0 else (low, guess)
        x, y = (x[1], guess), (y[1], height)
        if abs(height) < 1e-14:
            break
    for near in (1e-14, 1e-11, 1e-8):
        inner, outer = max(low, x[1] * (1.0 - near)), min(high, x[1] * (1.0 + near))
        if tail(inner) > p >= tail(outer):
            return inner, outer
    return low, high


def _beta_tail(a: float, b: float, x: float, rest: float) -> float:
    """I_x(a, b), given 1 - x beside x: where x rounds to 1, only the caller still knows what is left."""
    if x <= 0.0 or rest <= 0.0:
        return 0.0 if x <= 0.0 else 1.0
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log(rest))
    # The continued fraction converges fast below the mean and slowly above it; there the mirrored one is used.
    if x < (a + 1.0) / (a + b + 2.0):
        return front * _beta_fraction(a, b, x) / a
    return 1.0 - front * _beta_fraction(b, a, rest) / b


def _beta_fraction(a: float, b: float, x: float) -> float:
    """The continued fraction of the incomplete beta function, evaluated from the front (modified Lentz)."""
    c = 1.0
    d = 1.0 / _away_from_zero(1.0 - (a + b) * x / (a + 1.0))
    result = d
    for m in range(1, 10_000):
        even = m * (b - m) * x / ((a + 2 * m - 1.0) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1.0))
        for term in (even, odd):
            d = 1.0 / _away_from_zero(1.0 + term * d)
            c = _away_from_zero(1.0 + term / c)
            result *= c * d
        if abs(c * d - 1.0) < 1e-15:
            return result
    raise ArithmeticError(f"incomplete beta did not converge at a={a}, b={b}, x={x}")


def _away_from_zero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY
