"""Propose: an improver works through the parent's scaffold and submits a successor.

The desk here is the real one: chat goes through the gateway, trials through the lab on the `select` split, history is a
bounded digest of the ledger. Everything the improver does is booked under ids that a restarted session finds again.

Not covered: whether the successor is better. Exploration verdicts steer the improver; they never decide.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from bellglass import trial_ids
from bellglass.bounds import Left, less
from bellglass.errors import GuestFault
from bellglass.line.gateway import Gateway
from bellglass.ports import MEMORY_MB, Glass, GuestSpec
from bellglass.records import Bundle, CallKey, Cost, Json, Kind, Role, Trial
from bellglass.steps.history import digest
from bellglass.steps.session import SessionEnd, serve
from bellglass.steps.trial import Lab, Order
from bellglass.store.books import Books
from bellglass.store.bundles import check_bundle, check_submission
from bellglass.store.lineage import Lineage
from bellglass.visible import visible

MIN_FRACTION = 0.1
LOG_CHARS = 600  # of a failed trial's log: a traceback's end, too little to carry weights out in
NOTE_CHARS = 200  # of what an improver says that a trial tries
REPLY_LOG_BYTES = 40_000  # of all logs in one reply, as JSON: its header line carries them


@dataclass(frozen=True, slots=True)
class Limits:
    """What one session may use, beside the loop's bounds."""

    trials: float  # in whole budgets: a trial at a fraction of 0.25 takes a quarter
    calls: int
    wall_seconds: float


@dataclass(frozen=True, slots=True)
class Proposal:
    successor: str | None  # commit
    fault: str | None
    note: str
    kinds: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Workplace:
    """The parts of a loop that a session touches."""

    glass: Glass
    gateway: Gateway
    books: Books
    lineage: Lineage
    lab: Lab
    may_edit: frozenset[Kind]
    limits: Limits
    check: Callable[[], None]  # raises when a person or a bound ends the loop


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A trial that an improver asks for."""

    files: Mapping[str, bytes]
    fraction: float
    note: str


class ImproverDesk:
    def __init__(self, place: Workplace, generation: int, parent: str) -> None:
        self._place, self._generation, self._parent = place, generation, parent
        self._parent_bundle = place.lineage.read(parent)
        self._calls = 0
        self._trials = 0
        self._used = 0.0
        # Told from the session's own beginning, not from the books: a restarted session must hear the same again, or
        # its recorded answers would not fit. What is admitted is decided by the books alone.
        self._start, self._spent = Left(**place.books.state.generation(generation).left), Cost()

    def tick(self) -> None:
        self._place.check()

    def chat(self, body: bytes) -> bytes:
        if self._calls >= self._place.limits.calls:
            raise GuestFault("refused", f"this session's {self._place.limits.calls} model calls are used up")
        key = CallKey(self._generation, "improve", self._calls)
        self._calls += 1
        try:
            return self._place.gateway.chat(body, key)
        finally:
            self._spent += self._place.books.cost_of(key)

    def trial(self, files: Mapping[str, bytes], args: Json) -> Json:
        return self._explore([_Wanted(files, _fraction(args), _note(args))])[0]

    def trials(self, files: Mapping[str, bytes], candidates: list[Json]) -> Json:
        wanted = []
        for candidate in candidates:
            if not isinstance(candidate, dict):
                raise GuestFault("refused", "a candidate that is no object")
            wanted.append(_Wanted({**files, **_overlay(candidate)}, _fraction(candidate), _note(candidate)))
        return self._explore(wanted)

    def history(self) -> Json:
        return digest(self._place.books.state, self._generation)

    def budget(self) -> Json:
        left, calls = less(self._start, self._spent), self._place.limits.calls - self._calls
        return {
            "trials": self._left(),
            "train_seconds": left.train_seconds,
            "calls": calls if left.calls is None else min(calls, left.calls),
            "tokens": left.tokens,
            "usd": left.usd,
        }

    def note(self, text: str) -> None:
        self._place.books.record("session.note", generation=self._generation, text=text)

    def _left(self) -> float:
        return round(max(0.0, self._place.limits.trials - self._used), 4)

    def _explore(self, wanted: Sequence[_Wanted]) -> list[Json]:
        asked = sum(one.fraction for one in wanted)
        if asked > self._left() + 1e-9:
            raise GuestFault("refused", f"asked for {asked:g} trials, {self._left():g} are left in this session")
        # All are checked before one is stored: a refused list must cost neither trials nor disk.
        bundles = [self._candidate(one.files) for one in wanted]
        self._used += asked
        orders = [self._order(self._stored(bundle), one) for bundle, one in zip(bundles, wanted, strict=True)]
        trials = self._place.lab.run(orders)
        self._spent += sum((Cost(train_seconds=trial.train_seconds) for trial in trials), Cost())
        pairs = zip(trials, wanted, strict=True)
        return [self._result(trial, one.fraction, REPLY_LOG_BYTES // len(wanted)) for trial, one in pairs]

    def _order(self, commit: str, wanted: _Wanted) -> Order:
        budget = self._place.lab.bench.preset.budget
        index = self._trials
        self._trials += 1
        return Order(
            trial_id=trial_ids.explore(self._generation, index, commit),
            bundle=commit,
            purpose="explore",
            generation=self._generation,
            budget=replace(budget, amount=scaled(budget.kind, budget.amount, wanted.fraction)),
            note=wanted.note,
        )

    def _candidate(self, files: Mapping[str, bytes]) -> Bundle:
        scaffold = {path: data for path, data in self._parent_bundle.items() if path.startswith("scaffold/")}
        return check_bundle(self._parent_bundle, {**scaffold, **files}, self._place.may_edit)

    def _stored(self, bundle: Bundle) -> str:
        if bundle == dict(self._parent_bundle):  # a trial of the unchanged parent is a fair question
            return self._parent
        return self._place.lineage.commit(bundle, self._parent, f"generation {self._generation}: candidate")

    def _result(self, trial: Trial, fraction: float, log_bytes: int) -> Json:
        verdict = trial.verdict
        return {
            "ok": verdict is not None,
            "score": None if verdict is None else round(verdict.score, 5),
            "by_skill": {} if verdict is None else {k: round(v, 4) for k, v in verdict.by_skill.items()},
            "claim": trial.claim.bits,
            "fault": trial.fault,
            "log": _tail(self._place.lab.log_tail(trial), log_bytes) if trial.fault else "",
            "seconds": trial.train_seconds,
            "fraction": fraction,
            "left": {"trials": self._left()},
        }


def propose(place: Workplace, generation: int, parent: str, *, brief: str, seed: int) -> Proposal:
    """One session; a fault is a proposal without a successor."""
    desk = ImproverDesk(place, generation, parent)
    parent_bundle = place.lineage.read(parent)
    labels = {"loop": place.books.state.loop_id, "generation": str(generation), "trial": "improve"}
    spec = GuestSpec(Role.IMPROVE, labels, MEMORY_MB[Role.IMPROVE], place.limits.wall_seconds + 60.0)
    args = {
        "may_edit": sorted(place.may_edit),
        "limits": {"trials": place.limits.trials, "calls": place.limits.calls},
        "generation": generation,
        "seed": seed,
        "session": "improve",
    }
    end = serve(place.glass, spec, parent_bundle, brief, args, desk, wall_seconds=place.limits.wall_seconds)
    if end.log:
        place.books.record("session.note", generation=generation, text="", log=place.books.blobs.put(end.log))
    return _proposal_of(place, generation, parent, parent_bundle, end)


def _proposal_of(place: Workplace, generation: int, parent: str, parent_bundle: Bundle, end: SessionEnd) -> Proposal:
    if end.submission is None:
        return Proposal(None, end.fault, end.detail, ())
    try:
        bundle = check_submission(parent_bundle, end.submission.files, place.may_edit)
    except GuestFault as fault:
        return Proposal(None, fault.code, fault.detail, ())
    commit = place.lineage.commit(bundle, parent, f"generation {generation}: successor")
    kinds = tuple(sorted(place.lineage.kinds(parent, commit)))
    return Proposal(commit, None, end.submission.note, kinds)


def scaled(kind: str, amount: float, fraction: float) -> float:
    return float(max(1, math.ceil(amount * fraction))) if kind == "steps" else amount * fraction


def _tail(log: str, most_bytes: int) -> str:
    """The end of a log. What its trainer printed may grow six times as JSON, and a reply has a largest size."""
    log = log[-LOG_CHARS:]
    while len(json.dumps(log)) > most_bytes:
        log = log[len(log) // 4 + 1 :]
    return log


def _fraction(args: Json) -> float:
    value = args.get("fraction", 1.0) if isinstance(args, dict) else 1.0
    if isinstance(value, bool) or not isinstance(value, int | float) or not MIN_FRACTION <= value <= 1.0:
        raise GuestFault("refused", f"a fraction between {MIN_FRACTION} and 1")
    return float(value)


def _note(args: Json) -> str:
    """In one line; what nobody would see in it is spelled out."""
    text = args.get("note", "") if isinstance(args, dict) else ""
    return visible(" ".join(str(text).split()))[:NOTE_CHARS]


def _overlay(candidate: Json) -> dict[str, bytes]:
    files = candidate.get("files", {})
    if not isinstance(files, dict) or not all(isinstance(text, str) for text in files.values()):
        raise GuestFault("refused", "a candidate's files: path to text")
    return {str(path).removeprefix("work/"): text.encode(errors="replace") for path, text in files.items()}
