"""A whole loop in miniature, for tests: a numpy bigram trainer and a model that tunes one number of it.

Everything around them is real: guests, wire, lab, judge, gate, books. Only the trainer is small, so that a trial takes
a tenth of a second instead of ten.
"""

from __future__ import annotations

import re
from pathlib import Path

from bellglass import wiring
from bellglass.config import LoopConfig
from bellglass.config import load as load_config
from bellglass.records import Bundle, ChatReply, ChatRequest, Cost, ToolCall
from bellglass.store import bundles

TRAINER = {
    "trainer/data.py": """
import json, os
import numpy as np


def load(folder):
    tokens = np.load(os.path.join(folder, "tokens.npy"))
    meta = json.load(open(os.path.join(folder, "meta.json")))
    return tokens.astype(np.int64), meta
""",
    "trainer/objective.py": "SMOOTHING = 100000.0\n",
    "trainer/model.py": """
import os
import numpy as np
from safetensors.numpy import load_file


def load(folder):
    table = load_file(os.path.join(folder, "weights.safetensors"))["table"]

    def predict(tokens):
        return table[tokens]

    return predict
""",
    "trainer/train.py": """
import numpy as np
import glass
from safetensors.numpy import save_file
from data import load
from objective import SMOOTHING

tokens, meta = load(glass.data())
rng = np.random.default_rng([glass.args["data_seed"], glass.args["init_seed"]])
counts = rng.random((meta["vocab"], meta["vocab"])) + SMOOTHING
while glass.time_left()[0] > 0:
    batch = tokens[rng.integers(0, len(tokens), 40)]
    np.add.at(counts, (batch[:, :-1].ravel(), batch[:, 1:].ravel()), 1.0)
table = np.log(counts / counts.sum(1, keepdims=True)).astype(np.float32)
held = tokens[:40]
real = held[:, 1:] != 0
bits = -table[held[:, :-1], held[:, 1:]][real].mean() / np.log(2)
glass.metric("claim_bits", float(bits))
save_file({"table": table}, "out/weights.safetensors")
""",
}


def starter() -> Bundle:
    scaffold = {path: data for path, data in bundles.starter().items() if path.startswith("scaffold/")}
    return {**scaffold, **{path: text.encode() for path, text in TRAINER.items()}}


class Tuner:
    """Divides SMOOTHING by ten, tries it, leaves a mark in the scaffold and submits. A function of the conversation."""

    name = "tuner"
    hosted = False

    def forecast(self, request: ChatRequest) -> Cost:
        return Cost(calls=1, tokens_in=100, tokens_out=10, usd=0.01)

    def chat(self, request: ChatRequest) -> ChatReply:
        said = [call for message in request.messages for call in message.calls]
        results = [message.text for message in request.messages if message.role == "tool"]
        opening = "".join(message.text for message in request.messages)
        generation = int(re.search(r"generation:? (\d+)", opening, re.I).group(1))
        steps = [
            ("read_file", {"path": "trainer/objective.py"}),
            ("replace", self._edit(results)),
            ("trial", {"note": "less smoothing"}),
            ("write_file", {"path": "scaffold/marks.md", "text": f"generation {generation} was here\n"}),
            ("submit", {"note": f"less smoothing in generation {generation}"}),
        ]
        name, args = steps[len(said)]
        call = ToolCall(f"call-{len(said)}", name, args)
        return ChatReply("", (call,), "calls", cost=Cost(calls=1, tokens_in=50, tokens_out=5, usd=0.001))

    def _edit(self, results: list[str]) -> dict[str, str]:
        found = re.search(r"SMOOTHING = ([0-9.]+)", results[0]) if results else None
        old = found.group(1) if found else "0"
        return {"path": "trainer/objective.py", "old": f"SMOOTHING = {old}", "new": f"SMOOTHING = {float(old) / 10}"}


def config(**chosen: object) -> LoopConfig:
    base = {
        "task": "stories",
        "preset": "tiny",
        "virtual_clock": True,
        "generations": 2,
        "max_pairs": 3,
        "panel": 2,
        "alpha": 0.4,
        "glass": "process",
        "seed": 7,
        "review": "never",
    }
    return load_config(None, {**base, **chosen})


def create(home: Path, improve: str | None = None, **chosen: object) -> Path:
    """A new loop. `improve` replaces the whole scaffold by this one program."""
    home.mkdir(parents=True, exist_ok=True)
    bundle = starter()
    if improve is not None:
        bundle = {path: data for path, data in bundle.items() if not path.startswith("scaffold/")}
        bundle["scaffold/improve.py"] = improve.encode()
    return wiring.create(config(**chosen), home, bundle)


def quiet() -> wiring.Surface:
    return wiring.Surface(None, lambda trial, phase: None, None, lambda: None)
