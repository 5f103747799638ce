"""What differs between two bundles, as git would print it: by file, in hunks with three lines around.

The lines are found by Myers' greedy search, after whatever can match nothing is set aside. Bundles are written by
improvers, so the search has a budget in steps: a file that would take more is shown as replaced whole.

Not covered: which of several equally short differences reads best.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from bellglass.records import Bundle
from bellglass.store.objects import object_id

CONTEXT = 3
MOST_EDITS = 1000  # lines of one file that are added or removed although the other side has such lines, too
MOST_STEPS = 3_000_000  # of one comparison, all files together: about a second
LINE = re.compile(rb"[^\n]*\n|[^\n]+")
TITLE = re.compile(rb"[A-Za-z_$]")  # a line that begins so is told behind a hunk's numbers, as git does
TITLE_BYTES = 80

Lines = list[bytes]


@dataclass(frozen=True, slots=True)
class Change:
    """Lines `old` to `old_end` of one side stand in the place of `new` to `new_end` of the other."""

    old: int
    old_end: int
    new: int
    new_end: int


@dataclass(frozen=True, slots=True)
class Difference:
    path: str
    added: int
    removed: int
    patch: bytes


def differences(old: Bundle, new: Bundle) -> Iterator[Difference]:
    """Of every path that is not the same on both sides, by name."""
    search = _Search()
    for path in sorted({*old, *new}, key=str.encode):
        before, after = old.get(path), new.get(path)
        if before == after:
            continue
        a, b = LINE.findall(before or b""), LINE.findall(after or b"")
        changes = list(search.changes(a, b))
        added = sum(change.new_end - change.new for change in changes)
        removed = sum(change.old_end - change.old for change in changes)
        patch = b"".join((_heading(path, before, after), *_hunks(a, b, changes)))
        yield Difference(path, added, removed, patch)


# As text


def _heading(path: str, before: bytes | None, after: bytes | None) -> bytes:
    ids = ["0" * 40 if data is None else object_id(b"blob", data) for data in (before, after)]
    tab = "\t" if " " in path else ""  # as git marks where such a name ends
    lines = [f"diff --git a/{path} b/{path}"]
    lines += [f"{word} file mode 100644" for word, data in (("new", before), ("deleted", after)) if data is None]
    lines.append(f"index {ids[0]}..{ids[1]}{'' if before is None or after is None else ' 100644'}")
    if before or after:
        lines.append("--- /dev/null" if before is None else f"--- a/{path}{tab}")
        lines.append("+++ /dev/null" if after is None else f"+++ b/{path}{tab}")
    return "".join(f"{line}\n" for line in lines).encode()


def _hunks(a: Lines, b: Lines, changes: list[Change]) -> Iterator[bytes]:
    groups: list[list[Change]] = []
    for change in changes:
        if groups and change.old - groups[-1][-1].old_end <= 2 * CONTEXT:
            groups[-1].append(change)
        else:
            groups.append([change])
    looked, title = 0, b""
    for group in groups:
        begin = max(group[0].old - CONTEXT, 0)
        title = next((line for line in reversed(a[looked:begin]) if TITLE.match(line)), title)
        looked = begin
        yield _hunk(a, b, group, title)


def _hunk(a: Lines, b: Lines, group: list[Change], title: bytes) -> bytes:
    before = min(group[0].old, CONTEXT)
    after = min(len(a) - group[-1].old_end, CONTEXT)
    start, end = group[0].old - before, group[-1].old_end + after
    numbers = b"-%s +%s" % (_range(start, end), _range(group[0].new - before, group[-1].new_end + after))
    heading = b" ".join([b"@@", numbers, b"@@", *([title[:TITLE_BYTES].rstrip()] if title else [])]) + b"\n"
    parts, at = [heading], start
    for change in group:
        parts += _signed(b" ", a[at : change.old])
        parts += _signed(b"-", a[change.old : change.old_end])
        parts += _signed(b"+", b[change.new : change.new_end])
        at = change.old_end
    return b"".join([*parts, *_signed(b" ", a[at:end])])


def _range(start: int, end: int) -> bytes:
    count = end - start
    first = start + 1 if count else start
    return b"%d" % first if count == 1 else b"%d,%d" % (first, count)


def _signed(sign: bytes, lines: Lines) -> Iterator[bytes]:
    for line in lines:
        yield sign + line
        if not line.endswith(b"\n"):
            yield b"\n\\ No newline at end of file\n"


# Which lines


class _Search:
    def __init__(self) -> None:
        self._steps = MOST_STEPS

    def changes(self, a: Lines, b: Lines) -> Iterator[Change]:
        """In order; between two of them lies at least one line that both sides have."""
        same = [(-1, -1), *self._matches(a, b), (len(a), len(b))]
        for (i, j), (x, y) in pairwise(same):
            if x > i + 1 or y > j + 1:
                yield Change(i + 1, x, j + 1, y)

    def _matches(self, a: Lines, b: Lines) -> Iterator[tuple[int, int]]:
        """Line numbers of both sides, rising on both."""
        shorter = min(len(a), len(b))
        head = next((n for n in range(shorter) if a[n] != b[n]), shorter)
        tail = next((n for n in range(shorter - head) if a[-1 - n] != b[-1 - n]), shorter - head)
        yield from ((n, n) for n in range(head))
        both = {*a[head : len(a) - tail]} & {*b[head : len(b) - tail]}
        left = [n for n in range(head, len(a) - tail) if a[n] in both]
        right = [n for n in range(head, len(b) - tail) if b[n] in both]
        for x, y in self._path([a[n] for n in left], [b[n] for n in right]):
            yield left[x], right[y]
        yield from ((len(a) - n, len(b) - n) for n in range(tail, 0, -1))

    def _path(self, a: Sequence[bytes], b: Sequence[bytes]) -> list[tuple[int, int]]:
        """The matches of a shortest edit; none where finding it would take too long."""
        if not a or not b:
            return []
        most = min(len(a) + len(b), MOST_EDITS)
        furthest = [0] * (2 * most + 3)  # by diagonal, x - y, from the middle: how far along `a` it has come
        trail: list[list[int]] = []
        for edits in range(most + 1):
            trail.append(furthest[most + 1 - edits - 1 : most + 1 + edits + 2])
            for diagonal in range(-edits, edits + 1, 2):
                at = most + 1 + diagonal
                began = furthest[at + 1] if _adds(furthest, at, diagonal, edits) else furthest[at - 1] + 1
                x = began
                while x < len(a) and 0 <= x - diagonal < len(b) and a[x] == b[x - diagonal]:
                    x += 1
                furthest[at] = x
                self._steps -= 1 + x - began
                if x >= len(a) and diagonal == len(a) - len(b):
                    return _walked_back(trail, len(a), len(b))
            if self._steps < 0:
                break
        return []


def _adds(furthest: Sequence[int], at: int, diagonal: int, edits: int) -> bool:
    """Whether the last edit that leads to this diagonal adds a line of `b`; else it removes one of `a`."""
    return diagonal == -edits or (diagonal != edits and furthest[at - 1] < furthest[at + 1])


def _walked_back(trail: list[list[int]], x: int, y: int) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for edits in range(len(trail) - 1, -1, -1):
        furthest, at = trail[edits], edits + 1 + x - y
        adds = _adds(furthest, at, x - y, edits)
        start = furthest[at + 1] if adds else furthest[at - 1] + 1
        while x > start:
            x, y = x - 1, y - 1
            found.append((x, y))
        x, y = (x, y - 1) if adds else (x - 1, y)
    return found[::-1]
