"""The commands that look, typed as a person types them: what they say of a loop that goes on, and of a damaged one."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import made_loop
import pytest
import wandb_bench
from click.testing import Result
from typer.testing import CliRunner

from bellglass import tasks, wiring
from bellglass.cli import app
from bellglass.commands import doctor, look
from bellglass.commands.console import line_for
from bellglass.config import LoopConfig
from bellglass.doors.docker.channels.check import _judged
from bellglass.errors import LoopFault, UsageError
from bellglass.store.ledger import Event, Ledger


def test_a_resumed_loop_is_followed_until_its_own_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(look, "FOLLOW_SECONDS", 0.01)
    folder = made_loop.write(tmp_path, 2, waits=True)
    with Ledger.open(folder, write=True) as ledger:
        ledger.append("loop.ended", {"why": "stopped", "detail": "asked to"})
        ledger.append("loop.resumed", {"config": None})
        follower = threading.Thread(target=look.log, args=(str(folder),), kwargs={"follow": True}, daemon=True)
        follower.start()
        follower.join(0.5)
        assert follower.is_alive(), "it took an earlier end for the loop's"
        ledger.append("loop.ended", {"why": "bound", "detail": "no calls left"})
        follower.join(30)
    assert not follower.is_alive()
    assert "no calls left" in capsys.readouterr().out.splitlines()[-1]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A loop whose trainers reported curves."""
    return wandb_bench.write(tmp_path_factory.mktemp("made"), 3)


@pytest.fixture
def altered(whole: Path, tmp_path: Path) -> Path:
    folder = Path(shutil.copytree(whole, tmp_path / "altered"))
    with closing(sqlite3.connect(folder / "loop.db")) as db, db:
        db.execute("UPDATE events SET body = body || ' ' WHERE seq = 40")
    return folder


@pytest.fixture
def emptied(whole: Path, tmp_path: Path) -> Path:
    folder = Path(shutil.copytree(whole, tmp_path / "emptied"))
    shutil.rmtree(folder / "blobs")
    return folder


def test_status_names_the_driver_and_how_to_ask_it_where_it_stands(tmp_path: Path) -> None:
    folder = made_loop.write(tmp_path, 1, waits=True)
    assert "kill -USR1" not in typed("status", folder).stdout
    with Ledger.open(folder, write=True):
        assert f"kill -USR1 {os.getpid()}" in typed("status", folder).stdout


def typed(*words: str | Path) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def test_of_a_whole_loop_nothing_is_missing(whole: Path, tmp_path: Path) -> None:
    for words in (("export", "csv", whole, "-o", tmp_path), ("pack", whole, "-o", tmp_path / "x"), ("status", whole)):
        ran = typed(*words)
        assert (ran.exit_code, ran.stderr) == (0, ""), words


def test_what_a_damaged_ledger_loses_is_said_by_everything_that_writes_files(altered: Path, tmp_path: Path) -> None:
    for words in (("export", "csv", altered, "-o", tmp_path), ("pack", altered, "-o", tmp_path / "x")):
        ran = typed(*words)
        assert ran.exit_code == 0, words
        assert "missing: the ledger is damaged behind event 39" in ran.stderr, words


def test_what_went_with_the_blobs_is_said_by_everything_that_writes_files(emptied: Path, tmp_path: Path) -> None:
    ran = typed("export", "csv", emptied, "-o", tmp_path)
    assert ran.exit_code == 0
    (line,) = ran.stderr.splitlines()
    assert line.startswith("missing: the curves of cal-0x0 and ")
    assert "no such file" in line
    ran = typed("pack", emptied, "-o", tmp_path / "x")
    assert ran.exit_code == 0
    told = [line.partition(": blob")[0].partition(": g")[0] for line in ran.stderr.splitlines()]
    assert told == [f"missing: the {what} of generation {n}" for n in (1, 2, 3) for what in ("session", "curves")]


def test_a_lineage_that_is_gone_is_said(emptied: Path, tmp_path: Path) -> None:
    shutil.rmtree(emptied / "lineage.git")
    assert "missing: the diff of generation 1" in typed("pack", emptied, "-o", tmp_path / "x").stderr


def test_status_of_a_damaged_ledger_shows_what_comes_before_the_damage(altered: Path) -> None:
    ran = typed("status", altered)
    assert ran.exit_code == 1
    assert "missing: the ledger is damaged behind event 39" in ran.stderr
    assert "loop 00000001 · stories" in ran.stdout
    assert "still open" not in ran.stdout
    ran = typed("status", altered, "--json")
    told = json.loads(ran.stdout)
    assert (ran.exit_code, told["loop"], len(told["missing"])) == (1, "00000001", 1)


def test_status_of_a_ledger_without_a_beginning_is_one_error(altered: Path) -> None:
    with closing(sqlite3.connect(altered / "loop.db")) as db, db:
        db.execute("UPDATE events SET body = body || ' ' WHERE seq = 1")
    ran = typed("status", altered)
    assert isinstance(ran.exception, LoopFault)
    assert "damaged behind event 0" in ran.exception.found


def test_the_log_of_a_damaged_loop_goes_up_to_the_damage(altered: Path) -> None:
    told = typed("log", altered)
    assert told.exit_code == 1
    assert len(told.stdout.splitlines()) == 39
    assert "missing: the ledger is damaged behind event 39" in told.stderr


def test_doctor_does_not_call_fine_what_it_had_nothing_to_try_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wiring, "docker_self_check", lambda: [_judged("guests", {}), ("user", True, "a uid")])
    first, second = doctor._docker()
    assert (first.ok, first.optional, first.next_command) == (None, True, "")
    assert "nothing to try" in first.found
    assert second.ok


def test_a_finished_loop_is_not_resumed(tmp_path: Path) -> None:
    folder = made_loop.write(tmp_path, 1, texts=True)
    told = CliRunner().invoke(app, ["resume", str(folder)])
    assert (told.exit_code, told.stderr) == (0, "finished: nothing to do\n")


def test_a_decision_that_is_none_is_said_first(tmp_path: Path) -> None:
    folder = made_loop.write(tmp_path, 1, texts=True)
    told = CliRunner().invoke(app, ["review", str(folder), "--decision", "maybe"])
    assert told.exception.code == "option_invalid"


def test_whatever_is_wrong_with_a_models_name_the_same_list_is_shown() -> None:
    needed = set()
    for name in ("nosuch", "nosuch/model", "openai/"):
        with pytest.raises(UsageError) as refused:
            wiring.open_model(name, LoopConfig())
        needed.add(refused.value.needed)
    (told,) = needed
    assert {"offline", "tpe", "openai/NAME", "ollama/NAME"} <= set(told.split(", "))


def test_the_log_says_what_came_out_when_final_was_opened(tmp_path: Path) -> None:
    log = CliRunner().invoke(app, ["log", str(made_loop.write(tmp_path, 4, seed=3))]).stdout
    (line,) = [line for line in log.splitlines() if " final.opened " in line]
    assert "better than starter by" in line
    body = {"gain": None, "lacks": "no pair was whole"}
    assert "no pair was whole" in line_for(Event(1, 0.0, "final.opened", body, "", ""))


def test_tasks_say_what_their_scores_are_and_where_they_are_from() -> None:
    lines = list(look.task_lines(tasks.load("stories")))
    assert "above the floor, measured by benchmarks/tasks.py on one machine" in lines[1]
    assert "above the floor" not in "".join(list(look.task_lines(tasks.load("source")))[1:])
