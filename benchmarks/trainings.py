"""Many bare trainings of edited trainers: workers of one thread each, every result kept in a file of JSON lines.

A training is known by what made it: files, share of the budget, seeds, documents. Asked for again, the stored result is
the answer, so a program that asks for the same trainings in the same order goes on where it was cut off.

For trainers whose edits are ours (the menu's); see bare_trial.py.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import TypeAlias

import page

from bellglass import tasks
from bellglass.records import Budget
from bellglass.steps.trial import derive_key, derive_seeds
from bellglass.store import bundles

Files: TypeAlias = dict[str, str]  # "trainer/model.py" -> its text
WORKERS, NICE, NICEST = 2, 15, 19
MEASURED = Path(__file__).resolve().parent / "measured"  # to be committed: what is there need not be trained again


@dataclass(frozen=True)
class World:
    """What all trainings of one replicate share: the task, its data, the full budget."""

    task: str
    replicate: int
    seconds: float

    @property
    def secret(self) -> bytes:
        return hashlib.sha256(f"benchmarks/trainings.py {self.replicate}".encode()).digest()


@dataclass(frozen=True)
class Job:
    files: Files
    fraction: float
    seeds: str  # the same words, the same seeds
    split: tasks.Split
    salt: str = ""


@dataclass(frozen=True)
class Result:
    score: float | None  # None: the training failed
    seconds: float  # of training, failed or not
    machine: str = page.UNRECORDED


Train: TypeAlias = Callable[[Sequence[Job]], list[Result]]
Run: TypeAlias = Callable[[World, Job], Result]


class OutOfTime(Exception):
    """A training is needed that is not stored, and this run's time is over."""


class Trainings:
    """`train` answers from the file, or has the workers `run` until `deadline` (on the monotonic clock)."""

    def __init__(self, file: Path, world: World, workers: Executor, deadline: float, run: Run) -> None:
        self._file, self._world, self._workers, self._deadline, self._run = file, world, workers, deadline, run
        lines = file.read_text().splitlines() if file.exists() else []
        self._known = {line.pop("key"): Result(**line) for line in map(json.loads, lines)}
        self._under_way: dict[str, Future[Result]] = {}
        self.machines: set[str] = set()  # of all that was answered
        self._lock = threading.Lock()

    def train(self, jobs: Sequence[Job]) -> list[Result]:
        keys = [key_of(self._world, job) for job in jobs]
        with self._lock:
            missing = [key for key in keys if key not in self._known and key not in self._under_way]
            if missing and time.monotonic() > self._deadline:
                raise OutOfTime
            for key, job in zip(keys, jobs, strict=True):
                if key not in self._known and key not in self._under_way:
                    self._under_way[key] = self._workers.submit(self._run, self._world, job)
        return [self._result(key) for key in keys]

    def _result(self, key: str) -> Result:
        if key not in self._known:
            result = self._under_way[key].result()
            with self._lock:
                if key not in self._known:
                    self._keep(key, result)
        self.machines.add(self._known[key].machine)
        return self._known[key]

    def _keep(self, key: str, result: Result) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with self._file.open("a") as file:
            file.write(json.dumps({"key": key, **asdict(result)}) + "\n")
        self._known[key] = result


@lru_cache
def documents_hash(world: World) -> str:
    """Of all that training and scoring draw from, whichever split it is."""
    preset = _preset(world)
    drawn = tasks.documents_hash(tasks.load(world.task), preset), preset.confirm_docs, preset.final_docs
    return hashlib.sha256(repr(drawn).encode()).hexdigest()[:8]


def key_of(world: World, job: Job) -> str:
    files = hashlib.sha256(json.dumps(sorted(job.files.items())).encode()).hexdigest()[:16]
    data = f"{world.task} {documents_hash(world)} world {world.replicate}"
    return f"{data}: {files} for {job.fraction:g} of {world.seconds:g} s, seeds {job.seeds}, {job.split} {job.salt}"


def starter() -> Files:
    return {path: data.decode() for path, data in bundles.starter().items() if path.startswith("trainer/")}


def workers(count: int = WORKERS, nice: int = NICE) -> ProcessPoolExecutor:
    """Started afresh, not forked: a fork of a process with threads may hang."""
    os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported there: one thread, as in a glass
    return ProcessPoolExecutor(count, mp_context=get_context("spawn"), initializer=_prepare, initargs=(nice,))


def _prepare(nice: int) -> None:
    """Polite, one thread, gone when its parent is, and warm: a process's first steps take many times a step's time."""
    os.nice(max(0, nice - os.nice(0)))
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    import torch

    torch.set_num_threads(1)
    world, job = World("stories", 0, 3.0), Job(starter(), 1.0, "warm", "select")
    _train(world, job, Budget("steps", 4, 60.0), _documents(world, "train", ""), _documents(world, "select", ""))


def _end_with(parent: int) -> None:
    """A killed driver must leave no trainings behind."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


def run_job(world: World, job: Job) -> Result:
    """In a worker. Whatever an edit breaks fails this training alone; its seconds are charged all the same."""
    made = _documents(world, "train", ""), _documents(world, job.split, job.salt)  # no edit breaks these
    amount, began = world.seconds * job.fraction, time.process_time()
    try:
        result = _train(world, job, Budget("cpu_seconds", amount, 100 * amount), *made)
    except (Exception, SystemExit):  # boundary: the trainer is edited code
        return Result(None, round(time.process_time() - began, 3), page.machine())
    good = result.score is not None and math.isfinite(result.score)
    return replace(result, score=result.score if good else None, machine=page.machine())


def _train(world: World, job: Job, budget: Budget, train: tasks.Documents, test: tasks.Documents) -> Result:
    import bare_trial  # it and torch are needed in workers only

    with tempfile.TemporaryDirectory() as name:
        for path, text in job.files.items():
            (Path(name) / path.removeprefix("trainer/")).write_text(text)
        seeds = derive_seeds(world.secret, job.seeds)
        outcome = bare_trial.run(Path(name), tasks.load(world.task), train, test, seeds, budget)
    fits = len(outcome.weights) <= _preset(world).weights_mb * 1e6  # as a glass has it
    return Result(outcome.score if fits else None, round(outcome.train_seconds, 3))


def _preset(world: World) -> tasks.Preset:
    presets = tasks.load(world.task).presets
    return presets["tiny" if world.seconds < presets["cpu"].budget.amount else "cpu"]


@lru_cache(maxsize=8)
def _documents(world: World, split: tasks.Split, salt: str) -> tasks.Documents:
    task, preset = tasks.load(world.task), _preset(world)
    counts = {"train": preset.train_docs, "select": preset.select_docs, "confirm": preset.confirm_docs}
    return tasks.make(task, split, derive_key(world.secret, "data"), counts.get(split, preset.final_docs), salt)
