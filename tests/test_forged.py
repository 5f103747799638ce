"""Verify finds ledgers whose every hash fits and which say what their own trials don't."""

from __future__ import annotations

import inspect
import shutil
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import made_loop
import pytest

from bellglass.chronicle import BOUNDS
from bellglass.commands import start
from bellglass.records import Json, Noise
from bellglass.rederive import went_on
from bellglass.stats import CONFIDENCE, paired_interval
from bellglass.steps import gate
from bellglass.store.ledger import Ledger
from bellglass.store.state import fold
from bellglass.verify import verify

Told = tuple[str, Json]
Change = Callable[[str, Json, str], bool | list[Told] | None]  # False: the event is left out; a list: comes instead


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_loop.write(tmp_path_factory.mktemp("made"), 6, texts=True, seed=4)


def wrong(folder: Path, to: Path, change: Change) -> dict[str, str]:
    """What verify says about a copy with a changed ledger, every hash made anew."""
    shutil.copytree(folder, to, ignore=shutil.ignore_patterns("loop.*"))
    with closing(Ledger.open(folder)) as ledger, closing(Ledger.create(to)) as fresh:
        starter = fold(ledger.events()).starter
        for event in ledger.events():
            instead = change(event.kind, event.body, starter)
            as_it_was = [(event.kind, event.body)] if instead is not False else []
            for kind, body in instead if isinstance(instead, list) else as_it_was:
                fresh.append(kind, body)
        return {finding.what: finding.found for finding in verify(to, fresh) if not finding.ok}


def test_an_honest_ledger_has_no_finding(loop: Path, tmp_path: Path) -> None:
    assert not wrong(loop, tmp_path / "copy", budget("g1-try-", 3.75))  # explorations may be fractions


def larger_final(kind: str, body: Json, starter: str) -> None:
    if kind == "final.opened":
        body["gain"]["low"] += 0.5


def picked_final(kind: str, body: Json, starter: str) -> bool | None:
    if kind == "final.opened":
        body["pairs"] = body["pairs"][:3]
        body["gain"] = asdict(paired_interval([tuple(pair) for pair in body["pairs"]], CONFIDENCE))
    return False if body.get("trial_id", "").startswith("final-pair-3") else None


def larger_gain(kind: str, body: Json, starter: str) -> None:
    if kind == "gate.decided":
        body["gate"]["gain"]["mean"] += 0.5


def no_gate(kind: str, body: Json, starter: str) -> bool | None:
    return kind != "gate.decided"


def called_better(kind: str, body: Json, starter: str) -> None:
    if kind == "gate.decided" and body["gate"]["decision"] == "reject":
        body["gate"]["decision"] = "adopt"


def weaker_rival(kind: str, body: Json, starter: str) -> None:
    """Each successor is trained against, and judged as, the starter."""
    if kind == "trial.settled" and body["trial_id"].endswith("-child"):
        body["bundle"] = starter


def another_champion(kind: str, body: Json, starter: str) -> None:
    if kind == "generation.ended" and body["trainer"] == "adopted":
        body["champion"] = starter


def alarm_left_out(kind: str, body: Json, starter: str) -> None:
    if kind == "trial.settled" and body["trial_id"] == "g1-pair-0-child":
        body["verdict"]["proof"]["agrees"] = False


def parent_that_failed(kind: str, body: Json, starter: str) -> None:
    if kind == "trial.settled" and body["trial_id"] == "g1-pair-0-parent":
        body["verdict"], body["fault"] = None, "crashed"


def parent_that_failed_before_there_was_an_alarm(kind: str, body: Json, starter: str) -> None:
    parent_that_failed(kind, body, starter)
    if kind == "loop.created":
        del body["tripwires"]


def alarm_on_final_left_out(kind: str, body: Json, starter: str) -> None:
    if kind == "trial.settled" and body["trial_id"] == "final-pair-0-champion":
        body["verdict"]["proof"]["agrees"] = False


def proof_left_out(kind: str, body: Json, starter: str) -> None:
    if kind == "trial.settled" and body["trial_id"] == "g1-pair-0-child":
        body["verdict"]["proof"] = None


def budget(begins: str, amount: float) -> Change:
    def change(kind: str, body: Json, starter: str) -> None:
        if kind == "trial.settled" and body["trial_id"].startswith(begins):
            body["budget"]["amount"] = amount

    return change


def other_noise(kind: str, body: Json, starter: str) -> None:
    if kind == "loop.calibrated":
        body["conditions"]["budget"] = "cpu_seconds 60"


def nicer_noise(kind: str, body: Json, starter: str) -> None:
    if kind.startswith("trial.") and body["trial_id"] == "cal-1x1":
        body["trial_id"] = "cal-01x01"


@pytest.mark.parametrize(
    ("change", "what", "found"),
    [
        (alarm_left_out, "tripwires", "proof_disagrees in generation 1 is not in the ledger"),
        (parent_that_failed, "tripwires", "parent_failed in generation 1 is not in the ledger"),
        (alarm_on_final_left_out, "tripwires", "proof_disagrees on final is not in the ledger"),
        (proof_left_out, "tripwires", "g1-pair-0-child has a verdict, and no proof"),
        (budget("g1-pair-0-child", 60.0), "budgets", "child was given cpu_seconds 60, and cal-0x0 cpu_seconds 15"),
        (budget("final-pair-0-champion", 60.0), "budgets", "final-pair-0-champion was given cpu_seconds 60"),
        (budget("g1-try-0", 60.0), "budgets", "g1-try-0 was given cpu_seconds 60"),
        (other_noise, "budgets", "the noise is that of trainings of cpu_seconds 60, and cal-0x0 had cpu_seconds 15"),
        (nicer_noise, "gates", "not those that it takes"),
        (picked_final, "final", "6 trainings, and it takes 8"),
        (larger_final, "final", "not that of its trials"),
        (larger_gain, "gates", "not those of its trials"),
        (no_gate, "gates", "generation 1: it ended without a gate"),
        (called_better, "gates", "adopt recorded, reject derived"),
        (weaker_rival, "gates", "trained another bundle"),
        (another_champion, "bundles", "another bundle"),
    ],
)
def test_what_does_not_follow_from_the_trials_is_found(
    loop: Path, tmp_path: Path, change: Change, what: str, found: str
) -> None:
    assert found in wrong(loop, tmp_path / "forged", change)[what]


def test_an_older_loop_owes_no_alarm_of_a_later_tripwire(loop: Path, tmp_path: Path) -> None:
    assert "tripwires" not in wrong(loop, tmp_path / "old", parent_that_failed_before_there_was_an_alarm)


def twice(kind: str, **other: Json) -> Change:
    """Another outcome before the one that counts."""

    def change(found: str, body: Json, starter: str) -> list[Told] | None:
        return [(kind, {**body, **other}), (kind, body)] if found == kind else None

    return change


def run_again(kind: str, body: Json, starter: str) -> list[Told] | None:
    """A child that lost, trained once more until it won."""
    if kind == "trial.settled" and body["trial_id"] == "g1-pair-0-child":
        begun = ("trial.intended", {**body, "ask": {}, "generation": 1})
        return [(kind, {**body, "verdict": {**body["verdict"], "score": 9.0}}), begun, (kind, body)]
    return None


def begun_again(kind: str, body: Json, starter: str) -> list[Told] | None:
    if kind == "generation.ended" and body["generation"] == 1:
        return [(kind, body), ("generation.started", {"generation": 1.0, "parent": starter})]
    return None


def never_begun(kind: str, body: Json, starter: str) -> bool | None:
    return False if kind == "trial.intended" and body["trial_id"] == "g1-pair-0-child" else None


def other_rules(kind: str, body: Json, starter: str) -> list[Told] | None:
    if kind == "loop.ended":
        return [("loop.resumed", {"config": {**made_loop.SETTINGS, "generations": 6, "alpha": 0.49}}), (kind, body)]
    return None


def ended(number: int, *before: Told) -> Change:
    """Something comes before a generation's end."""

    def change(kind: str, body: Json, starter: str) -> list[Told] | None:
        return [*before, (kind, body)] if kind == "generation.ended" and body["generation"] == number else None

    return change


ASKED = ("review.requested", {"generation": 1, "evidence_hash": "ab" * 32})
SAID = {"generation": 1, "decision": "trainer", "reason": "so", "who": "me"}
ALARM = {"name": "below_floor", "generation": 1, "sentence": "impossible", "evidence": ["g1-pair-0-child"]}


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (run_again, "tells trial.settled of trial_id g1-pair-0-child again"),
        (begun_again, "generation.started, names 1.0 as its generation"),
        (ended(2, ("generation.started", {"generation": 1, "parent": ""})), "generation.started of generation 1 again"),
        (twice("loop.calibrated", noise={"sd": 9.0, "df": 3}), "tells loop.calibrated again"),
        (twice("gate.decided", gate={"decision": "reject"}), "tells gate.decided of generation 1 again"),
        (twice("final.opened", pairs=[]), "tells final.opened again"),
        (never_begun, "g1-pair-0-child ended, and had not begun"),
        (other_rules, "resumed with another alpha, 0.49 for 0.05"),
        (ended(1, ("review.decided", {**SAID, "evidence_hash": "ab" * 32})), "a review of generation 1 that nobody"),
        (ended(1, ASKED, ("review.decided", {**SAID, "evidence_hash": "cd" * 32})), "a review of generation 1 that no"),
        (ended(1, ("tripwire.fired", ALARM)), "generation 1 went on past below_floor"),
    ],
)
def test_an_outcome_that_is_told_twice_or_before_its_turn_is_found(
    loop: Path, tmp_path: Path, change: Change, found: str
) -> None:
    assert found in wrong(loop, tmp_path / "forged", change)["events"]


def test_a_loop_that_was_cut_off_and_given_more_is_honest_and_says_what_was_run_again(
    loop: Path, tmp_path: Path
) -> None:
    resumed = ("loop.resumed", {"config": {**made_loop.SETTINGS, "generations": 7, "train_seconds": 90000.0}})

    def interrupted(kind: str, body: Json, starter: str) -> list[Told] | None:
        names = ("g1-pair-0-child", "cal-1x1", "g1-try-0")
        if kind == "trial.intended" and body["trial_id"] in names:
            return [(kind, body), ("trial.burnt", {"trial_id": body["trial_id"]}), resumed, (kind, body)]
        return None

    to = tmp_path / "copy"
    assert not wrong(loop, to, interrupted)
    with closing(Ledger.open(to)) as ledger:
        found = {finding.what: finding.found for finding in verify(to, ledger)}["events"]
    assert "2 trainings that decide were cut off" in found
    assert found.endswith("under its name: cal-1x1, g1-pair-0-child")


def boot_failed(kind: str, body: Json, starter: str) -> None:
    if kind == "boot.checked":
        body |= {"ok": False, "fault": "crashed"}


def every_asked(kind: str, body: Json, starter: str) -> None:
    if kind == "loop.created":
        body["config"]["review"] = "every"


def tripped(kind: str, body: Json, starter: str) -> None:
    if kind == "generation.watched" and body["generation"] == 6:
        body["alarms"] = 1


def panel_failed(kind: str, body: Json, starter: str) -> None:
    if kind == "trial.settled" and body["trial_id"] == "g6-panel-1":
        body |= {"verdict": None, "fault": "crashed"}


def panel_picked(kind: str, body: Json, starter: str) -> bool | None:
    return False if body.get("trial_id") == "g6-panel-3" else None


def panel_elsewhere(kind: str, body: Json, starter: str) -> None:
    if kind == "trial.settled" and body["trial_id"] == "g6-panel-1":
        body["bundle"] = starter


def called_adopted(kind: str, body: Json, starter: str) -> None:
    if kind == "generation.ended" and body["generation"] == 2:
        body["trainer"] = "adopted"


ASKED_6 = ("review.requested", {"generation": 6, "evidence_hash": "ab" * 32})
SAID_6 = ("review.decided", {**SAID, "generation": 6, "evidence_hash": "ab" * 32})


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (boot_failed, "6: adopted and inherited recorded, adopted and failed boot check derived"),
        (every_asked, "1: nobody was asked for the review"),
        (tripped, "6: nobody was asked for the review"),
        (ended(6, ASKED_6, SAID_6), "6: adopted and inherited recorded, adopted and not inherited derived"),
        (panel_failed, "6: adopted and inherited recorded, rejected and not inherited derived"),
        (panel_picked, "6: its champion was trained again 3 times, not 4"),
        (panel_elsewhere, "6: g6-panel-1 trained another bundle"),
        (called_adopted, "2: adopted and unchanged recorded, rejected and unchanged derived"),
    ],
)
def test_an_adoption_that_does_not_follow_is_found(loop: Path, tmp_path: Path, change: Change, found: str) -> None:
    assert f"generation {found}" in wrong(loop, tmp_path / "forged", change)["adoptions"]


def test_a_champion_that_failed_on_its_panel_and_was_withdrawn_is_honest(loop: Path, tmp_path: Path) -> None:
    def withdrawn(kind: str, body: Json, starter: str) -> bool | None:
        panel_failed(kind, body, starter)
        if kind == "generation.ended" and body["generation"] == 6:
            body |= {"trainer": "rejected", "scaffold": "not inherited", "champion": starter}
        if kind == "final.opened":
            body |= {"champion": starter, "gain": None, "pairs": []}
        return False if body.get("trial_id", "").startswith("final-") else None

    assert not wrong(loop, tmp_path / "copy", withdrawn)


def test_a_resumed_loop_may_have_changed_what_resume_changes_and_nothing_else() -> None:
    elsewhere = {"loop", "task", "watch", "wandb", "loops", "json"}  # a task by its folder, not another one
    assert set(inspect.signature(start.resume).parameters) - elsewhere == BOUNDS


def test_pairs_behind_a_decision_are_found() -> None:
    """A loser that is given more, lucky pairs after the gate had rejected it."""
    rules = gate.Rules(0.02, Noise(0.04, 3), 8)
    lost, lucky = [(2.0, 2.6)], [(2.0 + k / 50, 1.2 - k / 70) for k in range(2, 8)]
    assert gate.decide(lost, rules).decision == "reject"
    assert went_on([*lost, *lucky], rules)
    assert not went_on(lost, rules)


def test_a_noise_from_the_shelf_is_said_to_be_believed(loop: Path, tmp_path: Path) -> None:
    def stored(kind: str, body: Json, starter: str) -> None:
        if kind == "loop.calibrated":
            body["measured"] = False

    to = tmp_path / "copy"
    assert not wrong(loop, to, stored)
    with closing(Ledger.open(to)) as ledger:
        assert "believed" in {finding.what: finding.found for finding in verify(to, ledger)}["gates"]
