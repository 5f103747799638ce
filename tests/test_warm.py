"""Warm guests: started ahead, handed out once, replaced in the background, never in the way."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest
from guests import begin, listen, process_guest_runs, spec, wait_until

from bellglass.doors.process_glass import ProcessGlass
from bellglass.errors import SetupError
from bellglass.line.warm import WarmGlass
from bellglass.records import Role


@pytest.fixture
def home(tmp_path):
    return tmp_path / "guests"


@pytest.fixture
def warm(home) -> Iterator[WarmGlass]:
    made = WarmGlass(ProcessGlass(warm=False, home=home), {Role.TRAIN: 2}, patience_seconds=0)
    yield made
    made.close()


def filled(warm: WarmGlass, count: int = 2) -> bool:
    return wait_until(lambda: warm.waiting(Role.TRAIN) == count, 20)


def pids(home) -> set[str]:
    return {folder.name for folder in home.glob("guest-*") if process_guest_runs(folder)}


def test_the_pool_fills_in_the_background_and_hands_out_each_guest_once(warm, home):
    warm.open(spec())
    assert filled(warm)
    ahead = pids(home)
    taken = [warm.open(spec()) for _ in range(4)]
    assert len({guest.id for guest in taken}) == 4
    assert {guest.id for guest in taken[:2]} <= ahead
    begin(taken[0], "print('served')")
    assert listen(taken[0]).out == b"served\n"
    assert filled(warm)


def test_no_more_than_wanted_are_started_and_other_roles_stay_cold(warm, home):
    warm.prime(spec())
    assert filled(warm)
    warm.open(spec(Role.IMPROVE))
    assert not wait_until(lambda: len(pids(home)) > 3, 0.5)
    assert warm.waiting(Role.IMPROVE) == 0


def test_a_warm_guest_that_died_is_skipped(warm, home):
    warm.prime(spec())
    assert filled(warm)
    for guest in warm._waiting:
        os.kill(guest.guest.pid, signal.SIGKILL)  # type: ignore[attr-defined]
    assert wait_until(lambda: all(guest.guest.line._closed for guest in warm._waiting))  # their pipes have told
    guest = warm.open(spec())
    begin(guest, "print('alive')")
    assert listen(guest).out == b"alive\n"
    assert filled(warm)


@pytest.mark.parametrize(
    "other",
    [
        {"memory_mb": 512},
        {"gpu": 0},
        {"lease_seconds": 3.0},
        {"labels": {"loop": "another"}},
        {"deadline_seconds": 100_000.0},
    ],
)
def test_a_guest_made_for_something_else_is_not_handed_out(warm, home, other):
    warm.prime(spec())
    assert filled(warm)
    ahead = pids(home)
    assert warm.open(replace(spec(), **other)).id not in ahead
    warm.close()
    assert pids(home) == set()


def test_a_warm_guest_serves_for_a_shorter_deadline_than_it_was_made_for(warm, home):
    warm.prime(spec(deadline=30.0))
    assert filled(warm)
    ahead = pids(home)
    assert warm.open(spec(deadline=5.0)).id in ahead


def test_an_old_guest_is_put_away(home):
    warm = WarmGlass(ProcessGlass(warm=False, home=home), {Role.TRAIN: 1}, patience_seconds=0, idle_seconds=0.0)
    warm.prime(spec())
    assert filled(warm, 1)
    ahead = pids(home)
    assert warm.open(spec()).id not in ahead
    warm.close()


def test_closing_ends_the_waiting_and_the_handed_out_and_leaves_no_thread(home):
    before = threading.active_count()
    warm = WarmGlass(ProcessGlass(warm=False, home=home), {Role.TRAIN: 2}, patience_seconds=0)
    warm.open(spec())
    assert filled(warm)
    warm.close()
    assert pids(home) == set()
    assert list(home.iterdir()) == []
    assert wait_until(lambda: threading.active_count() <= before)


def test_closing_while_one_is_being_opened_leaves_nothing(home):
    warm = WarmGlass(ProcessGlass(warm=False, home=home), {Role.TRAIN: 2}, patience_seconds=0)
    warm.prime(spec())
    warm.close()
    assert list(home.glob("guest-*")) == []


def test_an_engine_that_fails_in_the_background_is_told_to_who_opens(home):
    warm = WarmGlass(ProcessGlass(python="/no/such/python", home=home), {Role.TRAIN: 1}, patience_seconds=0)
    warm.prime(spec())
    with pytest.raises(SetupError, match="/no/such/python"):
        warm.open(spec())
    warm.close()


def test_it_is_as_sealed_as_the_glass_inside(warm):
    assert (warm.name, warm.sealed) == ("process", False)
