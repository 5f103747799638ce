"""The gate's simulation: its scores are what they are called, and the page that it writes keeps the gate's promises."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from benchmark_scripts import load

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "benchmarks.md"


worlds = load("gate_worlds")
simulation = load("gate_simulation")


def section() -> str:
    return re.findall(r"(?s)<!-- begin gate-simulation -->(.*)<!-- end gate-simulation -->", PAGE.read_text())[0]


def table_under(head: str) -> list[list[str]]:
    """The cells of the first table under a heading, without its head."""
    part = section().split(f"### {head}")[1]
    lines = re.findall(r"(?m)^\|.*\|$", part.split("\n### ")[0])
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def percents(cell: str) -> list[float]:
    return [float(found) / 100.0 for found in re.findall(r"([\d.]+)%", cell)]


@pytest.mark.parametrize("law", ["normal", "student3", "contaminated", "skewed_up", "skewed_down", "collapsing"])
def test_every_law_has_mean_0_and_variance_1(law: str) -> None:
    drawn = getattr(worlds, law)(np.random.default_rng(1), (400_000,))
    assert drawn.mean() == pytest.approx(0.0, abs=0.01)
    assert drawn.var() == pytest.approx(1.0, abs=0.15 if law == "student3" else 0.03)


@pytest.mark.parametrize("rho", [-0.5, 0.0, 0.25, 0.86])
def test_pairs_share_as_much_as_they_are_said_to(rho: float) -> None:
    parent, child = worlds.draw(worlds.World(rho=rho), np.random.default_rng(2), (20_000, 1, 1), gain=1.5)
    assert np.corrcoef(parent.ravel(), child.ravel())[0, 1] == pytest.approx(rho, abs=0.03)
    assert (parent - child).mean() == pytest.approx(1.5, abs=0.03)
    assert parent.std() == pytest.approx(1.0, abs=0.03)
    assert child.std() == pytest.approx(1.0, abs=0.03)


def test_what_goes_wrong_in_a_world_goes_wrong_in_its_scores() -> None:
    def drawn(**what: object) -> tuple[np.ndarray, np.ndarray]:
        return worlds.draw(worlds.World(**what), np.random.default_rng(3), (20_000, 2, 4))

    assert drawn(child_sd=2.0)[1].var() == pytest.approx(4.0, rel=0.05)
    assert drawn(growth=2.0)[0].var() == pytest.approx(4.0, rel=0.05)
    early, late = (drawn(drift=2.0)[0][:, :1], drawn(drift=2.0)[0][:, 1:])
    assert early.mean() - late.mean() == pytest.approx(1.0, abs=0.03)
    parent, child = drawn(drift=2.0, cached=True)
    assert (parent[:, 0] == parent[:, 1]).all()
    assert parent.mean() - child.mean() == pytest.approx(2.0 * 0.4375, abs=0.03)  # 8 pairs begin at 0, 1/8, … 7/8
    parent, child = drawn(rho=0.9, rho_later=0.0)
    assert [np.corrcoef(parent[:, g].ravel(), child[:, g].ravel())[0, 1] for g in (0, 1)] == pytest.approx(
        [0.9, 0.0], abs=0.03
    )
    one = drawn(documents=3.0, same_documents=True)[1] - drawn()[1]
    assert one.std(axis=2) == pytest.approx(0.0, abs=1e-9)  # the same for all pairs of a generation
    assert (drawn(documents=3.0)[1] - drawn()[1]).std() == pytest.approx(3.0, rel=0.05)
    assert (drawn(documents=3.0)[1] - drawn()[1]).std(axis=2).mean() > 2.0  # and by default fresh for each


def test_a_share_has_the_interval_of_the_tables() -> None:
    assert worlds.share_interval(0, 10) == pytest.approx((0.0, 0.3085), abs=1e-4)
    assert worlds.share_interval(5, 10) == pytest.approx((0.1871, 0.8129), abs=1e-4)
    assert worlds.share_interval(10, 10) == pytest.approx((0.6915, 1.0), abs=1e-4)


def test_the_fixed_test_needs_as_many_trainings_as_the_tables_say() -> None:
    assert simulation.fixed_n(1.0, 0.025, 0.8, 50_000) == pytest.approx(16.7, abs=0.3)
    assert simulation.fixed_n(0.5, 0.025, 0.8, 50_000) == pytest.approx(63.8, abs=1.0)


def test_a_loop_ends_with_its_first_adoption() -> None:
    played = list(worlds.loops(worlds.World(child_sd=30.0), np.random.default_rng(4), 60))
    words = [[decided.word for decided in loop] for loop in played]
    assert any("adopt" in loop for loop in words)
    assert all("adopt" not in loop[:-1] and (loop[-1] == "adopt" or len(loop) == 6) for loop in words)


def test_no_row_of_the_page_adopts_in_more_than_one_loop_of_twenty() -> None:
    rows = table_under("No real gain")
    assert [row[0] for row in rows] == [name for name, _, _ in simulation.HOLDS]
    assert {row[0]: row[1] for row in rows if percents(row[1])[2] > 0.05} == {}


def test_no_row_of_the_page_calls_a_difference_equal_in_more_than_one_decision_of_twenty() -> None:
    rows = table_under('"Equal"')
    assert [row[0] for row in rows] == [name for name, _ in simulation.EQUALITY]
    assert max(percents(cell)[0] for row in rows for cell in row[3:]) < 0.05


@pytest.mark.parametrize("seeds", [2, 3])
@pytest.mark.parametrize("rho", [0.95, 0.99])
def test_close_pairs_and_a_noise_from_few_seeds_do_not_hide_a_difference(rho: float, seeds: int) -> None:
    world = worlds.World(rho=rho, seeds=seeds)
    made = worlds.decisions(world, np.random.default_rng(6), 4000, gain=1.0, seeks_equality=True)
    assert sum(decided.word == "equal" for decided in made) < 0.05 * len(made)  # 6% were one degree of freedom enough


def test_rows_of_the_page_come_from_this_code() -> None:
    quick = simulation.Study(quick=True)
    quick.count = lambda of: of // 10  # enough to tell rows apart from a page made by another gate
    for row in (simulation.HOLDS[0], simulation.FAILS[1]):
        written = next(cells for cells in table_under("No real gain") + table_under("Beyond") if cells[0] == row[0])
        (share, _, _), (_, low, high) = percents(written[1]), percents(quick.null(row)[1])
        assert low <= share <= high
        assert float(quick.null(row)[2]) == pytest.approx(float(written[2]), abs=0.11)


def test_right_adoptions_are_no_false_ones_and_bring_the_noise_of_their_panels(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[float] = []

    def play(pairs: list[tuple[float, float]], rules: object) -> object:
        told.append(rules.noise.df)
        return worlds.Decided("adopt" if len(told) % 6 in (1, 5) else "reject", 3, 0.0)

    monkeypatch.setattr(worlds, "play", play)
    for panels, freedom in ((True, [3, 6, 6, 6, 6, 9]), (False, [3] * 6)):
        told.clear()
        (made,) = worlds.loops(worlds.World(better=9.0, panels=panels), np.random.default_rng(5), 1, 6)
        assert told == freedom
        assert [decided.word for decided in made] == ["reject"] * 3, "the two adoptions were right"


def test_the_name_of_a_world_s_draws_is_what_is_unusual_about_it() -> None:
    """So that a field more changes no row."""
    assert simulation._fields(worlds.World()) == ""
    assert simulation._fields(worlds.World(rho=0.5, law=worlds.student3)) == "rho 0.5 law student3"


def test_an_honest_verdict_is_borne_out_in_nineteen_of_twenty_rechecks() -> None:
    made = worlds.rechecks(worlds.World(), np.random.default_rng(7), 3000, gain=2.0)
    assert 0.025 < np.mean([not held for _, held in made]) < 0.065
    rows = table_under("`recheck --seeds`")
    assert [float(row[0]) for row in rows] == list(simulation.RHOS)
    assert max(percents(cell)[-1] for row in rows for cell in row[1:]) <= 0.055


def test_the_page_says_what_a_told_gain_is_worth() -> None:
    rows = {int(row[0]): percents(row[1])[0] for row in table_under("The smallest gain")}
    assert rows[4] == pytest.approx(2 / 3, abs=0.05), "docs/statistics.md says two times in three"
    assert sorted(rows.values()) == list(rows.values())


def test_a_gain_that_is_told_by_each_loop_s_own_noise_is_that_loop_s_own() -> None:
    told: list[float] = []

    def gain(rules: object) -> float:
        told.append(rules.noise.sd)
        return 100.0 * rules.noise.sd

    made = worlds.decisions(worlds.World(), np.random.default_rng(8), 20, gain=gain)
    assert [decided.gain / sd for decided, sd in zip(made, told, strict=True)] == pytest.approx([100.0] * 20, rel=0.1)
    assert len(set(told)) == 20


@pytest.mark.slow
@pytest.mark.parametrize("row", simulation.HOLDS, ids=lambda row: row[0])
def test_the_page_is_what_the_script_writes(row: tuple) -> None:
    assert simulation.Study(quick=False).null(row) in table_under("No real gain")


@pytest.mark.slow
def test_so_is_what_a_told_gain_is_worth() -> None:
    assert simulation.Study(quick=False).told() in section()


@pytest.mark.slow
def test_so_is_what_the_gate_sees() -> None:
    assert simulation.Study(quick=False).power() in section()
