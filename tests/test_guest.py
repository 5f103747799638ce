"""The supervisor by itself, worked through a bare socket: what it does when the host is silent, wrong or gone."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from guests import wait_until

from bellglass import processes
from bellglass.line.frames import Frame, FrameParser, encode
from bellglass.paths import content_root

GUEST = content_root() / "sandbox" / "guest.py"
linux_only = pytest.mark.skipif(not processes.LINUX, reason="reads /proc")


class Supervisor:
    """A supervisor process and the host's end of its pipe."""

    def __init__(self, work: Path, *options: str, python: str = sys.executable) -> None:
        self.end, theirs = socket.socketpair()
        self.end.settimeout(60)
        command = [python, "-I", "-B", str(GUEST), str(work), *options]
        fd = theirs.fileno()
        self.process = subprocess.Popen(
            command, stdin=fd, stdout=fd, stderr=subprocess.DEVNULL, env={}, start_new_session=True
        )
        theirs.close()
        self.parser = FrameParser()
        self.frames: list[Frame] = []

    def say(self, kind: str, body: bytes = b"", **fields: object) -> None:
        self.end.sendall(encode(kind, fields, len(body)) + body)

    def hello(self, role: str = "train", lease: float = 120.0, deadline: float = 120.0) -> None:
        self.say("hello", v=1, role=role, lease_s=lease, deadline_s=deadline)

    def run(self, code: str) -> None:
        self.say("file", code.encode(), name="trainer/train.py", last=True)
        self.say("start", args={})

    def listen(self) -> list[Frame]:
        """Every frame until the pipe ends."""
        try:
            while count := self.end.recv_into(self.parser.space()):
                self.frames += self.parser.feed(count)
        except ConnectionResetError:
            pass
        return self.frames

    def types(self) -> list[str]:
        return [frame.type for frame in self.listen() if frame.type != "beat"]

    def until(self, kind: str, count: int = 1) -> Frame:
        """The first, second, … of its kind."""
        while True:
            found = [frame for frame in self.frames if frame.type == kind]
            if len(found) >= count:
                return found[count - 1]
            size = self.end.recv_into(self.parser.space())
            assert size, f"ended before {kind}"
            self.frames += self.parser.feed(size)


@pytest.fixture
def start(tmp_path) -> Iterator:
    made: list[Supervisor] = []

    def one(*options: str, **more: str) -> Supervisor:
        made.append(Supervisor(tmp_path, *(options or ("--cold",)), **more))
        return made[-1]

    yield one
    for each in made:
        each.end.close()
        processes.kill_family(each.process.pid)
        each.process.wait(60)


def test_it_says_ready_before_anything_else_and_done_last(start):
    guest = start()
    guest.hello()
    guest.until("ready")
    guest.run("print('hi')")
    assert guest.types() == ["ready", "log", "done"]
    assert guest.process.wait(60) == 0


@pytest.mark.parametrize(
    "first",
    [
        b"garbage\n",
        b"x" * 70_000,
        encode("stop", {}),
        encode("start", {"args": {}}),
        encode("hello", {"v": 1, "role": "root", "lease_s": 9, "deadline_s": 9}),
        encode("hello", {"v": 1, "role": "train", "lease_s": 9, "deadline_s": 9}).replace(b'"v":1', b'"v":2'),
    ],
)
def test_a_host_that_does_not_say_a_proper_hello_gets_no_guest(start, first):
    guest = start()
    guest.end.sendall(first)
    assert guest.types() == []
    assert guest.process.wait(60) != 0


def test_a_stream_that_ends_at_once_ends_it(start):
    guest = start()
    guest.end.close()
    assert guest.process.wait(60) != 0


def test_a_malformed_frame_from_the_host_ends_it_in_the_middle_too(start):
    guest = start()
    guest.hello()
    guest.until("ready")
    guest.run("import time; time.sleep(60)")
    guest.end.sendall(b"garbage\n")
    assert "done" not in guest.types()
    assert guest.process.wait(60) != 0


def test_a_silent_host_loses_its_lease_and_beats_keep_it(start):
    guest = start()
    guest.hello(lease=2.0)
    guest.until("ready")
    began = time.monotonic()
    while time.monotonic() < began + 3.0:
        guest.say("beat")
        time.sleep(0.1)
    assert guest.process.poll() is None
    silent_since = time.monotonic()
    guest.listen()
    assert guest.process.wait(60) != 0
    assert 1.5 < time.monotonic() - silent_since < 60


def test_the_lease_ends_it_while_its_own_writes_are_stuck(start):
    guest = start()
    guest.hello(lease=1.0)
    guest.until("ready")
    guest.run("import glass\nwhile True: glass._link.send_file('out/a.json', bytes(1 << 20))")
    assert guest.process.wait(60) != 0  # nobody reads; it can't say a word, and ends


def test_beats_come_at_least_every_two_seconds_with_growing_cpu_time(start):
    assert float(re.search(r"(?m)^BEAT_SECONDS = (.*)$", GUEST.read_text())[1]) <= 2.0
    guest = start()
    guest.hello()
    guest.until("ready")
    guest.run("while True: pass")
    spent = [guest.until("beat", count).fields["cpu_s"] for count in (1, 2)]
    assert spent == sorted(spent)
    assert spent[-1] > spent[0]


@linux_only
def test_it_has_no_pipe_on_its_standard_descriptors(start):
    guest = start()
    guest.hello()
    guest.until("ready")
    try:
        links = {os.readlink(f"/proc/{guest.process.pid}/fd/{fd}") for fd in (0, 1)}
    except PermissionError:  # not dumpable, so only root may look
        return
    assert links == {"/dev/null"}


@linux_only
def test_it_makes_itself_undumpable():
    code = "import ctypes, glass_procs; glass_procs.protect(); print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))"
    told = subprocess.run([sys.executable, "-c", code], cwd=GUEST.parent, capture_output=True, text=True, check=True)
    assert told.stdout == "0\n"


@linux_only
def test_orphans_that_left_their_session_are_adopted_and_reaped(start):
    guest = start()
    guest.hello()
    guest.until("ready")
    guest.run(
        "import os, time\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n"
        "        print(os.getpid(), flush=True)\n        time.sleep(60)\n    os._exit(0)\nos.wait()\ntime.sleep(60)\n"
    )
    orphan = int(guest.until("log").body)
    assert wait_until(lambda: len(processes.family(guest.process.pid)) == 3)  # the supervisor, the child, the orphan
    os.kill(orphan, signal.SIGKILL)
    assert wait_until(lambda: len(processes.family(guest.process.pid)) == 2)


def test_a_python_without_torch_is_said_so(start, tmp_path):
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True)
    guest = start("--pids", "0", python=str(bare / "bin" / "python"))
    guest.hello()
    done = guest.until("done")
    assert done.fields == {"code": 3, "why": "no_torch"}
    assert b"No module named" in b"".join(frame.body for frame in guest.listen() if frame.type == "log")


@pytest.mark.slow
def test_a_warm_train_guest_has_loaded_what_the_first_step_needs(start):
    pytest.importorskip("torch")
    guest = start("--pids", "0")
    guest.hello()
    guest.until("ready")
    guest.run("import sys; print([m in sys.modules for m in ('torch', 'lightning_fabric', 'torch._dynamo')])")
    assert b"[True, True, True]" in b"".join(frame.body for frame in guest.listen() if frame.type == "log")


def test_bundle_files_cannot_shadow_what_the_guest_itself_runs(start):
    guest = start()
    guest.hello()
    guest.until("ready")
    for name in ("glass", "glass_frames", "glass_procs", "glass_child", "guest", "json", "threading"):
        guest.say("file", b"raise SystemExit(9)", name=f"{name}.py", last=True)
    guest.run("import glass; print(glass.data.__doc__ is not None)")
    assert guest.until("done").fields == {"code": 0, "why": "ok"}


def test_a_child_that_never_reads_is_given_up_when_frames_pile_up(start, tmp_path):
    # The stall time-out is a constant of 15 s; a copy with a shorter one is run, from a folder of its own.
    copy = tmp_path / "sandbox"
    copy.mkdir()
    for source in GUEST.parent.glob("g*.py"):
        text = source.read_text().replace("STALL_SECONDS = 15.0", "STALL_SECONDS = 0.5")
        (copy / source.name).write_text(text)
    end, theirs = socket.socketpair()
    end.settimeout(20)
    work = tmp_path / "work"
    work.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-I", "-B", str(copy / "guest.py"), str(work), "--cold"],
        stdin=theirs.fileno(),
        stdout=theirs.fileno(),
        env={},
        start_new_session=True,
    )
    theirs.close()
    end.sendall(encode("hello", {"v": 1, "role": "train", "lease_s": 60, "deadline_s": 60}))
    code = b"import ctypes; ctypes.PyDLL(None).sleep(60)"
    end.sendall(encode("file", {"name": "trainer/train.py", "last": True}, len(code)) + code)
    end.sendall(encode("start", {"args": {}}))
    time.sleep(0.3)
    try:
        for _ in range(60):
            end.sendall(encode("file", {"name": "data/x", "last": False}, 1 << 20) + bytes(1 << 20))
    except (BrokenPipeError, ConnectionResetError, TimeoutError):
        pass
    said = b""
    try:
        while piece := end.recv(1 << 16):
            said += piece
    except ConnectionResetError:
        pass
    end.close()
    assert process.wait(60) != 0
    assert b'"why":"stalled"' in said
