"""How busy a machine is: from a process of ours, and from the driver's own pulse."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bellglass.doors.process_glass import ProcessGlass
from bellglass.line.canary import Canary
from bellglass.paths import content_root


def fed(*moments: tuple[float, float, float]) -> Canary:
    """One that heard those lines then: seconds ago, got, took."""
    canary, now = Canary(), time.monotonic
    real = now()
    for ago, got, took in moments:
        canary.heard(f"{got} {took}\n".encode())
        canary._moments[-1] = type(canary._moments[-1])(real - ago, got, took)
    return canary


def test_a_share_is_what_it_got_of_what_it_wanted_since_then() -> None:
    canary = fed((30.0, 0.2, 0.2), (20.0, 0.22, 0.22), (10.0, 0.24, 0.62), (0.5, 0.26, 1.02))
    assert canary.share(time.monotonic() - 60.0) == pytest.approx(0.06 / 0.82)
    assert canary.share(time.monotonic() - 15.0) == pytest.approx(0.04 / 0.8)


def test_a_moment_that_does_not_end_counts() -> None:
    canary = fed((30.0, 0.2, 0.2), (20.0, 0.22, 0.22))
    share = canary.share(time.monotonic() - 25.0)
    assert share is not None
    assert share < 0.01, "it has waited for 19 s"


def test_nothing_heard_is_not_measured() -> None:
    assert Canary().share(0.0) is None
    canary = Canary()
    for line in (b"", b"nonsense\n", b"1 2 3\n", b'{"files": 1}\n'):
        canary.heard(line)
    assert canary.share(0.0) is None


def test_a_driver_that_was_frozen_knows_it() -> None:
    code = (
        "import sys, time; from bellglass.line.canary import Pulse; pulse = Pulse(); "
        "print('going', flush=True); sys.stdin.readline(); print(pulse.late(0.0))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=content_root().parent
    ) as driver:
        assert driver.stdin is not None
        assert driver.stdout is not None
        driver.stdout.readline()
        os.kill(driver.pid, signal.SIGSTOP)
        time.sleep(3.0)
        os.kill(driver.pid, signal.SIGCONT)
        driver.stdin.write(b"\n")
        driver.stdin.flush()
        assert float(driver.stdout.read()) > 2.0


def test_a_process_glass_has_a_canary_that_is_starved_when_it_is_stopped(tmp_path: Path) -> None:
    glass = ProcessGlass(warm=False, forks=False, home=tmp_path)
    assert glass.strain(0.0).share is None
    glass._let_sing()
    bird = glass._bird
    assert bird is not None
    until = time.monotonic() + 60.0
    while glass.strain(0.0).share is None and time.monotonic() < until:
        time.sleep(0.05)
    os.kill(bird.pid, signal.SIGSTOP)
    since = time.monotonic()
    while (share := glass.strain(since).share) is None and time.monotonic() < until:
        time.sleep(0.05)
    assert share == 0.0, "it has wanted a core since then, and got none"
    glass.close()
    assert bird.poll() is not None
