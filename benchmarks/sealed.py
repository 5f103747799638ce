"""The same demo in the process glass and in Docker, and where the sealed one's time goes.

    python benchmarks/sealed.py [--seed 1] [--print]

Writes the section `sealed` of docs/benchmarks.md. Needs the images and a quiet machine: CPU seconds are the whole
machine's, so that the engine's own are among them. Takes about ten minutes.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import overhead  # noqa: E402
import page  # noqa: E402

from bellglass import processes, wiring  # noqa: E402
from bellglass.commands.start import DEMO  # noqa: E402
from bellglass.config import load  # noqa: E402
from bellglass.line.warm import WarmGlass  # noqa: E402
from bellglass.loop import run_loop  # noqa: E402
from bellglass.ports import Glass, Guest, GuestExit, GuestSpec  # noqa: E402
from bellglass.records import Role  # noqa: E402
from bellglass.store.state import State, state_of  # noqa: E402

WORK = page.ROOT / "build" / "sealed"


@dataclass
class Spent:
    """What the guests of one demo took. Threads add to it."""

    opened: dict[Role, int] = field(default_factory=lambda: dict.fromkeys(Role, 0))
    ready_cpu: float = 0.0  # until they were ready
    whole_cpu: float = 0.0  # until they ended
    opening: float = 0.0  # waited for, by whoever opened them; most of it in the background
    lock: threading.Lock = field(default_factory=threading.Lock)


class Measured:
    """A glass that writes down what its guests take."""

    def __init__(self, glass: Glass, spent: Spent) -> None:
        self._glass, self._spent = glass, spent

    def __getattr__(self, name: str):
        return getattr(self._glass, name)

    def open(self, spec: GuestSpec) -> Guest:
        began = time.monotonic()
        guest, spent = self._glass.open(spec), self._spent
        with spent.lock:
            spent.opened[spec.role] += 1
            spent.opening += time.monotonic() - began
            spent.ready_cpu += guest.cpu_seconds()

        class Watched:
            def __getattr__(self, name: str):
                return getattr(guest, name)

            def end(self) -> GuestExit:
                used, ended = guest.cpu_seconds(), guest.end()
                with spent.lock:
                    spent.whole_cpu += max(0.0, used - self.counted)
                    self.counted = used
                return ended

            counted = 0.0

        return Watched()


@dataclass
class Demo:
    glass: str
    wall: float
    cpu: float  # of the whole machine, less what it uses anyway
    driver_cpu: float
    spent: Spent
    state: State


def demo(glass_name: str, seed: int) -> Demo:
    home = WORK / f"{glass_name}-{seed}"
    shutil.rmtree(home, ignore_errors=True)
    rate, spent = overhead.background_rate(), Spent()
    before, own, began = overhead.machine_cpu_seconds(), time.process_time(), time.monotonic()
    config = load(None, {**DEMO, "seed": seed, "generations": 3, "glass": glass_name})
    folder = wiring.create(config, home)
    surface = wiring.Surface(None, lambda trial, phase: None, None, lambda: None)
    ready = {role: processes.cores() for role in (Role.TRAIN, Role.PREDICT)}
    glass = WarmGlass(Measured(overhead.make_glass(glass_name), spent), ready)
    with contextlib.ExitStack() as opened:
        run_loop(opened.enter_context(wiring.open_loop(folder, surface, glass=glass)))
    wall = time.monotonic() - began
    cpu = overhead.machine_cpu_seconds() - before - rate * wall
    return Demo(glass_name, wall, cpu, time.process_time() - own, spent, state_of(folder))


def rows(demos: list[Demo]) -> Iterator[list[str]]:
    def row(what: str, values: list[float], unit: str) -> list[str]:
        ratio = f"{values[1] / values[0]:.2f}" if values[0] else "–"
        return [what, *(f"{value:.0f} {unit}" for value in values), ratio]

    yield row("wall", [demo.wall for demo in demos], "s")
    yield row("CPU of the whole machine", [demo.cpu for demo in demos], "CPU-s")
    trained = [sum(trial.train_seconds for trial in demo.state.trials.values()) for demo in demos]
    yield row("of it: training, on the trials' own clock", trained, "CPU-s")
    yield row("of it: guests until they are ready", [demo.spent.ready_cpu for demo in demos], "CPU-s")
    rest = [d.spent.whole_cpu - d.spent.ready_cpu - t for d, t in zip(demos, trained, strict=True)]
    yield row("of it: guests, all else (set-up, predicting)", rest, "CPU-s")
    yield row("of it: the driver", [demo.driver_cpu for demo in demos], "CPU-s")
    engine = [demo.cpu - demo.spent.whole_cpu - demo.driver_cpu for demo in demos]
    yield row("of it: the engine, keepers, nurseries and the kernel", engine, "CPU-s")
    for role in Role:
        yield row(f"`{role}` guests", [float(demo.spent.opened[role]) for demo in demos], "")
    yield row("trials", [float(len(demo.state.trials)) for demo in demos], "")


def rest_of(sealed: Demo) -> str:
    """Where the sealed one's time goes, in a sentence."""
    each = sealed.spent.ready_cpu / sum(sealed.spent.opened.values())
    return (
        f"What the seal costs is mostly the making of guests: {each:.1f} CPU-s each, since every container imports its "
        "libraries anew, where the process glass forks from one process that has. Between trials of one loop that is "
        "done ahead, in the background; on two cores it is taken from the trainings beside it."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--print", action="store_true")
    chosen = parser.parse_args()
    demos = [demo(name, chosen.seed) for name in ("process", "docker")]
    text = f"Machine: {page.machine()}. Command: `python benchmarks/sealed.py --seed {chosen.seed}`.\n\n" + page.table(
        ["figure", "process glass, unsealed", "Docker, sealed", "ratio"], list(rows(demos))
    )
    text += f"\n\n{rest_of(demos[1])}"
    if chosen.print:
        print(text)
    else:
        page.put(page.BENCHMARKS, "sealed", text)


if __name__ == "__main__":
    main()
