"""The document that page and report show: every number in it is recomputed here from the ledger's events."""

from __future__ import annotations

import json
import math
import sqlite3
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import made_loop
import pytest
import small_world

from bellglass import wiring
from bellglass.doors.process_glass import ProcessGlass
from bellglass.loop import run_loop
from bellglass.show import phase, summary, view
from bellglass.stats import t_quantile
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
    """Of the events of a kind, read with nothing of bellglass."""
    with closing(sqlite3.connect(folder / "loop.db")) as db:
        rows = db.execute("SELECT body FROM events WHERE kind = ? ORDER BY seq", (kind,)).fetchall()
    return [json.loads(row[0]) for row in rows]


def same_interval(shown: dict[str, float] | None, values: list[float]) -> None:
    if not values:
        assert shown is None
        return
    assert shown is not None
    assert shown["mean"] == pytest.approx(mean(values), **NEAR)
    assert shown["n"] == len(values)
    if len(values) > 1:
        reach = t_quantile(0.975, len(values) - 1) * stdev(values) / math.sqrt(len(values))
        assert (shown["low"], shown["high"]) == pytest.approx((mean(values) - reach, mean(values) + reach), **NEAR)


def check_generation(folder: Path, shown: dict[str, Any]) -> None:
    n = shown["n"]
    own = [t for t in bodies(folder, "trial.settled") if t["trial_id"].startswith(f"g{n}-")]
    panel = [t for t in own if t["purpose"] == "panel"]
    child = panel or [t for t in own if t["purpose"] == "gate" and t["trial_id"].endswith("-child")]
    verdicts = [t["verdict"] for t in child if t["verdict"]]
    same_interval(shown["raw"], [v["raw_bits"] for v in verdicts])
    same_interval(shown["score"], [v["score"] for v in verdicts])
    claims = [t["claim"]["bits"] for t in child if t["claim"]["bits"] is not None]
    if claims:
        assert shown["claim"] == pytest.approx(mean(claims), **NEAR)
        assert shown["claim_gap"] == pytest.approx(mean(claims) - mean(v["raw_bits"] for v in verdicts), **NEAR)
    for skill, bits in shown["skills"].items():
        assert bits == pytest.approx(mean(v["by_skill"][skill] for v in verdicts), **NEAR)
    calls = [c for c in bodies(folder, "call.settled") if c["key"].startswith(f"g{n}-")]
    assert shown["cost"]["train_seconds"] == pytest.approx(sum(t["train_seconds"] for t in own), abs=0.006)
    assert shown["cost"]["calls"] == len(calls)
    assert shown["cost"]["usd"] == pytest.approx(sum(c["cost"]["usd"] for c in calls))
    explored = [t["verdict"]["score"] for t in own if t["purpose"] == "explore" and t["verdict"]]
    assert shown["explored"] == len(explored)
    assert shown["best_explored"] == (pytest.approx(min(explored), **NEAR) if explored else None)
    assert shown["trials"] == len(own)
    gates = [g["gate"] for g in bodies(folder, "gate.decided") if g["generation"] == n]
    if gates:
        assert (shown["gate"], shown["gate_why"]) == (gates[0]["decision"], gates[0]["why"])
        assert shown["pairs"] == [
            pytest.approx(pair, **NEAR)
            for pair in zip(gates[0]["parent_scores"], gates[0]["child_scores"], strict=True)
        ]


def check_whole(folder: Path, shown: dict[str, Any]) -> None:
    settled = bodies(folder, "trial.settled")
    calls = bodies(folder, "call.settled")
    used = {bound["name"]: bound["used"] for bound in shown["bounds"]}
    assert used["train_seconds"] == pytest.approx(sum(t["train_seconds"] for t in settled), abs=0.01)
    assert used["calls"] == len(calls)
    assert used["tokens"] == sum(c["cost"]["tokens_in"] + c["cost"]["tokens_out"] for c in calls)
    assert used["usd"] == pytest.approx(sum(c["cost"]["usd"] for c in calls))
    assert used["wall_seconds"] == pytest.approx(sum(c["wall_seconds"] for c in bodies(folder, "loop.clock")), abs=0.1)
    assert used["generations"] == len(bodies(folder, "generation.ended"))
    created = bodies(folder, "loop.created")[0]
    starter = [t for t in settled if t["bundle"] == created["starter"] and t["purpose"] == "gate"]
    same_interval(shown["starter"]["raw"], [t["verdict"]["raw_bits"] for t in starter])
    rows = shown["trials"]["rows"]
    assert [row[0] for row in rows] == [t["trial_id"] for t in settled]
    for row, trial in zip(rows, settled, strict=True):
        cells = dict(zip(shown["trials"]["columns"], row, strict=True))
        verdict = trial["verdict"]
        assert cells["score"] == (None if verdict is None else pytest.approx(verdict["score"], **NEAR))
        assert cells["raw"] == (None if verdict is None else pytest.approx(verdict["raw_bits"], **NEAR))
        assert cells["seconds"] == pytest.approx(trial["train_seconds"], abs=0.006)
        assert (cells["fault"], cells["purpose"]) == (trial["fault"], trial["purpose"])
    for calibrated in bodies(folder, "loop.calibrated")[-1:]:
        assert shown["calibration"]["sd"] == calibrated["noise"]["sd"]
        spread = calibrated["noise"]
        assert shown["calibration"]["band"] == pytest.approx(t_quantile(0.975, spread["df"]) * spread["sd"], **NEAR)
        assert shown["calibration"]["smallest_gain"] == calibrated["smallest_gain"]
    for final in bodies(folder, "final.opened"):
        for end in ("mean", "low", "high"):
            assert shown["final"]["gain"][end] == pytest.approx(final["gain"][end], **NEAR)
        sides = {side: [t for t in settled if t["bundle"] == final[side]] for side in ("starter", "champion")}
        for side, trials in sides.items():
            same_interval(
                shown["final"][side]["score"], [t["verdict"]["score"] for t in trials if t["purpose"] == "final"]
            )
    ended = Counter(body["trainer"] for body in bodies(folder, "generation.ended"))
    assert shown["oversight"]["adopted"] == ended["adopted"]


def test_every_number_is_that_of_the_ledger(nine: Path) -> None:
    folder, shown = nine, document(nine)
    assert len(shown["generations"]) == 9
    assert {gen["trainer"] for gen in shown["generations"]} >= {"adopted", "rejected", "failed"}
    check_whole(folder, shown)
    for generation in shown["generations"]:
        check_generation(folder, generation)


@pytest.mark.slow
def test_every_number_of_a_real_loop_is_that_of_its_ledger(tmp_path: Path) -> None:
    folder = small_world.create(tmp_path / "loops")
    glass = ProcessGlass(warm=False, home=tmp_path / "guests")
    with wiring.open_loop(folder, small_world.quiet(), {}, models={"main": small_world.Tuner()}, glass=glass) as crew:
        run_loop(crew)
    shown = document(folder)
    check_whole(folder, shown)
    for generation in shown["generations"]:
        check_generation(folder, generation)


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
