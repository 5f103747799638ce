"""benchmarks/improver.py: real sessions whose trainings are a table here; what they reach, and what the page says."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import pytest
from benchmark_scripts import load

improver = load("improver")
trainings = sys.modules["trainings"]


class Table:
    """Muon is worth a bit, everything else nothing; the reference two."""

    def __init__(self, most: int = 1000, fails: str = "") -> None:
        self.most, self.fails, self.asked = most, fails, list[Any]()

    def __call__(self, jobs: Sequence[Any]) -> list[Any]:
        if len(self.asked) >= self.most:
            raise trainings.OutOfTime
        self.asked += jobs
        return [trainings.Result(self.score(job), 15.0 * job.fraction) for job in jobs]

    def score(self, job: Any) -> float | None:
        if job.seeds == self.fails:
            return None
        if job.files == improver.reference_files("source"):
            return 2.0
        return 4.0 - ("class Muon" in job.files["trainer/train.py"])


def scored(seed: int, trials: float, submitted: float | None) -> Any:
    mine = None if submitted is None else (submitted, submitted + 0.2)
    scores = {"starter": (4.0, 4.2), "reference": (2.0, 2.2), "submitted": mine}
    return improver.Outcome(seed, trials, trials, 25, "muon", scores)


def test_a_real_session_explores_on_one_seed_and_is_scored_on_fresh_ones_beside_both_marks() -> None:
    table = Table()
    outcome = improver.outcome("source", 1, 3.0, table)
    explored = [job for job in table.asked if job.split == "select"]
    panel = [job for job in table.asked if job.split == "final"]
    assert {job.seeds for job in explored} == {"g1-explore"}
    assert sum(job.fraction for job in explored) == pytest.approx(outcome.used)
    assert outcome.used <= 3.0
    assert outcome.tries == len(explored) >= 6
    assert [job.fraction for job in panel] == [1.0] * 3 * improver.PANEL
    assert len({job.seeds for job in panel}) == improver.PANEL
    assert outcome.kept == "muon"
    assert outcome.share == pytest.approx(0.5)


def test_a_session_that_runs_out_of_time_is_left_out_and_the_others_are_told() -> None:
    assert improver.measured("source", 1, [3.0], Table(most=4)) == []
    assert [one.trials for one in improver.measured("source", 1, [1.0, 3.0], Table())] == [1.0, 3.0]


def test_more_than_is_left_is_refused() -> None:
    desk = improver.TrainingDesk(Table(), 0.3)
    files = {path: text.encode() for path, text in trainings.starter().items()}
    assert desk.trial(files, {"fraction": 0.3, "note": "x"})["ok"]
    with pytest.raises(improver.GuestFault):
        desk.trial(files, {"fraction": 0.1, "note": "x"})


def test_the_page_says_how_many_seeds_ran_and_how_many_reached_the_goal() -> None:
    found = [scored(1, 10.0, 3.0), scored(1, 20.0, 2.5), scored(2, 20.0, 2.7)]
    text = improver.section(found, "source", 3, [10.0, 20.0], "python x")
    assert "| 10 | 1 of 3 | 50% (one seed) | 0 of 1 |" in text
    assert "| 20 | 2 of 3 | 0.700 [" in text
    assert "| 2 of 2 |" in text
    assert "nothing it does is evidence about recursive self-improvement" in text


def test_a_training_that_fails_on_the_panel_leaves_no_score_of_its_side() -> None:
    outcome = improver.outcome("source", 1, 1.0, Table(fails="fresh-1"))
    assert set(outcome.scores.values()) == {None}
    assert outcome.share is None


def test_a_session_without_a_figure_is_counted_and_not_averaged() -> None:
    found = [scored(1, 10.0, None), scored(1, 20.0, 2.5), scored(2, 20.0, None), scored(3, 20.0, 3.5)]
    text = improver.section(found, "source", 3, [10.0, 20.0], "python x")
    assert "| 10 | 1 of 3, 1 without a figure | – | 0 of 0 |" in text
    assert "| 20 | 3 of 3, 1 without a figure | 0.500 [" in text
    assert "| 1 of 2 |" in text
    assert "| 2 | 20 of 20 | 25 | 4.100 | 2.100 | – | – | muon |" in text
    assert "nan" not in text
