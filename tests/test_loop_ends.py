"""How a loop ends, is halted, and goes on: bounds, a stop, tripwires, a machine that loses what it needs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import small_world
from small_world import SUBMIT, Scripted, Tuner, opened, write

from bellglass import wiring
from bellglass.doors.process_glass import ProcessGlass
from bellglass.errors import BoundReached, Interrupted, LoopFault, SetupError, TripwireFired, UsageError
from bellglass.loop import run_loop
from bellglass.steps.trial import seeds_of
from bellglass.store.ledger import Ledger
from bellglass.store.state import state_of


@pytest.mark.slow
def test_a_bound_ends_the_loop_resumably_and_raising_it_goes_on(tmp_path: Path) -> None:
    folder = small_world.create(tmp_path / "loops", generations=1, trials_per_generation=1, train_seconds=57.0)
    with opened(folder, Tuner()) as crew:
        with pytest.raises(BoundReached):
            run_loop(crew)
        assert crew.state.ended["why"] == "bound"
        assert crew.state.spent.train_seconds <= 57.0
    with opened(folder, Tuner(), train_seconds=200.0) as crew:
        state = run_loop(crew)
    assert state.ended["why"] == "finished"
    assert state.burnt.train_seconds == 0


@pytest.mark.slow
def test_a_stop_in_the_inbox_ends_the_loop_and_resume_finishes_it(home: Path) -> None:
    folder = small_world.create(home, generations=1)
    with opened(folder, Tuner()) as crew:
        crew.place.books.ledger.post("stop", {"who": "me", "reason": "enough"})
        with pytest.raises(Interrupted):
            run_loop(crew)
        assert crew.state.ended["why"] == "stopped"
    with opened(folder, Tuner()) as crew:
        assert run_loop(crew).ended["why"] == "finished"


@pytest.mark.slow
def test_a_finished_loop_is_never_opened_again(adopted: Path) -> None:
    with Ledger.open(adopted) as ledger:
        head = ledger.head
    with opened(adopted, Tuner()) as crew:
        run_loop(crew)
        assert crew.place.books.ledger.head == head
    with pytest.raises(UsageError) as told, opened(adopted, Tuner(), generations=5):
        pass
    assert told.value.code == "loop_finished"


@pytest.mark.slow
def test_a_claim_far_better_than_the_verdict_trips_and_only_a_person_goes_on(home: Path) -> None:
    boast = small_world.TRAINER["trainer/train.py"].replace("float(bits)", "0.5")
    folder = small_world.create(home, generations=1)
    with opened(folder, Scripted(write("trainer/train.py", boast), SUBMIT)) as crew, pytest.raises(TripwireFired):
        run_loop(crew)
    with opened(folder, Tuner()) as crew:
        with pytest.raises(TripwireFired):
            run_loop(crew)
        assert [wire["name"] for wire in crew.state.tripwires] == ["claim_mismatch"]
        crew.place.books.record("tripwire.rearmed", name="claim_mismatch", who="me", reason="looked")
        assert run_loop(crew).ended["why"] == "finished"


def test_a_parent_that_fails_at_the_gate_halts_the_loop_and_only_a_person_goes_on(tmp_path: Path) -> None:
    twin = small_world.create(tmp_path / "twin", generations=1)  # the same seed, so the same secret
    when = seeds_of((twin / "secret").read_bytes(), "g1-pair-1-parent").data_seed
    gives_up = f"if SMOOTHING == 1e5 and glass.args['data_seed'] == {when}:\n    raise SystemExit(1)\n"
    bundle = small_world.starter()
    bundle = {**bundle, "trainer/train.py": bundle["trainer/train.py"] + gives_up.encode()}
    folder = wiring.create(small_world.config(generations=1), tmp_path / "twin", bundle)
    with opened(folder, Tuner()) as crew, pytest.raises(TripwireFired):
        run_loop(crew)
    (wire,) = state_of(folder).tripwires
    assert (wire["name"], "g1-pair-1-parent" in wire["sentence"]) == ("parent_failed", True)
    with opened(folder, Tuner()) as crew:
        crew.place.books.record("tripwire.rearmed", name="parent_failed", who="me", reason="looked")
        state = run_loop(crew)
    assert (state.generations[1].result["trainer"], state.ended["why"]) == ("rejected", "finished")


@pytest.mark.parametrize(
    ("spoil", "code"),
    [(Path.unlink, "secret_unreadable"), (lambda secret: secret.write_bytes(bytes(32)), "secret_wrong")],
)
def test_a_loop_without_its_own_secret_does_not_go_on(
    tmp_path: Path, spoil: Callable[[Path], object], code: str
) -> None:
    folder = small_world.create(tmp_path / "loops")
    spoil(folder / "secret")
    with pytest.raises(LoopFault) as told, opened(folder, Tuner()):
        pass
    assert told.value.code == code


class Gone(ProcessGlass):
    """A process glass whose machine loses what it needs."""

    def open(self, spec):  # type: ignore[no-untyped-def]
        raise SetupError("the engine", "no answer", "a running one", "start it", code="docker_silent")


@pytest.mark.slow
def test_an_engine_that_goes_away_is_recorded_and_the_loop_resumes(home: Path) -> None:
    folder = small_world.create(home, generations=1)
    with opened(folder, Tuner(), glass=Gone(warm=False, home=home.parent / "guests")) as crew:
        with pytest.raises(SetupError):
            run_loop(crew)
        assert (crew.state.ended["why"], crew.state.ended["code"]) == ("failed", "docker_silent")
    with opened(folder, Tuner()) as crew:
        assert run_loop(crew).ended["why"] == "finished"
