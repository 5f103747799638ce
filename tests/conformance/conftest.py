"""One suite for every glass. A behaviour that a glass reports as failing is expected to fail, never assumed to hold.

`@behaviour("name")` names what a test demands. Where the glass lists the name in `fails`, the test runs as an
expected failure; with `safe=False` it doesn't run there at all, since what it does would hurt the machine.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from guests import open_glass, spec

from bellglass import processes
from bellglass.errors import BellglassError
from bellglass.ports import Glass, Guest
from bellglass.records import Role


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "behaviour(name, safe=True): what a glass may report that it fails")


KINDS = ["process", pytest.param("forked", marks=pytest.mark.slow), pytest.param("docker", marks=pytest.mark.docker)]


@pytest.fixture(scope="session", params=KINDS)
def any_glass(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Glass]:
    home = tmp_path_factory.mktemp("guests", numbered=True)
    try:
        if request.param == "forked" and not processes.LINUX:
            pytest.skip("guests are forks only on Linux")
        made = open_glass(request.param, home)
        made.open(spec()).end()  # an engine without its image says so here, once
    except (BellglassError, ImportError) as error:
        if os.environ.get("BELLGLASS_REQUIRE_DOCKER"):
            pytest.fail(f"{request.param}: {error}")
        pytest.skip(f"{request.param}: {error}")
    yield made
    made.close()


@pytest.fixture
def glass(any_glass: Glass, request: pytest.FixtureRequest) -> Glass:
    mark = request.node.get_closest_marker("behaviour")
    if mark is not None and mark.args[0] in getattr(any_glass, "fails", frozenset()):
        reason = f"the {any_glass.name} glass reports that it fails {mark.args[0]!r}"
        if not mark.kwargs.get("safe", True):
            pytest.skip(reason)
        # Not strict: what it fails for root it may manage for an ordinary user.
        request.applymarker(pytest.mark.xfail(reason=reason, strict=False))
    return any_glass


@pytest.fixture
def home(any_glass: Glass) -> Path:
    """Where a process glass keeps its workspaces."""
    if any_glass.name != "process":
        pytest.skip("only the process glass has folders on the host")
    return Path(any_glass._home)  # type: ignore[attr-defined]


@pytest.fixture
def opened(glass: Glass) -> Iterator[Callable[..., Guest]]:
    """Opens guests that are ended with the test, whatever happens."""
    with ExitStack() as stack:

        def open_one(role: Role = Role.TRAIN, **limits: float) -> Guest:
            guest = glass.open(spec(role, **limits))  # type: ignore[arg-type]
            stack.callback(guest.end)
            return guest

        yield open_one
