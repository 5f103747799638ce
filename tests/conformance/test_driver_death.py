"""When the driver dies or freezes, its guests end by themselves, and what they leave is removed later."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from guests import open_glass, process_guest_runs, wait_until

from bellglass import processes

HERE = Path(__file__).resolve().parents[1]
NOISE_SECONDS = float(os.environ.get("BELLGLASS_TIMING_SLACK", "30"))  # for a machine that is busy otherwise


class Driver:
    """A driver in a process of its own, and a view from outside on the guests it has."""

    def __init__(self, kind: str, home: Path, stage: str) -> None:
        self.kind, self.home, self.loop = kind, home, secrets.token_hex(8)
        env = os.environ | {"PYTHONPATH": f"{HERE}:{HERE.parent}"}
        command = [sys.executable, str(HERE / "guest_driver.py"), kind, str(home), self.loop, stage]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env)
        assert self.process.stdout is not None
        assert any(line.strip() == stage for line in self.process.stdout), "the driver ended early"

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)

    def guests(self) -> list[str]:
        """Those that still run."""
        if self.kind == "process":
            return [folder.name for folder in self.home.glob("guest-*") if process_guest_runs(folder)]
        listing = ["docker", "ps", "-q", "--filter", f"label=bellglass.loop={self.loop}"]
        return subprocess.run(listing, capture_output=True, text=True, timeout=20).stdout.split()

    def first_processes(self) -> list[int]:
        """The supervisors of its guests, by their pids on this machine."""
        if self.kind == "process":
            return [json.loads(path.read_text())["pid"] for path in self.home.glob("guest-*/guest.json")]
        inspect = ["docker", "inspect", "-f", "{{.State.Pid}}", *self.guests()]
        return [int(pid) for pid in subprocess.run(inspect, capture_output=True, timeout=20).stdout.split()]

    def close(self) -> None:
        self.kill()
        self.process.stdout.close()  # type: ignore[union-attr]


@pytest.fixture
def driver(any_glass, tmp_path) -> Iterator[Callable[[str], Driver]]:
    drivers: list[Driver] = []

    def start(stage: str) -> Driver:
        drivers.append(Driver(any_glass.name, tmp_path, stage))
        return drivers[-1]

    yield start
    for each in drivers:
        each.close()
    open_glass(any_glass.name, tmp_path).reap()


@pytest.mark.parametrize("stage", ["ready", "sending", "running", "asking", "holding", "forking", "flooding"])
def test_a_driver_killed_at_any_stage_takes_its_guests_along(driver, stage, any_glass):
    victim = driver(stage)
    assert len(victim.guests()) == 1
    victim.kill()
    assert wait_until(lambda: not victim.guests(), 2 + NOISE_SECONDS)
    assert open_glass(any_glass.name, victim.home).reap() >= 1
    if any_glass.name == "process":
        assert list(victim.home.iterdir()) == []


@pytest.mark.parametrize("delay", [0.0, 0.05, 0.1])
def test_a_driver_killed_while_it_opens_a_guest_leaves_nothing_that_runs(driver, delay, any_glass):
    victim = driver("opening")
    time.sleep(delay)
    victim.kill()
    time.sleep(0.1)
    assert wait_until(lambda: not victim.guests(), 2 + NOISE_SECONDS)
    open_glass(any_glass.name, victim.home).reap()
    if any_glass.name == "process":
        assert list(victim.home.iterdir()) == []


def test_guests_of_a_frozen_driver_end_by_their_lease_even_while_they_flood(driver):
    victim = driver("flooding")
    # Asked before the freeze: an engine that can't get rid of the flood says nothing about that container any more.
    first = [processes.named(pid) for pid in victim.first_processes()]
    assert [processes.is_running(each) for each in first] == [True]
    victim.process.send_signal(signal.SIGSTOP)
    assert wait_until(lambda: not processes.is_running(first[0]), 4 + NOISE_SECONDS)  # the lease is 2 s
    assert victim.process.poll() is None
    victim.process.send_signal(signal.SIGCONT)


def test_a_guest_that_is_frozen_when_its_driver_dies_is_ended_by_the_reaper(driver, home):
    victim = driver("running")
    (first,) = victim.first_processes()
    os.kill(first, signal.SIGSTOP)
    victim.kill()
    time.sleep(0.2)
    assert len(victim.guests()) == 1
    was = processes.named(first)
    assert open_glass("process", victim.home).reap() == 1
    assert not processes.is_running(was)


def test_a_reaper_ends_nothing_of_a_frozen_driver_that_lives(driver, any_glass):
    victim = driver("ready")
    victim.process.send_signal(signal.SIGSTOP)
    open_glass(any_glass.name, victim.home).reap()
    victim.process.send_signal(signal.SIGCONT)
    time.sleep(0.2)
    assert len(victim.guests()) == 1
