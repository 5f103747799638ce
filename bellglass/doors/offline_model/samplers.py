"""The sessions of `random` and `tpe`: what the offline improver's menu gives to a search that understands nothing.

Both draw configurations (configurations.py) and give each one trial: of the whole budget where the session has six
trials or more, so that what is submitted was measured as it will be judged. The best one is submitted. They differ in
the draw alone: `random` draws every choice uniformly, `tpe` learns from the scores of this session (tpe.py).

This is the strongest plain form of either. No trial is spent on the parent: the gate compares with it anyway, on pairs
and documents that count, and a draw more is worth more than a number that decides nothing. Every choice is open in
every draw (drawing the number of edits first found worse ones). No configuration is tried twice, and edits that this
loop forbids are not in the space. The scaffold is never changed.

Not covered: what earlier generations tried. Every session starts from its parent's files, and learns anew.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from bellglass.doors.offline_model import tpe
from bellglass.doors.offline_model.configurations import Choice, choices, configured, taken
from bellglass.doors.offline_model.desk import TRAINER, Desk, Step, read, share, trial
from bellglass.doors.offline_model.menu import MENU
from bellglass.doors.offline_model.talk import Files, Move, Script, Talk, edit_moves, failed

MOST_DRAWS = 50  # that were all tried before: then the space counts as exhausted
MOST_SAID = 80_000  # characters of edits: a scaffold elides what a longer conversation began with


class Sampler(Protocol):
    def draw(self) -> dict[str, str]:
        """A choice's name -> the name of one of its edits, or anything else for none of them."""

    def tell(self, score: float | None) -> None:
        """What the last draw scored; None: it failed."""


@dataclass(frozen=True, slots=True)
class Configuration:
    files: dict[str, str]
    names: tuple[str, ...]


class Uniform:
    """Every choice at its parent's value or one of its edits, each equally likely. Draws by hash: the same for ever."""

    def __init__(self, space: Sequence[Choice], seed: str) -> None:
        self._space, self._seed, self._count = space, seed, 0

    def draw(self) -> dict[str, str]:
        self._count += 1
        return {choice.name: self._pick(choice) for choice in self._space}

    def _pick(self, choice: Choice) -> str:
        options = ["", *(edit.name for edit in choice.edits)]
        return options[number_of(f"{self._seed}/{self._count}/{choice.name}") % len(options)]

    def tell(self, score: float | None) -> None:
        """Nothing is learnt."""


def number_of(label: str) -> int:
    return int.from_bytes(hashlib.sha256(label.encode()).digest()[:8], "big")


def random_search(talk: Talk) -> Script:
    return _search(talk, "random", lambda space: Uniform(space, f"random/{talk.seed}/{talk.generation}"))


def tpe_search(talk: Talk) -> Script:
    def sampler(space: Sequence[Choice]) -> Sampler:
        seed = number_of(f"tpe/{talk.seed}/{talk.generation}") % 2**32
        names = {choice.name: [edit.name for edit in choice.edits] for choice in space}
        return tpe.Sampler(names, seed)

    return _search(talk, "tpe", sampler)


def _search(talk: Talk, name: str, sampler_of: Callable[[Sequence[Choice]], Sampler]) -> Script:
    desk = Desk(talk, files={}, left=talk.trials)
    yield from read(desk, TRAINER)
    parent, fraction = dict(desk.files), share(desk.left)
    space = choices(parent, [edit for edit in MENU if _allowed(talk, parent, edit.apply(parent))])
    if not space or desk.left < fraction:
        return
    best, count = yield from _try_all(desk, parent, space, sampler_of(space), fraction)
    if best is not None and (yield from _become(desk, best.files)):
        yield from desk.ask(Move("submit", {"note": _note(name, desk, best, count, fraction)}))


def _allowed(talk: Talk, before: Files, after: Files | None) -> bool:
    return after is not None and all(talk.may_change(path) for path in after if after[path] != before.get(path))


def _try_all(
    desk: Desk, parent: Files, space: Sequence[Choice], sampler: Sampler, fraction: float
) -> Step[tuple[Configuration | None, int]]:
    """The best configuration, where one was trained at all, and how many were tried."""
    best, best_score, said = None, float("inf"), 0
    seen: dict[str, float | None] = {}
    while desk.left >= fraction and not desk.out_of_turns() and said < MOST_SAID:
        drawn = _draw_new(parent, space, sampler, seen)
        if drawn is None:
            break
        said += sum(len(str(move.args)) for move in edit_moves(desk.files, drawn.files, desk.talk.tools))
        if not (yield from _become(desk, drawn.files)):
            return None, len(seen)
        score = yield from trial(desk, "+".join(drawn.names), fraction)
        seen[_key(drawn.files)] = score
        sampler.tell(score)
        if score is not None and score < best_score:
            best, best_score = drawn, score
    return best, len(seen)


def _draw_new(
    parent: Files, space: Sequence[Choice], sampler: Sampler, seen: Mapping[str, float | None]
) -> Configuration | None:
    """A configuration that is neither the parent nor tried before; of a known one the sampler hears again."""
    for _ in range(MOST_DRAWS):
        files, names = configured(parent, taken(space, sampler.draw(), MENU))
        key = _key(files)
        if key in seen:
            sampler.tell(seen[key])
        elif files != parent:
            return Configuration(files, names)
    return None


def _become(desk: Desk, files: dict[str, str]) -> Step[bool]:
    """Whether work/ holds these files now. Where an edit fails nobody knows what it holds, and the session ends."""
    moves = edit_moves(desk.files, files, desk.talk.tools)
    answers = (yield from desk.ask(*moves)) if moves else []
    desk.files = dict(files)
    return not any(failed(answer) for answer in answers)


def _key(files: Files) -> str:
    return hashlib.sha256(repr(sorted(files.items())).encode()).hexdigest()


def _note(name: str, desk: Desk, best: Configuration, count: int, fraction: float) -> str:
    """Facts first: a digest may cut the end off."""
    return (
        f"{name}: the best of {count} configurations, one trial each at {fraction:g}: {', '.join(best.names)}. "
        "By a baseline that draws from a menu of edits that people wrote. "
        f"Exploration scores, each at a share of the budget: {'; '.join(desk.measured)}."
    )
