"""Measures the tasks: floor, compressors, the starter after each budget, the noise of its seeds.

    python benchmarks/tasks.py                                         what the table of docs/benchmarks.md lacks
    python benchmarks/tasks.py --write-only                            that table again, measuring nothing
    python benchmarks/tasks.py stories [--presets tiny,cpu] [--seeds 4] [--longer] [--reference] [--out FILE] [--write]
    python benchmarks/tasks.py sums --presets cpu --seeds 8 --lab      the table of docs/labs/lucky-runs.md
    python benchmarks/tasks.py stories --presets gpu --seeds 2 --write      what a GPU makes of it

Each training is one line of the results file, keyed by what made it (trainer, data, budget, seed), so a run that was
cut off goes on where it stopped, and only what changed is measured again. `--write` puts the figures, with machine and
command, into the task's task.toml under [measured]; without a task this is done for each that this machine can make
documents of, its reference included, unless the figures stand there already. To measure those again, name the task.
Trainings run without a glass: see bare_trial.py.

Not covered: a reference for the presets of a GPU.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import lzma
import os
import re
import statistics
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: one thread, as in a glass

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import page  # noqa: E402
import reference  # noqa: E402
from bare_trial import run as run_trial  # noqa: E402

from bellglass import tasks  # noqa: E402
from bellglass.errors import BellglassError  # noqa: E402
from bellglass.paths import content_hash, content_root  # noqa: E402
from bellglass.records import Budget, Seeds  # noqa: E402

SECRET = hashlib.sha256(b"benchmarks/tasks.py").digest()  # measuring needs no secrecy; every run uses the same data
LAB = page.ROOT / "docs" / "labs" / "lucky-runs.md"
GPU = "gpu"
LONGER = 60.0  # CPU-seconds: what the starter does when it gets four times the `cpu` preset


class Results:
    """A file of JSON lines; what is in it is not measured again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        lines = path.read_text().splitlines() if path.exists() else []
        self._known = {line["key"]: line for line in map(json.loads, lines)}

    def get(self, key: str) -> dict | None:
        return self._known.get(key)

    def put(self, key: str, facts: dict) -> dict:
        line = {"key": key, **facts}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        self._known[key] = line
        return line


@lru_cache(maxsize=2)
def documents(name: str, split: tasks.Split, count: int) -> tasks.Documents:
    return tasks.make(tasks.load(name), split, SECRET, count)


def train_once(
    results: Results, trainer: Path, task: tasks.Task, preset: tasks.Preset, amount: float, seed: int
) -> dict:
    budget = Budget(preset.budget.kind, amount, 10 * amount)
    data_hash = hashlib.sha256((task.folder / "data.py").read_bytes()).hexdigest()[:12]
    trainer_hash = content_hash(trainer)[:12]
    docs = (preset.train_docs, preset.select_docs)
    key = f"{task.name} {trainer_hash} {data_hash} docs {docs} {amount:g} {budget.kind} seed {seed}"
    known = results.get(key)
    if known is not None:
        return known
    train, test = (documents(task.name, split, n) for split, n in zip(("train", "select"), docs, strict=True))
    outcome = run_trial(trainer, task, train, test, Seeds(1000 + seed, 2000 + seed), budget)
    facts = {name: value for name, value in asdict(outcome).items() if name != "weights"}
    machine = page.machine("cuda" if budget.kind == "gpu_seconds" else "cpu")
    print(f"{task.name}, {amount:g} {budget.kind}, seed {seed}: {facts['score']:.3f} after {facts['asked']} steps")
    return results.put(key, {**facts, "weights_mb": len(outcome.weights) / 1e6, "machine": machine})


def compressors(task: tasks.Task, docs: int) -> Iterator[tuple[str, float]]:
    """Bits per target of general compressors over the train split, as one text of one byte a token."""
    made = tasks.make(task, "train", SECRET, docs)
    text = made.tokens[made.tokens > 0].astype("u1").tobytes()
    yield "gzip", 8 * len(gzip.compress(text, 9)) / made.target.sum()
    yield "xz", 8 * len(lzma.compress(text, preset=9 | lzma.PRESET_EXTREME)) / made.target.sum()


def trainings(
    task: tasks.Task, trainer: Path, preset: tasks.Preset, amount: float, seeds: int, results: Results
) -> list[dict]:
    return [train_once(results, trainer, task, preset, amount, seed) for seed in range(seeds)]


def measure(task: tasks.Task, trainer: Path, presets: list[str], seeds: int, longer: bool, results: Results) -> dict:
    found: dict[str, object] = {}
    machines: set[str] = set()
    on_gpu = presets == [GPU]
    if task.floor == "exact" and not on_gpu:
        made = tasks.make(task, "final", SECRET, 1000)
        found["floor"] = float(made.floor_bits.sum(dtype=float) / made.target.sum())
        found.update(compressors(task, task.presets["cpu"].train_docs))
    amounts = [(name, task.presets[name], task.presets[name].budget.amount) for name in presets]
    if longer:
        amounts.append((f"{LONGER:g}s", task.presets["cpu"], LONGER))
    for name, preset, amount in amounts:
        runs = trainings(task, trainer, preset, amount, 1 if name == f"{LONGER:g}s" else seeds, results)
        scores = [line["score"] for line in runs]
        machines |= {line.get("machine", page.UNRECORDED) for line in runs}
        found[f"starter_{name}"] = statistics.mean(scores)
        found[f"steps_{name}"] = round(statistics.mean(line["asked"] for line in runs))
        found[f"weights_mb_{name}"] = max(line["weights_mb"] for line in runs)
        found[f"judge_cpu_seconds_{name}"] = statistics.mean(line["predict_seconds"] for line in runs)
        if len(scores) > 1:
            found[f"noise_{name}"] = statistics.stdev(scores)
    return {**found, "gpu_machine" if on_gpu else "machine": "; ".join(sorted(machines))}


def figures(task: tasks.Task, what: str, asked: argparse.Namespace, results: Results) -> dict:
    """What [measured] says about the `starter`, or about the `reference`."""
    starter, presets = content_root() / "trainer_seed", asked.presets.split(",")
    if what == "starter":
        found = measure(task, starter, presets, asked.seeds, asked.longer, results)
        return found | {"gpu_command" if presets == [GPU] else "command": command(asked)}
    with tempfile.TemporaryDirectory() as folder:
        trainer = reference.make(starter, Path(folder), task.name)
        found = measure(task, trainer, presets, asked.seeds, asked.longer, results)
    renamed = {"starter": "reference", "weights_mb": "reference_mb", "machine": "reference_machine"}
    return {k.replace(old, new): v for k, v in found.items() for old, new in renamed.items() if k.startswith(old)}


def fill(asked: argparse.Namespace, results: Results) -> None:
    """Measure what [measured] lacks, and write it task by task."""
    for name in tasks.names():
        try:
            task = tasks.load(name)
            tasks.make(task, "select", SECRET, 1)
        except BellglassError as error:
            print(f"left out: {error.one_line()}")
            continue
        for what in ("starter", "reference") if name in reference.MORE else ("starter",):
            # All presets where one is missing: figures that stand together come from machines that are named together.
            if not _stored(task, what, asked.presets.split(",")):
                write(task, figures(task, what, asked, results))
                task = tasks.load(name)


def _stored(task: tasks.Task, what: str, presets: Iterable[str]) -> bool:
    return all(f"{what}_{preset}" in task.measured for preset in presets)


def headroom_table() -> str:
    """All tasks in one table, from what was measured and written before."""
    loaded = [tasks.load(name) for name in tasks.names()]
    rows = [_headroom(task, preset) for task in loaded for preset in task.presets.values()]
    head = ["task", "preset", "score", "starter", "steps", "noise", "judge", "reference", "headroom", "size cap"]
    return (
        f"Command: `python benchmarks/tasks.py`; it measures what is not stored yet, except the GPU's rows"
        f"{_gpu_command(loaded)}. Machine of the starter's figures: "
        f"{_machines(loaded, 'starter', 'machine')}; of the reference's: "
        f"{_machines(loaded, 'reference', 'reference_machine')}; of the GPU's: "
        f"{_machines(loaded, 'starter', 'gpu_machine', [GPU]) or 'none'}. Noise: standard deviation over seeds "
        f"({_seeds(loaded, 'command')}; on the GPU {_seeds(loaded, 'gpu_command') or 'none'}). Judge: "
        f"CPU-seconds to score `select` once. Headroom to the floor, where that is known: the starter's own score.\n\n"
        f"{page.table(head, rows)}"
    )


def _gpu_command(loaded: list[tasks.Task]) -> str:
    """That of the first; the others differ in the task."""
    made = [task.measured["gpu_command"] for task in loaded if "gpu_command" in task.measured]
    return f" (one task at a time, as `{made[0]}`)" if made else ""


def _seeds(loaded: list[tasks.Task], key: str) -> str:
    """How many a stored command asked for."""
    found = {re.search(r"--seeds (\d+)", task.measured[key]) for task in loaded if key in task.measured}
    return " or ".join(sorted({match[1] for match in found if match}))


def _machines(loaded: list[tasks.Task], what: str, key: str, presets: Iterable[str] = ("tiny", "cpu")) -> str:
    """As it was written beside the figures, with the tasks that it holds for."""
    there = [task for task in loaded if any(_stored(task, what, [preset]) for preset in presets)]
    return page.machines((task.measured.get(key, page.UNRECORDED), f"`{task.name}`") for task in there)


def _headroom(task: tasks.Task, preset: tasks.Preset) -> list[str]:
    found = task.measured
    starter, noise, judge, reference, size = (
        found.get(f"{what}_{preset.name}")
        for what in ("starter", "noise", "judge_cpu_seconds", "reference", "reference_mb")
    )
    gaps = []
    if starter is not None and reference is not None:
        gaps.append(f"{starter - reference:.3f} to the reference")
    if starter is not None and task.floor == "exact":
        gaps.append(f"{starter:.3f} to the floor")
    return [
        f"`{task.name}`",
        f"{preset.name}, {preset.budget.amount:g} {preset.budget.kind.replace('_', ' ')}",
        task.unit + (" above the floor" if task.floor == "exact" else ""),
        "unmeasured" if starter is None else f"{starter:.3f}",
        str(found.get(f"steps_{preset.name}", "–")),
        _or_dash(noise),
        "–" if judge is None else f"{judge:.2f}",
        _or_dash(reference) + ("" if size is None else f" ({size:.1f} MB)"),
        ", ".join(gaps) or "–",
        f"{preset.weights_mb:g} MB",
    ]


def _or_dash(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def lab_table(task: tasks.Task, runs: list[dict], shown: str) -> str:
    """One line a seed: what a class sees when everybody trains the same thing once."""
    skills = list(task.skills)
    head = ["seed", "score", *skills, "documents all right"]
    rows = [
        [
            str(seed),
            f"{run['score']:.3f}",
            *(f"{run['by_skill'].get(skill, float('nan')):.2f}" for skill in skills),
            f"{100 * run['certain']:.0f}%",
        ]
        for seed, run in enumerate(runs)
    ]
    right, scores = ([run[key] for run in runs] for key in ("certain", "score"))
    steps = [run["asked"] for run in runs]
    made = page.machines(((run.get("machine", page.UNRECORDED), str(seed)) for seed, run in enumerate(runs)), "seed ")
    return (
        f"Machine: {made}. Command: `{shown}`. Steps: {min(steps)} to {max(steps)}.\n\n"
        f"{page.table(head, rows)}\n\n"
        f"Documents all right: {100 * statistics.mean(right):.0f}% ± {100 * statistics.stdev(right):.0f}% (standard "
        f"deviation over seeds), from {100 * min(right):.0f}% to {100 * max(right):.0f}%. Score: "
        f"{statistics.mean(scores):.3f} ± {statistics.stdev(scores):.3f}."
    )


def command(asked: argparse.Namespace) -> str:
    """What makes these figures again; where the results lie doesn't matter."""
    longer = " --longer" if asked.longer else ""
    one, write = (f" {asked.task}", " --write") if asked.task else ("", "")
    return f"python benchmarks/tasks.py{one} --presets {asked.presets} --seeds {asked.seeds}{longer}{write}"


def write(task: tasks.Task, found: dict) -> None:
    """Replace the lines of [measured] that were measured now; the others stay."""
    path = task.folder / "task.toml"
    kept, _, _ = path.read_text().partition("[measured]")
    merged = {**task.measured, **found}
    lines = [f"{name} = {json.dumps(round(v, 4) if isinstance(v, float) else v)}" for name, v in merged.items()]
    path.write_text(
        kept.rstrip() + "\n\n[measured] # bits as in `unit`, above the floor; gzip, xz and floor itself: raw\n"
    )
    with path.open("a") as file:
        file.write("\n".join(lines) + "\n")


def one_task(task: tasks.Task, asked: argparse.Namespace, results: Results) -> None:
    if not asked.lab:
        found = figures(task, "reference" if asked.reference else "starter", asked, results)
        print(json.dumps(found, indent=2))
        if asked.write:
            write(task, found)
        return
    preset = task.presets[asked.presets.split(",")[0]]
    runs = trainings(task, content_root() / "trainer_seed", preset, preset.budget.amount, asked.seeds, results)
    shown = f"python benchmarks/tasks.py {task.name} --presets {preset.name} --seeds {asked.seeds} --lab"
    page.put(LAB, "lucky-runs", lab_table(task, runs, shown))
    print(f"the table is in {LAB}")


def words() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", nargs="?", choices=tasks.names(), help="default: all, written to where they are stored")
    parser.add_argument("--presets", default="tiny,cpu")
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--longer", action="store_true", help=f"also one training of {LONGER:g} CPU-seconds")
    parser.add_argument("--reference", action="store_true", help="measure reference.py's trainer, not the starter")
    parser.add_argument("--out", type=Path, default=Path(".cache") / "benchmarks" / "tasks.jsonl")
    parser.add_argument("--write", action="store_true", help="put the figures into task.toml")
    parser.add_argument("--write-only", action="store_true", help="measure nothing, write what is known to the page")
    parser.add_argument("--lab", action="store_true", help="write the table of docs/labs/lucky-runs.md")
    return parser


def main() -> None:
    parser = words()
    asked = parser.parse_args()
    presets = asked.presets.split(",")
    if asked.lab and asked.task is None:
        parser.error("--lab needs a task")
    if GPU in presets and (presets != [GPU] or asked.task is None or asked.lab or asked.longer or asked.reference):
        parser.error("--presets gpu goes with a task and no other preset, without --lab, --longer and --reference")
    if not asked.write_only:
        import torch

        torch.set_num_threads(1)
        results = Results(asked.out.resolve())
        if asked.task is None:
            fill(asked, results)
        else:
            one_task(tasks.load(asked.task), asked, results)
    if asked.write_only or asked.task is None:
        page.put(page.BENCHMARKS, "tasks", headroom_table())


if __name__ == "__main__":
    main()
