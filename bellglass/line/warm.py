"""Guests started ahead: a glass around a glass, so that a trial waits milliseconds for torch instead of seconds.

The first `open` of a role is cold and says what is wanted; from then on a background thread keeps up to that many
guests of it waiting after `ready`. Each still serves once. Opening never fails because of the pool: a warm guest
that has died, is too old or doesn't fit is put away, and one is opened on the spot.

Not covered: memory. A waiting guest holds what its imports take (about 230 MB each for `train`); who builds the pool
chooses how many.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

from bellglass.errors import BellglassError, GuestFault
from bellglass.line.intake import Log
from bellglass.ports import Glass, Guest, GuestSpec
from bellglass.records import Role, Strain

IDLE_SECONDS = 600.0  # how long a guest may wait; its deadline is that much later than what was asked for
PATIENCE_SECONDS = 3.0  # how long the background waits for an idle core before it takes a busy one


@dataclass(frozen=True, slots=True)
class _Waiting:
    guest: Guest
    spec: GuestSpec
    ends_at: float  # monotonic: when its own deadline falls


class WarmGlass:
    """The same port as the glass inside."""

    def __init__(
        self,
        glass: Glass,
        ready: Mapping[Role, int],
        *,
        idle_seconds: float = IDLE_SECONDS,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        self._glass, self._ready = glass, dict(ready)
        self._idle_seconds, self._patience_seconds = idle_seconds, patience_seconds
        self.name, self.sealed, self.content = glass.name, glass.sealed, glass.content
        self._waiting: list[_Waiting] = []
        self._wanted: dict[Role, GuestSpec] = {}
        self._changed = threading.Condition()
        self._closed = False
        self._worker: threading.Thread | None = None

    def open(self, spec: GuestSpec) -> Guest:
        guest = self._take(spec)
        if guest is None:
            guest = self._glass.open(spec)
        self.prime(spec)
        return guest

    def find_why_alone(self) -> str:
        return self._glass.find_why_alone()

    def company(self, *, alone: bool = False, check: Callable[[], None] = lambda: None) -> AbstractContextManager[None]:
        return self._glass.company(alone=alone, check=check)

    def prime(self, spec: GuestSpec) -> None:
        """Say that guests like this will be wanted. Returns at once."""
        if not self._ready.get(spec.role):
            return
        with self._changed:
            before = self._wanted.get(spec.role)
            longest = max(spec.deadline_seconds, before.deadline_seconds if before and _alike(before, spec) else 0.0)
            self._wanted[spec.role] = replace(spec, deadline_seconds=longest)
            if self._worker is None and not self._closed:
                self._worker = threading.Thread(target=self._refill, name="warm-guests", daemon=True)
                self._worker.start()
            self._changed.notify_all()

    def waiting(self, role: Role) -> int:
        with self._changed:
            return sum(one.spec.role is role for one in self._waiting)

    def strain(self, since: float) -> Strain:
        return self._glass.strain(since)

    def wait_until_free(self, seconds: float, check: Callable[[], None]) -> str:
        return self._glass.wait_until_free(seconds, check)

    def reap(self) -> int:
        return self._glass.reap()

    def close(self) -> None:
        """Ends every guest, the ones handed out too (the glass inside knows them)."""
        with self._changed:
            self._closed = True
            old, self._waiting = self._waiting, []
            self._changed.notify_all()
        for one in old:
            one.guest.end()
        self._glass.close()
        if self._worker is not None:
            self._worker.join(timeout=15.0)  # it may be opening one, which it then ends itself
            self._glass.close()  # and what the glass itself keeps running for that one

    def _take(self, spec: GuestSpec) -> Guest | None:
        while True:
            with self._changed:
                found = next((one for one in self._waiting if one.spec.role is spec.role), None)
                if found is None:
                    return None
                self._waiting.remove(found)
            lives_on = found.ends_at - time.monotonic() >= spec.deadline_seconds
            if lives_on and _alike(found.spec, spec) and _still_well(found.guest):
                return found.guest
            found.guest.end()

    def _refill(self) -> None:
        while True:
            with self._changed:
                while not self._closed and (spec := self._missing()) is None:
                    self._changed.wait()
                if self._closed:
                    return
            assert spec is not None
            _wait_for_a_core(self._patience_seconds)
            spec = replace(
                spec,
                deadline_seconds=spec.deadline_seconds + self._idle_seconds,
                labels={**spec.labels, "purpose": "warm"},
            )
            ends_at = time.monotonic() + spec.deadline_seconds
            try:
                guest = self._glass.open(spec)
            except BellglassError:
                # Whoever opens next in the foreground gets the same error, where it can be told. Until then: rest.
                with self._changed:
                    self._wanted.pop(spec.role, None)
                continue
            if not self._keep(_Waiting(guest, spec, ends_at)):
                guest.end()

    def _keep(self, one: _Waiting) -> bool:
        with self._changed:
            if not self._closed:
                self._waiting.append(one)
                self._changed.notify_all()
            return not self._closed

    def _missing(self) -> GuestSpec | None:
        for role, spec in self._wanted.items():
            if sum(one.spec.role is role for one in self._waiting) < self._ready[role]:
                return spec
        return None


def _alike(one: GuestSpec, other: GuestSpec) -> bool:
    """Whether a guest made for one may serve the other; deadlines and the labels for people may differ."""
    return (one.role, one.memory_mb, one.gpu, one.lease_seconds, one.labels.get("loop")) == (
        other.role, other.memory_mb, other.gpu, other.lease_seconds, other.labels.get("loop"),
    )  # fmt: skip


def _still_well(guest: Guest) -> bool:
    """Whether it waits in silence. Warnings from its imports are dropped; anything else is not what we started."""
    try:
        while (event := guest.recv(0.0)) is not None:
            if not isinstance(event, Log):
                return False
    except GuestFault:
        return False
    return True


def _wait_for_a_core(seconds: float) -> None:
    """Until fewer threads run than there are cores, where the system says so, and not for ever."""
    until = time.monotonic() + seconds
    with contextlib.suppress(OSError, ValueError):
        while time.monotonic() < until:
            with open("/proc/loadavg") as file:
                running = int(file.read().split()[3].split("/")[0])
            if running <= (os.cpu_count() or 1):  # one of them is this thread
                return
            time.sleep(0.05)
