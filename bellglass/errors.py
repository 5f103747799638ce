"""Every error bellglass raises on purpose.

    BellglassError          1   something failed
    ├── UsageError          2   the request itself is wrong (unknown task, broken config, bad flag)
    ├── SetupError          3   the machine lacks something (Docker, image, disk, key, Python)
    ├── BoundReached        4   a bound of the loop is used up; nothing was spent beyond it
    ├── ReviewPending       5   a person must decide first
    ├── TripwireFired       6   a tripwire halted the loop; a person must look
    ├── Interrupted       130   a person asked it to stop; everything done is kept, `resume` goes on
    ├── LoopFault           1   a loop's folder cannot be used (owned, damaged, newer, missing)
    ├── GuestFault          1   a guest misbehaved; becomes an event, never a crash of the driver
    │   └── MalformedFrame      it broke the wire's grammar
    └── ModelFault          1   a model call failed; `code` is one of MODEL_FAULTS

Numbers are exit codes. A message names the thing, what was found, what was needed, and the next command; `code` names
the kind of problem in one stable word, for scripts and tests (error_codes.py has them all).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from bellglass.records import Cost, GuestExit


class BellglassError(Exception):
    exit_code = 1

    def __init__(self, thing: str, found: str = "", needed: str = "", next_command: str = "", *, code: str) -> None:
        self.thing, self.found, self.needed, self.next_command, self.code = thing, found, needed, next_command, code
        super().__init__(self.one_line())

    def one_line(self) -> str:
        return self.said() + (f"; next: {self.next_command}" if self.next_command else "")

    def said(self) -> str:
        """The same without what to type next."""
        parts = [self.thing]
        if self.found:
            parts.append(f"found: {self.found}")
        if self.needed:
            parts.append(f"needed: {self.needed}")
        return "; ".join(parts)


class UsageError(BellglassError):
    exit_code = 2


class SetupError(BellglassError):
    exit_code = 3


class _OneMeaning(BellglassError):
    """The class says it all."""

    meaning: ClassVar[str]

    def __init__(self, thing: str, found: str = "", needed: str = "", next_command: str = "") -> None:
        super().__init__(thing, found, needed, next_command, code=self.meaning)


class BoundReached(_OneMeaning):
    """A bound of the loop is used up; nothing was spent beyond it."""

    exit_code, meaning = 4, "bound_reached"


class ReviewPending(_OneMeaning):
    """A person must decide first."""

    exit_code, meaning = 5, "review_pending"


class TripwireFired(_OneMeaning):
    """A tripwire halted the loop; a person must look."""

    exit_code, meaning = 6, "tripwire_fired"


class Interrupted(_OneMeaning):
    """A person asked it to stop; everything done is kept."""

    exit_code, meaning = 130, "interrupted"


ONE_MEANING = (BoundReached, ReviewPending, TripwireFired, Interrupted)


class LoopFault(BellglassError):
    pass


class GuestFault(BellglassError):
    """`code` is one of records.GUEST_FAULTS: fixed words, safe to show to an improver. `exit`: how the guest ended,
    where that is known. `ready` is False where it fell before it was given a bundle."""

    ready = True

    def __init__(self, code: str, detail: str = "", exit: GuestExit | None = None) -> None:
        self.detail, self.exit = detail, exit
        super().__init__(f"guest fault {code!r}", found=detail, code=code)


class MalformedFrame(GuestFault):
    def __init__(self, detail: str) -> None:
        super().__init__("malformed", detail)


MODEL_FAULTS = {  # code -> what is needed
    "refused_key": "a key that the provider accepts",
    "unknown_model": "a model that this provider serves",
    "context_overflow": "a shorter conversation, or a model with a longer context",
    "bad_request": "a conversation that the provider and its client library take",
    "rate_limited": "patience, or a larger quota",
    "unreachable": "a server that answers",
    "server": "a provider in good health",
    "unparsable": "a reply that can be read",
}


class ModelFault(BellglassError):
    """`billed` says that the provider may have charged although no usable reply came back; `cost` is how much, None
    when nobody knows (the caller then charges what it reserved)."""

    def __init__(self, code: str, detail: str = "", *, billed: bool = False, cost: Cost | None = None) -> None:
        assert code in MODEL_FAULTS, code
        self.detail, self.billed, self.cost = detail, billed, cost
        super().__init__(f"model call failed ({code})", found=detail, needed=MODEL_FAULTS[code], code=code)
