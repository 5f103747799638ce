"""One fault of each kind under a whole loop; benchmarks/faults.py does them all, and often.

Kills and power cuts have tests of their own (test_resume.py, test_power_cut.py).
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from benchmark_scripts import load

scene = load("fault_scene")
faults = load("faults")
FAULTS = {fault.name: fault for fault in faults.FAULTS}
ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a disk")


def decided_as_undisturbed(name: str, glass: str, daemon: Any = None) -> list[list[str]]:
    """Run a loop under that fault; the trials that were run again, and whose fault that was."""
    with faults.place(glass, daemon) as make:
        row = faults.under(FAULTS[name], make(), random.Random(1))
    assert faults.held(row), row
    return row["disturbed"]


@pytest.mark.slow
@ROOT_ONLY
@pytest.mark.parametrize("name", ["driver_frozen", "tmpdir_full", "disk_full"])
def test_a_frozen_driver_or_a_full_disk_decides_nothing(name: str) -> None:
    assert all(owner != "bundle" for _, owner, _ in decided_as_undisturbed(name, "process"))


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One that may be killed."""
    if shutil.which("dockerd") is None:
        pytest.skip("dockerd is not installed")
    with pytest.MonkeyPatch.context() as patch, faults.own_daemon(tmp_path_factory.mktemp("daemon")) as made:
        patch.setenv("DOCKER_HOST", made.url)
        yield made


@pytest.mark.docker
@pytest.mark.slow
@ROOT_ONLY
@pytest.mark.parametrize("name", ["daemon_killed", "guest_paused"])
def test_a_daemon_that_is_killed_or_a_client_that_meddles_decides_nothing(name: str, daemon: Any) -> None:
    disturbed = decided_as_undisturbed(name, "docker", daemon)
    assert disturbed
    assert {owner for _, owner, _ in disturbed} == {"machine"}


def a_row(**facts: object) -> dict[str, object]:
    good = {"exits": [3, 0], "decision": "adopt", "tripwires": [], "broken": []}
    return {**good, **facts}


@pytest.mark.parametrize(
    ("facts", "whole"),
    [
        ({}, True),
        ({"exits": [0]}, True),
        ({"exits": [1, 0]}, False),
        ({"exits": [3, 3]}, False),
        ({"decision": "reject"}, False),
        ({"decision": None}, False),
        ({"tripwires": ["parent_failed"]}, False),
        ({"broken": ["events: out of order"]}, False),
    ],
)
def test_only_a_loop_that_decided_as_an_undisturbed_one_counts_as_such(facts: dict[str, object], whole: bool) -> None:
    assert faults.held(a_row(**facts)) == whole
