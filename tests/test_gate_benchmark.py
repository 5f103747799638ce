"""The benchmark of planted nulls and gains: what it plants, what it counts, and that it goes on where it stopped."""

from __future__ import annotations

import json
import math
import random
import re
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from benchmark_scripts import load

from bellglass import tasks
from bellglass.records import Budget

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


gate_log, gate_table, bench = load("gate_log"), load("gate_table"), load("gate")

CHILDREN = {"draw": "abc", "gain +1": "def"}


def found_with(cell: str, gain: float, blocks: int = 30, pairs: int = 4, seed: int = 1):
    """What a file holds after decisions on a child that is better by `gain` times a noise of 1."""
    rng, found = random.Random(seed), gate_log.Found()
    for block in range(blocks):
        found.calibrations[block] = [rng.gauss(10, 1) for _ in range(4)]
        for _ in range(pairs):
            line = {"kind": "pair", "block": block, "cell": cell, "child": CHILDREN[cell]}
            found.take({**line, "parent": rng.gauss(10, 1), "score": rng.gauss(10 - gain, 1)}, CHILDREN)
        found.take(
            {"kind": "decision", "block": block, "cell": cell, "child": CHILDREN[cell], "word": "reject"}, CHILDREN
        )
    return found


def test_the_slope_is_found_again_under_seeds_with_luck_of_their_own() -> None:
    rng = random.Random(3)
    luck = [rng.gauss(0, 0.03) for _ in range(40)]
    curve = {
        (f, k): 4.0 - 0.9 * math.log(f) + 0.2 * math.log(f) ** 2 + luck[k] for f in bench.FACTORS for k in range(40)
    }
    planted = gate_table.fit(curve)
    assert (planted.linear, planted.bend) == (pytest.approx(-0.9), pytest.approx(0.2))
    assert planted.noise == pytest.approx(0.03, rel=0.3)


@pytest.mark.parametrize("gain", gate_table.GAINS)
def test_a_planted_gain_is_that_many_noise_units_on_the_measured_slope(gain: float) -> None:
    planted = gate_table.Planted(-0.9, 0.2, 0.03)
    factor = planted.factor(gate_table.gain_name(gain))
    assert -planted.worse(math.log(factor)) == pytest.approx(gain * 0.03)
    assert (factor > 1) == (gain > 0)


def test_a_gain_that_no_sensible_budget_gives_is_refused_and_a_null_gets_its_parent_s_budget() -> None:
    with pytest.raises(SystemExit, match="noise units"):
        gate_table.Planted(-0.1, 0.0, 0.03).factor("gain +4")
    assert gate_table.Planted(-0.1, 0.0, 0.03).factor("draw") == 1.0


def test_every_block_has_every_null_and_eight_gains_come_in_four_blocks() -> None:
    blocks = [bench.cells_of(block) for block in range(4)]
    assert all(cells[:5] == list(gate_table.NULLS) for cells in blocks)
    assert sorted(cell for cells in blocks for cell in cells[5:]) == sorted(map(gate_table.gain_name, gate_table.GAINS))


def test_error_pairs_and_seeds_are_a_loop_s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))  # the file adds a folder
    monkeypatch.setattr("bellglass.config.LoopConfig", lambda: SimpleNamespace(alpha=0.1, max_pairs=9, panel=5))
    made = runpy.run_path(str(BENCHMARKS / "gate_worlds.py"))
    assert (made["ALPHA"], made["MAX_PAIRS"], made["SEEDS"]) == (0.1, 9, 5)
    assert (gate_table.FIXED, gate_table.SEEDS) == (bench.MAX_PAIRS, bench.SEEDS)


def test_a_block_calibrates_on_as_many_seeds_as_a_loop_even_an_odd_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "SEEDS", 5)
    asked: list[Any] = []

    def train(first: Any, second: Any) -> tuple[float, float]:
        asked.extend((first, second))
        return 1.0, 2.0

    task = tasks.load("stories")
    setting = bench.Setting(task, task.presets["tiny"], Budget("steps", 4, 60.0), tmp_path)
    with gate_log.Log(setting.path, CHILDREN) as log:
        bench.calibrate(bench.Bench(setting, log, train, tmp_path, {}, lambda: None), 0)
        assert log.found.calibrations == {0: [1.0, 2.0, 1.0, 2.0, 1.0]}
    assert len({run.seeds for run in asked}) == 5


def test_an_unpaired_test_errs_as_often_as_it_says_and_sees_large_gains() -> None:
    rng = np.random.default_rng(5)
    parents, children = rng.normal(size=(4000, 8)), rng.normal(size=(4000, 8))
    assert gate_table.t_adopts(parents, children).mean() == pytest.approx(gate_table.ERROR, abs=0.01)
    assert gate_table.t_adopts(parents, children - 2).mean() > 0.9


def test_windows_never_pair_a_parent_with_its_own_child() -> None:
    stream = [(float(k), 100.0 + k) for k in range(35)]
    parents, children = gate_table.windows(stream, 8)
    assert parents.shape == children.shape == (2, 8)
    assert set(parents.ravel()) & {child - 100.0 for child in children.ravel()} == set()


def test_the_trainings_an_unpaired_test_needs_grow_with_the_power_asked_for() -> None:
    stream = gate_table.stream_of(found_with("gain +1", 1.0), "gain +1")
    half, most = gate_table.t_needs(stream, 0.5), gate_table.t_needs(stream, 0.9)
    assert 4 < half < most < 40
    assert gate_table.t_needs(gate_table.stream_of(found_with("draw", 0.0), "draw"), 0.9) is None


def test_no_test_is_asked_never_to_miss_because_the_gate_did_not() -> None:
    found = found_with("gain +1", 2.0, blocks=24)
    for block in range(24):
        found.words[block, "gain +1"] = "adopt"
    cells = gate_table.gain_row(found, 1.0, gate_table.Planted(-0.9, 0.2, 0.03))
    stream = gate_table.stream_of(found, "gain +1")
    needed = gate_table.t_needs(stream, 0.5 ** (1 / 24))
    assert cells[-2:] == [str(2 * needed), f"{2 * needed / 8:.1f}"]
    assert needed < 0.8 * gate_table.t_needs(stream, 1.0)
    assert gate_table.power_of(15, 24) == 15 / 24


def test_keep_if_lower_keeps_half_of_what_is_no_better() -> None:
    decisions = found_with("draw", 0.0, blocks=400, pairs=1).decided("draw")
    assert 160 < gate_table.keep_if_lower(decisions) < 240


def test_a_slow_drift_of_the_machine_is_no_noise() -> None:
    found = found_with("draw", 0.0)
    for block in range(30):
        found.pairs[block, "draw"] = [(parent + block, child + block) for parent, child in found.pairs[block, "draw"]]
    assert np.std([parent for parent, _ in gate_table.stream_of(found, "draw")]) < 1.3


def test_lines_are_found_again_and_a_cut_off_one_is_measured_again(tmp_path: Path) -> None:
    path = tmp_path / "a" / "f.jsonl"
    with gate_log.Log(path, CHILDREN) as log:
        log.put(kind="slope", factor=1.0, seed=2, score=4.5)
        log.put(kind="calibration", block=0, scores=[1.0, 2.0, 3.0, 4.0])
        log.put(kind="pair", block=0, cell="draw", child="abc", parent=2.0, score=1.0)
        whole = path.read_bytes()
        with pytest.raises(SystemExit, match="another run"):
            gate_log.Log(path, CHILDREN)
    path.write_bytes(whole + b'{"kind": "pair", "blo')
    assert gate_log.read(path, CHILDREN).pairs == {(0, "draw"): [(2.0, 1.0)]}
    with gate_log.Log(path, CHILDREN) as log:
        assert log.found.slope == {(1.0, 2): 4.5}
        log.put(kind="decision", block=0, cell="draw", child="abc", word="reject", pairs=1)
    found = gate_log.read(path, CHILDREN)
    assert found.decided("draw") == [("reject", [(2.0, 1.0)])]
    assert found.noise(0).df == 3
    assert gate_log.read(path, {"draw": "changed"}).pairs == {}


def test_the_machines_are_those_that_trained_and_not_the_one_that_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, pair = tmp_path / "f.jsonl", {"kind": "pair", "cell": "draw", "child": "abc", "parent": 2.0, "score": 1.0}
    path.write_text(json.dumps({"kind": "calibration", "block": 0, "scores": [1.0, 2.0]}) + "\n")
    with gate_log.Log(path, CHILDREN) as log:
        for name, block in (("one core", 1), ("two cores", 1), ("two cores", 2)):
            monkeypatch.setattr(gate_log.page, "machine", lambda name=name: name)
            log.put(kind="calibration", block=block, scores=[1.0, 2.0])
        log.put(kind="slope", factor=1.0, seed=2, score=4.5)
        log.put(**pair, block=2)
        monkeypatch.setattr(gate_log.page, "machine", lambda: "three cores")
        log.put(kind="decision", block=2, cell="draw", child="abc", word="reject", pairs=1)
        log.put(**{**pair, "child": "changed"}, block=2)
    assert gate_table.machines(gate_log.read(path, CHILDREN)) == (
        "not recorded (1 of 3 blocks); one core (1 of 3 blocks); two cores (the slope, 2 of 3 blocks)"
    )


def test_the_sum_over_nulls_leaves_out_the_one_of_a_larger_spread() -> None:
    found = found_with("draw", 0.0)
    for (block, _), pairs in found_with("draw", 0.0, seed=2).pairs.items():
        found.pairs[block, "jitter"], found.words[block, "jitter"] = pairs, "adopt"
        found.pairs[block, "comment"], found.words[block, "comment"] = pairs[:1], "reject"
    rows = gate_table.nulls_table(found, 1.0).splitlines()
    assert rows[-2].startswith("| jitter: ")
    assert "| 30 of 30: 100.0% " in rows[-2]
    assert rows[-1].startswith("| all of like spread | 0 of 60: 0.0% [0.0%, 6.0%] | 2.5 | ")


def test_tables_say_what_was_counted() -> None:
    found = found_with("gain +1", 1.0)
    found.take({"kind": "decision", "block": 0, "cell": "gain +1", "child": "def", "word": "adopt"}, CHILDREN)
    for (factor, seed), score in {
        (f, k): 4.0 - 9 * math.log(f) + 0.1 * k for f in (0.8, 1.0, 1.2) for k in (0, 1, 2)
    }.items():
        found.slope[factor, seed] = score
    for (_, cell), pairs in found_with("draw", 0.0).pairs.items():
        found.pairs[len(found.pairs), cell] = pairs
        found.words[len(found.pairs) - 1, cell] = "reject"
    text = gate_table.section(found, 1.0, "the command")
    assert "60 decisions so far" in text
    assert "Machine: not recorded (30 of 30 blocks). Command" in text
    assert "| draw: one extra random draw after seeding | 0 of 30: 0.0% [0.0%, 11.6%] | 4.0 |" in text
    assert "Partial" in text
    assert gate_table.SHARED in text
    assert "1 of 30: 3.3% [0.1%, 17.2%]" in text


@pytest.mark.parametrize("stated", ["671 decisions so far, and a table.", "1 decisions so far.", ""])
def test_a_table_of_more_decisions_stays(stated: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sheet, words = tmp_path / "page.md", ["gate.py", "--write-only", "--name", "other"]
    sheet.write_text(f"<!-- begin other -->\n{stated}\n<!-- end other -->")
    monkeypatch.setattr(bench.page, "BENCHMARKS", sheet)
    monkeypatch.setattr(bench, "MEASURED", tmp_path)
    monkeypatch.setattr(bench, "collect", lambda *_: pytest.fail("--write-only trains"))
    monkeypatch.setattr(sys, "argv", words)
    if stated:
        with pytest.raises(SystemExit, match=f"{stated.split()[0]} decisions, 0 are at hand"):
            bench.main()
        assert stated in sheet.read_text()
    else:
        bench.main()
        assert "Nothing measured yet." in sheet.read_text()


def test_a_flag_of_earlier_versions_is_refused_not_taken_for_another(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["gate.py", "--write"])
    with pytest.raises(SystemExit):
        bench.main()
    assert "unrecognized arguments: --write" in capsys.readouterr().err


def test_as_many_decisions_as_the_page_states_or_more_are_written(tmp_path: Path) -> None:
    sheet = tmp_path / "page.md"
    for text in ("2 decisions so far.", "2 decisions so far, again.", "10 decisions so far."):
        sheet.write_text("<!-- begin gate -->\n2 decisions so far.\n<!-- end gate -->\nmore\n")
        bench.put(sheet, "gate", text, tmp_path)
        assert sheet.read_text() == f"<!-- begin gate -->\n{text}\n<!-- end gate -->\nmore\n"
    assert bench.decisions_in(bench.page.get(bench.page.BENCHMARKS, "gate")) > 0, "the page says it in these words"


def test_the_shares_that_the_statistics_page_quotes_stand_in_the_table() -> None:
    told = re.sub(r"\s+", " ", (bench.page.ROOT / "docs" / "statistics.md").read_text())
    quoted = re.findall(r"\d+ of \d{3,}", told.split("In real trainings")[1].split("([figures]")[0])
    assert len(quoted) == 2
    table = bench.page.get(bench.page.BENCHMARKS, "gate")
    assert [share for share in quoted if f"| {share}:" not in table] == []


@pytest.mark.slow
def test_one_decision_in_real_trainings_is_made_and_not_made_again(tmp_path: Path, monkeypatch) -> None:
    pytest.importorskip("torch", reason="torch is not installed (locks/torch-cpu.txt)")
    monkeypatch.syspath_prepend(BENCHMARKS)  # the workers import the benchmark, too
    plan = bench.Plan(factors=(0.5, 1.0, 2.0), slope_seeds=2, cells=lambda block: ["comment"], blocks=1)
    task = tasks.load("stories")
    setting = bench.Setting(task, task.presets["tiny"], Budget("steps", 4, 600.0), tmp_path)
    bench.collect(setting, 600.0, plan)
    lines = gate_log.lines_of(setting.path)
    assert [line["kind"] for line in lines] == ["slope"] * 6 + ["calibration", "pair", "decision"]
    assert lines[-2]["parent"] == lines[-2]["score"], "a renamed variable changes no bit"
    assert lines[-1]["word"] == "reject"
    bench.collect(setting, 600.0, plan)
    assert gate_log.lines_of(setting.path) == lines
