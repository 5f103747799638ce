"""What all probes share, inside a guest: the C library, what is held until the next word, files of the image."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import stat
from collections.abc import Callable, Iterator
from typing import Any

PAGE = 4096
MANY, TOO_MANY = 8 * PAGE, 64 * PAGE  # bytes of a file

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p]
files: list[str] = []  # of the image, one a bit; the host names those that both guests have
held: list[Callable[[], None]] = []  # how to undo what the last word did
marks: dict[str, Any] = {}


def done(answer: int) -> int:
    """What a call of libc answered, or its error."""
    if answer == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return answer


def clear() -> None:
    while held:
        held.pop()()


def hold(descriptor: int) -> int:
    held.append(lambda: os.close(descriptor))
    return descriptor


@contextlib.contextmanager
def opened(path: str) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def image_files() -> list[str]:
    """Files of the image that no program maps and no start of Python reads, so that nobody disturbs their pages.

    Those of several pages come first: the more pages, the finer is what the kernel tells of who maps them.
    """
    found = {}
    for top in ("/opt/glass/lib", "/usr/lib", "/usr/share", "/usr/include"):
        for folder, folders, names in os.walk(top):
            folders.sort()
            for path in (os.path.join(folder, name) for name in sorted(names)):
                facts = os.lstat(path)
                plain = (
                    stat.S_ISREG(facts.st_mode) and not path.endswith((".pyc", ".pth", ".cfg")) and ".so" not in path
                )
                if plain and facts.st_size and facts.st_mode & 0o004 and not facts.st_mode & 0o001:
                    found[path] = MANY <= facts.st_size <= TOO_MANY
    return sorted(found, key=lambda path: not found[path])


def place(path: str, size: int = PAGE, *, private: bool = False) -> int:
    """The address of a file's first pages."""
    with opened(path) as descriptor:
        kind = mmap.MAP_PRIVATE if private else mmap.MAP_SHARED
        address = libc.mmap(None, size, mmap.PROT_READ, kind, descriptor, 0)
    if address in (None, ctypes.c_void_p(-1).value):
        done(-1)
    return int(address)


def touch(address: int) -> bytes:
    return ctypes.string_at(address, 1)


def one(bits: str) -> bool:
    return bits == "1"


def nothing(count: int) -> None:
    pass


Send = Callable[[str], None]
Ear = tuple[Callable[[int], None], Callable[[int], str]]  # mark, and read
