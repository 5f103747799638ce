"""A guest in Docker that somebody else ended: who did it, or by which signal, and never that it failed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from guests import begin, spec

from bellglass.blame import Seen, blame
from bellglass.errors import GuestFault
from bellglass.records import GuestExit

pytestmark = pytest.mark.docker
SLEEPS = "import time\ntime.sleep(600)\n"


@pytest.fixture(scope="module")
def glass() -> Iterator[Any]:
    from bellglass.doors.docker.glass import DockerGlass

    made = DockerGlass(warm=False, prove=False)
    yield made
    made.close()


def docker(*words: str) -> Callable[[Any], None]:
    def do(guest: Any) -> None:
        subprocess.run(["docker", *words, guest.id], check=True, capture_output=True)

    return do


def kill_first_process(guest: Any) -> None:
    found = subprocess.run(
        ["docker", "inspect", "-f", "{{.State.Pid}}", guest.id], check=True, capture_output=True, text=True
    )
    os.kill(int(found.stdout), signal.SIGKILL)


def fell(guest: Any, do: Callable[[Any], None]) -> tuple[str, GuestExit]:
    begin(guest, SLEEPS)
    do(guest)
    with contextlib.suppress(GuestFault):
        while True:
            guest.recv(60.0)
    with pytest.raises(GuestFault) as told:
        guest.recv(0.0)
    return told.value.code, guest.end()


@pytest.mark.parametrize(
    ("do", "meddled"),
    [
        (docker("kill"), "kill"),
        (docker("stop", "--time", "1"), "kill"),
        (docker("rm", "--force"), "kill"),
        (docker("pause"), "pause"),
    ],
)
def test_what_another_client_did_is_named(glass: Any, do: Callable[[Any], None], meddled: str) -> None:
    fault, ended = fell(glass.open(spec()), do)
    assert (ended.meddled, ended.engine) == (meddled, "")
    assert blame(Seen(fault, meddled=ended.meddled, signal=ended.signal))[0] == "machine"


def test_who_was_paused_until_its_time_was_over_was_paused(glass: Any) -> None:
    """We end it then, before it has been silent for long enough to be given up."""
    guest = glass.open(spec())
    begin(guest, SLEEPS)
    docker("pause")(guest)
    for _ in range(1000):
        if guest.id in glass._meddling._heard:
            break
        time.sleep(0.01)
    ended = guest.end()
    assert (ended.meddled, ended.signal, ended.engine) == ("pause", 0, "")
    assert blame(Seen("timeout", meddled=ended.meddled))[0] == "machine"


def test_a_first_process_that_was_killed_past_the_engine_shows_its_signal(glass: Any) -> None:
    fault, ended = fell(glass.open(spec()), kill_first_process)
    assert (fault, ended.signal, ended.meddled) == ("lost", signal.SIGKILL, "")
    assert blame(Seen(fault, signal=ended.signal))[0] == "machine"


def test_a_guest_that_ends_by_itself_was_ended_by_nobody_else(glass: Any) -> None:
    guest = glass.open(spec())
    begin(guest, "import os\nos._exit(3)\n")
    with contextlib.suppress(GuestFault):
        while guest.recv(60.0) is not None:
            pass
    ended = guest.end()
    assert (ended.signal, ended.meddled, ended.engine) == (0, "", "")


def test_the_keeper_of_the_guests_image_is_a_canary(glass: Any) -> None:
    since = time.monotonic()
    glass.open(spec()).end()
    while glass.strain(since).share is None:
        time.sleep(0.1)
    assert 0.0 < glass.strain(since).share <= 1.5
    assert glass.wait_until_free(60.0, lambda: None) == ""
