"""The document that page and report show: every number in it is recomputed here from the ledger's events."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import made_loop
import pytest
import recount

from bellglass.show import phase, showing, summary, view
from bellglass.store.ledger import Event, Ledger
from bellglass.store.state import State, apply, fold, state_of

NEAR = {"rel": 1e-6, "abs": 2e-5}  # the document rounds to five digits


@pytest.fixture(scope="module")
def nine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_loop.write(tmp_path_factory.mktemp("made"), 9)


def document(folder: Path) -> dict[str, Any]:
    with closing(Ledger.open(folder)) as ledger:
        return json.loads(json.dumps(view.document(fold(ledger.events()), view.About(head=ledger.head))))


def bodies(folder: Path, kind: str) -> list[dict[str, Any]]:
    return recount.Events.of(folder).all(kind)


def eventful() -> Iterator[tuple[str, dict[str, Any]]]:
    """A made loop in which each number differs from its neighbours: bounds, crashes, alarms, reviews, failed trials."""
    for k, (kind, body) in enumerate(made_loop.Maker(9, seed=5).events()):
        yield kind, _differing(kind, body, k)
        number = body.get("generation")
        if kind == "trial.intended" and k % 7 == 0:
            yield "trial.burnt", {"trial_id": body["trial_id"]}
            yield kind, body
        elif kind == "call.reserved" and k % 3 == 0:
            lost = {"key": body["key"], "cost": body["ask"], "reply_sha": None, "facts": {"outcome": "unknown"}}
            yield from (("call.settled", lost), (kind, body), ("loop.clock", {"wall_seconds": 1.5 + k}))
        elif kind == "generation.watched" and number % 2:
            yield "tripwire.fired", {"generation": number, "name": f"wire {k}", "sentence": "why", "measured": 0.5 + k}
            yield "review.requested", {"generation": number, "evidence_hash": "ab" * 32}
            decision = "reject" if number % 4 == 1 else "approve"
            yield "review.decided", {"generation": number, "decision": decision, "reason": "because", "who": "someone"}


def _differing(kind: str, body: dict[str, Any], k: int) -> dict[str, Any]:
    if kind == "loop.created":
        limits = {"wall_seconds": 9000.0, "calls": 101, "tokens": 7_000_000, "budget_usd": 5.25}
        return {**body, "confirm_slices": 3, "config": {**body["config"], **limits}}
    if kind in ("generation.watched", "champion.retrained"):
        return {**body, "alarms": k % 4}
    if kind != "trial.settled":
        return body
    if body["purpose"] == "explore" and k % 2:
        return {**body, "verdict": None, "fault": "timeout", "claim": {**body["claim"], "bits": None}}
    old = body["verdict"]
    skills = dict(list(old["by_skill"].items())[k % 2 :])
    proof = old["proof"] and {**old["proof"], "mean_gap_bits": 0.003 * (k % 5 - 2)}
    floors = {"floor_bits": old["floor_bits"] + 0.001 * k, "raw_bits": old["raw_bits"] + 0.001 * k}
    verdict = {**old, **floors, "by_skill": skills, "proof": proof}
    claim = {**body["claim"], "bits": body["claim"]["bits"] - 0.0007 * k}
    return {**body, "verdict": verdict, "claim": claim, "train_seconds": body["train_seconds"] + 0.13 * k}


def write(home: Path, events: Iterable[tuple[str, dict[str, Any]]]) -> Path:
    with closing(Ledger.create(home / "stories-1")) as ledger:
        for kind, body in events:
            ledger.append(kind, body)
    return home / "stories-1"


def check(folder: Path) -> dict[str, Any]:
    shown = json.loads(json.dumps(showing.open_loop(folder).document()))
    recount.check(recount.Events.of(folder), shown)
    return shown


def test_every_number_is_that_of_the_ledger(nine: Path) -> None:
    shown = check(nine)
    assert len(shown["generations"]) == 9
    assert {gen["trainer"] for gen in shown["generations"]} >= {"adopted", "rejected", "failed"}


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("eventful"), eventful())


def test_every_number_of_an_eventful_loop_is_that_of_its_ledger(full: Path) -> None:
    shown = check(full)
    assert shown["burnt"]["calls"]
    assert shown["oversight"]["alarms"]
    assert 0 < shown["oversight"]["adopted_without_review"] < shown["oversight"]["adopted"]


def test_every_number_of_a_loop_under_way_is_that_of_its_ledger(full: Path) -> None:
    with closing(Ledger.open(full)) as ledger:
        events = ledger.events()
    for end in range(1, len(events), 7):
        shown = json.loads(json.dumps(showing.shown_at(full, events[:end]).document()))
        recount.check(recount.Events.of(full, end), shown)


def test_a_loop_that_waits_and_one_with_an_alarm_on_final_are_counted_too(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    assert check(write(tmp_path / "a", made_loop.Maker(4, seed=3, waits=True).events()))["oversight"]["waiting"] == 4
    alarmed = ((kind, body | ({"alarms": ["x"]} if "final" in kind else {})) for kind, body in eventful())
    assert check(write(tmp_path, alarmed))["final"]["gain"] is None


@pytest.mark.slow
def test_every_number_of_a_real_loop_is_that_of_its_ledger(adopted: Path) -> None:
    check(adopted)


def test_floor_and_score_add_up_to_the_verdict_of_each_bundle() -> None:
    """Each set of documents has a floor of its own: a mean over all of them would fit nobody."""
    state = State()
    for k, (kind, body) in enumerate(made_loop.Maker(3, seed=3).events(), start=1):
        verdict = body.get("verdict")
        if verdict:
            verdict["floor_bits"] += 0.001 * k
            verdict["raw_bits"] += 0.001 * k
        apply(state, Event(k, 0.0, kind, body, "", ""))
    shown = view.document(state)
    measured = [shown["starter"], *(gen for gen in shown["generations"] if gen["score"])]
    for one in measured:
        assert one["raw"]["mean"] - one["floor"] == pytest.approx(one["score"]["mean"], **NEAR)
    champion = [gen for gen in shown["generations"] if gen["trainer"] == "adopted"][-1]
    assert shown["floor"] == champion["floor"] != shown["starter"]["floor"]


def test_the_secret_is_not_in_it(nine: Path) -> None:
    (ended,) = bodies(nine, "loop.ended")
    assert ended["secret"] not in json.dumps(document(nine))


def test_a_parent_is_the_generation_that_made_it(nine: Path) -> None:
    shown = document(nine)
    champion = 0
    for generation in shown["generations"]:
        assert generation["from"] == champion
        champion = generation["n"] if generation["trainer"] == "adopted" else champion
    assert champion > 0


def test_a_loop_that_has_only_begun_is_shown_too() -> None:
    assert view.document(State())["missing"] == ["the ledger does not say how the loop began"]


def test_at_every_event_the_page_says_what_is_under_way() -> None:
    state, said = State(), {}
    for k, (kind, body) in enumerate(made_loop.Maker(3, seed=3).events(), start=1):
        apply(state, Event(k, 0.0, kind, body, "", ""))
        said.setdefault(f"{kind} {body.get('purpose', '')}".strip(), []).append(phase.phase(state))
    assert {text.partition(", ")[0] for text in said["trial.settled calibrate"]} == {
        "before generation 1 of 3: calibration"
    }
    for purpose, words in (("explore", "the improver works"), ("gate", "the gate"), ("panel", "trained again")):
        assert all(words in text for text in said[f"trial.intended {purpose}"]), purpose
    assert "final" in said["generation.ended"][-1]
    assert "final" not in said["generation.ended"][0]
    assert all("final" in text for text in said["trial.settled final"])


def test_at_no_event_does_a_loop_that_was_stopped_there_seem_to_go_on() -> None:
    state, said = State(), set()
    for k, (kind, body) in enumerate(made_loop.Maker(3, seed=3, waits=True).events(), start=1):
        apply(state, Event(k, 0.0, kind, body, "", ""))
        state.ended = {"why": "stopped", "detail": "asked to"}
        said |= {row.trainer for row in summary.rows(state) if not row.why}
        state.ended = None
    (reviewed,) = [gen for gen in state.generations.values() if gen.review_hash]
    assert said == {*phase.CUT_OFF.values(), "waits for a person's decision"}
    reviewed.review, state.ended = {"decision": "approve"}, {"why": "waiting", "detail": ""}
    assert phase.stage(reviewed, state) == "decided; resume carries it out"


def test_a_calibration_under_way_is_not_missing() -> None:
    state = State("1f868b63", created={}, config={**made_loop.SETTINGS, "generations": 3})
    assert view.missing(state) == []
    state.ended = {"why": "stopped"}
    assert "no calibration" in view.missing(state)[0]


def test_what_a_loop_lacks_is_said(nine: Path) -> None:
    with closing(Ledger.open(nine)) as ledger:
        state = fold(event for event in ledger.events() if event.kind != "loop.calibrated")
    assert any("no calibration" in line for line in view.document(state)["missing"])


def test_a_thousand_generations_take_less_than_a_second() -> None:
    maker = made_loop.Maker(1000)
    state = fold(Event(k, 0.0, kind, body, "", "") for k, (kind, body) in enumerate(maker.events(), start=1))
    view.document(state)  # the quantiles are remembered
    began = time.process_time()
    shown = view.document(state)
    assert time.process_time() - began < 1.0
    assert len(shown["generations"]) == 1000


def test_the_rows_of_status_are_those_of_the_document(nine: Path) -> None:
    shown = document(nine)["generations"]
    told = json.loads(json.dumps(summary.as_json(state_of(nine))))["generations"]
    assert [row["generation"] for row in told] == [gen["n"] for gen in shown]
    for row, gen in zip(told, shown, strict=True):
        assert "fitted" not in row
        assert {key: row[key] for key in ("trainer", "scaffold", "why", "kinds", "cost")} == {
            key: gen[key] for key in ("trainer", "scaffold", "why", "kinds", "cost")
        }
        for mine, theirs in (("gain", "gain"), ("fitted_to_select", "fitted"), ("verdict_bits", "raw")):
            if row[mine] is not None:
                assert row[mine] == pytest.approx(gen[theirs], **NEAR)
