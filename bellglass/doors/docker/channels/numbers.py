"""Probes of what the kernel counts: for a uid, for the whole machine; and of numbers that it gives to all in a row."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import functools
import os
import resource
import select
import signal
import socket
import struct
import threading
from collections.abc import Callable, Iterator

from bellglass.doors.docker.channels.kit import Ear, Send, done, held, hold, libc, marks, nothing, one

CROWD = 40  # processes, signals and the like that a one makes: far more than what else happens meanwhile
FEW = 3  # processes of a uid that no one else has

# --- of one uid: a bit a word ---


def queue_signal() -> None:
    """To this thread alone: a thread of the guest's own that doesn't expect it would end the guest."""
    signal.pthread_kill(threading.get_ident(), signal.SIGRTMIN)


def send_signals(bits: str) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGRTMIN})
    if one(bits):
        held.append(drain_signals)
        for _ in range(CROWD):
            queue_signal()


def drain_signals() -> None:
    while signal.sigtimedwait({signal.SIGRTMIN}, 0) is not None:
        pass


def queued_signals() -> int:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1].partition("/")[0]) for line in file if line.startswith("SigQ"))


@contextlib.contextmanager
def at_most(limit: int, most: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(limit)
    try:
        resource.setrlimit(limit, (most, hard))
    except ValueError as refused:  # Python's word for EPERM
        raise PermissionError(errno.EPERM, str(refused)) from None
    try:
        yield
    finally:
        resource.setrlimit(limit, (soft, hard))


def read_signal_limit(count: int) -> str:
    """Without /proc: a signal more than the uid may have waiting can't be queued."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGRTMIN})
    with at_most(resource.RLIMIT_SIGPENDING, CROWD // 2):
        try:
            queue_signal()
        except BlockingIOError:
            return "1"
    drain_signals()
    return "0"


def send_pipes(bits: str) -> None:
    """As many pages in pipes as one uid may have before the kernel makes its new pipes small."""
    for _ in range(66 if one(bits) else 0):
        ends = os.pipe()
        hold(ends[0])
        hold(ends[1])
        with contextlib.suppress(PermissionError):
            fcntl.fcntl(ends[0], fcntl.F_SETPIPE_SZ, 1 << 20)


def pipe_size() -> int:
    ends = os.pipe()
    size = fcntl.fcntl(ends[0], fcntl.F_GETPIPE_SZ)
    os.close(ends[0])
    os.close(ends[1])
    return -size


def send_flights(bits: str) -> None:
    """Descriptors under way in sockets: one uid may have as many as one process may have open."""
    ends = socket.socketpair()
    held.extend(end.close for end in ends)
    for _ in range(5 if one(bits) else 0):
        with contextlib.suppress(OSError):
            socket.send_fds(ends[0], [b"x"], [0] * 250)


def read_flights(count: int) -> str:
    ends = socket.socketpair()
    try:
        socket.send_fds(ends[0], [b"x"], [0])
        return "0"
    except OSError:
        return "1"
    finally:
        ends[0].close()
        ends[1].close()


def end_child(child: int, door: int) -> None:
    os.close(door)
    os.waitpid(child, 0)


def send_forks(bits: str, count: int = CROWD) -> None:
    for _ in range(count if one(bits) else 0):
        end, other = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(other)
            os.read(end, 1)
            os._exit(0)
        os.close(end)
        held.append(functools.partial(end_child, child, other))


def send_few_forks(bits: str) -> None:
    send_forks(bits, FEW)


def read_fork_limit(count: int) -> str:
    """The receiver, its child and an idle sender are one fewer than the limit; a sender's children are too many."""
    with at_most(resource.RLIMIT_NPROC, FEW + 1):
        try:
            child = os.fork()
        except BlockingIOError:
            return "1"
        if child == 0:
            os._exit(0)
    os.waitpid(child, 0)
    return "0"


def send_watches(bits: str) -> None:
    for _ in range(128 if one(bits) else 0):
        hold(done(libc.inotify_init1(0)))


def read_watch_limit(count: int) -> str:
    watch = libc.inotify_init1(0)
    if watch == -1:
        return "1" if ctypes.get_errno() == errno.EMFILE else str(done(-1))
    os.close(watch)
    return "0"


# --- counters of the whole machine: a bit a word ---


def processes_linked() -> int:
    """/proc has as many links as the machine has processes."""
    return os.stat("/proc").st_nlink


def processes_told() -> int:
    answer = ctypes.create_string_buffer(256)
    done(libc.sysinfo(answer))
    return int(struct.unpack_from("10lH", answer.raw)[10])


def open_files() -> int:
    with open("/proc/sys/fs/file-nr") as file:
        return int(file.read().split()[0])


def send_events(bits: str) -> None:
    for _ in range(200 if one(bits) else 0):
        hold(os.eventfd(0))


def event_number() -> int:
    """The kernel numbers living eventfds, the lowest free number first."""
    made = os.eventfd(0)
    try:
        with open(f"/proc/self/fdinfo/{made}") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("eventfd-id"))
    finally:
        os.close(made)


def rises(counter: Callable[[], int], least: int = CROWD // 2) -> tuple[Callable[[int], None], Callable[[int], str]]:
    """A one makes the counter rise by far more than what else happens."""

    def mark(count: int) -> None:
        marks["level"] = counter()

    def read(count: int) -> str:
        return "1" if counter() - marks["level"] >= least else "0"

    return mark, read


# --- what outlives a guest: numbers that the kernel gives in one row to all ---


def next_pipe() -> int:
    ends = os.pipe()
    number = os.fstat(ends[0]).st_ino
    os.close(ends[0])
    os.close(ends[1])
    return number


def next_memfd() -> int:
    made = os.memfd_create("x")
    number = os.fstat(made).st_ino
    os.close(made)
    return number


def next_huge() -> int:
    """Huge pages of memory that is never touched; a machine needs to have none."""
    made = os.memfd_create("x", os.MFD_HUGETLB)
    number = os.fstat(made).st_ino
    os.close(made)
    return number


def next_cookie() -> int:
    with socket.socket(socket.AF_UNIX) as made:
        return int(struct.unpack("Q", made.getsockopt(socket.SOL_SOCKET, 57, 8))[0])


def next_process() -> int:
    child = os.fork()
    if child == 0:
        os._exit(0)
    descriptor = os.pidfd_open(child)
    number = os.fstat(descriptor).st_ino
    os.close(descriptor)
    os.waitpid(child, 0)
    for _ in range(100):  # threads are numbered in the same row, and cost less
        thread = threading.Thread(target=int)
        thread.start()
        thread.join()
    return number


def next_rename() -> int:
    """Moves carry numbers that a watcher sees."""
    if "renames" not in marks:
        open("/tmp/a", "w").close()
        marks["renames"] = done(libc.inotify_init1(0))
        done(libc.inotify_add_watch(marks["renames"], b"/tmp", 0x40))
    os.rename("/tmp/a", "/tmp/b")
    cookie = int(struct.unpack_from("iIII", os.read(marks["renames"], 4096))[2])
    os.rename("/tmp/b", "/tmp/a")
    os.read(marks["renames"], 4096) if select.select([marks["renames"]], [], [], 0)[0] else None
    return cookie


# How many numbers a step of the code is, and how many a reader has to take before it sees those that were given last:
# the kernel gives each core some ahead.
ROWS: dict[str, tuple[Callable[[], int], int, int]] = {
    "pipe": (next_pipe, 1 << 16, 2100),
    "memfd": (next_memfd, 1 << 14, 2100),
    "huge page": (next_huge, 1 << 16, 2100),
    "cookie": (next_cookie, 1 << 14, 8300),
    "process": (next_process, 1 << 12, 1),
    "rename": (next_rename, 1 << 11, 1),
}


def row(name: str) -> tuple[Callable[[str], None], Callable[[int], str]]:
    """The word is the number of a step, modulo as many as there are words; a quarter into it leaves room for others."""
    take, step, ahead = ROWS[name]

    def send(bits: str) -> None:
        around = step << len(bits)
        aim = int(bits, 2) * step + step // 4
        while (take() - aim) % around > step // 8:
            pass

    def read(count: int) -> str:
        number = max(take() for _ in range(ahead))
        return format(number // step % (1 << count), f"0{count}b")

    return send, read


SENDERS: dict[str, Send] = {
    "signals": send_signals, "pipes": send_pipes, "flights": send_flights, "forks": send_forks,
    "few forks": send_few_forks,
    "watches": send_watches, "events": send_events, **{f"row of {name}": row(name)[0] for name in ROWS},
}  # fmt: skip
READERS: dict[str, Ear] = {
    "queued signals": rises(queued_signals), "signal limit": (nothing, read_signal_limit),
    "pipe size": rises(pipe_size, 1), "flights": (nothing, read_flights), "fork limit": (nothing, read_fork_limit),
    "watch limit": (nothing, read_watch_limit), "processes linked": rises(processes_linked),
    "processes told": rises(processes_told), "open files": rises(open_files, 60),
    "event number": rises(event_number, 60), **{f"row of {name}": (nothing, row(name)[1]) for name in ROWS},
}  # fmt: skip
