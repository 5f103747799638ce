"""What the offline improver gains in one real session, as a share of a task's headroom: starter to reference.

    python benchmarks/improver.py [--task source] [--seeds 1,2,3] [--trials 10,20] [--minutes 40] [--workers 2]
                                  [--write-only]

Each seed is a loop's first generation with its own data and seeds: the starter's own scaffold in a process glass, the
offline improver behind the gateway, its trials answered by real trainings of the full budget's fractions. What it
submits, the starter and the reference (reference.py; found on other data) are then trained on the same fresh seeds and
scored on the same fresh documents. Share: (starter - submitted) / (starter - reference).

Resumable, over machines too: trainings lie in benchmarks/measured/improver.jsonl and are not repeated; sessions are
told again from them.
Writes the section `improver` of docs/benchmarks.md, with however many seeds are complete.

Not covered: the gate. What a loop would adopt is for baselines.py; weights above the size cap fail here, too.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import page  # noqa: E402
import reference  # noqa: E402
from trainings import MEASURED, WORKERS, Files, Job, OutOfTime, Train, Trainings, World, run_job, starter, workers  # noqa: E402

from bellglass import tasks  # noqa: E402
from bellglass.commands.console import interval_text  # noqa: E402
from bellglass.doors.offline_model import OfflineModel  # noqa: E402
from bellglass.doors.process_glass import ProcessGlass  # noqa: E402
from bellglass.errors import GuestFault  # noqa: E402
from bellglass.line.gateway import Gateway, NoBook  # noqa: E402
from bellglass.paths import content_root  # noqa: E402
from bellglass.ports import MEMORY_MB, GuestSpec  # noqa: E402
from bellglass.records import Bundle, CallKey, Json, Role  # noqa: E402
from bellglass.show.summary import POSITIVE_CONTROL  # noqa: E402
from bellglass.stats import CONFIDENCE, mean, mean_interval  # noqa: E402
from bellglass.steps.session import serve  # noqa: E402
from bellglass.store import bundles  # noqa: E402
from bellglass.wiring import SESSION_CALLS  # noqa: E402

FILE = MEASURED / "improver.jsonl"
PANEL = 2  # fresh seeds
GOAL = 0.6
CALLS = SESSION_CALLS[False]  # a loop's own bound on one session
HOURS = 12 * 3600.0  # a session waits for trainings as long as it takes
SIDES = ("starter", "reference", "submitted")


@dataclass
class TrainingDesk:
    """Answers a session as a loop's desk does; its trials are `train`'s, all on one seed and one set of documents."""

    train: Train
    left: float
    label: str = ""
    tried: list[str] = field(default_factory=list)
    chats: int = 0
    gateway: Gateway = field(default_factory=lambda: Gateway({"main": OfflineModel()}, NoBook()))

    def tick(self) -> None:
        pass

    def chat(self, body: bytes) -> bytes:
        self.chats += 1
        return self.gateway.chat(body, CallKey(1, "improve", self.chats))

    def trial(self, files: Mapping[str, bytes], args: Json) -> Json:
        fraction = float(args["fraction"])
        if fraction > self.left + 1e-9:
            raise GuestFault("refused", f"asked for {fraction:g} trials, {self.left:g} are left in this session")
        self.left = round(self.left - fraction, 4)
        (result,) = self.train([Job(trainer_of(files), fraction, "g1-explore", "select")])
        ok = result.score is not None
        self.tried.append(str(args.get("note", "")))
        print(f"{self.label}: {self.tried[-1]}: {result.score} at {fraction:g}", file=sys.stderr, flush=True)
        answer = {"ok": ok, "score": result.score, "fault": None if ok else "crashed", "by_skill": {}, "claim": None}
        return {**answer, "log": "", "seconds": result.seconds, "fraction": fraction, "left": {"trials": self.left}}

    def trials(self, files: Mapping[str, bytes], candidates: list[Json]) -> Json:
        raise GuestFault("refused", "the starter's scaffold has no tool that asks for several")

    def history(self) -> Json:
        return {"generation": 1, "best": [], "last": [], "noise": None}

    def budget(self) -> Json:
        left = {"trials": self.left, "calls": CALLS - self.chats}
        return {**left, "train_seconds": None, "tokens": None, "usd": None}

    def note(self, text: str) -> None:
        pass


@dataclass(frozen=True)
class Outcome:
    """One session, and its three trainers on the panel."""

    seed: int
    trials: float
    used: float  # of the trials
    tries: int
    kept: str
    scores: Mapping[str, tuple[float, ...] | None]  # side -> score by fresh seed; None where a training failed
    machines: frozenset[str] = frozenset()

    def score(self, side: str) -> float | None:
        scores = self.scores[side]
        return None if scores is None else mean(scores)

    @property
    def share(self) -> float | None:
        """None where a side has no score."""
        start, best, mine = (self.score(side) for side in SIDES)
        return None if start is None or best is None or mine is None else (start - mine) / (start - best)


# One session


def trainer_of(files: Mapping[str, bytes]) -> Files:
    return {path: data.decode() for path, data in files.items() if path.startswith("trainer/")}


def session(task: str, seed: int, trials: float, train: Train) -> tuple[Files, str, TrainingDesk]:
    """The trainer that the session submits (the starter's where it submits nothing), its note, and the desk."""
    desk, bundle = TrainingDesk(train, trials, f"seed {seed}, {trials:g} trials"), bundles.starter()
    args = {
        "may_edit": ["architecture", "data", "objective", "optimiser", "scaffold"],
        "limits": {"trials": trials, "calls": CALLS},
        "generation": 1,
        "seed": seed,
        "session": "improve",
    }
    spec = GuestSpec(Role.IMPROVE, {"benchmark": f"improver-{seed}-{trials:g}"}, MEMORY_MB[Role.IMPROVE], HOURS)
    glass = ProcessGlass(warm=False)
    try:
        end = serve(glass, spec, bundle, tasks.load(task).brief(), args, desk, wall_seconds=HOURS)
    finally:
        glass.close()
    if end.submission is None:
        return starter(), f"nothing submitted: {end.fault} {end.detail}", desk
    return trainer_of(end.submission.files), end.submission.note, desk


def reference_files(task: str) -> Files:
    with tempfile.TemporaryDirectory() as name:
        folder = reference.make(content_root() / "trainer_seed", Path(name), task)
        return {f"trainer/{path.name}": path.read_text() for path in sorted(folder.glob("*.py"))}


def panel(trainer: Files, train: Train) -> tuple[float, ...] | None:
    """On fresh seeds and documents; None when a training fails, since a failure is never a number."""
    results = train([Job(trainer, 1.0, f"fresh-{k}", "final", "fresh") for k in range(PANEL)])
    scores = tuple(result.score for result in results if result.score is not None)
    return scores if len(scores) == PANEL else None


def outcome(task: str, seed: int, trials: float, train: Train) -> Outcome:
    files, note, desk = session(task, seed, trials, train)
    trainers: Bundle | dict[str, Files] = {"starter": starter(), "reference": reference_files(task), "submitted": files}
    scores = {side: panel(trainers[side], train) for side in SIDES}
    kept = note.partition("kept: ")[2].partition(".")[0] or note
    return Outcome(seed, trials, round(trials - desk.left, 2), len(desk.tried), kept, scores)


def measured(task: str, seed: int, wanted: Sequence[float], train: Train) -> list[Outcome]:
    """The sessions of one seed that are complete or can be completed now, side by side."""
    with ThreadPoolExecutor(len(wanted)) as pool:
        under_way = [pool.submit(outcome, task, seed, trials, train) for trials in wanted]
    found = []
    for future in under_way:
        try:
            found.append(future.result())
        except OutOfTime:
            continue
    return found


# The page


def share_text(shares: Sequence[float]) -> str:
    if len(shares) < 2:
        return f"{shares[0]:.0%} (one seed)" if shares else "–"
    return interval_text(mean_interval(shares, CONFIDENCE))


def number_text(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def section(found: Sequence[Outcome], task: str, seeds: int, wanted: Sequence[float], command: str) -> str:
    rows = []
    for trials in wanted:
        mine = [one.share for one in found if one.trials == trials]
        shares = [share for share in mine if share is not None]
        ran = f"{len(mine)} of {seeds}" + f", {len(mine) - len(shares)} without a figure" * (len(mine) > len(shares))
        reached = sum(share >= GOAL for share in shares)
        rows.append([f"{trials:g}", ran, share_text(shares), f"{reached} of {len(shares)}"])
    machines = "; ".join(sorted(frozenset().union(*(one.machines for one in found))))
    head = (
        f"Machine: {machines}. Command: `{command}`, task `{task}`, preset `cpu`. Share of the headroom between "
        f"the starter (0) and the reference (1) that one session's submission reaches, on {PANEL} fresh seeds and "
        f"fresh documents, all three trained beside each other. Goal: {GOAL:g} within 20 exploration trials; intervals "
        f"are t intervals over loop seeds. {POSITIVE_CONTROL}"
    )
    each = [
        [str(one.seed), f"{one.used:g} of {one.trials:g}", str(one.tries),
         *(number_text(one.score(side), 3) for side in SIDES), number_text(one.share, 2), one.kept]
        for one in found
    ]  # fmt: skip
    summary = page.table(["trials", "seeds", "share (95%)", f"≥ {GOAL:g}"], rows)
    columns = ["seed", "trials used", "trainings", *SIDES, "share", "kept"]
    return "\n\n".join([head, summary, page.table(columns, each)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="source")
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--trials", default="10,20", help="exploration trials of a session, in whole ones")
    parser.add_argument("--minutes", type=float, default=40.0, help="start no training after that")
    parser.add_argument("--write-only", action="store_true", help="train nothing, write what is known")
    parser.add_argument("--workers", type=int, default=WORKERS, help="trainings at a time; for one core each")
    asked = parser.parse_args()
    seeds, wanted = [int(one) for one in asked.seeds.split(",")], [float(one) for one in asked.trials.split(",")]
    seconds = tasks.load(asked.task).presets["cpu"].budget.amount
    deadline = time.monotonic() + (-1.0 if asked.write_only else 60 * asked.minutes)
    # A session asks for one training at a time.
    with workers(asked.workers) as pool, ThreadPoolExecutor(asked.workers) as side_by_side:

        def told(seed: int) -> list[Outcome]:
            trainings = Trainings(FILE, World(asked.task, seed, seconds), pool, deadline, run_job)
            found = measured(asked.task, seed, wanted, trainings.train)
            return [replace(one, machines=frozenset(trainings.machines)) for one in found]

        found = [one for of_seed in side_by_side.map(told, seeds) for one in of_seed]
    command = f"python benchmarks/improver.py --seeds {asked.seeds} --trials {asked.trials}"
    if found:
        page.put(page.BENCHMARKS, "improver", section(found, asked.task, len(seeds), wanted, command))


if __name__ == "__main__":
    main()
