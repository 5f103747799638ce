"""Holds every file of an image's root in memory, so that the page cache is no channel between guests. Stdlib only.

    python -I -c '<this file>'        in a container of the image, as root with CAP_IPC_LOCK and nothing else
    python -I -c '<this file>' quiet  the same without what comes last here
    python -I keeper.py canary        that alone

Guests of one image share its files' pages. Whoever drops a page and whoever finds it missing have an exact channel;
a mapped page can't be dropped, and a locked one can't be reclaimed. So this maps each file with its pages present and
locks it where it may. It also holds each folder open: a guest that looks up a cold name counts the blocks it read.

Says one line of JSON: {"files", "bytes", "resident", "locked", "missed", "overcommits"}, and stays until its stdin
ends. Whoever reads decides what they are worth.

While it stays it is a canary: it wants a core for a moment each second, and says how much of one it got. Where it gets
little, so do the guests beside it: that is how the host knows that the machine was too busy for a training, without
asking the training. A moment is longer than a turn of the scheduler, else it would be granted at once on any load.

Not covered: blocks of the file system's own tables, where the kernel reclaims them under pressure.
"""

import ctypes
import json
import os
import select
import stat
import sys
import time

PROT_READ, PROT_WRITE = 1, 2
MAP_SHARED, MAP_PRIVATE, MAP_ANONYMOUS, MAP_NORESERVE, MAP_POPULATE = 1, 2, 0x20, 0x4000, 0x8000
MORE_THAN_ANY_MACHINE_HAS = 1 << 45
FAILED = ctypes.c_void_p(-1).value
ELSEWHERE = ("/proc", "/sys", "/dev")  # each container's own
PAGE = os.sysconf("SC_PAGE_SIZE")
MOMENT, REST = 0.02, 0.98  # seconds: of CPU that the canary wants, and in between

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
libc.mlock.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p]


class Keeper:
    def __init__(self):
        self.maps = {}  # (device, inode) -> (address, length, locked)
        self.folders = {}  # (device, inode) -> descriptor
        self.missed = []

    def walk(self):
        """Bring all that there is into memory, and hold it."""
        for place, folders, files in os.walk("/", onerror=lambda error: self.missed.append(str(error.filename))):
            if place == "/":
                folders[:] = [name for name in folders if f"/{name}" not in ELSEWHERE]
            self.hold_folder(place)
            for name in sorted(files):
                self.hold_file(os.path.join(place, name))

    def hold_folder(self, place):
        facts = os.lstat(place)
        key = facts.st_dev, facts.st_ino
        if key not in self.folders and stat.S_ISDIR(facts.st_mode):
            try:
                self.folders[key] = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except OSError:
                self.missed.append(place)

    def hold_file(self, path):
        facts = os.lstat(path)
        key = facts.st_dev, facts.st_ino
        if not stat.S_ISREG(facts.st_mode) or not facts.st_size or key in self.maps:
            return
        try:
            file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            self.missed.append(path)
            return
        try:
            start = libc.mmap(None, facts.st_size, PROT_READ, MAP_SHARED | MAP_POPULATE, file, 0)
        finally:
            os.close(file)
        if start is None or start == FAILED:
            self.missed.append(path)
            return
        self.maps[key] = start, facts.st_size, libc.mlock(start, facts.st_size) == 0

    def resident(self):
        """How many bytes are in memory now, counted in whole pages."""
        pages = 0
        for start, size, _ in self.maps.values():
            known = ctypes.create_string_buffer(-(-size // PAGE))
            if libc.mincore(start, size, known) == 0:
                pages += sum(byte & 1 for byte in known.raw)
        return pages * PAGE

    def report(self):
        whole = sum(-(-size // PAGE) * PAGE for _, size, _ in self.maps.values())
        return {
            "files": len(self.maps),
            "bytes": whole,
            "resident": self.resident(),
            "locked": all(locked for _, _, locked in self.maps.values()),
            "missed": len(self.missed),
            "overcommits": overcommits(),
        }


def overcommits():
    """Whether this kernel promises more memory than there is. Tried, not read from /proc: that is hidden here."""
    kind = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE
    start = libc.mmap(None, MORE_THAN_ANY_MACHINE_HAS, PROT_READ | PROT_WRITE, kind, -1, 0)
    if start is None or start == FAILED:
        return False
    libc.munmap(start, MORE_THAN_ANY_MACHINE_HAS)
    return True


def sing():
    """One line a moment: CPU seconds that it got, and seconds that they took, both since it began."""
    got = took = 0.0
    while True:
        began, before = time.monotonic(), time.thread_time()
        while time.thread_time() - before < MOMENT:
            pass
        got += time.thread_time() - before
        took += time.monotonic() - began
        print(f"{got:.4f} {took:.4f}", flush=True)
        if select.select([sys.stdin], [], [], REST)[0]:
            return


def main():
    if sys.argv[1:] != ["canary"]:
        keeper = Keeper()
        keeper.walk()
        print(json.dumps(keeper.report()), flush=True)
    if sys.argv[1:] == ["quiet"]:
        sys.stdin.read()
    else:
        sing()


if __name__ == "__main__":
    main()
