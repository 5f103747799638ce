"""Processes of this machine: is that one still the same, what is below it, what CPU time it used, end it.

A pid alone names nothing, since pids are used again; a pid with its start time does. Linux reads /proc; elsewhere
`ps` is asked.

Not covered: a process that left both its session and its parent's tree; another host or pid namespace.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

LINUX = sys.platform.startswith("linux")
KILL_SECONDS = 5.0  # what a process that is stopped in the kernel may take to die


def cores() -> int:
    """How many this process may use; macOS only says how many there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, slots=True)
class _Stat:
    parent: int
    session: int
    cpu_seconds: float  # own, and of reaped children
    start: str
    alive: bool  # not a zombie


def start_time(pid: int) -> str | None:
    """An opaque word that differs between two processes that had the same pid; None when there is no such process."""
    found = _stat(pid)
    return found.start if found is not None else None


@dataclass(frozen=True, slots=True)
class Process:
    """A process named so that a reused pid is not mistaken for it."""

    pid: int
    start: str


def named(pid: int) -> Process:
    return Process(pid, start_time(pid) or "")


def is_running(process: Process) -> bool:
    """Whether it is still that one. A zombie does not run: whoever waits for an end need not wait for the parent."""
    found = _stat(process.pid)
    return found is not None and found.alive and process.start != "" and found.start == process.start


def family(pid: int) -> list[int]:
    """The process itself, everything below it, and everything in the session it leads."""
    table = _table()
    members = {pid} if pid in table else set()
    while True:
        more = {p for p, s in table.items() if p not in members and (s.parent in members or s.session == pid)}
        if not more:
            return sorted(members)
        members |= more


def cpu_seconds_below(pid: int) -> float:
    """CPU time of a process and everything below it, the dead included once their parents have reaped them."""
    if not LINUX:
        table = _table()
        return sum(table[member].cpu_seconds for member in family(pid) if member in table)
    total, fresh = 0.0, [pid]
    while fresh:
        member = fresh.pop()
        if (found := _stat(member)) is not None:
            total += found.cpu_seconds
        with contextlib.suppress(OSError, ValueError):
            for task in os.listdir(f"/proc/{member}/task"):
                fresh += [int(word) for word in Path(f"/proc/{member}/task/{task}/children").read_text().split()]
    return total


def kill_family(pid: int) -> bool:
    """Kill a process, all below it and its session. True when nothing of it runs any more.

    Everything is stopped before anything is killed, the leader last, so that nothing forks away meanwhile and
    orphans keep a parent by which they are found.
    """
    until = time.monotonic() + KILL_SECONDS
    while True:
        members = [member for member in family(pid) if (s := _stat(member)) is not None and s.alive]
        if not members:
            return True
        if time.monotonic() > until:
            return False
        _signal(members, signal.SIGSTOP)
        late = [member for member in family(pid) if member not in members]
        _signal(late, signal.SIGSTOP)
        _signal([member for member in (*members, *late) if member != pid], signal.SIGKILL)
        _signal([pid], signal.SIGKILL)
        time.sleep(0.01)


def _signal(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def _stat(pid: int) -> _Stat | None:
    if not LINUX:
        return _table().get(pid)
    try:
        words = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        cpu = sum(int(word) for word in words[11:15]) / os.sysconf("SC_CLK_TCK")
        return _Stat(int(words[1]), int(words[3]), cpu, f"{_boot_id()}:{words[19]}", words[0] not in "ZX")
    except (OSError, IndexError, ValueError):
        return None


def _boot_id() -> str:
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()[:8]
    return "-"


def _table() -> dict[int, _Stat]:
    if LINUX:
        pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
        return {pid: found for pid in pids if (found := _stat(pid)) is not None}
    listing = subprocess.run(
        ["/bin/ps", "-A", "-o", "pid=,ppid=,sess=,stat=,time=,lstart="],
        capture_output=True,
        text=True,
        check=False,
        timeout=5,
        env={"LC_ALL": "C", "PATH": "/bin:/usr/bin"},
    ).stdout
    table: dict[int, _Stat] = {}
    for row in listing.splitlines():
        with contextlib.suppress(ValueError, IndexError, ProcessLookupError):  # the last: it ended meanwhile
            words = row.split()
            pid = int(words[0])
            session = os.getsid(pid) if words[2] == "0" else int(words[2], 16)  # macOS prints 0 there
            start = " ".join(words[5:])
            table[pid] = _Stat(int(words[1]), session, clock_seconds(words[4]), start, not words[3].startswith("Z"))
    return table


def clock_seconds(text: str) -> float:
    """Seconds of what `ps` prints as CPU time: `[days-][hours:]minutes:seconds`."""
    days, _, rest = text.rpartition("-")
    seconds = 0.0
    for part in rest.split(":"):
        seconds = seconds * 60 + float(part)
    return seconds + 86400 * int(days or 0)
