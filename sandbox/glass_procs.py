"""Processes below the supervisor: who they are, what CPU time they used, how to end them. Stdlib only.

Linux reads /proc; elsewhere `ps` is asked. On Linux the supervisor is a subreaper, so that a grandchild that leaves
its session or loses its parent is still found here.
"""

import contextlib
import ctypes
import os
import resource
import signal
import subprocess
import sys
import time

LINUX = sys.platform.startswith("linux")
_PR_SET_DUMPABLE, _PR_SET_CHILD_SUBREAPER = 4, 36
_TICKS = os.sysconf("SC_CLK_TCK")


def protect():
    """Make this process unreadable for children of the same user, and the parent of every orphan below it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Python's own handler would let a child interrupt PID 1
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if LINUX:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) or libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "prctl")


def limit(name, value):
    """Lower one resource limit, for this process and everything below it; never raises one."""
    kind = getattr(resource, name, None)
    if kind is None or not value:
        return
    hard = resource.getrlimit(kind)[1]
    value = int(value) if hard == resource.RLIM_INFINITY else min(int(value), hard)
    with contextlib.suppress(ValueError, OSError):  # macOS refuses some
        resource.setrlimit(kind, (value, value))


def descendants():
    """Process ids below this one."""
    if not LINUX:
        return [row[0] for row in _ps_below()]
    found, fresh = [], [os.getpid()]
    while fresh:
        parent = fresh.pop()
        with contextlib.suppress(OSError):
            for task in os.listdir(f"/proc/{parent}/task"):
                with open(f"/proc/{parent}/task/{task}/children") as file:
                    fresh += (children := [int(word) for word in file.read().split()])
                    found += children
    return found


def cpu_seconds():
    """CPU time of this process and everything below it, the dead included once they are reaped."""
    if not LINUX:
        own = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(usage.ru_utime + usage.ru_stime for usage in own) + sum(row[1] for row in _ps_below())
    total = 0
    for pid in [os.getpid(), *descendants()]:
        with contextlib.suppress(OSError, ValueError, IndexError), open(f"/proc/{pid}/stat") as file:
            # utime, stime and what was reaped below; the name before the bracket may hold anything
            total += sum(int(word) for word in file.read().rpartition(")")[2].split()[11:15])
    return total / _TICKS


def _ps_below():
    """(pid, CPU seconds) of everything below this process, by `ps`."""
    listing = subprocess.run(
        ["/bin/ps", "-A", "-o", "pid=,ppid=,time="], capture_output=True, text=True, check=False, timeout=5
    ).stdout
    children = {}
    for row in listing.splitlines():
        pid, parent, spent = row.split()
        children.setdefault(int(parent), []).append((int(pid), _clock(spent)))
    found, fresh = [], [os.getpid()]
    while fresh:
        below = children.get(fresh.pop(), [])
        found += below
        fresh += [pid for pid, _ in below]
    return found


def _clock(text):
    """Seconds of `[days-][hours:]minutes:seconds`."""
    days, _, rest = text.rpartition("-")
    seconds = 0.0
    for part in rest.split(":"):
        seconds = seconds * 60 + float(part)
    return seconds + 86400 * int(days or 0)


def reap(child):
    """Collect what has died; the exit code of `child` if it is among them."""
    code = None
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                break
            if pid == child:
                code = os.waitstatus_to_exitcode(status)
    return code


def kill_below(child, seconds=3.0):
    """Kill everything below, until nothing is left or the time is up. Returns `child`'s exit code if it died here."""
    code, until = None, time.monotonic() + seconds
    while time.monotonic() < until:
        if os.getpid() == 1:
            with contextlib.suppress(ProcessLookupError):
                os.kill(-1, signal.SIGKILL)  # everything in this container but PID 1
        else:
            pids = descendants()
            for sign in (signal.SIGSTOP, signal.SIGKILL):  # stopped first, so that it can't outrun us by forking
                for pid in pids:
                    with contextlib.suppress(ProcessLookupError, PermissionError):
                        os.kill(pid, sign)
        died = reap(child)
        code = died if died is not None else code
        if not descendants():
            break
        time.sleep(0.005)
    return code
