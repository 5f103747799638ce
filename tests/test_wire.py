"""The host's end of the pipe: the grammar, the caps of each role, and a line that neither blocks nor forgets."""

from __future__ import annotations

import dataclasses
import socket
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from guests import wait_until

from bellglass.doors.process_glass import SocketStream
from bellglass.errors import GuestFault, MalformedFrame, SetupError
from bellglass.line import wire
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
from bellglass.line.intake import POLICIES, Done, FileReceived, Intake, Log, Metric, Policy, Ready, Request
from bellglass.line.wire import Line, greet
from bellglass.ports import GuestSpec
from bellglass.records import GUEST_FAULTS, Role

PATIENCE = 10.0  # less than what a line allows a guest by itself


def policy(role: Role = Role.TRAIN, **changes: object) -> Policy:
    return dataclasses.replace(POLICIES[role], **changes)  # type: ignore[arg-type]


class Peer:
    """The guest's end, worked by hand."""

    def __init__(self, role: Role = Role.TRAIN, *, beat_seconds: float = 60.0, **changes: object) -> None:
        ours, self.end = socket.socketpair()
        self.stream = SocketStream(ours)
        self.line = Line(self.stream, policy(role, **changes), beat_seconds=beat_seconds)

    def say(self, kind: str, body: bytes = b"", **fields: object) -> None:
        self.end.sendall(encode(kind, fields, len(body)) + body)

    def close(self) -> None:
        self.line.close()
        self.stream.dispose()
        self.end.close()


@pytest.fixture
def peer(request: pytest.FixtureRequest) -> Iterator[Peer]:
    made = Peer(**getattr(request, "param", {}))
    yield made
    made.close()


def with_peer(**options: object) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("peer", [options], indirect=True)


def fault_of(line: Line, seconds: float = 30.0) -> GuestFault:
    with pytest.raises(GuestFault) as caught:
        limit = time.monotonic() + seconds
        while time.monotonic() < limit:
            line.recv(0.2)
    return caught.value


# The grammar


def header(text: str) -> tuple[str, dict, int]:
    return parse_header(text.encode(), GUEST_SHAPES)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '"ready"',
        "null",
        "{}",
        '{"t":"ready"}',
        '{"t":"ready","v":2}',
        '{"t":"ready","v":1.0}',
        '{"t":"ready","v":true}',
        '{"t":"ready","v":1,"v":1}',
        '{"t":"ready","v":1,"x":1}',
        '{"t":"ready","v":1,"n":1}',
        '{"t":"hello","v":1,"role":"train","lease_s":1,"deadline_s":1}',
        '{"t":["ready"],"v":1}',
        '{"t":"beat","cpu_s":NaN}',
        '{"t":"beat","cpu_s":Infinity}',
        '{"t":"beat","cpu_s":-1}',
        '{"t":"beat","cpu_s":1e999}',
        '{"t":"beat","cpu_s":"1"}',
        '{"t":"metric","name":"","value":1,"step":0}',
        '{"t":"metric","name":"a\\nb","value":1,"step":0}',
        '{"t":"metric","name":"a","value":1,"step":0.5}',
        '{"t":"metric","name":"a","value":1,"step":1e3}',
        '{"t":"log","stream":"in"}',
        '{"t":"log","stream":"out","n":65537}',
        '{"t":"file","name":"a","last":1}',
        '{"t":"file","name":"a","last":true,"n":1048577}',
        '{"t":"file","name":"a","last":true,"n":-1}',
        '{"t":"file","name":"a","last":true,"n":null}',
        '{"t":"request","id":0,"op":"next","args":{}}',
        '{"t":"request","id":1,"op":"next","args":[]}',
        '{"t":"request","id":1,"op":"next","args":{"a":[[[[[[[]]]]]]]}}',
        '{"t":"request","id":1,"op":"next","args":{"a":"\\ud800"}}',
        '{"t":"request","id":1,"op":"next","args":{"a":1,"a":2}}',
        '{"t":"request","id":1,"op":"next","args":{"a":1e999}}',
        '{"t":"done","code":-1,"why":"ok"}',
        '{"t":"done","code":256,"why":"ok"}',
        '{"t":"done","code":0,"why":"my own words"}',
        '{"t":"ready","v":1} {"t":"ready","v":1}',
        '{"t":"ready","v":1}\x00',
        '\ufeff{"t":"ready","v":1}',
    ],
)
def test_a_header_that_breaks_the_grammar_is_malformed(text):
    with pytest.raises(MalformedFrame):
        header(text)


def test_a_header_within_the_grammar_passes():
    assert header('{"t":"request","n":5,"op":"chat","id":7,"args":{"a":[[[[[[]]]]]]}}') == (
        "request",
        {"id": 7, "op": "chat", "args": {"a": [[[[[[]]]]]]}},
        5,
    )
    assert header('{"t":"request","id":1,"op":"chat","args":{"a":"' + "[{" * 100 + '"}}')[2] == 0  # in a string


def test_a_header_in_another_encoding_is_malformed():
    for encoding in ("utf-16", "utf-32", "utf-16-le"):
        with pytest.raises(MalformedFrame):
            parse_header('{"t":"ready","v":1}'.encode(encoding), GUEST_SHAPES)
    with pytest.raises(MalformedFrame):
        parse_header(b'{"t":"metric","name":"\xff","value":1,"step":0}', GUEST_SHAPES)


@pytest.mark.parametrize(
    "name",
    [
        *("", ".", "..", "/a", "a/", "a//b", "a/../b", "./a", "a/.", ".git", "a/.gitignore", ".GIT/x", "a\\b"),
        *(
            "a:b",
            "é",
            "a\n",
            "a\0",
            " a",
            "a ",
            "a.",
            "a/b /c",
            "~a",
            "a" * 101,
            "a/" * 8 + "a",
            "aa/" * 70,
            7,
            None,
            ["a"],
        ),
    ],
)
def test_a_file_name_that_could_mean_something_else_is_refused(name):
    assert not good_name(name)


@pytest.mark.parametrize(
    "name", ["a", "a/b", "out/weights.safetensors", "a.b-c_d=e+f,g@h i", ".hidden", "a/" * 7 + "a"]
)
def test_an_ordinary_file_name_passes(name):
    assert good_name(name)


def test_a_header_line_may_be_64_kib_and_no_more():
    filler = "x" * (MAX_HEADER - len('{"t":"request","id":1,"op":"chat","args":{"a":""}}\n'))
    fits = encode("request", {"id": 1, "op": "chat", "args": {"a": filler}})
    assert len(fits) == MAX_HEADER
    parser = FrameParser()
    parser.space()[: len(fits)] = fits
    assert len(list(parser.feed(len(fits)))) == 1
    with pytest.raises(ValueError):
        encode("request", {"id": 1, "op": "chat", "args": {"a": filler + "x"}})
    parser = FrameParser()
    parser.space()[:MAX_HEADER] = b" " * MAX_HEADER
    with pytest.raises(MalformedFrame):
        list(parser.feed(MAX_HEADER))


def test_the_host_cannot_write_what_the_wire_cannot_carry():
    with pytest.raises(ValueError):
        encode("reply", {"id": 1, "ok": True, "value": float("nan")})


# The caps


def taken(intake: Intake, kind: str, body: bytes = b"", **fields: object) -> object:
    return intake.take(Frame(kind, fields, body))


def ready(role: Role, **changes: object) -> Intake:
    intake = Intake(policy(role, **changes))
    taken(intake, "ready", v=1)
    return intake


def test_a_policy_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        POLICIES[Role.PREDICT].log_bytes = 1  # type: ignore[misc]


def test_a_predict_guest_may_send_nothing_textual():
    assert POLICIES[Role.PREDICT].frames == {"ready", "beat", "done", "request", "file"}
    assert [rule.pattern for rule in POLICIES[Role.PREDICT].files] == ["logits"]
    for kind, fields in (("log", {"stream": "out"}), ("metric", {"name": "a", "value": 1, "step": 0})):
        with pytest.raises(GuestFault) as caught:
            taken(ready(Role.PREDICT), kind, **fields)
        assert caught.value.code == "refused"
    with pytest.raises(GuestFault) as caught:
        taken(ready(Role.PREDICT), "request", id=1, op="next", args={"text": "x"})
    assert caught.value.code == "refused"
    assert taken(ready(Role.PREDICT), "done", code=77, why="crashed") == Done(1, "crashed")


def test_nothing_but_logs_and_beats_may_come_before_ready_and_nothing_after_done():
    for kind, fields in (
        ("request", {"id": 1, "op": "data", "args": {}}),
        ("metric", {"name": "a", "value": 1, "step": 0}),
    ):
        with pytest.raises(MalformedFrame):
            taken(Intake(policy()), kind, **fields)
    intake = Intake(policy())
    taken(intake, "log", b"a warning", stream="err")
    taken(intake, "beat", cpu_s=1.0)
    taken(intake, "ready", v=1)
    assert taken(intake, "done", code=0, why="ok") == Done(0, "ok")
    with pytest.raises(MalformedFrame):
        taken(intake, "log", b"more", stream="err")


def test_caps_on_logs_metrics_requests_files_and_totals_hold():
    intake = ready(Role.TRAIN, log_bytes=10, metrics=1, requests=1, file_count=1, file_bytes=5)
    assert taken(intake, "log", b"1234567890", stream="out") == Log("out", b"1234567890")
    assert taken(intake, "metric", name="a", value=1, step=2) == Metric("a", 1.0, 2)
    assert taken(intake, "request", id=1, op="data", args={}) == Request(1, "data", {}, b"")
    assert taken(intake, "file", b"123", name="out/a.json", last=False) is None
    assert taken(intake, "file", b"45", name="out/a.json", last=True) == FileReceived("out/a.json", b"12345")
    for kind, body, fields, code in [
        ("log", b"x", {"stream": "out"}, "flood"),
        ("metric", b"", {"name": "a", "value": 1, "step": 0}, "flood"),
        ("request", b"", {"id": 2, "op": "time_left", "args": {}}, "flood"),
        ("file", b"", {"name": "out/b.json", "last": True}, "refused"),
    ]:
        with pytest.raises(GuestFault) as caught:
            taken(intake, kind, body, **fields)
        assert caught.value.code == code
        assert code in GUEST_FAULTS


def test_the_bytes_of_all_files_together_are_capped():
    intake = ready(Role.TRAIN, file_bytes=5)
    taken(intake, "file", b"123", name="out/a.json", last=True)
    with pytest.raises(GuestFault) as caught:
        taken(intake, "file", b"456", name="out/b.json", last=True)
    assert caught.value.code == "refused"


def test_at_most_eight_requests_may_be_open():
    intake = ready(Role.TRAIN)
    for number in range(1, 9):
        taken(intake, "request", id=number, op="time_left", args={})
    intake.answered(3)
    taken(intake, "request", id=9, op="time_left", args={})
    with pytest.raises(GuestFault):
        taken(intake, "request", id=10, op="time_left", args={})


def test_frames_per_second_are_limited_beats_included():
    now = [0.0]
    intake = Intake(policy(small_frames_per_second=10.0), clock=lambda: now[0])
    for _ in range(50):
        taken(intake, "beat", cpu_s=0)
    with pytest.raises(GuestFault) as caught:
        taken(intake, "beat", cpu_s=0)
    assert caught.value.code == "flood"
    now[0] = 1.0
    taken(intake, "beat", cpu_s=0)


# The line


def test_events_arrive_in_order_and_then_the_end(peer):
    peer.say("ready", v=1)
    peer.say("file", bytes(MAX_BODY), name="out/weights.safetensors", last=False)
    peer.say("log", b"between", stream="out")
    peer.say("file", b"end", name="out/weights.safetensors", last=True)
    peer.say("done", code=0, why="ok")
    peer.end.close()
    assert peer.line.recv(5) == Ready()
    assert peer.line.recv(5) == Log("out", b"between")
    assert peer.line.recv(5) == FileReceived("out/weights.safetensors", bytes(MAX_BODY) + b"end")
    assert peer.line.recv(5) == Done(0, "ok")
    for _ in range(2):
        assert fault_of(peer.line).code == "lost"


def test_what_came_before_a_fault_is_still_given(peer):
    peer.say("ready", v=1)
    peer.end.sendall(b"garbage\n")
    assert wait_until(lambda: peer.line._closed)
    assert peer.line.recv(5) == Ready()
    assert isinstance(fault_of(peer.line), MalformedFrame)
    with pytest.raises(MalformedFrame):
        peer.line.send("beat")


def test_what_a_guest_says_at_its_very_end_is_given_before_the_fault(
    peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it arrives between the host's look at the queue and its look at the fault."""
    look = peer.line._check_stall

    def look_late() -> None:
        monkeypatch.undo()
        peer.say("ready", v=1)
        peer.say("done", code=0, why="ok")
        peer.end.shutdown(socket.SHUT_RDWR)
        while not peer.line._closed:
            time.sleep(0.01)
        look()

    monkeypatch.setattr(peer.line, "_check_stall", look_late)
    assert peer.line.recv(0.0) is None
    assert [type(peer.line.recv(1.0)) for _ in range(2)] == [Ready, Done]


def test_a_fault_closes_the_stream(peer):
    peer.end.sendall(b"garbage\n")
    peer.end.settimeout(5)
    assert peer.end.recv(100) == b""


def test_an_end_without_done_is_lost_and_one_after_done_has_its_reason(peer):
    peer.end.close()
    assert fault_of(peer.line).code == "lost"
    other = Peer()
    other.say("ready", v=1)
    other.say("done", code=1, why="crashed")
    other.end.close()
    assert wait_until(lambda: other.line._closed)
    with pytest.raises(GuestFault) as caught:
        other.line.send("beat")
    assert caught.value.code == "crashed"
    other.close()


def test_no_event_within_the_time_is_none(peer):
    began = time.monotonic()
    assert peer.line.recv(0.1) is None
    assert peer.line.recv(0) is None
    assert time.monotonic() - began < PATIENCE


@with_peer(beat_seconds=0.05)
def test_beats_are_sent_while_nothing_else_is(peer):
    peer.end.settimeout(30)
    said = b""
    while said.count(b'{"t":"beat"}\n') < 3:
        said += peer.end.recv(10_000)
    assert said == b'{"t":"beat"}\n' * 3


@with_peer(stall_seconds=0.3)
def test_a_guest_that_does_not_read_is_given_up(peer):
    began = time.monotonic()
    with pytest.raises(GuestFault) as caught:
        peer.line.send_file("data/tokens.npy", bytes(200 * MAX_BODY))
    assert caught.value.code == "stalled"
    assert time.monotonic() - began < PATIENCE


@with_peer(stall_seconds=0.3)
def test_a_stall_is_also_noticed_by_who_only_listens(peer):
    for _ in range(5):
        peer.line.send("file", bytes(MAX_BODY), name="a", last=False)
    assert fault_of(peer.line).code == "stalled"


@with_peer(quiet_seconds=0.3)
def test_a_guest_without_even_a_beat_is_given_up(peer):
    assert fault_of(peer.line).code == "stalled"


@with_peer(quiet_seconds=0.5)
def test_beats_keep_a_silent_guest_alive_and_carry_its_cpu_time(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [time.monotonic()]
    monkeypatch.setattr(wire, "time", SimpleNamespace(monotonic=lambda: now[0]))
    for cpu in range(1, 9):
        now[0] += 0.4
        peer.say("beat", cpu_s=cpu)
        assert wait_until(lambda cpu=cpu: peer.line.beat_cpu_seconds == cpu)
        assert peer.line.recv(0) is None
    now[0] += 0.6
    assert peer.line.recv(0) is None
    with pytest.raises(GuestFault) as caught:
        peer.line.recv(0)
    assert caught.value.code == "stalled"


@with_peer(pending_events=5)
def test_logs_that_nobody_takes_are_dropped_and_the_guest_lives(peer):
    peer.say("ready", v=1)
    for _ in range(10):
        peer.say("log", b"x", stream="out")
    assert wait_until(lambda: peer.line.logs_dropped == 6)
    assert [type(peer.line.recv(1)) for _ in range(5)] == [Ready, Log, Log, Log, Log]
    assert peer.line.recv(0.05) is None


@with_peer(pending_bytes=1000)
def test_files_that_nobody_takes_end_the_guest_before_they_fill_the_memory(peer):
    peer.say("ready", v=1)
    peer.say("file", bytes(900), name="out/a.json", last=True)
    peer.say("file", bytes(900), name="out/b.json", last=True)
    peer.end.settimeout(5)
    assert peer.end.recv(100) == b""  # the line gave up before anybody had taken anything
    assert fault_of(peer.line).code == "flood"


def test_the_reader_goes_on_while_nobody_listens(peer):
    peer.say("ready", v=1)
    done = threading.Event()

    def write() -> None:
        for _ in range(60):
            peer.say("file", bytes(MAX_BODY), name="out/weights.safetensors", last=False)
        done.set()

    threading.Thread(target=write, daemon=True).start()
    assert done.wait(30)
    assert peer.line.bytes_in > 0


def test_a_file_is_cut_into_chunks_and_an_empty_one_is_one_chunk(peer):
    peer.line.send_file("a", bytes(MAX_BODY + 1))
    peer.line.send_file("b", b"")
    parser, frames = FrameParser(), []
    peer.end.settimeout(5)
    while len(frames) < 3:
        frames += parser.feed(peer.end.recv_into(parser.space()))
    got = [(frame.fields["name"], frame.fields["last"], len(frame.body)) for frame in frames]
    assert got == [("a", False, MAX_BODY), ("a", True, 1), ("b", True, 0)]
    assert peer.line.bytes_out > MAX_BODY


def test_closing_is_quick_and_final_even_with_a_full_queue(peer):
    for _ in range(20):
        peer.line.send("file", bytes(MAX_BODY), name="a", last=False)
    peer.line.close()
    peer.line.close()
    assert not any(thread.is_alive() for thread in peer.line._threads), "it did not wait for them in vain"
    assert fault_of(peer.line).code == "lost"


# The greeting

SPEC = GuestSpec(Role.TRAIN, {}, 100, 60.0)


def test_the_greeting_says_hello_and_waits_for_ready(peer):
    peer.say("log", b"a warning of an import", stream="err")
    peer.say("ready", v=1)
    greet(peer.line, SPEC, 5)
    peer.end.settimeout(5)
    assert peer.end.recv(1000) == b'{"t":"hello","v":1,"role":"train","lease_s":10.0,"deadline_s":60.0}\n'


def test_a_guest_without_torch_is_a_clear_error(peer):
    peer.say("done", code=3, why="no_torch")
    with pytest.raises(SetupError, match="torch or lightning can't be imported"):
        greet(peer.line, SPEC, 5)


def test_a_guest_that_never_becomes_ready_is_a_timeout(peer):
    with pytest.raises(GuestFault) as caught:
        greet(peer.line, SPEC, 0.2)
    assert caught.value.code == "timeout"
