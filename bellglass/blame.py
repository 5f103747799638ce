"""Whose fault it is that a trial failed: its bundle's, this machine's, or nobody can say. Pure.

A decision rests on what the successor did, so a guest that fell because the machine was busy, or because somebody
stopped it, says nothing about its bundle. Who is to blame follows from what the host measured (`Seen`) and never from
what a guest says: else a bundle could buy itself a second draw. `TABLE` is the whole rule; its first row that fits
answers.

Not covered: what a machine does to a guest without slowing it down or ending it (a bit that flips). And a bundle that
slows this machine from inside its limits: it is then run again, which the ledger counts for each side.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Owner = Literal["bundle", "machine", "unknown"]

BY_ANYBODY = ("timeout", "lost", "stalled", "crashed")  # faults that a machine can make; all others are the bundle's
LATE_SECONDS = 5.0  # that this driver did not run: half of a guest's lease
STARVED = 0.1  # of a core: where a process that wants one gets less, beats and answers come too late
MARGIN = 4.0  # a guest that could have had so many times what it needed was given enough; it waits for the host, too


@dataclass(frozen=True, slots=True)
class Seen:
    """What the host measured while a guest lived."""

    fault: str
    ready: bool = True  # only then it was given the bundle
    used: float = 0.0  # CPU seconds
    needed: float = 0.0  # CPU seconds that it was to get; 0: it was to get none in particular
    wall: float = 0.0  # seconds that it had for them
    share: float | None = None  # of a core, that a process of ours got while it wanted one; None: not measured
    late: float = 0.0  # seconds: the longest that this driver did not run
    full: bool = False  # the disk that guests work on, at some moment
    engine: str = ""  # why the engine did not answer
    meddled: str = ""  # what another client of the engine did to the guest
    machine_memory: bool = False  # the kernel killed a process of it, below its own limit
    signal: int = 0  # that ended its first process, which bundle code can't reach, and that nobody here sent

    @property
    def starved(self) -> bool:
        """Whether a process that wanted a core all the time would have got too little, too."""
        if self.share is None:
            return False
        return self.share < STARVED or (self.fault == "timeout" and self.share * self.wall < MARGIN * self.needed)

    @property
    def shortage(self) -> str:
        if self.needed:
            return f"the guest got {self.used:.1f} of its {self.needed:g} CPU-seconds in {self.wall:.0f} s"
        return f"a process that wanted a core got {100 * (self.share or 0.0):.0f}% of one"


@dataclass(frozen=True, slots=True)
class Row:
    owner: Owner
    when: Callable[[Seen], bool]
    sentence: str  # formatted with what was seen


NOBODY_KNOWS = "{seen.fault}, and nothing here says why"
TABLE: tuple[Row, ...] = (
    Row("machine", lambda seen: not seen.ready, "a guest was not ready: {seen.fault}"),
    Row("bundle", lambda seen: seen.fault not in BY_ANYBODY, "{seen.fault}"),  # also where it chokes the engine
    Row("machine", lambda seen: bool(seen.engine), "the engine did not answer: {seen.engine}"),
    Row(
        "machine", lambda seen: bool(seen.meddled), "another client of the engine did this to the guest: {seen.meddled}"
    ),
    Row("machine", lambda seen: seen.machine_memory, "this machine ran out of memory, and the kernel ended the guest"),
    Row("machine", lambda seen: seen.signal != 0, "the guest was ended from outside, by signal {seen.signal}"),
    Row("machine", lambda seen: seen.full, "the disk that guests work on was full"),
    Row("bundle", lambda seen: seen.fault == "crashed", "its code ended"),
    Row("machine", lambda seen: seen.late > LATE_SECONDS, "this driver stood still for {seen.late:.0f} s"),
    Row("machine", lambda seen: seen.starved, "this machine is too busy: {seen.shortage}"),
    Row("unknown", lambda seen: seen.share is None, NOBODY_KNOWS),
    Row("bundle", lambda seen: seen.fault in ("timeout", "stalled"), "{seen.fault} on a machine that was free"),
    Row("unknown", lambda seen: True, NOBODY_KNOWS),
)


def blame(seen: Seen) -> tuple[Owner, str]:
    """Who is to blame, and one plain sentence."""
    row = next(row for row in TABLE if row.when(seen))
    return row.owner, row.sentence.format(seen=seen)
