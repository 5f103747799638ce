"""A hostile loop on a real terminal."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import hostile_loop
import pytest
from hostile_loop import Canaries
from whose import VARIABLE

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
