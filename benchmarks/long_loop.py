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
from contextlib import contextmanager
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
    generation: int
    costs: list[Cost]
    adopted: int
    megabytes: float  # of this process
    weight: int = 1  # of its events, as a reader's bound counts them

    def part(self, name: str) -> float:
        return statistics.median(cost.parts[name] for cost in self.costs)

    @property
    def total(self) -> float:
        return statistics.median(cost.total for cost in self.costs)


# A driver's own work


def grow(home: Path, wanted: list[int]) -> Iterator[Figures]:
    """One loop, looked at for WINDOW generations up to each of these (the first: from it on)."""
    first, last = wanted[0], wanted[-1]
    windows = {n: range(n, n + WINDOW) if n == first else range(n - WINDOW + 1, n + 1) for n in wanted}
    maker = Long(max(last, first + WINDOW))
    folder = home / "long"
    with Ledger.create(folder) as ledger:
        books = Books(ledger, Blobs(folder / "blobs"), Bounds())
        costs: dict[int, list[Cost]] = {n: [] for n in wanted}
        for number, events in _generations(maker):
            measured = [n for n in wanted if number in windows[n]]
            cost = _generation(books, number, events, look=bool(measured))
            for n in measured:
                costs[n].append(cost)
                if len(costs[n]) == WINDOW:
                    yield Figures(n, costs[n], len(books.state.adoptions), _megabytes(), _weight(events))


def _generations(maker: Long) -> Iterator[tuple[int, list[tuple[str, Json]]]]:
    """The events of each; those before the first are its own."""
    events: list[tuple[str, Json]] = []
    for kind, body in maker.events():
        events.append((kind, body))
        if kind == "generation.ended":
            yield body["generation"], events
            events = []


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
    return sum(limits.ROW_WEIGHT + sum(map(limits.weight, row)) for row in rows)


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


def text(found: list[Figures], read_: Read) -> str:
    first, last = found[0], found[-1]
    head = [
        "generation",
        *PARTS,
        "all",
        f"over generation {first.generation}",
        "adopted so far",
        "memory of the process",
    ]
    rows = [
        [
            f"{one.generation:,}",
            *(f"{one.part(name):.2f} ms" for name in PARTS),
            f"{one.total:.1f} ms",
            f"{one.total / first.total:.2f}",
            str(one.adopted),
            f"{one.megabytes:.0f} MB",
        ]
        for one in found
    ]
    part = f"**A small subset, up to generation {last.generation}.** " if last.generation < WHOLE else ""
    lines = [part + _growth(first, last), "", page.table(head, rows), "", _reading(read_), ""]
    return "\n".join([*lines, f"Made by `python benchmarks/long_loop.py` on {page.machine()}."])


def _growth(first: Figures, last: Figures) -> str:
    ratio, events = last.total / first.total, statistics.median(cost.events for cost in last.costs)
    grew = (last.megabytes - first.megabytes) / max(1, last.generation - first.generation) * 1000
    most, reach = limits.MEMORY_BYTES_MAX >> 20, limits.MEMORY_BYTES_MAX // last.weight
    return (
        f"CPU time of the host for one generation, without guests and judge: the median of {WINDOW}, of {events:.0f} "
        f"events each. At generation {last.generation:,} it is {ratio:.2f} times that at generation "
        f"{first.generation} (goal: at most {GOAL}{'' if ratio <= GOAL else ', missed'}). The driver keeps "
        f"{grew:.0f} kB more for each generation: its records of trials and calls. Whoever opens a ledger takes "
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
        found = []
        for figures in grow(Path(home), [int(count) for count in chosen.generations.split(",")]):
            print(
                f"generation {figures.generation}: {figures.total:.1f} ms, {figures.megabytes:.0f} MB", file=sys.stderr
            )
            found.append(figures)
        made = read(Path(home), chosen.read)
    section = text(found, made)
    print(section)
    if not chosen.print:
        page.put(page.BENCHMARKS, "long-loop", section)


if __name__ == "__main__":
    main()
