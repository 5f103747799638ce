"""Recheck: train a past generation's parent and child again, judge them on the same documents, compare.

Everything comes from ledger, lineage and secret, and nothing is written: the folder is somebody's evidence, and a loop
that still runs may be rechecked. Whether the verdict holds says holds.py; under `exact` the recorded answers of
`time_left` are given again (steps/train.py), and every weight and score must be the same to the bit, which they are on
the same kind of CPU.

Not covered: a forgery smaller than the noise; `exact` finds it. A noise forged with its trials; `verify --rejudge`
finds that, unless it came from an earlier calibration. A forged clock, under `exact` alone: a trial that was given
more time repeats to the bit when it is given it again. And other documents or guests than the loop's, from a newer
checkout: `notes` says when they may differ.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np

from bellglass import tasks, trial_ids, weights
from bellglass.chronicle import chronicle_finding
from bellglass.config import restore
from bellglass.errors import GuestFault, LoopFault, UsageError
from bellglass.holds import Again, Asked, Case, Job, Outcome, outcome_of
from bellglass.paths import typed
from bellglass.ports import Glass
from bellglass.received import on_this_machine, require_fit, trusted_task
from bellglass.records import Budget, Bundle, Trial, Verdict
from bellglass.rederive import decided_again, gate_pairs, unequal
from bellglass.steps.pairs import turns
from bellglass.steps.panel import rules_of
from bellglass.steps.train import train
from bellglass.steps.trial import Workbench, judge_weights, make_documents, seeds_of, split_of
from bellglass.store.blobs import Blobs
from bellglass.store.ledger import Event, Ledger
from bellglass.store.lineage import Lineage
from bellglass.store.state import Generation, State, fold
from bellglass.tasks import Documents
from bellglass.verify import require_committed, secret_of
from bellglass.weights import WEIGHTS_FILE


def prepare(folder: Path, ledger: Ledger, asked: Asked) -> Case:
    """Raises what makes a recheck impossible, before a guest is opened."""
    events = ledger.events()
    state = fold(events)
    gen = _decided(state, asked, folder)
    secret = _secret(folder, state)
    standing = ledger.standing()
    config = on_this_machine(restore(state.config), standing, asked.device)
    if asked.exact and (asked.seeds is not None or config.device != "cpu"):
        found = f"device {config.device}" if asked.seeds is None else "new seeds, which nothing is recorded for"
        raise UsageError(
            "--exact",
            found,
            "the recorded seeds, on a CPU",
            replace(asked, exact=False).typed(folder),
            code="choices_clash",
        )
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
        standing=standing,
        config=config,
        bench=bench,
        rules=rules,
        decision=gen.gate["decision"],
        wrong=_contradiction(events, state, gen, list(recorded.values())) or _beyond(recorded.values(), bench),
        recorded=tuple(pairs),
        failed=any(trial.fault not in (None, "lost") for trial in recorded.values()),
        jobs=tuple(jobs),
        notes=(*_notes(state, tasks.contents(task)), *_lost(recorded.values())),
        glasses=tuple(state.glasses),
    )


def _decided(state: State, asked: Asked, folder: Path) -> Generation:
    gen = state.generations.get(asked.generation)
    if gen is not None and gen.gate is not None:
        return gen
    decided = [str(gen.number) for gen in state.generations.values() if gen.gate is not None]
    thing, needed = f"generation {asked.generation} of {folder.name}", f"one of {', '.join(decided) or 'none yet'}"
    raise UsageError(
        thing, "no verdict of a gate", needed, f"bellglass status {typed(folder)}", code="unknown_generation"
    )


def _contradiction(events: Sequence[Event], state: State, gen: Generation, recorded: list[Trial]) -> str:
    order = chronicle_finding(events)
    if not order.ok:
        return order.found
    decided, derived = gen.gate["decision"], decided_again(state, gen.number)
    if decided != derived:
        return f"the ledger says {decided}, and its own scores give {derived}"
    return unequal(recorded)


def _secret(folder: Path, state: State) -> bytes:
    secret = secret_of(folder, state)
    if secret is None:
        found, needed = "a secret that is not revealed yet", "its end, or its owner"
        raise LoopFault(
            f"loop {folder.name}", found, needed, f"bellglass status {typed(folder)}", code="secret_not_revealed"
        )
    return require_committed(folder, state, secret)


def _job(
    bench: Workbench, trial_id: str, bundle: Bundle, gate_trials: Mapping[str, Trial], exact: bool, blobs: Blobs
) -> Job:
    recorded = gate_trials.get(trial_id)
    budget = bench.preset.budget if recorded is None else _affordable(recorded.budget, bench.preset.budget)
    clock = _clock(recorded, blobs) if exact and recorded is not None else None
    side = trial_ids.side_of(trial_id)
    like = gate_trials.values() if recorded is None else [recorded]
    verdicts = [trial.verdict for trial in like if trial.verdict and trial_ids.side_of(trial.trial_id) == side]
    proved = bool(verdicts) and not any(verdict.disproved for verdict in verdicts)
    return Job(trial_id, bundle, seeds_of(bench.secret, trial_id), budget, recorded, clock, proved)


def _beyond(recorded: Iterable[Trial], bench: Workbench) -> str:
    most = bench.preset.budget
    preset = f"its preset {most.kind} {most.amount:g}"
    told = [trial for trial in recorded if _affordable(trial.budget, most) != trial.budget]
    return " and ".join(f"{one.trial_id} was given {one.budget.kind} {one.budget.amount:g}, {preset}" for one in told)


def _affordable(told: Budget, most: Budget) -> Budget:
    """What a ledger says of its budgets is its maker's word, and a training may take all of one."""
    return told if told.kind == most.kind and told.amount <= most.amount else most


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
    raise LoopFault(
        f"trial {trial.trial_id}",
        "no recorded clock",
        needed,
        "bellglass recheck without --exact",
        code="no_recorded_clock",
    )


def _notes(state: State, content: dict[str, str]) -> tuple[str, ...]:
    then = state.created["content"]
    changed = [part for part in ("sandbox", "tasks") if content[part] != then.get(part)]
    return tuple(f"{part}/ is not what the loop was made with, so the scores may differ" for part in changed)


def _lost(recorded: Iterable[Trial]) -> list[str]:
    return [
        f"{trial.trial_id} was lost by the machine then: not compared" for trial in recorded if trial.fault == "lost"
    ]


def recheck(case: Case, glass: Glass, *, side_by_side: int, say: Callable[[Again], None]) -> Outcome:
    """Train and judge, parent and child at the same time where two fit."""
    require_fit(glass, case.standing)
    cancel = threading.Event()
    train_docs, select = make_documents(case.bench, "train", ""), make_documents(case.bench, "select", "")
    trials: list[Again] = []
    in_turn = turns(case.bench.secret, f"gate-{case.asked.generation}")

    def run(job: Job) -> Again:
        confirm = make_documents(case.bench, *split_of(job.trial_id, "gate"))
        first = _again(case, glass, job, (train_docs, confirm, select), cancel.is_set)
        if first.fault in (None, first.recorded_fault):
            return first
        # This machine may have lost or starved it, which accuses nobody: once more.
        return _again(case, glass, job, (train_docs, confirm, select), cancel.is_set)

    with ThreadPoolExecutor(max_workers=min(2, side_by_side), thread_name_prefix="recheck") as pool:
        try:
            for index, pair in enumerate(case.jobs):
                done: list[Again] = []
                for again in pool.map(run, in_turn(pair, index)):
                    done.append(again)
                    say(again)
                trials += in_turn(done, index)
        except BaseException:
            cancel.set()  # else a Ctrl-C would wait for the trainings under way
            raise
    return outcome_of(replace(case, notes=(*case.notes, *_other_glass(case, glass))), tuple(trials))


def _other_glass(case: Case, glass: Glass) -> list[str]:
    if set(case.glasses) == {glass.name}:
        return []
    ran = ", then ".join(case.glasses)
    return [f"trained again in the {glass.name} glass, and the loop's was {ran}: budgets in time may buy less or more"]


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
            judged = judge_weights(glass, job.bundle, data, job.trial_id, "gate", confirm, bench, labels, beside)
            verdict = judged.verdict
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
