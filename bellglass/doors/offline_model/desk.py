"""What every built-in improver has at hand: the files as they are, what is left, how a trial is asked for. Pure."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from typing import TypeVar

from bellglass.doors.offline_model.talk import Move, Talk, as_object, failed
from bellglass.records import Json

TRAINER = ("trainer/data.py", "trainer/objective.py", "trainer/model.py", "trainer/train.py")
TURNS_KEPT = 8  # for what comes after the trials: the scaffold's edit and the submission
LEAST_FRACTION = 0.1
MOST_SAID = 90_000  # characters of calls and results: a scaffold elides what a longer conversation began with

T = TypeVar("T")
Step = Generator[list[Move], list[str], T]


@dataclass(slots=True)
class Desk:
    """What the story knows so far."""

    talk: Talk
    files: dict[str, str]
    left: float  # trials, in whole ones
    turns: int = 0
    said: int = 0
    kept: list[str] = field(default_factory=list)  # in order; a name again for each step further
    dropped: list[str] = field(default_factory=list)
    kept_when_dropped: dict[str, int] = field(default_factory=dict)  # how many edits were kept by then
    undo: list[Move] = field(default_factory=list)  # what puts back the last edit, where that is still to do
    measured: list[str] = field(default_factory=list)  # what was measured, for the note and the lessons

    def ask(self, *moves: Move) -> Step[list[str]]:
        self.turns += 1
        texts = yield list(moves)
        self.said += sum(len(str(move.args)) for move in moves) + sum(map(len, texts))
        return texts

    def out_of_turns(self) -> bool:
        return self.turns > self.talk.turns - TURNS_KEPT or self.said > MOST_SAID

    def keep(self, name: str) -> None:
        self.kept.append(name)

    def drop(self, name: str) -> None:
        self.dropped.append(name)
        self.kept_when_dropped[name] = len(self.kept)

    def may_try(self, name: str) -> bool:
        """One second chance for what was dropped, once another edit has been kept since."""
        when = self.kept_when_dropped.get(name)
        return when is None or (self.dropped.count(name) == 1 and len(self.kept) > when)

    @property
    def no_use(self) -> list[str]:
        return [name for name in dict.fromkeys(self.dropped) if name not in self.kept]

    def account(self, result: dict[str, Json]) -> None:
        left = result.get("left", {})
        if isinstance(left, dict) and isinstance(left.get("trials"), int | float):
            self.left = float(left["trials"])


def share(left: float) -> float:
    """The share of the budget that each trial of a baseline gets: so that at least six fit, where any do."""
    return round(max(LEAST_FRACTION, min(1.0, left / 6)), 3)


def read(desk: Desk, paths: tuple[str, ...]) -> Step[None]:
    texts = yield from desk.ask(*(Move("read_file", {"path": path}) for path in paths))
    desk.files |= {path: text for path, text in zip(paths, texts, strict=True) if not failed(text)}


def trial(desk: Desk, name: str, fraction: float) -> Step[float | None]:
    (text,) = yield from desk.ask(Move("trial", {"note": name, "fraction": fraction}))
    return scored(desk, name, text)


def scored(desk: Desk, name: str, text: str) -> float | None:
    """The score of a trial's result; what went wrong goes into the record too."""
    result = as_object(text)
    if not result:
        desk.left = 0.0  # the trial was refused: asking again would be refused again
        desk.measured.append(f"{name}: no trial")
        return None
    desk.account(result)
    score = result.get("score")
    if not result.get("ok") or not isinstance(score, int | float):
        desk.measured.append(f"{name}: {result.get('fault')}")
        return None
    desk.measured.append(f"{name}: {score:.3f} at {result.get('fraction', 1.0):g}")
    return float(score)
