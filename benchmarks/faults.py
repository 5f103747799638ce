"""Faults of every kind under a whole loop: what was decided then, and what is left of a driver that was killed.

    python benchmarks/faults.py [--glass process docker] [--only NAME …] [--times 3] [--kills 200] [--minutes 60]

Writes the section `faults` of docs/benchmarks.md. Needs root (it mounts small disks); for Docker, images in the daemon
here, from which an own one takes them that may be killed. Each row is kept, with a hash of the code that it ran on, in
benchmarks/measured/faults.jsonl, to be committed: what is there of the code as it is now is not run again. Power cuts
have a test of their own (tests/test_power_cut.py; 100 of them in `.ci/run full`).
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import page  # noqa: E402
from fault_scene import Daemon, Scene, drive, full, load, small_disk  # noqa: E402

from bellglass.paths import content_hash  # noqa: E402
from bellglass.store.ledger import Event  # noqa: E402

ROWS = HERE / "measured" / "faults.jsonl"
WORK = page.ROOT / "build" / "faults"
LOADED = 20  # busy processes
GOAL_SECONDS, MOST_SECONDS = 15.0, 60.0
HALTED = 3  # the exit code of a loop that this machine can't go on with
RESUMES = 4


@dataclass(frozen=True)
class Fault:
    name: str
    sentence: str
    glasses: tuple[str, ...]
    do: Callable[[Scene], None]  # at the gate, while its driver runs


def daemon_away(number: signal.Signals, seconds: float) -> Callable[[Scene], None]:
    def do(scene: Scene) -> None:
        assert scene.daemon is not None
        scene.daemon.signal(number)
        time.sleep(seconds)
        scene.daemon.start()

    return do


def freeze_daemon(scene: Scene) -> None:
    assert scene.daemon is not None
    scene.daemon.signal(signal.SIGSTOP)
    time.sleep(20)
    scene.daemon.signal(signal.SIGCONT)


def freeze_driver(scene: Scene) -> None:
    assert scene.driver is not None
    scene.driver.send_signal(signal.SIGSTOP)
    time.sleep(30)
    scene.driver.send_signal(signal.SIGCONT)


def meddle(*words: str) -> Callable[[Scene], None]:
    """With the child's guest, as soon as there is one."""

    def do(scene: Scene) -> None:
        assert scene.daemon is not None
        assert scene.driver is not None
        while scene.driver.poll() is None:
            found = scene.containers("--filter", "label=bellglass.trial=g1-pair-0-child")
            if found and scene.daemon.docker(*words, found[0]).returncode == 0:
                return
            time.sleep(0.05)

    return do


def fill(which: str) -> Callable[[Scene], None]:
    def do(scene: Scene) -> None:
        with full(scene.guests if which == "guests" else scene.home):
            time.sleep(20)

    return do


def press(scene: Scene) -> None:
    assert scene.driver is not None
    with load(LOADED):
        scene.driver.wait()


DOCKER, BOTH = ("docker",), ("process", "docker")
FAULTS = (
    Fault("none", "nothing happens", BOTH, lambda scene: None),
    Fault("daemon_killed", "the daemon is killed and started again", DOCKER, daemon_away(signal.SIGKILL, 1)),
    Fault("daemon_restarted", "the daemon is restarted", DOCKER, daemon_away(signal.SIGTERM, 1)),
    Fault("daemon_down", "the daemon is down for 40 s", DOCKER, daemon_away(signal.SIGTERM, 40)),
    Fault("daemon_frozen", "the daemon is frozen for 20 s", DOCKER, freeze_daemon),
    Fault("guest_killed", "another client kills a guest of the child", DOCKER, meddle("kill")),
    Fault("guest_removed", "another client removes it", DOCKER, meddle("rm", "--force")),
    Fault("guest_paused", "another client pauses it", DOCKER, meddle("pause")),
    Fault("driver_frozen", "the driver is frozen for 30 s", BOTH, freeze_driver),
    Fault("tmpdir_full", "TMPDIR is full for 20 s", BOTH, fill("guests")),
    Fault("disk_full", "the loop's disk is full for 20 s", BOTH, fill("home")),
    Fault("load", f"{LOADED} busy processes beside it, to its end", BOTH, press),
)


def at_the_gate(events: Sequence[Event]) -> bool:
    return any(event.kind == "trial.intended" and event.body["trial_id"] == "g1-pair-0-child" for event in events)


def code() -> str:
    """Of all that a loop runs."""
    total = "".join(content_hash(page.ROOT / folder) for folder in ("bellglass", "sandbox", "tasks"))
    return hashlib.sha256(total.encode()).hexdigest()[:12]


def under(fault: Fault, scene: Scene, chance: random.Random) -> dict[str, object]:
    """Run a loop to its end under the fault, resumed as often as it halts: what came of it."""
    began = time.monotonic()
    scene.start()
    scene.wait_for(at_the_gate)
    time.sleep(chance.uniform(0.0, 5.0))
    fault.do(scene)
    scene.end()
    while scene.exits[-1] == HALTED and len(scene.exits) < RESUMES:
        scene.start()
        scene.end()
    state = scene.state
    gate = state.generations[1].gate if 1 in state.generations else None
    return {
        "exits": scene.exits,
        "errors": [line for line in scene.errors if line],
        "decision": None if gate is None else gate["decision"],
        "tripwires": [wire["name"] for wire in state.tripwires],
        "disturbed": [[one["trial_id"], one["owner"], one["why"]] for one in state.disturbed],
        "broken": scene.broken(),
        "wall_seconds": round(time.monotonic() - began, 1),
    }


def held(row: dict) -> bool:
    """Whether the loop decided as it would have undisturbed, at once or after it had been resumed."""
    calm = not row["tripwires"] and not row["broken"] and set(row["exits"][:-1]) <= {HALTED}
    return calm and row["exits"][-1] == 0 and row["decision"] == "adopt"


class Rows:
    """Of the file, and new ones into it."""

    def __init__(self, file: Path) -> None:
        self._file, self.code = file, code()
        self.all: list[dict] = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def count(self, fault: str, glass: str) -> int:
        return sum((row["fault"], row["glass"], row["code"]) == (fault, glass, self.code) for row in self.all)

    def add(self, fault: str, glass: str, **facts: object) -> None:
        row = {"fault": fault, "glass": glass, "code": self.code, "machine": page.machine(), **facts}
        self.all.append(row)
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with self._file.open("a") as file:
            file.write(json.dumps(row) + "\n")


@contextmanager
def place(glass: str, daemon: Daemon | None) -> Iterator[Callable[[], Scene]]:
    """Two small disks of their own: one for loops, one for temporary files."""
    with (
        tempfile.TemporaryDirectory(prefix="bellglass-faults-") as folder,
        small_disk(Path(folder) / "loops") as home,
        small_disk(Path(folder) / "guests") as guests,
    ):
        yield lambda: Scene(glass, home, guests, daemon)


def kill(scene: Scene, rows: Rows, name: str, chance: random.Random, most: int) -> None:
    """Kill the driver of one loop again and again, at random events, until it has run to its end."""
    for _ in range(most):
        scene.start()
        target = len(scene.events()) + chance.randint(1, 14)
        scene.wait_for(lambda events: len(events) >= target)  # noqa: B023
        time.sleep(chance.uniform(0.0, 0.5))
        if scene.driver.poll() is not None:
            break
        scene.driver.send_signal(signal.SIGKILL)
        seconds = scene.seconds_until_nothing_runs()
        scene.end()
        rows.add(name, scene.glass, stage=scene.events()[-1].kind, left_seconds=round(seconds, 2))


def kill_many(make: Callable[[], Scene], rows: Rows, name: str, glass: str, wanted: int, until: float) -> None:
    chance = random.Random(f"{name} {rows.count(name, glass)}")
    with load(LOADED) if name == "kills_loaded" else contextlib.nullcontext():
        while (missing := wanted - rows.count(name, glass)) > 0 and time.monotonic() < until:
            scene = make()
            kill(scene, rows, name, chance, missing)
            scene.clear()


def percentile(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def describe_codes(rows: Iterable[dict]) -> str:
    return ", ".join(f"{code} ({count})" for code, count in Counter(row["code"] for row in rows).items())


def render(rows: Sequence[dict]) -> str:
    faults = []
    for fault in FAULTS:
        for glass in fault.glasses:
            of = [row for row in rows if (row["fault"], row["glass"]) == (fault.name, glass)]
            if of:
                disturbed = Counter(owner for row in of for _, owner, _ in row["disturbed"])
                faults.append(
                    [
                        fault.sentence, glass, f"{sum(map(held, of))} of {len(of)}",
                        ", ".join(f"{owner} {count}" for owner, count in disturbed.items()) or "–",
                        str(sum(row["exits"].count(HALTED) for row in of)), describe_codes(of),
                    ]
                )  # fmt: skip
    kills = []
    for name, where in (("kills", "idle"), ("kills_loaded", f"{LOADED} busy processes")):
        for glass in BOTH:
            of = [row for row in rows if (row["fault"], row["glass"]) == (name, glass)]
            if of:
                left = [row["left_seconds"] for row in of]
                late = sum(seconds > GOAL_SECONDS for seconds in left)
                kills.append(
                    [
                        where, glass, str(len(of)), f"{percentile(left, 0.5):.1f} s", f"{percentile(left, 0.99):.1f} s",
                        f"{max(left):.1f} s", f"{late}", describe_codes(of),
                    ]
                )  # fmt: skip
    head = ["fault at the gate", "glass", "decided as undisturbed", "trials run again, whose fault", "halts", "code"]
    killed = ["machine", "glass", "kills", "median", "99%", "longest", f"above {GOAL_SECONDS:g} s", "code"]
    machines = "; ".join(dict.fromkeys(row["machine"] for row in rows))
    return "\n\n".join(
        [
            f"Machine: {machines}. Command: `python benchmarks/faults.py`; rows in `benchmarks/measured/faults.jsonl`.",
            page.table(head, faults),
            "How long something of a loop still ran after its driver had been killed with -9:",
            page.table(killed, kills),
        ]
    )


@contextmanager
def own_daemon(home: Path) -> Iterator[Daemon]:
    made = Daemon(home)
    made.start()
    try:
        made.take_images()
        yield made
    finally:
        made.close()


@contextmanager
def daemon_for(glass: str) -> Iterator[Daemon | None]:
    if glass != "docker":
        yield None
        return
    with own_daemon(WORK / "docker") as made:
        os.environ["DOCKER_HOST"] = made.url  # for what this process asks of the images
        try:
            yield made
        finally:
            del os.environ["DOCKER_HOST"]


def measure(chosen: argparse.Namespace, rows: Rows) -> None:
    until = time.monotonic() + 60 * chosen.minutes
    for glass in chosen.glass:
        with daemon_for(glass) as daemon:
            for fault in FAULTS:
                wanted = chosen.times if glass in fault.glasses and fault.name in (chosen.only or [fault.name]) else 0
                while rows.count(fault.name, glass) < wanted and time.monotonic() < until:
                    chance = random.Random(f"{fault.name} {rows.count(fault.name, glass)}")
                    with place(glass, daemon) as make:
                        row = under(fault, make(), chance)
                    rows.add(fault.name, glass, **row)
                    print(fault.name, glass, "held" if held(row) else row, flush=True)
            for name in ("kills", "kills_loaded"):
                if chosen.kills and name in (chosen.only or [name]):
                    with place(glass, daemon) as make:
                        kill_many(make, rows, name, glass, chosen.kills, until)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--glass", nargs="+", choices=BOTH, default=list(BOTH))
    parser.add_argument("--only", nargs="+", choices=[*(fault.name for fault in FAULTS), "kills", "kills_loaded"])
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--print", action="store_true")
    parser.add_argument("--drive", nargs=2, metavar=("FOLDER", "GLASS"), help="used by itself")
    chosen = parser.parse_args()
    if chosen.drive:
        return drive(Path(chosen.drive[0]), chosen.drive[1], Path(tempfile.gettempdir()) / "guests")
    rows = Rows(ROWS)
    if not chosen.print:
        measure(chosen, rows)
        page.put(page.BENCHMARKS, "faults", render(rows.all))
    print(render(rows.all))
    return 0


if __name__ == "__main__":
    sys.exit(main())
