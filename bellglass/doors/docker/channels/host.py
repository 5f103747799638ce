"""Sends random bits from one guest to another, over every way between them that we know, and counts what arrives.

Both guests are containers with the profile of real ones, whose program is ours. A channel without timing is closed when
about half of the bits arrive right: as many as by guessing.

Not covered: ways that are not in the table, and those of timing, which `benchmarks/channels.py` measures.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol

Order = Literal["after", "beside"]  # the sender has ended before the receiver starts; both live


Ask = Callable[[dict[str, Any]], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Channel:
    """One way between two guests: what the sender does, where the receiver looks, how many bits go at once."""

    name: str
    send: str
    read: str
    width: int
    orders: tuple[Order, ...]
    closed_by: str

    def __str__(self) -> str:
        return self.name

    @property
    def is_row(self) -> bool:
        return self.width == A_STEP


@dataclass(frozen=True, slots=True)
class Heard:
    """What arrived of the bits. `refused` is what the glass said no to, when it did."""

    sent: str
    received: str
    refused: str = ""

    @property
    def right(self) -> int:
        return sum(a == b for a, b in zip(self.sent, self.received, strict=True))

    @property
    def by_chance(self) -> bool:
        """Whether no more and no fewer came right than by guessing."""
        if self.refused:
            return True
        least, most = BY_CHANCE[len(self.sent)]
        return least <= self.right <= most


PAGES, LIVE, A_STEP = 1000, 200, 4
BOTH: tuple[Order, ...] = ("after", "beside")
KEEPER, LIST, UID, MASK, LANDLOCK = "keeper", "system calls", "uid", "mask", "Landlock"
CHANNELS = {
    each.name: each
    for each in (
        Channel("dropped pages, major faults", "drop", "major faults", PAGES, BOTH, KEEPER),
        Channel("dropped pages, blocks read", "drop", "blocks read", PAGES, BOTH, KEEPER),
        Channel("dropped pages, nowait", "drop", "nowait", PAGES, BOTH, KEEPER),
        Channel("dropped pages, mincore", "drop", "mincore", PAGES, BOTH, LIST),
        Channel("dropped pages, cachestat", "drop", "cachestat", PAGES, BOTH, LIST),
        Channel("crowded pages, major faults", "pressure", "major faults", LIVE, BOTH, KEEPER),
        Channel("paged out, major faults", "pageout", "major faults", PAGES, BOTH, KEEPER),
        Channel("mapped pages, smaps", "map", "pss", LIVE, ("beside",), LANDLOCK),
        Channel("mapped pages, numa_maps", "map", "mapmax", LIVE, ("beside",), LANDLOCK),
        Channel("mapped pages, pagemap", "map", "exclusive", LIVE, ("beside",), LANDLOCK),
        Channel("waiters on a page", "waiters", "waiters", 16, ("beside",), LIST),
        Channel("flock on the image", "flock", "flock", LIVE, ("beside",), LIST),
        Channel("lock on the image", "lock", "lock", LIVE, ("beside",), LIST),
        Channel("watch on the image", "open", "watch", LIVE, ("beside",), LIST),
        Channel("queued signals, status", "signals", "queued signals", 1, ("beside",), UID),
        Channel("queued signals, limit", "signals", "signal limit", 1, ("beside",), UID),
        Channel("pages in pipes", "pipes", "pipe size", 1, ("beside",), UID),
        Channel("descriptors under way", "flights", "flights", 1, ("beside",), UID),
        Channel("processes of a uid", "few forks", "fork limit", 1, ("beside",), UID),
        Channel("inotify instances", "watches", "watch limit", 1, ("beside",), UID),
        Channel("links of /proc", "forks", "processes linked", 1, ("beside",), LIST),
        Channel("processes in sysinfo", "forks", "processes told", 1, ("beside",), LIST),
        Channel("open files of the machine", "pipes", "open files", 1, ("beside",), MASK),
        Channel("numbers of eventfds", "events", "event number", 1, ("beside",), LANDLOCK),
        Channel("row of pipes", "row of pipe", "row of pipe", A_STEP, BOTH, LIST),
        Channel("row of memfds", "row of memfd", "row of memfd", A_STEP, BOTH, LIST),
        Channel("row of huge pages", "row of huge page", "row of huge page", A_STEP, BOTH, LIST),
        Channel("row of cookies", "row of cookie", "row of cookie", A_STEP, BOTH, LIST),
        Channel("row of processes", "row of process", "row of process", A_STEP, BOTH, LIST),
        Channel("row of renames", "row of rename", "row of rename", A_STEP, BOTH, LIST),
    )
}


# How many of so many random bits may arrive right by guessing; a first try outside is followed by a longer one.
# A row of numbers carries a few bits a guest and takes seconds for each, so there all of a few have to be right.
BY_CHANCE = {8: (0, 7), 24: (0, 23), 200: (70, 130), 1000: (450, 550), 4000: (1880, 2120)}
FEW, SOME, SHORT, LONG, LONGER = BY_CHANCE


class Pair:
    """Two living guests, and a word after the other from one to the other."""

    def __init__(self, tell: Ask, ask: Ask, files: int) -> None:
        self._tell, self._ask, self._files = tell, ask, files

    def send(self, channel: Channel, bits: str) -> Heard:
        received = ""
        for word in _words(channel, bits, self._files):
            answer = self._word(channel, word)
            if "refused" in answer and not received:
                return _unheard(bits, answer["refused"])
            if "refused" in answer:  # only after a while: what came before counts, and the rest is guessed
                return Heard(bits, received + random_bits(len(bits) - len(received)))
            received += answer["bits"]
        self._tell({"do": "clear"})
        return Heard(bits, received)

    def _word(self, channel: Channel, word: str) -> dict[str, Any]:
        read = {"how": channel.read, "count": len(word)}
        return _one_after_another(
            lambda: self._tell({"do": "clear"}),
            lambda: self._ask({"do": "mark", **read}),
            lambda: self._tell({"do": "send", "how": channel.send, "bits": word}),
            lambda: self._ask({"do": "read", **read}),
        )


class Meeting(Protocol):
    """How to open the sender and the receiver: containers of a profile, or real guests of a glass."""

    @property
    def files(self) -> list[str]:
        """Of the image, that both have."""

    def sender(self) -> contextlib.AbstractContextManager[Ask]: ...

    def receiver(self) -> contextlib.AbstractContextManager[Ask]: ...


@contextlib.contextmanager
def beside(meeting: Meeting) -> Iterator[Pair]:
    with meeting.sender() as tell, meeting.receiver() as ask:
        yield Pair(tell, ask, len(meeting.files))


def after(meeting: Meeting, channel: Channel, bits: str) -> Heard:
    """As between two guests of which the first has ended before the second starts; a new two for every word."""
    received = ""
    for word in _words(channel, bits, len(meeting.files)):
        with meeting.sender() as tell:
            answer = tell({"do": "send", "how": channel.send, "bits": word})
        if "refused" not in answer:
            with meeting.receiver() as ask:
                answer = ask({"do": "read", "how": channel.read, "count": len(word)})
        if "refused" in answer:
            return _unheard(bits, answer["refused"])
        received += answer["bits"]
    return Heard(bits, received)


def random_bits(count: int) -> str:
    return format(secrets.randbits(count), f"0{count}b")


def _words(channel: Channel, bits: str, files: int) -> Iterator[str]:
    width = channel.width if channel.width < LIVE else max(1, min(channel.width, files))
    for at in range(0, len(bits), width):
        yield bits[at : at + width]


def _unheard(bits: str, refused: str) -> Heard:
    return Heard(bits, "0" * len(bits), refused)


def _one_after_another(*orders: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The last one's answer, or the first refusal."""
    answer: dict[str, Any] = {}
    for order in orders:
        answer = order()
        if "refused" in answer:
            break
    return answer
