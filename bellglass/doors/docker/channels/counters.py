"""Everything that a guest can read and that isn't its own: a neighbour's work must not show in it. Runs in a guest."""

from __future__ import annotations

import ctypes
import functools
import os
import resource
import stat
import struct
from collections.abc import Callable, Iterator

from bellglass.doors.docker.channels.kit import done, held, hold, libc, one

MOST_BYTES = 1 << 16  # of one file
SHOWN = 200
MOUNTS = ("/", "/proc", "/sys", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/tmp", "/work", "/etc/hosts")
SYSINFO = [
    "load1",
    "load5",
    "load15",
    "totalram",
    "freeram",
    "sharedram",
    "bufferram",
    "totalswap",
    "freeswap",
    "procs",
]
OWN = {"/proc/self", "/proc/thread-self"}


def look() -> dict[str, str]:
    """Every source by name, with what it says now."""
    found: dict[str, str] = {}
    pids = {f"/proc/{name}" for name in names_in("/proc") if name.isdigit()}
    for top in ("/proc", "/sys"):
        for path in (top, *below(top, OWN | pids)):
            note(found, path)
    for place in MOUNTS:
        keep(found, f"statvfs {place}", functools.partial(space_in, place))
        keep(found, f"stat {place}", functools.partial(links_of, place))
    answer = ctypes.create_string_buffer(256)
    keep(found, "sysinfo", lambda: str(done(libc.sysinfo(answer))))
    for name, value in zip(SYSINFO, struct.unpack_from("8x9lH", answer.raw), strict=True):
        found[f"sysinfo {name}"] = str(value)
    keep(found, "getrusage of others", lambda: str(resource.getrusage(resource.RUSAGE_CHILDREN)))
    keep(found, "uname", lambda: " ".join(os.uname()))
    keep(found, "cores", lambda: str(sorted(os.sched_getaffinity(0))))
    return found


def space_in(place: str) -> str:
    return str(os.statvfs(place)[2:8])


def links_of(place: str) -> str:
    facts = os.stat(place)
    return f"{facts.st_nlink} {facts.st_ino} {facts.st_dev}"


def note(found: dict[str, str], path: str) -> None:
    try:
        facts = os.lstat(path)
    except OSError:
        return
    found[f"{path} (links and size)"] = f"{facts.st_nlink} {facts.st_size}"
    if stat.S_ISREG(facts.st_mode):
        keep(found, path, lambda: beginning(path))
    elif stat.S_ISDIR(facts.st_mode):
        found[f"{path} (names)"] = " ".join(sorted(name for name in names_in(path) if not name.isdigit()))


def keep(found: dict[str, str], name: str, ask: Callable[[], str]) -> None:
    try:
        found[name] = ask()
    except OSError:
        found.pop(name, None)


def beginning(path: str) -> str:
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    try:
        return os.read(descriptor, MOST_BYTES).decode("latin-1")
    finally:
        os.close(descriptor)


def names_in(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except OSError:
        return []


def below(top: str, left_out: set[str]) -> Iterator[str]:
    for folder, folders, names in os.walk(top):
        folders[:] = [name for name in folders if os.path.join(folder, name) not in left_out]
        yield from (os.path.join(folder, name) for name in [*folders, *names])


LAST: dict[str, str] = {}


def changed() -> dict[str, str]:
    """What is no longer as at the last call, and what it says now."""
    now = look()
    found = {
        name: now.get(name, "gone")[:SHOWN] for name in now.keys() | LAST.keys() if now.get(name) != LAST.get(name)
    }
    LAST.clear()
    LAST.update(now)
    return found


def send_memory(bits: str) -> None:
    if one(bits):
        block = bytearray(b"x") * (64 << 20)
        held.append(block.clear)


def send_tmpfs(bits: str) -> None:
    for number in range(300 if one(bits) else 0):
        path = f"/work/busy{number}"
        os.write(hold(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600)), bytes(20_000))
        held.append(lambda path=path: os.unlink(path))  # type: ignore[misc]


def send_terminals(bits: str) -> None:
    for _ in range(8 if one(bits) else 0):
        for end in os.openpty():
            hold(end)


def send_work(bits: str) -> None:
    if one(bits):
        began = os.times().user
        while os.times().user - began < 0.3:
            pass


SENDERS = {"memory": send_memory, "tmpfs": send_tmpfs, "terminals": send_terminals, "work": send_work}
