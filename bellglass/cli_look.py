"""Commands that look and change nothing: status, log, diff, tasks. They never take a loop's lock."""

from __future__ import annotations

import json as json_
import sys
import time
from contextlib import closing
from typing import Annotated

import typer

from bellglass.cli_options import Json, LoopName, Loops

FOLLOW_SECONDS = 0.5


def status(loop: LoopName = None, loops: Loops = None, json: Json = False) -> None:
    """Where a loop stands: generations, claims beside verdicts, decisions, bounds."""
    from bellglass import paths, summary
    from bellglass.ledger import Ledger
    from bellglass.state import fold

    folder = paths.find_loop(loop, paths.loops_home(loops))
    with closing(Ledger.open(folder, write=False)) as ledger:
        state = fold(ledger.events())
        head = ledger.head
    if json:
        typer.echo(json_.dumps({**summary.as_json(state), "head": head}, indent=2, sort_keys=True))
        return
    from bellglass.console import print_summary

    print_summary(state)
    ended = "still open" if state.ended is None else f"{state.ended['why']}: {state.ended['detail']}"
    typer.echo(f"{ended}\nledger head {head}\nfolder {folder}")


def log(
    loop: LoopName = None,
    follow: Annotated[bool, typer.Option("--follow", help="Go on until the loop ends.")] = False,
    loops: Loops = None,
    json: Json = False,
) -> None:
    """The ledger's events, oldest first."""
    from bellglass import paths
    from bellglass.console import line_for
    from bellglass.ledger import Ledger

    folder = paths.find_loop(loop, paths.loops_home(loops))
    seen = 0
    with closing(Ledger.open(folder, write=False)) as ledger:
        while True:
            for event in ledger.events(after=seen):
                seen = event.seq
                if json:
                    record = {"seq": event.seq, "time": event.time, "kind": event.kind, "body": event.body}
                    typer.echo(json_.dumps({**record, "hash": event.hash}, sort_keys=True))
                else:
                    typer.echo(f"{event.seq:>5}  {event.kind:<20} {line_for(event) or ''}".rstrip())
                if event.kind == "loop.ended":
                    follow = False
            if not follow:
                return
            time.sleep(FOLLOW_SECONDS)


def diff(
    loop: LoopName = None,
    generation: Annotated[int | None, typer.Argument(help="Default: the last with a successor.")] = None,
    loops: Loops = None,
) -> None:
    """What a generation's successor changed in its parent."""
    from bellglass import paths
    from bellglass.errors import UsageError
    from bellglass.ledger import Ledger
    from bellglass.lineage import Lineage
    from bellglass.state import fold

    folder = paths.find_loop(loop, paths.loops_home(loops))
    with closing(Ledger.open(folder, write=False)) as ledger:
        state = fold(ledger.events())
    made = [gen.number for gen in state.generations.values() if gen.successor is not None]
    if not made or (generation is not None and generation not in made):
        wanted = "the last generation" if generation is None else f"generation {generation}"
        raise UsageError(
            f"{wanted} of {folder.name}", "no successor", f"one of {made or 'none yet'}", "bellglass status"
        )
    gen = state.generation(made[-1] if generation is None else generation)
    assert gen.successor is not None
    typer.echo(Lineage.open(folder / "lineage.git").diff(gen.parent, gen.successor, sys.maxsize))  # all of it


def tasks(json: Json = False) -> None:
    """The tasks: floor, headroom, noise, presets."""
    from bellglass import tasks as tasks_

    loaded = [tasks_.load(name) for name in tasks_.names()]
    if json:
        typer.echo(json_.dumps([task_json(task) for task in loaded], indent=2, sort_keys=True))
        return
    for task in loaded:
        typer.echo(f"{task.name}: {task.title} ({task.unit}; floor {task.floor})")
        for key, value in task.measured.items():
            typer.echo(f"    {key}: {value}")
        for name, preset in task.presets.items():
            typer.echo(f"    preset {name}: {preset.budget.amount:g} {preset.budget.kind} a trial")


def task_json(task: object) -> dict[str, object]:
    names = ("name", "title", "unit", "vocab", "context", "separable", "floor", "skills", "measured")
    fields: dict[str, object] = {name: getattr(task, name) for name in names}
    return fields
