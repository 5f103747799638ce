"""What a terminal shows while a loop runs, and the table at its end."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import replace

import pytest
from rich.cells import cell_len

from bellglass.commands.console import LINES, Terminal, bounds_line, print_summary
from bellglass.commands.progress import MOST_SLOTS, LoopView
from bellglass.records import Budget, Claim, Cost, Seeds, Trial, Verdict
from bellglass.store.ledger import Event
from bellglass.store.state import Generation, State

CONFIG = {
    "task": "stories", "preset": "tiny", "virtual_clock": False, "models": {"main": "offline"}, "generations": 3,
    "train_seconds": None, "budget_usd": None, "review": "tripwire",
}  # fmt: skip
KINDS = ("architecture", "data", "objective", "optimiser", "scaffold")


def event(kind: str, **body: object) -> Event:
    return Event(1, 0.0, kind, body, "", "")


def intended(purpose: str) -> Event:
    return event("trial.intended", trial_id="final-pair-0-starter", purpose=purpose, generation=3)


class Hand:
    """A clock that a test moves."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Hand:
    return Hand()


@pytest.fixture
def view(clock: Hand) -> Iterator[LoopView]:
    made = LoopView(live=True, clock=clock)
    made._console = Terminal(file=io.StringIO(), force_terminal=True, width=80)
    with made:
        yield made
    assert made._live is None


@pytest.fixture
def state(view: LoopView) -> State:
    """Of a loop of three generations, in its second, watched on a machine that trains two side by side."""
    made = State("1f868b63", created={"task": "stories"}, config=CONFIG, calibration={})
    made.generations[2] = Generation(2, "c" * 40)
    view.watch(lambda: made, 2)
    return made


def shown(view: LoopView, width: int = 80, height: int = 24) -> str:
    view._console = Terminal(file=io.StringIO(), force_terminal=True, width=width, height=height)
    console = Terminal(file=io.StringIO(), width=width, color_system=None, record=True)
    console.print(view._area())
    return console.export_text()


def train(view: LoopView, state: State, name: str, kind: str = "cpu_seconds", amount: float = 8.0) -> None:
    state.open_trials[name] = {"budget": {"kind": kind, "amount": amount, "wall_seconds": 60.0}, "purpose": "gate"}
    view.progress(name, "training")


def settle(view: LoopView, state: State, name: str) -> None:
    del state.open_trials[name]
    view.progress(name, "done")


def test_the_live_view_names_generation_phase_trials_bounds_and_the_next_review(
    view: LoopView, state: State, clock: Hand
) -> None:
    state.spent = Cost(train_seconds=61.0, calls=4, usd=0.5)
    state.wall_seconds = 130.0
    state.config = {**CONFIG, "train_seconds": 600.0, "wall_seconds": 3600.0, "calls": 50, "budget_usd": 2.0}
    state.generations[2].proposed, state.generations[2].successor = True, "d" * 40
    state.generations[2].kinds = ("optimiser",)
    shown(view)
    train(view, state, "g2-pair-0-parent")
    train(view, state, "g2-pair-0-child")
    clock.now += 2
    view.progress("g2-pair-0-child", "judging")
    clock.now += 2
    assert shown(view).splitlines() == [
        "generation 2 of 3: the gate, successor against parent                       4 s",
        "  g2-pair-0-parent          training  ━━━━━━━━━━━━────────────   about 4 s left",
        "  g2-pair-0-child           judging                                  2 s so far",
        "used 61/600 s trained, 2/60 min in all, 4/50 calls, 0.500/2 USD",
        "next review only when a tripwire latches",
    ]


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ("every", "the successor of generation 2, once its gate has decided"),
        ("tripwire", "only when a tripwire latches"),
        ("never", "never; a tripwire still halts the loop"),
    ],
)
def test_the_next_review_is_what_the_config_rules(view: LoopView, state: State, rule: str, words: str) -> None:
    state.config = {**CONFIG, "review": rule}
    assert f"next review {words}\n" in shown(view)


def test_a_training_that_takes_longer_than_thought_shows_the_time_so_far(
    view: LoopView, state: State, clock: Hand
) -> None:
    train(view, state, "g2-pair-0-child")
    clock.now += 9
    assert "9 s so far" in shown(view)
    assert "left" not in shown(view)
    assert "━─ " in shown(view), "a full bar would say that it has ended"


def test_a_budget_in_steps_has_no_bar(view: LoopView, state: State, clock: Hand) -> None:
    train(view, state, "g2-pair-0-child", kind="steps", amount=60.0)
    clock.now += 1
    assert "1 s so far" in shown(view)
    assert not set("━─") & set(shown(view))


def test_trainings_that_ended_say_how_long_the_next_one_takes(view: LoopView, state: State) -> None:
    slow = replace(trial("cal-0x0", 3.0), budget=Budget("cpu_seconds", 8.0, 60), train_seconds=8.0, wall_seconds=20.0)
    state.keep_trial(slow)
    train(view, state, "g2-explore-0-cafe", amount=4.0)
    assert "about 10 s left" in shown(view)


def test_the_view_keeps_its_height_and_a_trial_its_line(view: LoopView, state: State) -> None:
    heights = [len(shown(view).splitlines())]
    for name in ("one", "two"):
        train(view, state, name)
        heights.append(len(shown(view).splitlines()))
    settle(view, state, "one")
    lines = shown(view).splitlines()
    assert lines[1] == "  -"
    assert lines[2].startswith("  two ")
    assert {*heights, len(lines)} == {5}


def test_more_trials_than_lines_are_counted_in_the_last_one(view: LoopView, state: State) -> None:
    view.watch(lambda: state, 64)
    for number in range(64):
        train(view, state, f"cal-{number}x{number}")
    lines = shown(view).splitlines()
    assert len(lines) == 1 + MOST_SLOTS + 2
    assert lines[MOST_SLOTS] == f"  and {64 - MOST_SLOTS + 1} trials more"
    assert len(shown(view, height=6).splitlines()) <= 5


HOSTILE = "g2-\x1b[2J\x1b]0;mine\x07[bold]\r\n\u202e\t[/] 訓練訓練訓練訓練訓練訓練訓練訓練訓練"


@pytest.mark.parametrize("name", [HOSTILE, "long-" * 40, ""])
@pytest.mark.parametrize("width", [30, 60, 80, 200])
def test_no_name_moves_the_cursor_or_breaks_a_line(view: LoopView, state: State, name: str, width: int) -> None:
    state.tripwires.append({"name": name, "generation": 2})
    train(view, state, name)
    out = io.StringIO()
    shown(view, width)
    Terminal(file=out, width=width, color_system=None, legacy_windows=False).print(view._area())
    view._console = Terminal(file=io.StringIO(), width=width)
    view.say(name)
    said = view._console.file.getvalue()  # type: ignore[attr-defined]
    lines = out.getvalue().splitlines()
    assert len(lines) == 5
    assert max(map(cell_len, lines)) < width
    assert all(char.isprintable() or char == "\n" for char in out.getvalue() + said)


def test_every_bound_fits_into_a_narrow_line_whole(view: LoopView, state: State) -> None:
    state.spent = Cost(train_seconds=34_567.0, calls=1234, usd=12.345, tokens_in=10**7)
    state.wall_seconds = 34_567.0
    state.config = {
        **CONFIG, "train_seconds": 36_000.0, "wall_seconds": 36_000.0, "calls": 2000, "budget_usd": 20.0,
        "tokens": 10**8,
    }  # fmt: skip
    used = shown(view).splitlines()[3]
    assert used == "used 576/600 min trained, 576/600 min in all, 1234/2000 calls, 12.345/20 USD"


def test_a_terminal_without_unicode_gets_plain_signs(view: LoopView, state: State, clock: Hand) -> None:
    train(view, state, "long-" * 40)
    clock.now += 4
    raw = io.BytesIO()
    console = Terminal(file=io.TextIOWrapper(raw, encoding="ascii"), force_terminal=True, width=80, color_system=None)
    view._console = console
    console.print(view._area())
    assert b" ############------------ " in raw.getvalue()


def test_a_calibration_of_its_own_awaits_no_review(view: LoopView, state: State) -> None:
    state.created, state.generations = {"calibrates": 6}, {}
    assert shown(view).startswith("calibration: 0 trainings have ended ")
    assert "next review none: a calibration decides nothing" in shown(view)


def test_before_the_loop_is_open_there_is_one_line(view: LoopView) -> None:
    assert shown(view).split() == ["starting", "0", "s"]


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


def test_a_loop_that_can_see_no_gain_says_so_as_soon_as_its_noise_is_known() -> None:
    body = {"noise": {"sd": 0.1, "df": 3}, "scores": [0.16], "smallest_gain": 0.196, "trial_seconds": 9.0}
    none, few = "; no gain can be that large: the starter is", "; few gains can be that large: the starter is"
    for most, said in ((0.159, none), (0.3, few), (0.5, ""), (None, "")):
        line = LINES["loop.calibrated"]({**body, "measured": True, "why": "", "most_gain": most})
        assert "can detect, if that is the noise: 0.196 bits" in line
        assert line.partition("0.196 bits")[2].startswith(f"{said} only {most:.3f} above" if said else "")
        assert ("above the floor" in line) == bool(said)


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
    for name, bits in (("g1-pair-0-child", 2.966), ("g1-pair-1-child", 2.975)):
        state.keep_trial(trial(name, bits))
    out = io.StringIO()
    print_summary(state, Terminal(file=out, width=80, force_terminal=True, color_system=None))
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    words = set(re.findall(r"[\w.]+", "\n".join(lines[:16])))
    assert {*KINDS, *" ".join(result).split(), "beefbeef", "2.971", "2.913", "3.028", "scaffold"} <= words
