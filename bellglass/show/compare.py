"""Loops side by side: a row for each, what they share said once, and what makes them hard to compare.

A mean over loops is given only where task, preset, budget and improver are the same, because only then is it a mean of
one thing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bellglass.errors import UsageError
from bellglass.records import Interval, Json
from bellglass.show.showing import Shown
from bellglass.show.summary import about_improvers, final_text
from bellglass.stats import CONFIDENCE, mean_interval
from bellglass.store.state import State


@dataclass(frozen=True, slots=True)
class Mean:
    """What loops that may be averaged gained over the starter."""

    of: str  # improver, task, preset and budget, which all of them share
    loops: int
    gain: Interval | None  # over loops, of each loop's own mean; None with fewer than two


def row(shown: Shown) -> Json:
    """LoopFault where its events make a state that cannot be shown."""
    doc, state = shown.document(), shown.state
    final = doc["final"] or {"gain": None, "failed": ""}
    improved = [gen["raw"] for gen in doc["generations"] if gen["trainer"] == "adopted" and gen["raw"]]
    done = [gen for gen in doc["generations"] if gen["done"]]
    return {
        "loop": doc["loop"]["name"],
        "task": doc["loop"]["task"],
        "unit": doc["loop"]["unit"],
        "preset": doc["config"]["preset"],
        "budget": _budget(state),
        "glass": doc["loop"]["glass"],
        "sealed": doc["loop"]["sealed"],
        "standing": doc["loop"]["standing"] and doc["loop"]["standing"]["word"],
        "improver": ", ".join(sorted(set(doc["loop"]["models"].values()))),
        "generations": len(done),
        "adopted": doc["oversight"]["adopted"],
        "starter": doc["starter"]["raw"],
        "champion": improved[-1] if improved else doc["starter"]["raw"],
        "final_gain": final["gain"],
        "final_failed": final["failed"] and final_text(final, ""),
        "baselines": doc["baselines"],
        "noise": None if doc["calibration"] is None else doc["calibration"]["sd"],
        "train_seconds": doc["spent"]["train_seconds"],
        "calls": doc["spent"]["calls"],
        "usd": doc["spent"]["usd"],
        "tripwires": len(doc["tripwires"]),
        "ended": None if doc["ended"] is None else doc["ended"]["why"],
        "secret_commitment": doc["loop"]["secret_commitment"],
        "missing": doc["missing"],
    }


def require_same(one: Shown, other: Shown) -> None:
    """Two folders of one id must hold the same loop, which then counts once. UsageError where they do not: anybody may
    give a loop the id of another, so which one is meant is for a person to say."""
    if one.about.head != other.about.head:
        raise UsageError(
            f"loop {one.state.loop_id}",
            f"two that differ: {one.folder} and {other.folder}",
            "one loop of that id",
            "bellglass compare LOOP..., which names one of them",
            code="loops_of_one_id",
        )


def _budget(state: State) -> str:
    """Of a full trial, as the trials that decide had it."""
    for trial in state.trials.values():
        if trial.purpose != "explore":
            return trial.budget.text
    return "unknown"


def means(found: Sequence[Json]) -> list[Mean]:
    alike: dict[str, list[Json]] = {}
    for row in found:
        alike.setdefault(_comparable(row), []).append(row)
    made = []
    for of, members in alike.items():
        gains = [row["final_gain"]["mean"] for row in members if row["final_gain"] is not None]
        made.append(Mean(of, len(members), mean_interval(gains, CONFIDENCE) if len(gains) > 1 else None))
    return made


def _comparable(row: Json) -> str:
    return f"{row['improver']} on {row['task']} ({row['preset']}, {row['budget']})"


def cautions(states: Sequence[State], found: Sequence[Json]) -> list[str]:
    """Why these loops may not compare, and what a built-in improver's results are evidence of."""
    said = []
    if len({(row["task"], row["preset"]) for row in found}) > 1:
        said.append("tasks or presets differ: scores of different ones don't compare, only each with its own starter")
    budgets = {row["loop"]: row["budget"] for row in found}
    if len({*budgets.values()}) > 1:
        told = ", ".join(f"{loop} {budget}" for loop, budget in budgets.items())
        said.append(f"budgets of a trial differ: {told}")
    received = [row["loop"] for row in found if row["standing"] == "received"]
    if received:
        said.append(f"received, so that all of it is its maker's word: {', '.join(received)}")
    if len({row["sealed"] for row in found}) > 1:
        said.append("some of these loops were sealed and some were not")
    if len({row["secret_commitment"] for row in found}) > 1:
        said.append("the loops drew different data: compare gains over the starter, not scores")
    return list(dict.fromkeys([*said, *(line for state in states for line in about_improvers(state))]))
