"""The engine's errors, its choice of a socket, the pipe's demultiplexing and the meter's files. No Docker needed.

Daemons here are small servers on a unix socket: one that never answers, one that answers nonsense, one that refuses.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("docker", reason="the extra `docker` is not installed")

import contextlib

from bellglass.doors.docker import engine as engines
from bellglass.doors.docker import meter
from bellglass.doors.docker.engine import Engine, Gone, NotRunning, socket_urls
from bellglass.doors.docker.pipe import MOST_STDERR_BYTES, AttachedPipe
from bellglass.errors import GuestFault, SetupError

OK_VERSION = {"ApiVersion": "1.41", "Version": "20.10.24", "MinAPIVersion": "1.12"}
OK_INFO = {"CgroupVersion": "1", "MemoryLimit": True, "SwapLimit": True, "PidsLimit": True, "CpuCfsQuota": True}
Answer = Callable[[str], tuple[int, object]]


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Callable[[Answer | None], str]]:
    """A daemon that answers each request by a function of its first line; None: it never answers."""
    servers: list[socket.socket] = []

    def serve(server: socket.socket, answer: Answer | None) -> None:
        while True:
            try:
                client, _ = server.accept()
            except OSError:
                return
            servers.append(client)
            threading.Thread(target=talk, args=(client, answer), daemon=True).start()

    def talk(client: socket.socket, answer: Answer | None) -> None:
        with client, client.makefile("rb") as lines:
            while first := lines.readline().decode():
                length = 0
                while (line := lines.readline().strip()) != b"":
                    name, _, value = line.partition(b":")
                    length = int(value) if name.lower() == b"content-length" else length
                lines.read(length)
                if answer is None:
                    continue
                status, body = answer(first)
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
                try:
                    client.sendall(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n" % (status, len(data)) + data)
                except OSError:
                    return

    def start(answer: Answer | None) -> str:
        path = tmp_path / f"{len(servers)}.sock"
        server = socket.socket(socket.AF_UNIX)
        servers.append(server)
        server.bind(str(path))
        server.listen()
        threading.Thread(target=serve, args=(server, answer), daemon=True).start()
        return f"unix://{path}"

    yield start
    for each in servers:
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
        each.close()


def answering(status: int, body: object, info: dict[str, object] = OK_INFO) -> Answer:
    """A daemon in good order, but for what is asked about containers and images."""

    def answer(first: str) -> tuple[int, object]:
        if "/version" in first:
            return 200, OK_VERSION
        if "/info" in first:
            return 200, info
        return status, body

    return answer


def test_no_daemon_is_said_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"nothing answers there.*systemctl start docker") as caught:
        Engine.connect(f"unix://{tmp_path}/none.sock")
    assert caught.value.exit_code == 3


def test_a_dead_socket_file_is_said_too(tmp_path: Path) -> None:
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(tmp_path / "left.sock"))
    left.close()
    with pytest.raises(SetupError, match="nothing answers there"):
        Engine.connect(f"unix://{tmp_path}/left.sock")


def test_no_permission_names_the_group() -> None:
    import requests

    refused = requests.ConnectionError(
        requests.packages.urllib3.exceptions.ProtocolError("x", PermissionError(13, "no"))
    )
    fault = engines._ours("the Docker engine", "unix:///x", refused)
    assert isinstance(fault, SetupError)
    assert "no permission" in fault.found
    assert "usermod" in fault.next_command


def test_a_daemon_that_never_answers_costs_no_more_than_the_time_out(
    daemon: Callable[[Answer | None], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert engines.CALL_SECONDS <= 5.0
    monkeypatch.setattr(engines, "CALL_SECONDS", 0.3)
    url = daemon(None)
    began = time.monotonic()
    with pytest.raises(SetupError) as told:
        Engine.connect(url)
    assert told.value.code == "docker_silent"
    assert time.monotonic() - began < 60.0, "without the time-out it would wait for ever"


@pytest.mark.parametrize("body", [b"", b"<html>hello</html>", b"[]", b"null", b"\xff\xfe"])
def test_nonsense_from_a_daemon_is_one_of_our_errors(daemon: Callable[[Answer | None], str], body: bytes) -> None:
    with pytest.raises(SetupError):
        Engine.connect(daemon(lambda first: (200, body)))


def test_rootless_with_cgroup_v1_is_refused(daemon: Callable[[Answer | None], str]) -> None:
    rootless = OK_INFO | {"SecurityOptions": ["name=seccomp,profile=default", "name=rootless"]}
    with pytest.raises(SetupError, match="rootless with cgroup v1"):
        Engine.connect(daemon(answering(200, [], rootless)))
    Engine.connect(daemon(answering(200, [], rootless | {"CgroupVersion": "2"}))).close()


def test_a_daemon_without_limits_is_refused(daemon: Callable[[Answer | None], str]) -> None:
    with pytest.raises(SetupError, match="no PidsLimit"):
        Engine.connect(daemon(answering(200, [], OK_INFO | {"PidsLimit": False})))


@pytest.mark.parametrize(
    ("status", "message", "says"),
    [
        (500, "write /var/lib/docker/x: no space left on device", "disk is full"),
        (404, "No such image: sha256:0", "bellglass image build"),
        (400, "Unknown runtime specified runsc", "runsc install"),
        (500, 'could not select device driver "nvidia" with capabilities: [[gpu]]', "NVIDIA container toolkit"),
        (500, "seccomp is not enabled in your kernel, cannot run a custom seccomp profile", "seccomp"),
        (500, "something else", "the daemon's error 500: something else"),
    ],
)
def test_what_the_daemon_says_becomes_what_to_do(
    daemon: Callable[[Answer | None], str], status: int, message: str, says: str
) -> None:
    engine = Engine.connect(daemon(answering(status, {"message": message})))
    with pytest.raises(SetupError) as caught:
        engine.create("x", {})
    assert says in caught.value.one_line()
    assert caught.value.next_command
    engine.close()


def test_what_is_gone_or_has_ended_is_no_error_for_those_who_end_it(daemon: Callable[[Answer | None], str]) -> None:
    gone = Engine.connect(daemon(answering(404, {"message": "No such container: x"})))
    ended = Engine.connect(daemon(answering(409, {"message": "container x is not running"})))
    for engine in (gone, ended):
        engine.kill("x")
        engine.remove("x")
    assert gone.inspect("x") is None
    assert gone.cpu_seconds("x") is None
    with pytest.raises(Gone):
        gone.start("x")
    with pytest.raises(NotRunning):
        ended.start("x")
    gone.close()
    ended.close()


@pytest.mark.parametrize("url", ["tcp://10.0.0.1:2375", "ssh://me@host", "npipe:////./pipe/docker_engine"])
def test_a_daemon_elsewhere_is_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", url)
    with pytest.raises(SetupError, match="not on this machine"):
        socket_urls()


def test_docker_host_comes_before_the_context_and_the_context_before_the_usual_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = write_context(tmp_path, "mine", "unix:///run/mine.sock")
    monkeypatch.setenv("DOCKER_CONFIG", str(made))
    monkeypatch.delenv("DOCKER_CONTEXT", raising=False)
    monkeypatch.setenv("DOCKER_HOST", "unix:///run/first.sock")
    assert socket_urls() == ["unix:///run/first.sock"]
    monkeypatch.delenv("DOCKER_HOST")
    monkeypatch.setenv("DOCKER_CONTEXT", "mine")
    assert socket_urls() == ["unix:///run/mine.sock"]
    monkeypatch.setenv("DOCKER_CONTEXT", "no-such")
    with pytest.raises(SetupError, match="no-such"):
        socket_urls()
    monkeypatch.delenv("DOCKER_CONTEXT")
    assert socket_urls() == ["unix:///run/mine.sock"]  # the current one of the config file
    (made / "config.json").write_text("{}")
    assert "unix:///run/mine.sock" not in socket_urls()
    write_context(tmp_path, "far", "tcp://10.0.0.1:2375")
    monkeypatch.setenv("DOCKER_CONTEXT", "far")
    with pytest.raises(SetupError, match="not on this machine"):
        socket_urls()


def write_context(folder: Path, name: str, host: str) -> Path:
    """What `docker context create` and `docker context use` leave on disk."""
    import hashlib

    meta = folder / "contexts" / "meta" / hashlib.sha256(name.encode()).hexdigest()
    meta.mkdir(parents=True)
    endpoint = {"docker": {"Host": host, "SkipTLSVerify": False}}
    (meta / "meta.json").write_text(json.dumps({"Name": name, "Metadata": {}, "Endpoints": endpoint}))
    (folder / "config.json").write_text(json.dumps({"currentContext": name}))
    return folder


# The pipe


def framed(*pieces: tuple[int, bytes]) -> bytes:
    return b"".join(struct.pack(">BxxxL", stream, len(data)) + data for stream, data in pieces)


def read_all(pipe: AttachedPipe, size: int) -> bytes:
    said, space = b"", memoryview(bytearray(size))
    while (count := pipe.read_into(space)) > 0:
        said += bytes(space[:count])
    return said


@settings(max_examples=200)
@given(
    pieces=st.lists(st.tuples(st.sampled_from([1, 1, 1, 2]), st.binary(max_size=300)), max_size=12),
    cuts=st.lists(st.integers(1, 64), min_size=1, max_size=20),
    size=st.integers(1, 200),
)
def test_the_pipe_gives_what_was_said_however_it_is_cut(
    pieces: list[tuple[int, bytes]], cuts: list[int], size: int
) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        data, place, turn = framed(*pieces), 0, 0
        while place < len(data):
            step = cuts[turn % len(cuts)]
            theirs.sendall(data[place : place + step])
            place, turn = place + step, turn + 1
        theirs.shutdown(socket.SHUT_WR)
        pipe = AttachedPipe(ours)
        assert read_all(pipe, size) == b"".join(data for stream, data in pieces if stream == 1)
        assert pipe.stderr == b"".join(data for stream, data in pieces if stream == 2)[-2000:]


def test_the_pipe_waits_for_nothing_it_could_give_now() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(framed((1, b"now")) + b"\1\0\0")
        space = memoryview(bytearray(100))
        pipe = AttachedPipe(ours, timeout=5.0)
        assert bytes(space[: pipe.read_into(space)]) == b"now"


def test_a_flood_on_stderr_ends_the_reading() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        pipe = AttachedPipe(ours)
        flood = threading.Thread(target=send_quietly, args=(theirs, framed((2, bytes(MOST_STDERR_BYTES + 1)))))
        flood.start()
        with pytest.raises(GuestFault, match="flood"):
            read_all(pipe, 1000)
        pipe.close()
        flood.join()


def send_quietly(end: socket.socket, data: bytes) -> None:
    with contextlib.suppress(OSError):
        end.sendall(data)


@pytest.mark.parametrize("direction", ["reading", "writing"])
def test_closing_the_pipe_wakes_who_waits_on_it(direction: str) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        pipe, woken = AttachedPipe(ours), threading.Event()

        def wait() -> None:
            try:
                while direction == "writing":
                    pipe.write(bytes(1 << 20))
                pipe.read_into(memoryview(bytearray(10)))
            except OSError:
                pass
            woken.set()

        threading.Thread(target=wait, daemon=True).start()
        time.sleep(0.1)
        assert not woken.is_set()
        pipe.close()
        assert woken.wait(30.0)


def test_the_pipe_is_fast_enough() -> None:
    """280-350 MB/s were measured for the whole way; the pipe alone must not be what limits it."""
    ours, theirs = socket.socketpair()
    chunk = framed((1, bytes(32 * 1024))) * 32
    with ours, theirs:
        thread = threading.Thread(target=lambda: [send_quietly(theirs, chunk) for _ in range(100)], daemon=True)
        pipe, space, total = AttachedPipe(ours), memoryview(bytearray(1 << 20)), 0
        began = time.thread_time()
        thread.start()
        while total < 100 << 20:
            total += pipe.read_into(space)
        assert time.thread_time() - began < 1.0
        thread.join()


# The meter


def test_both_kinds_of_cgroup_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "cpuacct.usage").write_text("2500000000\n")
    (tmp_path / "cpu.stat").write_text("usage_usec 1500000\nuser_usec 1000000\nnr_periods 0\n")
    (tmp_path / "memory.events").write_text("low 0\noom 1\noom_kill 3\n")
    assert meter.read_cpu_seconds(tmp_path / "cpuacct.usage") == 2.5
    assert meter.read_cpu_seconds(tmp_path / "cpu.stat") == 1.5
    assert meter.read_cpu_seconds(tmp_path / "none") is None
    assert meter._field(tmp_path / "memory.events", "oom_kill") == 3


V1_MEMORY = meter.CGROUPS / "memory"
GREEDY = """
import pathlib, sys
pathlib.Path(sys.argv[1], "cgroup.procs").write_text("0")
print(flush=True)
sys.stdin.read(1)
held = [bytearray(1 << 20) for _ in range(200)]
"""


@pytest.mark.skipif(not os.access(V1_MEMORY / "cgroup.procs", os.W_OK), reason="no memory cgroup (v1) to write to")
@pytest.mark.parametrize(("limited", "whose"), [("guest", "guest"), ("machine", "machine")])
def test_a_kill_for_memory_is_the_machine_s_where_the_guest_was_below_its_own_limit(limited: str, whose: str) -> None:
    name = f"bellglass-test-{os.getpid()}"
    machine, guest = V1_MEMORY / name, V1_MEMORY / name / "guest"
    guest.mkdir(parents=True)
    try:
        limit = {"machine": machine, "guest": guest}[limited]
        (limit / "memory.limit_in_bytes").write_text("60M")
        with subprocess.Popen(
            [sys.executable, "-c", GREEDY, str(guest)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            made = meter.Meter(name, process.pid, lambda: None)
            assert made.killed_for_memory() == ""
            process.communicate(b"x")
        assert process.returncode == -signal.SIGKILL
        assert made.killed_for_memory() == whose
    finally:
        guest.rmdir()
        machine.rmdir()


@pytest.mark.parametrize(("count", "whose"), [(0, "machine"), (1, "guest")])
def test_the_same_by_cgroup_v2_s_files(tmp_path: Path, count: int, whose: str) -> None:
    made = meter.Meter("none", 0, lambda: None)
    made._memory = tmp_path / "memory.events"
    made._memory.write_text(f"low 0\nhigh 0\nmax 0\noom {count}\noom_kill 1\n")
    assert made.killed_for_memory() == whose


def test_another_process_is_not_metered_by_mistake() -> None:
    assert meter.cgroup_files("0123456789abcdef", os.getpid()) == (None, None)


def test_the_meter_never_falls_and_asks_the_engine_where_there_is_no_file() -> None:
    answers = iter([1.0, 3.0, None, 2.0])
    made = meter.Meter("0123456789abcdef", 0, lambda: next(answers))
    assert [made.cpu_seconds() for _ in range(4)] == [1.0, 3.0, 3.0, 3.0]
