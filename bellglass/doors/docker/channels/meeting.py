"""Two guests that run the probes, as host.Meeting wants them: bare containers of a profile, or real guests of a glass.

In a bare container the probes are the only process, and nothing holds them but the profile. In a real guest they are
the bundle, so what the supervisor does about bundle code holds them, too.
"""

from __future__ import annotations

import contextlib
import functools
import json
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bellglass.doors.docker.channels.bare import defended, spec_of
from bellglass.doors.docker.channels.host import Ask
from bellglass.doors.docker.engine import Engine
from bellglass.doors.docker.image import Image
from bellglass.doors.docker.pipe import AttachedPipe
from bellglass.doors.docker.profile import PYTHON, Profile
from bellglass.doors.docker.selfcheck import running
from bellglass.errors import GuestFault, SetupError
from bellglass.line.intake import FileReceived, Log, Request
from bellglass.ports import Glass, Guest
from bellglass.records import Role

PACKAGE = __package__
INSIDE = ("kit", "pages", "numbers", "counters", "timing")  # in the order in which they import each other
ANSWER_SECONDS = 90.0
_FILES: dict[str, list[str]] = {}  # by the image's id, which stands for its content


@dataclass(frozen=True)
class BareContainers:
    engine: Engine
    sending: Profile
    receiving: Profile

    @functools.cached_property
    def files(self) -> list[str]:
        return files_of_both(self.engine, self.sending, self.receiving)

    def sender(self) -> contextlib.AbstractContextManager[Ask]:
        return probing(self.engine, self.sending, self.files)

    def receiver(self) -> contextlib.AbstractContextManager[Ask]:
        return probing(self.engine, self.receiving, self.files)


@dataclass(frozen=True)
class RealGuests:
    """`files`: what files_of_both says of their images."""

    glass: Glass
    sending: Role
    receiving: Role
    files: list[str]

    def sender(self) -> contextlib.AbstractContextManager[Ask]:
        return self._guest(self.sending, "sender")

    def receiver(self) -> contextlib.AbstractContextManager[Ask]:
        return self._guest(self.receiving, "receiver")

    @contextlib.contextmanager
    def _guest(self, role: Role, side: str) -> Iterator[Ask]:
        spec = spec_of(role, side)
        profile = defended(Image("", (), 0), role, uid=0)
        guest = self.glass.open(spec)
        try:
            guest.send_file(_ENTRY[role], program(_STARTED_BY[role], self.files, profile.memory_bytes).encode())
            guest.send("start", args={})
            yield _by_tokens(guest) if role is Role.PREDICT else _by_log(guest)
        finally:
            guest.end()


_ENTRY = {Role.TRAIN: "trainer/train.py", Role.PREDICT: "trainer/model.py", Role.IMPROVE: "scaffold/improve.py"}
_STARTED_BY = {Role.TRAIN: "by_host('time_left')", Role.PREDICT: "", Role.IMPROVE: "by_host('budget')"}


def _by_tokens(guest: Guest) -> Ask:
    """The order as tokens, the answer as logits; nothing else gets out of a `predict` guest."""

    def ask(order: dict[str, Any]) -> dict[str, Any]:
        tokens = np.frombuffer(json.dumps(order).encode(), dtype=np.uint8).astype("<i8")
        while not isinstance(event := _event(guest), Request):
            pass
        guest.send("reply", tokens.tobytes(), id=event.id, ok=True, value={"shape": [1, len(tokens)]})
        while not isinstance(answer := _event(guest), FileReceived):
            pass
        return dict(json.loads(np.frombuffer(answer.data, dtype="<f4").astype(np.uint8).tobytes()))

    return ask


def _by_log(guest: Guest) -> Ask:
    """The order answers a question, the answer is a line of the log, which may come later than the next question."""
    asked: deque[Request] = deque()

    def ask(order: dict[str, Any]) -> dict[str, Any]:
        said = b""
        while not said.endswith(b"\n"):
            if order and asked:
                guest.send("reply", id=asked.popleft().id, ok=True, value=order)
                order = {}
            event = _event(guest)
            if isinstance(event, Request):
                asked.append(event)
            elif isinstance(event, Log):
                said += event.body
        return dict(json.loads(said))

    return ask


def _event(guest: Guest) -> object:
    try:
        event = guest.recv(ANSWER_SECONDS)
    except GuestFault as fault:
        raise _silent(f"its end: {fault.one_line()}") from fault
    if event is None:
        raise _silent(f"nothing for {ANSWER_SECONDS:.0f} s")
    return event


@contextlib.contextmanager
def probing(engine: Engine, profile: Profile, files: Sequence[str]) -> Iterator[Ask]:
    """A bare container that runs the probes: a function that gives it an order and returns its answer."""
    code = program("by_lines()", files, profile.memory_bytes)
    asking = replace(profile, command=(PYTHON, "-I", "-c", code))
    with running(engine, asking, ANSWER_SECONDS) as (_, pipe):
        held = b""

        def ask(order: dict[str, Any]) -> dict[str, Any]:
            nonlocal held
            pipe.write(json.dumps(order).encode() + b"\n")
            while b"\n" not in held:
                held += _some(pipe)
            line, _, held = held.partition(b"\n")
            return dict(json.loads(line))

        yield ask


def _some(pipe: AttachedPipe) -> bytes:
    space = memoryview(bytearray(1 << 18))
    try:
        count = pipe.read_into(space)
    except OSError as error:
        raise _silent(f"{type(error).__name__} after {ANSWER_SECONDS:.0f} s") from error
    if count == 0:
        raise _silent(pipe.stderr.decode("utf-8", "replace")[-400:] or "its end")
    return bytes(space[:count])


def _silent(found: str) -> SetupError:
    return SetupError("a guest of the channel test", found, "an answer", "bellglass doctor", code="container_vanished")


def files_of_both(engine: Engine, one: Profile, other: Profile, most: int = 1000) -> list[str]:
    """An attacker knows both images, so what they have in common costs it nothing."""
    for profile in (one, other):
        if profile.image not in _FILES:
            with probing(engine, profile, ()) as ask:
                _FILES[profile.image] = ask({"do": "files"})["files"]
    there = set(_FILES[other.image])
    return [path for path in _FILES[one.image] if path in there][:most]


def program(start: str, files: Sequence[str], memory_bytes: int) -> str:
    """All modules of the inside as one text, since no container has them as files, and how they begin."""
    folder = Path(__file__).parent
    sources = {f"{PACKAGE}.{name}": (folder / f"{name}.py").read_text("utf-8") for name in INSIDE}
    return (
        "import sys, types\n"
        f"sys.modules[{PACKAGE!r}] = package = types.ModuleType({PACKAGE!r})\n"
        f"for name, text in {sources!r}.items():\n"
        "    sys.modules[name] = module = types.ModuleType(name)\n"
        "    exec(compile(text, name, 'exec'), module.__dict__)\n"
        "    setattr(package, name.rpartition('.')[2], module)\n"
        f"package.kit.files[:], package.kit.marks['memory_mb'] = {list(files)!r}, {memory_bytes >> 20}\n"
        f"exec(compile({(folder / 'guest.py').read_text('utf-8')!r}, 'guest', 'exec'))\n"
        f"{start}\n"
    )
