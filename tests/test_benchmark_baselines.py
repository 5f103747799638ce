"""The benchmark of the baselines, on whole loops of a small world: run once, resumed, and honest about how many ran."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import small_world
from benchmark_scripts import load

from bellglass.doors.process_glass import ProcessGlass
from bellglass.errors import Interrupted
from bellglass.ports import GuestSpec
from bellglass.records import Bundle
from bellglass.show import baselines

bench = load("baselines")


def starter() -> Bundle:
    """The small world's trainer, with a number that the menu knows: a higher rate smooths less, which is better."""
    bundle = dict(small_world.starter())
    bundle["trainer/objective.py"] = b"# all is in train.py\n"
    train = small_world.TRAINER["trainer/train.py"].replace(
        "from objective import SMOOTHING\n", "LEARNING_RATE = 1e-3\n"
    )
    bundle["trainer/train.py"] = train.replace("+ SMOOTHING", "+ 1.0 / LEARNING_RATE").encode()
    return bundle


def small_plan(work: Path) -> Any:
    more = {"virtual_clock": True, "alpha": 0.4}
    small = bench.Plan("tiny", (1, 2), "process", generations=1, trials=1, max_pairs=3, panel=2, more=more)
    return replace(small, work=work, measured=work / "measured")


class Cut(ProcessGlass):
    """A glass that is interrupted when one guest too many is asked for."""

    left = 8

    def open(self, spec: GuestSpec) -> Any:
        self.left -= 1
        if self.left < 0:
            raise Interrupted("the loop", "interrupted", "nothing")
        return super().open(spec)


def run(plan: Any, improver: str, seed: int, glass: type[ProcessGlass] = ProcessGlass) -> dict:
    made = glass(warm=False, home=plan.work.parent / "guests")
    return bench.run_one(plan, "stories", improver, seed, starter=starter(), glass=made)


@pytest.mark.slow
def test_loops_are_run_once_resumed_and_counted(tmp_path: Path) -> None:
    plan = small_plan(tmp_path / "work")
    with pytest.raises(Interrupted):
        run(plan, "random", 1, Cut)
    assert bench.finished(plan, "stories", "random") == {}
    first = run(plan, "random", 1)
    assert len([path for path in plan.home("stories").iterdir() if path.name.startswith("stories-")]) == 1
    assert first["gain"] > 0
    assert first["adopted"] == 1
    again = json.dumps(first)
    assert json.dumps(run(plan, "random", 1)) == again
    assert "**1 of 6 loops have run so far.**" in bench.section(plan, ["stories"])
    run(plan, "random", 2)
    home, sheet = tmp_path / "tasks", tmp_path / "page.md"
    (home / "stories").mkdir(parents=True)
    sheet.write_text("<!-- begin baselines --><!-- end baselines -->")
    bench.write(plan, ["stories"], home, sheet)
    (found,) = baselines.load(home, "stories").values()
    assert set(found.gains) == {"random"}
    assert found.gains["random"].n == 2
    assert found.trainings == 7


def facts(plan: Any, improver: str, seed: int, gain: float | None, **more: Any) -> None:
    base = {"folder": "x", "made_with": bench.fingerprint(plan, "stories", improver), "gain": gain, "why": ""}
    bench.keep(
        plan,
        "stories",
        improver,
        seed,
        {**base, "adopted": int(bool(gain)), "train_seconds": 9.0, "machine": "m", **more},
    )


def test_the_table_counts_loops_and_pairs_them_by_seed(tmp_path: Path) -> None:
    plan = small_plan(tmp_path)
    for seed, gain in ((1, 0.2), (2, 0.4)):
        facts(plan, "random", seed, gain)
        facts(plan, "tpe", seed, gain + 0.1)
    assert bench.row(plan, "stories", "random")[2:] == ["2 of 2", "+0.300 [-0.971, +1.571]", "–", "2 of 2", "9 s"]
    assert bench.row(plan, "stories", "tpe")[4] == "+0.100 [+0.100, +0.100]"
    assert bench.row(plan, "stories", "offline")[2:] == ["0 of 2", "–", "–", "–", "–"]
    assert "**4 of 6 loops have run so far.**" in bench.section(plan, ["stories"])


def test_a_loop_without_a_figure_is_counted_and_not_averaged(tmp_path: Path) -> None:
    plan = small_plan(tmp_path)
    facts(plan, "random", 1, 0.2)
    facts(plan, "random", 2, None)
    assert bench.row(plan, "stories", "random")[2:4] == ["2 of 2, 1 without a figure", "+0.200 (one loop)"]


def test_facts_of_other_improvers_bounds_or_starters_do_not_count(tmp_path: Path) -> None:
    plan = small_plan(tmp_path)
    facts(plan, "random", 1, 0.2, made_with="something else")
    assert bench.finished(plan, "stories", "random") == {}
    prints = {bench.fingerprint(one, "stories", "random") for one in (plan, replace(plan, trials=2))}
    assert len(prints | {bench.fingerprint(plan, "stories", "offline")}) == 3


def test_the_table_names_the_machines_of_its_loops_and_not_the_one_that_writes_it(tmp_path: Path) -> None:
    plan = small_plan(tmp_path)
    facts(plan, "random", 1, 0.2, machine="one core")
    facts(plan, "tpe", 1, 0.2, machine="two cores")
    facts(plan, "random", 2, 0.2, machine="one core")
    assert "Machine: one core; two cores." in bench.section(plan, ["stories"])


def test_what_has_ended_is_found_by_a_checkout_that_never_ran_it(tmp_path: Path) -> None:
    plan = small_plan(tmp_path)
    facts(plan, "random", 1, 0.2)
    assert bench.finished(replace(plan, work=tmp_path / "empty"), "stories", "random")[1]["gain"] == 0.2


def test_a_program_is_the_same_whatever_is_written_about_it() -> None:
    said, done = '"""Says."""\ndef f():\n    "does"\n    return 1  # one\n', "def f():\n    return 1\n"
    assert bench.program(said) == bench.program(done) != bench.program(done.replace("1", "2"))


def test_the_bounds_of_the_real_table_are_thirty_trainings() -> None:
    assert bench.Plan().trainings == 30
    assert len(bench.Plan().seeds) >= 8
