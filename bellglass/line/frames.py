"""The wire's grammar on the host: what a frame is, how one is written, and a strict incremental parser.

sandbox/protocol.md is the text of this file. The parser takes bytes in any cutting, holds at most one header line
and one body, and raises MalformedFrame at the first byte sequence that breaks the grammar.

Not covered: what a role may send (intake.py), and whether the numbers mean anything (the steps).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from bellglass import strict_json
from bellglass.errors import MalformedFrame
from bellglass.records import Json

MAX_HEADER = 64 * 1024  # bytes of one header line, newline included
MAX_BODY = 1 << 20
MAX_LOG = 64 * 1024
MAX_DEPTH = 8  # nesting of the header object, the object itself included
MAX_NAME = 200
WIRE_VERSION = 1

# How a guest may say that it ended. Fixed words: they may reach an improver.
DONE_WORDS = frozenset({"ok", "crashed", "stopped", "timeout", "stalled", "malformed", "flood", "no_torch"})

_NAME = re.compile(r"[A-Za-z0-9_.+=,@ -]{1,100}(?:/[A-Za-z0-9_.+=,@ -]{1,100}){0,7}")
# Possessive, so that no input makes it look at a byte twice.
_BRACKETS = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', re.DOTALL)


def good_name(name: Json) -> bool:
    """A relative file name that means the same everywhere: no `..`, no `.git*`, no trailing dot or space."""
    if not isinstance(name, str) or len(name) > MAX_NAME or not _NAME.fullmatch(name):
        return False
    return all(
        part.strip(" .")
        and not part.endswith((" ", "."))
        and not part.startswith(" ")
        and not part.lower().startswith(".git")
        for part in name.split("/")
    )


def _whole(low: int, high: int) -> Callable[[Json], bool]:
    return lambda value: type(value) is int and low <= value <= high


def _number(value: Json) -> bool:
    return type(value) in (int, float) and abs(value) < 1e300


def _word(longest: int) -> Callable[[Json], bool]:
    return lambda value: isinstance(value, str) and 0 < len(value) <= longest and value.isprintable()


def _object(value: Json) -> bool:
    return isinstance(value, dict)


def _truth(value: Json) -> bool:
    return isinstance(value, bool)


@dataclass(frozen=True, slots=True)
class Shape:
    """The fields of one frame type, all required, and the largest body it may carry."""

    fields: Mapping[str, Callable[[Json], bool]]
    body: int = 0


GUEST_SHAPES: Mapping[str, Shape] = {
    "ready": Shape({"v": _whole(WIRE_VERSION, WIRE_VERSION)}),
    "log": Shape({"stream": lambda value: value in ("out", "err")}, MAX_LOG),
    "metric": Shape({"name": _word(100), "value": _number, "step": _whole(-(2**53), 2**53)}),
    "request": Shape({"id": _whole(1, 2**53), "op": _word(40), "args": _object}, MAX_BODY),
    "file": Shape({"name": good_name, "last": _truth}, MAX_BODY),
    "done": Shape({"code": _whole(0, 255), "why": lambda value: isinstance(value, str) and value in DONE_WORDS}),
    "beat": Shape({"cpu_s": lambda value: _number(value) and value >= 0}),
}


@dataclass(frozen=True, slots=True)
class Frame:
    type: str
    fields: Mapping[str, Json]
    body: bytes | bytearray = b""


def encode(frame_type: str, fields: Mapping[str, Json], size: int = 0) -> bytes:
    """The header line of one frame. ValueError for what the wire can't carry: a fault of the caller's."""
    header = {"t": frame_type, **fields}
    if size:
        header["n"] = size
    line = json.dumps(header, separators=(",", ":"), allow_nan=False).encode() + b"\n"
    if len(line) > MAX_HEADER:
        raise ValueError(f"frame {frame_type!r}: a header of {len(line)} bytes is over {MAX_HEADER}; use the body")
    return line


def parse_header(line: bytes, shapes: Mapping[str, Shape]) -> tuple[str, dict[str, Json], int]:
    """Type, fields and body size of one header line (without its newline)."""
    if line.count(b"{") + line.count(b"[") > MAX_DEPTH and _depth(line) > MAX_DEPTH:
        raise MalformedFrame("nested too deep")
    try:
        header = strict_json.loads(line)
    except ValueError:
        raise MalformedFrame("header is not strict JSON") from None
    if not isinstance(header, dict):
        raise MalformedFrame("header is not an object")
    frame_type, size = header.pop("t", None), header.pop("n", 0)
    shape = shapes.get(frame_type) if isinstance(frame_type, str) else None
    if shape is None:
        raise MalformedFrame("unknown frame type")
    if type(size) is not int or not 0 <= size <= shape.body:
        raise MalformedFrame(f"body size of a {frame_type!r} frame")
    if header.keys() != shape.fields.keys():
        raise MalformedFrame(f"fields of a {frame_type!r} frame")
    for name, check in shape.fields.items():
        if not check(header[name]):
            raise MalformedFrame(f"field {name!r} of a {frame_type!r} frame")
    return frame_type, header, size


def _depth(line: bytes) -> int:
    deepest = depth = 0
    for token in _BRACKETS.finditer(line):
        first = line[token.start()]
        if first in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif first in b"]}":
            depth -= 1
    return deepest


class FrameParser:
    """Read bytes into `space()`, then say how many with `feed()`, which gives the frames that are now complete.

    A large body is received straight into its own buffer, so that a file crosses with one copy.
    """

    def __init__(self) -> None:
        self._lines = bytearray(MAX_HEADER)
        self._start = self._end = 0  # the unread part of _lines
        self._head: tuple[str, dict[str, Json]] | None = None  # a header whose body is still coming
        self._body = bytearray()
        self._have = 0

    def space(self) -> memoryview:
        if self._head is not None:
            return memoryview(self._body)[self._have :]
        return memoryview(self._lines)[self._end :]

    def feed(self, count: int) -> Iterator[Frame]:
        """To be used up before the next `space()`. What came before a malformed frame is given first."""
        if self._head is not None:
            self._have += count
        else:
            self._end += count
        return iter(self._next, None)

    def _next(self) -> Frame | None:
        if self._head is None and not self._take_header():
            return None
        assert self._head is not None
        missing = len(self._body) - self._have
        ready = min(missing, self._end - self._start)
        if ready:
            self._body[self._have : self._have + ready] = self._lines[self._start : self._start + ready]
            self._start += ready
            self._have += ready
        if self._have < len(self._body):
            self._start = self._end = 0
            return None
        frame = Frame(self._head[0], self._head[1], self._body)
        self._head, self._body, self._have = None, bytearray(), 0
        return frame

    def _take_header(self) -> bool:
        cut = self._lines.find(b"\n", self._start, self._end)
        if cut < 0:
            if self._start:
                self._lines[: self._end - self._start] = self._lines[self._start : self._end]
                self._start, self._end = 0, self._end - self._start
            if self._end == MAX_HEADER:
                raise MalformedFrame("header line too long")
            return False
        frame_type, fields, size = parse_header(bytes(self._lines[self._start : cut]), GUEST_SHAPES)
        self._start = cut + 1
        self._head, self._body, self._have = (frame_type, fields), bytearray(size), 0
        return True
