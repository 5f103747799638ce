"""The driver is killed with -9 at random moments; the resumed loop must end exactly like an undisturbed one."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import small_world

from bellglass import wiring
from bellglass.commands.console import line_for
from bellglass.doors.process_glass import ProcessGlass
from bellglass.store.ledger import Event, Ledger
from bellglass.store.state import State, fold
from bellglass.verify import verify

DRIVER = Path(__file__).parent / "small_driver.py"
GUESTS_GONE_SECONDS = 5.0


def start(folder: Path, guests: Path) -> subprocess.Popen[bytes]:
    env = {**os.environ, "PYTHONPATH": f"{DRIVER.parent.parent}{os.pathsep}{DRIVER.parent}"}
    return subprocess.Popen([sys.executable, str(DRIVER), str(folder), str(guests)], stderr=subprocess.PIPE, env=env)


def state_of(folder: Path) -> State:
    with closing(Ledger.open(folder)) as ledger:
        return fold(ledger.events())


def essence(state: State) -> dict[str, object]:
    """What must not depend on interruptions. Wall time and what crashes burnt may."""
    return {
        "champion": state.champion,
        "results": {number: gen.result for number, gen in state.generations.items()},
        "gates": {number: gen.gate for number, gen in state.generations.items()},
        "trials": {
            key: (t.bundle, t.seeds, t.claim, t.verdict, t.weights, t.train_seconds) for key, t in state.trials.items()
        },
        "calls": {key: (call.request_sha, call.reply_sha, call.cost) for key, call in state.calls.items()},
        "spent": state.spent,
        "final": state.final,
        "ended": state.ended["why"],
    }


def finish(folder: Path, guests: Path) -> State:
    process = start(folder, guests)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors.decode()
    with closing(Ledger.open(folder)) as ledger:
        assert [finding for finding in verify(folder, ledger) if not finding.ok] == []
    return state_of(folder)


def last_seq(folder: Path) -> int:
    with closing(Ledger.open(folder)) as ledger:
        return ledger.last_seq


def kill_until_done(folder: Path, guests: Path, chance: random.Random, most: int, seen: Counter[str]) -> int:
    """Kill again and again, some random number of events later; returns how often it hit.

    By events, because by time nearly every kill would hit a training; so in half of the cases at once, else a random
    moment later.
    """
    kills = 0
    while kills < most:
        process = start(folder, guests)
        target = last_seq(folder) + chance.randint(1, 14)
        while process.poll() is None and last_seq(folder) < target:
            time.sleep(0.002)
        if chance.random() < 0.5:
            time.sleep(chance.uniform(0.0, 0.2))
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
            process.communicate()
            with closing(Ledger.open(folder)) as ledger:
                seen[ledger.events()[-1].kind] += 1
        else:
            _, errors = process.communicate()
            assert process.returncode == 0, errors.decode()
            break
    return kills


def guests_left(guests: Path) -> list[str]:
    until = time.monotonic() + GUESTS_GONE_SECONDS
    while True:
        found = subprocess.run(["ps", "-A", "-o", "pid=,args="], capture_output=True, text=True).stdout.splitlines()
        left = [line for line in found if str(guests) in line and "small_driver" not in line]
        if not left or time.monotonic() > until:
            return left
        time.sleep(0.1)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    home = tmp_path_factory.mktemp("undisturbed")
    return essence(finish(small_world.create(home / "loops"), home / "guests"))


def check(undisturbed: dict[str, object], home: Path, chance: random.Random, most: int, seen: Counter[str]) -> int:
    folder, guests = small_world.create(home / "loops"), home / "guests"
    kills = kill_until_done(folder, guests, chance, most, seen)
    state = finish(folder, guests)
    assert essence(state) == undisturbed
    assert not state.open_trials
    assert not state.open_calls
    assert guests_left(guests) == []
    ProcessGlass(warm=False, forks=True, home=guests).reap()
    assert not any(guests.iterdir()), "a workspace was left behind"
    return kills


@pytest.mark.parametrize("changed", [(), ("sandbox", "tasks")])
def test_resume_says_what_is_not_what_the_loop_began_with(tmp_path: Path, changed: tuple[str, ...]) -> None:
    first, folder = small_world.create(tmp_path / "loops"), tmp_path / "stories-copy"
    shutil.copytree(first, folder, ignore=shutil.ignore_patterns("loop.*"))
    with closing(Ledger.open(first)) as ledger, closing(Ledger.create(folder)) as other:
        body = ledger.events()[0].body
        other.append("loop.created", {**body, "content": {**body["content"], **dict.fromkeys(changed, "0" * 64)}})
        other.append("loop.clock", {"wall_seconds": 0.1})
    said: list[Event] = []
    surface = replace(small_world.quiet(), listener=said.append)
    glass = ProcessGlass(warm=False, home=tmp_path / "guests")
    with wiring.open_loop(folder, surface, models={"main": small_world.Tuner()}, glass=glass):
        pass
    assert said[0].body.get("content", {}).keys() == set(changed)
    assert all(said[0].body["content"][part] == body["content"][part] for part in changed)
    told = "resumed; not what the loop began with: sandbox/, tasks/"
    assert line_for(said[0]) == (told if changed else "resumed")
    assert state_of(folder).loop_id == body["loop_id"]


@pytest.mark.slow
def test_a_loop_killed_a_few_times_ends_like_an_undisturbed_one(undisturbed: dict[str, object], tmp_path: Path) -> None:
    assert check(undisturbed, tmp_path, random.Random(1), most=3, seen=Counter()) > 0


@pytest.mark.slow
def test_fifty_kills_at_random_moments_change_nothing(undisturbed: dict[str, object], tmp_path: Path) -> None:
    wanted = int(os.environ.get("BELLGLASS_KILLS", "50"))
    chance, seen, kills, round_ = random.Random(20), Counter[str](), 0, 0
    while kills < wanted:
        kills += check(undisturbed, tmp_path / str(round_), chance, most=wanted - kills, seen=seen)
        round_ += 1
    print(f"{kills} kills in {round_} loops, last event before each: {dict(seen)}")
    assert len(seen) >= 5, "the kills should hit many stages"
