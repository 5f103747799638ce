"""What two guests on one machine can tell each other: every way without timing, with its defences off and on, and the
bits a second that are left, timing included.

    python benchmarks/channels.py [--print]

Writes the section `channels` of docs/benchmarks.md. Needs the images and a quiet machine. What was measured is kept in
.cache/benchmarks/channels.jsonl with the hash of the code in question, so that a run that was cut off goes on.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent / "tests")]

import page  # noqa: E402
from bare import copied_image  # noqa: E402

from bellglass.doors.docker import image  # noqa: E402
from bellglass.doors.docker.channels import host  # noqa: E402
from bellglass.doors.docker.channels.bare import a_uid, defended, undefended  # noqa: E402
from bellglass.doors.docker.channels.host import CHANNELS, Channel, Heard, Order, random_bits  # noqa: E402
from bellglass.doors.docker.channels.meeting import BareContainers, RealGuests, files_of_both  # noqa: E402
from bellglass.doors.docker.engine import Engine  # noqa: E402
from bellglass.doors.docker.glass import DockerGlass  # noqa: E402
from bellglass.records import Role  # noqa: E402

RESULTS = page.ROOT / ".cache" / "benchmarks" / "channels.jsonl"
REAL = {
    "judge's two": (Role.PREDICT, Role.PREDICT),
    "trainer to judge": (Role.TRAIN, Role.PREDICT),
    "judge to improver": (Role.PREDICT, Role.IMPROVE),
    "trainer to improver": (Role.TRAIN, Role.IMPROVE),
}
TIMED = {"cores": "work or rest on the cores", "memory": "copy or rest in memory"}
SLOTS, SLOT_SECONDS = 300, (0.1, 0.03, 0.01)
REFUSED = "refused"


class Book:
    """What was measured before by the same code."""

    def __init__(self) -> None:
        folder = page.ROOT / "bellglass" / "doors" / "docker"
        texts = [path.read_bytes() for path in sorted([*folder.rglob("*.py"), *(page.ROOT / "sandbox").glob("*")])]
        self._code = hashlib.sha256(b"".join(texts)).hexdigest()[:16]
        lines = RESULTS.read_text().splitlines() if RESULTS.exists() else []
        self._known = {entry["key"]: entry["words"] for entry in map(json.loads, lines) if entry["code"] == self._code}

    def get(self, key: str) -> str:
        return self._known.get(key, "")

    def once(self, key: str, measure: Callable[[], str]) -> str:
        if key not in self._known:
            self._known[key] = measure()
            RESULTS.parent.mkdir(parents=True, exist_ok=True)
            with RESULTS.open("a") as file:
                file.write(json.dumps({"key": key, "words": self._known[key], "code": self._code}) + "\n")
            print(f"{key}: {self._known[key]}", file=sys.stderr)
        return self._known[key]


def count(channel: Channel) -> int:
    return host.FEW if channel.is_row else 50 if channel.width == 1 else host.SHORT


def told(heard: Heard, seconds: float) -> str:
    if heard.refused:
        return REFUSED
    right = f"{heard.right} of {len(heard.sent)}"
    left = information(1 - heard.right / len(heard.sent)) * len(heard.sent) / seconds
    return f"{right}, {left:.1f} bit/s" if heard.right >= 0.75 * len(heard.sent) else right


def information(wrong: float) -> float:
    """Of one bit that arrives wrong so often, in bits."""
    inner = sum(-share * math.log2(share) for share in (wrong, 1 - wrong) if share > 0)
    return max(0.0, 1 - inner)


def exact(book: Book, meeting: BareContainers | RealGuests, name: str) -> None:
    """Every way without timing between these two, once."""

    def one(channel: Channel, order: Order, send: Callable[[Channel, str], Heard]) -> None:
        def measured() -> str:
            began = time.monotonic()
            return told(send(channel, random_bits(count(channel))), time.monotonic() - began)

        book.once(f"{name}: {channel}, {order}", measured)

    with host.beside(meeting) as pair:
        for channel in ways("beside"):
            one(channel, "beside", pair.send)
    for channel in ways("after"):
        if book.get(f"{name}: {channel}, beside") != REFUSED:  # then it is refused here, too
            one(channel, "after", lambda channel, bits: host.after(meeting, channel, bits))


def ways(order: Order) -> list[Channel]:
    return [each for each in CHANNELS.values() if order in each.orders]


def timed(meeting: RealGuests, how: str) -> str:
    """The best of several lengths of a slot: the first half of the bits is known to the receiver, the rest is read."""
    best = (0.0, 0.0, 0.0)
    with meeting.sender() as tell, meeting.receiver() as ask, ThreadPoolExecutor(1) as pool:
        for slot in SLOT_SECONDS:
            bits = random_bits(SLOTS)
            when = {"how": how, "start": tell({"do": "now"})["now"] + 1.0, "slot": slot}
            sent = pool.submit(tell, {"do": "pulse", "bits": bits, **when})
            levels = ask({"do": "listen", "count": SLOTS, **when})["levels"]
            sent.result()
            wrong = wrong_share(bits, levels)
            best = max(best, (information(wrong) / slot, slot, wrong))
    rate, slot, wrong = best
    return f"{rate:.1f} bit/s ({1000 * slot:.0f} ms a bit, {wrong:.0%} wrong)" if rate else "0 bit/s"


def wrong_share(bits: str, levels: list[int]) -> float:
    """By the threshold and the direction that are best for the first half, over the second half."""
    half = len(bits) // 2

    def errors(limit: float, lower: bool, part: slice) -> float:
        """`lower`: a one makes the level fall."""
        wrong = [
            ((level < limit) == lower) != (bit == "1") for bit, level in zip(bits[part], levels[part], strict=True)
        ]
        return sum(wrong) / len(wrong)

    _, limit, lower = min(
        (errors(limit, lower, slice(0, half)), limit, lower) for limit in sorted(set(levels)) for lower in (True, False)
    )
    return min(0.5, errors(limit, lower, slice(half, None)))


def measure(book: Book) -> None:
    engine = Engine.connect()
    with copied_image(engine) as copy:
        either = undefended(copy, a_uid())
        exact(book, BareContainers(engine, either, either), "off")
    glass = DockerGlass(engine, warm=False, prove=False)
    try:
        for name, roles in REAL.items():
            one, other = (defended(image.find(engine, role), role, a_uid()) for role in roles)
            meeting = RealGuests(glass, *roles, files_of_both(engine, one, other))
            exact(book, meeting, name)
            for how in TIMED:
                book.once(f"{name}: {how}", lambda meeting=meeting, how=how: timed(meeting, how))
    finally:
        glass.close()


def rows(book: Book) -> Iterator[list[str]]:
    for order, words in (("after", "one after the other"), ("beside", "both alive")):
        for channel in ways(order):
            keys = [f"{name}: {channel}, {order}" for name in ("off", *REAL)]
            yield [channel.name, words, *(book.get(key) or REFUSED for key in keys)]
    for how, words in TIMED.items():
        yield [f"timing: {words}", "both alive", "", *(book.get(f"{name}: {how}") for name in REAL)]


WORDS = (
    "Random bits that arrived right: half of them by guessing. *Off*: bare containers with one uid, every system call, "
    "nothing masked and no keeper. The other columns: real guests whose bundle is the attack. A rate is what the bits "
    "were worth, by their share of errors, over the time that they took, the turns that the host gives included; of a "
    "row of numbers only a few bits were sent, since a step takes seconds. Refused: the glass did not let the sender "
    "send or the receiver look. Timing (which "
    "carries most where the machine is idle otherwise) can't be closed: the two guests that judge one trial never "
    "have bundle code at the same time. Not covered: gVisor, GPUs, other kernels and storage drivers; there "
    "`bellglass doctor` sends the bits."
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--print", action="store_true")
    chosen = parser.parse_args()
    book, load = Book(), os.getloadavg()[0]
    measure(book)
    table = page.table(["way", "guests", "off", *REAL], list(rows(book)))
    made = f"Machine: {page.machine()}; load average {load:.0f}. Command: `python benchmarks/channels.py`."
    text = f"{made} {WORDS}\n\n{table}"
    if chosen.print:
        print(text)
    else:
        page.put(page.BENCHMARKS, "channels", text)


if __name__ == "__main__":
    main()
