"""How long `bellglass export wandb` takes, offline, per 100 generations.

    python benchmarks/wandb_export.py [--generations 10,100] [--rounds 3] [--print]

Writes the section `wandb` of docs/benchmarks.md (`--print` only prints it). The loops are made, not run: events through
the real ledger with real bundles (tests/made_loop.py), curves of 64 points and weights of 1 MB for every trial. What is
timed is the command as a person types it, in a process of its own. Needs wandb; a quiet machine.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent / "tests")]

import made_loop  # noqa: E402
import page  # noqa: E402

from bellglass.curves import Curves  # noqa: E402
from bellglass.store.blobs import Blobs  # noqa: E402
from bellglass.store.ledger import Ledger  # noqa: E402
from bellglass.store.lineage import Lineage  # noqa: E402

POINTS, WEIGHTS_BYTES, PARTS = 64, 1_000_000, 10


@dataclass(frozen=True, slots=True)
class Figures:
    generations: int
    events: int
    seconds: float
    cpu_seconds: float  # of the command and of wandb's helper process
    megabytes: float


def write(home: Path, generations: int) -> Path:
    """Few weights, used again and again: an export takes them from where they lie."""
    folder = home / f"stories-{generations:08x}"
    maker = made_loop.Maker(generations, seed=generations)
    with Ledger.create(folder) as ledger:
        maker.lineage, maker.blobs = Lineage.create(folder / "lineage.git"), Blobs(folder / "blobs")
        weights = [maker.blobs.put(bytes([part]) * WEIGHTS_BYTES) for part in range(PARTS)]
        for number, (kind, body) in enumerate(maker.events()):
            if kind == "trial.settled":
                body |= {"curves": _curves(maker.blobs, number % PARTS), "weights": weights[number % PARTS]}
            ledger.append(kind, body)
    return folder


def _curves(blobs: Blobs, part: int) -> str:
    curves = Curves()
    for step in range(POINTS):
        curves.take("loss", step, step / 4, 3.0 - step / 100 + part)
        curves.take("rate", step, step / 4, 0.01)
    return blobs.put(bytes(curves))


def measure(home: Path, generations: int, rounds: int) -> Figures:
    folder = write(home, generations)
    with Ledger.open(folder) as ledger:
        events = ledger.last_seq
    ran = [_export(folder, home) for _ in range(rounds)]
    size = sum(
        path.stat().st_size for path in (folder / "wandb").rglob("*") if path.is_file() and not path.is_symlink()
    )
    seconds, cpu_seconds = (statistics.median(values) for values in zip(*ran, strict=True))
    return Figures(generations, events, seconds, cpu_seconds, size / 1e6)


def _export(folder: Path, home: Path) -> tuple[float, float]:
    command = [sys.executable, "-m", "bellglass", "export", "wandb", str(folder), "--offline"]
    env = {"PATH": os.environ["PATH"], "HOME": str(home), "PYTHONPATH": str(HERE.parent)}
    began, used = time.perf_counter(), os.times()
    subprocess.run(command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)
    spent, now = time.perf_counter() - began, os.times()
    cpu = now.children_user + now.children_system - used.children_user - used.children_system
    return spent, cpu


def text(found: list[Figures], rounds: int) -> str:
    head = ["generations", "events", "export", "CPU time", "written"]
    rows = [
        [f"{f.generations:,}", f"{f.events:,}", f"{f.seconds:.1f} s", f"{f.cpu_seconds:.1f} s", f"{f.megabytes:.1f} MB"]
        for f in found
    ]
    first, last = found[0], found[-1]
    lines = [page.table(head, rows), ""]
    if last.generations > first.generations:
        each = (last.seconds - first.seconds) / (last.generations - first.generations)
        lines += [f"Each 100 generations add {100 * each:.1f} s; the rest is starting Python and wandb.", ""]
    version = importlib.metadata.version("wandb")
    how = (
        f"`bellglass export wandb LOOP --offline` with wandb {version}, median of {rounds}: a run per generation with "
        f"curves of {POINTS} points, its bundle, and weights of {WEIGHTS_BYTES / 1e6:g} MB, which are not copied. CPU "
        "time is the command's; wandb's helper writes beside it."
    )
    return "\n".join([*lines, how, "", f"Made by `python benchmarks/wandb_export.py` on {page.machine()}."])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--generations", default="10,100")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--print", action="store_true")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        counts = [int(count) for count in chosen.generations.split(",")]
        found = [measure(Path(home), count, chosen.rounds) for count in counts]
    made = text(found, chosen.rounds)
    print(made)
    if not chosen.print:
        page.put(page.BENCHMARKS, "wandb", made)


if __name__ == "__main__":
    main()
