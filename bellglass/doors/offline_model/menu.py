"""The open menu: general edits of a small trainer, each of which fits a source or does not.

An edit is a function of the source files that returns them changed, or None when it does not apply: because what it
looks for is not there, or because it is there already. They are what a practitioner would try on any small GPT under
a short budget; tiers say how plausible they are in general, and some are expected to fail. Not written blind: the menu
was last extended with the task `source` as its measure (docs/benchmarks.md), so what it gains there says the least.

People wrote this menu. That a loop finds gains in it tests the loop; it shows nothing about recursive self-improvement.
All three built-in improvers draw from it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from bellglass.doors.offline_model import fragments
from bellglass.doors.offline_model.fragments import Passages
from bellglass.doors.offline_model.talk import Files

Apply: TypeAlias = Callable[[Files], dict[str, str] | None]

DATA, OBJECTIVE = "trainer/data.py", "trainer/objective.py"
MODEL, TRAIN = "trainer/model.py", "trainer/train.py"
RATE = r"^LEARNING_RATE(?:: float)? = ([\d.e-]+)"
DECAY = r"^WEIGHT_DECAY(?:: float)? = ([\d.e-]+)"
BATCH = r"^BATCH_SIZE[^=]*= (?:\{\"cpu\": )?(\d+)"
DROPOUT = r"^ +dropout: float = ([\d.]+)"
LAYERS, WIDTH = r"^ +layers: int = (\d+)", r"^ +width: int = (\d+)"


@dataclass(frozen=True, slots=True)
class Edit:
    name: str
    tier: int  # 0: nearly always worth it under a short budget; 1: often; 2: sometimes, or to see that it fails
    why: str
    apply: Apply


def passages(path: str, pairs: Passages, *, unless: str = "") -> Apply:
    """Each passage must stand there exactly once, or the edit does not apply; nor where `unless` stands already."""

    def apply(files: Files) -> dict[str, str] | None:
        text = files.get(path, "")
        if unless and unless in text:
            return None
        for old, new in pairs:
            if text.count(old) != 1:
                return None
            text = text.replace(old, new)
        return {**files, path: text}

    return apply


def number(path: str, pattern: str, change: Callable[[float], float], low: float, high: float) -> Apply:
    """A new value for the number in the pattern's group, unless that would change nothing or leave low..high."""

    def apply(files: Files) -> dict[str, str] | None:
        text = files.get(path, "")
        found = re.search(pattern, text, re.MULTILINE)
        if found is None:
            return None
        value = change(float(found[1]))
        if value == float(found[1]) or not low <= value <= high:
            return None
        word = str(int(value)) if found[1].isdigit() else repr(float(f"{value:.4g}"))
        return {**files, path: text[: found.start(1)] + word + text[found.end(1) :]}

    return apply


def eights(width: float) -> int:
    """Rounded down so that four heads each have a width that rotary embeddings can halve."""
    return int(width) // 8 * 8


def everywhere(path: str, old: str, new: str) -> Apply:
    def apply(files: Files) -> dict[str, str] | None:
        text = files.get(path, "")
        return {**files, path: text.replace(old, new)} if old in text else None

    return apply


MENU: tuple[Edit, ...] = (
    Edit("rate-up", 0, "short budgets want larger steps", number(TRAIN, RATE, lambda rate: rate * 2.5, 1e-5, 1e-2)),
    Edit("no-dropout", 0, "data is seen about once", number(MODEL, DROPOUT, lambda share: 0.0, 0, 1)),
    Edit(
        "warmup-decay",
        0,
        "steps should shrink towards the end",
        passages(TRAIN, (("    return LEARNING_RATE\n", f"{fragments.WARMUP_DECAY}\n"),)),
    ),
    Edit("small-batch", 0, "more steps in the same time", number(DATA, BATCH, lambda size: size // 2, 2, 512)),
    Edit("muon", 0, "orthogonal steps for matrices", passages(TRAIN, fragments.MUON, unless="class Muon")),
    Edit(
        "previous-token",
        0,
        "what follows a pair of tokens costs a look-up",
        passages(MODEL, fragments.PREVIOUS_TOKEN, unless="self.before"),
    ),
    Edit(
        "token-shift",
        0,
        "attention need not learn to look one back",
        passages(MODEL, fragments.TOKEN_SHIFT, unless="earlier ="),
    ),
    Edit(
        "token-pairs",
        0,
        "a vector for each pair of neighbours: no layer has to combine them",
        passages(MODEL, fragments.TOKEN_PAIRS, unless="self.pairs"),
    ),
    Edit("fewer-layers", 0, "more steps of a smaller model", number(MODEL, LAYERS, lambda count: count - 1, 1, 64)),
    Edit(
        "short-convolution",
        0,
        "neighbours are mixed before attention has learnt to",
        passages(MODEL, fragments.SHORT_CONVOLUTION, unless="self.local"),
    ),
    Edit(
        "token-triples",
        1,
        "the same for three in a row; many of them share a vector",
        passages(MODEL, fragments.TOKEN_TRIPLES, unless="self.triples"),
    ),
    Edit("rotary", 1, "relative places are learnt faster", passages(MODEL, fragments.ROTARY, unless="def rotate")),
    Edit("swiglu", 1, "a gate in the wide layer", passages(MODEL, fragments.SWIGLU)),
    Edit("fan-in", 1, "weights begin at the size their inputs ask for", passages(MODEL, fragments.FAN_IN)),
    Edit("qk-norm", 1, "attention that bears large steps", passages(MODEL, fragments.QK_NORM, unless="rms_norm(q")),
    Edit("relu-squared", 1, "sparse activations at the same cost", passages(MODEL, fragments.RELU_SQUARED)),
    Edit("rms-norm", 1, "cheaper norms", everywhere(MODEL, "nn.LayerNorm(", "nn.RMSNorm(")),
    Edit("tied-head", 1, "half of the vocabulary's parameters", passages(MODEL, fragments.TIED_HEAD)),
    Edit("zero-out", 1, "blocks that begin as nothing", passages(MODEL, fragments.ZERO_OUT, unless="block.mlp.down.")),
    Edit("beta-95", 1, "a shorter memory of the gradients' size", passages(TRAIN, fragments.BETAS)),
    Edit("clip", 1, "one bad batch can't undo good ones", passages(TRAIN, fragments.CLIP, unless="clip_gradients")),
    Edit("trim-padding", 1, "padding teaches nothing", passages(DATA, fragments.TRIM_PADDING, unless="self._pad")),
    Edit(
        "narrower",
        1,
        "more steps of a smaller model",
        number(MODEL, WIDTH, lambda width: eights(width * 3 / 4), 32, 4096),
    ),
    Edit(
        "wider", 2, "more learnt from each token", number(MODEL, WIDTH, lambda width: eights(width * 3 / 2), 32, 4096)
    ),
    Edit("large-batch", 2, "smoother gradients", number(DATA, BATCH, lambda size: size * 2, 4, 512)),
    Edit("rate-down", 2, "smaller steps", number(TRAIN, RATE, lambda rate: rate / 2, 1e-5, 1e-2)),
    Edit("more-decay", 2, "smaller weights", number(TRAIN, DECAY, lambda decay: decay * 10, 1e-4, 0.5)),
    Edit("epochs", 2, "no document twice before all were seen", passages(DATA, fragments.EPOCHS, unless="_queue")),
    Edit(
        "label-smoothing", 2, "less certainty", passages(OBJECTIVE, fragments.LABEL_SMOOTHING, unless="label_smoothing")
    ),
)
