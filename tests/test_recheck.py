"""Recheck: a verdict holds when it was measured, to the bit where that is asked, and a forged one is found."""

from __future__ import annotations

import hashlib
import random
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from dataclasses import replace
from pathlib import Path

import pytest
import small_world
from typer.testing import CliRunner

from bellglass import wiring
from bellglass.cli import app
from bellglass.doors.process_glass import ProcessGlass
from bellglass.errors import LoopFault, UsageError
from bellglass.holds import CHANCE, LUCK, RULE, Again, Asked, Outcome, lines, noise_explains, outcome_of
from bellglass.ports import Glass
from bellglass.recheck import prepare, recheck
from bellglass.records import Bundle, Json, Noise
from bellglass.rejudge import rejudge
from bellglass.steps import panel
from bellglass.steps.generation import _gate
from bellglass.steps.pairs import turns
from bellglass.store import bundles
from bellglass.store.bundles import starter as real_starter
from bellglass.store.ledger import Ledger
from bellglass.store.lineage import Lineage
from bellglass.verify import verify

WORSE = {"trainer/objective.py": b"SMOOTHING = 1e7\n"}


def decided(home: Path, first: Bundle, edit: Bundle, through: Glass, **chosen: object) -> Path:
    """A loop of which only the first gate was run: its successor is a clear loser, so one pair decides."""
    folder = wiring.create(small_world.config(generations=1, **chosen), home / "loops", first)
    with wiring.open_loop(folder, small_world.quiet(), models={"main": small_world.Tuner()}, glass=through) as crew:
        books, parent = crew.place.books, crew.state.champion
        found = panel.calibrate(crew.place.lab, crew.state, crew.conditions, crew.shelf, seeds=2)
        books.record("loop.calibrated", smallest_gain=1.0, **found)
        books.record("generation.started", generation=1, parent=parent)
        successor = crew.place.lineage.commit({**first, **edit}, parent, "worse")
        kinds = sorted(crew.place.lineage.kinds(parent, successor))
        books.record("proposal.made", generation=1, successor=successor, fault=None, note="", kinds=kinds)
        _gate(crew, crew.state.generation(1))
        assert crew.state.generation(1).gate["decision"] == "reject"
    return folder


PEEKS = b"""
import os
import numpy as np
from safetensors.numpy import load_file

SURE = np.float32(0.7)


def load(folder):
    table = load_file(os.path.join(folder, "weights.safetensors"))["table"]

    def predict(tokens):
        logits = table[tokens]
        rows, cols = np.indices(tokens[:, 1:].shape)
        logits[rows, cols, tokens[:, 1:]] += SURE  # it sees the text behind
        return logits

    return predict
"""


@pytest.fixture(scope="module")
def leaky(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A loop whose successor looks ahead."""
    home = tmp_path_factory.mktemp("leaky")
    edit = {**WORSE, "trainer/model.py": PEEKS}
    return decided(home, small_world.starter(), edit, ProcessGlass(warm=False, forks=True, home=home / "guests"))


@pytest.fixture(scope="module")
def hushed(leaky: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, with a proof that its ledger calls good."""

    def hush(kind: str, body: Json) -> None:
        if kind == "trial.settled" and body["trial_id"] == "g1-pair-0-child":
            assert not body["verdict"]["proof"]["agrees"]
            body["verdict"]["proof"]["agrees"] = True

    return forged(leaky, tmp_path_factory.mktemp("hushed") / "forged", hush)


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("decided")
    return decided(home, small_world.starter(), WORSE, ProcessGlass(warm=False, forks=True, home=home / "guests"))


def again(folder: Path, guests: Path, asked: Asked) -> Outcome:
    with closing(Ledger.open(folder)) as ledger:
        case = prepare(folder, ledger, asked)
    told: list[Again] = []
    with closing(ProcessGlass(warm=False, forks=True, home=guests)) as glass:
        outcome = recheck(case, glass, side_by_side=2, say=told.append)
    in_turn = turns(case.bench.secret, f"gate-{asked.generation}")
    sides = [in_turn(outcome.trials[2 * index : 2 * index + 2], index) for index in range(len(case.jobs))]
    assert told == [trial for pair in sides for trial in pair]
    return outcome


def forged(folder: Path, to: Path, change: Callable[[str, Json], None]) -> Path:
    """A copy with a ledger written anew: every hash fits, only not what it says."""
    shutil.copytree(folder, to, ignore=shutil.ignore_patterns("loop.*"))
    with closing(Ledger.open(folder)) as ledger, closing(Ledger.create(to)) as fresh:
        for event in ledger.events():
            change(event.kind, event.body)
            fresh.append(event.kind, event.body)
    return to


def files(folder: Path) -> dict[str, str]:
    found = {path for path in folder.rglob("*") if path.is_file() and not path.name.endswith(("-shm", "-wal"))}
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


def test_a_verdict_that_was_measured_holds_to_the_bit_and_nothing_is_written(loop: Path, tmp_path: Path) -> None:
    before = files(loop)
    outcome = again(loop, tmp_path, Asked(1, exact=True))
    assert outcome.holds, outcome.why
    assert [trial.trial_id for trial in outcome.trials] == ["g1-pair-0-parent", "g1-pair-0-child"]
    assert all(trial.same and trial.same_weights for trial in outcome.trials)
    assert outcome.gain == outcome.gain_again < 0
    assert files(loop) == before


def test_a_running_loop_can_be_rechecked(loop: Path, tmp_path: Path) -> None:
    with closing(Ledger.open(loop, write=True)):
        outcome = again(loop, tmp_path, Asked(1))
    assert (outcome.holds, outcome.why) == (True, RULE)


def test_a_forged_score_is_found_although_every_hash_fits_and_what_chance_does_is_said(
    loop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flatter(kind: str, body: Json) -> None:
        if kind == "trial.settled" and body["trial_id"] == "g1-pair-0-child":
            body["verdict"]["score"] += 2.0  # a loser still, so the decision itself fits
        if kind == "gate.decided":
            body["gate"]["child_scores"] = [score + 2.0 for score in body["gate"]["child_scores"]]
            body["gate"]["gain"] |= {end: body["gate"]["gain"][end] - 2.0 for end in ("mean", "low", "high")}

    folder = forged(loop, tmp_path / "forged", flatter)
    with closing(Ledger.open(folder)) as ledger:
        assert all(finding.ok for finding in verify(folder, ledger))
    outcome = again(folder, tmp_path / "guests", Asked(1))
    assert not outcome.holds
    assert "bits apart" in outcome.why
    assert CHANCE in outcome.why

    def judging(folder: Path, device: str | None = None) -> AbstractContextManager[Glass]:
        return closing(Sealed(warm=False, forks=True, home=tmp_path / "guests"))

    monkeypatch.setattr(wiring, "judging_glass", judging)
    said = CliRunner().invoke(app, ["recheck", str(folder), "1"])
    assert said.exception.code == "verdict_not_repeated"
    assert said.exception.next_command == f"bellglass recheck {folder} 1 --exact"
    assert "note: trained again in the docker glass" in said.output


class Sealed(ProcessGlass):
    name, sealed = "docker", True


def test_a_forgery_smaller_than_the_noise_is_found_exactly(loop: Path, tmp_path: Path) -> None:
    def touch(kind: str, body: Json) -> None:
        if kind == "trial.settled" and body["trial_id"] == "g1-pair-0-parent":
            body["verdict"]["score"] += 1e-9

    outcome = again(forged(loop, tmp_path / "forged", touch), tmp_path / "guests", Asked(1, exact=True))
    assert (outcome.holds, outcome.why) == (False, "g1-pair-0-parent is not the same to the bit")


def test_judging_the_stored_weights_again_finds_scores_of_the_gate_on_both_splits_and_of_the_calibration(
    loop: Path, tmp_path: Path
) -> None:
    def flatter(kind: str, body: Json) -> None:
        if kind == "trial.settled" and body["trial_id"] == "g1-pair-0-child":
            body["verdict"]["select_score"] -= 0.01
        if kind == "trial.settled" and body["trial_id"] == "cal-1x1":
            body["verdict"]["score"] -= 0.01

    glass = ProcessGlass(warm=False, forks=True, home=tmp_path / "guests")
    with closing(glass), closing(Ledger.open(forged(loop, tmp_path / "forged", flatter))) as ledger:
        found = {finding.what: finding for finding in rejudge(ledger.folder, ledger, glass)}
    assert {what: finding.ok for what, finding in found.items()} == {
        "rejudge cal-0x0": True,
        "rejudge cal-1x1": False,
        "rejudge g1-pair-0-parent": True,
        "rejudge g1-pair-0-child": False,
    }
    assert all("on select" in finding.found for what, finding in found.items() if "pair" in what)


def test_an_alarm_of_the_proof_that_was_left_out_is_found_by_judging_again(hushed: Path, tmp_path: Path) -> None:
    glass = ProcessGlass(warm=False, forks=True, home=tmp_path / "guests")
    with closing(glass), closing(Ledger.open(hushed)) as ledger:
        assert all(finding.ok for finding in verify(hushed, ledger))
        (wrong,) = (finding for finding in rejudge(hushed, ledger, glass) if not finding.ok)
    assert wrong.what == "rejudge g1-pair-0-child"
    assert "its proof disagrees now, and the ledger does not say so" in wrong.found


@pytest.mark.parametrize(
    "asked", [Asked(1, exact=True), *(pytest.param(Asked(1, seeds=n), marks=pytest.mark.slow) for n in (None, 1))]
)
def test_nor_does_such_a_verdict_hold(hushed: Path, tmp_path: Path, asked: Asked) -> None:
    outcome = again(hushed, tmp_path, asked)
    name = "recheck" if asked.seeds else "pair"
    assert not outcome.holds
    assert outcome.why == f"the proof of g1-{name}-0-child disagrees now, and the ledger does not say so"


@pytest.mark.slow
def test_a_leak_that_the_ledger_tells_of_is_no_forgery(leaky: Path, tmp_path: Path) -> None:
    outcome = again(leaky, tmp_path, Asked(1, exact=True))
    assert outcome.holds, outcome.why


@pytest.mark.slow
def test_new_seeds_say_whether_the_gain_repeats(loop: Path, tmp_path: Path) -> None:
    outcome = again(loop, tmp_path, Asked(1, seeds=2))
    assert outcome.holds, outcome.why
    assert [trial.trial_id for trial in outcome.trials][::2] == ["g1-recheck-0-parent", "g1-recheck-1-parent"]
    assert all(trial.recorded is None and trial.again is not None for trial in outcome.trials)


def unseen(
    folder: Path,
    asked: Asked,
    gains: list[float],
    faults: dict[str, str] | None = None,
    noise: Noise | None = None,
    decision: str | None = None,
) -> Outcome:
    """What is said of trials with these gains, none of which was run."""
    with closing(Ledger.open(folder)) as ledger:
        case = prepare(folder, ledger, asked)
    rules = replace(case.rules, noise=noise or case.rules.noise)
    case = replace(case, rules=rules, decision=decision or case.decision)
    trials = []
    for index, (gain, jobs) in enumerate(zip(gains, case.jobs, strict=True)):
        for job, score in zip(jobs, (2.0 + 0.001 * index, 2.0 + 0.001 * index - gain), strict=True):
            was, fault = job.recorded, (faults or {}).get(job.trial_id)
            said = None if was is None or was.verdict is None else was.verdict.score
            then = None if was is None else was.fault
            trials.append(Again(job.trial_id, said, None if fault else score, then, fault, None, None))
    return outcome_of(case, tuple(trials))


@pytest.mark.parametrize(
    ("gains", "word"), [([1.0] * 9, "adopt"), ([-1.0, *[1.0] * 8], "reject"), ([1.0, 1.0], "undecided")]
)
def test_the_gate_is_played_on_the_new_scores_pair_by_pair(loop: Path, gains: list[float], word: str) -> None:
    """More pairs than the gate would have asked for don't change what it had said by then."""
    jittered = [gain + 0.01 * k for k, gain in enumerate(gains)]
    outcome = unseen(loop, Asked(1, seeds=len(gains)), jittered)
    assert f"the gate on the new scores alone: {word}" in lines(outcome)[1]


def test_a_gain_that_new_seeds_do_not_show_may_have_been_luck_but_one_under_the_same_seeds_was_not(loop: Path) -> None:
    for seeds, decision, lucky in ((3, "adopt", True), (3, "reject", False), (None, "adopt", False)):
        asked = Asked(1, seeds=seeds)
        found = unseen(loop, asked, [-9.0, -9.1, -9.2][: seeds or 1], noise=Noise(0.001, 20), decision=decision)
        assert not found.holds
        assert (LUCK in found.why) == lucky


def test_a_verdict_that_holds_says_little_where_the_noise_explains_more_than_its_gain(loop: Path) -> None:
    """As with one recorded pair and a noise on one degree of freedom, whatever the new gains are."""
    found = unseen(loop, Asked(1, seeds=3), [-0.2, -0.1, 0.0])
    assert (found.holds, found.says_little, found.why) == (True, True, RULE)
    assert found.explained > abs(found.gain)
    assert lines(found)[-1].startswith("generation 1 holds, but says little (the noise explains more than the recorded")
    known = replace(found, says_little=False)
    assert lines(known)[-1] == f"generation 1 holds: {RULE}"
    sure = unseen(loop, Asked(1, seeds=3), [found.gain, found.gain, found.gain], noise=Noise(0.001, 20))
    assert (sure.holds, sure.says_little) == (True, False)


@pytest.mark.parametrize("seeds", ["1", "2"])
def test_fewer_than_three_new_seeds_are_refused(loop: Path, seeds: str) -> None:
    said = CliRunner().invoke(app, ["recheck", str(loop), "1", "--seeds", seeds])
    assert said.exit_code == 2
    assert "greater than or equal to 3" in " ".join(said.output.replace("│", " ").split())


def test_a_guest_that_the_machine_lost_accuses_nobody(loop: Path, tmp_path: Path) -> None:
    def lose(fault: str) -> Callable[[str, Json], None]:
        def change(kind: str, body: Json) -> None:
            if kind == "trial.settled" and body["trial_id"] == "g1-pair-0-child":
                body |= {"fault": fault, "verdict": None}

        return change

    lost, crashed = (forged(loop, tmp_path / fault, lose(fault)) for fault in ("lost", "crashed"))
    found = unseen(lost, Asked(1), [-0.4])
    assert found.holds, found.why
    assert found.notes == ("g1-pair-0-child was lost by the machine then: not compared",)
    assert unseen(lost, Asked(1, seeds=2), [-0.4, -0.41]).holds
    assert "was recorded as failed (crashed), and is judged now" in unseen(crashed, Asked(1), [-0.4]).why
    assert "a recorded trial failed, and none does now" in unseen(crashed, Asked(1, seeds=1), [-0.4]).why
    again_crashed = unseen(crashed, Asked(1), [-0.4], {"g1-pair-0-child": "crashed"})
    assert again_crashed.holds, again_crashed.why


def test_a_child_that_was_given_more_is_not_simply_given_more_again(loop: Path, tmp_path: Path) -> None:
    def longer(kind: str, body: Json) -> None:
        if kind == "trial.settled" and body["trial_id"] == "g1-pair-0-child":
            body["budget"]["amount"] = 24.0

    found = unseen(forged(loop, tmp_path / "longer", longer), Asked(1), [-0.4])
    assert not found.holds
    told = sorted(found.why.split(", and "))  # whichever was settled first comes last
    assert [part.replace(" was given", "") for part in told] == ["g1-pair-0-child steps 24", "g1-pair-0-parent steps 6"]


def test_another_budget_than_the_presets_is_found_although_all_trainings_had_it(loop: Path, tmp_path: Path) -> None:
    def longer(kind: str, body: Json) -> None:
        if kind == "trial.settled":
            body["budget"]["amount"] = 24.0
        if kind == "loop.calibrated":
            body["conditions"]["budget"] = "steps 24"

    folder = forged(loop, tmp_path / "longer", longer)
    with closing(Ledger.open(folder)) as ledger:
        wrong = {finding.what: finding.found for finding in verify(folder, ledger) if not finding.ok}
    assert wrong.keys() == {"budgets"}
    assert wrong["budgets"].startswith("its preset is steps 6, and cal-")


def test_no_training_again_takes_longer_than_its_preset_whatever_a_ledger_says(loop: Path, tmp_path: Path) -> None:
    def endless(kind: str, body: Json) -> None:
        if kind == "trial.settled":
            body["budget"]["amount"] = 1e9

    folder = forged(loop, tmp_path / "endless", endless)
    with closing(Ledger.open(folder)) as ledger:
        case = prepare(folder, ledger, Asked(1))
    assert [job.budget.amount for pair in case.jobs for job in pair] == [6.0, 6.0]
    assert "1e+09" in case.wrong


def test_a_score_that_was_told_twice_does_not_hold(loop: Path, tmp_path: Path) -> None:
    folder = forged(loop, tmp_path / "twice", lambda kind, body: None)
    with closing(Ledger.open(folder, write=True)) as ledger:
        for event in ledger.events():
            if event.body.get("trial_id") == "g1-pair-0-child":
                ledger.append(event.kind, event.body)
    assert "tells trial.settled of trial_id g1-pair-0-child again" in unseen(folder, Asked(1), [-0.4]).why


def refused(folder: Path, asked: Asked, match: str, kind: type[Exception] = LoopFault) -> None:
    with closing(Ledger.open(folder)) as ledger, pytest.raises(kind, match=match):
        prepare(folder, ledger, asked)


def test_a_bundle_that_the_lineage_lacks_is_one_clear_error(loop: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cut"
    shutil.copytree(loop, folder, ignore=shutil.ignore_patterns("lineage.git"))
    Lineage.create(folder / "lineage.git").commit(small_world.starter(), None, "starter")
    refused(folder, Asked(1), "no commit")


def test_what_cannot_be_rechecked_is_said_before_anything_is_trained(loop: Path, tmp_path: Path) -> None:
    refused(loop, Asked(2), "no verdict of a gate; needed: one of 1;", UsageError)
    refused(loop, Asked(1, seeds=3, exact=True), "new seeds.*next: bellglass recheck .* 1 --seeds 3$", UsageError)

    def older(kind: str, body: Json) -> None:
        if kind == "trial.settled":
            body["budget"] |= {"kind": "cpu_seconds", "amount": 3.0}
            del body["clock"], body["verdict"]["select_score"]

    folder = forged(loop, tmp_path / "older", older)
    refused(folder, Asked(1, exact=True), "no recorded clock")
    (folder / "secret").write_bytes(bytes(32))
    refused(folder, Asked(1), "another secret")
    (folder / "secret").unlink()
    refused(folder, Asked(1), "not revealed")


def test_the_noise_explains_less_with_more_pairs_and_more_trainings_behind_it() -> None:
    noise = Noise(0.05, 3)
    pairs = [(2.0, 1.9), (2.05, 1.96), (1.95, 1.84)]  # gains 0.10, 0.09, 0.11
    variance = (2 * 0.01**2 + 2 * 2 * 0.05**2) / 4
    assert noise_explains(pairs, 3, noise) == pytest.approx(2.7764 * (variance * 2 / 3) ** 0.5, rel=1e-4)
    assert noise_explains(pairs * 3, 9, noise) < noise_explains(pairs, 3, noise)
    assert noise_explains(pairs[:1], 1, noise) > noise_explains(pairs[:1], 1, Noise(0.02, 3))


def test_an_honest_ledger_seldom_fails_and_a_forged_gain_mostly_does() -> None:
    chance, sd = random.Random(5), 0.05

    def gains(n: int, mean: float) -> list[tuple[float, float]]:
        return [(2.0, 2.0 - chance.gauss(mean, sd)) for _ in range(n)]  # half the variance of unpaired trainings

    def fails(forged: float) -> float:
        count = 0
        for _ in range(1000):
            recorded, again = gains(5, 0.1), gains(5, 0.1)
            apart = abs(sum(p - c for p, c in recorded) - sum(p - c for p, c in again) + 5 * forged) / 5
            count += apart > noise_explains(again, 5, Noise(sd, 3))
        return count / 1000

    assert fails(0.0) < 0.05
    assert fails(0.2) > 0.95


@pytest.mark.slow
def test_the_real_trainer_repeats_to_the_bit_under_its_recorded_clock(tmp_path: Path) -> None:
    first = real_starter()
    source = bundles.starter()["trainer/train.py"].decode()
    slow = {"trainer/train.py": source.replace("LEARNING_RATE = 1e-3", "LEARNING_RATE = 1e-6").encode()}
    folder = decided(tmp_path, first, slow, ProcessGlass(home=tmp_path / "guests"), virtual_clock=False)
    said = CliRunner().invoke(app, ["recheck", folder.name, "1", "--exact", "--loops", str(folder.parent)])
    assert (said.exit_code, said.exception) == (0, None), said.output
    assert said.output.count("same weights") == 2
    assert "generation 1 holds" in said.output
