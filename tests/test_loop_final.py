"""The end of a loop: `final` is opened once, for starter and champion, and an alarm on it takes the gain back."""

from __future__ import annotations

from pathlib import Path

import pytest
import small_world
from small_world import Tuner, opened

from bellglass import wiring
from bellglass.commands.console import final_line
from bellglass.errors import TripwireFired, UsageError
from bellglass.loop import run_loop
from bellglass.show import view
from bellglass.show.conclusions import conclusions
from bellglass.show.splits import looks
from bellglass.show.summary import as_json
from bellglass.steps.trial import seeds_of
from bellglass.store.ledger import Event, Ledger
from bellglass.store.state import state_of
from bellglass.tripwires import place


@pytest.mark.slow
def test_final_is_opened_once_for_starter_and_champion_however_often_the_loop_is_resumed(home: Path) -> None:
    events: list[Event] = []
    surface = wiring.Surface(events.append, lambda trial, phase: None, None, lambda: None)
    folder = small_world.create(home, generations=1)

    def interrupt(event: Event) -> None:
        events.append(event)
        if event.kind == "trial.settled" and event.body["trial_id"] == "final-pair-0-champion":
            raise KeyboardInterrupt

    with (
        pytest.raises(KeyboardInterrupt),
        opened(folder, Tuner(), wiring.Surface(interrupt, surface.progress, None, surface.interrupted)) as crew,
    ):
        run_loop(crew)
    with pytest.raises(UsageError) as told, opened(folder, Tuner(), generations=3):
        pass  # a later champion would be credited with this one's trials
    assert told.value.code == "loop_finished"
    for _ in range(2):
        with opened(folder, Tuner(), surface) as crew:
            state = run_loop(crew)
    opened_at = [event.seq for event in events if event.kind == "final.opened"]
    judged = [event for event in events if event.kind == "trial.settled" and event.body["purpose"] == "final"]
    assert len(opened_at) == 1
    assert len({event.body["trial_id"] for event in judged}) == len(judged) == 2 * crew.config.panel
    assert {event.body["bundle"] for event in judged} == {state.starter, state.champion}
    last = max(event.seq for event in events if event.kind == "generation.ended")
    assert last < min(event.seq for event in judged)
    assert looks(state)["final"] == len(judged)


def test_an_alarm_on_final_halts_the_loop_and_nobody_is_shown_its_gain(tmp_path: Path) -> None:
    """The trainer claims too much, and only where nobody could know before: under the seeds of `final`."""
    twin = small_world.create(tmp_path / "twin", generations=1)  # the same seed, so the same secret
    when = seeds_of((twin / "secret").read_bytes(), "final-pair-0-champion").data_seed
    bundle, honest = small_world.starter(), b'glass.metric("claim_bits", float(bits))'
    lying = b'glass.metric("claim_bits", float(bits) - (glass.args["data_seed"] == %d))' % when
    bundle = {**bundle, "trainer/train.py": bundle["trainer/train.py"].replace(honest, lying)}
    folder = wiring.create(small_world.config(generations=1), tmp_path / "twin", bundle)
    with opened(folder, Tuner()) as crew, pytest.raises(TripwireFired):
        run_loop(crew)
    state = state_of(folder)
    assert [wire["name"] for wire in state.tripwires] == ["claim_mismatch"]
    assert state.generations[1].result["trainer"] == "adopted"
    assert state.ended["why"] == "tripwire"
    assert state.final["gain"]["low"] > 0  # it would look good
    assert final_line(state).startswith("final: not believed, for a tripwire fired: claim_mismatch")
    assert view.document(state)["final"]["gain"] is None
    assert not any("better than the starter" in line for line in conclusions(state)["may"])
    assert (as_json(state)["final"]["gain"], place(state.tripwires[0])) == (None, "on final")
    with pytest.raises(UsageError) as told, opened(folder, Tuner(), generations=2):
        pass
    assert told.value.code == "loop_finished"
    with Ledger.open(folder) as ledger:  # as where an ending owner held the lock still
        ledger.post("rearm", {"name": "claim_mismatch", "who": "me", "reason": "I have looked"})
    with opened(folder, Tuner(), wall_seconds=500.0) as crew:
        assert run_loop(crew).ended["why"] == "finished"
    assert "not believed" in final_line(state_of(folder))
