"""benchmarks/five_seeds.py: each demo runs once, and its machine is kept with its facts."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from benchmark_scripts import load

from bellglass.store.ledger import Ledger

bench = load("five_seeds")


def test_a_demo_keeps_the_machine_that_ran_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], **_: Any) -> Any:
        with Ledger.create(Path(command[-1]) / "stories-00000001"):
            return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(bench, "WORK", tmp_path)
    monkeypatch.setattr(bench.subprocess, "run", run)
    monkeypatch.setattr(bench.page, "machine", lambda: "one core")
    first = bench.run(1, "process")
    monkeypatch.setattr(bench.page, "machine", lambda: "two cores")
    assert bench.run(1, "process") == first
    old = {key: first[key] for key in first if key != "machine"} | {"seed": 3}
    text = bench.about([first, bench.run(2, "process"), old])
    assert text.startswith("Machine: one core (seed 1); two cores (seed 2); not recorded (seed 3). Command")
