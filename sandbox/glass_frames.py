"""Frames inside the glass: a blocking reader and a writer, for the supervisor and for its child. Stdlib only.

The host has its own parser (bellglass/line/frames.py); this one only has to agree with it about what is well formed.
"""

import json
import os
import re

MAX_HEADER = 64 * 1024
MAX_BODY = 1 << 20
MAX_DEPTH = 8
VERSION = 1

_NAME = re.compile(r"[A-Za-z0-9_.+=,@ -]{1,100}(?:/[A-Za-z0-9_.+=,@ -]{1,100}){0,7}")
_BRACKETS = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', re.DOTALL)


class BadFrame(Exception):
    """The other side broke the grammar."""


def good_name(name):
    if not isinstance(name, str) or len(name) > 200 or not _NAME.fullmatch(name):
        return False
    for part in name.split("/"):
        if not part.strip(" .") or part[0] == " " or part[-1] in " ." or part.lower().startswith(".git"):
            return False
    return True


def _whole(low, high):
    return lambda value: type(value) is int and low <= value <= high


def _number(value):
    return type(value) in (int, float) and abs(value) < 1e300


def _word(longest):
    return lambda value: isinstance(value, str) and 0 < len(value) <= longest and value.isprintable()


def _truth(value):
    return isinstance(value, bool)


def _object(value):
    return isinstance(value, dict)


# type -> (fields, largest body)
FROM_HOST = {
    "hello": ({"v": _whole(VERSION, VERSION), "role": _word(20), "lease_s": _number, "deadline_s": _number}, 0),
    "file": ({"name": good_name, "last": _truth}, MAX_BODY),
    "start": ({"args": _object}, 0),
    "reply": ({"id": _whole(1, 2**53), "ok": _truth, "value": lambda value: True}, MAX_BODY),
    "stop": ({}, 0),
    "beat": ({}, 0),
}
# What a child may say to its supervisor. Logs, beats and the last word are the supervisor's own.
FROM_CHILD = {
    "ready": ({"v": _whole(VERSION, VERSION)}, 0),
    "metric": ({"name": _word(100), "value": _number, "step": _whole(-(2**53), 2**53)}, 0),
    "request": ({"id": _whole(1, 2**53), "op": _word(40), "args": _object}, MAX_BODY),
    "file": ({"name": good_name, "last": _truth}, MAX_BODY),
}


def encode(kind, fields, size=0):
    header = {"t": kind, **fields}
    if size:
        header["n"] = size
    line = json.dumps(header, separators=(",", ":"), allow_nan=False).encode() + b"\n"
    if len(line) > MAX_HEADER:
        raise ValueError(f"a {kind!r} frame's header would be {len(line)} bytes, over {MAX_HEADER}")
    return line


def _pairs(pairs):
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("duplicate key")
    return found


def _no_constant(word):
    raise ValueError(word)


def _finite(digits):
    value = float(digits)
    if value - value != 0.0:
        raise ValueError(digits)
    return value


def parse(line, shapes):
    """(type, fields, body size) of one header line without its newline."""
    if line.count(b"{") + line.count(b"[") > MAX_DEPTH:
        depth = 0
        for token in _BRACKETS.finditer(line):
            first = line[token.start()]
            depth += (first in b"[{") - (first in b"]}")
            if depth > MAX_DEPTH:
                raise BadFrame("depth")
    try:
        header = json.loads(line.decode(), object_pairs_hook=_pairs, parse_constant=_no_constant, parse_float=_finite)
        if b"\\u" in line:
            json.dumps(header, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        raise BadFrame("json") from None
    if not isinstance(header, dict):
        raise BadFrame("object")
    kind, size = header.pop("t", None), header.pop("n", 0)
    if not isinstance(kind, str) or kind not in shapes:
        raise BadFrame("type")
    fields, largest = shapes[kind]
    if type(size) is not int or not 0 <= size <= largest or header.keys() != fields.keys():
        raise BadFrame(kind)
    if not all(check(header[name]) for name, check in fields.items()):
        raise BadFrame(kind)
    return kind, header, size


class FrameReader:
    """`next()` gives (type, fields, header line, body), or None at the end of the stream."""

    def __init__(self, fd, shapes):
        self._fd, self._shapes = fd, shapes
        self._lines = bytearray(MAX_HEADER)
        self._start = self._end = 0

    def next(self):
        while (cut := self._lines.find(b"\n", self._start, self._end)) < 0:
            if self._start:
                rest = self._end - self._start
                self._lines[:rest] = self._lines[self._start : self._end]
                self._start, self._end = 0, rest
            if self._end == MAX_HEADER:
                raise BadFrame("line too long")
            count = os.readv(self._fd, [memoryview(self._lines)[self._end :]])
            if not count:
                return None
            self._end += count
        line = bytes(self._lines[self._start : cut])
        self._start = cut + 1
        kind, fields, size = parse(line, self._shapes)
        body = bytearray(size)
        have = min(size, self._end - self._start)
        body[:have] = self._lines[self._start : self._start + have]
        self._start += have
        view = memoryview(body)
        while have < size:
            count = os.readv(self._fd, [view[have:]])
            if not count:
                return None
            have += count
        return kind, fields, line + b"\n", body


def write_all(fd, line, body=b""):
    """Writes a header line and its body, however often that takes."""
    parts = [memoryview(line)]
    if len(body):
        parts.append(memoryview(body).cast("B"))
    while parts:
        count = os.writev(fd, parts)
        while parts and count >= len(parts[0]):
            count -= len(parts.pop(0))
        if count:
            parts[0] = parts[0][count:]
