"""Shared by the tests of the judge: a rule with rare exceptions, models that are honest or cheat, and a judgement."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from bellglass.ports import Glass
from bellglass.records import Budget
from bellglass.steps.judge import Judgement, judge
from bellglass.tasks import Documents, Preset, Task

VOCAB = 16
RARE = VOCAB - 1  # one token in a thousand; an honest model pays about ten bits for it
RULE = 0.8
KEY = b"k" * 32

# What every model below starts from: `honest(tokens)` gives the log probabilities of the rule that made the data.
COMMON = f"""
import os, numpy as np
np.random.seed(1)  # what is left to chance comes out alike in every run
V, RARE, RULE = {VOCAB}, {RARE}, {RULE}
P = np.full((V, V), (1 - RULE - 0.001) / (V - 2))
P[:, RARE] = 0.001
for x in range(V):
    P[x, (5 * x + 1) % (V - 1)] += RULE
P[:, 0] = 1e-4
LOG = np.log(P).astype(np.float32)
def honest(tokens):
    return LOG[tokens].copy()
def tell(out, rows, cols, answers, logit=12.0):
    out[rows, cols, answers] = logit
def load(folder):
    assert os.path.exists(os.path.join(folder, "weights.safetensors"))
    return predict
"""
HONEST = "def predict(tokens): return honest(tokens)"
CONSTANT = "def predict(tokens): return np.full((*tokens.shape, V), 7, 'f4')"
PEEKING = """
def predict(tokens):
    out = honest(tokens)
    b, t = np.indices(tokens[:, 1:].shape)
    tell(out, b, t, tokens[:, 1:])
    return out
"""
REMEMBERING = """
seen = []
def predict(tokens):
    out = honest(tokens)
    for row in range(len(tokens)):
        for old in seen + list(tokens):
            if len(old) != tokens.shape[1]: continue
            same = np.cumprod(old == tokens[row])
            for j in np.flatnonzero(same[:-1])[3:]:
                tell(out, row, j, old[j + 1])
    seen.extend(tokens)
    return out
"""
CAUTIOUS = (
    PEEKING.replace("def predict", "def greedy")
    + """
def predict(tokens):
    return greedy(tokens) if tokens.shape[1] >= 32 else honest(tokens)
"""
)
SPARSE = """
def predict(tokens):
    out = honest(tokens)
    rows, cols = np.nonzero(tokens[:, 1:] == RARE)
    tell(out, rows, cols, RARE)
    return out
"""


def task(separable: bool = False, context: int = 64) -> Task:
    return Task(
        name="rule",
        title="a rule with exceptions",
        unit="bits",
        vocab=VOCAB,
        context=context,
        separable=separable,
        targets="last" if separable else "all",
        floor="exact",
        skills=("rule", "exception"),
        confirm_slices=1,
        downloads=(),
        presets={},
        measured={},
        folder=Path(),
    )


def preset(seconds: float = 10.0) -> Preset:
    return Preset("tiny", Budget("steps", 1, 10.0), 1, 1, 1, 1, 1, 1.0, seconds)


def documents(count: int = 48, context: int = 64, seed: int = 1) -> Documents:
    rng = np.random.default_rng(seed)
    tokens = np.empty((count, context + 1), dtype=np.uint16)
    tokens[:, 0] = rng.integers(1, RARE, count)
    for j in range(1, context + 1):
        rule = (5 * tokens[:, j - 1].astype(np.int64) + 1) % (VOCAB - 1)
        free = rng.integers(1, RARE, count)
        tokens[:, j] = np.where(rng.random(count) < RULE, rule, free)
        tokens[rng.random(count) < 0.001, j] = RARE
    target = np.broadcast_to(np.arange(context + 1) > 0, tokens.shape)
    skill = np.zeros(tokens.shape, dtype=np.uint8)
    skill[:, 1:] = (5 * tokens[:, :-1].astype(np.int64) + 1) % (VOCAB - 1) != tokens[:, 1:]
    return Documents(tokens, target, skill, np.zeros(tokens.shape, dtype=np.float32))


def judged(
    glass: Glass,
    model: str,
    docs: Documents | None = None,
    *,
    prove: bool = True,
    seconds: float = 10.0,
    separable: bool = False,
    select: Documents | None = None,
    budget: Budget | None = None,
) -> Judgement:
    docs = documents() if docs is None else docs
    bundle = {"trainer/model.py": (COMMON + model).encode(), "scaffold/improve.py": b"never sent"}
    return judge(
        glass,
        bundle,
        b"weights",
        task(separable, docs.tokens.shape[1] - 1),
        docs,
        preset=preset(seconds) if budget is None else replace(preset(seconds), budget=budget),
        labels={"loop": "test"},
        prove=prove,
        proof_key=KEY,
        select=select,
    )
