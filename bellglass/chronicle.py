"""Chronicle: what a ledger may tell once, and what only after something else.

The state is a fold, in which the last of two events wins (store/state.py): an outcome that is told again replaces the
first. A loop looks whether an outcome is there before it makes one, so where one comes twice, or before what leads to
it, somebody else wrote the ledger.

Not covered: whether what was cut off and run again was no worse than what came of it. Its name fixes seeds and
documents, but not what the clock does; a person who stops a loop while a live curve looks bad draws again. The finding
says how often that was possible.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from bellglass import trial_ids
from bellglass.config import LoopConfig
from bellglass.records import Finding, Json
from bellglass.steps.trial import DECIDING
from bellglass.store.ledger import Event

ONCE = {  # kind -> the key in its body that says of what; "": of the loop
    "loop.created": "",
    "loop.calibrated": "",
    "final.opened": "",
    "generation.started": "generation",
    "proposal.made": "generation",
    "boot.checked": "generation",
    "gate.decided": "generation",
    "generation.watched": "generation",
    "champion.retrained": "generation",
    "review.decided": "generation",
    "generation.ended": "generation",
    "trial.settled": "trial_id",
}
KEYS = {"": type(None), "generation": int, "trial_id": str}
BOUNDS = {"generations", "train_seconds", "wall_seconds", "calls", "tokens", "budget_usd"}  # what `resume` may change
NAMED = 3  # trials in one line


def chronicle_finding(events: Sequence[Event]) -> Finding:
    """Before the state is folded: a second outcome would hide the first."""
    if not events or events[0].kind != "loop.created":
        return Finding("events", False, "the first is not that the loop was created")
    wrong = next((said for look in (_told_twice, _too_early, _other_rules) for said in look(events)), None)
    if wrong is not None:
        return Finding("events", False, wrong)
    return Finding("events", True, f"each outcome is told once; {_cut_off(events)}{_disturbed(events)}")


def _told_twice(events: Sequence[Event]) -> Iterator[str]:
    told: dict[tuple[str, Json], int] = {}
    for event in events:
        if event.kind not in ONCE:
            continue
        key = ONCE[event.kind]
        of = event.body.get(key)
        if type(of) is not KEYS[key]:  # 1.0 and "1" are other keys than 1, and might fold to the same
            yield f"event {event.seq}, {event.kind}, names {of!r} as its {key}"
            return
        first = told.setdefault((event.kind, of), event.seq)
        if first != event.seq:
            yield f"event {event.seq} tells {event.kind}{f' of {key} {of}' if key else ''} again, after event {first}"


def _too_early(events: Sequence[Event]) -> Iterator[str]:
    """An end without a beginning; a decision on what nobody was shown; going on past an alarm."""
    begun: set[Json] = set()
    shown: dict[Json, Json] = {}
    latched: set[Json] = set()
    for event in events:
        body, of = event.body, event.body.get("generation")
        if event.kind == "trial.intended":
            begun.add(body.get("trial_id"))
        elif event.kind in ("trial.settled", "trial.burnt"):
            name = body.get("trial_id")
            if name not in begun:
                yield f"event {event.seq}: {name} ended, and had not begun"
            begun.discard(name)
        elif event.kind == "trial.disturbed" and body.get("trial_id") not in begun:
            yield f"event {event.seq}: {body.get('trial_id')} was disturbed, and had not begun"
        elif event.kind == "review.requested":
            shown[of] = body.get("evidence_hash")
        elif event.kind == "review.decided" and shown.get(of, "") != body.get("evidence_hash"):
            yield f"event {event.seq}: a review of generation {of} that nobody asked for"
        elif event.kind == "tripwire.fired":
            latched.add(body.get("name"))
        elif event.kind == "tripwire.rearmed":
            latched.discard(body.get("name"))
        elif event.kind in ("generation.started", "generation.ended") and latched:
            yield f"event {event.seq}: generation {of} went on past {sorted(latched)[0]}, which nobody had re-armed"


def _other_rules(events: Sequence[Event]) -> Iterator[str]:
    """A loop that was resumed under another config than its bounds."""
    usual = LoopConfig().model_dump(mode="json")  # of a key that an earlier version did not have
    config = events[0].body["config"]
    for event in events:
        if event.kind == "loop.resumed":
            before, config = {**usual, **config}, event.body.get("config") or config
            now = {**usual, **config}
            other = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
            for key in other:
                if key not in BOUNDS:
                    yield f"event {event.seq}: resumed with another {key}, {now.get(key)!r} for {before.get(key)!r}"


def _cut_off(events: Sequence[Event]) -> str:
    purposes: dict[str, str] = {}
    burnt: dict[str, int] = {}
    for event in events:
        name = event.body.get("trial_id")
        if event.kind == "trial.intended":
            purposes[name] = event.body["purpose"]
        elif event.kind == "trial.burnt" and purposes[name] in DECIDING:
            burnt[name] = burnt.get(name, 0) + 1
    if not burnt:
        return "no training that decides was cut off"
    names = [name if times == 1 else f"{name} {times} times" for name, times in burnt.items()]
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    count = sum(burnt.values())
    said = "1 training that decides was" if count == 1 else f"{count} trainings that decide were"
    return f"{said} cut off, to be run again under its name: {', '.join(names[:NAMED])}{more}"


def _disturbed(events: Sequence[Event]) -> str:
    """How often trials were run again through no fault of their bundles; on each side, where they have one."""
    names = [event.body["trial_id"] for event in events if event.kind == "trial.disturbed"]
    if not names:
        return ""
    sides = Counter(trial_ids.side_of(name) or "of no side" for name in names)
    return f"; {len(names)} disturbed and run again: {', '.join(f'{count} {side}' for side, count in sides.items())}"
