"""What a trial costs beside its training, in one run on one machine.

    python benchmarks/overhead.py [--glass docker] [--seconds 20,60]

Writes the section `overhead` of docs/benchmarks.md. Needs the images when the glass is docker.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import page  # noqa: E402

from bellglass import bundles, tasks  # noqa: E402
from bellglass.intake import Done, FileReceived, Request  # noqa: E402
from bellglass.ports import Glass, Guest, GuestSpec  # noqa: E402
from bellglass.records import Budget, Role, Seeds  # noqa: E402
from bellglass.steps.judge import judge  # noqa: E402
from bellglass.steps.train import WEIGHTS_FILE, Training, train  # noqa: E402
from bellglass.warm import WarmGlass  # noqa: E402

SECRET = hashlib.sha256(b"benchmarks/overhead.py").digest()
ECHO = b"""
import glass, time
for _ in range(2000):
    glass.time_left()
glass.data()
block = bytes(100_000_000)
open('out/weights.safetensors', 'wb').write(block)
"""
LABELS = {"loop": "overhead"}


def make_glass(name: str) -> Glass:
    if name == "docker":
        from bellglass.doors.docker.glass import DockerGlass

        return DockerGlass()
    from bellglass.doors.process_glass import ProcessGlass

    return ProcessGlass()


@contextmanager
def opened(glass: Glass) -> Iterator[Glass]:
    try:
        yield glass
    finally:
        glass.close()


def first_step_seconds(glass: Glass) -> float:
    """From wanting a guest to the first `time_left` of the starter, which it asks before its first step."""
    task = tasks.load("stories")
    docs = tasks.make(task, "train", SECRET, 64)
    began, heard = time.monotonic(), []

    class Heard(Exception):
        pass

    def stop() -> bool:
        return bool(heard)

    def note_first(guest: Guest) -> None:
        heard.append(time.monotonic() - began)

    watched = _Watching(glass, note_first)
    budget = Budget("steps", 1, 60)
    train(watched, bundles.starter(), docs, task=task, seeds=Seeds(1, 1), budget=budget, labels=LABELS, cancelled=stop)
    return heard[0]


class _Watching:
    """A glass whose guests tell when they first ask for the time left."""

    def __init__(self, glass: Glass, tell) -> None:
        self._glass, self._tell = glass, tell

    def open(self, spec: GuestSpec) -> Guest:
        guest, tell = self._glass.open(spec), self._tell

        class Watched:
            def __getattr__(self, name: str):
                return getattr(guest, name)

            def recv(self, timeout: float):
                event = guest.recv(timeout)
                if isinstance(event, Request) and event.op == "time_left":
                    tell(guest)
                return event

        return Watched()


def wire(glass: Glass) -> dict[str, float]:
    """Round trips and both directions of traffic, with a guest that only talks."""
    spec = GuestSpec(Role.TRAIN, LABELS, 2048, 300.0)
    guest = glass.open(spec)
    payload = os.urandom(1 << 20) * 100
    try:
        guest.send_file("trainer/train.py", ECHO)
        guest.send("start", args={})
        trips, began = 0, time.monotonic()
        while True:
            event = guest.recv(30.0)
            if isinstance(event, Request) and event.op == "time_left":
                trips += 1
                guest.send("reply", id=event.id, ok=True, value={"left": 1, "total": 1})
            elif isinstance(event, Request):
                round_trip = (time.monotonic() - began) / trips
                began = time.monotonic()
                guest.send_file("data/tokens.npy", payload)
                guest.send("reply", id=event.id, ok=True, value=None)
                sent = began
            elif isinstance(event, FileReceived):
                received = time.monotonic()
            elif isinstance(event, Done):
                return {"round_trip_ms": 1000 * round_trip, "both_ways_seconds": received - sent}
    finally:
        guest.end()


def cpu_seconds() -> float:
    mine, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return mine.ru_utime + mine.ru_stime + children.ru_utime + children.ru_stime


def trial(glass: Glass, seconds: float) -> dict[str, float]:
    """One proved trial: wall time beyond its training, and the judge's share."""
    task = tasks.load("stories")
    preset = task.presets["cpu"]
    docs = tasks.make(task, "train", SECRET, preset.train_docs)
    confirm = tasks.make(task, "confirm", SECRET, preset.confirm_docs)
    budget = Budget("cpu_seconds", seconds, 4 * seconds)
    began = time.monotonic()
    bundle = bundles.starter()
    made: Training = train(glass, bundle, docs, task=task, seeds=Seeds(1, 1), budget=budget, labels=LABELS)
    if made.fault is not None:
        raise SystemExit(f"the trial failed: {made.fault}: {made.log.decode(errors='replace')}")
    trained = time.monotonic()
    judged = judge(
        glass, bundle, made.files[WEIGHTS_FILE], task, confirm, preset=preset, labels=LABELS, prove=True,
        proof_key=SECRET, against=confirm.floor_bits,
    )  # fmt: skip
    total = time.monotonic() - began
    assert judged.verdict.targets > 0
    return {"outside": total - made.train_seconds, "judge": total - (trained - began), "trained": made.train_seconds}


def command_seconds(*words: str) -> float:
    times = []
    for _ in range(7):
        began = time.monotonic()
        subprocess.run([sys.executable, "-m", "bellglass", *words], cwd=page.ROOT, capture_output=True, check=True)
        times.append(time.monotonic() - began)
    return statistics.median(times)


def rows(name: str, lengths: list[float]) -> Iterator[list[str]]:
    with opened(make_glass(name)) as cold:
        first_step_seconds(cold)  # the first one reads everything from disk
        yield ["cold guest to first training step", f"{first_step_seconds(cold):.2f} s", "–"]
        found = wire(cold)
        yield ["round trip", f"{found['round_trip_ms']:.2f} ms", "0.1 ms"]
        yield ["100 MB in, then 100 MB out", f"{found['both_ways_seconds']:.2f} s", "≤ 1 s out"]
    with opened(WarmGlass(make_glass(name), {Role.TRAIN: 1, Role.PREDICT: 2})) as warm:
        first_step_seconds(warm)
        time.sleep(15.0)  # until the pool is filled
        yield ["warm guest to first training step", f"{first_step_seconds(warm):.2f} s", "–"]
        for seconds in lengths:
            trial(warm, 2.0)
            time.sleep(15.0)
            found = trial(warm, seconds)
            yield [f"outside training, {seconds:.0f} s trial, cores idle", f"{found['outside']:.2f} s", "≤ 1 s"]
            share = f"{100 * found['judge'] / seconds:.1f}%"
            yield [f"judge of a {seconds:.0f} s trial (two guests)", f"{found['judge']:.2f} s, {share}", "≤ 5% of 60 s"]
    yield ["`bellglass --help`", f"{command_seconds('--help'):.2f} s", "≤ 0.3 s"]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "linux" else 1024 * 1024)
    yield ["memory of this driver at its peak", f"{peak:.0f} MB", "–"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--glass", default="docker")
    parser.add_argument("--seconds", default="20,60")
    chosen = parser.parse_args()
    lengths = [float(word) for word in chosen.seconds.split(",")]
    made = list(rows(chosen.glass, lengths))
    text = f"Machine: {page.machine()}. Command: `python benchmarks/overhead.py --glass {chosen.glass}`.\n\n"
    page.put(page.BENCHMARKS, "overhead", text + page.table(["figure", "measured", "goal"], made))


if __name__ == "__main__":
    main()
