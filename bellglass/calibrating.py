"""`bellglass calibrate`: a loop folder whose only work is a calibration, with the ledger, glass and lab of any loop.

Such folders lie beside the stored calibrations, one level below the loops, so that nothing takes them for loops. One
that was interrupted is found again, by what it was to measure and what it is made from, and gone on with.

Not covered: a machine whose speed changes while it is measured; conditions are noted as it begins.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from bellglass import paths, tasks
from bellglass.calibration import Calibration, Conditions, from_json, out_of_reach
from bellglass.config import LoopConfig
from bellglass.errors import BellglassError, BoundReached, Interrupted, LoopFault
from bellglass.nulls import EQUAL_SPREAD, Null
from bellglass.records import Json, Noise
from bellglass.steps import gate, grid, panel
from bellglass.steps.generation import Crew
from bellglass.store.ledger import Ledger
from bellglass.store.state import State, fold
from bellglass.variance import as_different
from bellglass.wiring import CALIBRATIONS, create, side_by_side

OUTSIDE_TRAINING = 1.0  # seconds of a trial, judging included
CHANCE = 0.01  # noises further apart than this makes likely are called different


def folder_for(config: LoopConfig, seeds: int, home: Path) -> Path:
    """The interrupted calibration that wanted the same from the same files, else a new one."""
    wanted = (seeds, config.model_dump(mode="json"), tasks.contents(tasks.load(config.task)))
    for folder in paths.list_loops(home / CALIBRATIONS):
        state = _own(folder)
        if state is None or state.created is None:
            continue
        found = (state.created.get("calibrates"), state.created["config"], state.created["content"])
        if found == wanted and (state.ended is None or state.ended["why"] == "stopped"):
            return folder
    return create(config, home / CALIBRATIONS, calibrates=seeds)


def _own(folder: Path) -> State | None:
    """None: it came from elsewhere, or can't be read."""
    try:
        with Ledger.open(folder) as ledger:
            return fold(ledger.events()) if ledger.standing().made_here else None
    except LoopFault:
        return None


def forecast_line(config: LoopConfig, seeds: int) -> str:
    """What a calibration is about to use."""
    budget = config.preset_of(tasks.load(config.task)).budget
    number, together = grid.trainings(seeds, EQUAL_SPREAD), side_by_side(config)
    lasts = number * (budget.amount + OUTSIDE_TRAINING) / together
    said = f"about {lasts / 60:.0f} min" if lasts >= 90 else f"about {lasts:.0f} s"
    said = said if budget.kind != "steps" else "in virtual time"
    return (
        f"trainings  {number}: the starter on {seeds} x {seeds} seeds, "
        f"{len(EQUAL_SPREAD)} null edits on {seeds} of them; {said}, {together} side by side"
    )


def run(crew: Crew, edits: Sequence[Null] = EQUAL_SPREAD) -> Json:
    """The body of `loop.calibrated`; stored on the shelf. What was measured before an interruption is kept."""
    books = crew.place.books
    if books.state.calibration is None:
        seeds = books.state.created["calibrates"]
        try:
            crew.place.check()
            found = grid.measure(
                crew.place.lab, crew.place.lineage, books.state, crew.conditions, seeds=seeds, edits=edits
            )
        except BellglassError as error:
            books.tick_quietly()
            again = isinstance(error, Interrupted | BoundReached)
            why, detail = "stopped" if again else "failed", error.found or error.thing
            books.record("loop.ended", why=why, code=error.code, detail=detail)
            raise
        books.record("loop.calibrated", **_event(crew, found))
    crew.shelf.keep(from_json(books.state.calibration))
    if books.state.ended is None:
        books.tick_quietly()
        books.record("loop.ended", why="finished", detail="calibrated", secret=crew.place.lab.bench.secret.hex())
    return books.state.calibration


def _event(crew: Crew, found: Calibration) -> Json:
    rules = gate.Rules(gate.spend(crew.config.alpha, 1), found.noise, crew.config.max_pairs)
    smallest = gate.smallest_gain(rules)
    parts = {
        **found.parts,
        "max_pairs": rules.max_pairs,
        "pairs_no_better": grid.pairs_taken(rules, 0.0),
        "pairs_smallest_gain": grid.pairs_taken(rules, smallest),
        "pair_seconds": grid.pair_seconds(found),
    }
    body = replace(found, parts=parts).as_json()
    gains = {"smallest_gain": smallest, "most_gain": panel.most_gain(crew.place.lab, found.scores)}
    return {**body, "measured": True, "why": "asked for", **gains, "before": _before(crew, found)}


def _before(crew: Crew, found: Calibration) -> str:
    """What was stored for this task, and how it differs; "" when nothing was."""
    stored, why = crew.shelf.find(crew.conditions)
    if stored is None:
        return "" if why == "none is stored" else f"{why}: replaced"
    was = f"noise {stored.noise.sd:.4f} over {stored.noise.df} degrees of freedom was stored for the same conditions"
    apart = as_different(stored.noise, found.noise)
    surprise = f"; chance alone sets them so far apart in {apart:.2g} of cases" if apart < CHANCE else ""
    return f"{was}: replaced{surprise}"


def lines(body: Json, unit: str) -> Iterator[str]:
    """A calibration for people."""
    noise, parts, conditions = Noise(**body["noise"]), body["parts"], Conditions(**body["conditions"])
    yield f"noise          {noise.sd:.4f} {unit}: how far one training's score spreads over seeds"
    yield f"               {noise.df} degrees of freedom, from {len(body['scores'])} trainings of the starter"
    yield f"  of which     {parts['initialisation']:.4f} by initialisation, {parts['data_order']:.4f} by data order,"
    yield f"               {parts['rest']:.4f} by neither alone (timing, and what the two do together)"
    if 0.0 in (parts["initialisation"], parts["data_order"]):
        yield "               (a part that came out below zero is shown as 0; the noise counts it as it came out)"
    yield f"documents      {body['document_se']:.4f}: sampling error of one score; parent and child share theirs"
    yield "pairing        unpaired over paired variance of a gain (95% where both sides spread alike)"
    yield "               pairs of the gate also share their moment"
    for name, found in parts["pairing"].items():
        yield f"  {name:<12} {_ratio_text(found)}  {found['about']}"
    yield (
        f"smallest gain  {body['smallest_gain']:.4f}: seen in 4 of 5 cases within {parts['max_pairs']} pairs, in "
        "generation 1, when pairing does not help"
    )
    yield "               and the noise is as measured here; less often if it is larger (docs/benchmarks.md)"
    if said := out_of_reach(body):
        yield f"               {said}"
    yield f"a trial        {body['trial_seconds']:.1f} s of wall time; speed reference {conditions.speed_ms:.2f} ms"
    hour = 3600.0 / parts["pair_seconds"]
    none, small = parts["pairs_no_better"], parts["pairs_smallest_gain"]
    yield (
        f"decisions      about {hour / none:.0f} an hour on successors that are no better ({none:.1f} pairs each), "
        f"{hour / small:.0f} on ones better by the smallest gain ({small:.1f} pairs); proposing comes on top"
    )
    if body["before"]:
        yield f"before         {body['before']}"


def _ratio_text(found: Json) -> str:
    if found["ratio"] is None:
        return "equal to the last bit"
    return (
        f"{found['ratio']:5.1f} [{found['low']:.1f}, {found['high']:.1f}], correlation {found['correlation']:+.2f}, "
        f"{found['pairs']} pairs"
    )
