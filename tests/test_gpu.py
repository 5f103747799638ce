"""What a device means to a guest: which GPU it sees, and on a machine that has one, that training and judging work."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest
from guests import begin, listen, spec

from bellglass import tasks, wiring
from bellglass.config import load
from bellglass.doors.process_glass import ProcessGlass
from bellglass.errors import GuestFault, SetupError
from bellglass.gpus import environment, gpu_of, guest_device
from bellglass.ports import GuestSpec
from bellglass.records import Seeds
from bellglass.steps.judge import judge
from bellglass.steps.train import WEIGHTS_FILE, train
from bellglass.store import bundles

SECRET = hashlib.sha256(b"tests/test_gpu.py").digest()


@pytest.fixture
def glass(tmp_path: Path) -> Iterator[ProcessGlass]:
    made = ProcessGlass(warm=False, home=tmp_path / "guests")
    yield made
    made.close()


def test_a_device_names_its_gpu() -> None:
    devices = ("cpu", "cuda", "cuda:0", "cuda:3")
    assert [gpu_of(device) for device in devices] == [None, 0, 0, 3]
    assert [guest_device(device) for device in devices] == ["cpu", "cuda", "cuda", "cuda"]


def test_numbers_are_nvidia_smis_unless_the_user_has_another_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
    assert environment(1) == {"CUDA_VISIBLE_DEVICES": "1", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    assert environment(1) == {"CUDA_VISIBLE_DEVICES": "3"}
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "FASTEST_FIRST")
    assert environment(1) == {"CUDA_VISIBLE_DEVICES": "3", "CUDA_DEVICE_ORDER": "FASTEST_FIRST"}


@pytest.mark.parametrize(
    ("visible", "device", "seen"),
    [
        (None, "cpu", ""),
        ("0,1", "cpu", ""),
        (None, "cuda", "0"),
        (None, "cuda:1", "1"),
        ("2, 5", "cuda", "2"),
        ("2, 5", "cuda:1", "5"),
        ("GPU-8f", "cuda:0", "GPU-8f"),
    ],
)
def test_a_guest_sees_its_own_gpu_and_no_other(
    glass: ProcessGlass, monkeypatch: pytest.MonkeyPatch, visible: str | None, device: str, seen: str
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    guest = glass.open(replace(spec(), gpu=gpu_of(device)))
    begin(guest, "import os; print(os.environ.get('CUDA_VISIBLE_DEVICES'))")
    assert listen(guest).out.decode() == f"{seen}\n"


@pytest.mark.parametrize("visible", ["", "3", "3,-1,4", "-1"])
def test_a_gpu_that_is_not_there_is_named(glass: ProcessGlass, monkeypatch: pytest.MonkeyPatch, visible: str) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with pytest.raises(SetupError) as caught:
        glass.open(replace(spec(), gpu=gpu_of("cuda:1")))
    assert "cuda:1" in caught.value.one_line()


@pytest.mark.parametrize(
    ("torch", "driver", "visible", "found"),
    [
        ("2.13.0+cpu", "/usr/bin/nvidia-smi", "0,1", "torch 2.13.0+cpu"),
        ("2.13.0", None, "0,1", "no nvidia-smi"),
        ("2.13.0", "/usr/bin/nvidia-smi", "-1", "CUDA_VISIBLE_DEVICES=-1"),
    ],
)
def test_without_a_gpu_a_loop_on_one_is_not_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, torch: str, driver: str | None, visible: str, found: str
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr("bellglass.doors.process_glass.glass.metadata.version", lambda library: torch)
    monkeypatch.setattr("bellglass.doors.process_glass.glass.shutil.which", lambda program: driver)
    config = load(None, {"preset": "gpu", "device": "cuda", "glass": "process"})
    with pytest.raises(SetupError) as caught:
        wiring.create(config, tmp_path / "loops")
    assert found in caught.value.one_line()
    assert not (tmp_path / "loops").exists()


class Refusing(ProcessGlass):
    """A glass that opens nothing, and keeps what it was asked for."""

    def __init__(self) -> None:
        super().__init__(warm=False)
        self.asked: list[GuestSpec] = []

    def open(self, spec: GuestSpec) -> NoReturn:
        self.asked.append(spec)
        raise GuestFault("lost", "this glass opens nothing")


@pytest.mark.parametrize(("device", "gpu", "memory"), [("cpu", None, 2048), ("cuda:1", 1, 8192)])
def test_trainer_and_judge_ask_for_the_card_and_the_memory_that_its_driver_needs(
    device: str, gpu: int | None, memory: int
) -> None:
    task, glass, bundle, labels = tasks.load("sums"), Refusing(), bundles.starter(), {"loop": "test"}
    docs, preset = tasks.make(task, "confirm", SECRET, 32), task.presets["tiny"]
    train(glass, bundle, docs, task=task, seeds=Seeds(1, 1), budget=preset.budget, labels=labels, device=device)
    with pytest.raises(GuestFault):
        judge(
            glass, bundle, b"", task, docs, preset=preset, labels=labels, prove=False, proof_key=SECRET, device=device
        )
    assert [(one.gpu, one.memory_mb) for one in glass.asked] == [(gpu, memory)] * 2


@pytest.mark.gpu
def test_the_starter_trains_and_is_judged_on_a_gpu() -> None:
    task = tasks.load("sums")
    preset = task.presets["gpu"]  # whole: of a shorter budget, saving and sending weights is too large a part
    counts = (("train", preset.train_docs), ("confirm", preset.confirm_docs))
    docs, confirm = (tasks.make(task, split, SECRET, count) for split, count in counts)
    glass, bundle, labels = ProcessGlass(), bundles.starter(), {"loop": "test"}
    try:
        made = train(
            glass, bundle, docs, task=task, seeds=Seeds(1, 1), budget=preset.budget, labels=labels, device="cuda"
        )
        assert made.fault is None, made.log.decode(errors="replace")
        weights = made.files[WEIGHTS_FILE]
        judged = judge(
            glass, bundle, weights, task, confirm, preset=preset, labels=labels, prove=True, proof_key=SECRET,
            device="cuda",
        )  # fmt: skip
    finally:
        glass.close()
    assert len(weights) > 30e6  # the larger shape that the starter has on a GPU
    verdict = judged.verdict
    assert 0.0 < verdict.score < 4.0
    assert verdict.proof is not None
    assert verdict.raw_bits == pytest.approx(made.claim.bits, abs=0.5)


@pytest.mark.gpu
def test_a_guest_without_a_gpu_finds_none() -> None:
    glass = ProcessGlass()
    try:
        guest = glass.open(spec(memory_mb=2048))
        begin(guest, "import torch; print(torch.cuda.is_available())")
        assert listen(guest).out == b"False\n"
    finally:
        glass.close()
