"""What a fault is done to: a driver, a daemon and disks of their own; and what is left of them.

The loop is small (one generation, a numpy trainer, a model that tunes one number) and real: guests, wire, judge, gate
and books are those of every loop, and its clock is CPU seconds. It is to adopt its one successor, whatever happens.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent / "tests")]

import small_world  # noqa: E402

from bellglass import wiring  # noqa: E402
from bellglass.errors import BellglassError  # noqa: E402
from bellglass.loop import run_loop  # noqa: E402
from bellglass.store.ledger import Event, Ledger  # noqa: E402
from bellglass.store.state import State, state_of  # noqa: E402
from bellglass.verify import verify  # noqa: E402

DISK_MB = 700  # a loop is not made on a disk with less than 500 free
DAEMON_SECONDS, POLL_SECONDS = 60.0, 0.1
LEFT_SECONDS = 180.0  # after which what is left counts as left for ever
BUSY = "while :; do :; done"
LABEL = "bellglass.loop"  # of every container of ours


def drive(folder: Path, glass: str, guests: Path) -> int:
    """Run or resume the loop in this process, as the command does; its exit code."""
    try:
        with wiring.open_loop(
            folder, small_world.quiet(), models={"main": small_world.Tuner()}, glass=_glass(glass, guests)
        ) as crew:
            run_loop(crew)
    except BellglassError as error:
        print(error.code, error.one_line(), file=sys.stderr)
        return error.exit_code
    return 0


def _glass(name: str, guests: Path):
    if name == "docker":
        from bellglass.doors.docker.glass import DockerGlass

        return DockerGlass(warm=False)
    from bellglass.doors.process_glass import ProcessGlass

    return ProcessGlass(warm=False, forks=True, home=guests)


class Daemon:
    """A Docker daemon that may be killed: nobody else's guests are in it."""

    def __init__(self, home: Path) -> None:
        self.home, self.url = home, f"unix://{home / 'docker.sock'}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            (self.home / "docker.pid").unlink()
        words = [
            "dockerd", "--host", self.url, "--data-root", str(self.home / "data"), "--exec-root",
            str(self.home / "exec"), "--pidfile", str(self.home / "docker.pid"), "--bridge", "none", "--iptables=false",
            "--ip6tables=false",
        ]  # fmt: skip
        until = time.monotonic() + DAEMON_SECONDS
        while self.docker("version").returncode != 0:
            if time.monotonic() > until:
                raise SystemExit(f"the daemon does not answer: see {self.home / 'daemon.log'}")
            if self._process is None or self._process.poll() is not None:
                # More than once, like a service: it gives up where the containerd of one that was killed still ends.
                with (self.home / "daemon.log").open("ab") as log:
                    self._process = subprocess.Popen(words, stdout=log, stderr=log, start_new_session=True)
            time.sleep(POLL_SECONDS)

    def docker(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["docker", "-H", self.url, *words], capture_output=True, text=True, check=False)

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)
        if number in (signal.SIGKILL, signal.SIGTERM):
            self._process.wait()

    def take_images(self) -> None:
        """From the daemon that is usual here, those that this one lacks."""
        named = ["--filter", "label=bellglass.content", "--filter", "dangling=false"]
        asked = ["docker", "images", *named, "--format", "{{.Repository}}:{{.Tag}}"]
        names = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split()
        missing = [name for name in names if not self._has(name)]
        if missing:
            with subprocess.Popen(["docker", "save", *missing], stdout=subprocess.PIPE) as saved:
                subprocess.run(["docker", "-H", self.url, "load"], stdin=saved.stdout, check=True, capture_output=True)

    def _has(self, name: str) -> bool:
        usual = subprocess.run(
            ["docker", "image", "inspect", "-f", "{{.Id}}", name], capture_output=True, text=True, check=True
        )
        return self.docker("image", "inspect", "-f", "{{.Id}}", name).stdout == usual.stdout

    def close(self) -> None:
        """End the daemon and its containers: those of one that was killed live on, and only a daemon ends them."""
        if self._process is None:
            return
        if self._process.poll() is not None:
            self.start()
        self.signal(signal.SIGCONT)
        if left := self.docker("ps", "--all", "--quiet").stdout.split():
            self.docker("rm", "--force", *left)
        self.signal(signal.SIGTERM)
        mounts = Path("/proc/mounts").read_text("utf-8", "replace").splitlines()
        left_behind = [place for place in (line.split()[1] for line in mounts) if place.startswith(f"{self.home}/")]
        for place in reversed(left_behind):
            subprocess.run(["umount", "--lazy", place], check=False, capture_output=True)


@contextmanager
def small_disk(at: Path) -> Iterator[Path]:
    at.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "none", str(at)], check=True)
    try:
        yield at
    finally:
        subprocess.run(["umount", "-l", str(at)], check=True)


@contextmanager
def full(disk: Path) -> Iterator[None]:
    filler = disk / "filler"
    try:
        with contextlib.suppress(OSError), filler.open("wb") as file:
            while True:
                file.write(bytes(1 << 16))
                file.flush()
        yield
    finally:
        filler.unlink()


@contextmanager
def load(count: int) -> Iterator[None]:
    busy = [subprocess.Popen(["bash", "-c", BUSY]) for _ in range(count)]
    try:
        yield
    finally:
        for each in busy:
            each.kill()
            each.wait()


def quick_task(home: Path) -> Path:
    """`stories` with trainings of a CPU-second, a third of what its smallest preset gives, in a third of the time."""
    folder = home / "stories"
    if not folder.exists():
        shutil.copytree(HERE.parent / "tasks" / "stories", folder)
        file = folder / "task.toml"
        usual = "amount = 3.0, wall_seconds = 60.0"
        text = file.read_text()
        if usual not in text:
            raise SystemExit(f"{file}: the smallest preset is not what it was ({usual})")
        file.write_text(text.replace(usual, "amount = 1.0, wall_seconds = 20.0"))
    return folder


@dataclass
class Scene:
    """One loop, its driver, and where both live."""

    glass: str
    home: Path  # a disk: of loops, with their calibration
    guests: Path  # the driver's folder for temporary files
    daemon: Daemon | None = None
    folder: Path = field(init=False)
    driver: subprocess.Popen[bytes] | None = None
    exits: list[int] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.folder = small_world.create(
            self.home / "loops", generations=1, task=str(quick_task(self.home)), glass=self.glass, virtual_clock=False
        )

    def start(self) -> subprocess.Popen[bytes]:
        self.guests.mkdir(parents=True, exist_ok=True)
        env = {**os.environ, "TMPDIR": str(self.guests)}
        if self.daemon is not None:
            env["DOCKER_HOST"] = self.daemon.url
        words = [sys.executable, str(HERE / "faults.py"), "--drive", str(self.folder), self.glass]
        self.driver = subprocess.Popen(words, env=env, stderr=subprocess.PIPE)
        return self.driver

    def end(self) -> None:
        """Wait for the driver and note how it ended."""
        assert self.driver is not None
        _, errors = self.driver.communicate()
        self.exits.append(self.driver.returncode)
        self.errors.append(errors.decode(errors="replace")[-2000:])
        self.driver = None

    def events(self) -> Sequence[Event]:
        with closing(Ledger.open(self.folder)) as ledger:
            return ledger.events()

    @property
    def state(self) -> State:
        return state_of(self.folder)

    def wait_for(self, what: Callable[[Sequence[Event]], bool]) -> None:
        """Until the loop has come so far, or its driver has ended."""
        while self.driver is not None and self.driver.poll() is None and not what(self.events()):
            time.sleep(POLL_SECONDS)

    def broken(self) -> list[str]:
        with closing(Ledger.open(self.folder)) as ledger:
            return [f"{one.what}: {one.found}" for one in verify(self.folder, ledger) if not one.ok]

    def containers(self, *more: str) -> list[str]:
        """Those of this loop that run. A daemon that does not answer counts as one."""
        assert self.daemon is not None
        loop = f"label={LABEL}={self.state.loop_id}"
        found = self.daemon.docker("ps", "-q", "--filter", loop, *more)
        return found.stdout.split() if found.returncode == 0 else ["?"]

    def running(self) -> list[str]:
        """What of the loop still runs, without its driver."""
        if self.daemon is not None:
            return self.containers()
        return [str(pid) for pid in processes_in(self.guests)]

    def seconds_until_nothing_runs(self) -> float:
        began = time.monotonic()
        while self.running() and time.monotonic() - began < LEFT_SECONDS:
            time.sleep(POLL_SECONDS)
        return time.monotonic() - began

    def clear(self) -> None:
        if self.driver is not None:
            self.driver.kill()
            self.end()
        shutil.rmtree(self.folder, ignore_errors=True)


def processes_in(folder: Path) -> list[int]:
    """Whose working folder is in there, or whose command line names it."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                named = str(folder).encode() in (entry / "cmdline").read_bytes()
                if named or str(folder) in os.readlink(entry / "cwd"):
                    found.append(int(entry.name))
    return found
