"""What a loop knows, as a fold over its ledger's events. Pure: the same events give the same state.

Nothing here is stored: a state that a crash lost is folded again. Each event kind has one small function below; an
unknown kind is an error, because a ledger from a newer bellglass must not be half understood.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bellglass.errors import LoopFault
from bellglass.records import Budget, Claim, Cost, Json, Proof, Seeds, Trial, Verdict
from bellglass.store.ledger import Event, Ledger
from bellglass.trial_ids import generation_of, is_final


@dataclass(frozen=True, slots=True)
class Call:
    """One model call that has ended."""

    model: str
    request_sha: str
    reply_sha: str | None  # None: there is no reply
    cost: Cost
    facts: Json


@dataclass(slots=True)
class Names:
    """Of what a generation made: a loop may be long, and most questions are about one generation."""

    trials: list[str] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Generation:
    number: int
    parent: str
    left: Json = None  # of the bounds, when its improver first began
    successor: str | None = None
    proposal_fault: str | None = None
    note: str = ""  # the improver's own words: testimony, shown apart
    kinds: tuple[str, ...] = ()
    boot: Json = None  # {"ok", "why", "fault"}
    gate: Json = None  # a GateDecision as JSON
    review_hash: str | None = None
    review: Json = None  # {"decision", "reason", "who"}
    result: Json = None  # {"champion", "trainer", "scaffold", "why"}
    proposed: bool = False
    watched: bool = False  # the tripwires have looked
    panelled: bool = False  # and at the trials of its champion on new seeds
    alarms: int = 0  # how many tripwires fired
    logs: list[str] = field(default_factory=list)  # sha256 of what its improver sessions printed

    @property
    def adopted(self) -> bool:
        """Whether its trainer became the champion's."""
        return self.result is not None and self.result["trainer"] == "adopted"


@dataclass(slots=True)
class State:
    loop_id: str = ""
    created: Json = None
    config: Json = None
    starter: str = ""
    champion: str = ""
    generations: dict[int, Generation] = field(default_factory=dict)
    adoptions: list[int] = field(default_factory=list)  # generations whose trainer became the champion's
    trials: dict[str, Trial] = field(default_factory=dict)
    names: dict[int, Names] = field(default_factory=dict)  # by generation; 0: of what belongs to none
    notes: dict[str, str] = field(default_factory=dict)  # by trial: what its improver said that it tries
    open_trials: dict[str, Json] = field(default_factory=dict)
    calls: dict[str, Call] = field(default_factory=dict)
    open_calls: dict[str, Json] = field(default_factory=dict)
    disturbed: list[Json] = field(default_factory=list)  # trials that fell through no fault of their bundles
    spent: Cost = field(default_factory=Cost)
    burnt: Cost = field(default_factory=Cost)  # what crashes wasted: charged apart, never twice
    wall_seconds: float = 0.0
    calibration: Json = None  # a Calibration as JSON, and where it came from
    tripwires: list[Json] = field(default_factory=list)  # latched; a re-armed one is gone
    final: Json = None
    later_glasses: list[str] = field(default_factory=list)  # opened after the one that it began with
    why_alone: str = ""  # why guests that prove a score answer alone; empty where they need not
    stop_requested: Json = None
    taken_over: Json = None  # by whom, last; None: it is its maker's still
    ended: Json = None

    @property
    def glasses(self) -> list[str]:
        """Which it ran in, in turn."""
        return [self.created["glass"], *self.later_glasses]

    @property
    def reserved(self) -> Cost:
        total = Cost()
        for intent in (*self.open_trials.values(), *self.open_calls.values()):
            total = total + Cost(**intent["ask"])
        return total

    def generation(self, number: int) -> Generation:
        return self.generations[number]

    def disturbed_by(self, number: int) -> tuple[Json, ...]:
        """Up to the end of that generation."""
        return tuple(one for one in self.disturbed if one["generation"] <= number and not is_final(one["trial_id"]))

    def keep_trial(self, trial: Trial) -> None:
        if trial.trial_id not in self.trials:
            self.names.setdefault(generation_of(trial.trial_id), Names()).trials.append(trial.trial_id)
        self.trials[trial.trial_id] = trial

    def trials_in(self, number: int) -> list[Trial]:
        """All of a generation; of 0 what belongs to none: calibration and `final`."""
        return [self.trials[name] for name in self._names(number).trials if name in self.trials]

    def trials_of(self, number: int, purpose: str) -> list[Trial]:
        return [trial for trial in self.trials_in(number) if trial.purpose == purpose]

    def calls_in(self, number: int) -> list[tuple[str, Call]]:
        """With their keys."""
        return [(key, self.calls[key]) for key in self._names(number).calls]

    def adopted(self) -> list[Generation]:
        return [gen for gen in map(self.generation, self.adoptions) if gen.adopted]

    def _names(self, number: int) -> Names:
        return self.names.get(number) or Names()


def fold(events: Iterable[Event]) -> State:
    state = State()
    for event in events:
        try:
            apply(state, event)
        except (LookupError, TypeError, AttributeError, ValueError, ArithmeticError) as error:
            found = f"{event.kind} with other fields ({type(error).__name__}: {error})"
            raise _unknown(event, found, "the fields this version knows") from error
    return state


def state_of(folder: Path) -> State:
    """Of a loop, whoever owns it: reads, and takes no lock."""
    with Ledger.open(folder) as ledger:
        return fold(ledger.events())


def apply(state: State, event: Event) -> None:
    handler = HANDLERS.get(event.kind)
    if handler is None:
        raise _unknown(event, f"kind {event.kind!r}", "a kind this version knows")
    handler(state, event.body)


def _unknown(event: Event, found: str, needed: str) -> LoopFault:
    command = "use the bellglass version that wrote this loop"
    return LoopFault(f"event {event.seq} of the ledger", found, needed, command, code="other_version")


def to_json(record: Any) -> Json:
    return asdict(record)


def trial_from(body: Json) -> Trial:
    verdict = body["verdict"]
    if verdict is not None:
        proof = verdict["proof"]
        verdict = Verdict(**{**verdict, "proof": None if proof is None else Proof(**proof)})
    return Trial(
        **{
            **body,
            "seeds": Seeds(**body["seeds"]),
            "budget": Budget(**body["budget"]),
            "claim": Claim(**body["claim"]),
            "verdict": verdict,
        }
    )


def _created(state: State, body: Json) -> None:
    if state.loop_id:  # a second beginning would give a loop the id of another
        raise ValueError("a loop begins once")
    state.loop_id, state.created, state.config = body["loop_id"], body, body["config"]
    state.starter = state.champion = body["starter"]


def _resumed(state: State, body: Json) -> None:
    state.ended = None if state.ended and state.ended["why"] in RESUMABLE_ENDS else state.ended
    state.stop_requested = None
    if body.get("config"):
        state.config = body["config"]


def _taken_over(state: State, body: Json) -> None:
    """What its maker asked for is not asked for any more; what they decided stands."""
    state.taken_over = body
    state.stop_requested = None


def _calibrated(state: State, body: Json) -> None:
    state.calibration = body


def _clock(state: State, body: Json) -> None:
    state.wall_seconds += body["wall_seconds"]


def _generation_started(state: State, body: Json) -> None:
    number = body["generation"]
    state.generations[number] = Generation(number, body["parent"])


def _session_started(state: State, body: Json) -> None:
    """A second one in a generation means that a crash cut the first off; it goes on from what the first was told."""
    gen = state.generation(body["generation"])
    gen.left = body.get("left") if gen.left is None else gen.left


def _proposal_made(state: State, body: Json) -> None:
    gen = state.generation(body["generation"])
    gen.proposed = True
    gen.successor, gen.proposal_fault = body["successor"], body["fault"]
    gen.note, gen.kinds = body["note"], tuple(body["kinds"])


def _note(state: State, body: Json) -> None:
    """An improver's remark, or what a session printed: kept for people; no decision reads it."""
    if body.get("log"):
        state.generation(body["generation"]).logs.append(body["log"])


def _trial_intended(state: State, body: Json) -> None:
    state.open_trials[body["trial_id"]] = body
    if body.get("note"):
        state.notes[body["trial_id"]] = str(body["note"])


def _trial_settled(state: State, body: Json) -> None:
    del state.open_trials[body["trial_id"]]
    trial = trial_from(body)
    state.keep_trial(trial)
    state.spent = state.spent + Cost(train_seconds=trial.train_seconds)


def _trial_burnt(state: State, body: Json) -> None:
    intent = state.open_trials.pop(body["trial_id"])
    state.burnt = state.burnt + Cost(**intent["ask"])


def _trial_disturbed(state: State, body: Json) -> None:
    """It stays open: it is run again."""
    state.disturbed.append(body)
    state.burnt = state.burnt + Cost(**state.open_trials[body["trial_id"]]["ask"])


def _call_reserved(state: State, body: Json) -> None:
    state.open_calls[body["key"]] = body


def _call_settled(state: State, body: Json) -> None:
    key, cost = body["key"], Cost(**body["cost"])
    intent = state.open_calls.pop(key)
    if key not in state.calls:
        state.names.setdefault(generation_of(key), Names()).calls.append(key)
    state.calls[key] = Call(intent["model"], intent["request_sha"], body["reply_sha"], cost, body["facts"])
    if body["facts"].get("outcome") == "unknown":  # a crash cut it off; it is asked again, and that is spent
        state.burnt = state.burnt + cost
    else:
        state.spent = state.spent + cost


def _boot_checked(state: State, body: Json) -> None:
    state.generation(body["generation"]).boot = body


def _gate_decided(state: State, body: Json) -> None:
    state.generation(body["generation"]).gate = body["gate"]


def _watched(state: State, body: Json) -> None:
    gen = state.generation(body["generation"])
    gen.watched, gen.alarms = True, body["alarms"]


def _retrained(state: State, body: Json) -> None:
    gen = state.generation(body["generation"])
    gen.panelled, gen.alarms = True, gen.alarms + body["alarms"]


def _tripwire_fired(state: State, body: Json) -> None:
    known = {(wire["name"], wire["generation"]) for wire in state.tripwires}
    if (body["name"], body["generation"]) not in known:  # a crash between alarm and bookmark makes it fire twice
        state.tripwires.append(body)


def _tripwire_rearmed(state: State, body: Json) -> None:
    state.tripwires = [wire for wire in state.tripwires if wire["name"] != body["name"]]
    state.ended = None


def _review_requested(state: State, body: Json) -> None:
    state.generation(body["generation"]).review_hash = body["evidence_hash"]


def _review_decided(state: State, body: Json) -> None:
    state.generation(body["generation"]).review = body


def _generation_ended(state: State, body: Json) -> None:
    gen = state.generation(body["generation"])
    gen.result = body
    if gen.adopted and gen.number not in state.adoptions:
        state.adoptions.append(gen.number)
    state.champion = body["champion"]


def _final_opened(state: State, body: Json) -> None:
    state.final = body


def _request_refused(state: State, body: Json) -> None:
    """Kept for people; it changed nothing."""


def _glass_opened(state: State, body: Json) -> None:
    state.why_alone = body["why_alone"]
    glass = body.get("glass", state.glasses[-1])  # an earlier version did not name it
    if not isinstance(glass, str):
        raise TypeError("the name of a glass is a text")
    if glass != state.glasses[-1]:
        state.later_glasses.append(glass)


def _stop_requested(state: State, body: Json) -> None:
    state.stop_requested = body


def _ended(state: State, body: Json) -> None:
    state.ended = body


RESUMABLE_ENDS = ("stopped", "bound", "waiting", "failed")

HANDLERS: dict[str, Callable[[State, Json], None]] = {
    "loop.created": _created,
    "loop.resumed": _resumed,
    "loop.taken_over": _taken_over,
    "loop.calibrated": _calibrated,
    "loop.clock": _clock,
    "loop.ended": _ended,
    "glass.opened": _glass_opened,
    "generation.started": _generation_started,
    "session.started": _session_started,
    "session.note": _note,
    "proposal.made": _proposal_made,
    "trial.intended": _trial_intended,
    "trial.settled": _trial_settled,
    "trial.burnt": _trial_burnt,
    "trial.disturbed": _trial_disturbed,
    "call.reserved": _call_reserved,
    "call.settled": _call_settled,
    "boot.checked": _boot_checked,
    "gate.decided": _gate_decided,
    "generation.watched": _watched,
    "champion.retrained": _retrained,
    "tripwire.fired": _tripwire_fired,
    "tripwire.rearmed": _tripwire_rearmed,
    "review.requested": _review_requested,
    "review.decided": _review_decided,
    "generation.ended": _generation_ended,
    "final.opened": _final_opened,
    "stop.requested": _stop_requested,
    "request.refused": _request_refused,
}
