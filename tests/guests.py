"""Shared by the tests of guests: open one, hold a conversation, see what came out."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bellglass import processes
from bellglass.errors import GuestFault
from bellglass.line.intake import Done, FileReceived, Log, Metric, Request
from bellglass.ports import Glass, Guest, GuestSpec
from bellglass.records import Role

Answer = Callable[[Guest, Request], None]


def spec(role: Role = Role.TRAIN, *, deadline: float = 60.0, lease: float = 30.0, memory_mb: int = 1024) -> GuestSpec:
    return GuestSpec(role, {"loop": "conformance", "purpose": "test"}, memory_mb, deadline, lease)


@dataclass
class Seen:
    """All that a guest said."""

    out: bytes = b""
    err: bytes = b""
    metrics: list[Metric] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    done: Done | None = None
    fault: str | None = None  # the word, when the host gave it up
    seconds: float = 0.0

    @property
    def why(self) -> str:
        """How it ended, in one word, whoever noticed first."""
        return self.fault or (self.done.why if self.done else "?")


def agree(guest: Guest, request: Request) -> None:
    """The answer to everything: yes, and the time left where that is asked."""
    value = {"left": 1.0, "total": 2.0} if request.op == "time_left" else None
    guest.send("reply", id=request.id, ok=True, value=value)


def begin(
    guest: Guest, code: str, files: Mapping[str, bytes] | None = None, role: Role = Role.TRAIN, **args: Any
) -> None:
    entry = {Role.TRAIN: "trainer/train.py", Role.PREDICT: "trainer/model.py", Role.IMPROVE: "scaffold/improve.py"}
    guest.send_file(entry[role], code.encode())
    for name, content in (files or {}).items():
        guest.send_file(name, content)
    guest.send("start", args=args)


def listen(
    guest: Guest,
    answer: Answer = agree,
    *,
    seconds: float = 55.0,  # patience; less than what guests of tests sleep for
    until: Callable[[Seen], bool] | None = None,
    into: Seen | None = None,
) -> Seen:
    """Take what comes until the guest is done, faulty, or what was waited for is there."""
    seen, began = into or Seen(), time.monotonic()
    try:
        while time.monotonic() - began < seconds and not (until and until(seen)):
            event = guest.recv(0.2)
            if isinstance(event, Log):
                if event.stream == "out":
                    seen.out += event.body
                else:
                    seen.err += event.body
            elif isinstance(event, Metric):
                seen.metrics.append(event)
            elif isinstance(event, FileReceived):
                seen.files[event.name] = event.data
            elif isinstance(event, Request):
                seen.requests.append(event)
                answer(guest, event)
            elif isinstance(event, Done):
                seen.done = event
                break
    except GuestFault as fault:
        seen.fault = fault.code
    seen.seconds = time.monotonic() - began
    return seen


def wait_until(condition: Callable[[], bool], seconds: float = 30.0) -> bool:
    """Patience, not a promise: a busy machine takes its time."""
    limit = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > limit:
            return False
        time.sleep(0.02)
    return True


def process_guest_runs(folder: Path) -> bool:
    """Whether the supervisor of a process guest, or anything below it, still runs."""
    try:
        marked = json.loads((folder / "guest.json").read_text())
    except (OSError, ValueError):
        return False
    return any(processes.is_running(processes.named(pid)) for pid in processes.family(marked["pid"]))


def open_glass(kind: str, home: Path, *, warm: bool = False) -> Glass:
    """Also used by the drivers that tests start as processes of their own."""
    if kind != "docker":
        from bellglass.doors.process_glass import ProcessGlass

        return ProcessGlass(home=home, warm=warm, forks=kind == "forked")
    from bellglass.doors.docker.glass import DockerGlass

    # tests/test_docker_profile.py runs the self-check; an image that one test holds in memory would be held for others.
    return DockerGlass(warm=warm, prove=False, keep=False)
