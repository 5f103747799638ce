"""Trials that fell through no fault of their bundle: run again under their id, and never a decision."""

from __future__ import annotations

import os
import signal
from collections import Counter
from pathlib import Path

import pytest
import small_world
from small_world import SUBMIT, Scripted, opened

from bellglass import tripwires
from bellglass.doors.process_glass import ProcessGlass
from bellglass.doors.process_glass.glass import ProcessGuest
from bellglass.errors import GuestFault, SetupError, TripwireFired
from bellglass.line.intake import Event
from bellglass.loop import run_loop
from bellglass.ports import GuestSpec
from bellglass.records import Json, Strain
from bellglass.store.ledger import Ledger
from bellglass.store.state import state_of
from bellglass.tripwires import Watched
from bellglass.verify import verify

CHILD, PARENT = "g1-pair-0-child", "g1-pair-0-parent"


class Disturbing(ProcessGlass):
    """Somebody else kills the guests of one trial, as often as told, once they have their bundle."""

    trial, times = CHILD, 1
    killed = 0
    share: float | None = 1.0  # what a canary got: a machine that is free, unless a test says otherwise

    def open(self, spec: GuestSpec) -> ProcessGuest:
        guest = super().open(spec)
        if spec.labels.get("trial") == self.trial and self.killed < self.times:
            self.killed += 1
            receive = guest.recv

            def recv(timeout: float) -> Event | None:
                os.kill(guest.pid, signal.SIGKILL)
                return receive(timeout)

            guest.recv = recv  # type: ignore[method-assign]
        return guest

    def strain(self, since: float) -> Strain:
        return Strain(self.share, 0.0)

    def wait_until_free(self, seconds: float, check: object) -> str:
        return ""


def halted(home: Path, guests: Path, **facts: object) -> tuple[Path, Disturbing]:
    folder = small_world.create(home, generations=1)
    glass = Disturbing(warm=False, forks=True, home=guests)
    for name, value in facts.items():
        setattr(glass, name, value)
    return folder, glass


def disturbed(folder: Path) -> Counter[tuple[str, str]]:
    return Counter((one["trial_id"], one["owner"]) for one in state_of(folder).disturbed)


def seeds(folder: Path) -> Json:
    return {name: trial.seeds for name, trial in state_of(folder).trials.items()}


@pytest.mark.parametrize("trial", [CHILD, PARENT])
def test_a_guest_that_was_killed_from_outside_is_no_fault_of_its_bundle(
    adopted: Path, home: Path, tmp_path: Path, trial: str
) -> None:
    folder, glass = halted(home, tmp_path / "guests", trial=trial)
    with opened(folder, small_world.Tuner(), glass=glass) as crew:
        state = run_loop(crew)
    assert disturbed(folder) == {(trial, "unknown"): 1}
    assert state.generations[1].gate["decision"] == "adopt"
    assert state.trials[trial].fault is None
    assert state.burnt.train_seconds > 0.0, "what it took is charged, and charged apart"
    with Ledger.open(folder) as ledger:
        findings = verify(folder, ledger)
    assert all(finding.ok for finding in findings), findings
    assert "1 disturbed and run again" in next(finding.found for finding in findings if finding.what == "events")


def test_what_this_machine_can_not_run_halts_the_loop_undecided_and_resume_takes_it_up_again(
    home: Path, tmp_path: Path
) -> None:
    folder, glass = halted(home, tmp_path / "guests", times=9, share=0.01)
    with opened(folder, small_world.Tuner(), glass=glass) as crew, pytest.raises(SetupError) as told:
        run_loop(crew)
    assert (told.value.code, told.value.exit_code) == ("machine_too_busy", 3)
    before = state_of(folder)
    assert disturbed(folder) == {(CHILD, "machine"): 3}
    assert before.generations[1].gate is None
    assert before.final is None
    assert before.ended["why"] == "failed"
    with opened(folder, Scripted(SUBMIT)) as crew:  # a new session would submit nothing
        state = run_loop(crew)
    assert state.generations[1].successor == before.generations[1].successor
    assert state.generations[1].gate["decision"] == "adopt"


def test_a_guest_that_was_never_ready_says_nothing_about_a_bundle(home: Path, tmp_path: Path) -> None:
    class Unready(Disturbing):
        def open(self, spec: GuestSpec) -> ProcessGuest:
            if spec.labels.get("trial") == CHILD and self.killed < self.times:
                self.killed += 1
                raise GuestFault("lost", "ended before it was ready")
            return ProcessGlass.open(self, spec)

    folder = small_world.create(home, generations=1)
    with opened(folder, small_world.Tuner(), glass=Unready(warm=False, forks=True, home=tmp_path / "guests")) as crew:
        state = run_loop(crew)
    assert disturbed(folder) == {(CHILD, "machine"): 1}
    assert state.generations[1].gate["decision"] == "adopt"


def test_the_third_halt_by_one_side_is_an_alarm(home: Path, tmp_path: Path) -> None:
    folder, glass = halted(home, tmp_path / "guests", times=99)
    for _ in range(2):
        with opened(folder, small_world.Tuner(), glass=glass) as crew, pytest.raises(SetupError):
            run_loop(crew)
    with opened(folder, small_world.Tuner(), glass=glass) as crew, pytest.raises(TripwireFired):
        run_loop(crew)
    assert [wire["name"] for wire in state_of(folder).tripwires] == ["disturbed_often"]


def test_a_machine_that_fails_both_sides_is_counted_alike_for_both(home: Path, tmp_path: Path) -> None:
    class Both(Disturbing):
        def open(self, spec: GuestSpec) -> ProcessGuest:
            self.trial = spec.labels["trial"] if spec.labels.get("trial") in (PARENT, CHILD) else ""
            return super().open(spec)

    folder, glass = small_world.create(home, generations=1), Both(warm=False, forks=True, home=tmp_path / "guests")
    glass.times = 99
    with opened(folder, small_world.Tuner(), glass=glass) as crew, pytest.raises(SetupError):
        run_loop(crew)
    assert disturbed(folder) == {(PARENT, "unknown"): 2, (CHILD, "unknown"): 2}


def draws(child: int, parent: int) -> Watched:
    names = [CHILD] * child + [PARENT] * parent
    return Watched(1, (), "exact", disturbed=tuple({"trial_id": name, "last": False} for name in names))


@pytest.mark.parametrize(
    ("child", "parent", "alarm"),
    [(0, 0, False), (13, 0, False), (14, 0, True), (0, 14, True), (20, 6, False), (40, 8, True), (600, 600, False)],
)
def test_more_of_one_side_than_a_fair_coin_gives_is_an_alarm(child: int, parent: int, alarm: bool) -> None:
    assert (tripwires.disturbed_often(draws(child, parent)) is not None) == alarm
