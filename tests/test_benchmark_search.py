"""benchmarks/search.py: each way pays for what it trains, keeps what it should, and goes on where it was cut off.

The trainer is a table here: an edit sets a line, each line is worth something, seeds add noise.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from benchmark_scripts import load
from guests import wait_until
from source_tree import ROOT

from bellglass.doors.offline_model.menu import Edit, passages
from bellglass.processes import is_running, kill_family, named
from bellglass.records import Noise

search = load("search")
search_page, trainings = sys.modules["search_page"], sys.modules["trainings"]

PATH, FULL, NOISE = "trainer/train.py", 4.0, Noise(0.02, 3)
START = {PATH: "".join(f"{name} = 0\n" for name in "abcdef")}


def edit(name: str) -> Edit:
    return Edit(name, 0, "", passages(PATH, ((f"{name} = 0\n", f"{name} = 1\n"),)))


def chosen(files: dict[str, str]) -> str:
    return "".join(line[0] for line in files[PATH].splitlines() if line.endswith("1"))


class Table:
    """Full seconds times the fraction for each training; a score that falls by what each line is worth."""

    def __init__(self, noise: float = 0.0, broken: str = "", **worth: float) -> None:
        self.noise, self.broken, self.worth = noise, broken, worth
        self.asked: list[Any] = []

    def __call__(self, jobs: Sequence[Any]) -> list[Any]:
        self.asked += jobs
        return [trainings.Result(self.score(job), FULL * job.fraction) for job in jobs]

    def score(self, job: Any) -> float | None:
        names = chosen(job.files)
        if set(names) & set(self.broken):
            return None
        seeds = f"{job.seeds} {job.split} {job.salt}"
        return 3.0 - sum(self.worth.get(name, 0.0) for name in names) + self.noise * (draw(seeds) + draw(seeds + names))


def draw(words: str) -> float:
    """Between -1 and 1."""
    return int.from_bytes(hashlib.sha256(words.encode()).digest()[:4], "big") / 2**31 - 1.0


def went(way: str, table: Table, names: str = "abcdef", **more: Any) -> Any:
    bill = search.Bill(table)
    getattr(search, way)(START, [edit(name) for name in names], bill, **more)
    return bill


# The two ways


def test_greedy_trains_each_proposal_once_and_keeps_what_scores_lower() -> None:
    table = Table(a=0.5, b=-0.1, d=0.2)
    bill = went("greedy", table, "abdd")  # the second d no longer fits
    assert [champion.kept for champion in bill.champions] == ["", "a", "d"]
    assert [champion.seconds for champion in bill.champions] == [0.0, 2 * FULL, 4 * FULL]
    assert [chosen(job.files) for job in table.asked] == ["", "a", "ab", "ad"]
    assert len({(job.seeds, job.split) for job in table.asked}) == 1


def test_greedy_keeps_luck() -> None:
    assert len(went("greedy", Table(noise=0.02)).champions) > 1


def test_the_gate_adopts_a_real_gain_and_every_run_of_both_sides_is_charged() -> None:
    table = Table(noise=0.02, b=0.5)
    bill, rules = search.Bill(table), search.rules(1, NOISE)
    decisions = [search.duel(START, edit(name).apply(START), name, rules, bill).decision for name in "ab"]
    assert decisions == ["reject", "adopt"]
    assert bill.seconds == FULL * len(table.asked)
    assert sum(not chosen(job.files) for job in table.asked) * 2 == len(table.asked)
    seeds = [job.seeds for job in table.asked]
    assert all(seeds.count(one) == 2 for one in seeds), "in pairs, each on its own seeds"
    assert {job.split for job in table.asked} == {"confirm"}


def test_a_race_runs_short_rungs_on_top_of_what_won_and_then_comes_the_gate() -> None:
    table = Table(noise=0.001, a=0.3, b=-0.3, c=0.2, d=0.1)
    bill = went("raced", table, "abcd", noise=NOISE, trials=4)
    explored = [job for job in table.asked if job.split == "select"]
    assert {job.fraction for job in explored} == {0.25}
    assert [chosen(job.files) for job in explored] == ["", "a", "b", "ac", "ad", "acd"]
    assert [champion.kept for champion in bill.champions] == ["", "a+c+d"]
    assert bill.champions[1].seconds == bill.seconds == sum(FULL * job.fraction for job in table.asked)


def test_what_a_session_has_no_trials_for_races_against_the_champion_that_the_gate_made() -> None:
    table = Table(noise=0.001, a=0.3, b=-0.1, e=0.3, f=-0.1)
    bill = went("raced", table, "abef", noise=NOISE, trials=1)
    explored = [(job.split, chosen(job.files)) for job in table.asked if job.split == "select"]
    assert [names for _, names in explored] == ["", "a", "b", "a", "ae", "af"]
    assert [champion.kept for champion in bill.champions] == ["", "a", "e"]


def test_what_wins_a_race_by_luck_fails_at_the_gate() -> None:
    table = Table(noise=0.02)
    bill = went("raced", table, noise=NOISE, trials=4)
    assert "confirm" in {job.split for job in table.asked}, "something won the race"
    assert len(bill.champions) == 1


def test_a_proposal_that_fails_costs_a_heat_and_is_not_kept() -> None:
    table = Table(noise=0.001, broken="b", a=0.3)
    bill = went("raced", table, "ab", noise=NOISE, trials=4)
    failed = [job for job in table.asked if "b" in chosen(job.files)]
    assert [job.fraction for job in failed] == [0.25]
    assert chosen(bill.champions[-1].files) == "a"
    assert chosen(went("greedy", table, "ba").champions[-1].files) == "a"


def test_a_champion_that_fails_on_the_panel_has_no_score() -> None:
    champion = search.Champion({PATH: START[PATH].replace("a = 0", "a = 1")}, "a", 0.0, 0.0)
    assert search.scored(champion, Table(broken="a")) is None
    scores = search.scored(champion, Table(noise=0.1))
    assert scores is not None
    assert len(set(scores)) == search.PANEL


def test_the_order_of_the_stream_is_a_replicate_s_own_and_holds_the_whole_menu() -> None:
    first, again, other = (tuple(edit.name for edit in search.stream(number)) for number in (1, 1, 2))
    assert first == again != other
    assert sorted(first) == sorted(other) == sorted(edit.name for edit in search.MENU)


# The arithmetic


def walk(*steps: tuple[float, float], apart: float = 8.0, spread: float = 0.01) -> Any:
    """Of (seconds, true score)."""
    made = [search_page.Step("x", at, (score - spread, score, score, score + spread)) for at, score in steps]
    return search_page.Walk(tuple(made), 100.0, apart)


def test_the_same_rule_says_when_each_way_is_as_good_as_greedy_s_last_champion() -> None:
    greedy = walk((0.0, 3.0), (20.0, 2.0), (60.0, 2.5))  # the last keep was a mistake
    raced = walk((0.0, 3.0), (10.0, 2.6), (16.0, 2.4))
    replicate = search_page.Replicate(0, {"greedy": greedy, "raced": raced})
    assert [way.reaches(replicate.target).searched for way in (greedy, raced)] == [20.0, 16.0]
    assert replicate.ratio("searched", replicate.target) == 20.0 / 16.0
    assert replicate.ratio("in_loop", replicate.target) == 20.0 / (16.0 + 8.0 * 3)
    assert replicate.difference().mean == pytest.approx(0.1)


def test_a_way_that_never_gets_there_has_a_ratio_of_zero() -> None:
    greedy, raced = walk((0.0, 3.0), (20.0, 2.0)), walk((0.0, 3.0), (10.0, 2.1))
    replicate = search_page.Replicate(0, {"greedy": greedy, "raced": raced})
    assert replicate.ratio("searched", replicate.target) == 0.0
    assert "never of 100" in search_page.lines([replicate])


def test_a_champion_that_both_reach_is_the_less_good_of_the_last_ones() -> None:
    greedy, raced = walk((0.0, 3.0), (20.0, 2.5), (60.0, 2.0)), walk((0.0, 3.0), (10.0, 2.2))
    replicate = search_page.Replicate(0, {"greedy": greedy, "raced": raced})
    assert replicate.common == pytest.approx(2.2)
    assert replicate.ratio("searched", replicate.common) == 6.0
    assert replicate.ratio("searched", replicate.target) == 0.0


def test_without_its_gate_racing_is_compared_with_greedy_after_as_many_seconds() -> None:
    greedy = walk((0.0, 3.0), (20.0, 2.5), (60.0, 2.0))
    raced = search_page.Walk((*walk((0.0, 3.0)).steps, search_page.Step("x", 40.0, (2.2,) * 4, 30.0)), 40.0, 8.0, 30.0)
    replicate = search_page.Replicate(0, {"greedy": greedy, "raced": raced})
    assert replicate.ratio("explored", replicate.common) == 6.0
    assert replicate.difference(25.0).mean == pytest.approx(0.3)
    assert replicate.difference(10.0).mean == pytest.approx(0.8)
    assert replicate.difference().mean == pytest.approx(-0.2)


def test_false_keeps_are_champions_that_the_panel_does_not_favour() -> None:
    steps = walk((0.0, 3.0), (1.0, 2.5), (2.0, 2.5), (3.0, 2.6), (4.0, 2.599)).steps
    failed = search_page.Step("x", 5.0, None)
    noisy = search_page.Step("x", 4.0, (2.7, 2.4, 2.65, 2.5))
    told = search_page.Walk((*steps[:4], noisy, failed), 100.0, 0.0)
    assert search_page.false_keeps(told) == (5, 3, 1)


def test_the_page_says_how_many_replicates_ran() -> None:
    ways = {"greedy": walk((0.0, 3.0), (20.0, 2.0)), "raced": walk((0.0, 3.0), (10.0, 2.0))}
    half = search_page.Replicate(1, {"greedy": ways["greedy"]})
    text = search_page.section([search_page.Replicate(0, ways), half], 6, "python x", "stories")
    assert "1 of 6 replicates ran" in text
    assert "2.00 (2.00 to 2.00)" in text
    assert text.count("| 0 |") == 1
    assert "| 1 |" not in text


# The trainings


def test_what_is_stored_is_not_trained_again_and_a_new_run_goes_on(tmp_path: Path) -> None:
    ran: list[float] = []

    def run(world: Any, job: Any) -> Any:
        ran.append(job.fraction)
        return trainings.Result(None if job.fraction == 0.5 else 1.5, 2.0)

    def ask(deadline: float, *fractions: float, replicate: int = 0) -> Any:
        world = trainings.World("stories", replicate, 3.0)
        with ThreadPoolExecutor(1) as pool:
            desk = trainings.Trainings(tmp_path / "x.jsonl", world, pool, deadline, run)
            return desk.train([trainings.Job(START, fraction, "s", "select") for fraction in fractions])

    later, over = time.monotonic() + 60.0, time.monotonic() - 1.0
    first = ask(later, 0.25, 0.5, 0.25)
    assert ran == [0.25, 0.5]
    assert [result.score for result in first] == [1.5, None, 1.5]
    assert ask(over, 0.25, 0.5, 0.25) == first
    with pytest.raises(trainings.OutOfTime):
        ask(over, 0.25, 1.0)
    assert ran == [0.25, 0.5]
    ask(later, 1.0, 0.25)
    assert ran == [0.25, 0.5, 1.0]
    ask(later, 0.25, replicate=1)
    assert ran == [0.25, 0.5, 1.0, 0.25]


def test_only_writing_the_page_trains_nothing_even_where_nothing_is_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(search, "SEARCH", tmp_path / "x.jsonl")
    monkeypatch.setattr(search, "workers", lambda *_: ThreadPoolExecutor(1))
    monkeypatch.setattr(search, "run_job", lambda *_: pytest.fail("it trains"))
    monkeypatch.setattr(sys, "argv", ["search.py", "--write-only", "--replicates", "1"])
    search.main()
    assert capsys.readouterr().out == "replicate 0: no way complete\n"


def test_a_training_that_was_stored_without_its_machine_says_so(tmp_path: Path) -> None:
    world, job = trainings.World("stories", 0, 3.0), trainings.Job(START, 1.0, "s", "select")
    (tmp_path / "x.jsonl").write_text(json.dumps({"key": trainings.key_of(world, job), "score": 1.5, "seconds": 2.0}))
    with ThreadPoolExecutor(1) as pool:
        desk = trainings.Trainings(tmp_path / "x.jsonl", world, pool, time.monotonic() - 1.0, trainings.run_job)
        assert desk.train([job])[0].score == 1.5
    assert desk.machines == {"not recorded"}


def test_a_way_that_is_cut_off_is_left_out_and_the_others_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "starter", lambda: START)
    monkeypatch.setattr(search, "stream", lambda replicate: [edit(name) for name in "abc"])
    table = Table(noise=0.02, a=0.5)

    def train(jobs: Sequence[Any]) -> list[Any]:
        if any(job.seeds.startswith("raced") for job in jobs):
            raise search.OutOfTime
        return table(jobs)

    assert set(search.measured(0, train, table, 3.0)) == {"greedy"}
    assert search_page.Replicate(0, search.measured(0, table, table, 3.0)).complete


@pytest.mark.slow
def test_a_real_training_is_scored_and_a_broken_one_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    pytest.importorskip("torch", reason="torch is not installed (locks/torch-cpu.txt)")
    pytest.importorskip("lightning_fabric", reason="lightning is not installed (extra: trainer)")
    world, files = trainings.World("stories", 0, 1.0), trainings.starter()
    result = trainings.run_job(world, trainings.Job(files, 0.5, "s", "select"))
    assert 0 < result.seconds <= 0.5
    assert 2.0 < result.score < 8.0
    broken = {**files, "trainer/objective.py": "raise RuntimeError('no')\n"}
    failed = trainings.run_job(world, trainings.Job(broken, 0.5, "s", "select"))
    assert failed.score is None
    assert failed.seconds > 0


DRIVER = """
import os, time, trainings
print(trainings.workers(1).submit(os.getpid).result(), flush=True)
time.sleep(300)
"""


@pytest.mark.slow
def test_a_killed_driver_leaves_no_worker() -> None:
    pytest.importorskip("torch", reason="torch is not installed (locks/torch-cpu.txt)")
    pytest.importorskip("lightning_fabric", reason="lightning is not installed (extra: trainer)")
    paths = {**os.environ, "PYTHONPATH": f"{ROOT / 'benchmarks'}:{ROOT}"}
    with subprocess.Popen([sys.executable, "-c", DRIVER], stdout=subprocess.PIPE, env=paths) as driver:
        worker = named(int(driver.stdout.readline()))
        assert is_running(worker)
        driver.kill()
    try:
        assert wait_until(lambda: not is_running(worker))
    finally:
        kill_family(worker.pid)
