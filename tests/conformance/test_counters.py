"""A guest reads all that it can of the machine while another works: what the other does must not show in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from bellglass.doors.docker import image
from bellglass.doors.docker.channels.bare import a_uid, undefended
from bellglass.doors.docker.channels.host import Ask
from bellglass.doors.docker.channels.meeting import RealGuests, probing
from bellglass.doors.docker.engine import Engine
from bellglass.doors.docker.glass import DockerGlass
from bellglass.records import Role

pytestmark = pytest.mark.docker
WORK = ("work", "memory", "tmpfs", "terminals", "forks", "pipes", "flights", "events", "watches")
# What still moves in a guest's sight, and why it stays. docs/benchmarks.md has the bits a second.
LEFT = {
    "stat /proc": "its links are as many as the machine has processes; only `predict` is kept from asking",
    "/proc (links and size)": "the same",
    "statvfs /": "the free space of the host's disk, which moves with what the host writes",
    "statvfs /etc/hosts": "the same",
}


def looks(ask: Ask, busy: Ask) -> dict[str, str]:
    """What changed for one guest over a time in which the other did everything once."""
    ask({"do": "look"})
    found: dict[str, str] = {}
    for how in WORK:
        busy({"do": "send", "how": how, "bits": "1"})
        found |= _said(ask({"do": "look"}))
        busy({"do": "clear"})
        found |= _said(ask({"do": "look"}))
    return found


def _said(answer: dict[str, Any]) -> dict[str, str]:
    assert "changed" in answer, answer
    return dict(answer["changed"])


@pytest.fixture(scope="module")
def busy(engine: Engine) -> Iterator[Ask]:
    """A neighbour that nothing keeps from anything."""
    with probing(engine, undefended(image.find(engine, Role.IMPROVE), a_uid()), ()) as ask:
        yield ask


def test_with_nothing_masked_the_work_of_another_guest_shows(engine: Engine, busy: Ask) -> None:
    with probing(engine, undefended(image.find(engine, Role.IMPROVE), a_uid()), ()) as ask:
        found = looks(ask, busy)
    assert {"sysinfo procs", "/proc/meminfo", "/proc/sys/fs/file-nr", "stat /proc"} <= set(found)
    assert len(found) > 20


@pytest.mark.parametrize("role", Role)
def test_in_a_real_guest_the_work_of_another_shows_nowhere_else(engine: Engine, busy: Ask, role: Role) -> None:
    with ExitStack() as stack:
        glass = DockerGlass(engine, warm=False, prove=False)
        stack.callback(glass.close)
        found = looks(stack.enter_context(RealGuests(glass, role, role, []).receiver()), busy)
    assert {name: told for name, told in found.items() if name not in LEFT} == {}
