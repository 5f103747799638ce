"""What a trial's clock counts: a trainer gains nothing by working before it asks for the data."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest
import small_world

from bellglass import tasks
from bellglass.doors.process_glass import ProcessGlass
from bellglass.records import Budget, Seeds
from bellglass.steps import train as training
from bellglass.steps.train import Clock, Training, train

TASK = tasks.load("stories")
BUDGET = Budget("cpu_seconds", 3.0, 60.0)
ASK = """
import json, time, glass
{before}
glass.data()
print(json.dumps(glass.time_left()), flush=True)
"""


def run(tmp_path: Path, before: str) -> Training:
    bundle = {**small_world.starter(), "trainer/train.py": ASK.format(before=before).encode()}
    docs = tasks.make(TASK, "train", bytes(32), 20)
    labels = {"loop": "l", "generation": "1", "trial": "t"}
    with closing(ProcessGlass(warm=False, forks=True, home=tmp_path)) as glass:
        return train(glass, bundle, docs, task=TASK, seeds=Seeds(1, 2), budget=BUDGET, labels=labels)


def test_an_ordinary_set_up_is_free(tmp_path: Path) -> None:
    """It uses its own CPU time up to a mark, so that a slow machine takes longer over it and uses no more of it."""
    result = run(tmp_path, "while time.process_time() < 0.8: pass")
    left, total = json.loads(result.log)
    assert (result.fault, total) == ("no_weights", 3.0)
    assert total - left < 0.5


TIRED = """
import numpy as np, glass
from safetensors.numpy import save_file
glass.data()
rng, steps = np.random.default_rng(glass.args["init_seed"]), 0
while glass.time_left()[0] > 0.1:
    rng.normal(size=20_000)
    steps += 1
save_file({"drawn": rng.normal(size=4), "steps": np.array([steps])}, "out/weights.safetensors")
"""


def test_under_its_recorded_answers_a_training_repeats_to_the_bit(tmp_path: Path) -> None:
    bundle = {**small_world.starter(), "trainer/train.py": TIRED.encode()}
    budget = Budget("cpu_seconds", 0.3, 20.0)
    docs, labels = tasks.make(TASK, "train", bytes(32), 20), {"loop": "l", "generation": "1", "trial": "t"}

    def again(recorded: Sequence[float] | None) -> Training:
        seeds = Seeds(1, 2)
        with closing(ProcessGlass(warm=False, forks=True, home=tmp_path)) as glass:
            return train(glass, bundle, docs, task=TASK, seeds=seeds, budget=budget, labels=labels, recorded=recorded)

    first = again(None)
    assert first.fault is None
    assert len(first.answers) == first.claim.steps > 2
    assert all(0.0 <= left <= 0.3 for left in first.answers)
    second = again(list(first.answers))
    assert list(second.answers) == list(first.answers)
    assert second.files == first.files


class Idle:
    def cpu_seconds(self) -> float:
        return 0.0


def test_a_question_that_was_not_recorded_is_answered_with_nothing_left() -> None:
    clock = Clock(BUDGET, Idle(), [3.0, 1.25])  # type: ignore[arg-type]
    assert [clock.ask()["left"] for _ in range(3)] == [3.0, 1.25, 0.0]


@pytest.mark.parametrize(("set_up", "counts"), [(0.9, 0.0), (1.5, 0.5)])
def test_of_a_set_up_a_second_of_cpu_is_free_and_what_takes_longer_counts(set_up: float, counts: float) -> None:
    guest = SimpleNamespace(spent=7.0, cpu_seconds=lambda: guest.spent)  # what it spent before there was a clock
    clock = Clock(BUDGET, guest)  # type: ignore[arg-type]
    guest.spent += set_up
    assert clock.used() == pytest.approx(counts)
    clock.start()
    guest.spent += 0.25
    assert clock.used() == pytest.approx(counts + 0.25)
    assert clock.ask()["left"] == pytest.approx(3.0 - counts - 0.25)


def test_on_a_gpu_the_start_of_its_driver_is_free_and_what_takes_longer_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(training, "time", SimpleNamespace(monotonic=lambda: now[0]))
    clock = Clock(Budget("gpu_seconds", 60.0, 90.0), Idle())  # type: ignore[arg-type]
    used = []
    for seconds in (10.0, 30.0, 0.0, 5.0):
        now[0] += seconds
        if seconds == 0.0:
            clock.start()
        used.append(clock.used())
    assert used == [0.0, 30.0, 30.0, 35.0]


HERE = "while time.process_time() < 2.5: pass"
IN_A_CHILD = f"import os, sys\nif os.fork() == 0:\n    {HERE}\n    os._exit(0)\nos.wait()"


@pytest.mark.slow
@pytest.mark.parametrize("before", [HERE, IN_A_CHILD])
def test_work_before_the_data_counts_against_the_budget(tmp_path: Path, before: str) -> None:
    result = run(tmp_path, before)
    left, _ = json.loads(result.log)
    assert left < 2.0
    assert result.train_seconds > 1.0


@pytest.mark.slow
def test_a_trainer_that_never_asks_for_data_is_ended_by_its_budget(tmp_path: Path) -> None:
    result = run(tmp_path, "while True: pass")
    assert result.fault == "overran"
    assert result.train_seconds > 3.0  # by how much more depends on when the host looks
