"""Stopping a loop from outside its driver, and what a later `resume` finds."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import small_world
from small_world import Tuner

from bellglass import halt, wiring
from bellglass.doors.process_glass import ProcessGlass
from bellglass.store.ledger import Ledger

ROOT = Path(__file__).resolve().parent.parent
OWNER = """
import sys, time
from pathlib import Path
from bellglass.store.ledger import Ledger
with Ledger.open(Path(sys.argv[1]), write=True):
    print("owned", flush=True)
    sys.stdin.read() if sys.argv[2] == "leaves" else time.sleep(600)
"""


@contextmanager
def a_driver_that(does: str, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", OWNER, str(folder), does]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, cwd=ROOT) as process:
        assert process.stdout.readline() == b"owned\n"
        yield process
        process.kill()


def stop(folder: Path, polite_seconds: float) -> str:
    return halt.stop(folder, lambda: 0, polite_seconds=polite_seconds, reason="enough")


def check_that_it_goes_on(folder: Path) -> None:
    glass = ProcessGlass(warm=False, home=folder.parent.parent / "guests")
    with wiring.open_loop(folder, small_world.quiet(), models={"main": Tuner()}, glass=glass) as crew:
        crew.place.check()  # raises when a stop still lies in the inbox


def test_after_a_hung_driver_was_killed_the_first_resume_goes_on(tmp_path: Path) -> None:
    folder = small_world.create(tmp_path / "loops")
    with a_driver_that("hangs", folder):
        assert stop(folder, 0.2).startswith("killed")
    with Ledger.open(folder) as ledger:
        assert ledger.events()[-1].body["why"] == "stopped"
    check_that_it_goes_on(folder)


def test_a_stop_that_comes_as_the_driver_ends_by_itself_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = small_world.create(tmp_path / "loops")
    with a_driver_that("leaves", folder) as driver:
        monkeypatch.setattr(Ledger, "post", _post_and(driver.stdin.close))
        assert stop(folder, 20.0).startswith("stopped politely")
    check_that_it_goes_on(folder)


def _post_and(then: object) -> object:
    post = Ledger.post

    def posting(self: Ledger, *args: object) -> int:
        number = post(self, *args)
        then()
        return number

    return posting


def test_stopping_a_loop_that_does_not_run_says_so(tmp_path: Path) -> None:
    folder = small_world.create(tmp_path / "loops")
    with Ledger.open(folder) as ledger:
        ledger.post("stop", {"who": "somebody", "reason": "an earlier one, that nobody took"})
    assert "not running" in stop(folder, 5.0)
    check_that_it_goes_on(folder)
