"""Guests that are forks: as fresh as started ones, counted from nothing, and started after all without a nursery."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from guests import begin, listen, spec, wait_until

from bellglass import processes, tasks
from bellglass.doors.process_glass import ProcessGlass
from bellglass.records import Budget, Role, Seeds
from bellglass.steps.train import WEIGHTS_FILE, train
from bellglass.store import bundles

pytestmark = pytest.mark.skipif(not processes.LINUX, reason="guests are forks only on Linux")

Open = Callable[..., ProcessGlass]
LOOK = """
import ctypes, json, os, resource, signal, sys
dumpable = ctypes.CDLL(None).prctl(3, 0, 0, 0, 0)
open_ = [f"/proc/self/fd/{n}" for n in os.listdir("/proc/self/fd")]
links = sorted(os.readlink(link).split(":")[0] for link in open_ if os.path.exists(link))
signals = [str(signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGPIPE)]
limits = [resource.getrlimit(getattr(resource, name)) for name in ("RLIMIT_DATA", "RLIMIT_FSIZE", "RLIMIT_NOFILE")]
mine = sorted(name for name in sys.modules if name in ("glass", "guest", "torch", "site"))
print(json.dumps([os.getcwd(), dict(os.environ), sys.argv, sys.path, links, signals, limits, mine,
                  os.getpgid(0) == os.getpid(), os.getppid() == os.getsid(0), dumpable]))
"""


@pytest.fixture
def open_glass(tmp_path: Path) -> Iterator[Open]:
    made = []

    def one(**more: object) -> ProcessGlass:
        made.append(ProcessGlass(home=tmp_path / "guests", **{"warm": False, "forks": True, **more}))  # type: ignore[arg-type]
        return made[-1]

    yield one
    for glass in made:
        glass.close()


def nursery_pid(glass: ProcessGlass, role: Role = Role.TRAIN) -> int:
    nursery = glass._nurseries[role]
    assert nursery is not None
    return nursery.pid


def what_it_sees(glass: ProcessGlass) -> str:
    guest = glass.open(spec())
    begin(guest, LOOK)
    seen = listen(guest)
    guest.end()
    assert seen.why == "ok", seen.err
    return seen.out.decode().replace(guest.id, "GUEST")


def test_a_forked_guest_sees_what_a_started_one_sees(open_glass: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "secret")
    forked, started = json.loads(what_it_sees(open_glass())), json.loads(what_it_sees(open_glass(forks=False)))
    forked[7].remove("guest")  # the supervisor's code, which a started child has not loaded; it gives nothing away
    assert forked == started
    assert forked[4].count("socket") == 1
    assert "secret" not in str(forked)


def test_a_guests_cpu_time_begins_at_nothing_and_is_kept_after_its_end(open_glass: Open) -> None:
    glass = open_glass()
    guest = glass.open(spec())
    assert guest.cpu_seconds() < 0.2
    begin(guest, "import time\nwhile time.process_time() < 1.0: pass")
    assert listen(guest).why == "ok"
    assert wait_until(lambda: not processes.is_running(processes.named(guest.pid)))
    assert 0.95 < guest.cpu_seconds() < 1.9, "the dead are not counted twice"
    assert guest.end().code == 0
    assert processes.start_time(guest.pid) is None  # reaped


def test_guests_of_one_nursery_end_apart_from_each_other(open_glass: Open) -> None:
    glass = open_glass()
    first, second = glass.open(spec()), glass.open(spec())
    begin(first, "import time; time.sleep(60)")
    assert first.end().code is not None
    begin(second, "raise SystemExit(3)")
    assert listen(second).done.code == 3  # type: ignore[union-attr]
    assert nursery_pid(glass) not in (first.pid, second.pid)


def test_without_its_nursery_the_glass_starts_guests_one_by_one(open_glass: Open) -> None:
    glass = open_glass()
    orphan = glass.open(spec())
    os.kill(nursery_pid(glass), signal.SIGKILL)
    guest = glass.open(spec())
    begin(guest, "print('started')")
    assert listen(guest).out == b"started\n"
    assert glass._nurseries == {Role.TRAIN: None}
    was = processes.named(orphan.pid)
    orphan.end()
    assert not processes.is_running(was)


def test_a_nursery_that_answers_nonsense_is_given_up(open_glass: Open, tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(
        f"#!{sys.executable}\nimport os, sys, time\nscript = sys.argv[3]\n"
        "if script.endswith('nursery.py'):\n    os.write(int(sys.argv[5]), b'[]')\n    time.sleep(60)\n"
        "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])\n"
    )
    python.chmod(0o755)
    glass = open_glass(python=str(python))
    guest = glass.open(spec())
    begin(guest, "print('started')")
    assert listen(guest).out == b"started\n"
    assert glass._nurseries == {Role.TRAIN: None}


def test_improvers_and_gpu_guests_are_always_started(open_glass: Open) -> None:
    glass = open_glass()
    glass.open(spec(Role.IMPROVE))
    assert glass._nurseries == {}


def test_closing_ends_the_nursery(open_glass: Open) -> None:
    glass = open_glass()
    glass.open(spec())
    was = processes.named(nursery_pid(glass))
    glass.close()
    assert not processes.is_running(was)


def test_a_driver_killed_with_9_takes_its_nursery_along(tmp_path: Path) -> None:
    here = Path(__file__).parent
    command = [sys.executable, str(here / "guest_driver.py"), "forked", str(tmp_path), secrets.token_hex(8), "running"]
    env = os.environ | {"PYTHONPATH": f"{here}:{here.parent}"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) as driver:
        assert driver.stdout is not None
        assert any(line.strip() == "running" for line in driver.stdout)
        below = [processes.named(pid) for pid in processes.family(driver.pid) if pid != driver.pid]
        driver.kill()
    assert len(below) == 4  # nursery, supervisor, child, and the canary
    assert wait_until(lambda: not any(processes.is_running(each) for each in below))


@pytest.mark.slow
def test_a_forked_trainer_learns_the_same_weights_bit_for_bit(open_glass: Open) -> None:
    task = tasks.load("stories")
    docs = tasks.make(task, "train", b"w" * 32, 64)
    made = [
        train(glass, bundles.starter(), docs, task=task, seeds=Seeds(1, 2), budget=Budget("steps", 3, 60), labels={})
        for glass in (open_glass(warm=True), open_glass(warm=True, forks=False))
    ]
    assert [each.fault for each in made] == [None, None]
    assert made[0].files[WEIGHTS_FILE] == made[1].files[WEIGHTS_FILE]
    assert made[0].claim == made[1].claim


def test_chance_differs_between_forks_of_one_nursery(open_glass: Open) -> None:
    glass, drawn = open_glass(), set()
    for _ in range(2):
        guest = glass.open(spec(memory_mb=2048))
        begin(guest, "import random, numpy; print(random.random(), numpy.random.rand())")
        drawn |= set(listen(guest).out.split())
        guest.end()
    assert len(drawn) == 4
