"""The loop: generation after generation inside its bounds, then `final` is opened once.

The ledger says how it ended, and `resume` goes on from there: bounds reached, a person's stop, a review that waits, a
tripwire, a machine that lacks something. Only a person moves a loop past a review or a tripwire. Whatever else ends it
(a power cut, a full disk) leaves the ledger open, and `resume` goes on all the same.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from bellglass import trial_ids, tripwires
from bellglass.errors import (
    BellglassError,
    BoundReached,
    Interrupted,
    ReviewPending,
    SetupError,
    TripwireFired,
    UsageError,
)
from bellglass.records import Json, Noise
from bellglass.review import Answer, decision_event
from bellglass.steps import final, gate, panel
from bellglass.steps.generation import Crew, refuse_if_tripped, run_generation
from bellglass.steps.pairs import train_pair
from bellglass.store.books import Books
from bellglass.store.ledger import InboxRequest
from bellglass.store.state import State, to_json

ENDS: tuple[tuple[type[BellglassError], str], ...] = (
    (BoundReached, "bound"),
    (Interrupted, "stopped"),
    (ReviewPending, "waiting"),
    (TripwireFired, "tripwire"),
    (SetupError, "failed"),
)


def run_loop(crew: Crew, before_models: Callable[[], None] = lambda: None) -> State:
    """Run until the bounds are reached. Raises the reason when it ends otherwise; the ledger has it already.

    `before_models` is called once the noise is known and before a model is asked anything.
    """
    books = crew.place.books
    if books.state.ended is not None and books.state.ended["why"] == "finished":
        return books.state
    if books.state.created.get("calibrates"):
        found = f"a calibration of {crew.config.task}"
        raise UsageError(
            f"loop {books.state.loop_id}",
            found,
            "a loop",
            f"bellglass calibrate {crew.config.task}",
            code="is_calibration",
        )
    try:
        crew.place.check()  # a re-arming may lie in the inbox
        refuse_if_tripped(books.state)
        _calibrate(crew)
        if not crew.state.generations:
            before_models()
        for number in range(1, crew.config.generations + 1):
            crew.place.check()
            run_generation(crew, number)
        _open_final(crew)
    except tuple(kind for kind, _ in ENDS) as error:
        with contextlib.suppress(SetupError):  # where the disk is full, the ledger stays open, which resumes as well
            books.tick_quietly()
            why = next(why for kind, why in ENDS if isinstance(error, kind))
            books.record("loop.ended", why=why, code=error.code, detail=error.found or error.thing)
        raise
    books.tick_quietly()
    books.record("loop.ended", why="finished", detail=_how_it_finished(books.state), secret=_secret(crew))
    return books.state


def _calibrate(crew: Crew) -> None:
    """Measure the noise before anything is decided, once. Nothing of a model is needed, so nothing is paid yet."""
    if crew.state.calibration is None:
        found = panel.calibrate(crew.place.lab, crew.state, crew.conditions, crew.shelf, seeds=crew.config.panel)
        rules = gate.Rules(gate.spend(crew.config.alpha, 1), Noise(**found["noise"]), crew.config.max_pairs)
        smallest = gate.smallest_gain(rules)
        most = panel.most_gain(crew.place.lab, found["scores"])
        crew.place.books.record("loop.calibrated", smallest_gain=smallest, most_gain=most, **found)


def _how_it_finished(state: State) -> str:
    adopted = any(gen.adopted for gen in state.generations.values())
    return "within its bounds" if adopted else "within its bounds, stalled: no trainer was adopted"


def _secret(crew: Crew) -> str:
    """Revealed at the end, so that outsiders can make the same data and judge the stored weights again."""
    return crew.place.lab.bench.secret.hex()


def _open_final(crew: Crew) -> None:
    """Starter and champion, trained anew on seeds of their own, on documents nobody has been scored on. Opened once."""
    state = crew.state
    if state.final is not None:
        return
    if state.champion == state.starter:
        crew.place.books.record(
            "final.opened", starter=state.starter, champion=state.champion, gain=None, pairs=[], alarms=[]
        )
        return
    pairs: list[tuple[float, float]] = []
    faults: list[str] = []
    for index in range(crew.config.panel):
        ids = [trial_ids.final(index, side) for side in trial_ids.FINAL_SIDES]
        sides = list(zip(ids, (state.starter, state.champion), strict=True))
        starter, champion = train_pair(crew.place.lab, "final", crew.config.generations, index, sides)
        if starter.verdict is None or champion.verdict is None:
            faults.append(panel.faults([starter, champion]))
        else:
            pairs.append((starter.verdict.score, champion.verdict.score))
    trials = tuple(trial for trial in state.trials.values() if trial.purpose == "final")
    gain = final.gain(pairs, trials)
    floor, disturbed = crew.place.lab.bench.task.floor, tuple(state.disturbed)
    alarms = tripwires.look(tripwires.Watched(crew.config.generations, trials, floor, (), disturbed))
    for alarm in alarms:
        crew.place.books.record("tripwire.fired", generation=crew.config.generations, **to_json(alarm))
    crew.place.books.record(
        "final.opened",
        starter=state.starter,
        champion=state.champion,
        gain=gain and to_json(gain),
        lacks=final.lacks(pairs, trials),
        pairs=pairs,
        faults=faults,
        alarms=[f"{alarm.name}: {alarm.sentence}" for alarm in alarms],
    )
    refuse_if_tripped(state)


def take_requests(books: Books) -> None:
    """What other processes asked for, turned into events. Raises Interrupted for a stop."""
    for request in books.ledger.take():
        _take(books, request)
    if books.state.stop_requested is not None:
        raise Interrupted(
            "the loop",
            "a request to stop",
            "nothing: everything done is kept",
            f"bellglass resume {books.state.loop_id}",
        )


def _take(books: Books, request: InboxRequest) -> None:
    body: Json = request.body
    if request.kind == "stop":
        books.record("stop.requested", answers=request.id, who=body["who"], reason=body["reason"])
    elif request.kind == "rearm":
        books.record("tripwire.rearmed", answers=request.id, name=body["name"], who=body["who"], reason=body["reason"])
    elif request.kind == "review":
        answer = Answer(body["decision"], body["reason"], body["who"])
        try:
            event = decision_event(books.state, body["generation"], answer, body["evidence_hash"])
        except UsageError as error:  # it answers evidence that no longer waits: kept, without effect
            books.record("request.refused", answers=request.id, request=body, code=error.code, why=str(error))
        else:
            books.record("review.decided", answers=request.id, **event)
