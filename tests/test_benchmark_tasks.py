"""benchmarks/tasks.py: one command for the whole table, which repeats no training and says where figures come from."""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import benchmark_scripts
import pytest
from source_tree import ROOT

from bellglass import tasks

script = benchmark_scripts.load("tasks")
bare_trial = benchmark_scripts.load("bare_trial")


class Trainings:
    """In place of real ones: counts them, and breaks off when told to."""

    def __init__(self) -> None:
        self.ran: list[tuple[str, float]] = []
        self.most = 1000

    def run(self, trainer: Path, task: tasks.Task, *given: Any) -> Any:
        if len(self.ran) == self.most:
            raise KeyboardInterrupt
        budget = given[-1]
        self.ran.append((task.name, budget.amount))
        score = 2.0 + 0.1 * len(self.ran)
        return bare_trial.Outcome(score, score, 0.0, {}, None, score, 40, budget.amount, 0.1, b"w" * 1000)


def edit(folder: Path, pattern: str, by: str) -> None:
    path = folder / "task.toml"
    path.write_text(re.sub(pattern, by, path.read_text(), flags=re.MULTILINE))


@pytest.fixture
def ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trainings:
    """Content with three tasks: one measured without its reference, one not at all, one that cannot be loaded."""
    home = tmp_path / "tasks"
    for name in ("stories", "sums"):
        shutil.copytree(ROOT / "tasks" / name, home / name)
    edit(home / "stories", r"^reference_.*\n", "")
    edit(home / "stories", r"_docs = .*", "_docs = 4")
    edit(home / "sums", r"_docs = .*", "_docs = 4")
    edit(home / "sums", r"^\[measured\][\s\S]*", "")
    (home / "broken").mkdir()
    (home / "broken" / "task.toml").write_text("title = ")
    monkeypatch.setattr(tasks, "content_root", lambda: tmp_path)
    made = Trainings()
    monkeypatch.setattr(script, "run_trial", made.run)
    monkeypatch.setattr(script.page, "machine", lambda device="cpu": "a machine")
    return made


def fill(results: Path) -> None:
    script.fill(script.words().parse_args([]), script.Results(results))


def test_one_command_measures_what_the_table_lacks_and_no_more(
    ran: Trainings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tasks.load("stories").measured
    fill(tmp_path / "results")
    both = [3.0] * 4 + [15.0] * 4
    assert ran.ran == [("stories", amount) for amount in both] + [("sums", amount) for amount in both]
    assert "left out: " in capsys.readouterr().out
    stories, sums = tasks.load("stories").measured, tasks.load("sums").measured
    assert {key: stories[key] for key in before} == before
    assert stories["reference_tiny"] == pytest.approx(2.25)
    assert stories["reference_machine"] == sums["machine"] == "a machine"
    assert sums["command"] == "python benchmarks/tasks.py --presets tiny,cpu --seeds 4"
    fill(tmp_path / "other results")
    assert len(ran.ran) == 16


def test_it_goes_on_where_it_was_cut_off(ran: Trainings, tmp_path: Path) -> None:
    ran.most = 11
    with pytest.raises(KeyboardInterrupt):
        fill(tmp_path / "results")
    assert "reference_cpu" in tasks.load("stories").measured
    ran.most = 1000
    fill(tmp_path / "results")
    assert len(ran.ran) == 16


def test_figures_name_the_machine_of_each_training_behind_them(
    ran: Trainings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran.most = 11
    with pytest.raises(KeyboardInterrupt):
        fill(tmp_path / "results")
    ran.most = 1000
    monkeypatch.setattr(script.page, "machine", lambda device="cpu": "another machine")
    fill(tmp_path / "results")
    assert tasks.load("sums").measured["machine"] == "a machine; another machine"


def test_the_lab_names_the_machine_of_each_seed_and_not_the_one_that_writes_it(ran: Trainings) -> None:
    run = {"score": 1.0, "by_skill": {}, "certain": 0.5, "asked": 9, "machine": "one core"}
    runs = [run, {**run, "machine": "two cores"}, {key: run[key] for key in run if key != "machine"}, run]
    text = script.lab_table(tasks.load("sums"), runs, "the command")
    assert "Machine: one core (seed 0, 3); two cores (seed 1); not recorded (seed 2). Command" in text


def test_the_table_says_what_the_headroom_is_to_and_whose_figures_they_are(ran: Trainings) -> None:
    shutil.rmtree(tasks.content_root() / "tasks" / "broken")
    shutil.copy(ROOT / "tasks" / "sums" / "task.toml", tasks.content_root() / "tasks" / "sums")
    edit(tasks.content_root() / "tasks" / "sums", r"^machine = .*\n", "")
    lines = script.headroom_table().splitlines()
    assert "Command: `python benchmarks/tasks.py`;" in lines[0]
    assert "not recorded (`sums`)" in lines[0]
    (row,) = (line for line in lines if line.startswith("| `sums` | tiny"))
    assert row.split(" | ")[-2] == "0.278 to the floor"


def test_only_writing_the_page_measures_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sheet = tmp_path / "page.md"
    sheet.write_text("<!-- begin tasks --><!-- end tasks -->")
    monkeypatch.setattr(script.page, "BENCHMARKS", sheet)
    monkeypatch.setattr(script, "fill", lambda *_: pytest.fail("it measures"))
    monkeypatch.setattr(sys, "argv", ["tasks.py", "--write-only"])
    script.main()
    assert script.page.get(sheet, "tasks") == script.headroom_table()


def test_the_pages_table_is_the_stored_one() -> None:
    page = script.page.BENCHMARKS.read_text()
    assert script.headroom_table() in page


@pytest.mark.parametrize("before", [None, "3"])
def test_a_bare_trial_on_the_cpu_sees_no_gpu(monkeypatch: pytest.MonkeyPatch, before: str | None) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if before is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", before)
    seen = []
    for device in ("cpu", "cuda"):
        with bare_trial._gpus_of(device):
            seen.append(os.environ.get("CUDA_VISIBLE_DEVICES"))
    assert seen == ["", before]
    assert os.environ.get("CUDA_VISIBLE_DEVICES") == before
