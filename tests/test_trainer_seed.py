"""The starter trainer keeps its contract: budget, seeds, claim, weights, a model that never looks ahead."""

from __future__ import annotations

import importlib.util
import math
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from benchmark_scripts import load

from bellglass import tasks, weights
from bellglass.paths import content_root
from bellglass.records import Budget, Seeds

TRAINER = content_root() / "trainer_seed"
STEPS = Budget("steps", 4, 60.0)
SECRET = bytes(32)


def load_file(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


bare = load("bare_trial")


@pytest.fixture(scope="module", autouse=True)
def torch():
    """On one thread."""
    torch = pytest.importorskip("torch", reason="torch is not installed (locks/torch-cpu.txt)")
    pytest.importorskip("lightning_fabric", reason="lightning is not installed (extra: trainer)")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield torch
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def splits() -> tuple[tasks.Task, tasks.Documents, tasks.Documents]:
    task = tasks.load("stories")
    return task, tasks.make(task, "train", SECRET, 200), tasks.make(task, "select", SECRET, 12)


def trial(splits, init_seed: int = 1, data_seed: int = 2, budget: Budget = STEPS):
    task, train, test = splits
    return bare.run(TRAINER, task, train, test, Seeds(init_seed, data_seed), budget)


@pytest.fixture(scope="module")
def trained(splits):
    return trial(splits, budget=Budget("steps", 12, 60.0))


@pytest.fixture
def stored(trained, tmp_path: Path) -> Path:
    (tmp_path / "weights.safetensors").write_bytes(trained.weights)
    return tmp_path


def predict_from(folder: Path):
    return load_file("trainer_seed_model", TRAINER / "model.py").load(str(folder))


@pytest.mark.slow
def test_the_same_seeds_give_the_same_bits_and_either_seed_alone_changes_them(splits) -> None:
    first = trial(splits)
    assert first.weights == trial(splits).weights
    assert first.weights != trial(splits, init_seed=3).weights
    assert first.weights != trial(splits, data_seed=3).weights


def test_a_dozen_steps_are_better_than_guessing_and_the_claim_is_near_the_verdict(trained) -> None:
    assert trained.asked <= 12
    assert trained.raw_bits < math.log2(60) - 0.5
    assert trained.claim_bits == pytest.approx(trained.raw_bits, abs=0.25)


@pytest.mark.slow
def test_it_ends_within_a_budget_of_cpu_seconds(splits) -> None:
    outcome = trial(splits, budget=Budget("cpu_seconds", 1.5, 30.0))
    assert outcome.train_seconds < 1.5
    assert outcome.asked > 3


def test_a_budget_of_one_step_still_leaves_weights_and_a_claim(splits) -> None:
    outcome = trial(splits, budget=Budget("steps", 1, 30.0))
    assert outcome.claim_bits is not None
    assert outcome.weights


def test_the_weights_pass_the_host_s_check_within_the_smallest_cap(trained) -> None:
    facts = weights.check(trained.weights, max_bytes=int(tasks.load("stories").presets["tiny"].weights_mb * 1e6))
    assert facts.parameters > 10_000


def test_a_model_loads_from_the_weights_file_alone_and_answers_in_float32(stored: Path) -> None:
    assert [path.name for path in stored.iterdir()] == ["weights.safetensors"]
    logits = predict_from(stored)(np.ones((2, 7), dtype=np.int64))
    assert logits.shape == (2, 7, 60)
    assert logits.dtype == np.float32
    assert np.isfinite(logits).all()


def test_a_prediction_depends_on_nothing_behind_it_and_on_no_other_row(splits, stored: Path) -> None:
    predict, tokens = predict_from(stored), splits[2].tokens[:4, :-1].astype(np.int64)
    whole = predict(tokens)
    other = tokens.copy()
    other[:, 100:] = splits[2].tokens[4:8, 100:-1]
    assert np.abs(predict(other)[:, :100] - whole[:, :100]).max() < 1e-4
    assert np.abs(predict(other)[:, 100:] - whole[:, 100:]).max() > 1e-2
    assert np.abs(predict(tokens[:1]) - whole[:1]).max() < 1e-4
    assert np.abs(predict(tokens[:, :50]) - whole[:, :50]).max() < 1e-4


def test_a_claim_counts_what_the_judge_counts(torch) -> None:
    objective = load_file("trainer_seed_objective", TRAINER / "objective.py")
    tokens = torch.tensor([[1, 2, 3, 0], [1, 3, 2, 3]])
    logits = torch.zeros(2, 3, 4)
    logits[0, 1, 3] = logits[1, 2, 3] = 50.0  # sure of each document's last token, guessing elsewhere
    assert objective.claim_bits(logits, tokens, 0, last_only=True) == pytest.approx(0.0, abs=1e-4)
    assert objective.claim_bits(logits, tokens, 0, last_only=False) == pytest.approx(3 * 2 / 5, abs=1e-4)


def test_padding_is_no_part_of_the_loss(torch) -> None:
    objective = load_file("trainer_seed_objective", TRAINER / "objective.py")
    tokens = torch.tensor([[1, 2, 0, 0]])
    logits = torch.zeros(1, 3, 4)
    logits[0, 1:, 1] = 9.0  # badly wrong, but on padding only
    assert float(objective.loss(logits, tokens, 0)) == pytest.approx(math.log(4))


def test_the_model_file_imports_without_lightning_and_the_host_imports_neither() -> None:
    code = "import sys; sys.path.insert(0, 'trainer_seed'); import model; sys.exit('lightning_fabric' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=content_root(), check=False).returncode == 0


def test_the_starter_is_four_files_and_fits_in_a_head() -> None:
    files = sorted(path for path in TRAINER.iterdir() if path.name != "__pycache__")
    assert [path.name for path in files] == ["data.py", "model.py", "objective.py", "train.py"]
    assert sum(len(path.read_text().splitlines()) for path in files) <= 350


def test_every_edit_of_the_reference_still_fits_the_starter(tmp_path: Path) -> None:
    reference = load_file("reference", Path(__file__).parent.parent / "benchmarks" / "reference.py")
    for task in reference.MORE:
        reference.make(TRAINER, tmp_path, task)
    made = reference.make(TRAINER, tmp_path)
    assert all((made / name).read_bytes() != (TRAINER / name).read_bytes() for name in ("data.py", "model.py"))
