"""Containers by label: whose they are, which have lost their driver, and how to end them from outside.

The labels name user, host, loop, role and the driver's pid with its start time. Reaping takes only what belongs to this
user on this host and whose driver is gone; containers that were created and never started are included.

Not covered: a driver in another pid namespace that shares host name and user with this one: it looks dead from here.
"""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from bellglass.doors.docker.engine import Engine, Listed
from bellglass.doors.docker.profile import LABEL
from bellglass.errors import BellglassError
from bellglass.paths import user_host
from bellglass.ports import GuestSpec
from bellglass.processes import Process, is_running, named

KILL_SECONDS = 10.0
UID_LABEL = LABEL + "uid"  # which is in use, for a daemon that has few to give
T = TypeVar("T")
R = TypeVar("R")


def labels_of(spec: GuestSpec) -> dict[str, str]:
    """Whose guest this is: for people, for the reaper and for `stop`."""
    deadline = str(int(time.time() + spec.deadline_seconds))
    return owner_labels(str(spec.role), {**spec.labels, "deadline": deadline})


def owner_labels(role: str, more: Mapping[str, str]) -> dict[str, str]:
    """Of a container that belongs to this driver."""
    me = _me()
    facts = {**more, **user_host(), "role": role, "owner_pid": str(me.pid), "owner_start": me.start}
    return {LABEL + name: str(value) for name, value in facts.items()}


def own_labels() -> dict[str, str]:
    """By which this driver's containers are found."""
    me = _me()
    return {LABEL + "owner_pid": str(me.pid), LABEL + "owner_start": me.start}


@functools.cache
def _me() -> Process:
    return named(os.getpid())


def reap(engine: Engine) -> int:
    """Remove what dead drivers of this user on this host left behind, containers that never started included."""
    mine = {LABEL + name: value for name, value in user_host().items()}
    orphans = [each for each in engine.containers(mine) if not _has_owner(each)]
    return sum(side_by_side(lambda orphan: _destroy(engine, orphan.id), orphans))


def kill_all(labels: Mapping[str, str], engine: Engine | None = None) -> int:
    """End this user's guests on this host that carry the labels (such as `loop`). Returns how many are still there.

    For use from another process than the driver, which must be dead or have closed its pipes: see the module's text.
    """
    engine = engine or Engine.connect()
    wanted = {LABEL + name: value for name, value in {**labels, **user_host()}.items()}
    until = time.monotonic() + KILL_SECONDS
    while True:
        left = engine.containers(wanted)
        if not left or time.monotonic() > until:
            return len(left)
        side_by_side(lambda each: _destroy(engine, each.id), left)


def _has_owner(container: Listed) -> bool:
    try:
        owner = Process(int(container.labels[LABEL + "owner_pid"]), container.labels[LABEL + "owner_start"])
    except (KeyError, ValueError):
        return False
    return is_running(owner)


def _destroy(engine: Engine, container: str) -> bool:
    with contextlib.suppress(BellglassError):
        engine.kill(container)
        engine.remove(container)
        return True
    return False


def side_by_side(work: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """Each call may wait seconds for the engine; all of them together shouldn't."""
    if not items:
        return []
    with ThreadPoolExecutor(max_workers=min(8, len(items)), thread_name_prefix="docker-end") as pool:
        return list(pool.map(work, items))
