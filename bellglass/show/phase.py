"""Where a loop stands and when it next needs a person, each in one line of at most 70 columns. Pure: from the state.

Not covered: what happens between two events, such as a model that thinks; the ledger knows only that it was asked.
"""

from __future__ import annotations

from bellglass.records import Json
from bellglass.store.state import Generation, State

IMPROVES, RETRAINS, DECIDING = "the improver works", "the new champion is trained again", "deciding"
BOOTS, GATE = "boot check of the new scaffold", "the gate, successor against parent"
CUT_OFF = {  # what a generation was at when its loop ended
    IMPROVES: "stopped while the improver worked",
    BOOTS: "stopped at the boot check",
    GATE: "stopped at the gate",
    RETRAINS: "stopped while its champion was trained again",
    DECIDING: "stopped before the decision",
}


def phase(state: State) -> str:
    if state.created is None:
        return "starting"
    if state.created.get("calibrates"):
        return f"calibration: {len(state.trials)} trainings have ended"
    total = state.config["generations"]
    if state.ended is not None:
        return f"the loop has ended: {state.ended['why']}"
    gen = _latest(state)
    if gen is None:
        if state.calibration is None:
            return f"before generation 1 of {total}: calibration, how far seeds move the score"
        return f"before generation 1 of {total}"
    if gen.result is None:
        return f"generation {gen.number} of {total}: {stage(gen, state)}"
    if gen.number < total:
        return f"generation {gen.number} of {total} has ended"
    return f"after generation {gen.number} of {total}: final, starter against champion"


def next_review(state: State) -> str:
    """By the config's rule, and by what already waits."""
    if state.created is None or state.created.get("calibrates"):
        return "none: a calibration decides nothing"
    gen = _latest(state)
    if state.tripwires:
        return f"now: tripwire {state.tripwires[0]['name']} waits to be re-armed"
    if gen is not None and _waits(gen):
        return f"now: the successor of generation {gen.number} waits for a decision"
    number = _next_successor(gen)
    if state.ended is not None or number > state.config["generations"]:
        return "none: every generation is decided"
    return {
        "every": f"the successor of generation {number}, once its gate has decided",
        "tripwire": "only when a tripwire latches",
        "never": "never; a tripwire still halts the loop",
    }[state.config["review"]]


def calibrates(state: State) -> bool:
    """Whether its noise is being measured now: not whether it was."""
    return state.calibration is None and state.ended is None and not state.generations


def stage(gen: Generation, state: State) -> str:
    """Where a generation stands that has not ended, or stood when its loop did."""
    now = _stage(gen, state)
    if state.ended is None or _waits(gen):
        return now
    if gen.review is not None and now == DECIDING:
        return "decided; resume carries it out"
    return CUT_OFF[now]


def _stage(gen: Generation, state: State) -> str:
    """In the order of steps/generation.py."""
    if not gen.proposed:
        return IMPROVES
    purposes = {intent["purpose"] for intent in _under_way(state)}
    if "panel" in purposes:
        return RETRAINS
    if gen.successor is not None and not gen.watched:
        if "scaffold" in gen.kinds and gen.boot is None:
            return BOOTS
        if gen.gate is None and set(gen.kinds) - {"scaffold"}:
            return GATE
    return "waits for a person's decision" if _waits(gen) else DECIDING


def _waits(gen: Generation) -> bool:
    return gen.review_hash is not None and gen.review is None and gen.result is None


def _next_successor(gen: Generation | None) -> int:
    """The first generation whose successor nobody can have decided on yet."""
    if gen is None:
        return 1
    settled = gen.result is not None or gen.review is not None or (gen.proposed and gen.successor is None)
    return gen.number + settled


def _latest(state: State) -> Generation | None:
    while True:
        try:
            return state.generations.get(next(reversed(state.generations), 0))
        except RuntimeError:  # one began in between: a terminal draws while the loop writes
            continue


def _under_way(state: State) -> list[Json]:
    return list(state.open_trials.values())  # a copy: a terminal draws while the loop writes
