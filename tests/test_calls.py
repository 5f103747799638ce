"""The lists of system calls: what may be on them, why, and that a list's own words are what a guest meets.

Each refusal is tried twice in a real guest: with the call allowed, where it must do harm, and as shipped.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator
from typing import Any

import pytest
from guests import begin, listen, spec

from bellglass.paths import content_root
from bellglass.records import Role

FOLDER = content_root() / "sandbox"


def script(name: str) -> dict[str, Any]:
    """What a file of sandbox/ defines; it is no module of the package."""
    space: dict[str, Any] = {"__name__": name.removesuffix(".py"), "__file__": str(FOLDER / name)}
    exec(compile((FOLDER / name).read_text(), name, "exec"), space)
    return space


LIST = script("seccomp_list.py")


def allowed(rules: dict[str, Any]) -> set[str]:
    return {name for rule in rules["syscalls"] if rule["action"] == "SCMP_ACT_ALLOW" for name in rule["names"]}


def test_the_committed_lists_are_what_their_script_writes() -> None:
    committed = {path.name: json.loads(path.read_text()) for path in FOLDER.glob("seccomp*.json")}
    assert committed == LIST["LISTS"]


@pytest.mark.parametrize("name", LIST["LISTS"])
def test_all_else_is_refused(name: str) -> None:
    rules = LIST["LISTS"][name]
    assert rules["defaultAction"] == "SCMP_ACT_ERRNO"
    assert {rule["action"] for rule in rules["syscalls"]} == {"SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO"}


@pytest.mark.parametrize("name", LIST["LISTS"])
def test_no_list_has_a_call_that_reaches_out(name: str) -> None:
    never = (
        "io_uring_setup io_uring_enter io_uring_register ptrace userfaultfd bpf kcmp "
        "perf_event_open keyctl add_key request_key mount umount2 move_mount open_tree fsopen unshare setns clone3 "
        "personality open_by_handle_at init_module kexec_load reboot swapon settimeofday chroot "
        "pivot_root quotactl fanotify_init vmsplice splice tee modify_ldt iopl ioperm setuid setresuid capset"
    )
    assert allowed(LIST["LISTS"][name]) & set(never.split()) == set()


@pytest.mark.parametrize("name", LIST["LISTS"])
def test_every_call_has_a_reason_why_it_neither_drops_nor_probes_a_page(name: str) -> None:
    reasons, brokered = LIST["reasons"](), LIST["BROKERED"] if name == "seccomp_predict.json" else {}
    assert allowed(LIST["LISTS"][name]) <= {*reasons, *brokered}
    assert all(len(why.split()) >= 3 for why in [*reasons.values(), *brokered.values()])
    assert set(reasons) & set(LIST["DROPS_OR_PROBES"].split()) == set()


def test_every_reason_is_about_a_call_that_is_allowed_and_each_call_has_one() -> None:
    written = [name for names in LIST["PLAIN"].values() for name in names.split()]
    assert len(written) == len(set(written))
    assert set(written) & {*LIST["FILTERED"], *LIST["WITHOUT"], "socket"} == set()
    assert set(LIST["reasons"]()) == allowed(LIST["LISTS"]["seccomp.json"])
    beside = allowed(LIST["LISTS"]["seccomp_predict.json"]) - allowed(LIST["LISTS"]["seccomp.json"])
    assert beside == set(LIST["BROKERED"])


def test_calls_with_a_harmful_argument_are_filtered_by_it() -> None:
    rules = LIST["LISTS"]["seccomp.json"]["syscalls"]
    conditional = {name for rule in rules for name in rule["names"] if rule.get("args")}
    assert conditional == {*LIST["FILTERED"], *LIST["WITHOUT"], "socket"}
    unconditional = {name for rule in rules for name in rule["names"] if not rule.get("args")}
    assert conditional & unconditional == set()


# In a guest.

x86_only = pytest.mark.skipif(platform.machine() != "x86_64", reason="its numbers are those of x86-64")

TRY = """
import ctypes, errno, json, os, socket, struct
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
def call(*numbers):
    words = [ctypes.c_long(each) if isinstance(each, int) else each for each in numbers]
    back = libc.syscall(*words)
    return "done" if back is None or back < 1 << 63 else errno.errorcode.get(ctypes.get_errno(), "?")
fd = os.open("/opt/glass/bin/python", os.O_RDONLY)
own = os.open("own", os.O_RDWR | os.O_CREAT)
page = libc.mmap(None, 4096, 1, 1, fd, 0)
space = ctypes.create_string_buffer(4096)
vector = struct.pack("QQ", ctypes.addressof(space), 4096)
lock = struct.pack("hhqqi4x", 0, 0, 0, 0, 0)
supervisor = os.getppid()
one, other = (each.detach() for each in socket.socketpair())
size = lambda: struct.pack("i", 8)
quiet = struct.pack("QQ", 4321, 4321)
child = os.fork()
if child == 0:
    os.read(os.pipe()[0], 1)
tries = {
    "fadvise64": (221, fd, 0, 0, 4), "readahead": (187, fd, 0, 4096), "mincore": (27, page, 4096, space),
    "madvise": (28, page, 4096, 3), "madvise reclaims": (28, page, 4096, 21), "madvise merges": (28, page, 4096, 12),
    "pwritev2": (328, own, vector, 1, 0, 0, 2), "sync": (162,), "syncfs": (306, fd), "flock": (73, fd, 5),
    "sync_file_range": (277, fd, 0, 0, 0), "mlock": (149, page, 4096), "openat2": (437, -100, b"/etc", bytes(24), 24),
    "fcntl locks": (72, fd, 6, lock), "fcntl asks for locks": (72, fd, 5, lock), "inotify_init1": (294, 0),
    "sysinfo": (99, space), "getrusage": (98, 0, space), "pidfd_open": (434, os.getpid(), 0),
    "wait4 tells faults": (61, -1, 0, 1, space), "prctl merges": (157, 67, 1, 0, 0, 0),
    "getsockopt pidfd": (55, one, 1, 77, space, size()), "getsockopt cookie": (55, one, 1, 57, space, size()),
    "setsockopt pidfds": (54, one, 1, 76, struct.pack("i", 1), 4),
    "prlimit64 reads": (302, supervisor, 7, 0, space), "prlimit64 sets": (302, supervisor, 0, quiet, 0),
    "sched_setaffinity": (203, supervisor, 8, struct.pack("Q", 1)), "setpgid": (109, child, 0),
    "setpriority": (141, 0, supervisor, 5), "setpriority by user": (141, 2, 0, 6),
    "setpriority by group": (141, 1, os.getpgid(supervisor), 7),
    "mmap of huge pages": (9, 0, 2 << 20, 3, 0x44022, -1, 0), "memfd of huge pages": (319, b"x", 4),
}
print(json.dumps({name: call(*numbers) for name, numbers in tries.items()}), flush=True)
os.kill(child, 9)
"""
OPENED = """
    fadvise64 readahead mincore madvise pwritev2 sync syncfs flock sync_file_range mlock openat2 fcntl inotify_init1
    sysinfo getrusage getsockopt setsockopt pidfd_open wait4 prctl prlimit64 sched_setaffinity setpgid setpriority mmap
    memfd_create
"""
STILL = """
import asyncio, concurrent.futures, json, mmap, multiprocessing, os, signal, subprocess, threading
import fcntl, resource
with open("own", "w+b") as file:
    file.write(bytes(4096)); file.flush()
    with mmap.mmap(file.fileno(), 0) as own:
        own[0] = 1; own.flush()
    fcntl.fcntl(file, fcntl.F_SETFD, fcntl.fcntl(file, fcntl.F_GETFD))
resource.setrlimit(resource.RLIMIT_NOFILE, (100, 1024))
os.setpriority(os.PRIO_PROCESS, 0, 3)
os.sched_setaffinity(0, os.sched_getaffinity(0))
signal.pthread_kill(threading.get_ident(), 0)
async def started():
    assert await (await asyncio.create_subprocess_exec("true")).wait() == 0
asyncio.run(started())
with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as pool:
    assert list(pool.map(abs, [-1, 2])) == [1, 2]
if os.fork() == 0:
    os.setpgid(0, 0); os._exit(3)
print(os.wait()[1] >> 8, subprocess.run(["timeout", "5", "sh", "-c", "echo a | cat; sleep 0 & wait; exit 4"],
    capture_output=True), subprocess.run(["timeout", "0.1", "sleep", "9"]).returncode)
"""


@pytest.fixture(scope="module")
def glass() -> Iterator[Any]:
    from bellglass.doors.docker.glass import DockerGlass

    made = DockerGlass(warm=False, prove=False, keep=False)
    yield made
    made.close()


@pytest.fixture
def allow(glass: Any) -> Iterator[Any]:
    """Allows calls whatever their arguments, in guests of this test."""
    shipped = dict(glass._seccomp)

    def widen(calls: str) -> None:
        names = calls.split()
        for name, text in shipped.items():
            rules = json.loads(text)
            rules["syscalls"] = [rule for rule in rules["syscalls"] if not set(rule["names"]) & set(names)]
            rules["syscalls"].append(LIST["rule"](names))
            glass._seccomp[name] = json.dumps(rules)

    yield widen
    glass._seccomp.update(shipped)


def tried(glass: Any) -> tuple[dict[str, str], list[str]]:
    """What each call answered, and the supervisor's limits afterwards, as the host sees them."""
    guest = glass.open(spec(Role.TRAIN))
    try:
        begin(guest, TRY + "import time; time.sleep(60)")
        seen = listen(guest, until=lambda seen: b"}" in seen.out)
        pid = glass._engine.inspect(guest.id)["State"]["Pid"]
        with open(f"/proc/{pid}/limits") as file:
            limits = next(line for line in file if line.startswith("Max cpu time")).split()
        return json.loads(seen.out), limits[3:5]
    finally:
        guest.end()


@pytest.mark.docker
@x86_only
def test_calls_that_drop_probe_or_reach_the_supervisor_are_refused(glass: Any) -> None:
    answers, limits = tried(glass)
    assert {name: answer for name, answer in answers.items() if answer != "EPERM"} == {}
    assert limits == ["unlimited", "unlimited"]


@pytest.mark.docker
@x86_only
def test_the_same_calls_succeed_where_they_are_allowed(glass: Any, allow: Any) -> None:
    allow(OPENED)
    answers, limits = tried(glass)
    assert {name: answer for name, answer in answers.items() if answer != "done"} == {}
    assert limits == ["4321", "4321"]  # a second, and the kernel would end it in the middle of a trial


FLOOD = """
import ctypes, os, struct, time
import glass
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall(302, os.getppid(), 0, struct.pack("QQ", 1, 1), None)  # a second of CPU for the supervisor
began = time.monotonic()
for step in range(40_000):
    glass.metric("x", 0, step)
    glass.time_left()
    time.sleep(max(0, began + step / 2500 - time.monotonic() - 1))  # as many a second as a trainer may send
"""


@pytest.mark.docker
@x86_only
@pytest.mark.parametrize("defended", [True, False])
def test_no_number_of_cheap_frames_ends_the_supervisor(glass: Any, allow: Any, defended: bool) -> None:
    """Who looks lost is the machine's fault, and a champion that is lost beside each child would never be succeeded."""
    if not defended:
        allow("prlimit64")
    guest = glass.open(spec(Role.TRAIN))
    begin(guest, FLOOD)
    seen = listen(guest)
    guest.end()
    assert (seen.why, len(seen.metrics) == 40_000) == (("ok", True) if defended else ("lost", False))


@pytest.mark.docker
def test_what_programs_need_of_these_calls_is_there(glass: Any) -> None:
    guest = glass.open(spec(Role.IMPROVE))
    begin(guest, STILL, role=Role.IMPROVE)
    seen = listen(guest)
    guest.end()
    assert seen.err == b""
    assert seen.out.startswith(b"3 ")
    assert b"returncode=4, stdout=b'a\\n', stderr=b'') 124" in seen.out
