"""Probes of what guests of one image share: its pages in memory, who maps them, locks and watches on its files.

Not covered: timing. Whether a page came from memory or from disk is asked of the kernel's counters, never of a clock.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import mmap
import os
import resource
import struct
import threading
import time
from collections.abc import Callable
from functools import partial

from bellglass.doors.docker.channels.kit import (
    PAGE,
    TOO_MANY,
    Ear,
    Send,
    clear,
    done,
    files,
    held,
    hold,
    image_files,
    libc,
    marks,
    nothing,
    opened,
    place,
    touch,
)

SPARED_MB = 54  # for this program, what the kernel keeps for it, and some pages of files

# --- the page cache ---


def send_drop(bits: str) -> None:
    """Throws all pages out and reads back those of the ones."""
    for path in files[: len(bits)]:
        with opened(path) as descriptor:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    read_back(bits)


def read_back(bits: str) -> None:
    for path, bit in zip(files, bits, strict=False):
        if bit == "1":
            with opened(path) as descriptor:
                os.pread(descriptor, PAGE, 0)


def send_pressure(bits: str) -> None:
    """Without any advice: reads the zeros, then takes all the memory that it may have, then reads the ones."""
    read_back(bits.translate(str.maketrans("01", "10")))
    try:
        eat_in_child()
    except PermissionError:
        eat_most()
    read_back(bits)


def eat_in_child() -> None:
    """Until the kernel ends it: before that it gives up every page of a file that this guest was charged for."""
    child = os.fork()
    if child == 0:
        eaten = []
        while True:
            eaten.append(bytearray(b"x") * (1 << 20))
    os.waitpid(child, 0)


def eat_most() -> None:
    ballast = mmap.mmap(-1, (marks["memory_mb"] - SPARED_MB) << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for at in range(0, len(ballast), PAGE):
        ballast[at] = 1
    for path in sorted(set(image_files()) - set(files)):
        with opened(path) as descriptor:
            while os.read(descriptor, 1 << 20):
                pass
    ballast.close()


def send_pageout(bits: str) -> None:
    """MADV_COLD, then MADV_PAGEOUT, over mappings of its own."""
    for path in files[: len(bits)]:
        address = place(path, private=True)
        touch(address)
        for advice in (20, 21):
            done(libc.madvise(address, PAGE, advice))
        libc.munmap(address, PAGE)
    read_back(bits)


def major_faults() -> int:
    try:
        return resource.getrusage(resource.RUSAGE_SELF).ru_majflt
    except OSError:
        with open("/proc/self/stat") as file:
            return int(file.read().rpartition(")")[2].split()[9])


def blocks_read() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_inblock


def reads_by(counter: Callable[[], int]) -> Callable[[int], str]:
    """A page that makes the counter rise when it is touched was not in memory."""

    def read(count: int) -> str:
        bits = ""
        for path in files[:count]:
            address, before = place(path), counter()
            touch(address)
            bits += "0" if counter() > before else "1"
            libc.munmap(address, PAGE)
        return bits

    return read


def read_nowait(count: int) -> str:
    bits = ""
    for path in files[:count]:
        with opened(path) as descriptor:
            try:
                os.preadv(descriptor, [bytearray(1)], 0, os.RWF_NOWAIT)
                bits += "1"
            except BlockingIOError:
                bits += "0"
    return bits


def read_mincore(count: int) -> str:
    bits = ""
    for path in files[:count]:
        address, answer = place(path), ctypes.create_string_buffer(1)
        done(libc.mincore(address, PAGE, answer))
        bits += str(answer.raw[0] & 1)
        libc.munmap(address, PAGE)
    return bits


def read_cachestat(count: int) -> str:
    bits, asked, answer = "", (ctypes.c_uint64 * 2)(0, PAGE), (ctypes.c_uint64 * 5)()
    for path in files[:count]:
        with opened(path) as descriptor:
            done(libc.syscall(451, descriptor, asked, answer, 0))
        bits += str(int(answer[0] > 0))
    return bits


# --- who else maps a page of the image ---


def send_map(bits: str) -> None:
    for path, bit in zip(files, bits, strict=False):
        if bit == "1":
            hold_page(path)


def hold_page(path: str) -> int:
    """Maps the whole file, within reason."""
    with opened(path) as descriptor:
        size = min(os.fstat(descriptor).st_size, TOO_MANY) // PAGE * PAGE or PAGE
    address = place(path, size)
    held.append(lambda: libc.munmap(address, size))
    for at in range(0, size, PAGE):
        touch(address + at)
    return address


def mappers_by(ask: Callable[[dict[str, int]], dict[str, float]]) -> tuple[Callable[[int], None], Callable[[int], str]]:
    """`ask` tells of each path a figure that falls when somebody else maps it, too."""

    def mark(count: int) -> None:
        marks["places"] = {path: hold_page(path) for path in files[:count]}
        marks["alone"] = ask(marks["places"])

    def read(count: int) -> str:
        now = ask(marks["places"])
        clear()
        return "".join("1" if now[path] < marks["alone"][path] else "0" for path in files[:count])

    return mark, read


def pss(places: dict[str, int]) -> dict[str, float]:
    found, path = {}, ""
    with open("/proc/self/smaps") as file:
        for line in file:
            name, *rest = line.split()
            if name == "Pss:":
                found[path] = float(rest[0])
            elif not name.endswith(":"):
                path = rest[-1]
    return {path: found[path] for path in places}


def mapmax(places: dict[str, int]) -> dict[str, float]:
    found = {}
    with open("/proc/self/numa_maps") as file:
        for line in file:
            words = dict(word.partition("=")[::2] for word in line.split())
            found[words.get("file", "")] = -float(words.get("mapmax", 1))
    return {path: found[path] for path in places}


def exclusive(places: dict[str, int]) -> dict[str, float]:
    found = {}
    with open("/proc/self/pagemap", "rb") as file:
        for path, address in places.items():
            file.seek(address // PAGE * 8)
            found[path] = float(struct.unpack("Q", file.read(8))[0] >> 56 & 1)
    return found


# --- locks and watches on files of the image ---


def send_flock(bits: str) -> None:
    for path, bit in zip(files, bits, strict=False):
        if bit == "1":
            fcntl.flock(hold(os.open(path, os.O_RDONLY)), fcntl.LOCK_EX)


def read_flock(count: int) -> str:
    bits = ""
    for path in files[:count]:
        with opened(path) as descriptor:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                bits += "0"
            except BlockingIOError:
                bits += "1"
    return bits


def send_lock(bits: str) -> None:
    """fcntl's, of the open file: a shared one, since the files can't be written."""
    for path, bit in zip(files, bits, strict=False):
        if bit == "1":
            request = struct.pack("hhqqi4x", fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0)
            fcntl.fcntl(hold(os.open(path, os.O_RDONLY)), fcntl.F_OFD_SETLK, request)


def read_lock(count: int) -> str:
    bits, request = "", struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    for path in files[:count]:
        with opened(path) as descriptor:
            answer = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, request)
        bits += "0" if struct.unpack("hhqqi4x", answer)[0] == fcntl.F_UNLCK else "1"
    return bits


def mark_watch(count: int) -> None:
    watch = hold(done(libc.inotify_init1(os.O_NONBLOCK)))
    numbers = [done(libc.inotify_add_watch(watch, os.fsencode(path), 0xFFF)) for path in files[:count]]
    marks["watch"] = watch, numbers


def read_watch(count: int) -> str:
    watch, numbers = marks["watch"]
    seen, events = set(), b""
    with contextlib.suppress(BlockingIOError):
        while block := os.read(watch, 1 << 16):
            events += block
    while events:
        number, _, _, length = struct.unpack_from("iIII", events)
        seen.add(number)
        events = events[16 + length :]
    clear()
    return "".join("1" if number in seen else "0" for number in numbers)


# --- who waits on a page ---

FUTEX_WAIT, FUTEX_WAKE, MANY_WAITERS = 0, 1, 1000
FUTEX = {"x86_64": 202, "aarch64": 98}


def futex(address: int, what: int, value: int) -> int:
    """Of a word that other processes may share, wherever they map it."""
    return int(done(libc.syscall(FUTEX[os.uname().machine], ctypes.c_void_p(address), what, value, None, None, 0)))


def send_waiters(bits: str) -> None:
    for path, bit in zip(files, bits, strict=False):
        if bit == "1":
            address = hold_page(path)
            futex(address, FUTEX_WAKE, 0)  # a refusal is told from here, not from a thread
            word = ctypes.c_int.from_address(address).value
            held.append(partial(wake_all, address))
            threading.Thread(target=wait_there, args=(address, word), daemon=True).start()
    time.sleep(0.02)  # until they wait


def wake_all(address: int) -> None:
    futex(address, FUTEX_WAKE, MANY_WAITERS)


def wait_there(address: int, word: int) -> None:
    with contextlib.suppress(OSError):
        futex(address, FUTEX_WAIT, word)


def read_waiters(count: int) -> str:
    bits = ""
    for path in files[:count]:
        bits += "1" if futex(hold_page(path), FUTEX_WAKE, MANY_WAITERS) else "0"
    clear()
    return bits


SENDERS: dict[str, Send] = {
    "drop": send_drop, "pressure": send_pressure, "pageout": send_pageout, "map": send_map, "flock": send_flock,
    "lock": send_lock, "open": read_back, "waiters": send_waiters,
}  # fmt: skip
READERS: dict[str, Ear] = {
    "major faults": (nothing, reads_by(major_faults)), "blocks read": (nothing, reads_by(blocks_read)),
    "nowait": (nothing, read_nowait), "mincore": (nothing, read_mincore), "cachestat": (nothing, read_cachestat),
    "pss": mappers_by(pss), "mapmax": mappers_by(mapmax), "exclusive": mappers_by(exclusive),
    "flock": (nothing, read_flock), "lock": (nothing, read_lock), "watch": (mark_watch, read_watch),
    "waiters": (nothing, read_waiters),
}  # fmt: skip
