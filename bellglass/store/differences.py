"""What differs between two bundles, as git would print it: by file, in hunks with three lines around.

The lines are found by Myers' greedy search, after whatever can match nothing is set aside. Bundles are written by
improvers, so the search has a budget in steps: a file that would take more is shown as replaced whole.

Not covered: which of several equally short differences reads best.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

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
    changes: tuple[Change, ...]
    patch: bytes

    @property
    def added(self) -> int:
        return sum(change.new_end - change.new for change in self.changes)

    @property
    def removed(self) -> int:
        return sum(change.old_end - change.old for change in self.changes)


def differences(old: Bundle, new: Bundle) -> Iterator[Difference]:
    """Of every path that is not the same on both sides, by name."""
    search = _Search()
    for path in sorted({*old, *new}, key=str.encode):
        before, after = old.get(path), new.get(path)
        if before == after:
            continue
        a, b = lines_of(before), lines_of(after)
        changes = tuple(search.changes(a, b))
        yield Difference(path, changes, b"".join((_heading(path, before, after), *_hunks(a, b, changes))))


def lines_of(text: bytes | None) -> Lines:
    """As a difference counts them; of a file that is not there, none."""
    return LINE.findall(text or b"")


# As text


def _heading(path: str, before: bytes | None, after: bytes | None) -> bytes:
    lines = [f"diff --git a/{path} b/{path}"]
    mode = " 100644"  # behind the ids, unless a line of its own tells it
    if before is None:
        lines.append("new file mode 100644")
        mode = ""
    if after is None:
        lines.append("deleted file mode 100644")
        mode = ""
    lines.append(f"index {_id(before)}..{_id(after)}{mode}")
    if before or after:
        tab = "\t" if " " in path else ""  # as git marks where such a name ends
        lines.append("--- /dev/null" if before is None else f"--- a/{path}{tab}")
        lines.append("+++ /dev/null" if after is None else f"+++ b/{path}{tab}")
    return "".join(f"{line}\n" for line in lines).encode()


def _id(data: bytes | None) -> str:
    return "0" * 40 if data is None else object_id(b"blob", data)


def _hunks(a: Lines, b: Lines, changes: Sequence[Change]) -> Iterator[bytes]:
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
    first, last = group[0], group[-1]
    before = min(first.old, CONTEXT)
    after = min(len(a) - last.old_end, CONTEXT)
    start, end = first.old - before, last.old_end + after
    old_lines = _range(start, end)
    new_lines = _range(first.new - before, last.new_end + after)
    heading = b"@@ -%s +%s @@" % (old_lines, new_lines)
    if title:
        heading += b" " + title[:TITLE_BYTES].rstrip()
    parts, at = [heading + b"\n"], start
    for change in group:
        parts += _signed(b" ", a[at : change.old])
        parts += _signed(b"-", a[change.old : change.old_end])
        parts += _signed(b"+", b[change.new : change.new_end])
        at = change.old_end
    parts += _signed(b" ", a[at:end])
    return b"".join(parts)


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
        old = new = 0  # the first lines that are in no match and no change yet
        for x, y in (*self._matches(a, b), (len(a), len(b))):
            if x > old or y > new:
                yield Change(old, x, new, y)
            old, new = x + 1, y + 1

    def _matches(self, a: Lines, b: Lines) -> Iterator[tuple[int, int]]:
        """Line numbers of both sides, rising on both."""
        head = _alike(a, b)
        tail = _alike(a[head:][::-1], b[head:][::-1])
        a_end, b_end = len(a) - tail, len(b) - tail
        for n in range(head):
            yield n, n
        both = set(a[head:a_end]).intersection(b[head:b_end])
        left = [n for n in range(head, a_end) if a[n] in both]
        right = [n for n in range(head, b_end) if b[n] in both]
        for x, y in self._path([a[n] for n in left], [b[n] for n in right]):
            yield left[x], right[y]
        for n in range(tail):
            yield a_end + n, b_end + n

    def _path(self, a: Sequence[bytes], b: Sequence[bytes]) -> list[tuple[int, int]]:
        """The matches of a shortest edit; none where finding it would take too long."""
        if not a or not b:
            return []
        most = min(len(a) + len(b), MOST_EDITS)
        middle = most + 1
        furthest = [0] * (2 * middle + 1)  # by diagonal, x - y, from the middle: how far along `a` it has come
        trail: list[list[int]] = []
        for edits in range(most + 1):
            trail.append(furthest[middle - edits - 1 : middle + edits + 2])
            for diagonal in range(-edits, edits + 1, 2):
                at = middle + diagonal
                began = _begins(furthest, at, diagonal, edits)
                x, y = began, began - diagonal
                while x < len(a) and 0 <= y < len(b) and a[x] == b[y]:
                    x, y = x + 1, y + 1
                furthest[at] = x
                self._steps -= 1 + x - began
                if x >= len(a) and diagonal == len(a) - len(b):
                    return _walked_back(trail, len(a), len(b))
            if self._steps < 0:
                break
        return []


def _alike(a: Lines, b: Lines) -> int:
    """How many lines both begin with."""
    count = 0
    for one, other in zip(a, b, strict=False):
        if one != other:
            break
        count += 1
    return count


def _begins(furthest: Sequence[int], at: int, diagonal: int, edits: int) -> int:
    """How far along `a` this diagonal is when its last edit is made."""
    if _adds(furthest, at, diagonal, edits):
        return furthest[at + 1]
    return furthest[at - 1] + 1


def _adds(furthest: Sequence[int], at: int, diagonal: int, edits: int) -> bool:
    """Whether the last edit that leads to this diagonal adds a line of `b`; else it removes one of `a`."""
    return diagonal == -edits or (diagonal != edits and furthest[at - 1] < furthest[at + 1])


def _walked_back(trail: list[list[int]], x: int, y: int) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for edits in range(len(trail) - 1, -1, -1):
        furthest, at = trail[edits], edits + 1 + x - y
        adds = _adds(furthest, at, x - y, edits)
        start = _begins(furthest, at, x - y, edits)
        while x > start:
            x, y = x - 1, y - 1
            found.append((x, y))
        if adds:
            y -= 1
        else:
            x -= 1
    return found[::-1]
