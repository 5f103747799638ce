"""What a loop begins with: what it is refused for before anything is spent, and the noise, measured first."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import small_world
from small_world import Tuner, run

from bellglass import wiring
from bellglass.errors import SetupError, UsageError
from bellglass.store.state import state_of


def test_a_hosted_model_never_plays_on_documents_that_a_seed_tells(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as told:
        small_world.create(tmp_path / "loops", model="ollama/any", glass="auto", seed=7, virtual_clock=False)
    assert told.value.code == "choices_clash"
    assert list((tmp_path / "loops").iterdir()) == []


def test_a_loops_folder_that_is_a_file_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "loops").write_text("a file")
    with pytest.raises(SetupError) as told:
        wiring.create(small_world.config(), tmp_path / "loops")
    assert told.value.code == "folder_unwritable"


def test_a_bound_that_could_decide_nothing_is_refused_before_anything_is_spent(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as told:
        small_world.create(tmp_path / "loops", train_seconds=30)
    assert told.value.code == "bound_too_small"
    enough = re.fullmatch(r"the same with --train-seconds ([0-9.]+)", told.value.next_command)
    assert small_world.create(tmp_path / "others", train_seconds=float(enough[1])).is_dir()
    assert not list((tmp_path / "loops").iterdir())


@pytest.mark.slow
def test_noise_is_measured_first_and_a_new_champion_is_trained_again(tmp_path: Path) -> None:
    state = run(tmp_path / "loops", Tuner())
    assert state.calibration["measured"]
    assert {t.trial_id for t in state.trials.values() if t.purpose == "calibrate"} == {"cal-0x0", "cal-1x1"}
    again = state.trials_of(1, "panel")
    assert [trial.bundle for trial in again] == [state.generations[1].successor] * 2  # the same trainer
    gate_seeds = {trial.seeds for trial in state.trials_of(1, "gate")}
    assert not gate_seeds & {trial.seeds for trial in again}


def test_a_loop_under_the_same_conditions_uses_the_stored_calibration(adopted: Path) -> None:
    state = state_of(adopted)
    assert not state.calibration["measured"]
    assert not [trial for trial in state.trials.values() if trial.purpose == "calibrate"]
