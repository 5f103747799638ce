"""Curves: bounded, even, and the same after a round trip."""

from __future__ import annotations

import itertools

from bellglass.curves import MOST_NAMES, MOST_POINTS, Curves, read


def test_a_short_curve_is_kept_whole() -> None:
    curves = Curves()
    for step in range(20):
        curves.take("loss", step * 10, step * 0.1, 3.0 - step)
    assert read(bytes(curves)) == {"loss": [(step * 10, round(step * 0.1, 3), 3.0 - step) for step in range(20)]}


def test_a_long_curve_is_thinned_evenly_and_keeps_its_beginning() -> None:
    curves = Curves()
    for step in range(50_000):
        curves.take("loss", step, step * 0.001, float(step))
    steps = [step for step, _, _ in read(bytes(curves))["loss"]]
    gaps = {later - earlier for earlier, later in itertools.pairwise(steps)}
    assert steps[0] == 0
    assert len(gaps) == 1
    assert MOST_POINTS // 2 <= len(steps) <= MOST_POINTS
    assert steps[-1] > 49_000


def test_endless_names_take_no_endless_room() -> None:
    curves = Curves()
    for index in range(1000):
        curves.take(f"name-{index}", 0, 0.0, 1.0)
    assert len(read(bytes(curves))) == MOST_NAMES


def test_without_a_metric_there_is_nothing_to_keep() -> None:
    assert bytes(Curves()) == b""
