"""The driver's log: what a person needs who has to find out why a loop stands still, and nothing that others wrote."""

from __future__ import annotations

import logging
import os
import re
import signal
import stat
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import small_world
from whose import another_user

from bellglass import wiring
from bellglass.errors import GuestFault, Interrupted, LoopFault, ModelFault, SetupError
from bellglass.loop import run_loop
from bellglass.store import driver_log
from bellglass.store.chain import Event
from bellglass.store.driver_log import LOG, TOLD
from bellglass.store.folder import LOG_NAME
from bellglass.store.ledger import Ledger
from bellglass.store.state import HANDLERS

SECRET = "sk-ant-0123456789-not-for-anybody"


def lines(folder: Path) -> list[str]:
    return (folder / LOG_NAME).read_text("utf-8").splitlines()


def told(folder: Path) -> str:
    """Without time, level and thread; and without stacks, which the interpreter writes by itself."""
    ours = [line for line in lines(folder) if re.match(r"\d{4}-\d\d-\d\dT\S+Z ", line)]
    return "\n".join(line.split(maxsplit=3)[3] for line in ours)


def end_by(folder: Path, error: BaseException) -> str:
    with pytest.raises(type(error)), driver_log.opened(folder):
        raise error
    return told(folder)


def test_a_loop_that_ran_says_what_it_did_in_turn(adopted: Path) -> None:
    """Of a copy that is resumed: it begins, and finds nothing to do."""
    with small_world.opened(adopted, small_world.Tuner()) as crew:
        run_loop(crew)
    said = told(adopted)
    for part in ("driver begins: pid", "generation.started: generation 1", "g1-pair-0-child: judging"):
        assert part in said, part
    assert said.index("generation.started") < said.index("gate.decided: generation 1, gate.decision adopt")
    assert said.endswith("driver ends")
    with Ledger.open(adopted) as ledger:
        happened = [event.kind for event in ledger.events() if event.kind in TOLD and event.seq > 1]
    in_log = [line.split(":")[0] for line in said.splitlines() if line.split(":")[0] in TOLD]
    assert Counter(in_log) == Counter(happened)


def test_nothing_that_a_model_a_guest_or_a_judge_wrote_and_no_secret_is_in_it(home: Path) -> None:
    folder = small_world.create(home, generations=1)
    steps = [
        small_world.write("trainer/objective.py", f"SMOOTHING = 10.0  # {SECRET}\n"),
        ("trial", {"note": SECRET}),
        small_world.write("trainer/train.py", f"raise ValueError({SECRET!r})\n"),
        ("trial", {"note": SECRET}),
        ("submit", {"note": SECRET}),
    ]
    with small_world.opened(folder, small_world.Scripted(*steps)) as crew:
        state = run_loop(crew)
    assert any(SECRET in note for note in state.notes.values()), "it did come by"
    said = (folder / LOG_NAME).read_text("utf-8")
    assert SECRET not in said
    assert (folder / "secret").read_bytes().hex() not in said
    scores = [trial.verdict.score for trial in state.trials.values() if trial.verdict is not None]
    assert scores
    assert not any(f"{score:.4f}" in said for score in scores)
    assert state.created["secret_commitment"] not in said


@pytest.mark.parametrize("kind", sorted(HANDLERS))
def test_of_an_event_only_the_named_values_are_told(kind: str, tmp_path: Path) -> None:
    class Anything(dict[str, object]):
        def get(self, key: str, default: object = None) -> object:
            asked.append(key)
            return default

    asked: list[str] = []
    with driver_log.opened(tmp_path):
        driver_log.listening(None)(Event(1, 0.0, kind, Anything(text=SECRET), "", ""))
    assert asked == [name.partition(".")[0] for name in TOLD.get(kind, ())]
    assert not {"text", "note", "reason", "sentence", "detail", "verdict", "claim", "log"} & set(asked)
    assert (kind in told(tmp_path)) == (kind in TOLD)


@pytest.mark.parametrize(
    ("error", "named", "kept"),
    [
        (SetupError("the engine", "no answer for 5 s", code="docker_silent"), "docker_silent", "no answer for 5 s"),
        (Interrupted("the loop", "interrupted"), "interrupted", "the loop"),
        (GuestFault("crashed", SECRET), "GuestFault crashed", ""),
        (ModelFault("refused_key", SECRET), "ModelFault refused_key", ""),
        (ValueError(SECRET), "ValueError", ""),
        (OSError(28, SECRET), "OSError ENOSPC", ""),
    ],
)
def test_an_error_is_named_with_its_place_and_without_the_words_of_others(
    error: BaseException, named: str, kept: str, tmp_path: Path
) -> None:
    said = end_by(tmp_path, error)
    assert named in said
    assert kept in said
    assert SECRET not in said
    assert "at " in said
    assert "in end_by" in said


def test_what_an_error_came_from_is_told_too(tmp_path: Path) -> None:
    error = SetupError("the engine", "no answer", code="docker_silent")
    error.__cause__ = TimeoutError(SECRET)
    said = end_by(tmp_path, error)
    assert "which came from TimeoutError" in said
    assert SECRET not in said


def test_a_thread_that_fails_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> None:
        raise ValueError(SECRET)

    monkeypatch.setattr(threading, "__excepthook__", lambda hook: None)
    with driver_log.opened(tmp_path):
        thread = threading.Thread(target=fails, name="reader-7")
        thread.start()
        thread.join()
    assert "thread reader-7 ended by ValueError" in told(tmp_path)
    assert "in fails" in told(tmp_path)


def test_a_signal_writes_the_stacks_of_all_threads_and_the_driver_goes_on(tmp_path: Path) -> None:
    def waits_here_for_ever() -> None:
        begun.set()
        done.wait()

    begun, done = threading.Event(), threading.Event()
    thread = threading.Thread(target=waits_here_for_ever)
    with driver_log.opened(tmp_path):
        thread.start()
        begun.wait()
        os.kill(os.getpid(), signal.SIGUSR1)
        done.set()
        thread.join()
    said = (tmp_path / LOG_NAME).read_text("utf-8")
    assert "waits_here_for_ever" in said
    assert "test_a_signal_writes_the_stacks" in said
    assert told(tmp_path).endswith("driver ends")


def test_it_does_not_grow_without_bound_and_signals_go_where_it_is_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver_log, "MOST_BYTES", 3000)
    with driver_log.opened(tmp_path):
        for number in range(400):
            LOG.info("line %d", number)
        os.kill(os.getpid(), signal.SIGUSR1)
    found = sorted(path.name for path in tmp_path.iterdir())
    assert found == [LOG_NAME, f"{LOG_NAME}.1", f"{LOG_NAME}.2"]
    assert all(path.stat().st_size < 3000 + driver_log.LINE_CHARS + 20_000 for path in tmp_path.iterdir())
    assert sum("Current thread" in path.read_text("utf-8") for path in tmp_path.iterdir()) == 1
    numbers = [
        int(line.rpartition(" ")[2])
        for name in reversed(found)
        for line in (tmp_path / name).read_text("utf-8").splitlines()
        if " line " in line and "INFO" in line
    ]
    assert numbers == list(range(numbers[0], 400))


def test_a_line_is_one_line_and_shows_what_it_holds(tmp_path: Path) -> None:
    with driver_log.opened(tmp_path):
        LOG.info("one\ntwo \x1b[2J\u202e%s", "x" * 10_000)
    assert len(lines(tmp_path)) == 3
    assert "\x1b" not in lines(tmp_path)[1]
    assert "\u202e" not in lines(tmp_path)[1]
    assert len(lines(tmp_path)[1]) <= driver_log.LINE_CHARS


def link(path: Path, precious: Path) -> None:
    path.symlink_to(precious)


def second_name(path: Path, precious: Path) -> None:
    path.hardlink_to(precious)


def pipe(path: Path, precious: Path) -> None:
    os.mkfifo(path)


def folder_in_its_place(path: Path, precious: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize("lay", [link, second_name, pipe, folder_in_its_place])
def test_whatever_lies_in_its_place_is_neither_written_nor_waited_for(
    lay: Callable[[Path, Path], None], tmp_path: Path
) -> None:
    precious, loop = tmp_path / "precious", tmp_path / "loop"
    precious.write_text("mine")
    loop.mkdir()
    lay(loop / LOG_NAME, precious)
    before = os.lstat(loop / LOG_NAME)
    with driver_log.opened(loop):
        LOG.info("a line")
    assert precious.read_text() == "mine"
    assert stat.S_IFMT(os.lstat(loop / LOG_NAME).st_mode) == stat.S_IFMT(before.st_mode)


def test_a_full_one_is_renamed_over_a_link_and_not_through_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver_log, "MOST_BYTES", 100)
    precious, loop = tmp_path / "precious", tmp_path / "loop"
    precious.write_text("mine")
    loop.mkdir()
    (loop / f"{LOG_NAME}.1").symlink_to(precious)
    with driver_log.opened(loop):
        LOG.info("x" * 200)
        LOG.info("y")
    assert precious.read_text() == "mine"
    assert not (loop / f"{LOG_NAME}.1").is_symlink()


def test_a_received_loop_gets_no_log(tmp_path: Path) -> None:
    with another_user():
        folder = small_world.create(tmp_path)
    with pytest.raises(LoopFault) as refused, wiring.open_loop(folder, small_world.quiet()):
        pass
    assert refused.value.code == "loop_received"
    assert not (folder / LOG_NAME).exists()


def test_outside_a_loop_nothing_is_logged_and_nothing_stays_set(tmp_path: Path) -> None:
    with driver_log.opened(tmp_path):
        assert threading.excepthook is not threading.__excepthook__
    LOG.info("to nobody")
    assert "to nobody" not in told(tmp_path)
    assert LOG.handlers == []
    assert LOG.level == logging.NOTSET
    assert threading.excepthook is not driver_log._thread_fault
