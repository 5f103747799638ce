"""Where noise comes from and what pairing takes off: the estimates hit what they were drawn from."""

from __future__ import annotations

import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bellglass.records import Noise
from bellglass.variance import as_different, components, pairing


def grid(rng: random.Random, n: int, initialisation: float, data: float, rest: float) -> list[list[float]]:
    rows, columns = ([rng.gauss(0, sd) for _ in range(n)] for sd in (initialisation, data))
    return [[3.0 + row + column + rng.gauss(0, rest) for column in columns] for row in rows]


def test_a_table_that_is_added_up_from_two_seeds_alone_has_no_rest() -> None:
    found = components([[1.0, 2.0, 4.0], [2.0, 3.0, 5.0], [5.0, 6.0, 8.0]])
    assert found.initialisation == pytest.approx(statistics.stdev([1, 2, 5]))
    assert found.data_order == pytest.approx(statistics.stdev([1, 2, 4]))
    assert found.rest == pytest.approx(0.0, abs=1e-12)
    assert found.noise.sd**2 == pytest.approx(found.initialisation**2 + found.data_order**2)


def test_variances_of_the_parts_and_of_the_whole_are_right_in_the_mean() -> None:
    rng, drawn = random.Random(2), (0.3, 0.2, 0.4)
    found = [components(grid(rng, 6, *drawn)) for _ in range(1500)]
    for name, sd in zip(("initialisation", "data_order", "rest"), drawn, strict=True):
        assert statistics.mean(getattr(c, name) ** 2 for c in found) == pytest.approx(sd**2, rel=0.15), name
    assert statistics.mean(c.noise.sd**2 for c in found) == pytest.approx(0.29, rel=0.03)


@pytest.mark.parametrize(("drawn", "least", "most"), [((1.0, 0.0, 0.01), 5, 5), ((0.0, 0.0, 1.0), 18, 35)])
def test_degrees_of_freedom_say_how_much_the_noise_can_be_trusted(drawn: tuple, least: int, most: int) -> None:
    rng = random.Random(4)
    found = [components(grid(rng, 6, *drawn)).noise for _ in range(300)]
    assert least <= statistics.mean(noise.df for noise in found) <= most + 0.5
    squares = [noise.sd**2 for noise in found]
    true_df = 2 * statistics.mean(squares) ** 2 / statistics.variance(squares)
    assert statistics.mean(noise.df for noise in found) == pytest.approx(true_df, rel=0.35)


@given(st.lists(st.lists(st.floats(0, 9), min_size=3, max_size=3), min_size=3, max_size=3), st.floats(-5, 5))
def test_a_level_that_all_scores_share_is_no_noise(table: list[list[float]], level: float) -> None:
    one, moved = components(table), components([[score + level for score in row] for row in table])
    assert moved.noise.sd == pytest.approx(one.noise.sd, abs=1e-6)
    assert one.noise.df >= 2
    assert min(one.initialisation, one.data_order, one.rest) >= 0.0


@pytest.mark.parametrize("table", [[], [[1.0]], [[1.0, 2.0]], [[1.0, 2.0], [1.0]]])
def test_only_a_whole_square_is_taken_apart(table: list[list[float]]) -> None:
    with pytest.raises(ValueError, match="square"):
        components(table)


@pytest.mark.parametrize(("rho", "ratio"), [(0.0, 1.0), (0.5, 2.0), (0.9, 10.0)])
def test_pairing_s_interval_holds_the_true_ratio_as_often_as_it_says(rho: float, ratio: float) -> None:
    rng = random.Random(6)
    found = []
    for _ in range(800):
        common = [rng.gauss(0, rho**0.5) for _ in range(6)]
        rest = (1 - rho) ** 0.5
        found.append(pairing([(c + rng.gauss(0, rest), c + rng.gauss(0, rest)) for c in common]))
    held = sum(p.low <= ratio <= p.high for p in found) / len(found)
    assert held == pytest.approx(0.95, abs=0.025)
    assert statistics.median(p.correlation for p in found) == pytest.approx(rho, abs=0.1)


def test_a_ratio_is_that_of_its_variances_and_equal_pairs_have_none() -> None:
    pairs = [(1.0, 1.2), (2.0, 1.9), (4.0, 4.4), (3.0, 2.8)]
    parents, children, gains = ([p for p, _ in pairs], [c for _, c in pairs], [p - c for p, c in pairs])
    wanted = (statistics.variance(parents) + statistics.variance(children)) / statistics.variance(gains)
    assert pairing(pairs).ratio == pytest.approx(wanted)
    assert pairing(pairs).correlation == pytest.approx(statistics.correlation(parents, children))
    assert pairing([(1.0, 1.0), (2.0, 2.0), (3.0, 3.0)]).ratio is None
    with pytest.raises(ValueError, match="three"):
        pairing(pairs[:2])


def test_noises_that_chance_alone_sets_apart_are_not_called_different() -> None:
    rng = random.Random(8)
    sds = [statistics.stdev(rng.gauss(0, 1) for _ in range(4)) for _ in range(2000)]
    found = [as_different(Noise(a, 3), Noise(b, 3)) for a, b in zip(sds[::2], sds[1::2], strict=True)]
    assert sum(p < 0.05 for p in found) / len(found) == pytest.approx(0.05, abs=0.02)
    assert as_different(Noise(0.05, 20), Noise(0.01, 20)) < 1e-6
    assert as_different(Noise(0.05, 3), Noise(0.05, 3)) == pytest.approx(1.0)
