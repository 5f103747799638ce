"""A champion that fails when it is trained again is none, and its parent stays."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import small_world

from bellglass import wiring
from bellglass.doors.process_glass import ProcessGlass
from bellglass.doors.process_glass.glass import ProcessGuest
from bellglass.errors import GuestFault
from bellglass.loop import run_loop
from bellglass.ports import GuestSpec
from bellglass.store.ledger import Ledger
from bellglass.store.state import State
from bellglass.verify import verify


class Crashing(ProcessGlass):
    """The guests of one trial crash."""

    trial = ""

    def open(self, spec: GuestSpec) -> ProcessGuest:
        if spec.labels.get("trial") == self.trial:
            raise GuestFault("crashed", "the guest has ended")
        return super().open(spec)


def run(home: Path, trial: str) -> State:
    folder = small_world.create(home / "loops", generations=1)
    glass = Crashing(warm=False, home=home / "guests")
    glass.trial = trial
    with wiring.open_loop(folder, small_world.quiet(), models={"main": small_world.Tuner()}, glass=glass) as crew:
        state = run_loop(crew)
    with closing(Ledger.open(folder)) as ledger:
        findings = verify(folder, ledger)
    assert all(finding.ok for finding in findings), findings
    return state


def test_a_champion_that_fails_on_its_panel_is_withdrawn_and_nothing_is_inherited(tmp_path: Path) -> None:
    state = run(tmp_path, "g1-panel-1")
    gen = state.generation(1)
    assert gen.gate["decision"] == "adopt"
    assert (gen.result["trainer"], gen.result["scaffold"]) == ("rejected", "not inherited")
    assert gen.result["why"].endswith("trained again on new seeds it failed: g1-panel-1: crashed")
    assert state.champion == state.starter
    assert state.final["gain"] is None, "the starter is not compared with itself"


def test_a_child_whose_trial_fails_at_the_gate_is_rejected_whatever_its_other_pairs_say(tmp_path: Path) -> None:
    gen = run(tmp_path, "g1-pair-1-child").generation(1)
    assert gen.gate["decision"] == "reject"
    assert gen.gate["why"] == "the successor's trial g1-pair-1-child failed: crashed"
    assert len(gen.gate["child_scores"]) == 1, "the pair before it stays on record"
