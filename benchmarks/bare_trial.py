"""One trial without a glass: a trainer folder in this very process, against a stand-in `glass` module, then scored.

For measuring tasks and for tests of the starter trainer, whose code is ours. Never for a bundle that anything else
wrote: nothing here protects anything. The scoring repeats the judge's arithmetic without its proof.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
import tempfile
import time
import types
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bellglass import gpus, tasks
from bellglass.records import Budget, Seeds

TRAINER_MODULES = ("data", "objective", "model")


@dataclass
class Host:
    """What the trainer finds behind `import glass`: a folder, a clock, a list of metrics."""

    folder: Path
    budget: Budget
    args: dict[str, object]
    asked: int = 0
    started: float | None = None
    metrics: list[tuple[str, float, int]] = field(default_factory=list)

    def data(self) -> str:
        self.started = self._now()
        return str(self.folder / "data")

    def used(self) -> float:
        if self.started is None:
            return 0.0
        if self.budget.kind == "steps":
            return float(self.asked)
        return self._now() - self.started

    def _now(self) -> float:
        return time.monotonic() if self.budget.kind == "gpu_seconds" else time.process_time()

    def time_left(self) -> tuple[float, float]:
        left = max(0.0, self.budget.amount - self.used())
        self.asked += 1
        return left, self.budget.amount

    def metric(self, name: str, value: float, step: int = 0) -> None:
        self.metrics.append((name, float(value), step))


@dataclass(frozen=True)
class Outcome:
    score: float  # bits per target above the floor
    raw_bits: float
    floor_bits: float
    by_skill: dict[str, float]
    certain: float | None  # share of the documents whose forced targets (floor 0) all have a chance above one half
    claim_bits: float | None
    asked: int
    train_seconds: float
    predict_seconds: float
    weights: bytes


def run(
    trainer: Path, task: tasks.Task, train: tasks.Documents, test: tasks.Documents, seeds: Seeds, budget: Budget
) -> Outcome:
    """Train on `train` (in the order of the data seed), judge on `test`; on a GPU where its seconds are counted."""
    device = "cuda" if budget.kind == "gpu_seconds" else "cpu"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "data").mkdir()
        (folder / "out").mkdir()
        np.save(folder / "data" / "tokens.npy", tasks.train_order(train, seeds.data_seed).tokens)
        (folder / "data" / "meta.json").write_text(json.dumps(tasks.meta(task)))
        args = {"init_seed": seeds.init_seed, "data_seed": seeds.data_seed, "threads": 1, "device": device}
        host = Host(folder, budget, {**args, "context": task.context, "vocab": task.vocab})
        with _bundle_modules(trainer, host), _gpus_of(device):
            runpy.run_path(str(trainer / "train.py"), run_name="__main__")
            train_seconds = host.used()
            began = time.process_time()
            bits = _predict(folder / "out", test)
            predict_seconds = time.process_time() - began
        weights = (folder / "out" / "weights.safetensors").read_bytes()
    return _outcome(task, test, bits, host, (train_seconds, predict_seconds), weights)


@contextmanager
def _gpus_of(device: str) -> Iterator[None]:
    """On the CPU none is seen, as in a glass: a trainer that judges where it finds a GPU would else do so."""
    before = os.environ.get(gpus.VISIBLE)
    if device == "cpu":
        os.environ |= gpus.environment(None)
    try:
        yield
    finally:
        os.environ.pop(gpus.VISIBLE, None)
        if before is not None:
            os.environ[gpus.VISIBLE] = before


@contextmanager
def _bundle_modules(trainer: Path, host: Host) -> Iterator[None]:
    """`import glass` finds the host, `import model` this trainer's; both are forgotten afterwards."""
    stand_in = types.ModuleType("glass")
    vars(stand_in).update(args=host.args, data=host.data, time_left=host.time_left, metric=host.metric)
    before = os.getcwd()
    sys.modules["glass"] = stand_in
    sys.path.insert(0, str(trainer))
    os.chdir(host.folder)
    try:
        yield
    finally:
        os.chdir(before)
        sys.path.remove(str(trainer))
        for name in ("glass", *TRAINER_MODULES):
            sys.modules.pop(name, None)


def _predict(folder: Path, test: tasks.Documents) -> np.ndarray:
    import model  # type: ignore[import-not-found]  # the trainer's own, by _bundle_modules

    predict = model.load(str(folder))
    bits = np.zeros(test.tokens.shape)
    for first in range(0, len(test), 16):
        tokens = test.tokens[first : first + 16].astype(np.int64)
        logits = predict(tokens[:, :-1]).astype(np.float64)
        logits -= logits.max(axis=-1, keepdims=True)
        nats = np.log(np.exp(logits).sum(axis=-1)) - np.take_along_axis(logits, tokens[:, 1:, None], -1)[..., 0]
        bits[first : first + 16, 1:] = nats / np.log(2)
    return bits


def _outcome(
    task: tasks.Task, test: tasks.Documents, bits: np.ndarray, host: Host, seconds: tuple[float, float], weights: bytes
) -> Outcome:
    raw, floor = (float(values[test.target].mean(dtype=float)) for values in (bits, test.floor_bits))
    above = bits - test.floor_bits
    parts = {name: test.target & (test.skill == index) for index, name in enumerate(task.skills)}
    forced = test.target & (test.floor_bits == 0) & (task.floor == "exact")
    claims = [value for name, value, _ in host.metrics if name == "claim_bits"]
    return Outcome(
        score=raw - floor,
        raw_bits=raw,
        floor_bits=floor,
        by_skill={name: float(above[part].mean()) for name, part in parts.items() if part.any()},
        certain=float(((bits < 1) | ~forced).all(axis=1).mean()) if forced.any() else None,
        claim_bits=claims[-1] if claims else None,
        asked=host.asked,
        train_seconds=seconds[0],
        predict_seconds=seconds[1],
        weights=weights,
    )
