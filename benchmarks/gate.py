"""Planted nulls, gains and losses in real trainings: how often the gate adopts what is no better, what it misses.

    python benchmarks/gate.py [--seconds 1.0] [--minutes 60] [--name gate] [--write-only]

Parent and child train at the same time, in two processes of one thread each, under fresh seeds; `gate.decide` stops
them. Nulls are the edits of bellglass/nulls.py. Gains and losses are planted by the child's budget: the slope of score
against budget is measured first. Decisions come in blocks: every block calibrates anew, as a loop does, then decides
once on each null and on two of the gains. All is one append-only file under benchmarks/measured/gate, to be committed:
a run that ends, or is cut off, is gone on with. Writes the section `gate` of docs/benchmarks.md. Another `--name` is
another run, with a folder and a section of that name: `gate-again` is one with nothing beside it.

The section stays where it states more decisions than are at hand. Delete its text by hand to have fewer on the page.

Trainings are our own code, without a glass and without the proof: see bare_trial.py. All use the same documents.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import itertools
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import gate_table  # noqa: E402
import page  # noqa: E402
from gate_log import Found, Log, Pair, read  # noqa: E402
from gate_table import GAINS, NULLS, Planted, gain_name  # noqa: E402
from gate_worlds import ALPHA, MAX_PAIRS, SEEDS  # noqa: E402
from trainings import workers  # noqa: E402

from bellglass import nulls, tasks  # noqa: E402
from bellglass.records import Budget, Bundle, Seeds  # noqa: E402
from bellglass.steps import gate  # noqa: E402
from bellglass.steps.trial import derive_seeds  # noqa: E402
from bellglass.store import bundles  # noqa: E402

SECRET = hashlib.sha256(b"benchmarks/gate.py").digest()  # measuring needs no secrecy; every run uses the same documents
MEASURED = HERE / "measured"
NAME = "gate"
FACTORS = (0.8, 0.85, 0.9, 0.95, 1.0, 1.05, 1.1, 1.15, 1.2, 1.25)  # of the budget, where the slope is measured
SLOPE_SEEDS = 8
GAINS_PER_BLOCK = 2


class TimeUp(Exception):
    """The minutes are over; what was measured is kept."""


@dataclass(frozen=True)
class Setting:
    """What all trainings of a file share."""

    task: tasks.Task
    preset: tasks.Preset
    budget: Budget
    work: Path

    @property
    def path(self) -> Path:
        """One file for each starter, task and budget, so that nothing is compared that does not compare."""
        made_from = trainer_hash(bundles.starter()) + (self.task.folder / "data.py").read_text()
        key = hashlib.sha256(made_from.encode()).hexdigest()[:8]
        unit = {"steps": "steps"}.get(self.budget.kind, "s")
        return self.work / f"{self.task.name}-{self.preset.name}-{self.budget.amount:g}{unit}-{key}.jsonl"


@dataclass(frozen=True)
class Run:
    """One training: which files, for how long, with which seeds."""

    folder: Path
    budget: Budget
    seeds: Seeds


Train = Callable[[Run, Run], tuple[float, float]]  # two at the same time


def trainer_hash(bundle: Bundle) -> str:
    files = sorted((path, data) for path, data in bundle.items() if path.startswith("trainer/"))
    return hashlib.sha256(repr(files).encode()).hexdigest()[:12]


def write_trainer(bundle: Bundle, home: Path) -> Path:
    """The folder with that bundle's trainer; a finished one is used again."""
    folder = home / "trainers" / trainer_hash(bundle)
    if not folder.exists():
        fresh = folder.with_suffix(f".{os.getpid()}")
        fresh.mkdir(parents=True)
        for path, data in bundle.items():
            if path.startswith("trainer/"):
                (fresh / Path(path).name).write_bytes(data)
        fresh.rename(folder)
    return folder


def children_of(starter: Bundle) -> dict[str, Bundle]:
    """The child of every cell: an edited starter, or the starter itself where its budget makes the difference."""
    edited = {null.name: nulls.edited(starter, null) for null in nulls.ALL}
    return edited | {gain_name(gain): starter for gain in GAINS}


def hashes_of(starter: Bundle) -> dict[str, str]:
    return {cell: trainer_hash(bundle) for cell, bundle in children_of(starter).items()}


# Trainings


@functools.lru_cache(maxsize=1)
def documents(task: str, preset: str) -> tuple[tasks.Task, tasks.Documents, tasks.Documents]:
    loaded = tasks.load(task)
    sizes = loaded.presets[preset]
    train = tasks.make(loaded, "train", SECRET, sizes.train_docs)
    return loaded, train, tasks.make(loaded, "confirm", SECRET, sizes.confirm_docs)


def train_one(task: str, preset: str, run: Run) -> float:
    """In a worker process: its own clock counts its own seconds."""
    import bare_trial

    loaded, train, test = documents(task, preset)
    return bare_trial.run(run.folder, loaded, train, test, run.seeds, run.budget).score


def side_by_side(pool: Executor, setting: Setting) -> Train:
    def train(first: Run, second: Run) -> tuple[float, float]:
        under_way = [pool.submit(train_one, setting.task.name, setting.preset.name, run) for run in (first, second)]
        return under_way[0].result(), under_way[1].result()

    return train


# Stages


def cells_of(block: int) -> list[str]:
    """Every null once, and the gains in turn."""
    turn = [GAINS[(block * GAINS_PER_BLOCK + k) % len(GAINS)] for k in range(GAINS_PER_BLOCK)]
    return [*NULLS, *(gain_name(gain) for gain in turn)]


@dataclass(frozen=True)
class Plan:
    """What is measured, block after block until the time is up."""

    factors: tuple[float, ...] = FACTORS
    slope_seeds: int = SLOPE_SEEDS
    cells: Callable[[int], list[str]] = cells_of
    blocks: int | None = None


@dataclass(frozen=True)
class Bench:
    setting: Setting
    log: Log
    train: Train
    starter: Path
    children: dict[str, tuple[Path, str]]  # cell -> folder and hash
    check: Callable[[], None]  # raises TimeUp

    def run(self, folder: Path, label: str, factor: float = 1.0) -> Run:
        budget = replace(self.setting.budget, amount=self.setting.budget.amount * factor)
        return Run(folder, budget, derive_seeds(SECRET, label))


def measure_slope(bench: Bench, plan: Plan) -> Planted:
    """The starter under budgets around its own; neighbours in the list train side by side."""
    wanted = [(factor, seed) for seed in range(plan.slope_seeds) for factor in plan.factors]
    missing = [place for place in wanted if place not in bench.log.found.slope]
    for first in range(0, len(missing), 2):
        bench.check()
        couple = missing[first : first + 2]
        runs = [bench.run(bench.starter, f"slope-{factor}-{seed}", factor) for factor, seed in couple]
        for (factor, seed), score in zip(couple, bench.train(runs[0], runs[-1]), strict=False):
            bench.log.put(kind="slope", factor=factor, seed=seed, score=score)
    return gate_table.fit(bench.log.found.slope)


def calibrate(bench: Bench, block: int) -> None:
    if block in bench.log.found.calibrations:
        return
    scores: list[float] = []
    for first in range(0, SEEDS, 2):
        bench.check()
        runs = [bench.run(bench.starter, f"calibration-{block}-{k}") for k in range(first, min(first + 2, SEEDS))]
        scores += bench.train(runs[0], runs[-1])[: len(runs)]
    bench.log.put(kind="calibration", block=block, scores=scores)


def decide(bench: Bench, block: int, cell: str, factor: float) -> None:
    """Pair after pair until the gate has decided, as steps/generation.py does."""
    if (block, cell) in bench.log.found.words:
        return
    folder, child = bench.children[cell]
    rules = gate.Rules(gate.spend(ALPHA, 1), bench.log.found.noise(block), MAX_PAIRS)
    pairs: list[Pair] = bench.log.found.pairs.get((block, cell), [])
    while (decision := gate.decide(pairs, rules)).decision == "more":
        bench.check()
        label = f"{block}-{cell}-{len(pairs)}"  # the same for both: they are a pair
        parent, score = bench.train(bench.run(bench.starter, label), bench.run(folder, label, factor))
        bench.log.put(kind="pair", block=block, cell=cell, child=child, parent=parent, score=score)
        pairs = bench.log.found.pairs[block, cell]
    bench.log.put(kind="decision", block=block, cell=cell, child=child, word=decision.decision, pairs=len(pairs))


def work(bench: Bench, plan: Plan) -> None:
    planted = measure_slope(bench, plan)
    for block in itertools.count() if plan.blocks is None else range(plan.blocks):
        calibrate(bench, block)
        for cell in plan.cells(block):
            decide(bench, block, cell, planted.factor(cell))


def collect(setting: Setting, minutes: float, plan: Plan) -> None:
    until = time.monotonic() + 60 * minutes

    def check() -> None:
        if time.monotonic() >= until or asked_to_end:
            raise TimeUp

    asked_to_end: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: asked_to_end.append(number))
    starter = bundles.starter()
    children = {
        cell: (write_trainer(bundle, setting.work), trainer_hash(bundle))
        for cell, bundle in children_of(starter).items()
    }
    with Log(setting.path, hashes_of(starter)) as log, workers(2) as pool:
        train = side_by_side(pool, setting)
        try:
            work(Bench(setting, log, train, write_trainer(starter, setting.work), children, check), plan)
        except TimeUp:
            print(f"time is up: {len(log.found.words)} decisions so far in {setting.path}")


def found_of(setting: Setting) -> Found:
    return read(setting.path, hashes_of(bundles.starter()))


def command(asked: argparse.Namespace) -> str:
    name = "" if asked.name == NAME else f" --name {asked.name}"
    return f"python benchmarks/gate.py --task {asked.task} --preset {asked.preset} --seconds {asked.seconds:g}{name}"


def put(sheet: Path, name: str, text: str, data: Path) -> None:
    """Onto the page, but never over a table of more decisions."""
    before, now = (decisions_in(section) for section in (page.get(sheet, name), text))
    if now < before:
        raise SystemExit(
            f"section {name} of {sheet}: it states {before} decisions, {now} are at hand in {data}. Nothing was "
            "changed. To put these there anyway, delete the text of the section first"
        )
    page.put(sheet, name, text)


def decisions_in(section: str) -> int:
    """As its first sentence has it."""
    found = re.match(r"(\d+) decisions", section)
    return int(found[1]) if found else 0


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw, allow_abbrev=False)  # --write was a flag
    parser.add_argument("--task", default="stories", choices=tasks.names())
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--seconds", type=float, default=1.0, help="CPU-seconds of one training")
    parser.add_argument("--minutes", type=float, default=60.0, help="stop after about that long")
    parser.add_argument("--name", default=NAME, help="of the run: its folder and its section")
    parser.add_argument("--write-only", action="store_true", help="train nothing, write what is known")
    asked = parser.parse_args()
    task = tasks.load(asked.task)
    budget = Budget("cpu_seconds", asked.seconds, 600.0)
    setting = Setting(task, task.presets[asked.preset], budget, MEASURED / asked.name)
    if not asked.write_only:
        collect(setting, asked.minutes, Plan())
    text = gate_table.section(found_of(setting), asked.seconds, command(asked))
    print(text)
    put(page.BENCHMARKS, asked.name, text, setting.path)


if __name__ == "__main__":
    main()
