"""The digest that an improver gets of its loop: bounded, so that generation 100 reads as much as generation 5.

Scores in it are exploration scores on `select`, and the noise is the calibration's, from there too. Of `confirm` an
improver learns adopt or reject, and nothing else.

Not covered: what many adopt-or-reject answers tell together; `confirm` is drawn afresh every time for that reason.
"""

from __future__ import annotations

import json
import math
from itertools import islice

from bellglass.records import Json, Trial
from bellglass.store.state import Generation, State
from bellglass.visible import visible

BEST, LAST, TRIED = 3, 5, 5
NOTE_CHARS = 300


def digest(state: State, generation: int) -> Json:
    done = (gen for gen in reversed(state.generations.values()) if gen.result is not None)
    last = list(islice(done, LAST))[::-1]
    best = sorted(state.adopted(), key=lambda gen: _place(state, gen.number))[:BEST]
    return {
        "generation": generation,
        "best": [_entry(state, gen) for gen in best],
        "last": [_entry(state, gen) for gen in last],
        "noise": None if state.calibration is None else round(state.calibration["noise"]["sd"], 4),
    }


def _place(state: State, number: int) -> float:
    """Among the best, where lower is better: one that was submitted without a trial stands last."""
    score = _explored(state, number)
    return math.inf if score is None else score


def _entry(state: State, gen: Generation) -> Json:
    return {
        "generation": gen.number,
        "what": _quoted(gen.note[:NOTE_CHARS]),
        "kinds": list(gen.kinds),
        "decision": gen.result["trainer"],
        "scaffold": gen.result["scaffold"],
        "score": _explored(state, gen.number),
        "tried": [_tried(state, trial) for trial in state.trials_of(gen.number, "explore")[-TRIED:]],
    }


def _tried(state: State, trial: Trial) -> Json:
    score = None if trial.verdict is None else round(trial.verdict.score, 4)
    return {"note": _quoted(state.notes.get(trial.trial_id, "")), "score": score}


def _quoted(words: str) -> str:
    """Another improver's words, for an improver: in quotes, and nothing in them that could pass for the host's."""
    return f"in its improver's words: {json.dumps(visible(words), ensure_ascii=False)}" if words.strip() else ""


def _explored(state: State, number: int) -> float | None:
    """The best exploration score of a generation, at whatever fraction it was reached."""
    scores = [trial.verdict.score for trial in state.trials_of(number, "explore") if trial.verdict is not None]
    return round(min(scores), 4) if scores else None
