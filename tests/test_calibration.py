"""Noise is measured before anything is decided, and a stored measurement is used only where it holds."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from whose import another_user

from bellglass import calibration
from bellglass.calibration import Calibration, Conditions, Shelf, speed_reference
from bellglass.errors import LoopFault
from bellglass.records import Budget, Noise, Seeds, Trial, Verdict
from bellglass.steps import panel
from bellglass.steps.trial import seeds_of
from bellglass.store import ours
from bellglass.store.state import State
from bellglass.variance import components, pooled

CONDITIONS = Conditions("stories", "tiny", "cpu_seconds 3", "cpu", "process", "abc", "def", "docs", speed_ms=100.0)
FOUND = Calibration(CONDITIONS, Noise(0.04, 3), (3.1, 3.2, 3.15, 3.12), 0.02, 4.5, {})


def trial(trial_id: str, score: float | None) -> Trial:
    verdict = None if score is None else Verdict(score, score + 0.3, 0.3, {}, 0.02, 100, None)
    fault = "crashed" if score is None else None
    return Trial(
        trial_id, "abc", "calibrate", Seeds(1, 2), Budget("steps", 6, 60), None, verdict, fault, None, 3.0, 4.0, 1.0
    )


def test_what_was_kept_is_found_under_the_same_conditions(tmp_path: Path) -> None:
    Shelf(tmp_path / "new").keep(FOUND)
    assert Shelf(tmp_path / "new").find(CONDITIONS) == (FOUND, "")
    assert Shelf(tmp_path / "new").find(replace(CONDITIONS, speed_ms=110.0))[0] == FOUND


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"starter": "other"}, "starter abc, not other"),
        ({"images": "new"}, "images def, not new"),
        ({"documents": "other"}, "documents docs, not other"),
        ({"budget": "cpu_seconds 6"}, "budget cpu_seconds 3, not cpu_seconds 6"),
        ({"speed_ms": 170.0}, "a machine that took 100 ms for what took 170 ms here"),
        ({"speed_ms": 60.0}, "a machine that took 100 ms for what took 60 ms here"),
    ],
)
def test_a_calibration_for_other_conditions_is_not_used_and_says_why(tmp_path: Path, change: dict, said: str) -> None:
    Shelf(tmp_path).keep(FOUND)
    found, why = Shelf(tmp_path).find(replace(CONDITIONS, **change))
    assert found is None
    assert said in why


def test_a_loop_is_not_served_by_a_smaller_panel_than_its_own(tmp_path: Path) -> None:
    Shelf(tmp_path).keep(FOUND)
    assert Shelf(tmp_path).find(CONDITIONS, least_df=3) == (FOUND, "")
    found, why = Shelf(tmp_path).find(CONDITIONS, least_df=4)
    assert found is None
    assert "3 degrees of freedom, not 4 or more" in why


def test_what_is_stored_for_another_speed_knows_more_only_where_nothing_else_differs(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    assert not shelf.knows_more(FOUND)
    shelf.keep(replace(FOUND, noise=Noise(0.04, 14)))
    slower = replace(CONDITIONS, speed_ms=250.0)
    assert shelf.knows_more(replace(FOUND, conditions=slower))
    assert not shelf.knows_more(replace(FOUND, conditions=slower, noise=Noise(0.04, 14)))
    assert not shelf.knows_more(replace(FOUND, conditions=replace(slower, starter="other")))


@pytest.mark.parametrize("noise", [Noise(0.0, 3), Noise(-0.04, 3), Noise(float("nan"), 3), Noise(0.04, 0)])
def test_a_stored_noise_that_nobody_measured_is_not_used(tmp_path: Path, noise: Noise) -> None:
    Shelf(tmp_path).keep(replace(FOUND, noise=noise))
    assert Shelf(tmp_path).find(CONDITIONS) == (None, "the stored one cannot be read (ValueError)")


def test_other_tasks_presets_devices_and_glasses_have_files_of_their_own(tmp_path: Path) -> None:
    Shelf(tmp_path).keep(FOUND)
    for change in ({"task": "digits"}, {"preset": "cpu"}, {"device": "cuda:0"}, {"glass": "docker"}):
        assert Shelf(tmp_path).find(replace(CONDITIONS, **change)) == (None, "none is stored")


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"conditions": 3}', "null"])
def test_a_broken_file_is_as_good_as_none(tmp_path: Path, text: str) -> None:
    file = Shelf(tmp_path).keep(FOUND)
    file.write_text(text)
    found, why = Shelf(tmp_path).find(CONDITIONS)
    assert found is None
    assert "cannot be read" in why


def from_elsewhere(folder: Path) -> None:
    with another_user():
        Shelf(folder).keep(FOUND)


def without_a_mark(folder: Path) -> None:
    file = Shelf(folder).keep(FOUND)
    file.write_text(json.dumps(FOUND.as_json()))


def smaller_than_measured(folder: Path) -> None:
    file = Shelf(folder).keep(replace(FOUND, noise=Noise(0.4, 3)))
    file.write_text(file.read_text().replace('"sd": 0.4', '"sd": 0.04'))


@pytest.mark.parametrize("bring", [from_elsewhere, without_a_mark, smaller_than_measured])
def test_a_calibration_that_came_along_with_a_loop_decides_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bring: Callable[[Path], None]
) -> None:
    bring(tmp_path)
    found, why = Shelf(tmp_path).find(CONDITIONS)
    assert found is None
    assert why.startswith("the stored one was not measured by this user")
    assert not Shelf(tmp_path).knows_more(replace(FOUND, noise=Noise(0.04, 1))), "it gives way to one's own"
    monkeypatch.setattr(ours, "marked_here", lambda text, found: True)
    assert Shelf(tmp_path).find(CONDITIONS) == (FOUND, "")


def test_a_pipe_in_a_calibrations_place_is_not_waited_for(tmp_path: Path) -> None:
    file = Shelf(tmp_path).keep(FOUND)
    file.unlink()
    os.mkfifo(file)
    assert Shelf(tmp_path).find(CONDITIONS) == (None, "the stored one cannot be read (OSError)")


def test_a_panel_of_scores_becomes_noise() -> None:
    found = panel.from_panel(CONDITIONS, [trial("cal-0x0", 3.0), trial("cal-1x1", 3.2), trial("cal-2x2", 3.4)])
    assert found.noise.sd == pytest.approx(0.2)
    assert (found.noise.df, found.trial_seconds, found.document_se) == (2, 5.0, pytest.approx(0.02))


def test_a_whole_grid_of_scores_becomes_noise_and_null_edits_do_not() -> None:
    table = [[3.0, 3.2, 3.1], [3.4, 3.5, 3.3], [2.9, 3.3, 3.0]]
    grid = [trial(f"cal-{i}x{j}", table[i][j]) for i in range(3) for j in range(3)]
    edits = [trial(f"cal-{k}x{k}-draw", 9.0 + k) for k in range(3)]
    assert panel.from_panel(CONDITIONS, grid).noise == components(table).noise == panel.spread([*edits, *grid])
    assert panel.spread(grid).df > 2


@pytest.mark.parametrize("scores", [[3.0, None, 3.1], [3.0, 3.0, 3.0]])
def test_a_starter_that_fails_or_ignores_its_seeds_is_no_base_for_a_loop(scores: list[float | None]) -> None:
    with pytest.raises(LoopFault, match="starter"):
        panel.from_panel(CONDITIONS, [trial(f"cal-{k}x{k}", score) for k, score in enumerate(scores)])


def test_the_grid_of_seeds_tells_initialisation_and_data_apart() -> None:
    secret = b"s" * 32
    grid = {(i, j): seeds_of(secret, f"cal-{i}x{j}") for i in range(3) for j in range(3)}
    assert len({seeds.init_seed for seeds in grid.values()}) == 3
    assert len({seeds.data_seed for seeds in grid.values()}) == 3
    assert grid[1, 2].init_seed == grid[1, 0].init_seed
    assert grid[1, 2].data_seed == grid[0, 2].data_seed
    assert seeds_of(secret, "cal-1x2-comment") == grid[1, 2]
    assert seeds_of(secret, "g1-pair-0-parent") == seeds_of(secret, "g1-pair-0-child") != seeds_of(secret, "g1-panel-0")


def test_panels_are_pooled_around_their_own_means() -> None:
    assert pooled([Noise(0.3, 2), Noise(0.3, 4)]) == Noise(pytest.approx(0.3), 6)  # type: ignore[arg-type]
    assert pooled([Noise(0.0, 1), Noise(1.0, 1)]).sd == pytest.approx(0.5**0.5)


def test_without_a_calibration_nothing_is_decided() -> None:
    with pytest.raises(LoopFault, match="no calibration"):
        panel.noise_of(State(), 1)


def test_the_speed_reference_is_the_median_of_five_in_milliseconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a clock of the test's own: on a busy machine real ones are a factor apart, and no fault of the reference."""
    readings = iter([0.0, 0.5, 1.0, 1.1, 2.0, 2.9, 3.0, 3.1, 4.0, 4.2])  # rounds of 0.5, 0.1, 0.9, 0.1 and 0.2 s
    monkeypatch.setattr(calibration, "time", SimpleNamespace(thread_time=lambda: next(readings)))
    assert speed_reference() == 200.0
    assert next(readings, None) is None


def test_the_speed_reference_measures_its_work() -> None:
    assert speed_reference() > 1.0  # 22 million values of tanh
