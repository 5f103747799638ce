"""A loop from elsewhere: no code that its ledger names is run here before a person names it."""

from __future__ import annotations

import shlex
import shutil
from contextlib import closing
from pathlib import Path

import made_loop
import pytest
from typer.testing import CliRunner

from bellglass.cli import app
from bellglass.commands.watch import Recheck
from bellglass.errors import BellglassError, LoopFault, UsageError
from bellglass.holds import Asked
from bellglass.paths import content_hash, content_root
from bellglass.recheck import prepare
from bellglass.rejudge import rejudge
from bellglass.store.blobs import Blobs
from bellglass.store.ledger import Ledger

STORIES = content_root() / "tasks" / "stories"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_loop.write(tmp_path_factory.mktemp("made"), 2, texts=True, seed=4)


def received(made: Path, home: Path, told: str = "") -> Path:
    """The same with a task in the loop's own folder, as any ledger can say, and the hash of it."""
    folder = home / made.name
    shutil.copytree(made, folder, ignore=shutil.ignore_patterns("loop.*"))
    task = folder / "task"
    shutil.copytree(STORIES, task, ignore=shutil.ignore_patterns("__pycache__"))
    with (task / "data.py").open("a") as file:
        file.write(f"\nopen({str(home / 'ran')!r}, 'w').close()\n")
    blobs = Blobs(folder / "blobs")
    with closing(Ledger.open(made)) as ledger, closing(Ledger.create(folder)) as fresh:
        for event in ledger.events():
            if event.kind == "loop.created":
                event.body["config"]["task"] = told or str(task)
                event.body["content"]["task"] = content_hash(task)
            if event.kind == "trial.settled":
                event.body["weights"] = blobs.put(event.body["trial_id"].encode())
            fresh.append(event.kind, event.body)
    return folder


def both(folder: Path, match: str, kind: type[BellglassError], task: Path | None = None) -> None:
    with closing(Ledger.open(folder)) as ledger:
        with pytest.raises(kind, match=match):
            prepare(folder, ledger, Asked(1, task=task))
        with pytest.raises(kind, match=match):
            rejudge(folder, ledger, None, task)


@pytest.mark.parametrize("told", ["", f"./stories-{4:08x}/task"])
def test_a_task_that_is_not_shipped_is_not_run_before_a_person_names_it(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    both(received(made, tmp_path, told), "would run here with your rights", UsageError)
    assert not (tmp_path / "ran").exists()


def test_the_error_is_the_command_with_the_folder_to_name(made: Path, tmp_path: Path) -> None:
    folder = received(made, tmp_path / "with space")
    name, task = shlex.quote(str(folder)), shlex.quote(str(folder / "task"))
    asked = {
        f"recheck {name} 1 --exact": ["recheck", str(folder), "1", "--exact"],
        f"verify {name} --rejudge": ["verify", str(folder), "--rejudge"],
    }
    for command, words in asked.items():
        error = CliRunner().invoke(app, words).exception
        assert isinstance(error, UsageError)
        assert error.next_command == f"bellglass {command} --task {task}"


def test_the_page_says_so(made: Path, tmp_path: Path) -> None:
    folder = received(made, tmp_path)
    assert f"--task {folder / 'task'}" in Recheck(folder, lambda: False)({"generation": 1})


def test_the_folder_that_a_person_names_must_be_what_the_loop_began_with(made: Path, tmp_path: Path) -> None:
    folder = received(made, tmp_path)
    copy = shutil.copytree(folder / "task", tmp_path / "copy")
    with closing(Ledger.open(folder)) as ledger:
        assert prepare(folder, ledger, Asked(1, task=copy)).bench.task.folder == copy
    (copy / "data.py").write_text("")
    for other in (copy, STORIES):
        both(folder, "not what the loop began with", LoopFault, other)


def test_a_shipped_task_needs_no_name_and_takes_none(made: Path, tmp_path: Path) -> None:
    for told in ("stories", str(STORIES)):
        folder = received(made, tmp_path / told.replace("/", "_"), told)
        with closing(Ledger.open(folder)) as ledger:
            assert prepare(folder, ledger, Asked(1)).bench.task.folder == STORIES
        both(folder, "is the shipped", UsageError, folder / "task")
