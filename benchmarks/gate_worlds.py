"""Simulated scores for the gate: what could be wrong with two bundles' scores, and a loop played on them.

Scores are in units of the parent's noise. Under seed k a bundle scores sqrt(rho) common_k + sqrt(1 - rho) own_k: rho is
how much of a score's variance two trainings under the same seeds share. Below 0, |rho| is, and the child has -common_k.
Decisions are made by `gate.decide` itself.

Not covered: proposals that are chosen for their luck on `confirm`; loops never show it to an improver.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bellglass.config import LoopConfig
from bellglass.holds import noise_explains
from bellglass.records import Noise
from bellglass.stats import incomplete_beta
from bellglass.steps import gate
from bellglass.variance import pooled

Array = np.ndarray
Law = Callable[[np.random.Generator, tuple[int, ...]], Array]  # draws of mean 0 and variance 1

DEFAULTS = LoopConfig()
ALPHA, MAX_PAIRS, SEEDS = DEFAULTS.alpha, DEFAULTS.max_pairs, DEFAULTS.panel
GENERATIONS = 6
LEAST_AGAIN = 3  # new seeds, which `recheck --seeds` asks for at least


def normal(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return rng.standard_normal(shape)


def student3(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return rng.standard_t(3, shape) / 3**0.5


def contaminated(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """One score in ten comes from a normal five times as wide."""
    return rng.standard_normal(shape) * np.where(rng.random(shape) < 0.1, 5.0, 1.0) / (0.9 + 0.1 * 25.0) ** 0.5


def skewed_up(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Now and then much worse than usual: an exponential tail."""
    return rng.standard_exponential(shape) - 1.0


def skewed_down(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return -skewed_up(rng, shape)


def collapsing(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """One training in twenty ends far worse; the others are better by as much in sum."""
    worse = rng.random(shape) < 0.05
    return 0.5 * rng.standard_normal(shape) + (0.75 / 0.0475) ** 0.5 * (worse - 0.05)


@dataclass(frozen=True, slots=True)
class World:
    """What parent and child have in common and what not. The defaults are what the gate's derivation assumes."""

    rho: float = 0.0
    rho_later: float | None = None  # from generation 2 on
    child_sd: float = 1.0
    law: Law = normal
    child_law: Law | None = None  # the child's own part, where it is another one
    seeds: int = SEEDS  # of the calibration
    growth: float = 1.0  # the noise of parent and child over the calibrated one
    documents: float = 0.0  # standard deviation of what a pair's documents add to the child alone
    same_documents: bool = False  # for all pairs of a generation, which the gate avoids
    drift: float = 0.0  # what scores fall by, evenly, over the whole loop
    cached: bool = False  # the parent is trained once, at the start, and its scores serve every generation
    better: float = 0.0  # the gain of the first, third, fifth child
    panels: bool = True  # once that is adopted, its panel joins the noise


def draw(world: World, rng: np.random.Generator, shape: tuple[int, int, int], gain: float = 0.0) -> tuple[Array, Array]:
    """Scores of parent and child over (loops, generations, pairs)."""
    _, generations, pairs = shape
    rho = np.full((1, generations, 1), world.rho)
    if world.rho_later is not None:
        rho[:, 1:] = world.rho_later
    sign, rho = np.sign(rho), abs(rho)
    common, parent, child = (law(rng, shape) for law in (world.law, world.law, world.child_law or world.law))
    if world.cached:
        common, parent = np.repeat(common[:, :1], generations, 1), np.repeat(parent[:, :1], generations, 1)
    parent = world.growth * (rho**0.5 * common + (1.0 - rho) ** 0.5 * parent)
    child = world.growth * world.child_sd * (sign * rho**0.5 * common + (1.0 - rho) ** 0.5 * child)
    time = (np.arange(generations)[:, None] + np.arange(pairs) / pairs) / generations  # 0 to 1 over the loop
    lag = np.where(np.arange(pairs) % 2, -0.5, 0.5) / (generations * pairs)  # on a single core they take turns
    parent = parent - (0.0 if world.cached else world.drift * time)
    luck = rng.standard_normal((shape[0], generations, 1 if world.same_documents else pairs))
    child = child - world.drift * (time + lag) + world.documents * luck
    return parent, child - gain


def calibrated(world: World, rng: np.random.Generator, loops: int) -> list[Noise]:
    spread = world.law(rng, (loops, world.seeds)).std(axis=1, ddof=1)
    return [Noise(float(sd), world.seeds - 1) for sd in spread]


class Decided(NamedTuple):
    word: str
    pairs: int
    gain: float  # as shown


def play(pairs: list[tuple[float, float]], rules: gate.Rules) -> Decided:
    """The decision on pairs that come one after the other."""
    for n in range(1, len(pairs) + 1):
        found = gate.decide(pairs[:n], rules)
        if found.decision != "more":
            assert found.gain is not None, found.why
            return Decided(found.decision, n, found.gain.mean)
    raise AssertionError(f"the gate asked for more than {len(pairs)} pairs")


def decisions(
    world: World,
    rng: np.random.Generator,
    count: int,
    *,
    generation: int = 1,
    gain: float | Callable[[gate.Rules], float] = 0.0,
    max_pairs: int = MAX_PAIRS,
    seeks_equality: bool = False,
) -> list[Decided]:
    """That many decisions of one generation, each in a loop of its own."""
    parents, children = draw(world, rng, (count, 1, max_pairs))
    made = []
    for parent, child, noise in zip(parents[:, 0], children[:, 0], calibrated(world, rng, count), strict=True):
        rules = gate.Rules(gate.spend(ALPHA, generation), noise, max_pairs, seeks_equality)
        better = child - (gain(rules) if callable(gain) else gain)
        made.append(play(list(zip(parent.tolist(), better.tolist(), strict=True)), rules))
    return made


def rechecks(world: World, rng: np.random.Generator, count: int, gain: float) -> list[tuple[str, bool]]:
    """Decisions of generation 1, and whether `recheck --seeds` with as many new pairs bears them out."""
    parents, children = draw(world, rng, (count, 1, 2 * MAX_PAIRS), gain)
    made = []
    for parent, child, noise in zip(parents[:, 0], children[:, 0], calibrated(world, rng, count), strict=True):
        pairs = list(zip(parent.tolist(), child.tolist(), strict=True))
        decided = play(pairs[:MAX_PAIRS], gate.Rules(gate.spend(ALPHA, 1), noise, MAX_PAIRS))
        again = pairs[MAX_PAIRS : MAX_PAIRS + max(LEAST_AGAIN, decided.pairs)]
        apart = abs(float(np.mean([parent - child for parent, child in again])) - decided.gain)
        made.append((decided.word, apart <= noise_explains(again, decided.pairs, noise)))
    return made


def loops(
    world: World, rng: np.random.Generator, count: int, generations: int = GENERATIONS
) -> Iterator[list[Decided]]:
    """The decisions on children that are no better; a loop ends with its first (false) adoption.

    Those that are better (`world.better`) are played for what they leave behind, and not in what comes back.
    """
    parents, children = draw(world, rng, (count, generations, MAX_PAIRS))
    noises = calibrated(world, rng, count)
    gains = [world.better if number % 2 else 0.0 for number in range(1, generations + 1)]
    children = children - np.array(gains)[:, None]
    for parent, child, noise in zip(parents.tolist(), children.tolist(), noises, strict=True):
        made: list[Decided] = []
        panels = [noise]
        for number, (gain, *pair) in enumerate(zip(gains, parent, child, strict=True), 1):
            rules = gate.Rules(gate.spend(ALPHA, number), pooled(panels), MAX_PAIRS)
            decided = play(list(zip(*pair, strict=True)), rules)
            if gain and decided.word == "adopt" and world.panels:
                panels += calibrated(world, rng, 1)
            elif not gain:
                made.append(decided)
                if decided.word == "adopt":
                    break
        yield made


def share_interval(hits: int, of: int, confidence: float = 0.95) -> tuple[float, float]:
    """Clopper and Pearson's interval of a share: exact tails, so never too narrow."""
    tail = 0.5 * (1.0 - confidence)
    low = _beta_quantile(tail, hits, of - hits + 1) if hits else 0.0
    high = _beta_quantile(1.0 - tail, hits + 1, of - hits) if hits < of else 1.0
    return low, high


def _beta_quantile(p: float, a: float, b: float) -> float:
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if incomplete_beta(a, b, middle) < p else (low, middle)
    return 0.5 * (low + high)
