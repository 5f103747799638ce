"""What this machine can do: one line per part, and the next command for each that is missing.

Docker is asked for proof, not for its version: a daemon whose limits don't hold is no sealed glass.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from bellglass import paths, processes
from bellglass.errors import BellglassError

KEYS = ("ANTHROPIC_API_KEY", "OPENAI_API_KEY", "OPENAI_BASE_URL", "OLLAMA_API_BASE")
NEEDED_GB = 3.0
BUSY = """
import time
began = time.monotonic()
while time.monotonic() - began < 1.0:
    pass
print(time.thread_time())
"""
ROOM, TOO_BUSY = 0.7, 0.1  # of a core: below, trainings are slow; below, they run out of their wall time


@dataclass(frozen=True, slots=True)
class Check:
    what: str
    ok: bool | None  # None: nothing was there to be tried
    found: str
    next_command: str = ""
    optional: bool = False


def examine() -> list[Check]:
    return [
        _python(),
        _module("torch", "make venv"),
        _module("lightning", "make venv"),
        _disk(),
        _cores(),
        _loops(),
        *_docker(),
        _gpu(),
        _module("litellm", paths.install_command("litellm"), optional=True),
        _keys(),
    ]


def _python() -> Check:
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    return Check("Python", (3, 11) <= sys.version_info[:2] <= (3, 13), found, "use Python 3.11, 3.12 or 3.13")


def _module(name: str, advice: str, *, optional: bool = False) -> Check:
    present = importlib.util.find_spec(name) is not None
    return Check(name, present, "installed" if present else "not installed", advice, optional)


def _disk() -> Check:
    free = shutil.disk_usage(Path.cwd()).free / 1e9
    return Check("disk", free > NEEDED_GB, f"{free:.1f} GB free here", f"free {NEEDED_GB:.0f} GB")


def _cores() -> Check:
    """What is left of this machine: as many processes as it has cores want them all for a second."""
    words = [sys.executable, "-I", "-S", "-c", BUSY]
    running = [subprocess.Popen(words, stdout=subprocess.PIPE) for _ in range(processes.cores())]
    share = min(float(process.communicate()[0]) for process in running)
    found = f"{len(running)}, and {100 * share:.0f}% of each is free"
    if share < ROOM:
        found += f": trainings side by side take about {1.0 / share:.1f} times their budget"
    return Check("cores", share > TOO_BUSY, found, "end what else runs here; a trial that is starved is run again")


def _loops() -> Check:
    home = paths.loops_home()
    try:
        paths.refuse_network_filesystem(home)
    except BellglassError as error:
        return Check("loops folder", False, error.one_line(), "set BELLGLASS_HOME to a local disk")
    return Check("loops folder", True, str(home))


def _docker() -> list[Check]:
    """The daemon's self-check starts containers, so it runs only when engine and image are there."""
    from bellglass import wiring

    try:
        results = wiring.docker_self_check()
    except BellglassError as error:
        return [
            Check("sealed glass (Docker)", False, f"{error.thing}: {error.found}", error.next_command, optional=True)
        ]
    return [
        Check(f"sealed glass: {name}", ok, found, "" if ok is None else "see docs/safety.md", optional=ok is None)
        for name, ok, found in results
    ]


def _gpu() -> Check:
    path = shutil.which("nvidia-smi")
    return Check("GPU", path is not None, path or "none: trials run on the CPU", optional=True)


def _keys() -> Check:
    present = [name for name in KEYS if os.environ.get(name)]
    return Check(
        "model keys", bool(present), ", ".join(present) or "none set: the offline improver needs none", optional=True
    )
