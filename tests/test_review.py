"""When a person is asked about a successor, and what their answer is bound to."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import made_loop
import pytest
import small_world
from small_world import SUBMIT, Scripted, opened, write
from typer.testing import CliRunner

from bellglass.cli import app
from bellglass.commands import check
from bellglass.errors import ReviewPending, TripwireFired, UsageError
from bellglass.loop import run_loop
from bellglass.paths import LEDGER_NAME
from bellglass.review import Answer, decision_event, trainer_first
from bellglass.store.blobs import Blobs
from bellglass.store.ledger import Ledger
from bellglass.store.state import Generation, State
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


HASH = "0123456789abcdef" * 4


@pytest.mark.parametrize("given", [HASH, HASH[:12], HASH[:40]])
def test_a_decision_names_its_evidence_whole_or_by_its_beginning(given: str) -> None:
    state = State(generations={1: Generation(1, "p", review_hash=HASH)})
    assert decision_event(state, 1, Answer("approve", "looked", "me"), given)["evidence_hash"] == HASH


@pytest.mark.parametrize("given", ["", HASH[:11], HASH[1:13], HASH + "0", HASH[:12].upper()])
def test_a_decision_on_other_or_too_vaguely_named_evidence_is_refused(given: str) -> None:
    state = State("1a2b", generations={1: Generation(1, "p", review_hash=HASH)})
    with pytest.raises(UsageError, match="which is what waits; next: bellglass review 1a2b"):
        decision_event(state, 1, Answer("approve", "looked", "me"), given)


@pytest.mark.parametrize("digits", [12, 64])
def test_verify_finds_a_head_that_was_noted_elsewhere_or_says_that_it_is_gone(tmp_path: Path, digits: int) -> None:
    folder = small_world.create(tmp_path / "loops")
    with Ledger.open(folder, write=True) as ledger:
        noted = ledger.head[:digits]
        ledger.append("stop.requested", {"who": "me", "reason": "enough"})
        later = ledger.head[:digits]
    with Ledger.open(folder) as ledger:
        found = verify(folder, ledger, noted)
        assert all(finding.ok for finding in found)
        assert found[1].found == f"{noted[:12]} is that of event 1"
    with sqlite3.connect(folder / LEDGER_NAME) as other:
        other.execute("DELETE FROM events WHERE seq = 2")
    other.close()
    with Ledger.open(folder) as ledger:
        wrong = [finding.what for finding in verify(folder, ledger) if not finding.ok]
        assert wrong == ["standing"]  # where it was made; elsewhere nothing is noticed without a head
        assert [finding.what for finding in verify(folder, ledger, later) if not finding.ok] == ["head", "standing"]


def test_a_head_of_another_loop_fails_alone_and_the_error_says_what_to_type(tmp_path: Path) -> None:
    folder = made_loop.write(tmp_path, 1, texts=True, seed=5)
    told = CliRunner().invoke(app, ["verify", str(folder), "--head", "0" * 12])
    assert (told.exception.code, told.exception.found) == ("verify_failed", "what does not fit: head")
    assert told.exception.next_command == f"bellglass log {folder}"
    assert "restore" not in told.output


def test_verify_notices_that_a_loop_of_ones_own_has_lost_its_secret(tmp_path: Path) -> None:
    folder = small_world.create(tmp_path / "loops")
    with Ledger.open(folder) as ledger:
        assert all(finding.ok for finding in verify(folder, ledger))
        (folder / "secret").unlink()
        assert [finding.what for finding in verify(folder, ledger) if not finding.ok] == ["secret"]


def test_verify_never_sends_a_person_to_verify(tmp_path: Path) -> None:
    folder = made_loop.write(tmp_path, 1, texts=True, seed=5)
    next((folder / "blobs").glob("*/*")).unlink()
    shutil.rmtree(folder / "lineage.git")
    told = CliRunner().invoke(app, ["verify", str(folder)])
    assert told.exception.found == "what does not fit: bundles, blobs"
    assert "next:" not in told.output


@pytest.mark.parametrize("head", ["", "0123", "no digits of a hash", "0" * 65])
def test_a_head_that_is_none_is_a_usage_error(head: str) -> None:
    with pytest.raises(UsageError, match="--head"):
        check.verify(loop=None, head=head, rejudge=False, loops=None, json=False)


def test_the_trainers_part_of_a_diff_comes_first_whatever_pads_the_scaffold() -> None:
    scaffold = "diff --git a/scaffold/a.md b/scaffold/a.md\n+diff --git a/trainer/fake b/trainer/fake\n"
    trainer = "diff --git a/trainer/model.py b/trainer/model.py\n+x\n"
    assert trainer_first(scaffold + trainer) == trainer + scaffold
