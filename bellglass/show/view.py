"""Everything that page, report and playback show of a loop, but for large texts: one JSON document from the state.

Every number comes from the state alone (tests/test_view.py recomputes them from the ledger). Bits are rounded to five
digits behind the point, so that a thousand generations stay small. `raw` bits compare with claims; a `score` is above
the floor. Diffs and sessions are in `transcript`.

Pure but for one thing, as in `summary`: what the baselines stored with a loop's task reached.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

from bellglass import review, trial_ids
from bellglass.paths import loop_name
from bellglass.records import Interval, Json, Trial
from bellglass.show import baselines, phase, splits, summary
from bellglass.show.conclusions import conclusions
from bellglass.show.summary import Row, Share, cost_json
from bellglass.stats import CONFIDENCE, mean_interval, t_quantile
from bellglass.store.ours import Standing
from bellglass.store.state import Generation, State

FORMAT = 1
DIGITS = 5
NOTE_CHARS = 2000  # of an improver's note; all of it is in the ledger
TRIAL_COLUMNS = (
    "id", "generation", "purpose", "side", "claim", "raw", "score", "select", "seconds", "fault", "proof", "bundle",
    "note",
)  # fmt: skip
HEADER = ("version", "task", "glass", "sealed", "content", "secret_commitment")


@dataclass(frozen=True, slots=True)
class About:
    """What whoever opens a loop knows beside its state."""

    head: str = ""
    seq: int = 0
    title: str = ""
    unit: str = summary.UNIT
    started: float | None = None  # times of the first and the last event, in seconds since 1970
    updated: float | None = None
    missing: tuple[str, ...] = ()  # what could not be opened, in sentences
    standing: Standing | None = None  # whose it is


def document(state: State, about: About | None = None) -> Json:
    about = about or About()
    made = summary.shares(state)
    rows = [summary.row(state, gen, made[gen.number]) for gen in state.generations.values()]
    beside = baselines.for_loop(state) if state.config else None
    waits = review.pending(state)
    generations, starter = _generations(state, rows, made), _measured(summary.starter_trials(state))
    return {
        "format": FORMAT,
        "loop": _header(state, about),
        "config": state.config,
        "bounds": bounds(state),
        "spent": cost_json(state.spent),
        "burnt": cost_json(state.burnt),
        "reserved": cost_json(state.reserved),
        "wall_seconds": round(state.wall_seconds, 1),
        "calibration": _calibration(state),
        "floor": _champion(generations, starter)["floor"],
        "starter": starter,
        "baselines": None if beside is None else {**asdict(beside), "line": summary.baselines_line(state)},
        "generations": generations,
        "trials": {"columns": TRIAL_COLUMNS, "rows": [_trial(trial, state.notes) for trial in state.trials.values()]},
        "under_way": [_under_way(intent) for intent in state.open_trials.values()],
        "calls_under_way": len(state.open_calls),
        "tripwires": state.tripwires,
        "final": _final(state),
        "phase": phase.phase(state),
        "calibrates": phase.calibrates(state),
        "ended": None if state.ended is None else {k: v for k, v in state.ended.items() if k != "secret"},
        "secret_revealed": bool(state.ended and state.ended.get("secret")),
        "stop_requested": state.stop_requested,
        "looks": splits.looks(state) if state.created else None,
        "oversight": oversight(state),
        "choices": {} if waits is None else dict(review.choices_of(state, state.generation(waits))),
        "said": [*about_standing(about.standing), *(summary.about_improvers(state) if state.config else [])],
        "conclusions": conclusions(state, about.standing),
        "missing": [*about.missing, *missing(state)],
    }


def bounds(state: State) -> list[Json]:
    """Each hard limit with what is used of it; `limit` None: no bound of that kind."""
    if not state.config:
        return []
    config, used = state.config, state.spent + state.burnt
    ended = sum(gen.result is not None for gen in state.generations.values())
    tokens = used.tokens_in + used.tokens_out
    entries = (
        ("generations", "generations", "", config["generations"], ended),
        ("train_seconds", "training", "s", config.get("train_seconds"), round(used.train_seconds, 2)),
        ("wall_seconds", "wall time", "s", config.get("wall_seconds"), round(state.wall_seconds, 1)),
        ("calls", "model calls", "", config.get("calls"), used.calls),
        ("tokens", "model tokens", "", config.get("tokens"), tokens),
        ("usd", "money", "USD", config.get("budget_usd"), used.usd),
    )
    return [dict(zip(("name", "label", "unit", "limit", "used"), entry, strict=True)) for entry in entries]


def oversight(state: State) -> Json:
    """Who decided, in counts."""
    gens = list(state.generations.values())
    decided = [gen.review for gen in gens if gen.review is not None]
    return {
        "rule": state.config["review"] if state.config else None,
        "asked": sum(gen.review_hash is not None for gen in gens),
        "decided": len(decided),
        "decisions": _counts(review["decision"] for review in decided),
        "people": sorted({str(review["who"]) for review in decided}),
        "adopted": sum(gen.adopted for gen in gens),
        "adopted_without_review": sum(gen.adopted and gen.review is None for gen in gens),
        "alarms": sum(gen.alarms for gen in gens) + len((state.final or {}).get("alarms", ())),
        "waiting": next((g.number for g in gens if g.review_hash is not None and g.review is None), None),
    }


def missing(state: State) -> list[str]:
    """What this loop's record does not hold, so that a chart without it is no surprise."""
    said = []
    if not state.loop_id:
        return ["the ledger does not say how the loop began"]
    if state.calibration is None and not phase.calibrates(state):
        said.append("no calibration in the ledger: the noise band is not drawn")
    if state.config["virtual_clock"]:
        said.append("budgets were counted in steps, not in seconds: its scores compare with those of no other loop")
    if not any(trial.purpose == "gate" and _has_select(trial) for trial in state.trials.values()) and any(
        gen.gate for gen in state.generations.values()
    ):
        said.append("scores on select were not recorded at the gate: there is no select–confirm gap")
    return said


def about_standing(standing: Standing | None) -> list[str]:
    """What people must know before anything else of a loop that came from elsewhere."""
    if standing is None or (standing.ours and standing.code != "taken_over"):
        return []
    if standing.ours:
        return ["Taken over: it came from elsewhere, and nobody here can vouch for what it was before."]
    return [f"Received: {standing.why}. What it says, its seal included, is its maker's word."]


def _header(state: State, about: About) -> Json:
    created = state.created or {}
    models = state.config["models"] if state.config else {}
    return {
        "id": state.loop_id,
        "name": loop_name(created["task"], state.loop_id) if created else "",
        **{key: created.get(key) for key in HEADER},
        **({"glass": ", then ".join(state.glasses)} if state.later_glasses else {}),
        "models": models,
        "title": about.title,
        "unit": about.unit,
        "starter": state.starter,
        "champion": state.champion,
        "head": about.head,
        "seq": about.seq,
        "started": about.started,
        "updated": about.updated,
        "standing": None if about.standing is None else asdict(about.standing),
    }


def _generations(state: State, rows: Sequence[Row], made: Mapping[int, Share]) -> list[Json]:
    came_from = {state.starter: 0}  # which generation made the bundle that is a parent later
    found = []
    for row, gen in zip(rows, state.generations.values(), strict=True):
        found.append(_generation(gen, row, made[gen.number], came_from.get(gen.parent, 0)))
        if gen.result is not None:
            came_from.setdefault(gen.result["champion"], gen.number)
    return found


def _generation(gen: Generation, row: Row, share: Share, parent: int) -> Json:
    children = share.children(gen)
    explored = [trial.verdict.score for trial in share.of("explore") if trial.verdict is not None]
    measured = _measured(children)
    gate = gen.gate or {}
    return {
        "n": gen.number,
        "from": parent,
        "parent": gen.parent,
        "successor": gen.successor,
        "champion": gen.result["champion"] if gen.result else None,
        "kinds": list(gen.kinds),
        "done": gen.result is not None,
        "fault": gen.proposal_fault,
        **measured,
        "measured_by": children[0].purpose if children else None,
        "claim_gap": _difference(measured["claim"], measured["raw"]),
        "fitted": _interval(row.fitted),
        "gain": _interval(row.gain),
        "gate": gate.get("decision"),
        "gate_why": gate.get("why", ""),
        "pairs": [[_round(p), _round(c)] for p, c in _pairs(gate)],
        "trainer": row.trainer,
        "scaffold": row.scaffold,
        "why": row.why,
        "boot": gen.boot,
        "review": gen.review,
        "evidence": gen.review_hash,
        "alarms": gen.alarms,
        "trials": len(share.trials),
        "explored": len(explored),
        "best_explored": _round(min(explored)) if explored else None,
        "cost": cost_json(row.cost),
        "note": gen.note[:NOTE_CHARS],
    }


def _champion(generations: Sequence[Json], starter: Json) -> Json:
    """The last that was adopted, as it was measured."""
    adopted = (gen for gen in reversed(generations) if gen["trainer"] == "adopted" and gen["score"])
    return next(adopted, starter)


def _measured(trials: Sequence[Trial]) -> Json:
    """Claim, verdict and skills of trials that measure one bundle, each a mean over them."""
    verdicts = [trial.verdict for trial in trials if trial.verdict is not None]
    claims = [trial.claim.bits for trial in trials if trial.claim.bits is not None]
    skills = sorted({skill for verdict in verdicts for skill in verdict.by_skill})
    return {
        "claim": _mean(claims),
        "raw": _interval_of([verdict.raw_bits for verdict in verdicts]),
        "score": _interval_of([verdict.score for verdict in verdicts]),
        # Of these very documents, so that `raw` minus `floor` is `score`: each set of documents has another.
        "floor": _mean(verdict.floor_bits for verdict in verdicts),
        "skills": {skill: _mean(v.by_skill[skill] for v in verdicts if skill in v.by_skill) for skill in skills},
        "scores": [_round(verdict.score) for verdict in verdicts],
        "faults": [trial.fault for trial in trials if trial.fault is not None],
    }


def _calibration(state: State) -> Json:
    found = state.calibration
    if found is None:
        return None
    keys = ("measured", "why", "smallest_gain", "trial_seconds", "document_se", "scores", "conditions")
    noise = found["noise"]
    # Few degrees of freedom: the noise itself is uncertain, and its band wider than two standard deviations.
    band = t_quantile((1.0 + CONFIDENCE) / 2.0, noise["df"]) * noise["sd"]
    return {**{key: found.get(key) for key in keys}, **noise, "band": _round(band)}


def _final(state: State) -> Json:
    final = state.final
    if final is None:
        return None
    gain = _interval(summary.final_gain(state))
    trials = [trial for trial in state.trials.values() if trial.purpose == "final"]
    sides = {name: [trial for trial in trials if trial.bundle == final[name]] for name in ("starter", "champion")}
    return {
        "gain": gain,
        **summary.final_words(state),
        "clear": gain is not None and gain["low"] > 0,
        "pairs": [[_round(a), _round(b)] for a, b in final.get("pairs", [])],
        "faults": final.get("faults", []),
        "champion": _measured(sides["champion"]),
        "starter": _measured(sides["starter"]),
    }


def _trial(trial: Trial, notes: Mapping[str, str]) -> list[Json]:
    verdict = trial.verdict
    return [
        trial.trial_id,
        trial_ids.generation_of(trial.trial_id),
        trial.purpose,
        trial_ids.side_of(trial.trial_id),
        _round(trial.claim.bits),
        _round(verdict.raw_bits if verdict else None),
        _round(verdict.score if verdict else None),
        _round(verdict.select_score if verdict else None),
        round(trial.train_seconds, 2),
        trial.fault,
        None if verdict is None or verdict.proof is None else verdict.proof.agrees,
        trial.bundle[:12],
        notes.get(trial.trial_id, ""),
    ]


def _under_way(intent: Json) -> Json:
    return {key: intent.get(key) for key in ("trial_id", "purpose", "generation")}


def _has_select(trial: Trial) -> bool:
    return trial.verdict is not None and trial.verdict.select_score is not None


def _pairs(gate: Json) -> list[tuple[float, float]]:
    return list(zip(gate.get("parent_scores", ()), gate.get("child_scores", ()), strict=True))


def _counts(words: Iterable[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for word in words:
        found[word] = found.get(word, 0) + 1
    return found


def _interval_of(values: Sequence[float]) -> Json:
    """With one value there is a mean and no interval."""
    if len(values) < 2:
        return {"mean": _round(values[0]), "low": None, "high": None, "n": 1} if values else None
    return _interval(mean_interval(values, CONFIDENCE))


def _interval(interval: Interval | None) -> Json:
    if interval is None:
        return None
    return {"mean": _round(interval.mean), "low": _round(interval.low), "high": _round(interval.high), "n": interval.n}


def _mean(values: Iterable[float]) -> float | None:
    found = list(values)
    return _round(sum(found) / len(found)) if found else None


def _difference(claim: float | None, raw: Json) -> float | None:
    return None if claim is None or raw is None else _round(claim - raw["mean"])


def _round(value: float | None) -> float | None:
    if value is not None and not math.isfinite(value):
        raise ValueError("a number beyond all bounds")  # no JSON
    return None if value is None else round(value, DIGITS)
