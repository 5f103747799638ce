"""`bellglass calibrate`: a grid of trainings in a folder of its own, stored for the loops that come later."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import small_world
from typer.testing import CliRunner

from bellglass import calibrating, paths, wiring
from bellglass.calibration import Calibration, Conditions, Shelf
from bellglass.cli import app
from bellglass.doors.process_glass import ProcessGlass
from bellglass.errors import Interrupted, LoopFault, UsageError
from bellglass.loop import run_loop
from bellglass.nulls import Change, Null
from bellglass.records import Json, Noise
from bellglass.steps import gate, grid
from bellglass.store.ledger import Ledger
from bellglass.store.state import fold
from bellglass.verify import verify

MARK = Null("mark", "a comment", (Change("trainer/objective.py", "= 100000.0", "= 100000.0  # much"),))
ROUGH = Null("rough", "other smoothing", (Change("trainer/objective.py", "= 100000.0", "= 90000.0"),))
UNIT = "bits per byte"


def begin(home: Path, seeds: int = 2) -> Path:
    home.mkdir(parents=True, exist_ok=True)
    folder = home / calibrating.CALIBRATIONS
    return wiring.create(small_world.config(), folder, small_world.starter(), calibrates=seeds)


@contextmanager
def opened(folder: Path, surface: wiring.Surface | None = None):
    glass = ProcessGlass(warm=False, forks=True, home=folder.parent.parent / "guests")
    with wiring.open_loop(folder, surface or small_world.quiet(), models={}, glass=glass) as crew:
        yield crew


def calibrated(folder: Path, *edits: Null) -> Json:
    with opened(folder) as crew:
        return calibrating.run(crew, edits)


def state_of(folder: Path):
    ledger = Ledger.open(folder)
    try:
        return fold(ledger.events()), verify(folder, ledger)
    finally:
        ledger.close()


@pytest.mark.slow
def test_a_grid_is_trained_verified_stored_and_used_by_a_loop(tmp_path: Path) -> None:
    folder = begin(tmp_path / "loops")
    body = calibrated(folder)
    state, findings = state_of(folder)
    assert sorted(state.trials) == ["cal-0x0", "cal-0x1", "cal-1x0", "cal-1x1"]
    assert state.ended["why"] == "finished"
    assert all(finding.ok for finding in findings), findings
    assert body["noise"]["sd"] > 0.0
    assert paths.list_loops(tmp_path / "loops") == [], "a calibration is no loop"
    loop = small_world.create(tmp_path / "loops")
    with opened(loop) as crew:
        stored, why = crew.shelf.find(crew.conditions)
    assert (stored.noise, why) == (Noise(**body["noise"]), "")


def test_a_calibration_s_folder_is_never_run_as_a_loop(tmp_path: Path) -> None:
    with opened(begin(tmp_path / "loops")) as crew, pytest.raises(UsageError, match="a calibration of stories"):
        run_loop(crew)


@pytest.mark.slow
def test_what_was_settled_before_an_interruption_is_not_trained_again(tmp_path: Path) -> None:
    folder = begin(tmp_path / "loops", seeds=3)
    asked: list[str] = []

    def stop() -> None:
        if len(asked) > 4:
            raise Interrupted("the loop", "interrupted", "nothing", "")

    surface = wiring.Surface(None, lambda trial, phase: asked.append(trial), None, stop)
    with opened(folder, surface) as crew, pytest.raises(Interrupted):
        calibrating.run(crew, [MARK, ROUGH])
    before, _ = state_of(folder)
    assert before.ended["why"] == "stopped"
    assert calibrating.folder_for(small_world.config(), 3, tmp_path / "loops") == folder
    body = calibrated(folder, MARK, ROUGH)
    after, findings = state_of(folder)
    assert len(after.trials) == 3 * (3 + 2) == grid.trainings(3, [MARK, ROUGH])
    assert all(after.trials[name] == trial for name, trial in before.trials.items())
    assert all(finding.ok for finding in findings), findings
    assert body["parts"]["pairing"]["mark"]["ratio"] is None
    assert body["parts"]["pairing"]["rough"]["ratio"] > 1.0
    text = "\n".join(calibrating.lines(body, UNIT))
    assert "equal to the last bit" in text
    assert "9 trainings of the starter" in text
    assert calibrating.folder_for(small_world.config(), 3, tmp_path / "loops") != folder


def test_another_size_or_an_unlike_task_does_not_go_on_with_an_old_folder(tmp_path: Path) -> None:
    folder = begin(tmp_path / "loops")
    assert calibrating.folder_for(small_world.config(), 2, tmp_path / "loops") == folder
    assert calibrating.folder_for(small_world.config(), 3, tmp_path / "loops") != folder
    assert calibrating.folder_for(small_world.config(preset="cpu"), 2, tmp_path / "loops") != folder


@pytest.mark.slow
def test_a_starter_that_an_edit_does_not_fit_is_said_and_not_gone_on_with(tmp_path: Path) -> None:
    folder = begin(tmp_path / "loops")
    with pytest.raises(LoopFault, match="null edit 'strange'"):
        calibrated(folder, Null("strange", "", (Change("trainer/objective.py", "no such text", ""),)))
    assert state_of(folder)[0].ended["why"] == "failed"
    assert calibrating.folder_for(small_world.config(), 2, tmp_path / "loops") != folder


CONDITIONS = Conditions("stories", "tiny", "cpu_seconds 3", "cpu", "process", "abc", "def", "docs", speed_ms=100.0)
PAIRING = {"about": "comments", "ratio": 3.0, "low": 1.2, "high": 9.0, "correlation": 0.7, "pairs": 6}
PARTS = {"seeds": 6, "initialisation": 0.03, "data_order": 0.02, "rest": 0.01, "pairing": {"comment": PAIRING}}
FOUND = Calibration(CONDITIONS, Noise(0.04, 14), (3.1, 3.2, 3.15, 3.12), 0.02, 4.5, {**PARTS, "side_by_side": 2})


def test_what_a_stored_calibration_said_before_is_compared(tmp_path: Path) -> None:
    with opened(begin(tmp_path / "loops")) as crew:
        assert calibrating._before(crew, FOUND) == ""
        file = crew.shelf.keep(replace(FOUND, conditions=crew.conditions, noise=Noise(0.041, 14)))
        assert file.parent == tmp_path / "loops" / "calibrations", "where loops look for it"
        assert calibrating._before(crew, FOUND).endswith("was stored for the same conditions: replaced")
        crew.shelf.keep(replace(FOUND, conditions=crew.conditions, noise=Noise(0.4, 14)))
        assert "chance alone sets them so far apart" in calibrating._before(crew, FOUND)
        crew.shelf.keep(replace(FOUND, conditions=replace(crew.conditions, starter="other")))
        assert "the stored one is for starter other" in calibrating._before(crew, FOUND)


def test_a_pair_takes_two_trials_where_only_one_trains_at_a_time() -> None:
    assert grid.pair_seconds(FOUND) == 4.5
    assert grid.pair_seconds(replace(FOUND, parts={**FOUND.parts, "side_by_side": 1})) == 9.0


def test_a_clear_gain_takes_more_pairs_than_no_gain_and_fewer_than_a_close_call() -> None:
    rules = gate.Rules(0.025, Noise(0.04, 14), 8)
    none, close, clear = (grid.pairs_taken(rules, gain) for gain in (0.0, gate.smallest_gain(rules), 0.6))
    assert 1.0 < none < close <= 8.0
    assert clear == pytest.approx(3.0, abs=0.1)


def test_a_task_in_a_folder_of_one_s_own_is_stored_with_the_others(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "shelf")
    one, other = (shelf.keep(replace(FOUND, conditions=replace(CONDITIONS, task=f"/home/{who}/mine"))) for who in "ab")
    assert one.parent == other.parent == tmp_path / "shelf"
    assert one != other


def test_the_forecast_says_how_many_trainings_before_any_is_made() -> None:
    line = calibrating.forecast_line(small_world.config(virtual_clock=False), 6)
    assert line.startswith("trainings  60: the starter on 6 x 6 seeds, 4 null edits on 6 of them; about")
    assert "virtual time" in calibrating.forecast_line(small_world.config(), 6)


@pytest.mark.slow
def test_the_command_trains_the_real_starter_and_its_null_edits_and_says_what_a_loop_can_see(tmp_path: Path) -> None:
    words = ["calibrate", "stories", "--preset", "tiny", "--glass", "process", "--seeds", "3", "--json"]
    said = CliRunner().invoke(app, [*words, "--loops", str(tmp_path)])
    assert (said.exit_code, said.exception) == (0, None), said.output
    body = json.loads(said.stdout)
    assert len(body["scores"]) == 9
    pairing = body["parts"]["pairing"]
    assert set(pairing) == {"comment", "draw", "order", "halves"}
    assert pairing["order"]["ratio"] is not None, "the edit changed something"
    assert body["smallest_gain"] > body["noise"]["sd"] > 0.0
