"""The offline improver beside the baselines `random` and `tpe`: whole loops under equal bounds, over loop seeds.

    python benchmarks/baselines.py [--tasks stories,source] [--improvers offline,random,tpe] [--seeds 1,2,...,8]
                                   [--preset cpu] [--most 3] [--glass process] [--write-only]

Resumable, over machines too: the facts of each loop that ended are kept under benchmarks/measured/baselines, to be
committed, and what is there is not run again; a loop that was cut off goes on where it was, under build/baselines.
Facts of another trainer, scaffold, improver or task are not counted. A changed gate or judge is not noticed: delete the
facts then. One seed gives all improvers the same documents, so they compare in pairs.

Writes the section `baselines` of docs/benchmarks.md for the preset `cpu`, prints it for others, and stores what the
baselines reached as tasks/TASK/baselines.json, from two loops on. However many loops have run, the table says so.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import page  # noqa: E402

from bellglass import tasks, wiring  # noqa: E402
from bellglass.commands.console import interval_text  # noqa: E402
from bellglass.config import load as load_config  # noqa: E402
from bellglass.errors import TripwireFired  # noqa: E402
from bellglass.loop import run_loop  # noqa: E402
from bellglass.paths import content_hash, content_root  # noqa: E402
from bellglass.ports import Glass  # noqa: E402
from bellglass.records import Bundle, Interval, Json  # noqa: E402
from bellglass.show import baselines  # noqa: E402
from bellglass.show.summary import POSITIVE_CONTROL  # noqa: E402
from bellglass.stats import CONFIDENCE, mean_interval  # noqa: E402
from bellglass.store.state import State  # noqa: E402

WORK = page.ROOT / "build" / "baselines"
MEASURED = HERE / "measured" / "baselines"
TASKS = ("stories", "source")
IMPROVERS = ("offline", *baselines.NAMES)
LOOPS = 8
SOURCES = {  # what an improver is made of, beside what all of them share
    "offline": ("session", "gifts"),
    "random": ("samplers", "configurations"),
    "tpe": ("samplers", "configurations", "tpe"),
}
SHARED = ("model", "desk", "talk", "menu", "fragments")


@dataclass(frozen=True)
class Plan:
    """The same bounds for everybody: 2 x (7 trials + at most 4 pairs at the gate) are 30 trainings."""

    preset: str = "cpu"
    seeds: Sequence[int] = tuple(range(1, LOOPS + 1))
    glass: str = "process"
    generations: int = 2
    trials: int = 7
    max_pairs: int = 4
    panel: int = 3  # trainings of the starter to calibrate on, of a new champion, and of each side on `final`
    more: Mapping[str, Json] = field(default_factory=dict)  # what else a loop's config says, for tests
    work: Path = WORK
    measured: Path = MEASURED

    @property
    def trainings(self) -> int:
        return self.generations * (self.trials + 2 * self.max_pairs)

    def home(self, task: str) -> Path:
        """All its loops in one folder, so that they share one calibration of the machine."""
        return self.work / self.name(task)

    def name(self, task: str) -> str:
        bounds = f"{self.generations}x{self.trials}+{2 * self.max_pairs}-panel{self.panel}"
        return f"{task}-{self.preset}-{self.glass}-{bounds}"

    def config(self, task: str, improver: str, seed: int) -> dict[str, Json]:
        return {
            "task": task,
            "preset": self.preset,
            "model": improver,
            "seed": seed,
            "glass": self.glass,
            "generations": self.generations,
            "trials_per_generation": self.trials,
            "max_pairs": self.max_pairs,
            "panel": self.panel,
            "review": "never",
            **self.more,
        }


# One loop


def run_one(
    plan: Plan, task: str, improver: str, seed: int, starter: Bundle | None = None, glass: Glass | None = None
) -> dict:
    """The facts of one loop: those kept, or those of the loop that is run now, or gone on with."""
    made_with = fingerprint(plan, task, improver)
    facts = kept(plan, task, improver, seed)
    if facts and facts["made_with"] != made_with:
        shutil.rmtree(plan.home(task) / facts["folder"], ignore_errors=True)
        for path in paths_of(plan, task, improver, seed):
            path.unlink(missing_ok=True)
        facts = None
    if facts and "gain" in facts:
        return facts
    if not facts:
        config = load_config(None, plan.config(task, improver, seed))
        plan.home(task).mkdir(parents=True, exist_ok=True)
        folder = wiring.create(config, plan.home(task), starter)
        facts = keep(plan, task, improver, seed, {"folder": folder.name, "made_with": made_with})
    surface = wiring.Surface(None, lambda trial, phase: None, None, lambda: None)
    with wiring.open_loop(plan.home(task) / facts["folder"], surface, glass=glass) as crew:
        try:
            run_loop(crew)
            found = facts_of(crew.state)
        except TripwireFired as error:  # a person would look now; here it is a loop without a figure
            found = {**facts_of(crew.state), "gain": None, "why": error.one_line()}
    return keep(plan, task, improver, seed, {**facts, **found})


def facts_of(state: State) -> dict:
    final = state.final or {}
    stays = final and final["champion"] == final["starter"]
    gain = 0.0 if stays else (final.get("gain") or {}).get("mean")
    results = [gen.result for gen in state.generations.values() if gen.result is not None]
    purposes = [trial.purpose for trial in state.trials.values()]
    return {
        "gain": gain,
        "why": "" if gain is not None else final.get("lacks") or "`final` was not opened",
        "adopted": sum(result["trainer"] == "adopted" for result in results),
        "trainings": {purpose: purposes.count(purpose) for purpose in sorted(set(purposes))},
        "train_seconds": round(state.spent.train_seconds, 1),
        "wall_seconds": round(state.wall_seconds, 1),
        "machine": page.machine(),
    }


def fingerprint(plan: Plan, task: str, improver: str) -> str:
    """What a loop's result depends on, beside the apparatus and the machine. Comments and docstrings don't count."""
    parts = [content_hash(content_root() / "trainer_seed"), content_hash(content_root() / "agent")]
    parts += [repr(sorted(plan.config(task, improver, 0).items())), repr(tasks.load(task).presets[plan.preset])]
    door = page.ROOT / "bellglass" / "doors" / "offline_model"
    files = [door / f"{name}.py" for name in (*SHARED, *SOURCES[improver])] + [tasks.load(task).folder / "data.py"]
    parts += [program(path.read_text()) for path in files]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def program(text: str) -> str:
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return ast.dump(tree)


def paths_of(plan: Plan, task: str, improver: str, seed: int) -> tuple[Path, Path]:
    """Where the facts of a loop lie: once it has ended, and until then."""
    name = f"{improver}-{seed}.json"
    return plan.measured / plan.name(task) / name, plan.home(task) / name


def kept(plan: Plan, task: str, improver: str, seed: int) -> dict | None:
    there = [path for path in paths_of(plan, task, improver, seed) if path.exists()]
    return json.loads(there[0].read_text()) if there else None


def keep(plan: Plan, task: str, improver: str, seed: int, facts: dict) -> dict:
    ended, under_way = paths_of(plan, task, improver, seed)
    path = ended if "gain" in facts else under_way
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".tmp").write_text(json.dumps(facts, indent=1) + "\n")
    path.with_suffix(".tmp").replace(path)
    return facts


# All of them


def finished(plan: Plan, task: str, improver: str) -> dict[int, dict]:
    """Seed -> the facts of each loop that has ended and still counts."""
    made_with = fingerprint(plan, task, improver)
    found = {seed: kept(plan, task, improver, seed) for seed in plan.seeds}
    return {
        seed: facts for seed, facts in found.items() if facts and facts["made_with"] == made_with and "gain" in facts
    }


def gains(loops: Mapping[int, dict]) -> dict[int, float]:
    return {seed: facts["gain"] for seed, facts in loops.items() if facts["gain"] is not None}


def interval(values: Sequence[float]) -> Interval | None:
    return mean_interval(values, CONFIDENCE) if len(values) > 1 else None


def told(values: Sequence[float]) -> str:
    return f"{values[0]:+.3f} (one loop)" if len(values) == 1 else interval_text(interval(values), sign="+")


def row(plan: Plan, task: str, improver: str) -> list[str]:
    loops = finished(plan, task, improver)
    mine, randoms = gains(loops), gains(finished(plan, task, "random"))
    more = [mine[seed] - randoms[seed] for seed in sorted(mine.keys() & randoms.keys())]
    adopted = sum(facts["adopted"] > 0 for facts in loops.values())
    return [
        task,
        improver,
        f"{len(loops)} of {len(plan.seeds)}"
        + (f", {len(loops) - len(mine)} without a figure" * (len(loops) > len(mine))),
        told(list(mine.values())),
        told([] if improver == "random" else more),
        f"{adopted} of {len(loops)}" if loops else "–",
        f"{mean(facts['train_seconds'] for facts in loops.values()):.0f} s" if loops else "–",
    ]


def section(plan: Plan, wanted: Sequence[str]) -> str:
    rows = [row(plan, task, improver) for task in wanted for improver in IMPROVERS]
    done = [facts for task in wanted for improver in IMPROVERS for facts in finished(plan, task, improver).values()]
    machines = "; ".join(sorted({facts["machine"] for facts in done})) or page.machine()
    planned = len(wanted) * len(IMPROVERS) * len(plan.seeds)
    command = f"python benchmarks/baselines.py{'' if plan.preset == 'cpu' else f' --preset {plan.preset}'}"
    text = (
        f"**{len(done)} of {planned} loops have run so far.** Machine: {machines}. Command: `{command}`, glass: "
        f"{plan.glass}. Each loop: {plan.generations} generations of {plan.trials} trials and at most {plan.max_pairs} "
        f"pairs at the gate, {plan.trainings} trainings; calibration, panels of new champions and `final` come on top, "
        "by one rule for all. Gains are of the champion over the starter on `final`, in the task's unit, 0 where "
        "nothing was adopted; intervals are t intervals over loops. Most loops took a task's stored calibration: they "
        f"share its luck, and the trainings of those that made it hold its own. {POSITIVE_CONTROL}"
    )
    head = [
        "task",
        "improver",
        "loops",
        "gain (95%)",
        "gain over random, by seed (95%)",
        "loops that adopted",
        "training",
    ]
    return f"{text}\n\n{page.table(head, rows)}"


def write(plan: Plan, wanted: Sequence[str], tasks_home: Path, sheet: Path) -> None:
    """The section, where the preset is the one it is about, and each task's file."""
    text = section(plan, wanted)
    if plan.preset == "cpu":
        page.put(sheet, "baselines", text)
    else:
        print(text)
    for task in wanted:
        found = {name: interval(list(gains(finished(plan, task, name)).values())) for name in baselines.NAMES}
        reached = {name: gain for name, gain in found.items() if gain is not None}
        if reached:
            starter = content_hash(content_root() / "trainer_seed")
            known = baselines.Baselines(task, plan.preset, plan.trainings, len(plan.seeds), starter, reached)
            baselines.store(tasks_home, known)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--improvers", default=",".join(IMPROVERS))
    parser.add_argument("--seeds", default=",".join(str(seed + 1) for seed in range(LOOPS)), help="of these, now")
    parser.add_argument("--preset", default="cpu", choices=tasks.PRESETS)
    parser.add_argument("--most", type=int, help="at most that many loops now")
    parser.add_argument("--glass", default="process", choices=["process", "docker"])
    parser.add_argument("--write-only", action="store_true", help="run nothing, write what is known")
    asked = parser.parse_args()
    seeds = [int(seed) for seed in asked.seeds.split(",")]
    plan = Plan(asked.preset, sorted({*range(1, LOOPS + 1), *seeds}), asked.glass)
    wanted = [name for name in dict.fromkeys([*TASKS, *asked.tasks.split(",")]) if name in tasks.names()]
    # Seed by seed, so that a table of some of the loops compares improvers over the same ones.
    todo = [(t, i, s) for s in seeds for t in asked.tasks.split(",") for i in asked.improvers.split(",")]
    todo = [one for one in todo if one[2] not in finished(plan, one[0], one[1])]
    for number, (task, improver, seed) in enumerate([] if asked.write_only else todo[: asked.most], 1):
        facts = run_one(plan, task, improver, seed)
        print(f"{number}/{len(todo)} {task} {improver} seed {seed}: {facts['gain']} {facts['why']}", file=sys.stderr)
        if plan.preset == "cpu":  # a table of some of the loops is there whenever this ends
            write(plan, wanted, content_root() / "tasks", page.BENCHMARKS)
    write(plan, wanted, content_root() / "tasks", page.BENCHMARKS)


if __name__ == "__main__":
    main()
