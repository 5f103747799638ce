"""How busy a machine is: from a process of ours, and from the driver's own pulse."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from guests import spec

from bellglass.doors.process_glass import ProcessGlass
from bellglass.line.canary import Beside, Canary, Pulse, least
from bellglass.paths import content_root
from bellglass.records import Strain


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
    assert canary.share(time.monotonic() - 60.0) == pytest.approx(0.26 / 1.02)
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


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a disk")
def test_a_disk_that_was_full_for_a_moment_is_remembered(tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "none", str(tmp_path)], check=True)
    pulse = Pulse(tmp_path)
    try:
        assert not pulse.was_full(0.0)
        (tmp_path / "filler").write_bytes(bytes(60 << 20))
        assert pulse.was_full(time.monotonic()), "it is now"
        until = time.monotonic() + 60.0
        while pulse._full_at < 0.0 and time.monotonic() < until:
            time.sleep(0.05)
        (tmp_path / "filler").unlink()
        assert pulse.was_full(0.0), "it was"
        assert not pulse.was_full(time.monotonic()), "it is no more"
    finally:
        pulse.close()
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)


def test_a_canary_that_is_stopped_gets_nothing_of_what_it_wants() -> None:
    canary = Beside()
    assert canary.share(0.0) is None
    canary.start()
    process = canary.process
    assert process is not None
    until = time.monotonic() + 60.0
    while canary.share(0.0) is None and time.monotonic() < until:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGSTOP)
    since = time.monotonic()
    while (share := canary.share(since)) is None and time.monotonic() < until:
        time.sleep(0.05)
    assert share == 0.0, "it has wanted a core since then, and got none"
    assert least([Canary(), fed((30.0, 0.2, 0.2), (20.0, 0.22, 0.22)), canary], since) == 0.0
    canary.close()
    assert process.poll() is not None


def test_a_glass_measures_how_busy_its_machine_is(tmp_path: Path) -> None:
    glass = ProcessGlass(warm=False, forks=False, home=tmp_path)
    assert glass.strain(0.0) == Strain(None, 0.0)
    since = time.monotonic()
    glass.open(spec()).end()
    until = time.monotonic() + 60.0
    while glass.strain(since).share is None and time.monotonic() < until:
        time.sleep(0.05)
    share = glass.strain(since).share
    assert share is not None
    assert 0.0 < share <= 1.5
    glass.close()
