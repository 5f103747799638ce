"""What a generation adopts and what it rejects: better, worse, equal and broken trainers, and by a person's word."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import small_world
from small_world import SUBMIT, Scripted, Tuner, opened, run, write

from bellglass import wiring
from bellglass.doors.process_glass import ProcessGlass
from bellglass.doors.process_glass.glass import ProcessGuest
from bellglass.errors import ReviewPending
from bellglass.loop import run_loop
from bellglass.ports import GuestSpec
from bellglass.records import Role
from bellglass.review import Answer, Evidence
from bellglass.show.splits import fitted
from bellglass.steps.panel import calibration_order
from bellglass.store.state import state_of


def test_a_better_trainer_is_adopted_and_its_scaffold_inherited(adopted: Path) -> None:
    state = state_of(adopted)
    result = state.generations[1].result
    assert (result["trainer"], result["scaffold"]) == ("adopted", "inherited")
    assert state.champion == result["champion"] != state.starter
    assert state.final["gain"]["low"] > 0
    assert state.ended["why"] == "finished"
    gate = state.trials_of(1, "gate")
    assert all(trial.verdict.select_score is not None for trial in gate)
    assert fitted(gate).n == len(gate) // 2


class Clocked(ProcessGlass):
    """A guest of the judge has used a quarter of a second by the second look at its clock, and nothing after that."""

    def open(self, spec: GuestSpec) -> ProcessGuest:
        guest = super().open(spec)
        if spec.role is Role.PREDICT:
            first = iter([0.0])
            guest.cpu_seconds = lambda: next(first, 0.25)
        return guest


def test_what_the_guests_of_the_judge_used_is_in_the_record_of_each_trial(tmp_path: Path) -> None:
    glass = Clocked(warm=False, forks=True, home=tmp_path / "guests")
    with opened(small_world.create(tmp_path / "loops"), Tuner(), glass=glass) as crew:
        (trial,) = crew.place.lab.run([calibration_order(crew.place.lab, "cal-0x0", crew.state.starter)])
        assert trial.predicted_seconds == 0.25
        assert crew.state.trials["cal-0x0"].predicted_seconds == 0.25


def test_a_worse_trainer_is_rejected_and_so_is_its_scaffold(home: Path) -> None:
    worse = write("trainer/objective.py", "SMOOTHING = 1e9\n")
    state = run(home, Scripted(worse, write("scaffold/marks.md", "mine"), SUBMIT))
    assert state.generations[1].result["trainer"] == "rejected"
    assert state.generations[1].result["scaffold"] == "not inherited"
    assert state.champion == state.starter


@pytest.mark.parametrize(
    ("objective", "pairs", "why"),
    [
        ("SMOOTHING = 100001.0\n", 5, "no difference over"),
        pytest.param("SMOOTHING = 100000.0  # as it was\n", 3, "all 3 pairs are bit-equal", marks=pytest.mark.slow),
    ],
)
def test_neutral_lets_a_scaffold_through_beside_an_equal_trainer_which_stays_behind(
    home: Path, objective: str, pairs: int, why: str
) -> None:
    edits = write("trainer/objective.py", objective), write("scaffold/marks.md", "mine")
    folder = small_world.create(home, generations=1, scaffold_rule="neutral", panel=3, max_pairs=5)
    with opened(folder, Scripted(*edits, SUBMIT)) as crew:
        state = run_loop(crew)
        parent, champion = (crew.place.lineage.read(commit) for commit in (state.starter, state.champion))
    gen = state.generations[1]
    assert (gen.gate["decision"], len(gen.gate["parent_scores"])) == ("equal", pairs)
    assert why in gen.gate["why"]
    assert (gen.result["trainer"], gen.result["scaffold"]) == ("rejected", "inherited")
    assert champion == {**parent, "scaffold/marks.md": b"mine"}


@pytest.mark.slow
def test_neutral_lets_no_scaffold_through_beside_a_trainer_that_is_not_equal(home: Path) -> None:
    edits = write("trainer/objective.py", "SMOOTHING = 300000.0\n"), write("scaffold/marks.md", "mine")
    state = run(home, Scripted(*edits, SUBMIT), scaffold_rule="neutral", panel=3, max_pairs=5)
    gen = state.generations[1]
    assert gen.gate["decision"] == "reject"
    assert (gen.result["trainer"], gen.result["scaffold"]) == ("rejected", "not inherited")
    assert state.champion == state.starter


@pytest.mark.slow
def test_a_scaffold_that_no_longer_works_stays_behind_when_its_trainer_is_adopted(home: Path) -> None:
    better = write("trainer/objective.py", "SMOOTHING = 10.0\n")
    state = run(home, Scripted(better, write("scaffold/improve.py", "raise SystemExit(0)\n"), SUBMIT))
    assert state.generations[1].result["trainer"] == "adopted"
    assert state.generations[1].result["scaffold"] == "failed boot check"


@pytest.mark.parametrize(
    ("train", "fault"),
    [
        ("raise RuntimeError('boom')\n", "crashed"),
        ("import glass\nglass.data()\n", "no_weights"),
        ("import glass\nglass.data()\nopen('out/weights.safetensors', 'wb').write(b'\\x80\\x04.')\n", "bad_weights"),
        ("import glass\nglass.data()\nwhile True: glass.time_left()\n", "overran"),
    ],
)
def test_a_trainer_that_fails_is_rejected_with_its_reason(home: Path, train: str, fault: str) -> None:
    state = run(home, Scripted(write("trainer/train.py", train), SUBMIT))
    child = state.trials["g1-pair-0-child"]
    assert (child.fault, child.verdict) == (fault, None)
    assert state.generations[1].result["trainer"] == "rejected"
    assert fault in state.generations[1].result["why"]


@pytest.mark.slow
def test_the_same_seed_gives_the_same_champion(adopted: Path, home: Path) -> None:
    one, other = state_of(adopted), run(home, Tuner())
    assert one.champion == other.champion
    assert one.final == other.final


def test_without_a_person_nothing_is_adopted_under_review(home: Path) -> None:
    folder = small_world.create(home, generations=1, review="every")
    with opened(folder, Tuner()) as crew:
        with pytest.raises(ReviewPending):
            run_loop(crew)
        assert crew.state.champion == crew.state.starter
        assert crew.state.ended["why"] == "waiting"


class Person:
    def __init__(self, decision: str) -> None:
        self.decision, self.shown = decision, list[Evidence]()

    def ask(self, evidence: Evidence, decided: Callable[[], bool]) -> Answer:
        self.shown.append(evidence)
        return Answer(self.decision, "a reason", "somebody")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("decision", "trainer", "scaffold"),
    [
        ("approve", "adopted", "inherited"),
        ("trainer", "adopted", "not inherited"),
        ("reject", "rejected", "not inherited"),
    ],
)
def test_a_persons_decision_is_what_happens(home: Path, decision: str, trainer: str, scaffold: str) -> None:
    person = Person(decision)
    surface = wiring.Surface(None, lambda trial, phase: None, person, lambda: None)
    folder = small_world.create(home, generations=1, review="every")
    with opened(folder, Tuner(), surface) as crew:
        state = run_loop(crew)
    result = state.generations[1].result
    assert (result["trainer"], result["scaffold"]) == (trainer, scaffold)
    assert "SMOOTHING" in person.shown[0].diff
    assert state.generations[1].review["evidence_hash"] == person.shown[0].hash
