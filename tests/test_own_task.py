"""A task in a folder of one's own: the example of docs/tasks.md, and what its author may get wrong."""

from __future__ import annotations

import re
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
import small_world
from source_tree import ROOT
from typer.testing import CliRunner

from bellglass import tasks, wiring
from bellglass.cli import app
from bellglass.config import load
from bellglass.doors.process_glass import ProcessGlass
from bellglass.errors import BellglassError, LoopFault, UsageError
from bellglass.loop import run_loop
from bellglass.show import report, showing
from bellglass.steps.generation import Crew
from bellglass.steps.judge import check_documents

SECRET = bytes(range(32))


@pytest.fixture
def echo(tmp_path: Path) -> Path:
    """The example of docs/tasks.md, typed as the page says."""
    page = (ROOT / "docs" / "tasks.md").read_text()
    files = re.findall(r"(?ms)^`echo/([\w.]+)`.*?^```\w+\n(.*?)^```", page)
    assert [name for name, _ in files] == ["task.toml", "data.py", "brief.md"]
    assert sum(text.count("\n") for _, text in files) <= 60
    folder = tmp_path / "echo"
    folder.mkdir()
    for name, text in files:
        (folder / name).write_text(text)
    return folder


def test_the_example_of_the_guide_is_a_task(echo: Path) -> None:
    task = tasks.load(str(echo))
    assert task.brief().startswith("# echo")
    made = {split: tasks.make(task, split, SECRET, 64, "g1") for split in tasks.SPLITS}
    for docs in made.values():
        check_documents(task, docs, True)
        assert np.array_equal(docs.tokens[:, :6], docs.tokens[:, :6:-1])
        assert set(docs.skill[:, 7:].ravel()) == {1}
    assert len({row.tobytes() for docs in made.values() for row in docs.tokens}) > 250
    assert all(len(line) <= 120 for line in (echo / "data.py").read_text().splitlines())


def test_a_task_folder_is_listed_by_its_path(echo: Path) -> None:
    done = CliRunner().invoke(app, ["tasks", str(echo)], catch_exceptions=False)
    assert done.exit_code == 0
    assert "echo: say a word backwards" in done.output


def test_a_task_folder_is_found_from_anywhere(echo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(echo.parent)
    assert tasks.full_name("./echo") == tasks.full_name("../" + echo.parent.name + "/echo") == str(echo)
    assert tasks.full_name("stories") == "stories"
    assert load(None, {"task": "./echo"}).task == str(echo)


def test_a_loop_whose_task_folder_changed_is_refused(echo: Path) -> None:
    before = tasks.contents(tasks.load(str(echo)))
    assert tasks.reopen(str(echo), before).name == "echo"
    (echo / "data.py").write_text((echo / "data.py").read_text().replace("LENGTH, SIGN = 8", "LENGTH, SIGN = 7"))
    with pytest.raises(LoopFault, match=r"task 'echo'.*not what the loop began with"):
        tasks.reopen(str(echo), before)
    assert tasks.OWN not in tasks.contents(tasks.load("stories"))


def test_a_loop_on_a_task_folder_is_shown_in_its_unit_and_names_the_folder_to_run_it_again(
    echo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = small_world.create(tmp_path / "loops", task=str(echo), generations=1)
    monkeypatch.chdir(tmp_path / "loops")
    shown = showing.open_loop(folder)
    loop = shown.document()["loop"]
    assert (loop["title"], loop["unit"]) == ("say a word backwards", "bits per character")
    assert "bits per character" in CliRunner().invoke(app, ["status", str(folder)]).output
    assert any(line.startswith(f"bellglass run {echo} ") for line in report.reproduce(shown)["commands"])


@pytest.mark.slow
def test_a_whole_loop_runs_on_a_task_folder(echo: Path, tmp_path: Path) -> None:
    folder = small_world.create(tmp_path / "loops", task=str(echo), generations=1)
    assert folder.name.startswith("echo-")

    def opened() -> AbstractContextManager[Crew]:
        models = {"main": small_world.Tuner()}
        glass = ProcessGlass(warm=False, home=tmp_path / "guests")
        return wiring.open_loop(folder, small_world.quiet(), {}, models=models, glass=glass)

    with opened() as crew:
        state = run_loop(crew)
    assert state.created["task"] == "echo"
    assert any(trial.verdict is not None for trial in state.trials.values())
    (echo / "brief.md").write_text("something else")
    with pytest.raises(LoopFault, match="not what the loop began with"), opened():
        pass


def edit(file: Path, before: str, after: str) -> None:
    text = file.read_text()
    assert before in text
    file.write_text(text.replace(before, after, 1))


@pytest.mark.parametrize(
    ("before", "after", "error"),
    [
        ("vocab = 10 ", "vocab = 9 ", BellglassError),
        ('"letter", "echo"', '"letter"', BellglassError),
        ("cpu = {", "gpus = {", UsageError),
        ("[presets] ", '[downloads."../x"]\nurl = "https://example.org"\n[presets] ', UsageError),
        ('skills = ["letter", "echo"]', 'skills = ["a", "b"]\nconfirm_slices = 0', UsageError),
    ],
)
def test_a_task_folder_that_breaks_the_contract_is_one_clear_error(
    echo: Path, tmp_path: Path, before: str, after: str, error: type[BellglassError]
) -> None:
    edit(echo / "task.toml", before, after)
    with pytest.raises(error, match="echo"):
        small_world.create(tmp_path / "loops", task=str(echo))


ENOUGH = "if split == {split!r} and docs > {there}: raise ValueError('{there} words')\n    raw = "


@pytest.mark.parametrize(
    ("file", "before", "after", "says"),
    [
        ("task.toml", "confirm_docs = 64", "confirm_docs = 3", "3 to prove; needed: at least 4"),
        ("task.toml", "final_docs = 128", "final_docs = 3", "3 to prove; needed: at least 4"),
        ("task.toml", "separable = false", "separable = true", "not one target per document"),
        ("data.py", "raw = ", ENOUGH.format(split="select", there=50), "50 words; needed: other counts"),
        ("data.py", "raw = ", ENOUGH.format(split="confirm", there=50), "50 words; needed: other counts"),
        ("data.py", "raw = ", ENOUGH.format(split="final", there=100), "100 words; needed: other counts"),
    ],
)
def test_documents_that_no_trial_could_be_judged_on_are_told_before_a_loop_is_made(
    echo: Path, tmp_path: Path, file: str, before: str, after: str, says: str
) -> None:
    edit(echo / file, before, after)
    with pytest.raises(BellglassError, match=says):
        small_world.create(tmp_path / "loops", task=str(echo))
    assert list((tmp_path / "loops").iterdir()) == []


def test_a_loop_s_own_secret_deals_the_documents_that_are_tried(echo: Path, tmp_path: Path) -> None:
    """Of a fixed text the world's key says how many windows a split has."""
    edit(echo / "data.py", "raw = ", "if world == SEEN: raise ValueError('this very world')\n    raw = ")
    world = tasks._derive(wiring.seeded_secret(7), "world")
    (echo / "data.py").write_text((echo / "data.py").read_text() + f"\n\nSEEN = {world!r}\n")
    with pytest.raises(UsageError, match="this very world"):
        small_world.create(tmp_path / "loops", task=str(echo))
    assert small_world.create(tmp_path / "loops", task=str(echo), seed=8).is_dir()
