"""What tests share: loops that are made once, and which tests can run here.

Those that need Docker, a browser, a GPU or a key skip with a reason. In CI a skip for want of Docker or of a browser
fails.
"""

from __future__ import annotations

import atexit
import fcntl
import importlib.util
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# The same examples for everybody, so that a red test is red again; `--hypothesis-profile=default` looks for new ones.
# No deadline for one example, and none for making them: on a busy machine both measure the machine.
NO_CLOCK = (HealthCheck.too_slow,)
settings.register_profile("same", derandomize=True, database=None, deadline=None, suppress_health_check=NO_CLOCK)
settings.load_profile("same")

# A state folder of the tests' own; workers and the processes that they start have it from the first process.
STATE = "BELLGLASS_TESTS_STATE"
if STATE not in os.environ:
    os.environ[STATE] = tempfile.mkdtemp(prefix="bellglass-state-")
    atexit.register(shutil.rmtree, os.environ[STATE], ignore_errors=True)
os.environ["XDG_STATE_HOME"] = os.environ[STATE]

REQUIRED = {name for name in ("docker", "browser") if os.environ.get(f"BELLGLASS_REQUIRE_{name.upper()}") == "1"}
NOT_FOR_DOCKER = "only the process glass"  # how the reason of a skip begins that no Docker engine could prevent


@lru_cache
def docker_missing() -> str | None:
    """Why Docker tests can't run, or None."""
    from bellglass.doors.docker import image
    from bellglass.doors.docker.engine import Engine
    from bellglass.errors import SetupError

    try:
        image.find_all(Engine.connect())
    except SetupError as error:
        return error.one_line()
    return None


def gpu_missing() -> str | None:
    from bellglass.doors.process_glass import require_gpu
    from bellglass.errors import SetupError

    try:
        require_gpu(0)
    except SetupError as error:
        return error.one_line()
    return None


def key_missing() -> str | None:
    keys = ("ANTHROPIC_API_KEY", "OPENAI_API_KEY")
    return None if any(os.environ.get(key) for key in keys) else f"none of {', '.join(keys)} is set"


def browser_missing() -> str | None:
    if importlib.util.find_spec("playwright") is None:
        return "Playwright is not installed (locks/dev.txt)"
    return None if shutil.which("chromium") else "no chromium on the PATH (apt-get install chromium)"


NEEDS = {"docker": docker_missing, "gpu": gpu_missing, "hosted": key_missing, "browser": browser_missing}


def pytest_xdist_auto_num_workers() -> int:
    """One more than cores: many tests wait for a guest."""
    return (os.cpu_count() or 1) + 1


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker, missing in NEEDS.items():
        if item.get_closest_marker(marker) and (reason := missing()):
            if marker in REQUIRED:
                pytest.fail(f"BELLGLASS_REQUIRE_{marker.upper()}=1, but: {reason}", pytrace=False)
            pytest.skip(reason)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report: pytest.TestReport = yield  # type: ignore[assignment, misc]
    skipped = report.skipped and not hasattr(report, "wasxfail") and NOT_FOR_DOCKER not in str(report.longrepr)
    for marker in REQUIRED if skipped else ():
        if item.get_closest_marker(marker):
            report.outcome = "failed"
            report.longrepr = f"skipped although BELLGLASS_REQUIRE_{marker.upper()}=1: {report.longrepr}"
    return report  # type: ignore[return-value]


@pytest.fixture(scope="session")
def engine() -> Iterator[Any]:
    """The Docker engine here. Only for tests that are marked as wanting one."""
    from bellglass.doors.docker.engine import Engine

    made = Engine.connect()
    yield made
    made.close()


Make = Callable[[Path], object]


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Make], Path]:
    """A folder that is made once in a run of the tests, whichever of its processes needs it first. To read or copy."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base  # a worker's own lies in the run's

    def once(name: str, make: Make) -> Path:
        folder, whole = shared / name, shared / f"{name}.whole"
        with (shared / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not whole.exists():  # where making it failed, the next one tries again and says why
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                make(folder)
                whole.touch()
        return folder

    return once


@pytest.fixture(scope="session")
def calibrations(made_once: Callable[[str, Make], Path]) -> Path:
    """The noise of the small world's starter, measured on three seeds."""
    import small_world

    return made_once("calibrations", small_world.calibrate)


@pytest.fixture
def home(tmp_path: Path, calibrations: Path) -> Path:
    """Where a test makes loops of the small world; their noise has been measured."""
    return Path(shutil.copytree(calibrations / "loops", tmp_path / "loops"))


@pytest.fixture
def adopted(tmp_path: Path, made_once: Callable[[str, Make], Path], calibrations: Path) -> Path:
    """A copy of a finished loop of the small world, whose only generation was adopted and its scaffold inherited.

    Its ledger is ours as long as nobody appends to a copy: the head that is noted for it is that of all copies.
    """
    import small_world

    def run(folder: Path) -> None:
        home = Path(shutil.copytree(calibrations / "loops", folder / "loops"))
        small_world.run(home, small_world.Tuner())

    shutil.copytree(made_once("adopted", run) / "loops", tmp_path / "adopted" / "loops")
    (ledger,) = (tmp_path / "adopted" / "loops").glob("*/loop.db")
    return ledger.parent
