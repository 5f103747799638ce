"""A champion is trained again: one that fails then is none, and one that sets off an alarm waits for a person."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import small_world
from small_world import Tuner, opened

from bellglass import wiring
from bellglass.doors.process_glass import ProcessGlass
from bellglass.doors.process_glass.glass import ProcessGuest
from bellglass.errors import TripwireFired
from bellglass.loop import run_loop
from bellglass.ports import GuestSpec
from bellglass.review import Answer, Evidence
from bellglass.steps.trial import seeds_of
from bellglass.store.state import State


class Crashing(ProcessGlass):
    """The guests of one trial crash."""

    trial = ""

    def open(self, spec: GuestSpec) -> ProcessGuest:
        guest = super().open(spec)
        if spec.labels.get("trial") == self.trial:
            guest.send_file = lambda name, data: ProcessGuest.send_file(guest, name, b"raise SystemExit(1)\n")  # type: ignore[method-assign]
        return guest


def run(home: Path, trial: str) -> State:
    glass = Crashing(warm=False, forks=True, home=home.parent / "guests")
    glass.trial = trial
    with opened(small_world.create(home, generations=1), Tuner(), glass=glass) as crew:
        return run_loop(crew)


def test_a_champion_that_fails_on_its_panel_is_withdrawn_and_nothing_is_inherited(home: Path) -> None:
    state = run(home, "g1-panel-1")
    gen = state.generation(1)
    assert gen.gate["decision"] == "adopt"
    assert (gen.result["trainer"], gen.result["scaffold"]) == ("rejected", "not inherited")
    assert gen.result["why"].endswith("trained again on new seeds it failed: g1-panel-1: crashed")
    assert state.champion == state.starter
    assert state.final["gain"] is None, "the starter is not compared with itself"


def test_a_child_whose_trial_fails_at_the_gate_is_rejected_whatever_its_other_pairs_say(home: Path) -> None:
    gen = run(home, "g1-pair-1-child").generation(1)
    assert gen.gate["decision"] == "reject"
    assert gen.gate["why"] == "the successor's trial g1-pair-1-child failed: crashed"
    assert len(gen.gate["child_scores"]) == 1, "the pair before it stays on record"


class TrainerAlone:
    def ask(self, evidence: Evidence, decided: Callable[[], bool]) -> Answer:
        return Answer("trainer", "its scaffold is not wanted", "somebody")


def test_after_an_alarm_on_its_panel_a_person_may_take_the_trainer_without_its_scaffold(tmp_path: Path) -> None:
    """The champion is another bundle then, with the trainer that the panel has trained."""
    twin = small_world.create(tmp_path / "twin", generations=1)  # the same seed, so the same secret
    when = seeds_of((twin / "secret").read_bytes(), "g1-panel-0").data_seed
    honest = b'glass.metric("claim_bits", float(bits))'
    lying = b'glass.metric("claim_bits", float(bits) - (glass.args["data_seed"] == %d))' % when
    bundle = small_world.starter()
    bundle = {**bundle, "trainer/train.py": bundle["trainer/train.py"].replace(honest, lying)}
    folder = wiring.create(small_world.config(generations=1, review="tripwire"), tmp_path / "loops", bundle)
    surface = wiring.Surface(None, lambda trial, phase: None, TrainerAlone(), lambda: None)
    with opened(folder, Tuner(), surface) as crew:
        with pytest.raises(TripwireFired):
            run_loop(crew)
        assert [wire["name"] for wire in crew.state.tripwires] == ["claim_mismatch"]
        crew.place.books.record("tripwire.rearmed", name="claim_mismatch", who="me", reason="looked")
        state = run_loop(crew)
    result = state.generation(1).result
    assert (result["trainer"], result["scaffold"]) == ("adopted", "not inherited")
    assert state.champion != state.trials["g1-panel-0"].bundle
