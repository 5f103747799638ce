"""Where the spread of scores comes from, and how much of it pairing takes off. Pure.

A grid of trainings, every initialisation with every data order, is a two-way layout with one score a cell: its mean
squares give the variance that each of the two brings and what is left, which is timing and what the two do together.

Not covered: spreads that are far from normal; the intervals here assume that they are not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from bellglass.records import Noise
from bellglass.stats import incomplete_beta, mean, sample_sd

Pairs = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Components:
    """Standard deviations. `noise` is that of one training whose two seeds are both drawn anew."""

    noise: Noise
    initialisation: float
    data_order: float
    rest: float


@dataclass(frozen=True, slots=True)
class Pairing:
    """How many times less an edit's gain varies when parent and child share their seeds; an interval at 95%."""

    ratio: float | None  # None: the pairs are equal to the last bit
    low: float | None
    high: float | None
    correlation: float
    pairs: int


def components(table: Sequence[Sequence[float]]) -> Components:
    """Of a square table [initialisation][data order].

    The sum of the three is estimated without clipping: (rows + columns + (n - 2) rest) / n in mean squares. How much it
    can be trusted, in degrees of freedom, is Satterthwaite's approximation: between n - 1, when one seed makes all the
    noise, and nearly n * n - 1.
    """
    n = len(table)
    if n < 2 or any(len(row) != n for row in table):
        raise ValueError(f"a square table of at least 2 x 2 scores is needed, not {[len(row) for row in table]}")
    row_means, column_means = [mean(row) for row in table], [mean(column) for column in zip(*table, strict=True)]
    centre = mean(row_means)
    left = [table[i][j] - row_means[i] - column_means[j] + centre for i in range(n) for j in range(n)]
    rows, columns = n * sample_sd(row_means) ** 2, n * sample_sd(column_means) ** 2
    rest = math.fsum(value**2 for value in left) / (n - 1) ** 2
    parts = ((rows / n, n - 1), (columns / n, n - 1), ((n - 2) * rest / n, (n - 1) ** 2))
    total = sum(part for part, _ in parts)
    doubt = sum(part**2 / df for part, df in parts)
    return Components(
        noise=Noise(math.sqrt(total), max(n - 1, int(total**2 / doubt)) if doubt else n - 1),
        initialisation=math.sqrt(max(0.0, (rows - rest) / n)),
        data_order=math.sqrt(max(0.0, (columns - rest) / n)),
        rest=math.sqrt(rest),
    )


def pairing(pairs: Pairs) -> Pairing:
    """Unpaired over paired variance of the gain, (var parent + var child) / var(parent - child).

    That is (1 + F) / 2, where F is the variance of parent + child over that of parent - child. When both spread alike,
    sum and difference are independent, so an interval for F is exact.
    """
    if len(pairs) < 3:
        raise ValueError(f"how pairs vary takes at least three of them, not {len(pairs)}")
    sums, gains = ([parent + sign * child for parent, child in pairs] for sign in (1.0, -1.0))
    above, below = sample_sd(sums) ** 2, sample_sd(gains) ** 2
    if below == 0.0:
        return Pairing(None, None, None, 1.0, len(pairs))
    reach = _f_quantile(0.975, len(pairs) - 1)
    low, found, high = (0.5 * (1.0 + above / below * times) for times in (1.0 / reach, 1.0, reach))
    spreads = math.prod(sample_sd([pair[side] for pair in pairs]) for side in (0, 1))
    return Pairing(found, low, high, (above - below) / 4.0 / spreads if spreads else 0.0, len(pairs))


def pooled(noises: Sequence[Noise]) -> Noise:
    """What several panels say together, each around its own mean."""
    df = sum(noise.df for noise in noises)
    return Noise(math.sqrt(math.fsum(noise.df * noise.sd**2 for noise in noises) / df), df)


def as_different(first: Noise, second: Noise) -> float:
    """How often two estimates of one noise are at least so many times apart: the F test's two-sided probability."""
    ratio = (first.sd / second.sd) ** 2
    below = incomplete_beta(0.5 * first.df, 0.5 * second.df, first.df * ratio / (first.df * ratio + second.df))
    return 2.0 * min(below, 1.0 - below)


@lru_cache(maxsize=256)
def _f_quantile(p: float, df: int) -> float:
    """Of two variances on `df` degrees of freedom each: F / (1 + F) has a beta distribution."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if incomplete_beta(0.5 * df, 0.5 * df, middle) < p else (low, middle)
    return low / (1.0 - low)
