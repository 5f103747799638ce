"""The live view of a loop, on a terminal: calm, of a steady height, and never wider than the terminal.

A line for the generation and its phase, one for each trial that can run side by side, one for what is used of the
bounds, one for the next review. Events that people want to know scroll by above; without a terminal they are all.

Not covered: what a training has really used of its budget, which only its host knows. A bar is wall time against the
time that trainings of this loop took per second of budget; where it was wrong, the time so far stands instead.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Group
from rich.live import Live
from rich.text import Text

from bellglass.commands.console import Terminal, bound_parts, line_for
from bellglass.forecast import duration
from bellglass.records import Trial
from bellglass.show.phase import next_review, phase
from bellglass.store.ledger import Event
from bellglass.store.state import State
from bellglass.trial_ids import generation_of
from bellglass.visible import visible

MOST_SLOTS = 6  # lines for trials, however many run side by side
OTHER_LINES = 4  # of the view, and one for the events above it
RECENT = 6  # trainings that say how long the next one takes
NAME, WORD, TIME = 25, 9, 16  # columns of a trial's line; its bar takes what is left
BLANK = str.maketrans("\n\t", "  ")
FPS = 2  # times are in whole seconds


@dataclass(frozen=True, slots=True)
class UnderWay:
    """One trial. `lasts` is how many seconds its phase takes; None: nobody knows."""

    name: str
    word: str
    since: float
    lasts: float | None


class LoopView:
    """Turns events into lines and, on a terminal, keeps a small live area below them."""

    def __init__(self, *, live: bool | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = Terminal(stderr=True)
        self._live_wanted = self._console.is_terminal if live is None else live
        self._live: Live | None = None
        self._clock = clock
        self._lock = threading.Lock()
        self._slots: list[UnderWay | None] = []
        self._phase = ("starting", clock())
        self._state: Callable[[], State] | None = None

    def __enter__(self) -> LoopView:
        self._show()
        return self

    def __exit__(self, *_: object) -> None:
        self.pause()

    def watch(self, state: Callable[[], State], side_by_side: int) -> None:
        with self._lock:
            self._state = state
            self._slots += [None] * (side_by_side - len(self._slots))

    def progress(self, trial_id: str, word: str) -> None:
        """A trial keeps its line until it ends, so that nothing jumps."""
        with self._lock:
            place = next((i for i, trial in enumerate(self._slots) if trial and trial.name == trial_id), None)
            if place is None:
                place = next((i for i, trial in enumerate(self._slots) if trial is None), len(self._slots))
                self._slots[place:] = [None, *self._slots[place + 1 :]]
            ended = word in ("done", "failed", "disturbed")
            lasts = self._lasts(trial_id) if word == "training" else None
            self._slots[place] = None if ended else UnderWay(trial_id, word, self._clock(), lasts)

    def event(self, event: Event) -> None:
        self._show()
        line = line_for(event)
        if line is not None:
            self.say(line)

    def say(self, line: str) -> None:
        self._console.print(line, soft_wrap=not self._console.is_terminal)

    def pause(self) -> None:
        """Make room for a question to a person. The next event brings the live area back."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _lasts(self, trial_id: str) -> float | None:
        return None if self._state is None else expected_seconds(self._state(), trial_id)

    def _show(self) -> None:
        if self._live_wanted and self._live is None:
            self._live = Live(get_renderable=self._area, console=self._console, refresh_per_second=FPS, transient=True)
            self._live.start()

    def _area(self) -> Group:
        with self._lock:
            slots, state = list(self._slots), None if self._state is None else self._state()
        now, page = self._clock(), Page(self._console)
        name = phase(state) if state is not None else "starting"
        if name != self._phase[0]:
            self._phase = (name, now)
        lines = [page.head(name, now - self._phase[1])]
        if state is not None:
            lines += page.trials(slots, now)
            lines += [page.used(bound_parts(state)), page.said("next review", next_review(state))]
        return Group(*lines)


class Page:
    """How lines are laid out in the width there is; one column stays free, because some terminals wrap at the edge."""

    def __init__(self, console: Terminal) -> None:
        self._width = max(20, console.width - 1)
        self._slots = max(1, min(MOST_SLOTS, console.height - OTHER_LINES))
        self._full, self._empty = "#-" if console.options.ascii_only else "━─"

    def head(self, name: str, seconds: float) -> Text:
        time_ = duration(seconds)
        return Text.assemble((self._cell(name, self._width - len(time_) - 1), "bold"), " ", (time_, "dim"))

    def trials(self, slots: list[UnderWay | None], now: float) -> list[Text]:
        """Always as many lines; the last one counts what has no line."""
        room = min(len(slots), self._slots)
        beyond = sum(trial is not None for trial in slots[room - 1 :]) if len(slots) > room else 0
        lines = [self._trial(trial, now) for trial in slots[:room]]
        if beyond > 1:
            lines[-1] = Text(self._cell(f"  and {beyond} trials more", self._width).rstrip())
        return lines

    def used(self, parts: list[str]) -> Text:
        """As many as fit, whole: half a number would be a wrong one."""
        line = "used"
        for part, separator in zip(parts, [" ", *[", "] * len(parts)], strict=False):
            if len(line + separator + part) > self._width:
                break
            line += separator + part
        return Text(line, style="dim")

    def said(self, label: str, words: str) -> Text:
        return Text(self._cell(f"{label} {words}", self._width).rstrip(), style="dim")

    def _trial(self, trial: UnderWay | None, now: float) -> Text:
        if trial is None:
            return Text("  -", style="dim")
        passed = now - trial.since
        name = self._cell(trial.name, min(NAME, max(8, self._width - WORD - TIME - 4)))
        room = self._width - cell_len(name) - WORD - TIME - 5
        bar = self._bar(trial.lasts, passed, room)
        time_ = time_text(trial.lasts, passed).rjust(TIME)
        line = Text.assemble("  ", name, " ", self._cell(trial.word, WORD), " ", bar, " ", (time_, "dim"))
        line.truncate(self._width)
        return line

    def _bar(self, lasts: float | None, passed: float, room: int) -> Text:
        """Blank where nobody knows how long it takes, full never: what ended is gone. It can be read without colour."""
        if lasts is None or room <= 0:
            return Text(" " * max(0, room))
        full = min(int(room * passed / lasts), room - 1)
        return Text.assemble((self._full * full, "cyan"), (self._empty * (room - full), "dim"))

    def _cell(self, words: str, width: int) -> str:
        """Exactly so many columns, whatever the words hold."""
        text = Text(visible(words).translate(BLANK))
        text.truncate(width, overflow="crop" if self._full == "#" else "ellipsis", pad=True)
        return text.plain


def expected_seconds(state: State, trial_id: str) -> float | None:
    """How long the training of a booked trial takes by the wall; None where its budget is no time."""
    intent = state.open_trials.get(trial_id)
    if intent is None or intent["budget"]["kind"] == "steps":
        return None
    done: list[Trial] = []
    for number in range(generation_of(trial_id), -1, -1):  # a loop is long, and its last generations say it
        near = [trial for trial in state.trials_in(number) if trial.fault is None and trial.budget.kind != "steps"]
        done = [*near, *done]
        if len(done) >= RECENT:
            break
    pace = [trial.wall_seconds / trial.budget.amount for trial in done[-RECENT:]]
    return float(intent["budget"]["amount"]) * (statistics.median(pace) if pace else 1.0)


def time_text(lasts: float | None, passed: float) -> str:
    """A guess that was wrong is not repeated: from then on it is the time so far."""
    if lasts is None or passed >= lasts:
        return f"{duration(passed)} so far"
    return f"about {duration(max(1.0, lasts - passed))} left"
