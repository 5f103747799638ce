"""What a person decides, from the console or the page: a review, or re-arming a tripwire.

With an owner at work the decision goes into its inbox; without one, this process takes the lock and writes the event.
Either way it is checked against the state as it is then, so that of two people who decide at once the second is told.

Not covered: who the person is. Their name is the system's name for this process.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bellglass.errors import LoopFault, UsageError
from bellglass.paths import typed, user_name
from bellglass.records import Json
from bellglass.review import Answer, Choice, Evidence, decision_event, gather, pending
from bellglass.store.ledger import Ledger, require_ours
from bellglass.store.lineage import Lineage
from bellglass.store.state import State, fold, state_of

LOCK_SECONDS = 0.5  # longer than another person's command holds the lock, shorter than a loop does
TAKEN_SECONDS = 3.0  # how long an answer waits for the loop to take the request
POLL_SECONDS = 0.05

Body = dict[str, Json]


@dataclass(frozen=True, slots=True)
class Delivered:
    taken: bool  # False: it lies in the inbox, and the loop takes it at its next step
    line: str


def waiting(folder: Path) -> tuple[State, Evidence | None]:
    """The loop's state, and what waits for a person, if something does."""
    state = state_of(folder)
    number = pending(state)
    if number is None:
        return state, None
    return state, gather(state, number, Lineage.open(folder / "lineage.git"))


def decide(folder: Path, number: int, decision: str, reason: str, evidence_hash: str) -> Delivered:
    answer = Answer(_word(decision), reason, user_name())
    done = _deliver(
        folder, "review", "review.decided", lambda state: decision_event(state, number, answer, evidence_hash)
    )
    said = f"{decision} for generation {number}"
    if done:
        return Delivered(True, f"recorded: {said}")
    return Delivered(False, f"handed in: {said}; the loop takes it at its next step")


def rearm(folder: Path, name: str, reason: str, seen: str | None = None) -> Delivered:
    """`seen`: the sentences of its alarms as a person was shown them; others have come since, and it is refused."""
    if not reason.strip():
        raise UsageError(
            "re-arming", "no --reason", "why it is safe to go on", "the same with --reason '...'", code="reason_missing"
        )
    body = {"name": name, "who": user_name(), "reason": reason.strip()}

    def checked(state: State) -> Body:
        _require_latched(folder, state, name)
        if seen is not None and seen != _sentences(state, name):
            raise UsageError(
                f"tripwire {name!r}",
                "another alarm than the one shown",
                "a look at it",
                "look again",
                code="evidence_changed",
            )
        return body

    if _deliver(folder, "rearm", "tripwire.rearmed", checked):
        return Delivered(True, f"re-armed {name}; bellglass resume {typed(folder)} goes on")
    return Delivered(False, f"handed in: re-arm {name}; bellglass resume {typed(folder)} takes it and goes on")


def _sentences(state: State, name: str) -> str:
    return "\n".join(str(wire["sentence"]) for wire in state.tripwires if wire["name"] == name)


def _word(decision: str) -> Choice:
    return decision  # type: ignore[return-value]  # decision_event checks it, against the state


def _require_latched(folder: Path, state: State, name: str) -> None:
    names = {wire["name"] for wire in state.tripwires}
    if name not in names:
        found = f"latched: {', '.join(sorted(names)) or 'none'}"
        raise UsageError(
            f"tripwire {name!r}",
            found,
            "a latched tripwire",
            f"bellglass review {typed(folder)}",
            code="tripwire_not_latched",
        )


def _deliver(folder: Path, request: str, kind: str, body_for: Callable[[State], Body]) -> bool:
    """False: it was handed in, and not taken yet. UsageError: somebody else's decision came first."""
    try:
        owned = Ledger.open(folder, write=True, wait_seconds=LOCK_SECONDS)
    except LoopFault as fault:
        if fault.code == "loop_received":
            raise
        return _hand_in(folder, request, body_for)
    with owned:
        owned.append(kind, body_for(fold(owned.events())))
    return True


def _hand_in(folder: Path, request: str, body_for: Callable[[State], Body]) -> bool:
    with Ledger.open(folder) as ledger:
        require_ours(folder, ledger.standing())  # whoever holds the lock of a received loop is nobody to decide for
        state = fold(ledger.events())
        body = body_for(state)
        for other in ledger.pending():
            if other.kind == request and _same_matter(other.body, body):
                who, what = other.body.get("who"), other.body.get("decision", request)
                raise UsageError(
                    "the decision",
                    f"{who} handed in {what!r} just before",
                    "nothing more",
                    "bellglass status",
                    code="already_decided",
                )
        seq = ledger.last_seq
        number = ledger.post(request, body)
        deadline = time.monotonic() + TAKEN_SECONDS
        while any(waits.id == number for waits in ledger.pending()):
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_SECONDS)
        for event in ledger.events(after=seq):
            if event.kind == "request.refused" and event.body.get("request") == body:
                raise UsageError(
                    "the decision",
                    str(event.body.get("why")),
                    "a pending review",
                    "bellglass status",
                    code="decision_refused",
                )
    return True


def _same_matter(one: Body, other: Body) -> bool:
    return all(one.get(key) == other.get(key) for key in ("generation", "name"))
