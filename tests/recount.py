"""The numbers of a shown loop, counted again from its ledger's raw events: with nothing of `State`, `summary`, `view`.

`numbers` gives them in the document's own shape; `leaves` takes both apart, so that a number of the document that is
not counted here is noticed.

Not covered: texts, but for those beside the numbers of a trial; and what baselines reached, which is stored with a task
and not in a ledger.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pytest

from bellglass.stats import t_quantile

SECONDS = 0.0051  # seconds are shown with two digits behind the point, wall time with one
COSTS = ("train_seconds", "tokens_in", "tokens_out", "calls", "usd")
SIDES = ("parent", "child", "starter", "champion")
COLUMNS = (
    "id", "generation", "purpose", "side", "claim", "raw", "score", "select", "seconds", "fault", "proof", "bundle",
)  # fmt: skip


class Events:
    """As they lie in the file."""

    def __init__(self, rows: Sequence[tuple[int, float, str, str]]) -> None:
        self.rows = [(seq, when, kind, json.loads(body)) for seq, when, kind, body in rows]
        self.created = self.all("loop.created")[0]
        self.settled = self.all("trial.settled")
        self.calls = {body["key"]: body for body in self.all("call.settled")}

    @classmethod
    def of(cls, folder: Path, end: int = 10**9) -> Events:
        query = "SELECT seq, time, kind, body FROM events WHERE seq <= ? ORDER BY seq"
        with closing(sqlite3.connect(folder / "loop.db")) as db:
            return cls(db.execute(query, (end,)).fetchall())

    def all(self, kind: str) -> list[Any]:
        return [body for _, _, found, body in self.rows if found == kind]

    def of_generation(self, kind: str, number: int) -> list[Any]:
        return [body for body in self.all(kind) if body["generation"] == number]

    def open(self, began: str, name: str, *ends: str) -> dict[str, Any]:
        """What was announced and has not come to an end."""
        found: dict[str, Any] = {}
        for _, _, kind, body in self.rows:
            if kind == began:
                found[body[name]] = body
            elif kind in ends:
                found.pop(body[name])
        return found

    @property
    def burnt(self) -> list[Any]:
        """The asks of interrupted trainings, and what calls cost whose answer a crash cut off."""
        asks, costs = {}, []
        for _, _, kind, body in self.rows:
            if kind == "trial.intended":
                asks[body["trial_id"]] = body["ask"]
            elif kind == "trial.burnt":
                costs.append(asks[body["trial_id"]])
        return costs + [body["cost"] for body in self.all("call.settled") if body["facts"]["outcome"] == "unknown"]

    @property
    def spent(self) -> list[Any]:
        answered = [body["cost"] for body in self.all("call.settled") if body["facts"]["outcome"] != "unknown"]
        return answered + [{"train_seconds": trial["train_seconds"]} for trial in self.settled]


def numbers(events: Events) -> dict[str, Any]:
    """What the document must show."""
    config = ([body["config"] for body in events.all("loop.resumed") if body["config"]] or [events.created["config"]])[
        -1
    ]
    trials, calls = _open(events)
    generations = _generations(events)
    starter = [t for t in events.settled if t["bundle"] == events.created["starter"] and t["verdict"]]
    gate = [t for t in starter if t["purpose"] == "gate"]
    measured = _measured(gate or [t for t in starter if t["purpose"] == "calibrate"])
    adopted = [gen["floor"] for gen, end in zip(generations, _ends(events), strict=True) if end == "adopted"]
    return {
        "format": 1,
        "loop": {"seq": events.rows[-1][0], "started": events.rows[0][1], "updated": events.rows[-1][1]},
        "config": config,
        "bounds": _bounds(events, config),
        "spent": _cost(events.spent),
        "burnt": _cost(events.burnt),
        "reserved": _cost([intent["ask"] for intent in (*trials, *calls)]),
        "wall_seconds": _wall(events),
        "calibration": _calibration(events),
        "floor": adopted[-1] if adopted else measured["floor"],
        "starter": measured,
        "generations": generations,
        "trials": {"columns": COLUMNS, "rows": [_row(trial) for trial in events.settled]},
        "under_way": [{key: intent[key] for key in ("trial_id", "purpose", "generation")} for intent in trials],
        "calls_under_way": len(calls),
        "tripwires": events.all("tripwire.fired"),
        "final": _final(events),
        "looks": _looks(events),
        "oversight": _oversight(events),
    }


def _open(events: Events) -> tuple[list[Any], list[Any]]:
    trials = events.open("trial.intended", "trial_id", "trial.settled", "trial.burnt")
    return list(trials.values()), list(events.open("call.reserved", "key", "call.settled").values())


def _ends(events: Events) -> list[str]:
    found = {body["generation"]: body["trainer"] for body in events.all("generation.ended")}
    return [found.get(body["generation"], "") for body in events.all("generation.started")]


def _bounds(events: Events, config: Any) -> list[Any]:
    used = _cost(events.spent + events.burnt)
    found = {
        "generations": (config["generations"], len(events.all("generation.ended"))),
        "train_seconds": (config["train_seconds"], used["train_seconds"]),
        "wall_seconds": (config["wall_seconds"], _wall(events)),
        "calls": (config["calls"], used["calls"]),
        "tokens": (config["tokens"], sum(c.get("tokens_in", 0) + c.get("tokens_out", 0) for c in _all(events))),
        "usd": (config["budget_usd"], used["usd"]),
    }
    return [{"name": name, "limit": limit, "used": spent} for name, (limit, spent) in found.items()]


def _all(events: Events) -> list[Any]:
    return events.spent + events.burnt


def _wall(events: Events) -> Any:
    return pytest.approx(sum(body["wall_seconds"] for body in events.all("loop.clock")), abs=0.051)


def _cost(costs: Sequence[Any]) -> dict[str, Any]:
    total = {name: sum(cost.get(name, 0) for cost in costs) for name in COSTS}
    near = {"train_seconds": pytest.approx(total["train_seconds"], abs=SECONDS), "usd": pytest.approx(total["usd"])}
    return total | near


def _calibration(events: Events) -> Any:
    for found in events.all("loop.calibrated")[-1:]:
        keys = ("smallest_gain", "trial_seconds", "document_se", "scores", "conditions")
        noise = found["noise"]
        band = _bits(t_quantile(0.975, noise["df"]) * noise["sd"])
        return {**{key: found[key] for key in keys}, "sd": noise["sd"], "df": noise["df"], "band": band}
    return None


def _generations(events: Events) -> list[Any]:
    made_by = {events.created["starter"]: 0}
    found = []
    for body in events.all("generation.started"):
        found.append(_generation(events, body["generation"], made_by.get(body["parent"], 0)))
        for ended in events.of_generation("generation.ended", body["generation"]):
            made_by.setdefault(ended["champion"], body["generation"])
    return found


def _generation(events: Events, number: int, parent: int) -> dict[str, Any]:
    own = [trial for trial in events.settled if trial["trial_id"].startswith(f"g{number}-")]
    explored = [t["verdict"]["score"] for t in own if t["purpose"] == "explore" and t["verdict"]]
    measured = _measured(_children(events, number, own))
    both = measured["claim"] is not None and measured["raw"] is not None
    costs = [call["cost"] for key, call in events.calls.items() if key.startswith(f"g{number}-")]
    gate: Any = ([body["gate"] for body in events.of_generation("gate.decided", number)] or [{}])[-1]
    pairs = list(zip(gate.get("parent_scores", []), gate.get("child_scores", []), strict=True))
    gain = gate.get("gain")
    alarms = [body["alarms"] for body in events.of_generation("generation.watched", number)[-1:]]
    alarms += [body["alarms"] for body in events.of_generation("champion.retrained", number)]
    return {
        "n": number,
        "from": parent,
        **measured,
        "claim_gap": _bits(measured["claim"].expected - measured["raw"]["mean"].expected) if both else None,
        "fitted": _fitted([trial for trial in own if trial["purpose"] == "gate"]),
        "gain": gain and {**_recorded(gain), "mean": _bits(mean(p - c for p, c in pairs)), "n": len(pairs)},
        "pairs": [[_bits(p), _bits(c)] for p, c in pairs],
        "boot": (events.of_generation("boot.checked", number) or [None])[-1],
        "review": (events.of_generation("review.decided", number) or [None])[-1],
        "alarms": sum(alarms),
        "trials": len(own),
        "explored": len(explored),
        "best_explored": _bits(min(explored)) if explored else None,
        "cost": _cost([*costs, *({"train_seconds": trial["train_seconds"]} for trial in own)]),
    }


def _children(events: Events, number: int, own: Sequence[Any]) -> list[Any]:
    """A new champion is measured by its panel, any other successor by its side of the gate."""
    panel = [trial for trial in own if trial["purpose"] == "panel"]
    if panel and events.of_generation("champion.retrained", number):
        return panel
    return [trial for trial in own if trial["purpose"] == "gate" and trial["trial_id"].endswith("-child")]


def _measured(trials: Sequence[Any]) -> dict[str, Any]:
    verdicts = [trial["verdict"] for trial in trials if trial["verdict"]]
    claims = [trial["claim"]["bits"] for trial in trials if trial["claim"]["bits"] is not None]
    skills = sorted({skill for verdict in verdicts for skill in verdict["by_skill"]})
    return {
        "claim": _bits(mean(claims)) if claims else None,
        "raw": _interval([verdict["raw_bits"] for verdict in verdicts]),
        "score": _interval([verdict["score"] for verdict in verdicts]),
        "floor": _bits(mean(verdict["floor_bits"] for verdict in verdicts)) if verdicts else None,
        "skills": {s: _bits(mean(v["by_skill"][s] for v in verdicts if s in v["by_skill"])) for s in skills},
        "scores": [_bits(verdict["score"]) for verdict in verdicts],
    }


def _fitted(gate: Sequence[Any]) -> Any:
    """How much more the children gained on `select` than on `confirm`, without the proofs' corrections."""

    def gap(trial: Any) -> float | None:
        verdict = trial["verdict"]
        if not verdict or verdict["select_score"] is None:
            return None
        over = max(0.0, verdict["proof"]["mean_gap_bits"]) if verdict["proof"] else 0.0
        return verdict["score"] - over - verdict["select_score"]

    gaps = {trial["trial_id"]: gap(trial) for trial in gate}
    pairs = [(gaps[name], gaps.get(name[: -len("child")] + "parent")) for name in gaps if name.endswith("-child")]
    found = [child - parent for child, parent in pairs if child is not None and parent is not None]
    return _interval(found) if len(found) > 1 else None


def _row(trial: Any) -> list[Any]:
    verdict: Any = trial["verdict"] or {}
    first, *_, side = trial["trial_id"].split("-")
    return [
        trial["trial_id"], int(first[1:]) if first[1:].isdecimal() else 0, trial["purpose"],
        side if side in SIDES else "", _bits(trial["claim"]["bits"]), _bits(verdict.get("raw_bits")),
        _bits(verdict.get("score")), _bits(verdict.get("select_score")),
        pytest.approx(trial["train_seconds"], abs=SECONDS), trial["fault"],
        (verdict.get("proof") or {}).get("agrees"), trial["bundle"][:12],
    ]  # fmt: skip


def _final(events: Events) -> Any:
    for final in events.all("final.opened"):
        trials = [trial for trial in events.settled if trial["purpose"] == "final"]
        gave_up = any(trial["verdict"] is None and trial["bundle"] == final["champion"] for trial in trials)
        believed = final["gain"] and not (final["alarms"] or gave_up or final["champion"] == final["starter"])
        gain = mean(old - new for old, new in final["pairs"]) if believed else None
        return {
            "gain": {**_recorded(final["gain"]), "mean": _bits(gain)} if believed else None,
            "clear": bool(believed and final["gain"]["low"] > 0),
            "pairs": [[_bits(old), _bits(new)] for old, new in final["pairs"]],
            **{side: _measured([t for t in trials if t["bundle"] == final[side]]) for side in ("starter", "champion")},
        }
    return None


def _looks(events: Events) -> dict[str, Any]:
    judged = [trial for trial in events.settled if trial["verdict"]]
    by = Counter(trial["purpose"] for trial in judged)
    beside = sum(t["purpose"] == "gate" and t["verdict"]["select_score"] is not None for t in judged)
    confirm = [trial["trial_id"].split("-")[:3] for trial in judged if trial["purpose"] in ("gate", "panel")]
    # Each generation's gate has the slice of an even number, its panel that of the odd one behind it.
    used = {2 * int(generation[1:]) + (what == "panel") for generation, what, _ in confirm}
    slices = events.created["confirm_slices"]
    return {
        "select": by["explore"] + by["calibrate"] + beside,
        "confirm": len(confirm),
        "confirm_sets": len({tuple(name) for name in confirm}),
        "confirm_slices": slices,
        "again": len(used) - len({number % slices for number in used}) if slices > 1 else 0,
        "final": by["final"],
    }


def _oversight(events: Events) -> dict[str, Any]:
    asked = [body["generation"] for body in events.all("review.requested")]
    decided = {body["generation"]: body["decision"] for body in events.all("review.decided")}
    adopted = [body["generation"] for body in events.all("generation.ended") if body["trainer"] == "adopted"]
    alarms = sum(body["alarms"] for kind in ("generation.watched", "champion.retrained") for body in events.all(kind))
    return {
        "asked": len(set(asked)),
        "decided": len(decided),
        "decisions": dict(Counter(decided.values())),
        "adopted": len(adopted),
        "adopted_without_review": len(set(adopted) - set(decided)),
        "alarms": alarms + sum(len(final["alarms"]) for final in events.all("final.opened")),
        "waiting": next((number for number in asked if number not in decided), None),
    }


def _recorded(interval: Any) -> dict[str, Any]:
    return {**{end: _bits(interval[end]) for end in ("mean", "low", "high")}, "n": interval["n"]}


def _interval(values: Sequence[float]) -> Any:
    if not values:
        return None
    if len(values) == 1:
        return {"mean": _bits(values[0]), "low": None, "high": None, "n": 1}
    reach = t_quantile(0.975, len(values) - 1) * stdev(values) / math.sqrt(len(values))
    low, high = mean(values) - reach, mean(values) + reach
    return {"mean": _bits(mean(values)), "low": _bits(low), "high": _bits(high), "n": len(values)}


def _bits(value: float | None) -> Any:
    """The document rounds to five digits."""
    return None if value is None else pytest.approx(value, rel=1e-6, abs=2e-5)


# Both taken apart


def leaves(value: Any, at: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    if isinstance(value, Mapping):
        items: Any = value.items()
    elif isinstance(value, list | tuple):
        items = enumerate(value)
    else:
        yield at, value
        return
    for key, inner in items:
        yield from leaves(inner, (*at, key))


def check(events: Events, shown: Any) -> None:
    """Every number that is shown was counted here, and every one that was counted is shown."""
    of_ledger = {key: value for key, value in shown.items() if key != "baselines"}
    found, counted = dict(leaves(of_ledger)), dict(leaves(numbers(events)))
    shown_numbers = {at for at, value in found.items() if isinstance(value, int | float) and type(value) is not bool}
    assert shown_numbers - set(counted) == set(), "shown, but counted by nobody"
    wrong = {at: (found.get(at), value) for at, value in counted.items() if found.get(at) != value}
    assert wrong == {}, "(shown, counted)"
