"""A loop whose `lineage.git` is gone: what needs it ends in one error with a code, everything else goes on."""

from __future__ import annotations

import shutil
from pathlib import Path

import made_loop
import pytest
import small_world
from hostile_commands import RESULTS, TYPED, run
from whose import VARIABLE

from bellglass import wiring
from bellglass.doors.process_glass import ProcessGlass
from bellglass.errors import LoopFault
from bellglass.loop import run_loop
from bellglass.records import ChatReply, ChatRequest
from bellglass.show import notebook
from bellglass.store.state import state_of

LOST = {
    "all of it": lambda git: shutil.rmtree(git),
    "its objects": lambda git: shutil.rmtree(git / "objects"),
    "its head": lambda git: (git / "HEAD").unlink(),
    "all in it": lambda git: (shutil.rmtree(git), git.mkdir()),
}
ENDS = {  # command -> the code that it ends with, where it doesn't go on without
    ("diff", "{loop}"): "lineage_damaged",
    ("diff", "{loop}", "1"): "lineage_damaged",
    ("review", "{loop}"): "lineage_damaged",
    ("verify", "{loop}"): "verify_failed",
}
GO_ON = {"status", "log", "report", "compare", "pack", "export"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that waits for a review."""
    home = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:  # a state folder of its own: some commands go on with the loop
        patch.setenv(VARIABLE, str(home / "state"))
        return made_loop.write(home, 2, texts=True, seed=3, waits=True)


@pytest.mark.parametrize("lost", LOST)
def test_every_command_that_needs_it_ends_in_one_error(
    made: Path, tmp_path: Path, lost: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "state"))
    shutil.copytree(made.parent / "state", tmp_path / "state")
    loop = Path(shutil.copytree(made, tmp_path / "loops" / made.name))
    LOST[lost](loop / "lineage.git")
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    words = [words for words in TYPED if "{loop}" in words] if lost == "all of it" else list(ENDS)
    assert set(ENDS) <= set(words)
    for number, typed in enumerate(words):
        filled = {"loop": loop, "home": loop.parent, RESULTS.strip("{}"): tmp_path / str(number)}
        status, shown = run(tuple(word.format(**filled) for word in typed), monkeypatch)
        assert "Traceback" not in shown, typed
        assert shown.count("code:") <= 1, typed
        if typed in ENDS:
            assert status == 1, typed
            assert f"code:   {ENDS[typed]}" in shown, typed
        elif typed[0] in GO_ON:
            assert status == 0, (typed, shown)


def test_a_view_from_python_says_so(made: Path, tmp_path: Path) -> None:
    loop = Path(shutil.copytree(made, tmp_path / made.name))
    shutil.rmtree(loop / "lineage.git")
    view = notebook.Loop(loop)
    assert view.diff(1)["missing"] != ""
    with pytest.raises(LoopFault) as caught:
        view.bundle(1)
    assert caught.value.code == "lineage_damaged"


def test_a_loop_without_it_is_not_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = small_world.create(tmp_path / "loops")
    shutil.rmtree(loop / "lineage.git")
    status, shown = run(("resume", str(loop)), monkeypatch)
    assert status == 1
    assert "Traceback" not in shown
    assert "code:   lineage_damaged" in shown


class Remover(small_world.Tuner):
    """Its loop's bundles go while it is asked."""

    def __init__(self, loop: Path) -> None:
        self.loop = loop

    def chat(self, request: ChatRequest) -> ChatReply:
        shutil.rmtree(self.loop / "lineage.git", ignore_errors=True)
        return super().chat(request)


def test_a_loop_that_loses_it_while_it_runs_halts_and_says_so(home: Path) -> None:
    loop = small_world.create(home, generations=1)
    glass = ProcessGlass(warm=False, forks=True, home=home.parent / "guests")
    opened = wiring.open_loop(loop, small_world.quiet(), models={"main": Remover(loop)}, glass=glass)
    with opened as crew, pytest.raises(LoopFault) as caught:
        run_loop(crew)
    assert caught.value.code == "lineage_damaged"
    assert state_of(loop).ended is None or state_of(loop).ended["why"] != "finished"
