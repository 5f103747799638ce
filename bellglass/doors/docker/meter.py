"""What the host reads about a running container: CPU time, and whether the kernel killed anything in it for memory.

From the cgroup's files where this machine can read them (a few microseconds, v1 and v2), else from the daemon's own
statistics (Docker Desktop, where containers run inside a VM). The last value is kept: files go when the guest ends.

Not covered: CPU time between the last reading and the end, up to about a quarter of a second (the watchdog's step).
And under cgroup v1, a guest that was once at its own limit, where the kernel only dropped pages of files, and is killed
later because the machine ran out: that counts as its own limit, since v1 counts both alike.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal

Killed = Literal["", "guest", "machine"]  # by the kernel, for want of memory: under the guest's own limit, or not

V1_LIMIT_AND_MOST = ("memory.limit_in_bytes", "memory.max_usage_in_bytes")
NEAR_BYTES = 4 << 20  # the kernel gives out memory by the handful
CGROUPS = Path("/sys/fs/cgroup")


class Meter:
    def __init__(self, container: str, pid: int, ask_engine: Callable[[], float | None]) -> None:
        self._ask_engine = ask_engine
        self._cpu, self._memory = cgroup_files(container, pid)
        self._seconds = 0.0
        self._killed: Killed = ""
        self._lock = threading.Lock()

    def cpu_seconds(self) -> float:
        """Never falls. A slow question to the engine only where there is no file."""
        now = read_cpu_seconds(self._cpu) if self._cpu is not None else self._ask_engine()
        with self._lock:
            self._seconds = max(self._seconds, now or 0.0)
            return self._seconds

    def sample(self) -> None:
        """The cheap readings, for the watchdog: so that little is lost when the guest ends by itself."""
        if self._cpu is not None:
            self.cpu_seconds()
            self.killed_for_memory()

    def killed_for_memory(self) -> Killed:
        if not self._killed and self._memory is not None and _field(self._memory, "oom_kill") > 0:
            self._killed = "guest" if _reached_its_limit(self._memory) else "machine"
        return self._killed


def cgroup_files(container: str, pid: int) -> tuple[Path | None, Path | None]:
    """(CPU file, memory file) of the container whose first process is `pid`; None where this machine has none."""
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text("utf-8", "replace").splitlines()
    except OSError:
        return None, None
    cpu: Path | None = None
    memory: Path | None = None
    for line in lines:
        _, controllers, place = line.split(":", 2)
        if container not in place or "/.." in place:  # another process's cgroup, or one that we can't see
            continue
        folder = place.lstrip("/")
        if controllers == "":
            cpu, memory = cpu or CGROUPS / folder / "cpu.stat", memory or CGROUPS / folder / "memory.events"
        elif "cpuacct" in controllers.split(","):
            cpu = _first(CGROUPS / name / folder / "cpuacct.usage" for name in (controllers, "cpuacct")) or cpu
        elif "memory" in controllers.split(","):
            memory = CGROUPS / controllers / folder / "memory.oom_control"
    readable = cpu if cpu is not None and read_cpu_seconds(cpu) is not None else None
    return readable, memory if memory is not None and memory.is_file() else None


def _reached_its_limit(memory: Path) -> bool:
    """Whether the guest's own limit was ever in the way; also where nobody can say."""
    if memory.name == "memory.events":
        return _field(memory, "oom") != 0
    try:
        limit, most = (int(memory.with_name(name).read_text()) for name in V1_LIMIT_AND_MOST)
    except (OSError, ValueError):
        return True
    return most > limit - NEAR_BYTES


def _first(paths: Iterable[Path]) -> Path | None:
    return next((path for path in paths if path.is_file()), None)


def read_cpu_seconds(path: Path) -> float | None:
    """v1 `cpuacct.usage` is nanoseconds; v2 `cpu.stat` has `usage_usec`."""
    try:
        if path.name == "cpuacct.usage":
            return int(path.read_text()) / 1e9
        micros = _field(path, "usage_usec")
    except (OSError, ValueError):
        return None
    return micros / 1e6 if micros >= 0 else None


def _field(path: Path, name: str) -> int:
    """A number of a "name number" file; -1 when absent."""
    try:
        rows = (line.split() for line in path.read_text().splitlines())
        return next((int(row[1]) for row in rows if len(row) == 2 and row[0] == name), -1)
    except (OSError, ValueError):
        return -1
