"""One fixed stream of proposals through two ways to search, in real trainings: what each pays for its champion.

    python benchmarks/search.py [--seconds 15] [--trials 12] [--replicates 4] [--minutes 40] [--workers 2]
                                [--write-only]

A proposal is an edit of the offline improver's menu, made to the champion of the moment where it fits. Each replicate
has its own order of the stream, data and seeds; its two ways share them:

- greedy: each proposal trained once, kept if its score is lower than the champion's own;
- raced: proposals through the `race` tool that the offline improver builds, two side by side at a quarter of the
  budget, on top of what won before; when one generation's trials or the stream are used up, what it left goes through
  the gate.

Every champion is then scored on seeds and documents that no way has seen. Resumable, over machines too: trainings lie
in benchmarks/measured/search.jsonl and are not repeated. Writes the section `search` of docs/benchmarks.md.

Not covered: proposals that depend on what was seen before, as a model's would; a stream longer than the menu.
"""

from __future__ import annotations

import argparse
import random
import sys
import threading
import time
import types
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import page  # noqa: E402
import search_page  # noqa: E402
from trainings import (  # noqa: E402
    MEASURED,
    NICEST,
    WORKERS,
    Files,
    Job,
    OutOfTime,
    Train,
    Trainings,
    World,
    run_job,
    starter,
    workers,
)

from bellglass.config import LoopConfig  # noqa: E402
from bellglass.doors.offline_model import gifts  # noqa: E402
from bellglass.doors.offline_model.menu import MENU, Edit  # noqa: E402
from bellglass.doors.offline_model.session import LANES, SHORTEST  # noqa: E402
from bellglass.doors.offline_model.talk import edit_list  # noqa: E402
from bellglass.records import GateDecision, Noise  # noqa: E402
from bellglass.stats import sample_sd  # noqa: E402
from bellglass.steps import gate  # noqa: E402

SEARCH = MEASURED / "search.jsonl"
LONG = 1.0
PANEL = 3  # fresh seeds that every champion is scored on
BUSY = 3  # cores that one replicate keeps busy: one by greedy, two by racing
DEFAULTS = LoopConfig()
IMPORTING = threading.Lock()  # replicates go side by side


@dataclass(frozen=True)
class Champion:
    files: Files
    kept: str  # the edits that made it out of the champion before
    seconds: float  # of training that the way had used by then
    at_gate: float  # of these


@dataclass
class Bill:
    """Trains, and adds up what it cost."""

    train: Train
    seconds: float = 0.0
    at_gate: float = 0.0  # of these
    champions: list[Champion] = field(default_factory=list)
    crowned: Callable[[Champion], object] = lambda champion: None

    def scores(self, jobs: Sequence[Job]) -> list[float | None]:
        results = self.train(jobs)
        self.seconds += sum(result.seconds for result in results)
        self.at_gate += sum(r.seconds for r, job in zip(results, jobs, strict=True) if job.split == "confirm")
        return [result.score for result in results]

    def crown(self, files: Files, kept: str) -> Files:
        self.champions.append(Champion(files, kept, self.seconds, self.at_gate))
        self.crowned(self.champions[-1])
        return files


def stream(replicate: int) -> list[Edit]:
    edits = list(MENU)
    random.Random(f"stream {replicate}").shuffle(edits)
    return edits


def explored(files: Files, fraction: float) -> Job:
    """Explorations share their seeds and documents, as those of one session do."""
    return Job(files, fraction, "g1-explore", "select")


# The two ways


def greedy(start: Files, edits: Sequence[Edit], bill: Bill) -> None:
    champion = bill.crown(start, "")
    (best,) = bill.scores([explored(champion, LONG)])
    for edit in edits:
        after = edit.apply(champion)
        if after is None:
            continue
        (score,) = bill.scores([explored(after, LONG)])
        if score is not None and (best is None or score < best):
            champion, best = bill.crown(after, edit.name), score


def raced(start: Files, edits: Sequence[Edit], bill: Bill, noise: Noise, trials: float) -> None:
    champion, number, waiting = bill.crown(start, ""), 0, list(edits)
    while waiting:
        winner, kept, left = race(champion, waiting, bill, trials)
        if kept:
            number += 1
            if duel(champion, winner, f"raced-{number}", rules(number, noise), bill).decision == "adopt":
                champion = bill.crown(winner, "+".join(kept))
        assert len(left) < len(waiting), "a race that tries nothing would never end"
        waiting = [edit for edit in waiting if edit.name in left]


def race(champion: Files, edits: Sequence[Edit], bill: Bill, trials: float) -> tuple[Files, list[str], list[str]]:
    """What the race tool leaves in the trainer, what it kept, what is left to try. The tool's own code runs here."""
    work, left = dict(champion), trials

    def run(asked: list[dict[str, Any]]) -> list[dict[str, Any]]:
        nonlocal left
        left -= sum(one["fraction"] for one in asked)
        scores = bill.scores([explored({**work, **one["files"]}, one["fraction"]) for one in asked])
        return [{"ok": score is not None, "score": score, "fault": None} for score in scores]

    desk, glass = types.ModuleType("desk"), types.ModuleType("glass")
    vars(desk).update(read=work.__getitem__, write=work.__setitem__)
    vars(glass).update(trials=run, budget=lambda: {"trials": left})
    fitting = {edit.name: after for edit in edits if (after := edit.apply(champion)) is not None}
    candidates = [{"name": name, "edits": edit_list(champion, after)} for name, after in fitting.items()]
    result = tool(desk, glass)({"candidates": candidates, "short": SHORTEST, "lanes": LANES})
    return work, result["kept"], [*result["untried"], *(result["unfit"] if result["kept"] else ())]


def tool(desk: types.ModuleType, glass: types.ModuleType) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """The race tool's `run`, with these behind its imports."""
    scope: dict[str, Any] = {}
    with IMPORTING:
        sys.modules.update(desk=desk, glass=glass)
        try:
            exec(gifts.RACE, scope)
        finally:
            del sys.modules["desk"], sys.modules["glass"]
    return scope["run"]


def rules(number: int, noise: Noise) -> gate.Rules:
    return gate.Rules(gate.spend(DEFAULTS.alpha, number), noise, DEFAULTS.max_pairs)


def duel(parent: Files, child: Files, name: str, by: gate.Rules, bill: Bill) -> GateDecision:
    """The gate as a loop does it: pair after pair, on fresh seeds and documents."""
    pairs: list[tuple[float, float]] = []
    while (decision := gate.decide(pairs, by)).decision == "more":
        seeds = f"{name}-{len(pairs)}"
        ours, theirs = bill.scores([Job(files, LONG, seeds, "confirm", seeds) for files in (parent, child)])
        if ours is None or theirs is None:
            return gate.failed("a training failed", pairs)
        pairs.append((ours, theirs))
    return decision


# What they came to


def calibrated(start: Files, bill: Bill) -> Noise:
    """The starter's spread over seeds, which the gate starts from; on the documents that explorations use."""
    found = bill.scores([Job(start, LONG, f"cal-{k}x{k}", "select") for k in range(DEFAULTS.panel)])
    scores = [score for score in found if score is not None]
    return Noise(sample_sd(scores), len(scores) - 1)


def scored(champion: Champion, train: Train) -> tuple[float, ...] | None:
    """On the panel; None when one of its trainings fails, since a failure is never a number."""
    results = train([Job(champion.files, LONG, f"panel-{k}", "final", "panel") for k in range(PANEL)])
    scores = tuple(result.score for result in results if result.score is not None)
    return scores if len(scores) == PANEL else None


def walk(way: str, replicate: int, train: Train, panel: Train, trials: float) -> search_page.Walk:
    """One way through one replicate's stream; each of its champions on the panel, as soon as there is one."""
    start, edits, apart = starter(), stream(replicate), Bill(train)
    with ThreadPoolExecutor() as pool:
        panels: list[Future[tuple[float, ...] | None]] = []
        bill = Bill(train, crowned=lambda champion: panels.append(pool.submit(scored, champion, panel)))
        if way == "greedy":
            greedy(start, edits, bill)
        else:
            raced(start, edits, bill, calibrated(start, apart), trials)
    crowned = zip(bill.champions, panels, strict=True)
    steps = [search_page.Step(c.kept, c.seconds, scores.result(), c.at_gate) for c, scores in crowned]
    return search_page.Walk(tuple(steps), bill.seconds, apart.seconds, bill.at_gate)


def measured(replicate: int, train: Train, panel: Train, trials: float) -> dict[str, search_page.Walk]:
    """The ways that can be told now, side by side; each goes as far as there is time."""
    with ThreadPoolExecutor(len(search_page.WAYS)) as pool:
        under_way = {way: pool.submit(walk, way, replicate, train, panel, trials) for way in search_page.WAYS}
    return {way: future.result() for way, future in under_way.items() if not _cut_off(future)}


def _cut_off(future: Future[search_page.Walk]) -> bool:
    return isinstance(future.exception(), OutOfTime)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="stories")
    parser.add_argument("--seconds", type=float, default=15.0, help="CPU-seconds of a full training")
    parser.add_argument("--replicates", type=int, default=4)
    parser.add_argument("--minutes", type=float, default=40.0, help="start no training after that")
    parser.add_argument("--write-only", action="store_true", help="train nothing, write what is known")
    parser.add_argument("--trials", type=float, default=DEFAULTS.trials_per_generation, help="explored before a gate")
    parser.add_argument("--workers", type=int, default=WORKERS, help="trainings at a time; for one core each")
    asked = parser.parse_args()
    deadline = time.monotonic() + (-1.0 if asked.write_only else 60 * asked.minutes)
    side_by_side = ThreadPoolExecutor(max(1, asked.workers // BUSY))
    # Panels have workers of their own, which give way: a search waits for each of its trainings, nobody for a panel.
    with side_by_side, workers(asked.workers) as pool, workers(asked.workers, NICEST) as panel_pool:

        def told_of(number: int) -> search_page.Replicate:
            world = World(asked.task, number, asked.seconds)
            search, panel = (Trainings(SEARCH, world, each, deadline, run_job) for each in (pool, panel_pool))
            found = measured(number, search.train, panel.train, asked.trials)
            replicate = search_page.Replicate(number, found, frozenset(search.machines | panel.machines))
            print(f"replicate {number}: {', '.join(found) or 'no way'} complete", flush=True)
            return replicate

        told = list(side_by_side.map(told_of, range(asked.replicates)))
    command = f"python benchmarks/search.py --seconds {asked.seconds:g} --trials {asked.trials:g}"
    if any(replicate.complete for replicate in told):
        section = search_page.section(told, asked.replicates, f"{command} --replicates {asked.replicates}", asked.task)
        page.put(page.BENCHMARKS, "search", section)


if __name__ == "__main__":
    main()
