"""A loop in rows: what the console prints, `--json` gives and the picture draws. A projection of the state.

Pure but for what it reads of the loop's task: its unit, and, where a loop says that it improved, what the baselines
stored with the task reached.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from bellglass import tasks
from bellglass.errors import BellglassError
from bellglass.records import Cost, Interval, Json, Trial
from bellglass.show import baselines, phase, splits
from bellglass.stats import CONFIDENCE, mean, mean_interval
from bellglass.steps.final import champion_failed, failed_pairs
from bellglass.store.state import Call, Generation, State

POSITIVE_CONTROL = (
    "The offline improver is a positive control: we wrote its tricks, so nothing it does is evidence about recursive "
    "self-improvement."
)
BASELINE = (
    "The improver {} is a baseline: it draws from a menu of edits that people wrote and understands none of them. "
    "What another improver is worth is what it gains beyond that under the same bounds."
)

UNIT = "bits per target"  # of a task that is no longer there


@dataclass(frozen=True, slots=True)
class Row:
    """One generation as people see it. Bits are raw, so that claim and verdict compare."""

    generation: int
    parent: str
    successor: str | None
    kinds: tuple[str, ...]
    claim_bits: float | None
    verdict_bits: Interval | None
    gain: Interval | None
    fitted: Interval | None  # to `select`: see splits.py
    trainer: str
    scaffold: str
    why: str
    cost: Cost
    champion: str


@dataclass(frozen=True, slots=True)
class Share:
    """What one generation made: its trials and its model calls."""

    trials: list[Trial]
    calls: list[Call]

    def of(self, purpose: str) -> list[Trial]:
        return [trial for trial in self.trials if trial.purpose == purpose]

    def children(self, gen: Generation) -> list[Trial]:
        """The successor's trials. A new champion is shown by its panel: the scores that chose it were lucky by that."""
        panel = self.of("panel") if gen.panelled else []
        return panel or [trial for trial in self.of("gate") if trial.bundle == gen.successor]

    @property
    def cost(self) -> Cost:
        total = Cost(train_seconds=sum(trial.train_seconds for trial in self.trials))
        return sum((call.cost for call in self.calls), total)


def shares(state: State) -> dict[int, Share]:
    """By generation. What belongs to none (calibration, final) is generation 0's."""
    return {
        number: Share(state.trials_in(number), [call for _, call in state.calls_in(number)])
        for number in (0, *state.generations)
    }


def rows(state: State) -> list[Row]:
    made = shares(state)
    return [row(state, gen, made[gen.number]) for gen in state.generations.values()]


def row(state: State, gen: Generation, share: Share) -> Row:
    children = share.children(gen)
    claims = [trial.claim.bits for trial in children if trial.claim.bits is not None]
    gain = None if gen.gate is None or gen.gate["gain"] is None else Interval(**gen.gate["gain"])
    result = gen.result or {"trainer": phase.stage(gen, state), "scaffold": "", "why": "", "champion": ""}
    return Row(
        generation=gen.number,
        parent=short(state, gen.parent),
        successor=None if gen.successor is None else short(state, gen.successor),
        kinds=gen.kinds,
        claim_bits=mean(claims) if claims else None,
        verdict_bits=verdict_interval(children),
        gain=gain,
        fitted=splits.fitted(share.of("gate")),
        trainer=result["trainer"],
        scaffold=result["scaffold"],
        why=result["why"],
        cost=share.cost,
        champion=short(state, result["champion"]) if result["champion"] else "",
    )


def short(state: State, commit: str) -> str:
    return "starter" if commit == state.starter else commit[:8]


def title_and_unit(state: State) -> tuple[str, str]:
    """What the task calls itself and its unit; a task that is no longer there has neither."""
    try:
        task = tasks.load(state.config["task"])  # a folder of one's own by its path
    except (BellglassError, LookupError, TypeError, AttributeError, ValueError):  # no first event, or a strange one
        return "", UNIT
    return task.title, task.unit


def starter_trials(state: State) -> list[Trial]:
    """The starter as it was measured beside its first successors; before that, by the calibration."""
    own = [trial for trial in state.trials.values() if trial.bundle == state.starter and trial.verdict is not None]
    gate = [trial for trial in own if trial.purpose == "gate"]
    return gate or [trial for trial in own if trial.purpose == "calibrate"]


def verdict_interval(trials: list[Trial]) -> Interval | None:
    bits = [trial.verdict.raw_bits for trial in trials if trial.verdict is not None]
    return mean_interval(bits, CONFIDENCE) if len(bits) > 1 else None


def as_json(state: State) -> Json:
    """What reading commands print with --json."""
    gain = final_gain(state)
    return {
        "loop": state.loop_id,
        "task": state.created["task"],
        "glass": ", then ".join(state.glasses),
        "sealed": state.created["sealed"],
        "models": state.config["models"],
        "starter": state.starter,
        "champion": state.champion,
        "generations": [_row_json(item) for item in rows(state)],
        "final": state.final and {**state.final, "gain": gain and asdict(gain), **final_words(state)},
        "looks": splits.looks(state),
        "baselines": _baselines_json(state),
        "spent": cost_json(state.spent),
        "burnt": cost_json(state.burnt),
        "wall_seconds": round(state.wall_seconds, 1),
        "tripwires": state.tripwires,
        "ended": None if state.ended is None else {k: v for k, v in state.ended.items() if k != "secret"},
    }


def _baselines_json(state: State) -> Json:
    beside = baselines.for_loop(state)
    return None if beside is None else asdict(beside)


def final_gain(state: State) -> Interval | None:
    """Of the champion over the starter on `final`; None where there is none to believe, and `final_lacks` says why."""
    return None if state.final is None or final_lacks(state) else Interval(**state.final["gain"])


def final_lacks(state: State) -> str:
    final = state.final
    if final is None:
        return "not opened yet"
    if final.get("alarms"):
        return f"not believed, for a tripwire fired: {'; '.join(final['alarms'])}"
    if final["champion"] == final["starter"]:
        return "the champion is the starter"
    if said := champion_failed(state.trials.values()):
        return said  # in older ledgers with a gain over the rest
    return "too few trials succeeded" if final["gain"] is None else ""


def final_words(state: State) -> dict[str, str]:
    """Beside the gain: why there is none, and what failed."""
    opened = () if state.final is None else state.trials.values()
    return {"lacks": final_lacks(state), "failed": failed_pairs(opened)}


def final_text(words: Json, gain: str) -> str:
    """In one line: the gain, or why there is none; and what failed."""
    return "; ".join(part for part in (words["lacks"] or gain, words["failed"]) if part)


def baselines_line(state: State) -> str | None:
    """What a search that understands nothing gains on this task, for a loop that says it improved."""
    beside = baselines.for_loop(state)
    return None if beside is None else beside.line(state.created["content"].get("trainer_seed", ""))


def about_improvers(state: State) -> list[str]:
    """What a built-in improver's results are evidence of."""
    providers = sorted(set(state.config["models"].values()))
    control = [POSITIVE_CONTROL] if any(provider.partition(":")[0] == "offline" for provider in providers) else []
    return [*control, *(BASELINE.format(provider) for provider in providers if provider in baselines.NAMES)]


def _row_json(item: Row) -> Json:
    body = asdict(item)
    fitted = body.pop("fitted")
    return {**body, "fitted_to_select": fitted, "cost": cost_json(item.cost)}


def cost_json(cost: Cost) -> Json:
    return {**asdict(cost), "train_seconds": round(cost.train_seconds, 2)}
