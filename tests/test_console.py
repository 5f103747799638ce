"""What a terminal shows while a loop runs, and the table at its end."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator

import pytest
from rich.console import Console

from bellglass.commands.console import LoopView, bounds_line, print_summary
from bellglass.records import Budget, Claim, Cost, Seeds, Trial, Verdict
from bellglass.store.ledger import Event
from bellglass.store.state import Generation, State

CONFIG = {
    "task": "stories", "preset": "tiny", "virtual_clock": False, "models": {"main": "offline"}, "generations": 3,
    "train_seconds": None, "budget_usd": None,
}  # fmt: skip
KINDS = ("architecture", "data", "objective", "optimiser", "scaffold")


def event(kind: str, **body: object) -> Event:
    return Event(1, 0.0, kind, body, "", "")


def intended(purpose: str) -> Event:
    return event("trial.intended", trial_id="final-pair-0-starter", purpose=purpose, generation=3)


@pytest.fixture
def view() -> Iterator[LoopView]:
    made = LoopView(live=True)
    made._console = Console(file=io.StringIO(), force_terminal=True, width=80)
    with made:
        yield made
    assert made._live is None


def shown(view: LoopView) -> str:
    console = Console(file=io.StringIO(), width=80, color_system=None)
    console.print(view._area())
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_the_live_view_says_what_trials_outside_a_generation_are_for(view: LoopView) -> None:
    for purpose, words in (("calibrate", "calibration"), ("final", "final:"), ("panel", "trained again")):
        view.event(intended(purpose))
        assert words in shown(view)


def test_a_trial_of_a_generation_leaves_its_stage_on_show(view: LoopView) -> None:
    view.event(event("proposal.made", generation=2, successor=None, fault="no_submit", kinds=[]))
    view.event(intended("gate"))
    assert "generation 2: boot check and gate" in shown(view)


def test_the_live_view_makes_room_for_a_question_and_comes_back_with_the_answer(view: LoopView) -> None:
    view.pause()
    assert view._live is None
    view.event(event("review.decided", decision="approve", who="me", reason="looked"))
    assert view._live is not None


def test_what_a_crash_burnt_counts_against_the_bound_that_is_shown() -> None:
    state = State(
        config={**CONFIG, "train_seconds": 60.0}, spent=Cost(train_seconds=20.0), burnt=Cost(train_seconds=5.0)
    )
    assert bounds_line(state) == "used: 0/3 generations, 25/60 s trained"


def test_without_a_terminal_there_is_no_live_view() -> None:
    with LoopView(live=False) as view:
        view.event(intended("final"))
        assert view._live is None


def trial(name: str, bits: float) -> Trial:
    verdict = Verdict(bits - 0.3, bits, 0.3, {}, 0.01, 100, None)
    return Trial(
        name, "c" * 40, "gate", Seeds(1, 2), Budget("steps", 6, 60), Claim(bits, 6, 6), verdict, None, None, 3.0, 4.0,
        1.0, None,
    )  # fmt: skip


@pytest.mark.parametrize("result", [("adopted", "inherited"), ("unchanged", "not inherited"), ("rejected", "failed")])
def test_no_word_of_the_table_is_folded_on_a_narrow_terminal(result: tuple[str, str]) -> None:
    done = {"trainer": result[0], "scaffold": result[1], "why": "", "champion": "c" * 40}
    state = State("1f868b63", created={"task": "stories", "glass": "process", "sealed": False}, config=CONFIG)
    state.generations[1] = Generation(1, "beef" * 10, successor="c" * 40, kinds=KINDS, result=done, proposed=True)
    state.trials = {name: trial(name, bits) for name, bits in (("g1-pair-0-child", 2.966), ("g1-pair-1-child", 2.975))}
    out = io.StringIO()
    print_summary(state, Console(file=out, width=80, force_terminal=True, color_system=None))
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    words = set(re.findall(r"[\w.]+", "\n".join(lines[:16])))
    assert {*KINDS, *" ".join(result).split(), "beefbeef", "2.971", "2.913", "3.028", "scaffold"} <= words
