"""What the offline improver takes from a conversation, and the small language its story is written in. Pure."""

from __future__ import annotations

import difflib
import functools
import json
import re
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from bellglass.records import ChatRequest, Json, kind_of

Files: TypeAlias = Mapping[str, str]  # "trainer/model.py" -> its text


@dataclass(frozen=True, slots=True)
class Move:
    """One tool call."""

    tool: str
    args: Mapping[str, Json]


Script: TypeAlias = Generator[list[Move], list[str], None]


@dataclass(frozen=True, slots=True)
class Talk:
    """The fixed part of a conversation: what the scaffold said at its beginning, and which tools it offers."""

    opening: str
    tools: frozenset[str]
    seed: int
    generation: int
    trials: float  # what the opening says is left of this session's trials, in whole ones
    turns: int  # how often this session may ask the model
    may_edit: frozenset[str] | None  # kinds of files; None where the opening does not say

    @classmethod
    def of(cls, request: ChatRequest) -> Talk:
        first = next((i for i, message in enumerate(request.messages) if message.role == "assistant"), None)
        opening = "\n".join(message.text for message in request.messages[:first])
        return cls(
            opening=opening,
            tools=frozenset(tool.name for tool in request.tools),
            seed=int(_found(r"\bseed: (-?\d+), generation: \d", opening, 0)),
            generation=int(_found(r"\bseed: -?\d+, generation: (\d+)", opening, 1)),
            trials=_found(r'"trials": (\d+(?:\.\d+)?)', opening, 3.0),
            turns=int(_found(r"\bturns: (\d+)", opening, 40)),
            may_edit=_kinds(opening),
        )

    def may_change(self, path: str) -> bool:
        return self.may_edit is None or kind_of(path) in self.may_edit

    def dropped(self) -> frozenset[str]:
        """Edits that earlier sessions' notes and lessons call dropped."""
        lists = re.findall(r"dropped: ([\w, -]+)", self.opening)
        return frozenset(name.strip() for names in lists for name in names.split(","))


def _found(pattern: str, text: str, otherwise: float) -> float:
    match = re.search(pattern, text)
    return float(match.group(1)) if match else otherwise


def _kinds(opening: str) -> frozenset[str] | None:
    match = re.search(r"^You may edit: ([a-z, ]+)$", opening, re.MULTILINE)
    return frozenset(match[1].split(", ")) if match else None


def as_object(text: str) -> dict[str, Json]:
    """A tool's result that should be a JSON object; {} when it is anything else, such as an error."""
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def failed(text: str) -> bool:
    return text.startswith("error:")


@functools.lru_cache(maxsize=256)  # a story is told from its beginning at every turn
def replacements(old: str, new: str) -> tuple[tuple[str, str], ...] | None:
    """Passages that turn `old` into `new` one after the other, each standing exactly once when its turn comes.

    The fewest lines of context that make them unique, so that edits to different places rarely collide. None when no
    amount does (or nothing would be left to name).
    """
    before, after = old.splitlines(keepends=True), new.splitlines(keepends=True)
    for context in (0, 1, 2, 4, 8, 16, 64):
        matcher = difflib.SequenceMatcher(None, before, after, autojunk=False)
        pairs, text = [], old
        for group in matcher.get_grouped_opcodes(context):
            was = "".join(before[group[0][1] : group[-1][2]])
            becomes = "".join(after[group[0][3] : group[-1][4]])
            if not was or text.count(was) != 1:
                break
            pairs.append((was, becomes))
            text = text.replace(was, becomes)
        else:
            if text == new:
                return tuple(pairs)
    return None


def edit_moves(before: Files, after: Files, tools: frozenset[str]) -> list[Move]:
    """The calls that turn one state of the files into another, with the tools there are."""
    moves: list[Move] = []
    for path in sorted(after):
        old, new = before.get(path), after[path]
        if old == new:
            continue
        pairs = replacements(old, new) if old is not None and "replace" in tools else None
        if pairs is None:
            moves.append(Move("write_file", {"path": path, "text": new}))
        else:
            moves += [Move("replace", {"path": path, "old": was, "new": becomes}) for was, becomes in pairs]
    return moves


def edit_list(before: Files, after: Files) -> list[Json] | None:
    """The same as data, for tools that take edits: path, old, new. None when passages can't express it."""
    edits: list[Json] = []
    for path in sorted(after):
        if before.get(path) == after[path]:
            continue
        pairs = replacements(before[path], after[path]) if path in before else None
        if pairs is None:
            return None
        edits += [{"path": path, "old": was, "new": becomes} for was, becomes in pairs]
    return edits
