"""When a person is asked about a successor, and what their answer is bound to."""

from __future__ import annotations

from pathlib import Path

import pytest
import small_world
from test_loop import SUBMIT, Scripted, opened, write

from bellglass.blobs import Blobs
from bellglass.errors import ReviewPending, TripwireFired
from bellglass.ledger import Ledger
from bellglass.loop import run_loop
from bellglass.review import trainer_first
from bellglass.verify import verify

BOAST = small_world.TRAINER["trainer/train.py"].replace("float(bits)", "0.5")


@pytest.mark.slow
def test_a_successor_that_set_off_a_tripwire_needs_a_decision_of_its_own(tmp_path: Path) -> None:
    folder = small_world.create(tmp_path / "loops", generations=1, review="tripwire")
    boaster = Scripted(write("trainer/train.py", BOAST), SUBMIT)
    with opened(folder, boaster) as crew:
        with pytest.raises(TripwireFired):
            run_loop(crew)
        crew.place.books.record("tripwire.rearmed", name="claim_mismatch", who="me", reason="looked")
        with pytest.raises(ReviewPending):
            run_loop(crew)
        assert crew.state.champion == crew.state.starter


def test_what_an_improver_session_printed_is_kept_and_verified(tmp_path: Path) -> None:
    folder = small_world.create(tmp_path / "loops", "print('nothing to do')", generations=1)
    with opened(folder, Scripted()) as crew:
        run_loop(crew)
        (log,) = crew.state.generations[1].logs
        assert crew.place.books.blobs.get(log) == b"nothing to do\n"
    with Ledger.open(folder) as ledger:
        assert all(finding.ok for finding in verify(folder, ledger))
        path = Blobs(folder / "blobs").folder / log[:2] / log
        path.chmod(0o644)
        path.write_bytes(b"something else\n")
        assert [finding.what for finding in verify(folder, ledger) if not finding.ok] == ["blobs"]


def test_the_trainers_part_of_a_diff_comes_first_whatever_pads_the_scaffold() -> None:
    scaffold = "diff --git a/scaffold/a.md b/scaffold/a.md\n+diff --git a/trainer/fake b/trainer/fake\n"
    trainer = "diff --git a/trainer/model.py b/trainer/model.py\n+x\n"
    assert trainer_first(scaffold + trainer) == trainer + scaffold


@pytest.mark.slow
def test_an_adoption_that_its_verdicts_do_not_bear_out_is_noticed(tmp_path: Path) -> None:
    folder = small_world.create(tmp_path / "loops", generations=1)
    with opened(folder, Scripted(write("trainer/objective.py", "SMOOTHING = 1e9\n"), SUBMIT)) as crew:
        state = run_loop(crew)
        gate = {**state.generations[1].gate, "decision": "adopt"}
        crew.place.books.record("gate.decided", generation=1, gate=gate)  # a forger with the lock and a good chain
    with Ledger.open(folder) as ledger:
        assert [finding.what for finding in verify(folder, ledger) if not finding.ok] == ["gates"]
