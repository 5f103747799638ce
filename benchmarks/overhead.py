"""What a trial costs beside its training, in one run on one machine.

    python benchmarks/overhead.py [--glass docker] [--device cpu] [--seconds 20,60] [--print]

Writes the section `overhead` of docs/benchmarks.md, on a GPU `overhead-gpu` (`--print` only prints it). Needs the
images when the glass is docker, and a quiet machine: CPU seconds are the whole machine's, so that the engine's own are
among them.
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
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import page  # noqa: E402

from bellglass import tasks  # noqa: E402
from bellglass.gpus import guest_device  # noqa: E402
from bellglass.line.intake import Done, FileReceived, Request  # noqa: E402
from bellglass.line.warm import WarmGlass  # noqa: E402
from bellglass.ports import Glass, Guest, GuestSpec  # noqa: E402
from bellglass.records import Budget, Role, Seeds  # noqa: E402
from bellglass.steps.judge import judge  # noqa: E402
from bellglass.steps.train import WEIGHTS_FILE, Training, train  # noqa: E402
from bellglass.store import bundles  # noqa: E402

SECRET = hashlib.sha256(b"benchmarks/overhead.py").digest()
ECHO = b"""
import glass
for _ in range(2000):
    glass.time_left()
glass.data()
block = bytes(100_000_000)
open('out/weights.safetensors', 'wb').write(block)
"""
LABELS = {"loop": "overhead"}


def make_glass(name: str, device: str = "cpu") -> Glass:
    if name == "docker":
        from bellglass.doors.docker.glass import DockerGlass

        return DockerGlass(device=guest_device(device))
    from bellglass.doors.process_glass import ProcessGlass

    return ProcessGlass()


@contextmanager
def opened(glass: Glass) -> Iterator[Glass]:
    try:
        yield glass
    finally:
        glass.close()


def train_starter(
    glass: Glass, docs: tasks.Documents, budget: Budget, device: str, stop: Callable[[], bool] = lambda: False
) -> Training:
    return train(
        glass, bundles.starter(), docs, task=tasks.load("stories"), seeds=Seeds(1, 1), budget=budget, labels=LABELS,
        device=device, cancelled=stop,
    )  # fmt: skip


def first_step_seconds(glass: Glass, device: str = "cpu") -> float:
    """From wanting a guest to the first `time_left` of the starter, which it asks before its first step."""
    task = tasks.load("stories")
    docs = tasks.make(task, "train", SECRET, 64)
    began, heard = time.monotonic(), []
    watched = _Watching(glass, lambda: heard.append(time.monotonic() - began))
    made = train_starter(watched, docs, Budget("steps", 1, 60), device, lambda: bool(heard))
    if not heard:
        raise SystemExit(f"no first step: {made.fault}: {made.log.decode(errors='replace')}")
    return heard[0]


class _Watching:
    """A glass whose guests tell when they first ask for the time left."""

    def __init__(self, glass: Glass, tell: Callable[[], None]) -> None:
        self._glass, self._tell = glass, tell

    def __getattr__(self, name: str):
        return getattr(self._glass, name)

    def open(self, spec: GuestSpec) -> Guest:
        guest, tell = self._glass.open(spec), self._tell

        class Watched:
            def __getattr__(self, name: str):
                return getattr(guest, name)

            def recv(self, timeout: float):
                event = guest.recv(timeout)
                if isinstance(event, Request) and event.op == "time_left":
                    tell()
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


def machine_cpu_seconds() -> float:
    """Of everything on this machine since it started, the engine and what runs in containers included."""
    words = Path("/proc/stat").read_text().split()[1:8]  # user nice system idle iowait irq softirq
    return sum(int(word) for index, word in enumerate(words) if index not in (3, 4)) / os.sysconf("SC_CLK_TCK")


def background_rate(seconds: float = 5.0) -> float:
    """CPU seconds per second that the machine uses anyway."""
    before, began = machine_cpu_seconds(), time.monotonic()
    time.sleep(seconds)
    return (machine_cpu_seconds() - before) / (time.monotonic() - began)


def trial(glass: Glass, seconds: float, device: str = "cpu") -> dict[str, float]:
    """One proved trial: wall time beyond its training, and the judge's share."""
    task = tasks.load("stories")
    preset = task.presets["cpu" if device == "cpu" else "gpu"]
    docs = tasks.make(task, "train", SECRET, preset.train_docs)
    confirm = tasks.make(task, "confirm", SECRET, preset.confirm_docs)
    budget = Budget(preset.budget.kind, seconds, 60 + 4 * seconds)
    began = time.monotonic()
    bundle = bundles.starter()
    made = train_starter(glass, docs, budget, device)
    if made.fault is not None:
        raise SystemExit(f"the trial failed: {made.fault}: {made.log.decode(errors='replace')}")
    trained = time.monotonic()
    judged = judge(
        glass, bundle, made.files[WEIGHTS_FILE], task, confirm, preset=preset, labels=LABELS, prove=True,
        proof_key=SECRET, device=device,
    )  # fmt: skip
    total = time.monotonic() - began
    assert judged.verdict.targets > 0
    return {"outside": total - made.train_seconds, "judge": total - (trained - began), "trained": made.train_seconds}


def full(warm: WarmGlass, wanted: dict[Role, int]) -> None:
    """Until as many guests wait as are wanted, and what they cost to start has been spent."""
    until = time.monotonic() + 60.0
    while any(warm.waiting(role) < count for role, count in wanted.items()) and time.monotonic() < until:
        time.sleep(0.1)
    time.sleep(1.0)


def spent_on(warm: WarmGlass, wanted: dict[Role, int], seconds: float) -> tuple[dict[str, float], float]:
    """One trial, and the CPU seconds beside its training, those for the guests that replace its own included."""
    full(warm, wanted)
    rate = background_rate()
    before, began = machine_cpu_seconds(), time.monotonic()
    found = trial(warm, seconds)
    full(warm, wanted)
    used = machine_cpu_seconds() - before - rate * (time.monotonic() - began)
    return found, used - found["trained"]


def two_at_once(warm: WarmGlass, wanted: dict[Role, int], seconds: float) -> float:
    """Seconds outside training of the slower of two trials side by side, one per core of two."""
    full(warm, wanted)
    with ThreadPoolExecutor(2) as pool:
        return max(found["outside"] for found in pool.map(lambda _: trial(warm, seconds), range(2)))


def real_loop() -> Path:
    """The folder of a finished loop: one of the five demos where they were made here, else a demo of its own."""
    found = sorted(page.ROOT.glob("build/five_seeds/*/*/loop.db"))
    if not found:
        words = ["demo", "--seed", "1", "--glass", "process", "--loops", "build/overhead"]
        subprocess.run([sys.executable, "-m", "bellglass", *words], cwd=page.ROOT, capture_output=True, check=True)
        found = sorted(page.ROOT.glob("build/overhead/*/loop.db"))
    return found[0].parent


def command_seconds(*words: str) -> float:
    times = []
    for _ in range(7):
        began = time.monotonic()
        subprocess.run([sys.executable, "-m", "bellglass", *words], cwd=page.ROOT, capture_output=True, check=True)
        times.append(time.monotonic() - began)
    return statistics.median(times)


Row = list[str]
# What was to be reached: its words, and the most that the figure may be, in the figure's own unit.
TRIP, BOTH_WAYS, OUTSIDE, COMMAND = ("0.1 ms", 0.1), ("≤ 1 s out", 1.0), ("≤ 1 s", 1.0), ("≤ 0.3 s", 0.3)
JUDGE, CPU = ("≤ 5% of 60 s", 0.05 * 60), ("≤ 10% of 60 s", 0.1 * 60)
NO_GOAL = "–"


def goal(aim: tuple[str, float], found: float) -> str:
    words, most = aim
    return f"{words}, missed" if found > most else words


def guest_rows(name: str) -> Iterator[Row]:
    with opened(make_glass(name)) as cold:
        first_step_seconds(cold)  # the first one reads everything from disk
        yield ["cold guest to first training step", f"{first_step_seconds(cold):.2f} s", NO_GOAL]
        found = wire(cold)
        yield trip_row("round trip", found)
        if name != "process":
            with opened(make_glass("process")) as bare:
                yield trip_row("round trip without Docker", wire(bare))
        seconds = found["both_ways_seconds"]
        yield ["100 MB in, then 100 MB out", f"{seconds:.2f} s", goal(BOTH_WAYS, seconds)]


def keeper_rows() -> Iterator[Row]:
    """What it costs to hold each image in memory, once in a run; its files are in the page cache already."""
    from bellglass.doors.docker.glass import DockerGlass

    with opened(DockerGlass()) as glass:
        for role in Role:
            before, began = machine_cpu_seconds(), time.monotonic()
            held = glass.keeper(role).held
            took, cpu = time.monotonic() - began, machine_cpu_seconds() - before
            if held is None or glass.keeper(role).lacking:
                raise SystemExit(f"no keeper for {role}: {glass.keeper(role).lacking}")
            size = f"{held.files:,} files, {held.bytes / 1e6:.0f} MB{', locked' if held.locked else ''}"
            yield [f"keeper of the `{role}` image ({size}), once a run", f"{took:.1f} s, {cpu:.1f} CPU-s", NO_GOAL]


def trip_row(figure: str, found: dict[str, float]) -> Row:
    return [figure, f"{found['round_trip_ms']:.2f} ms", goal(TRIP, found["round_trip_ms"])]


def outside_row(figure: str, found: dict[str, float]) -> Row:
    return [figure, f"{found['outside']:.2f} s", goal(OUTSIDE, found["outside"])]


def judge_row(seconds: float, found: dict[str, float]) -> Row:
    measured = f"{found['judge']:.2f} s, {found['judge'] / seconds:.1%}"
    return [f"judge of a {seconds:.0f} s trial (two guests)", measured, goal(JUDGE, found["judge"])]


def trial_rows(name: str, lengths: list[float]) -> Iterator[Row]:
    wanted = {Role.TRAIN: 2, Role.PREDICT: 2}  # as wiring.py has it on two cores
    with opened(WarmGlass(make_glass(name), wanted)) as warm:
        first_step_seconds(warm)
        trial(warm, 2.0)
        full(warm, wanted)
        yield ["warm guest to first training step", f"{first_step_seconds(warm):.2f} s", NO_GOAL]
        for seconds in lengths:
            found, cpu = spent_on(warm, wanted, seconds)
            yield outside_row(f"outside training, {seconds:.0f} s trial, cores idle", found)
            yield judge_row(seconds, found)
            figure = f"CPU outside training, {seconds:.0f} s trial, warming and judging included"
            yield [figure, f"{cpu:.1f} CPU-s, {cpu / seconds:.1%}", goal(CPU, cpu)]
        busy = two_at_once(warm, wanted, lengths[0])
        yield [f"outside training, two {lengths[0]:.0f} s trials side by side", f"{busy:.2f} s", NO_GOAL]


def gpu_rows(name: str, lengths: list[float], device: str) -> Iterator[Row]:
    """One trainer at a time, as wiring.py has it on a GPU; guests there are started, never forked."""
    with opened(make_glass(name, device)) as cold:
        first_step_seconds(cold, device)  # the first one reads everything from disk
        yield ["cold guest to first training step", f"{first_step_seconds(cold, device):.2f} s", NO_GOAL]
    wanted = {Role.TRAIN: 1, Role.PREDICT: 1}
    with opened(WarmGlass(make_glass(name, device), wanted)) as warm:
        full(warm, wanted)
        yield ["warm guest to first training step", f"{first_step_seconds(warm, device):.2f} s", NO_GOAL]
        for seconds in lengths:
            full(warm, wanted)
            found = trial(warm, seconds, device)
            yield outside_row(f"outside training, {seconds:.0f} s trial", found)
            yield judge_row(seconds, found)


def command_rows() -> Iterator[Row]:
    for figure, words in (
        ("`bellglass --help`", ("--help",)),
        ("`bellglass status` of a finished loop", ("status", str(real_loop()))),
    ):
        seconds = command_seconds(*words)
        yield [figure, f"{seconds:.2f} s", goal(COMMAND, seconds)]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "linux" else 1024 * 1024)
    yield ["memory of this driver at its peak", f"{peak:.0f} MB", NO_GOAL]


ROUND_TRIP = (
    "A round trip wakes nine threads one after another: four of the supervisor, two of its child, three of the host. "
    "That is where its time goes; Docker adds little. They keep a flood, a stall or a frozen side from blocking the "
    "other, so they stay: a trainer asks once per step, and on the CPU a step of the starter takes 80 to 90 ms on "
    "`stories` and `source`, 20 ms on `digits`, 10 to 13 ms on `sums`."
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--glass", default="docker")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seconds", default="20,60")
    parser.add_argument("--print", action="store_true")
    chosen = parser.parse_args()
    lengths = [float(word) for word in chosen.seconds.split(",")]
    command, on_gpu = f"python benchmarks/overhead.py --glass {chosen.glass}", chosen.device != "cpu"
    if on_gpu:
        made, command = list(gpu_rows(chosen.glass, lengths, chosen.device)), f"{command} --device {chosen.device}"
    else:
        keepers = keeper_rows() if chosen.glass == "docker" else ()
        made = [*guest_rows(chosen.glass), *keepers, *trial_rows(chosen.glass, lengths), *command_rows()]
    table = page.table(["figure", "measured", "goal"], made)
    text = f"Machine: {page.machine(chosen.device)}. Command: `{command}`.\n\n{table}"
    if chosen.print:
        print(text)
    elif on_gpu:
        page.put(page.BENCHMARKS, "overhead-gpu", text)
    else:
        page.put(page.BENCHMARKS, "overhead", f"{text}\n\n{ROUND_TRIP}")


if __name__ == "__main__":
    main()
