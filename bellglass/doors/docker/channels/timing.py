"""Probes that need a clock, which all guests of a machine have in common: what one does slows the other.

Runs in a guest.

Time is cut into slots. The sender works in the slots of the ones and rests in the others; the receiver counts how often
it gets through the same work in each slot.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable

BLOCK, BUFFER_BYTES = bytes(64 << 10), 8 << 20


def hashing() -> None:
    hashlib.sha256(BLOCK).digest()


def copying() -> Callable[[], None]:
    source, target = bytearray(b"x") * BUFFER_BYTES, bytearray(BUFFER_BYTES)

    def copy() -> None:
        target[:] = source

    return copy


def work_of(how: str) -> Callable[[], None]:
    return {"cores": lambda: hashing, "memory": copying}[how]()


def pulse(how: str, bits: str, start: float, slot: float) -> None:
    """Two threads, since a machine with two cores has room for one beside another."""
    side_by_side(lambda: beat(work_of(how), bits, start, slot))


def beat(work: Callable[[], None], bits: str, start: float, slot: float) -> None:
    for number, bit in enumerate(bits):
        end = start + (number + 1) * slot
        while bit == "1" and time.monotonic() < end:
            work()
        time.sleep(max(0.0, end - time.monotonic()))


def listen(how: str, count: int, start: float, slot: float) -> list[int]:
    levels = [0] * count

    def count_work() -> None:
        work = work_of(how)
        time.sleep(max(0.0, start - time.monotonic()))
        while (number := int((time.monotonic() - start) / slot)) < count:
            work()
            levels[number] += 1

    side_by_side(count_work)
    return levels


def side_by_side(act: Callable[[], None]) -> None:
    threads = [threading.Thread(target=act) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
