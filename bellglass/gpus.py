"""Which card a device of the config is. A number is nvidia-smi's, or one of CUDA_VISIBLE_DEVICES where that is set.

Not covered: a user's own numbers under CUDA's other order ("fastest first"): Docker takes them for nvidia-smi's.
"""

from __future__ import annotations

import os
from typing import Final

from bellglass.errors import SetupError

VISIBLE: Final = "CUDA_VISIBLE_DEVICES"
ORDER: Final = "CUDA_DEVICE_ORDER"


def guest_device(device: str) -> str:
    """`cuda` of `cuda:1`: what a guest calls the one card that it sees."""
    return device.partition(":")[0]


def gpu_of(device: str) -> int | None:
    """`cpu` has none, `cuda` is the first, `cuda:1` the second."""
    kind, _, number = device.partition(":")
    return int(number or 0) if kind == "cuda" else None


def card(gpu: int) -> str:
    """What its driver calls it. SetupError where this process may not see so many."""
    if VISIBLE not in os.environ:
        return str(gpu)
    names = [name.strip() for name in os.environ[VISIBLE].split(",")]
    allowed = names[: next((at for at, name in enumerate(names) if name in ("", "-1")), len(names))]
    if gpu >= len(allowed):
        found = f"{VISIBLE}={os.environ[VISIBLE]}"
        raise SetupError(
            f"the device cuda:{gpu}",
            found,
            "a GPU of that number",
            f"unset {VISIBLE}, or another device",
            code="gpu_missing",
        )
    return allowed[gpu]


def environment(gpu: int | None) -> dict[str, str]:
    """By which a process sees that card and no other, or none at all."""
    if gpu is None:
        return {VISIBLE: ""}
    order = os.environ.get(ORDER, "" if VISIBLE in os.environ else "PCI_BUS_ID")
    return {VISIBLE: card(gpu)} | ({ORDER: order} if order else {})
