"""benchmarks/overhead.py: a missed goal is called one, by the script and on its page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from benchmark_scripts import load

bench = load("overhead")


def test_a_figure_above_its_goal_is_called_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "real_loop", lambda: Path("loop"))
    monkeypatch.setattr(bench, "command_seconds", lambda *words: 0.31 if words == ("--help",) else 0.3)
    assert [row[1:] for row in bench.command_rows()][:2] == [["0.31 s", "≤ 0.3 s, missed"], ["0.30 s", "≤ 0.3 s"]]
    trial = {"outside": 1.5, "judge": 2.9}
    assert bench.outside_row("outside", trial) == ["outside", "1.50 s", "≤ 1 s, missed"]
    assert bench.judge_row(20.0, trial)[1:] == ["2.90 s, 14.5%", "≤ 5% of 60 s"]
    assert bench.judge_row(60.0, {"judge": 3.1})[1:] == ["3.10 s, 5.2%", "≤ 5% of 60 s, missed"]


def test_the_page_s_goals_are_marked_as_the_script_marks_them() -> None:
    section = bench.page.BENCHMARKS.read_text().split("<!-- begin overhead -->")[1].split("<!-- end")[0]
    assert bench.ROUND_TRIP in section
    aims = {words: (words, most) for words, most in (bench.TRIP, bench.BOTH_WAYS, bench.OUTSIDE, bench.COMMAND,
                                                     bench.JUDGE, bench.CPU)}  # fmt: skip
    rows = re.findall(r"(?m)^\| (.*?) \| ([\d.]+) .*? \| (.*?) \|$", section)
    told = {figure: cell for figure, _, cell in rows if cell != bench.NO_GOAL}
    aim = {figure: aims[cell.removesuffix(", missed")] for figure, cell in told.items()}
    assert told == {figure: bench.goal(aim[figure], float(value)) for figure, value, _ in rows if figure in told}
