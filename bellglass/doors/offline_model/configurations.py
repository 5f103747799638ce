"""Configurations: edits of the menu that go onto the trainer together. `random` and `tpe` search among them. Pure.

A *choice* holds edits of which at most one is taken, because they change the same line of the trainer as it is: a rate
goes up or down, not both. Most choices hold one edit, which is taken or not. A configuration takes one edit or none
from every choice; they are applied in the menu's order, and one whose place an earlier one has rewritten is left out.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from bellglass.doors.offline_model.menu import Edit
from bellglass.doors.offline_model.talk import Files

Place: TypeAlias = tuple[str, int]  # path, line


@dataclass(frozen=True, slots=True)
class Choice:
    edits: tuple[Edit, ...]

    @property
    def name(self) -> str:
        return "|".join(edit.name for edit in self.edits)


def choices(files: Files, edits: Sequence[Edit]) -> tuple[Choice, ...]:
    """The edits that fit these files, those that change a common line together, in the order they came in."""
    groups: list[tuple[list[Edit], set[Place]]] = []
    for edit in edits:
        after = edit.apply(files)
        if after is None:
            continue
        places = changed_lines(files, after)
        group, apart = ([edit], places), []
        for other in groups:
            if other[1] & group[1]:
                group = other[0] + group[0], other[1] | group[1]
            else:
                apart.append(other)
        groups = [*apart, group]
    order = {edit.name: index for index, edit in enumerate(edits)}
    found = (Choice(tuple(sorted(group, key=lambda edit: order[edit.name]))) for group, _ in groups)
    return tuple(sorted(found, key=lambda choice: order[choice.edits[0].name]))


def changed_lines(before: Files, after: Files) -> set[Place]:
    """The lines of `before` that are gone or other ones afterwards; what is only put between them changes none."""
    return {(path, line) for path in after for line in _changed(before.get(path, ""), after[path])}


@functools.lru_cache(maxsize=256)  # a story is told from its beginning at every turn
def _changed(old: str, new: str) -> tuple[int, ...]:
    matcher = difflib.SequenceMatcher(None, old.splitlines(), new.splitlines(), autojunk=False)
    spans = [(first, last) for tag, first, last, _, _ in matcher.get_opcodes() if tag != "equal"]
    return tuple(line for first, last in spans for line in range(first, last))


def configured(files: Files, edits: Sequence[Edit]) -> tuple[dict[str, str], tuple[str, ...]]:
    """The files with these edits one after the other, and the names of those that fitted."""
    names: list[str] = []
    now = dict(files)
    for edit in edits:
        after = edit.apply(now)
        if after is not None:
            now = after
            names.append(edit.name)
    return now, tuple(names)


def taken(space: Sequence[Choice], picks: Mapping[str, str], menu: Sequence[Edit]) -> list[Edit]:
    """The picked edits (choice's name -> edit's name, or anything else for none) in the menu's order."""
    names = {edit.name for choice in space for edit in choice.edits if picks.get(choice.name) == edit.name}
    return [edit for edit in menu if edit.name in names]
