"""Read SQLite's write-ahead log as bytes, beside an owner who writes it.

A log begins with a header of two random numbers, and every page in it repeats them; an owner who starts the log over
draws new ones. So as long as its header stays the same, nothing that was read of it has been replaced. Each page
carries a sum over all before it, so that one which is half written ends what can be read. The format is SQLite's:
https://sqlite.org/fileformat2.html, section 4.

Not covered: who wrote it.
"""

from __future__ import annotations

import functools
import os
import struct
from pathlib import Path

import numpy as np

from bellglass.store.folder import GUARDED

HEADER_BYTES, FRAME_BYTES = 32, 24  # a frame is this and a page
MAGIC = {0x377F0682: "<u4", 0x377F0683: ">u4"}  # which also says how the sums read a page
VERSION = 3007000

Sums = tuple[int, int]


class WriteAhead:
    """The log as it was begun when this was made. Empty where there is no file, or one without a header."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handle: int | None = None
        try:
            self._handle = os.open(path, os.O_RDONLY | GUARDED)
            self.header = _whole(self._handle, HEADER_BYTES, 0)
        except FileNotFoundError:
            self.header = b""
        except BaseException:
            self.close()
            raise
        self.page_bytes = 0  # of a log that nothing can be read of
        self._order = ""
        self._sums: Sums = (0, 0)
        self._next = HEADER_BYTES  # where the first frame lies that was not read yet
        if self.header:
            self._begin()

    def _begin(self) -> None:
        magic, version, page_bytes, _, _, _, *stored = struct.unpack(">8I", self.header)
        order = MAGIC.get(magic, "")
        if not order or version != VERSION or page_bytes not in {1 << power for power in range(9, 17)}:
            return
        sums = summed(self.header[:24], order, (0, 0))
        if sums == tuple(stored):
            self.page_bytes, self._order, self._sums = page_bytes, order, sums

    @property
    def holds(self) -> bool:
        """Whether it still is what was begun then: neither started over nor gone."""
        try:
            there = os.stat(self._path, follow_symlinks=False)
        except FileNotFoundError:
            return not self.header
        if not self.header:
            return there.st_size < HEADER_BYTES
        assert self._handle is not None
        return os.path.samestat(there, os.fstat(self._handle)) and self.header == _whole(self._handle, HEADER_BYTES, 0)

    def committed(self, most_bytes: int) -> tuple[int, dict[int, int]]:
        """What was committed since this was last asked: how many pages the database has now (0: nothing was), and
        where in the log each page lies that changed. ValueError for more than `most_bytes` of them."""
        count, found, since = 0, dict[int, int](), dict[int, int]()
        at, sums = self._next, self._sums
        end = at + most_bytes
        while self.page_bytes and (frame := self._frame(at, sums)) is not None:
            number, size, sums = frame
            if at > end:
                raise ValueError(f"more than {most_bytes >> 20} MB in its write-ahead log")
            since[number] = at + FRAME_BYTES
            at += FRAME_BYTES + self.page_bytes
            if size:  # the last page of a transaction
                count, self._next, self._sums = size, at, sums
                found |= since
                since.clear()
        return count, found

    def page(self, at: int) -> bytes:
        """That page; nothing where the log was cut off meanwhile."""
        assert self._handle is not None
        return _whole(self._handle, self.page_bytes, at)

    def _frame(self, at: int, sums: Sums) -> tuple[int, int, Sums] | None:
        """(number of the page, pages of the database or 0, sums so far) of a frame that is whole."""
        assert self._handle is not None
        frame = _whole(self._handle, FRAME_BYTES + self.page_bytes, at)
        if not frame or frame[8:16] != self.header[16:24]:
            return None
        number, size, _, _, *stored = struct.unpack(">6I", frame[:FRAME_BYTES])
        sums = summed(frame[:8] + frame[FRAME_BYTES:], self._order, sums)
        return (number, size, sums) if number and sums == tuple(stored) else None

    def close(self) -> None:
        handle, self._handle = self._handle, None
        if handle is not None:
            os.close(handle)


def summed(data: bytes, order: str, sums: Sums) -> Sums:
    """The log's two sums, carried on over `data`.

    They are defined word by word: for each pair, s0 += word + s1 and s1 += word + s0. So each of them is the sum of the
    two before it and of a word, and a word counts at the end as often as Fibonacci's numbers say.
    """
    words = np.frombuffer(data, order).astype(np.uint32)
    first, second = _weights(len(words))
    all_words = np.concatenate([np.array(sums, np.uint32), words])
    return int(first @ all_words), int(second @ all_words)


@functools.cache
def _weights(words: int) -> tuple[np.ndarray, np.ndarray]:
    """How often each counts in either sum: the two sums before, then the words."""
    fibonacci = [0, 1]
    while len(fibonacci) < words + 2:
        fibonacci.append((fibonacci[-1] + fibonacci[-2]) & 0xFFFFFFFF)
    falling = fibonacci[::-1]  # F(n + 1), F(n), ... F(0)
    second = [falling[1], falling[0], *falling[1:-1]]
    first = [falling[2], falling[1], *falling[2:]]
    return np.array(first, np.uint32), np.array(second, np.uint32)


def _whole(handle: int, count: int, at: int) -> bytes:
    """So many bytes; none where there are fewer."""
    data = os.pread(handle, count, at)
    return data if len(data) == count else b""
