"""The offline improver's session, told from beginning to end as tool calls (see model.py for how it is played).

It reads the trainer, tries edits of the menu that fit it, keeps what the judge's scores favour and puts back the rest,
leaves the scaffold changed, and submits with a note of what it did. With a `race` tool it races candidates first.

Its trials are short ones where it has many: an edit more is worth more than a longer look at each. What helped is tried
a step further; what did not gets one more chance once others were kept.

Not covered: cleverness. The order of edits comes from the seed; which ones stay comes from the trials. An edit that
helps at four tenths of the budget alone is kept all the same; the gate has the last word.
"""

from __future__ import annotations

import hashlib

from bellglass.doors.offline_model import gifts
from bellglass.doors.offline_model.desk import LEAST_FRACTION, TRAINER, Desk, Step, read, scored, trial
from bellglass.doors.offline_model.menu import MENU, Edit
from bellglass.doors.offline_model.talk import Files, Move, Script, Talk, as_object, edit_list, edit_moves, failed

SCAFFOLD = {
    "works": (gifts.TASK_PATH,),
    "inert": ("scaffold/improve.py",),
    "harmful": ("scaffold/tools/trial.py", "scaffold/tools/write_file.py", "scaffold/scaffold.toml"),
}
SMALLEST_GAIN = 0.002  # of the score: below it, an edit isn't worth its lines
SHORT = 0.4  # of the budget: ranks edits nearly as a full trial does, and two and a half are tried for the price of one
SHORTEST = 0.25  # the same in a race, whose winners get another look one by one
LANES = 2  # of a race: the fewer, the sooner an edit is tried on top of another
RACED = 0.7  # of the session's trials; the rest is for second chances and steps further


def improve(talk: Talk, variant: str) -> Script:
    desk = Desk(talk, files={}, left=talk.trials)
    yield from read(desk, TRAINER)
    start = dict(desk.files)
    if "race" in talk.tools:
        yield from _race(desk)
    yield from _one_by_one(desk)
    what = yield from _change_scaffold(desk, variant)
    if desk.files == start and not what:
        return  # nothing to submit: say so and stop
    yield from desk.ask(Move("submit", {"note": _note(desk, what)}))


def _candidates(desk: Desk) -> list[tuple[Edit, dict[str, str]]]:
    """The edits that fit the files as they are: the more plausible tiers first, what others dropped last.

    What was tried in this session comes a tier later: a step further where it was kept (a rate twice as high again),
    a second chance where it was not and others were kept since.
    """
    talk, old_news = desk.talk, desk.talk.dropped()

    def order(edit: Edit) -> tuple[bool, int, str]:
        draw = hashlib.sha256(f"{talk.seed}/{talk.generation}/{edit.name}".encode()).hexdigest()
        again = edit.name in desk.kept or edit.name in desk.dropped
        return edit.name in old_news, edit.tier + again, draw

    fitting = []
    for edit in sorted(MENU, key=order):
        if desk.may_try(edit.name):
            after = edit.apply(desk.files)
            if after is not None:
                fitting.append((edit, after))
    return fitting


# One after the other


def _one_by_one(desk: Desk) -> Step[None]:
    """A trial of the files as they are, then of one edit after the other, all at the same share of the budget."""
    fraction = round(max(LEAST_FRACTION, min(SHORT, desk.left / 6)), 3)
    if desk.left < 2 * fraction or desk.out_of_turns():
        return
    best = yield from trial(desk, "the trainer as it is", fraction)
    if best is None:
        return
    while desk.left >= fraction and not desk.out_of_turns():
        candidates = _candidates(desk)
        if not candidates:
            break
        edit, after = candidates[0]
        score = yield from _try(desk, edit, after, fraction, best * (1 - SMALLEST_GAIN))
        if score is not None:
            best = score
    yield from _put_back(desk)


def _try(desk: Desk, edit: Edit, after: dict[str, str], fraction: float, to_beat: float) -> Step[float | None]:
    """The score if the edit was kept; None if it is put back."""
    edits = edit_list(desk.files, after)
    if "try_edit" in desk.talk.tools and edits is not None:
        yield from _put_back(desk)
        args = {"name": edit.name, "edits": edits, "fraction": fraction, "to_beat": to_beat}
        (text,) = yield from desk.ask(Move("try_edit", args))
        score = scored(desk, edit.name, text)
        kept = bool(as_object(text).get("kept"))
    else:
        tools, before = desk.talk.tools, desk.files
        moves = [
            *desk.undo,
            *edit_moves(before, after, tools),
            Move("trial", {"note": edit.name, "fraction": fraction}),
        ]
        texts = yield from desk.ask(*moves)  # in one reply: turns are as few as trials
        score = scored(desk, edit.name, texts[-1])
        kept = score is not None and score < to_beat
        desk.undo = [] if kept else edit_moves(after, before, tools)
    if kept:
        desk.keep(edit.name)
        desk.files = dict(after)
    else:
        desk.drop(edit.name)
    return score if kept else None


def _put_back(desk: Desk) -> Step[None]:
    """The files as they were before the last edit that did not help."""
    if desk.undo:
        yield from desk.ask(*desk.undo)
        desk.undo = []


# Side by side


def _race(desk: Desk) -> Step[None]:
    """All candidates that fit, for most of the session's trials, each at a quarter of the budget or less."""
    entrants = [(edit, edits) for edit, after in _candidates(desk) if (edits := edit_list(desk.files, after))]
    short = round(max(LEAST_FRACTION, min(SHORTEST, desk.left / 8)), 3)
    entrants = entrants[: int(RACED * desk.left / short) - 1]
    if not entrants:
        return
    listed = [{"name": edit.name, "edits": edits} for edit, edits in entrants]
    (text,) = yield from desk.ask(Move("race", {"candidates": listed, "short": short, "lanes": LANES}))
    result = as_object(text)
    if not result:
        return
    desk.account(result)
    scores = {name: score for name, score in result.get("scores", {}).items() if isinstance(score, int | float)}
    kept, lost = [str(name) for name in result.get("kept", [])], {*scores, *result.get("faults", {})}
    for edit, _ in entrants:  # first, because what won since gives them a second chance
        if edit.name in lost.difference(kept):
            desk.drop(edit.name)
    for name in kept:
        desk.keep(name)
    desk.measured += [f"{name}: {score:.3f} at {short:g}" for name, score in scores.items()]
    desk.measured += [f"{name}: {fault}" for name, fault in result.get("faults", {}).items()]
    yield from read(desk, TRAINER)  # the race has left its winners in the files


# The scaffold, and the end


def _change_scaffold(desk: Desk, variant: str) -> Step[str]:
    """What was done to the scaffold, in words; nothing when nothing was."""
    scaffold: Files = {}
    texts = yield from desk.ask(*(Move("read_file", {"path": path}) for path in SCAFFOLD[variant]))
    scaffold = {path: text for path, text in zip(SCAFFOLD[variant], texts, strict=True) if not failed(text)}
    if variant == "inert":
        what, changed = gifts.inert_edit(desk.talk, scaffold)
    elif variant == "harmful":
        what, changed = gifts.harmful_edit(desk.talk, scaffold)
    else:
        what, changed = gifts.next_gift(desk.talk, scaffold, _lessons(desk))
    if changed:
        answers = yield from desk.ask(*edit_moves(scaffold, changed, desk.talk.tools))
        if any(failed(answer) for answer in answers):
            return ""
    return what


def _lessons(desk: Desk) -> list[str]:
    lessons = []
    if desk.kept:
        lessons.append(f"generation {desk.talk.generation} kept: {', '.join(desk.kept)}")
    if desk.no_use:
        lessons.append(f"generation {desk.talk.generation} dropped: {', '.join(desk.no_use)}")
    return lessons


def _note(desk: Desk, scaffold: str) -> str:
    """Facts first: a digest may cut the end off."""
    parts = [f"kept: {', '.join(desk.kept) or 'nothing'}."]
    if desk.no_use:
        parts.append(f"dropped: {', '.join(desk.no_use)}.")
    if scaffold:
        parts.append(f"Scaffold: {scaffold}.")
    parts.append("By the offline improver, a positive control: people wrote its tricks.")
    if desk.measured:
        parts.append(f"Exploration scores, each at a share of the budget: {'; '.join(desk.measured)}.")
    return " ".join(parts)
