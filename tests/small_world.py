"""A whole loop in miniature, for tests: a numpy bigram trainer and a model that tunes one number of it.

Everything around them is real: guests, wire, lab, judge, gate, books. Only the trainer is small, so that a trial takes
a tenth of a second instead of ten. A loop costs some five CPU-seconds all the same: where a test only looks at one that
went well, it takes a copy of the one that conftest.py makes once (`adopted`); where it runs its own, the fixture `home`
saves measuring the noise again; where only a session matters, `session` runs no more than that.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bellglass import wiring
from bellglass.config import LoopConfig
from bellglass.config import load as load_config
from bellglass.doors.process_glass import ProcessGlass
from bellglass.loop import run_loop
from bellglass.ports import Model
from bellglass.records import Bundle, ChatReply, ChatRequest, Cost, ToolCall
from bellglass.steps import panel
from bellglass.steps.generation import Crew
from bellglass.steps.propose import Proposal, propose
from bellglass.store import bundles
from bellglass.store.ledger import Ledger
from bellglass.store.state import State, to_json
from bellglass.verify import verify

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


class Scripted(Tuner):
    """A tuner whose steps a test chooses: (tool, arguments) one after another, then silence."""

    def __init__(self, *steps: tuple[str, object]) -> None:
        self.steps = steps

    def chat(self, request: ChatRequest) -> ChatReply:
        at = sum(len(message.calls) for message in request.messages)
        cost = self.forecast(request)
        if at >= len(self.steps):
            return ChatReply("I have nothing more to do.", (), "end", cost=cost)
        return ChatReply("", (ToolCall(f"call-{at}", *self.steps[at]),), "calls", cost=cost)


def write(path: str, text: str) -> tuple[str, object]:
    return "write_file", {"path": path, "text": text}


SUBMIT = ("submit", {"note": "done"})


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


@contextmanager
def opened(
    folder: Path,
    model: Model,
    surface: wiring.Surface | None = None,
    glass: ProcessGlass | None = None,
    **overrides: object,
) -> Iterator[Crew]:
    glass = glass or ProcessGlass(warm=False, forks=True, home=folder.parent.parent / "guests")
    surface = surface or quiet()
    with wiring.open_loop(folder, surface, overrides, models={"main": model}, glass=glass) as crew:
        yield crew
    with Ledger.open(folder) as ledger:  # whatever happened to it, it was honest
        assert [finding for finding in verify(folder, ledger) if not finding.ok] == []


def run(home: Path, model: Model, **chosen: object) -> State:
    """A new loop of one generation, run to its end."""
    with opened(create(home, **{"generations": 1, **chosen}), model) as crew:
        return run_loop(crew)


def calibrate(folder: Path) -> None:
    """Leave the noise of the starter in `folder`/loops, for loops that are made there."""
    made = create(folder / "calibrated")
    with opened(made, Tuner()) as crew:
        panel.calibrate(crew.place.lab, crew.state, crew.conditions, crew.shelf, seeds=3)
    (folder / "loops").mkdir()
    (made.parent / wiring.CALIBRATIONS).rename(folder / "loops" / wiring.CALIBRATIONS)


def session(folder: Path, model: Model) -> tuple[Proposal, list[str]]:
    """A new loop's first session alone: what came of it, and the notes that its scaffold left."""
    with opened(folder, model) as crew:
        books = crew.place.books
        books.record("generation.started", generation=1, parent=books.state.starter)
        books.record("session.started", generation=1, left=to_json(books.left()))
        proposal = propose(crew.place, 1, books.state.starter, brief="Tales.", seed=1)
        return proposal, [event.body["text"] for event in books.ledger.events() if event.kind == "session.note"]
