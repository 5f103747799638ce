"""The parser against random and mutated input: no crash, no hang, bounded memory, and both parsers agree.

BELLGLASS_FUZZ_CASES sets how many cases (CI: 100,000); each case has its number as random seed, so that it can be
run alone.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time

import pytest

from bellglass.errors import GuestFault, MalformedFrame
from bellglass.line.frames import (
    GUEST_SHAPES,
    MAX_BODY,
    MAX_HEADER,
    Frame,
    FrameParser,
    encode,
    good_name,
    parse_header,
)
from bellglass.line.intake import POLICIES, Intake
from bellglass.paths import content_root
from bellglass.records import Role

sys.path.insert(0, str(content_root() / "sandbox"))
import contextlib

import glass_frames

sys.path.pop(0)

CASES = int(os.environ.get("BELLGLASS_FUZZ_CASES", "6000"))
WORDS = [
    "", "a", "out/weights.safetensors", "logits", "submit/scaffold/x.py", "../x", ".git/x", "next", "data", "\0", "é",
    "\ud800", '"', "x" * 300, "out", "ok", "t",
]  # fmt: skip
VALUES = [0, 1, -1, 2**53, 2**70, 1.5, -0.0, 1e308, True, False, None, [], {}, [[[]]], {"a": {"b": []}}, *WORDS]
SEAMS = [b"\n", b'"', b"{", b"}", b"[", b"\\", b"\\u", b"\xff", b"NaN", b"Infinity", b"1e999", b":", b",", b" ", b"\r"]


def feed(parser: FrameParser, data: bytes, chance: random.Random) -> list[Frame]:
    """Give data in random pieces, as a socket would."""
    frames, sent = [], 0
    while sent < len(data):
        space = parser.space()
        assert len(space) > 0
        size = min(len(space), len(data) - sent, chance.choice((1, 7, 100, 5000, 1 << 20)))
        space[:size] = data[sent : sent + size]
        sent += size
        frames += parser.feed(size)
    return frames


def held(parser: FrameParser) -> int:
    return len(parser._lines) + len(parser._body)


def honest(chance: random.Random) -> tuple[str, dict, bytes]:
    """A frame that the grammar allows."""
    kind = chance.choice(sorted(GUEST_SHAPES))
    body = chance.randbytes(chance.choice((0, 1, 10, 3000, 60_000))) if GUEST_SHAPES[kind].body else b""
    fields = {
        "ready": {"v": 1},
        "log": {"stream": chance.choice(("out", "err"))},
        "metric": {"name": "loss", "value": chance.choice((1, -2.5, 1e299)), "step": chance.randrange(-5, 10**9)},
        "request": {"id": chance.randrange(1, 100), "op": "next", "args": chance.choice(({}, {"a": [1, "\u00e9"]}))},
        "file": {"name": chance.choice(("logits", "a/b.c", "x y/z")), "last": chance.random() < 0.5},
        "done": {"code": chance.randrange(256), "why": "ok"},
        "beat": {"cpu_s": chance.random()},
    }[kind]
    return kind, fields, body


def mutated(chance: random.Random) -> bytes:
    """A few frames with a few things wrong."""
    stream = bytearray()
    for _ in range(chance.randrange(1, 4)):
        kind, fields, body = honest(chance)
        if chance.random() < 0.4:
            target = chance.choice([*fields, "t", "n", "more"])
            header = {"t": kind, **fields, "n": len(body), target: chance.choice(VALUES)}
            if chance.random() < 0.3:
                header.pop(chance.choice(sorted(header)))
            stream += json.dumps(header).encode() + b"\n" + body
        else:
            stream += encode(kind, fields, len(body)) + body
    for _ in range(chance.choice((0, 0, 1, 3))):
        at = chance.randrange(len(stream) + 1)
        cut = chance.choice((0, 1, 1, 5, 50))
        stream[at : at + cut] = chance.choice((b"", chance.randbytes(3), chance.choice(SEAMS)))
    return bytes(stream)


def parsed(data: bytes, chance: random.Random) -> tuple[list[tuple], bool]:
    """What an Intake and a parser make of it: the frames, and whether it ended in a fault."""
    parser, frames = FrameParser(), []
    sent = 0
    try:
        while sent < len(data):
            space = parser.space()
            size = min(len(space), len(data) - sent, chance.choice((1, 13, 4000)))
            space[:size] = data[sent : sent + size]
            sent += size
            frames.extend((frame.type, dict(frame.fields), bytes(frame.body)) for frame in parser.feed(size))
            assert held(parser) <= MAX_HEADER + MAX_BODY
    except MalformedFrame:
        return frames, True
    return frames, False


def test_whatever_honest_frames_are_cut_into_they_come_out_the_same():
    for case in range(CASES // 10):
        chance = random.Random(case)
        sent = [honest(chance) for _ in range(chance.randrange(1, 6))]
        data = b"".join(encode(kind, fields, len(body)) + body for kind, fields, body in sent)
        frames = feed(FrameParser(), data, chance)
        assert [(frame.type, frame.fields, bytes(frame.body)) for frame in frames] == sent, case


def test_random_bytes_are_malformed_or_wait_for_more():
    for case in range(CASES // 4):
        chance = random.Random(case)
        data = chance.randbytes(chance.choice((1, 10, 1000))) + chance.choice((b"", b"\n"))
        parser = FrameParser()
        with contextlib.suppress(MalformedFrame):
            assert feed(parser, data, chance) == []
        assert held(parser) <= MAX_HEADER + MAX_BODY


def test_mutated_streams_give_frames_or_a_fault_whatever_the_cutting():
    faults = 0
    for case in range(CASES):
        chance = random.Random(case)
        data = mutated(chance)
        frames, fault = parsed(data, chance)
        assert (frames, fault) == parsed(data, random.Random(-case)), case
        faults += fault
    assert CASES * 0.2 < faults < CASES * 0.95  # the mutations are neither harmless nor all fatal


def test_what_passes_the_grammar_meets_the_caps_without_a_crash():
    for case in range(CASES // 2):
        chance = random.Random(case)
        intake = Intake(POLICIES[chance.choice(list(Role))])
        try:
            for kind, fields, body in (honest(chance) for _ in range(20)):
                intake.take(Frame(kind, fields, body))
        except GuestFault:
            pass


def test_the_parsers_of_both_sides_agree_on_every_header():
    """A frame that the supervisor passes on but the host refuses would let bundle code end the guest as malformed."""
    outcomes = {True: 0, False: 0}
    for case in range(CASES):
        chance = random.Random(case)
        line = mutated(chance).partition(b"\n")[0]
        told = []
        for parse, shapes in ((parse_header, GUEST_SHAPES), (glass_frames.parse, glass_frames.FROM_CHILD)):
            shapes = {kind: shapes[kind] for kind in glass_frames.FROM_CHILD}
            try:
                told.append(parse(line, shapes))
            except (MalformedFrame, glass_frames.BadFrame):
                told.append(None)
        assert told[0] == told[1], (case, line)
        outcomes[told[0] is None] += 1
    assert min(outcomes.values()) > CASES * 0.1


def test_what_the_host_writes_the_guest_reads():
    for kind, fields in {
        "hello": {"v": 1, "role": "train", "lease_s": 10.0, "deadline_s": 60},
        "file": {"name": "trainer/train.py", "last": True},
        "start": {"args": {"a": [1, 2.5, "é"]}},
        "reply": {"id": 3, "ok": False, "value": {"code": "refused"}},
        "stop": {},
        "beat": {},
    }.items():
        line = encode(kind, fields, 0)
        assert glass_frames.parse(line[:-1], glass_frames.FROM_HOST) == (kind, fields, 0)


def test_names_mean_the_same_on_both_sides():
    for case in range(CASES // 2):
        chance = random.Random(case)
        name = "".join(chance.choice("ab./ ._-~\\\0é:.git") for _ in range(chance.randrange(12)))
        assert good_name(name) == glass_frames.good_name(name), name


@pytest.mark.parametrize(
    "header",
    [
        b'"' * 65_000,
        b'{"t":"' + b'\\"' * 32_000,
        b'{"t":"beat","cpu_s":' + b"9" * 60_000 + b"}",
        b"[" * 65_000,
        b'{"a":' * 10_000,
        b'{"t":"request","id":1,"op":"next","args":{' + b",".join(b'"%d":0' % i for i in range(6000)) + b"}}",
        b" " * 65_000,
        b'{"t":"beat","cpu_s":0.' + b"0" * 65_000,
        b'{"' + b"\\u0041" * 10_000,
        (b'"[' * 16_000) + b'"',
        b'"\\' + b'["\\' * 16_000,
    ],
)
def test_no_header_takes_long(header):
    began = time.process_time()
    for parse, shapes in ((parse_header, GUEST_SHAPES), (glass_frames.parse, glass_frames.FROM_CHILD)):
        with contextlib.suppress(MalformedFrame, glass_frames.BadFrame):
            parse(header, shapes)
    assert time.process_time() - began < 0.5
