"""A hostile loop on a real terminal, and in a real sealed glass."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import hostile_loop
import pytest
from hostile_loop import Canaries
from whose import VARIABLE

from bellglass import wiring
from bellglass.holds import Asked
from bellglass.recheck import prepare, recheck
from bellglass.rejudge import rejudge
from bellglass.store.ledger import Ledger

PLANTED = ("\x1b]0;owned", "\x1b[2J", "\x1b]8;", "\x07", "\u202e")  # none of these does rich write by itself


@pytest.fixture
def canaries(tmp_path: Path) -> Canaries:
    found = Canaries(tmp_path / "receiver", os.getpid())
    found.lay()
    return found


@pytest.fixture
def loop(tmp_path: Path, canaries: Canaries, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "state"))
    folder = hostile_loop.write(tmp_path / "loops", canaries)
    hostile_loop.words(folder, canaries)
    return folder


def on_a_terminal(*words: str) -> str:
    """What is written to it, as it is."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-P", "-m", "bellglass", *words]
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "120"}
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                more = os.read(ours, 65536)
            except OSError:  # its other end is closed
                break
            shown += more
            if b"[y/N]" in shown:
                process.terminate()
    os.close(ours)
    return shown.decode("utf-8", "replace")


@pytest.mark.parametrize(
    "words", [("status",), ("log",), ("diff",), ("review",), ("compare",), ("verify",), ("takeover",), ("resume",)]
)
def test_a_terminal_is_sent_nothing_that_the_loops_maker_wrote_for_it(
    loop: Path, canaries: Canaries, words: tuple[str, ...]
) -> None:
    shown = on_a_terminal(words[0], str(loop), *words[1:])
    assert shown
    assert [sign for sign in PLANTED if sign in shown] == []
    assert canaries.unharmed()


@pytest.mark.docker
@pytest.mark.slow
def test_in_a_sealed_glass_it_is_judged_and_trained_again_and_reaches_nothing(loop: Path, canaries: Canaries) -> None:
    hostile_loop.of_preset(loop, "tiny")  # whose documents are made in a moment
    with closing(Ledger.open(loop)) as ledger:
        case = prepare(loop, ledger, Asked(1, seeds=3))
        with wiring.judging_glass(loop) as glass:
            assert glass.sealed
            outcome = recheck(case, glass, side_by_side=2, say=lambda again: None)
            found = rejudge(loop, ledger, glass)
    assert not outcome.holds  # its trainers train nothing: they only reach for the canary
    assert found
    assert not any(finding.ok for finding in found)
    assert canaries.unharmed()
