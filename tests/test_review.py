"""When a person is asked about a successor, and what their answer is bound to."""

from __future__ import annotations

import io
import shutil
import sqlite3
from dataclasses import replace
from pathlib import Path

import made_loop
import pytest
import small_world
from small_world import SUBMIT, Scripted, opened, write
from typer.testing import CliRunner

from bellglass import deciding
from bellglass.cli import app
from bellglass.commands import check
from bellglass.commands.console import Terminal
from bellglass.commands.review_console import show
from bellglass.errors import ReviewPending, TripwireFired, UsageError
from bellglass.loop import run_loop
from bellglass.paths import LEDGER_NAME
from bellglass.records import Json
from bellglass.review import Answer, choices_of, decision_event, trainer_first
from bellglass.show import report, showing
from bellglass.show.report_text import markdown
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


# What is shown, and what an answer is bound to

FLAGGED = {"trainer/model.py": "RATE = 1.0\nimport socket\n", "scaffold/improve.py": "print('other')\n"}


@pytest.fixture(scope="module")
def waits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_loop.third(tmp_path_factory.mktemp("flagged"), FLAGGED)


def test_an_answer_is_bound_to_the_red_flags_and_to_what_each_choice_does(waits: Path) -> None:
    state, evidence = deciding.waiting(waits)
    assert evidence.hash == state.generation(3).review_hash
    assert [flag.code for flag in evidence.flags] == ["boot_failed", "new_import"]
    assert (evidence.flags[1].places[0].path, evidence.flags[1].places[0].line) == ("trainer/model.py", 2)
    assert replace(evidence, flags=()).hash != evidence.hash
    assert replace(evidence, choices=evidence.choices[::-1]).hash != evidence.hash


def test_a_reader_of_another_version_is_told_who_asks_again(tmp_path: Path) -> None:
    folder = made_loop.third(tmp_path, FLAGGED, asked=False)
    told = CliRunner().invoke(app, ["review", str(folder)]).output
    assert "--evidence" not in told
    assert f"bellglass resume {folder}" in told


def test_what_this_version_cannot_make_sense_of_is_one_clear_error(tmp_path: Path) -> None:
    folder = made_loop.third(tmp_path, FLAGGED)
    with Ledger.open(folder, write=True) as ledger:
        config = {key: value for key, value in made_loop.SETTINGS.items() if key != "panel"}
        ledger.append("loop.resumed", {"config": config})
    told = CliRunner().invoke(app, ["review", str(folder)])
    assert told.exception.code == "other_version"


def test_at_a_terminal_red_flags_come_first_with_their_lines_and_are_counted_beside_the_question(waits: Path) -> None:
    out = io.StringIO()
    _, evidence = deciding.waiting(waits)
    show(evidence, Terminal(file=out, width=100))
    lines = [line.strip() for line in out.getvalue().splitlines()]
    first, second = (n for n, line in enumerate(lines) if line.startswith("RED FLAG "))
    place = lines.index("trainer/model.py:2", second)
    assert lines[place + 1] == "+import socket"
    assert first < second < lines.index("diff --git a/scaffold/improve.py b/scaffold/improve.py")
    behind = max(n for n, line in enumerate(lines) if line == "+import socket")
    beside = " ".join(lines[behind:])
    assert "2 RED FLAGS, shown first: boot_failed, new_import" in beside
    assert all(outcome in beside for _, outcome in evidence.choices)


def test_red_flags_stand_above_a_diff_and_in_the_report_as_text(waits: Path) -> None:
    shown = showing.open_loop(waits)
    diff = shown.diff(3)
    assert [flag["code"] for flag in diff["flags"]] == ["boot_failed", "new_import"]
    assert diff["evidence"] == shown.state.generation(3).review_hash
    assert (shown.diff(1)["flags"], shown.diff(1)["evidence"]) == ([], None)
    assert "new\\_import" in markdown(report.gather(shown))
    assert "trainer/model.py:2" in markdown(report.gather(shown))


P, S = "p" * 40, "s" * 40
ADOPTS, SAME, BOTH = {"decision": "adopt", "why": ""}, {"decision": "equal", "why": ""}, ("data", "scaffold")
WORKS, FAILS = {"ok": True, "why": ""}, {"ok": False, "why": ""}
TAKES_BOTH, TAKES_TRAINER, TAKES_SCAFFOLD, KEEPS = "its trainer and scaffold", "its trainer alone", "alone; the", "keep"


@pytest.mark.parametrize(
    ("kinds", "gate", "boot", "rule", "approve", "trainer"),
    [
        (BOTH, ADOPTS, WORKS, "ride", TAKES_BOTH, TAKES_TRAINER),
        (BOTH, ADOPTS, FAILS, "ride", TAKES_TRAINER, TAKES_TRAINER),
        (("data",), ADOPTS, None, "ride", TAKES_TRAINER, TAKES_TRAINER),
        (BOTH, SAME, WORKS, "ride", KEEPS, KEEPS),
        (BOTH, SAME, WORKS, "neutral", TAKES_SCAFFOLD, KEEPS),
        (("scaffold",), None, WORKS, "ride", KEEPS, KEEPS),
        (("scaffold",), None, WORKS, "neutral", TAKES_SCAFFOLD, KEEPS),
        (("scaffold",), None, FAILS, "neutral", KEEPS, KEEPS),
    ],
)
def test_each_choice_says_what_it_does_to_this_successor(
    kinds: tuple[str, ...], gate: Json, boot: Json, rule: str, approve: str, trainer: str
) -> None:
    config = {"scaffold_rule": rule, "generations": 3, "panel": 4}
    gen = Generation(2, P, successor=S, kinds=kinds, gate=gate, boot=boot)
    said = dict(choices_of(State(config=config), gen))
    assert list(said) == ["approve", "trainer", "reject"]
    for word, takes in (("approve", approve), ("trainer", trainer), ("reject", KEEPS)):
        assert takes in said[word]
        assert ("runs the next session" in said[word]) == (takes != KEEPS)
        assert P[:8] in said[word] or S[:8] in said[word]
    assert ("boot check" in said["approve"]) == (boot == FAILS)
    assert ("whatever you decide" in said["reject"]) == (gate == SAME)
    last = dict(choices_of(State(config={**config, "generations": 2}), gen))
    assert ("no session follows" in last["approve"]) == (approve != KEEPS)
