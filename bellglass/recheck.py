"""Recheck: train a past generation's parent and child again, judge them on the same documents, compare.

Everything comes from ledger, lineage and secret, and nothing is written: the folder is somebody's evidence, and a loop
that still runs may be rechecked. The rule is `RULE`; under `exact` the recorded answers of `time_left` are given again
(steps/train.py), and every weight and score must be the same to the bit, which they are on the same kind of CPU.

Not covered: a forgery smaller than the noise; `exact` finds it. A noise forged with its trials; `verify --rejudge`
finds that, unless it came from an earlier calibration. A forged clock, under `exact` alone: a trial that was given
more time repeats to the bit when it is given it again. And other documents or guests than the loop's, from a newer
checkout: `notes` says when they may differ.
"""

from __future__ import annotations

import hashlib
import math
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from bellglass import tasks, trial_ids, weights
from bellglass.config import LoopConfig, restore
from bellglass.errors import GuestFault, LoopFault, UsageError
from bellglass.paths import typed
from bellglass.ports import Glass
from bellglass.records import Budget, Bundle, Json, Noise, Seeds, Trial, Verdict
from bellglass.rederive import decided_again, gate_pairs, unequal
from bellglass.rejudge import trusted_task
from bellglass.stats import CONFIDENCE, mean, t_quantile
from bellglass.steps import gate
from bellglass.steps.panel import rules_of
from bellglass.steps.train import train
from bellglass.steps.trial import Workbench, judge_weights, make_documents, seeds_of, split_of
from bellglass.store.blobs import Blobs
from bellglass.store.ledger import Ledger
from bellglass.store.lineage import Lineage
from bellglass.store.state import Generation, State, fold
from bellglass.tasks import Documents
from bellglass.verify import require_committed, secret_of
from bellglass.weights import WEIGHTS_FILE

RULE = (
    "It holds when the mean gains, recorded and new, lie no further apart than the noise of gains explains in 19 of 20 "
    "cases, what failed fails again, and no proof disagrees that is recorded to agree; a guest that the machine lost "
    "says nothing."
)
EXACT_RULE = "It holds exactly when all weights and scores, under the recorded clock, are the same to the bit."


@dataclass(frozen=True, slots=True)
class Asked:
    generation: int
    seeds: int | None = None  # None: the gate's own; else so many new ones
    exact: bool = False
    task: Path | None = None  # the folder of a task of one's own

    def typed(self, folder: Path) -> str:
        """The command that asks this, but for the task's folder."""
        seeds = "" if self.seeds is None else f" --seeds {self.seeds}"
        return f"bellglass recheck {typed(folder)} {self.generation}{seeds}{' --exact' if self.exact else ''}"


@dataclass(frozen=True, slots=True)
class Job:
    """One training to do again. `recorded` is None under new seeds."""

    trial_id: str
    bundle: Bundle
    seeds: Seeds
    budget: Budget
    recorded: Trial | None
    clock: Sequence[float] | None
    proved: bool  # as recorded; under new seeds all of its side were


@dataclass(frozen=True, slots=True)
class Case:
    """All that a recheck needs, read and checked before anything is trained."""

    asked: Asked
    config: LoopConfig
    bench: Workbench
    rules: gate.Rules
    decision: str
    wrong: str  # what the ledger contradicts itself in, or nothing
    recorded: tuple[tuple[float, float], ...]
    failed: bool  # a recorded trial of the gate did, by its own doing
    jobs: tuple[tuple[Job, Job], ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Again:
    """One trial, as recorded and as it came out now."""

    trial_id: str
    recorded: float | None
    again: float | None
    recorded_fault: str | None
    fault: str | None
    same_weights: bool | None  # None: nothing to compare with
    same: bool | None  # scores, on `select` too, proof and fault are those recorded, to the bit
    disproved: bool = False  # its proof disagrees, which the ledger does not say


@dataclass(frozen=True, slots=True)
class Outcome:
    generation: int
    exact: bool
    decision: str
    trials: tuple[Again, ...]
    gain: float | None
    gain_again: float | None
    explained: float | None  # how far apart the noise lets the two gains be
    decision_again: str
    holds: bool
    why: str
    notes: tuple[str, ...]


def prepare(folder: Path, ledger: Ledger, asked: Asked) -> Case:
    """Raises what makes a recheck impossible, before a guest is opened."""
    state = fold(ledger.events())
    gen = _decided(state, asked, folder)
    secret = _secret(folder, state)
    config = restore(state.config)
    if asked.exact and (asked.seeds is not None or config.device != "cpu"):
        found = f"device {config.device}" if asked.seeds is None else "new seeds, which nothing is recorded for"
        raise UsageError("--exact", found, "the recorded seeds, on a CPU", f"bellglass recheck {typed(folder)}")
    task = trusted_task(state, asked.task, asked.typed(folder))
    bench = Workbench(task, config.preset_of(task), secret, config.device, side_by_side=1)
    lineage, blobs = Lineage.open(folder / "lineage.git"), Blobs(folder / "blobs")
    assert gen.successor is not None
    bundles = (lineage.read(gen.parent), lineage.read(gen.successor))
    recorded = {trial.trial_id: trial for trial in state.trials_of(gen.number, "gate")}
    count = len(recorded) // 2 if asked.seeds is None else asked.seeds
    name = trial_ids.pair if asked.seeds is None else trial_ids.recheck
    jobs = []
    for index in range(count):
        ids = [name(gen.number, index, side) for side in trial_ids.GATE_SIDES]
        parent, child = (
            _job(bench, trial_id, bundle, recorded, asked.exact, blobs)
            for trial_id, bundle in zip(ids, bundles, strict=True)
        )
        jobs.append((parent, child))
    rules, (pairs, _) = rules_of(state, gen.number), gate_pairs(state, gen.number)
    return Case(
        asked=asked,
        config=config,
        bench=bench,
        rules=rules,
        decision=gen.gate["decision"],
        wrong=_contradiction(state, gen, list(recorded.values())),
        recorded=tuple(pairs),
        failed=any(trial.fault not in (None, "lost") for trial in recorded.values()),
        jobs=tuple(jobs),
        notes=(*_notes(state, tasks.contents(task)), *_lost(recorded.values())),
    )


def _decided(state: State, asked: Asked, folder: Path) -> Generation:
    gen = state.generations.get(asked.generation)
    if gen is not None and gen.gate is not None:
        return gen
    decided = [str(gen.number) for gen in state.generations.values() if gen.gate is not None]
    thing, needed = f"generation {asked.generation} of {folder.name}", f"one of {', '.join(decided) or 'none yet'}"
    raise UsageError(thing, "no verdict of a gate", needed, f"bellglass status {typed(folder)}")


def _contradiction(state: State, gen: Generation, recorded: list[Trial]) -> str:
    said, follows = gen.gate["decision"], decided_again(state, gen.number)
    return f"the ledger says {said}, and its own scores give {follows}" if said != follows else unequal(recorded)


def _secret(folder: Path, state: State) -> bytes:
    secret = secret_of(folder, state)
    if secret is None:
        found, needed = "a secret that is not revealed yet", "its end, or its owner"
        raise LoopFault(f"loop {folder.name}", found, needed, f"bellglass status {typed(folder)}")
    return require_committed(folder, state, secret)


def _job(
    bench: Workbench, trial_id: str, bundle: Bundle, gate_trials: Mapping[str, Trial], exact: bool, blobs: Blobs
) -> Job:
    recorded = gate_trials.get(trial_id)
    budget = bench.preset.budget if recorded is None else recorded.budget
    clock = _clock(recorded, blobs) if exact and recorded is not None else None
    side = trial_ids.side_of(trial_id)
    like = gate_trials.values() if recorded is None else [recorded]
    verdicts = [trial.verdict for trial in like if trial.verdict and trial_ids.side_of(trial.trial_id) == side]
    proved = bool(verdicts) and not any(verdict.disproved for verdict in verdicts)
    return Job(trial_id, bundle, seeds_of(bench.secret, trial_id), budget, recorded, clock, proved)


def _clock(trial: Trial, blobs: Blobs) -> Sequence[float] | None:
    """The answers to give again; None under a `steps` budget, where they follow from the questions."""
    if trial.budget.kind == "steps":
        return None
    if trial.clock is not None:
        answers: list[float] = np.frombuffer(blobs.get(trial.clock), dtype="<f8").tolist()
        return answers
    if trial.claim.steps == 0:
        return []
    needed = "a loop from a version that keeps what time_left was answered"
    raise LoopFault(f"trial {trial.trial_id}", "no recorded clock", needed, "bellglass recheck without --exact")


def _notes(state: State, content: dict[str, str]) -> tuple[str, ...]:
    then = state.created["content"]
    changed = [part for part in ("sandbox", "tasks") if content[part] != then.get(part)]
    return tuple(f"{part}/ is not what the loop was made with, so the scores may differ" for part in changed)


def _lost(recorded: Iterable[Trial]) -> list[str]:
    return [
        f"{trial.trial_id} was lost by the machine then: not compared" for trial in recorded if trial.fault == "lost"
    ]


def recheck(case: Case, glass: Glass, *, side_by_side: int, say: Callable[[Again], None]) -> Outcome:
    """Train and judge, parent and child at the same time where they were."""
    cancel = threading.Event()
    train_docs, select = make_documents(case.bench, "train", ""), make_documents(case.bench, "select", "")
    trials: list[Again] = []

    def run(job: Job) -> Again:
        confirm = make_documents(case.bench, *split_of(job.trial_id, "gate"))
        first = _again(case, glass, job, (train_docs, confirm, select), cancel.is_set)
        if first.fault in (None, first.recorded_fault):
            return first
        # This machine may have lost or starved it, which accuses nobody: once more.
        return _again(case, glass, job, (train_docs, confirm, select), cancel.is_set)

    with ThreadPoolExecutor(max_workers=min(2, side_by_side), thread_name_prefix="recheck") as pool:
        try:
            for pair in case.jobs:
                for done in pool.map(run, pair):
                    trials.append(done)
                    say(done)
        except BaseException:
            cancel.set()  # else a Ctrl-C would wait for the trainings under way
            raise
    return outcome_of(case, tuple(trials))


def _again(
    case: Case, glass: Glass, job: Job, docs: tuple[Documents, Documents, Documents], cancelled: Callable[[], bool]
) -> Again:
    bench, labels = case.bench, {"loop": "recheck", "generation": str(case.asked.generation), "trial": job.trial_id}
    train_docs, confirm, select = docs
    training = train(
        glass,
        job.bundle,
        tasks.train_order(train_docs, job.seeds.data_seed),
        task=bench.task,
        seeds=job.seeds,
        budget=job.budget,
        labels=labels,
        device=bench.device,
        cancelled=cancelled,
        recorded=job.clock,
    )
    fault, data, verdict = training.fault, training.files.get(WEIGHTS_FILE, b""), None
    was = job.recorded.verdict if job.recorded else None
    beside = select if was is not None and was.select_score is not None else None
    if fault is None:
        try:
            weights.check(data, max_bytes=int(bench.preset.weights_mb * 1e6))
            verdict = judge_weights(glass, job.bundle, data, job.trial_id, "gate", confirm, bench, labels, beside)
        except GuestFault as error:
            fault = error.code
    same_weights, same = None, None
    if job.recorded is not None:
        same_weights = fault is None and hashlib.sha256(data).hexdigest() == job.recorded.weights
        same = fault == job.recorded.fault
        if was is not None and verdict is not None:
            same = _measured(was) == _measured(verdict)
    return Again(
        trial_id=job.trial_id,
        recorded=None if was is None else was.score,
        again=None if verdict is None else verdict.score,
        recorded_fault=None if job.recorded is None else job.recorded.fault,
        fault=fault,
        same_weights=same_weights,
        same=same,
        disproved=job.proved and verdict is not None and verdict.disproved,
    )


def _measured(verdict: Verdict) -> tuple[float, float | None, bool]:
    return verdict.score, verdict.select_score, verdict.disproved


def outcome_of(case: Case, trials: tuple[Again, ...]) -> Outcome:
    """What the trials say, parent's and child's in turn."""
    scores = [(parent.again, child.again) for parent, child in zip(trials[::2], trials[1::2], strict=True)]
    pairs = [(parent, child) for parent, child in scores if parent is not None and child is not None]
    gain, again = _mean_gain(case.recorded), _mean_gain(pairs)
    explained = None
    if case.recorded and pairs:
        explained = noise_explains(pairs, len(case.recorded), case.rules.noise)
    why = _why_not(case, trials, gain, again, explained)
    return Outcome(
        generation=case.asked.generation,
        exact=case.asked.exact,
        decision=case.decision,
        trials=trials,
        gain=gain,
        gain_again=again,
        explained=explained,
        decision_again=gate.played(pairs, case.rules).decision if len(pairs) == len(scores) else "reject",
        holds=not why,
        why=why or (EXACT_RULE if case.asked.exact else RULE),
        notes=case.notes,
    )


def noise_explains(again: Sequence[tuple[float, float]], recorded: int, noise: Noise) -> float:
    """How far from the mean of so many recorded gains the mean of these new ones may lie.

    As in the gate, a gain's variance is that of the (new) gains, shrunk towards two unpaired trainings'. Under the same
    seeds recorded and new gains lie closer together than this counts on, so an honest ledger rarely fails.
    """
    variance, df = gate.spread_of_gains(again, noise)
    return t_quantile(0.5 + 0.5 * CONFIDENCE, df) * math.sqrt(variance * (1.0 / recorded + 1.0 / len(again)))


def _mean_gain(pairs: Sequence[tuple[float, float]]) -> float | None:
    return mean([parent - child for parent, child in pairs]) if pairs else None


def _why_not(
    case: Case, trials: tuple[Again, ...], gain: float | None, again: float | None, explained: float | None
) -> str:
    """The first reason why the verdict does not hold, or nothing."""
    if case.wrong:
        return case.wrong
    leak = next((trial.trial_id for trial in trials if trial.disproved), None)
    if leak is not None:
        return f"the proof of {leak} disagrees now, and the ledger does not say so"
    failed = [trial for trial in trials if trial.fault is not None]
    if case.asked.seeds is not None and case.failed != bool(failed):
        return (
            f"{failed[0].trial_id} {_word(failed[0].fault)}" if failed else "a recorded trial failed, and none does now"
        )
    for trial in trials if case.asked.seeds is None else ():
        if trial.recorded_fault not in (trial.fault, "lost"):
            return f"{trial.trial_id} was recorded as {_word(trial.recorded_fault)}, and is {_word(trial.fault)} now"
        repeats = trial.same and (trial.fault or trial.same_weights)
        if case.asked.exact and not repeats and trial.recorded_fault != "lost":
            return f"{trial.trial_id} is not the same to the bit"
    if gain is not None and again is not None and explained is not None and abs(again - gain) > explained:
        return f"the gains are {abs(again - gain):.4f} bits apart, and the noise explains {explained:.4f}"
    return ""


def _word(fault: str | None) -> str:
    return "judged" if fault is None else f"failed ({fault})"


HEAD = "scores are as the gate compares them, above a known floor: raw verdicts, as status shows them, lie higher"


def trial_line(trial: Again) -> str:
    recorded, again = (
        f"{score:.5f}" if score is not None else fault or "–"
        for score, fault in ((trial.recorded, trial.recorded_fault), (trial.again, trial.fault))
    )
    said = {None: "", True: "  same weights", False: "  other weights"}[trial.same_weights if not trial.fault else None]
    said += "  its proof disagrees" if trial.disproved else ""
    return f"{trial.trial_id:<22} recorded {recorded:<10} again {again:<10}{said}"


def lines(outcome: Outcome) -> list[str]:
    """What people read below the trials."""
    told = [f"note: {note}" for note in outcome.notes]
    if outcome.gain is not None and outcome.gain_again is not None:
        told.append(
            f"gain recorded {outcome.gain:+.5f}, again {outcome.gain_again:+.5f}; "
            f"the noise explains {outcome.explained:.5f} between them"
        )
    again = "undecided" if outcome.decision_again == "more" else outcome.decision_again
    told.append(f"recorded: {outcome.decision}; the gate on the new scores alone: {again}")
    told.append(f"generation {outcome.generation} {'holds' if outcome.holds else 'does NOT hold'}: {outcome.why}")
    return told


def as_json(outcome: Outcome) -> Json:
    return asdict(outcome)
