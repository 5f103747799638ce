"""A process beside a loop: the page, or who tells Weights & Biases. It reads the ledger; the loop never waits for it.

The loop's driver holds the other end of the process's stdin. When that closes, by whatever end of the driver, its loop
runs no more, and the process ends when it has done what is left.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from typing import IO

from bellglass.commands.terminal import say

# Without the folder that the person happens to stand in, whose `typer.py` would else be ours.
PYTHON = (sys.executable, "-P", "-m", "bellglass")

_kept: list[subprocess.Popen[bytes]] = []  # they may live longer than their driver, which must hold their pipes open


class Driver:
    """Seen from the process beside: who started it."""

    def __init__(self, linger_seconds: float | None = None) -> None:
        """From the driver's end on, this process lives for so many seconds at most, whatever it waits for."""
        self._gone, self._linger_seconds = threading.Event(), linger_seconds
        threading.Thread(target=self._read, daemon=True, name="driver").start()

    def gone(self, wait_seconds: float = 0.0) -> bool:
        return self._gone.wait(wait_seconds)

    def _read(self) -> None:
        while os.read(0, 4096):
            pass
        self._gone.set()
        if self._linger_seconds is not None:
            time.sleep(self._linger_seconds)
            say(f"gave up after {self._linger_seconds:g} s")
            os._exit(1)


def start(*words: str, stdout: int | IO[bytes], stderr: IO[bytes] | None = None) -> subprocess.Popen[bytes]:
    """Runs a command of bellglass, told from one that a person typed by `--attached` among its words."""
    command = [*PYTHON, *words]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=stdout, stderr=stderr, start_new_session=True)
    _kept.append(process)
    return process
