"""What a generation costs its host when a loop has grown long, and what it costs to read such a loop.

    python benchmarks/long_loop.py [--generations 10,1000,10000] [--read 376] [--home FOLDER] [--print]

Writes the section `long-loop` of docs/benchmarks.md (`--print` only prints it). The loops are made, not run: every
event through the real books, into a real ledger and state (tests/made_loop.py), as many a generation as a loop with the
offline improver has. Measured is CPU time, which other work beside changes little; a folder in memory (`--home
/dev/shm`) spares the disk half a million waits. `--generations 10,60 --read 20` is the small subset that CI runs.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent / "tests")]

import made_loop  # noqa: E402
import page  # noqa: E402

from bellglass import tripwires  # noqa: E402
from bellglass.bounds import Bounds  # noqa: E402
from bellglass.commands.progress import expected_seconds  # noqa: E402
from bellglass.records import Bundle, Json  # noqa: E402
from bellglass.show import phase, recording, report, showing  # noqa: E402
from bellglass.steps.history import digest  # noqa: E402
from bellglass.steps.panel import rules_of  # noqa: E402
from bellglass.store import bundles, limits  # noqa: E402
from bellglass.store.blobs import Blobs  # noqa: E402
from bellglass.store.books import Books  # noqa: E402
from bellglass.store.ledger import GENESIS, Ledger, canonical  # noqa: E402
from bellglass.store.lineage import Lineage  # noqa: E402
from bellglass.store.state import state_of  # noqa: E402
from bellglass.verify import verify  # noqa: E402

WINDOW = 20  # generations that a figure is the median of
WHOLE = 10_000  # generations of the goal; fewer are a subset
EXPLORED, CALLS, CLOCKS = 10, 10, 10  # of a generation, as in docs/recordings/stories-offline.bellglass
GOAL, READ_SECONDS = 1.2, 2.0


class Long(made_loop.Maker):
    """With as many events a generation as a loop that ran, and files as large."""

    def _commit(self, bundle: Bundle, parent: str | None) -> str:
        if self.lineage is None:
            return super()._commit(bundle, parent)
        return super()._commit({**bundles.starter(), **bundle}, parent)

    def _explored(self, number: int, parent: str, child: float) -> Iterator[tuple[str, Json]]:
        for index in range(EXPLORED):
            tried = self.bundle | {"trainer/train.py": f"RATE = {number}.{index}\n".encode()}
            commit = self._commit(tried, parent)
            yield from self._trial(f"g{number}-explore-{index}-{commit[:8]}", "explore", commit, child + 0.3)
            yield "loop.clock", {"wall_seconds": 10.0}

    def _session(self, number: int) -> Iterator[tuple[str, Json]]:
        heard: list[Json] = []
        for index in range(CALLS):
            text = f"generation {number}, turn {index}: " + "what the tool said. " * 150
            heard.append({"role": "user", "text": text, "calls": [], "call_id": "", "opaque": []})
            call = {"id": f"c{index}", "name": "read_file", "args": {"path": "trainer/train.py"}}
            reply = {"text": f"I look at it again, {index}.", "calls": [call], "opaque": []}
            key = f"g{number}-improve-{index}"
            ask = {"calls": 1, "tokens_in": 9000, "tokens_out": 200, "train_seconds": 0.0, "usd": 0.002}
            request = self._blob({"model": "main", "messages": heard, "tools": [], "max_tokens": 4096})
            yield "call.reserved", {"key": key, "model": "main", "ask": ask, "request_sha": request}
            facts = {
                "outcome": "ok",
                "provider": "offline",
                "provider_model": "offline",
                "sampling": {},
                "stop": "calls",
            }
            answered = self._blob({**reply, "stop": "calls"})
            yield "call.settled", {"key": key, "cost": ask, "facts": facts, "reply_sha": answered}
            heard.append({"role": "assistant", "call_id": "", **reply})


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one generation, in milliseconds of CPU."""

    parts: dict[str, float]
    events: int

    @property
    def total(self) -> float:
        return sum(self.parts.values())


@dataclass(frozen=True, slots=True)
class Figures:
    """Of WINDOW generations up to this one, and of a young loop's, in turn with them: so load slows down both."""

    generation: int
    costs: list[Cost]
    young: list[Cost]
    adopted: int
    megabytes: float  # of this process
    weight: int = 1  # of a generation's events, as a reader's bound counts them

    @property
    def ratio(self) -> float:
        return total(self.costs) / total(self.young)


def total(costs: list[Cost]) -> float:
    return statistics.median(cost.total for cost in costs)


def part(costs: list[Cost], name: str) -> float:
    return statistics.median(cost.parts[name] for cost in costs)


# A driver's own work


class Driven:
    """A made loop and its driver's books, one generation after the other."""

    def __init__(self, folder: Path, generations: int) -> None:
        self._events = Long(generations).events()
        self.number = 0
        self.last: list[
            tuple[str, Json]
        ] = []  # events of the last generation; before the first, those of the loop, too
        self.books = Books(Ledger.create(folder), Blobs(folder / "blobs"), Bounds())

    def step(self, *, look: bool) -> Cost:
        self.last = []
        for kind, body in self._events:
            self.last.append((kind, body))
            if kind == "generation.ended":
                break
        self.number += 1
        return _generation(self.books, self.number, self.last, look=look)

    def go_to(self, number: int) -> None:
        while self.number < number:
            self.step(look=False)


def grow(home: Path, young: int, wanted: list[int]) -> Iterator[Figures]:
    """One loop, looked at for WINDOW generations up to each of these, beside a fresh one at generation `young`."""
    before = _megabytes()
    old = Driven(home / "old", wanted[-1])
    with closing(old.books.ledger):
        for number in wanted:
            old.go_to(number - WINDOW)
            megabytes = _megabytes() - before
            fresh = Driven(home / f"young-{number}", young + WINDOW)
            with closing(fresh.books.ledger):
                fresh.go_to(young - 1)
                pairs = [(old.step(look=True), fresh.step(look=True)) for _ in range(WINDOW)]
            costs, beside = map(list, zip(*pairs, strict=True))
            yield Figures(number, costs, beside, len(old.books.state.adoptions), megabytes, _weight(old.last))


def _generation(books: Books, number: int, events: list[tuple[str, Json]], *, look: bool) -> Cost:
    """What steps/generation.py and the terminal do of it on the host, but for guests and judge."""
    state, spent = books.state, dict.fromkeys(PARTS, 0.0)

    def timed(part: str, act: Callable[[], object]) -> None:
        began = time.thread_time()
        act()
        spent[part] += (time.thread_time() - began) * 1000.0

    for kind, body in events:
        timed("ledger and fold", lambda kind=kind, body=body: books.record(kind, **body))  # type: ignore[misc]
        if not look:
            continue
        if kind == "session.started":
            timed("digest", lambda: json.dumps(digest(state, number)))
            timed("digest", books.left)
        elif kind == "proposal.made":
            timed("rules of the gate", lambda: rules_of(state, number))
        elif kind == "generation.watched":
            timed("tripwires", lambda: _look(books, number))
        elif kind == "trial.intended":
            timed("terminal", lambda body=body: _draw(books, body["trial_id"]))  # type: ignore[misc]
    return Cost(spent, len(events))


PARTS = ("ledger and fold", "digest", "rules of the gate", "tripwires", "terminal")


def _look(books: Books, number: int) -> object:
    trials, disturbed = tuple(books.state.trials_in(number)), books.state.disturbed_by(number)
    return tripwires.look(tripwires.Watched(number, trials, "exact", (), disturbed))


def _draw(books: Books, trial_id: str) -> object:
    return expected_seconds(books.state, trial_id), phase.phase(books.state), phase.next_review(books.state)


def _weight(events: list[tuple[str, Json]]) -> int:
    rows = [(kind, canonical(body), GENESIS, GENESIS) for kind, body in events]
    return sum(limits.ROW_WEIGHT + sum(map(limits._weight, row)) for row in rows)


def _megabytes() -> float:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


# Reading


@dataclass(frozen=True, slots=True)
class Read:
    generations: int
    events: int
    seconds: dict[str, float]  # of CPU, by command


def read(home: Path, generations: int) -> Read:
    """A loop with all its bundles and model calls, through what the commands do."""
    folder = home / "read"
    maker = Long(generations, seed=2)
    with Ledger.create(folder) as ledger:
        maker.lineage, maker.blobs = Lineage.create(folder / "lineage.git"), Blobs(folder / "blobs")
        for kind, body in maker.events():
            ledger.append(kind, body)
        count = ledger.last_seq
    acts: dict[str, Callable[[], object]] = {
        "read and fold": lambda: state_of(folder),
        "`verify`": lambda: _verified(folder),
        "`report`": lambda: report.html(report.gather(showing.open_loop(folder))),
        "`pack`": lambda: recording.pack(folder, home / "packed.bellglass"),
    }
    return Read(generations, count, {name: _cpu(act) for name, act in acts.items()})


def _verified(folder: Path) -> None:
    with Ledger.open(folder) as ledger:
        wrong = [finding.found for finding in verify(folder, ledger) if not finding.ok]
    assert not wrong, wrong


def _cpu(act: Callable[[], object]) -> float:
    began = time.process_time()
    act()
    return time.process_time() - began


# The page


def text(young: int, found: list[Figures], read_: Read) -> str:
    head = ["generation", *PARTS, "all", f"over generation {young}", "adopted so far", "memory"]
    rows = [_row(f"{young:,}", found[-1].young, ["1", "–", "–"])]
    for one in found:
        more = [f"{one.ratio:.2f}", str(one.adopted), f"{one.megabytes:.0f} MB"]
        rows.append(_row(f"{one.generation:,}", one.costs, more))
    last = found[-1].generation
    subset = f"**A small subset, up to generation {last}.** " if last < WHOLE else ""
    lines = [subset + _growth(young, found[-1]), "", page.table(head, rows), "", _reading(read_), ""]
    return "\n".join([*lines, f"Made by `python benchmarks/long_loop.py` on {page.machine()}."])


def _row(name: str, costs: list[Cost], more: list[str]) -> list[str]:
    return [name, *(f"{part(costs, each):.2f} ms" for each in PARTS), f"{total(costs):.1f} ms", *more]


def _growth(young: int, last: Figures) -> str:
    events = statistics.median(cost.events for cost in last.costs)
    kept = last.megabytes / last.generation * 1000
    most, reach = limits.MEMORY_BYTES_MAX >> 20, limits.MEMORY_BYTES_MAX // last.weight
    return (
        f"CPU time of the host for one generation, without guests and judge: the median of {WINDOW}, of {events:.0f} "
        f"events each, in turn with those of a young loop. At generation {last.generation:,} it is {last.ratio:.2f} "
        f"times that at generation {young} (goal: at most {GOAL}{'' if last.ratio <= GOAL else ', missed'}). The "
        f"driver keeps {kept:.0f} kB of each generation: its records of trials and calls. Whoever opens a ledger takes "
        f"at most {most} MB of events (`ledger_too_large`): {reach:,} generations of these. A longer loop runs on, and "
        f"can be neither read nor resumed."
    )


def _reading(found: Read) -> str:
    seconds = ", ".join(f"{name} {value:.1f} s" for name, value in found.seconds.items())
    over = [name for name, value in found.seconds.items() if value > READ_SECONDS and name.startswith("`")]
    missed = f", missed by {', '.join(over)}" if over else ""
    return (
        f"To read a loop of {found.generations} generations ({found.events:,} events, with all its bundles and model "
        f"calls), CPU: {seconds} (goal: at most {READ_SECONDS:g} s{missed})."
    )


@contextmanager
def _own_state(home: Path) -> Iterator[None]:
    """Loops of nobody's: their heads are noted beside them, and not among the user's."""
    before = os.environ.get("XDG_STATE_HOME")
    os.environ["XDG_STATE_HOME"] = str(home / "state")
    try:
        yield
    finally:
        del os.environ["XDG_STATE_HOME"]
        if before is not None:
            os.environ["XDG_STATE_HOME"] = before


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--generations", default=f"10,1000,{WHOLE}")
    parser.add_argument("--read", type=int, default=376)
    parser.add_argument("--home", type=Path)
    parser.add_argument("--print", action="store_true")
    chosen = parser.parse_args(words)
    with tempfile.TemporaryDirectory(dir=chosen.home) as home, _own_state(Path(home)):
        young, *older = (int(count) for count in chosen.generations.split(","))
        found = []
        for figures in grow(Path(home), young, older):
            print(f"generation {figures.generation}: {figures.ratio:.2f} times generation {young}", file=sys.stderr)
            found.append(figures)
        made = read(Path(home), chosen.read)
    section = text(young, found, made)
    print(section)
    if not chosen.print:
        page.put(page.BENCHMARKS, "long-loop", section)


if __name__ == "__main__":
    main()
