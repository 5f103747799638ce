"""How often the gate is wrong, what it sees, and what it costs, by simulation: section `gate-simulation` of the page.

    python benchmarks/gate_simulation.py [--quick]

About eight minutes of one core. Every row draws from a generator seeded with its own name, so a row does not change
when another one is added. `--quick` does a fortieth of the work and prints instead of writing.

Not covered: whether real trainings score like these. benchmarks/gate.py plants nulls and gains in real ones.
"""

from __future__ import annotations

import argparse
import sys
import zlib
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import gate_worlds as worlds  # noqa: E402
import page  # noqa: E402
from gate_worlds import MAX_PAIRS, SEEDS, World  # noqa: E402

from bellglass.records import Noise  # noqa: E402
from bellglass.stats import t_quantile  # noqa: E402
from bellglass.steps import gate  # noqa: E402

LOOPS, DECISIONS, NULL_DECISIONS, FIXED_DRAWS = 10_000, 4_000, 20_000, 200_000
RHOS = (0.0, 0.25, 0.63, 0.86)
GAINS = (0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0)
DIFFERENCES = (0.0, 0.5, 1.0, 1.5)
SHOWN_GAINS = (0.5, 1.0, 2.0, 4.0)
TOLD_SEEDS = (2, 3, 4, 8)
POWER = 0.8
GOALS = {0.25: 1.7, 0.63: 3.9}  # times fewer trainings, by pairing

Row = tuple[str, World, int]  # what it shows, the scores, generations

HOLDS: list[Row] = [
    *((f"pairing {rho:g}", World(rho=rho), 6) for rho in (*RHOS, 0.95)),
    ("pairing .63, none after generation 1", World(rho=0.63, rho_later=0.0), 6),
    ("child of twice the variance", World(child_sd=2**0.5), 6),
    ("child of twice the variance, pairing .63", World(rho=0.63, child_sd=2**0.5), 6),
    ("heavy tails: t with 3 degrees of freedom", World(law=worlds.student3), 6),
    ("heavy tails: one score in ten five times as wide", World(law=worlds.contaminated), 6),
    ("child skewed: now and then much worse", World(child_law=worlds.skewed_up), 6),
    ("child skewed: now and then much better", World(child_law=worlds.skewed_down), 6),
    ("one training of the child in twenty collapses", World(child_law=worlds.collapsing), 6),
    *((f"calibrated on {seeds} seeds", World(seeds=seeds), 6) for seeds in (2, 3, 8)),
    ("2 seeds, child of twice the variance, t with 3", World(seeds=2, child_sd=2**0.5, law=worlds.student3), 6),
    ("machine drifts by half a noise unit", World(drift=0.5), 6),
    ("machine drifts by half a noise unit, pairing .86", World(rho=0.86, drift=0.5), 6),
    ("documents favour the child: sd of half the noise", World(documents=0.5), 6),
    ("documents favour the child: sd of half the noise, pairing .86", World(rho=0.86, documents=0.5), 6),
    ("bound raised from 6 to 12 generations", World(), 12),
    ("every second child better by 1.5, its panel joins the noise", World(better=1.5), 12),
    ("the same, and its panel does not", World(better=1.5, panels=False), 12),
]
SHARED = World(documents=0.5, same_documents=True)
FAILS: list[Row] = [
    ("child of 4 times the variance", World(child_sd=2.0), 6),
    ("child of 25 times the variance", World(child_sd=5.0), 6),
    ("noise of both doubles after the calibration", World(growth=2.0), 6),
    ("noise of both triples after the calibration", World(growth=3.0), 6),
    ("shared seeds pull apart: correlation -.5", World(rho=-0.5), 6),
    ("the same documents in all pairs favour the child: sd of half the noise", SHARED, 6),
    ("the same documents in all pairs, pairing .86", replace(SHARED, rho=0.86), 6),
]
CACHED: list[Row] = [
    (f"drift {drift:g}, pairing {rho:g}, {how}", World(rho=rho, drift=drift, cached=how == "cached"), 6)
    for drift in (0.5, 2.0)
    for rho in (0.0, 0.86)
    for how in ("interleaved", "cached")
]
EQUALITY: list[tuple[str, World]] = [
    *((f"pairing {rho:g}", World(rho=rho)) for rho in (*RHOS, 0.95)),
    *(
        (f"pairing {rho:g}, calibrated on {seeds}", World(rho=rho, seeds=seeds))
        for rho in (0.63, 0.95, 0.99)
        for seeds in (2, 3)
    ),
]


class Study:
    """The tables, each from draws of its own."""

    def __init__(self, quick: bool) -> None:
        self._share = 40 if quick else 1

    def count(self, of: int) -> int:
        return of // self._share

    def nulls(self, rows: list[Row]) -> str:
        return page.table(
            ["scores", "loops with a false adoption (95%)", "pairs per decision"], [self.null(row) for row in rows]
        )

    def null(self, row: Row) -> list[str]:
        name, world, generations = row
        count = self.count(LOOPS)
        made = list(worlds.loops(world, _rng(name), count, generations))
        wrong = sum(loop[-1].word == "adopt" for loop in made)
        low, high = worlds.share_interval(wrong, count)
        pairs = [decided.pairs for loop in made for decided in loop]
        return [name, f"{wrong / count:.2%} [{low:.2%}, {high:.2%}]", f"{np.mean(pairs):.1f}"]

    def power(self) -> str:
        rows = []
        for generation in (1, 3):
            for rho in RHOS:
                found = [self._decide(World(rho=rho), gain, generation=generation) for gain in GAINS]
                rows.append([f"{generation}", f"{rho:g}", *(f"{share:.0%} · {pairs:.1f}" for share, pairs in found)])
        return page.table(["generation", "pairing", *(f"{gain:g}" for gain in GAINS)], rows)

    def equality(self) -> str:
        rows = []
        for text, world in EQUALITY:
            found = [
                self._decide(world, -gain, word="equal", count=NULL_DECISIONS, seeks_equality=True)
                for gain in DIFFERENCES
            ]
            better, _ = self._decide(world, 1.0, word="equal", count=NULL_DECISIONS, seeks_equality=True)
            rows.append([text, *(f"{share:.1%} · {pairs:.1f}" for share, pairs in found), f"{better:.1%}"])
        head = [f"worse by {gain:g}" if gain else "no difference" for gain in DIFFERENCES]
        return page.table(["scores", *head, "better by 1"], rows)

    def told(self) -> str:
        rows = []
        for seeds in TOLD_SEEDS:
            true = gate.smallest_gain(gate.Rules(gate.spend(worlds.ALPHA, 1), Noise(1.0, seeds - 1), MAX_PAIRS))
            found = [
                self._decide(World(seeds=seeds), gain, name=f"told {seeds}", count=NULL_DECISIONS)[0]
                for gain in (gate.smallest_gain, true)
            ]
            rows.append([f"{seeds}", *(f"{share:.0%}" for share in found), f"{true:.2f}"])
        return page.table(["seeds", "at the gain told", "at that of the true noise", "which is"], rows)

    def rechecked(self) -> str:
        rows = []
        for rho in RHOS:
            cells = []
            for gain in (0.0, *SHOWN_GAINS):
                made = worlds.rechecks(World(rho=rho), _rng(f"recheck {rho} {gain}"), self.count(NULL_DECISIONS), gain)
                adopted = [held for word, held in made if word == "adopt"]
                cells.append(f"{_failing(adopted) if gain else '–'} · {_failing([held for _, held in made])}")
            rows.append([f"{rho:g}", *cells])
        return page.table(["pairing", "0", *(f"{gain:g}" for gain in SHOWN_GAINS)], rows)

    def shown(self) -> str:
        rows = []
        for rho in RHOS:
            cells = []
            for gain in SHOWN_GAINS:
                made = worlds.decisions(
                    World(rho=rho), _rng(f"shown {rho} {gain}"), self.count(NULL_DECISIONS), gain=gain
                )
                cells.append(f"{np.mean([decided.gain for decided in made if decided.word == 'adopt']):.2f}")
            rows.append([f"{rho:g}", *cells])
        return page.table(["pairing", *(f"{gain:g}" for gain in SHOWN_GAINS)], rows)

    def cost(self) -> str:
        rows = [[f"{rho:g}", *self._default_cost(rho)] for rho in RHOS]
        rows += [[f"{rho:g}", *self._tuned_cost(rho, 1.0)] for rho in RHOS]
        head = ["pairing", "gain", "most pairs", "power", "gate: gain / no gain", "t test, 2.5%", "times fewer"]
        table = page.table([*head, "false adoptions", "t test, at these", "times fewer"], rows)
        return f"{table}\n\nTimes fewer, half and half: {'; '.join(_reached(rows, rho) for rho in GOALS)}."

    def _default_cost(self, rho: float) -> list[str]:
        """The gain that the gate as it is sees with the power asked for."""
        gain = _least(lambda gain: self._decide(World(rho=rho), gain, name="gain")[0] >= POWER, 0.25, 6.0, 0.01)
        return self._compare(rho, gain, MAX_PAIRS)

    def _tuned_cost(self, rho: float, gain: float) -> list[str]:
        """As many pairs at most as it takes to see this gain with the power asked for."""

        def enough(pairs: float) -> bool:
            return self._decide(World(rho=rho), gain, name="pairs", max_pairs=round(pairs))[0] >= POWER

        return self._compare(rho, gain, round(_least(enough, 2.0, 66.0, 1.0)))

    def _compare(self, rho: float, gain: float, max_pairs: int) -> list[str]:
        """Trainings of the gate and of a t test on unpaired trainings, of as many as give the gate's power."""
        power, pairs = self._decide(World(rho=rho), gain, count=NULL_DECISIONS, max_pairs=max_pairs)
        wrong, idle = self._decide(World(rho=rho), 0.0, count=NULL_DECISIONS, max_pairs=max_pairs)
        shared = SEEDS / worlds.GENERATIONS  # the calibration's trainings, over the decisions of a loop
        gates = (2.0 * pairs + shared, 2.0 * idle + shared)
        cells = [f"{gain:.2f}", str(max_pairs), f"{power:.0%}", f"{gates[0]:.1f} / {gates[1]:.1f}"]
        for error in (gate.spend(worlds.ALPHA, 1), max(wrong, 1.0 / NULL_DECISIONS)):
            fixed = 2.0 * fixed_n(gain, error, power, self.count(FIXED_DRAWS))
            ratios = [fixed / gates[0], fixed / gates[1], 2.0 * fixed / sum(gates)]
            cells += [f"{fixed:.1f}", " / ".join(f"{ratio:.1f}" for ratio in ratios)]
        return [*cells[:6], f"{wrong:.2%}", *cells[6:]]

    def _decide(
        self,
        world: World,
        gain: float | Callable[[gate.Rules], float],
        *,
        word: str = "adopt",
        count: int = DECISIONS,
        name: str = "",
        generation: int = 1,
        max_pairs: int = MAX_PAIRS,
        seeks_equality: bool = False,
    ) -> tuple[float, float]:
        """How often the gate says the word, and after how many pairs it says any. Same `name`: the same draws."""
        rng = _rng(name or f"{_fields(world)} {gain} {generation} {max_pairs}")
        made = worlds.decisions(
            world,
            rng,
            self.count(count),
            generation=generation,
            gain=gain,
            max_pairs=max_pairs,
            seeks_equality=seeks_equality,
        )
        said = sum(decided.word == word for decided in made)
        return said / len(made), float(np.mean([decided.pairs for decided in made]))


def _failing(held: list[bool]) -> str:
    return f"{held.count(False) / len(held):.1%}" if held else "–"


def _reached(rows: list[list[str]], rho: float) -> str:
    at, made = ([float(row[cell].split(" / ")[2]) for row in rows if row[0] == f"{rho:g}"] for cell in (6, 9))
    promised, made_error = (f"{min(found)} to {max(found)}" for found in (at, made))
    return (
        f"goal {GOALS[rho]} at pairing {rho:g}, found {promised} at the error promised, {made_error} at the error made"
    )


def fixed_n(gain: float, error: float, power: float, draws: int) -> float:
    """Trainings of each side that an unpaired t test of this error takes; between whole numbers, interpolated."""
    n, before = 2, 0.0
    while (now := _fixed_power(n, gain, error, draws)) < power:
        n, before = n + 1, now
    return n if n == 2 else n - 1 + (power - before) / (now - before)


def _fixed_power(n: int, gain: float, error: float, draws: int) -> float:
    rng, df = np.random.default_rng(0), 2 * n - 2
    t = (gain + (2.0 / n) ** 0.5 * rng.standard_normal(draws)) / (2.0 / n * rng.chisquare(df, draws) / df) ** 0.5
    return float(np.mean(t > t_quantile(1.0 - error, df)))


def _least(holds: Callable[[float], bool], low: float, high: float, step: float) -> float:
    """The least value that holds, to a step, when all larger ones do and `high` does."""
    while high - low > step:
        middle = 0.5 * (low + high)
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def _fields(world: World) -> str:
    """What is not usual about it. Without the addresses that functions print with: they differ from run to run."""
    usual = World()
    said = {each.name: getattr(world, each.name) for each in fields(World)}
    unusual = {name: value for name, value in said.items() if value != getattr(usual, name)}
    return " ".join(f"{name} {getattr(value, '__name__', value)}" for name, value in unusual.items())


def _rng(name: str) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(name.encode()))


def _told(study: Study, decisions: int) -> str:
    return f"""### The smallest gain that a loop is told

A loop is told the gain that generation 1 sees four times in five where the noise is just as calibrated. Share adopted
at the gain that each loop was told, over calibrations, and at the one that the true noise would have told;
{decisions:,} decisions a cell. What the latter lack of 80% is given up early: a child whose first pairs leave no hope
gets no more.

{study.told()}

### `recheck --seeds` of an honest ledger

Verdicts that as many new pairs (at least {worlds.LEAST_AGAIN}) don't bear out: of those that adopted · of all, for real
gains of so many noise units. Of all it is 5.5% or less; of adoptions for a gain too small to be seen often it is more,
because what was adopted was lucky.

{study.rechecked()}"""


def section(quick: bool) -> str:
    study = Study(quick)
    decisions = study.count(NULL_DECISIONS)
    calibration = f"{SEEDS} seeds to calibrate, at most {MAX_PAIRS} pairs, an error of {worlds.ALPHA:.0%} per loop"
    return f"""Command: `python benchmarks/gate_simulation.py`. Simulated scores, decided on by the gate itself;
[statistics.md](statistics.md) explains it. Unless a row says otherwise: {calibration}, 6 generations, normal scores, no
pairing (0 is the worst case). Gains and differences are in units of the noise of one training.

### No real gain: loops that adopt anyway

{study.count(LOOPS):,} loops a row. The upper end must stay below 5%. Where every second child is better,
only the six others of twelve can be adopted falsely: generations 2, 4, …, whose shares of the error are small.

{study.nulls(HOLDS)}

### Beyond what the gate assumes

It promises nothing here; this is what happens.

{study.nulls(FAILS)}

Machine speed again: both sides trained at the same time, as the gate has it, against the parent's scores cached from
the start of the loop. Scores drift by half a noise unit over the whole loop, or by two.

{study.nulls(CACHED)}

### What it sees

Share adopted · pairs per decision, for real gains of so many noise units; {study.count(DECISIONS):,} decisions a cell.

{study.power()}

### What it then shows

Mean gain over the pairs that adopted, for such real gains: lucky by being chosen, and least so where the power is high.

{study.shown()}

{_told(study, decisions)}

### "Equal", where it is sought

Share called equal · pairs per decision; {decisions:,} decisions a cell. From a difference of 1 on
"equal" is wrong, and must stay below 5%. A noise that was calibrated on 2 seeds never tells it.

{study.equality()}

### Trainings per decision

Against a t test on a fixed number of unpaired trainings, parent's and child's, that has the gate's power at the gain
named. The gate's trainings are parent's, child's and its share of the calibration. First the gate as it is and the gain
that it sees with a power of {POWER:.0%}; then a gain of 1 and as many pairs at most as that takes. "Times fewer": when
each child has the gain / when none has / half and half. In generation 1 the gate promises an error of 2.5% and makes
less, for its prior is that pairing does not help; the last columns give the t test that smaller error.

{study.cost()}"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a fortieth of the work; prints")
    quick = parser.parse_args().quick
    text = section(quick)
    if quick:
        print(text)
    else:
        page.put(page.BENCHMARKS, "gate-simulation", text)


if __name__ == "__main__":
    main()
