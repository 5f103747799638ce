"""What bundle code is kept from beyond its container: `predict` from all that could leave or find a trace of another
guest, and all guests from /proc.

Each attempt is made twice: confined, where it must be refused, and `--bare`, where it must succeed. So are they in a
container, and without one: the supervisor confines its child in the same way wherever it runs.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from guests import Seen, begin, listen, spec
from test_calls import LIST, script

from bellglass.errors import BellglassError
from bellglass.paths import content_root
from bellglass.processes import LINUX
from bellglass.records import Role

Open = Callable[[bool], Any]
KINDS = ["process", pytest.param("docker", marks=pytest.mark.docker)]
FILTER: dict[str, Any] = script("glass_filter.py")


def kernel_can() -> bool:
    landlock: dict[str, Any] = script("glass_landlock.py")
    return LINUX and platform.machine() in FILTER["_MACHINES"] and landlock["version"]() > 0


@pytest.fixture(scope="module", params=KINDS)
def glasses(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Open]:
    """A glass whose guests are confined, or are not."""
    made: dict[bool, Any] = {}

    def get(bare: bool) -> Any:
        if bare not in made:
            if request.param == "docker":
                from bellglass.doors.docker.glass import DockerGlass

                made[bare] = DockerGlass(warm=False, prove=False, keep=False)
                made[bare]._bare = "for this test" if bare else ""
            else:
                from bellglass.doors.process_glass import ProcessGlass

                made[bare] = ProcessGlass(warm=False, home=tmp_path_factory.mktemp("guests"), bare=bare)
        return made[bare]

    if request.param == "process" and not kernel_can():
        pytest.skip("this kernel has no Landlock, or this machine no filter")
    try:
        get(False)
    except (BellglassError, ImportError) as error:
        if os.environ.get("BELLGLASS_REQUIRE_DOCKER"):
            pytest.fail(str(error))
        pytest.skip(str(error))
    with ExitStack() as stack:
        stack.callback(lambda: [glass.close() for glass in made.values()])
        yield get


# A model that reports in numbers: one for each character.
REPORT = """
import glass, json, numpy, os
found = {}
def tried(name, act):
    try:
        act()
        found[name] = "done"
    except OSError as error:
        found[name] = "refused"
def load(folder):
    attempt(folder)
    text = json.dumps(found).encode()
    return lambda tokens: numpy.frombuffer(text, dtype="u1").astype("f4")
"""
LEAVES_A_TRACE = """
import ctypes, mmap, select, socket, sys, tempfile
libc = ctypes.CDLL(None, use_errno=True)
def call(name, *arguments):
    if getattr(libc, name)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), name)
def huge():
    libc.mmap.restype = ctypes.c_void_p
    if libc.mmap(None, 1 << 21, 3, 0x40022, -1, 0) == 2 ** 64 - 1 and ctypes.get_errno() == 1:
        raise OSError(1, "mmap")  # any other answer comes after an inode was numbered
def wake(word):
    number = {"x86_64": 202, "aarch64": 98}[os.uname().machine]
    call("syscall", number, word, 1, 1, None, None, 0)
def forks():
    if (pid := os.fork()) == 0:
        os._exit(0)
    os.waitpid(pid, 0)
def attempt(folder):
    tried("pipe", os.pipe)
    tried("socketpair", socket.socketpair)
    tried("socket", lambda: socket.socket(socket.AF_UNIX))
    tried("memfd", lambda: os.memfd_create("x"))
    tried("shared memory", lambda: mmap.mmap(-1, 4096))
    tried("eventfd", lambda: os.eventfd(0))
    tried("epoll", select.epoll)
    tried("timerfd", lambda: call("timerfd_create", 1, 0))
    tried("timer", lambda: call("setitimer", 0, ctypes.create_string_buffer(32), None))
    tried("huge pages", huge)
    tried("fork", forks)
    tried("a futex that others see", lambda: wake(ctypes.create_string_buffer(8)))
    tried("signal", lambda: os.kill(os.getppid(), 0))
    tried("duplicate", lambda: os.dup(0))
    tried("session", os.setsid)
    tried("own facts", lambda: call("prctl", 3, 0, 0, 0, 0))
    tried("writing", lambda: open("made", "w").close())
    tried("folder", lambda: os.mkdir("folder"))
    tried("chdir", lambda: os.chdir("/"))
    tried("facts of its link", lambda: os.fstat(glass._link.fd))
    tried("space", lambda: os.statvfs("/"))
    for path in ("/proc/self/status", "/proc/self/smaps", "/proc/self/pagemap", "/etc/../proc/self/stat",
            "/proc/self/fd/0", "/dev/fd/0"):
        tried(f"open {path}", lambda: os.close(os.open(path, os.O_RDONLY)))
        tried(f"stat {path}", lambda: os.stat(path))
    tried("list /proc", lambda: os.listdir("/proc"))
"""
WHAT_A_MODEL_NEEDS = """
import threading, time
def attempt(folder):
    with open(os.path.join(folder, "scale.json")) as file:
        assert json.load(file) == 2.5
    assert os.listdir(folder) == ["scale.json"]
    assert os.path.getsize(os.path.join(folder, "scale.json")) == 3
    assert not os.path.exists(os.path.join(folder, "nothing"))
    import csv, decimal, glob
    assert glob.glob(os.path.join(folder, "*.json"))
    thread = threading.Thread(target=lambda: found.update(thread="done"))
    thread.start()
    thread.join()
    assert numpy.ones((64, 64)).dot(numpy.ones((64, 64))).sum() == 64 ** 3
    assert len(os.urandom(8)) == 8 and open(os.devnull).read() == ""
    bytearray(64 << 20)
    time.sleep(0.001)
"""


def reported(glass: Any, code: str) -> dict[str, str]:
    guest, seen = glass.open(spec(Role.PREDICT)), Seen()
    try:
        begin(guest, REPORT + code, {"out/scale.json": b"2.5"}, Role.PREDICT, device="cpu", threads=1)

        def answer(guest: Any, request: Any) -> None:
            if "logits" in seen.files:
                guest.send("reply", id=request.id, ok=True, value=None)
            else:
                guest.send("reply", bytes(8), id=request.id, ok=True, value={"shape": [1, 1]})

        assert listen(guest, answer, into=seen, seconds=60.0).why == "ok"
    finally:
        guest.end()
    found = json.loads(np.frombuffer(seen.files["logits"], "<f4").astype("u1").tobytes())
    assert isinstance(found, dict)
    return found


def test_a_guest_that_answers_can_neither_leave_a_trace_nor_find_one(glasses: Open) -> None:
    found = reported(glasses(False), LEAVES_A_TRACE)
    assert {name for name, answer in found.items() if answer != "refused"} == set()
    assert len(found) == 34


def test_without_its_own_list_it_can(glasses: Open) -> None:
    glass = glasses(True)
    found = reported(glass, LEAVES_A_TRACE)
    elsewhere = {"session", "open /proc/self/pagemap"}
    if glass.name == "docker":
        elsewhere.add("huge pages")  # the container's list refuses them to all guests (tests/test_calls.py)
    assert {name for name, answer in found.items() if answer != "done"} <= elsewhere
    assert len(found) == 34


def test_what_a_model_needs_is_there_all_the_same(glasses: Open) -> None:
    assert reported(glasses(False), WHAT_A_MODEL_NEEDS) == {"thread": "done"}


def test_lookups_of_a_confined_guest_take_little_time(glasses: Open) -> None:
    """Some hundred are made before a model answers. Each is measured against other work of the same guest, since a busy
    machine is slower at both: it may cost as much as four sums over 20,000 numbers, about a thousandth of a second."""
    code = """
import time
def attempt(folder):
    began = time.process_time()
    for _ in range(200):
        os.stat(folder)
    between = time.process_time()
    for _ in range(200):
        sum(range(20_000))
    found["ratio"] = (between - began) / (time.process_time() - between)
"""
    assert float(reported(glasses(False), code)["ratio"]) < 4.0


def test_a_guest_that_answers_reads_nothing_but_the_image_and_its_work(glasses: Open, tmp_path: Path) -> None:
    code = """
def attempt(folder):
    os_open = lambda path, flags: tried(f"{path} {flags}", lambda: os.close(os.open(path, flags)))
    for flags in (os.O_WRONLY, os.O_RDWR, os.O_CREAT, os.O_PATH, os.O_APPEND, os.O_TRUNC, os.O_TMPFILE | os.O_RDWR):
        os_open(folder, flags)
        os_open(os.path.join(folder, "scale.json"), flags)
    os_open("/dev/mqueue", os.O_RDONLY)
    os_open("/etc/mtab", os.O_RDONLY)
"""
    found = reported(glasses(False), code)
    assert set(found.values()) == {"refused"}
    assert len(found) == 16


# All roles

LOOKS_AROUND = """
import json, os
found = {}
def tried(name, act):
    try:
        act()
        found[name] = "done"
    except OSError:
        found[name] = "refused"
for path in ("status", "smaps", "smaps_rollup", "maps", "stat", "io", "mountinfo", "net/unix"):
    tried(path, lambda: open(f"/proc/self/{path}", "rb").read(1))
tried("processes", lambda: os.listdir("/proc"))
tried("machine", lambda: os.listdir("/sys"))
tried("supervisor", lambda: os.kill(os.getppid(), 0))
print(json.dumps(found), flush=True)
"""


@pytest.mark.parametrize("role", [Role.IMPROVE, Role.TRAIN])
@pytest.mark.parametrize("bare", [False, True])
def test_bundle_code_reaches_neither_proc_nor_its_supervisor(glasses: Open, role: Role, bare: bool) -> None:
    guest = glasses(bare).open(spec(role))
    try:
        begin(guest, LOOKS_AROUND, role=role)
        found = json.loads(listen(guest).out)
    finally:
        guest.end()
    assert set(found.values()) == {"done" if bare else "refused"}
    assert len(found) == 11


def test_an_improvers_shell_works_without_proc(glasses: Open) -> None:
    shell = (
        "echo to >/dev/stderr; cat /dev/stdin </etc/passwd | head -n 1 >first; (sleep 9 & echo $!; kill $!; wait $!)"
    )
    code = f"import subprocess; print(subprocess.run(['sh', '-c', {shell!r}], stderr=-1, stdout=-1).stderr)"
    guest = glasses(False).open(spec(Role.IMPROVE))
    try:
        begin(guest, code + "; print(open('first').read())", role=Role.IMPROVE)
        seen = listen(guest)
    finally:
        guest.end()
    assert b"to\\n" in seen.out
    assert b"root:" in seen.out


# The two lists


def test_bundle_codes_own_list_has_nothing_that_the_supervisor_alone_needs() -> None:
    own = {*FILTER["PLAIN"], *FILTER["FILTERED"]}
    assert own & {*LIST["BROKERED"]} == set()
    assert own <= {*LIST["reasons"](), "clone"}
    assert len(own) < 60
    never = """
        fork vfork execve execveat pipe pipe2 socket socketpair connect memfd_create eventfd2 epoll_create1 kill prctl
        timerfd_create timer_create dup openat open newfstatat stat statx statfs readlinkat faccessat getrusage times
        sysinfo inotify_init1 fadvise64 mincore process_vm_readv process_vm_writev pidfd_getfd pidfd_open seccomp
    """
    assert own & set(never.split()) == set()


@pytest.mark.skipif(not LINUX, reason="reads the kernel's headers")
def test_the_numbers_of_calls_are_the_kernels() -> None:
    header = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")
    generic = Path("/usr/include/asm-generic/unistd.h")
    if not header.exists() or not generic.exists():
        pytest.skip("no kernel headers")
    words = [line.split() for line in header.read_text().splitlines() if line.startswith("#define __NR_")]
    x86 = {parts[1].removeprefix("__NR_"): int(parts[2]) for parts in words}
    named = {**FILTER["PLAIN"], **FILTER["ASKED"], **FILTER["FILTERED"]}
    named |= {name: numbers for name, (numbers, _) in FILTER["ANSWERED"].items()}
    assert {name: numbers[0] for name, numbers in named.items()} == {name: x86[name] for name in named}
    text = generic.read_text()
    for name, (_, number) in named.items():
        word = {"newfstatat": "__NR3264_fstatat", "fstat": "__NR3264_fstat", "mmap": "__NR3264_mmap"}.get(name)
        word = word or {"lseek": "__NR3264_lseek", "fcntl": "__NR3264_fcntl"}.get(name, f"__NR_{name}")
        assert number is None or f"#define {word} {number}\n" in text, name


def test_the_guests_files_name_no_machine_that_has_no_broker() -> None:
    broker: dict[str, Any] = script("glass_broker.py")
    assert set(broker["_NUMBERS"]) == set(broker["_STAT_BYTES"]) == set(FILTER["_MACHINES"])
    for machine, (column, *_) in FILTER["_MACHINES"].items():
        asked = tuple(FILTER["ASKED"][name][column] for name in ("openat", "newfstatat", "fstat"))
        assert broker["_NUMBERS"][machine] == asked
    assert (content_root() / "sandbox" / "glass_broker.py").is_file()
