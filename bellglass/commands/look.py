"""Commands that look and change nothing: status, log, diff, tasks. They never take a loop's lock."""

from __future__ import annotations

import json as json_
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bellglass.commands.options import Json, LoopName, Loops
from bellglass.commands.terminal import say
from bellglass.errors import LoopFault
from bellglass.paths import typed

if TYPE_CHECKING:
    from bellglass.show.showing import Shown
    from bellglass.tasks import Task

FOLLOW_SECONDS = 0.5
UNDO_AN_END = ("loop.resumed", "tripwire.rearmed")


def status(loop: LoopName = None, loops: Loops = None, json: Json = False) -> None:
    """Where a loop stands: generations, claims beside verdicts, decisions, bounds."""
    from bellglass import paths
    from bellglass.show import showing

    folder = paths.find_loop(loop, paths.loops_home(loops))
    shown = showing.open_loop(folder)
    missing = shown.about.missing
    if shown.state.created is None:
        found = "; ".join(missing) or "no event that says how the loop began"
        raise LoopFault(
            f"ledger {folder}",
            found,
            "a ledger with a beginning",
            f"bellglass verify {typed(folder)}",
            code="ledger_without_beginning",
        )
    with showing.of_this_version(folder):
        _print_status(shown, json)
    if missing:
        for line in missing:
            say(f"missing: {line}", err=True)
        say(f"this is only what could be read: bellglass verify {typed(folder)}", err=True)
        raise typer.Exit(1)


def _print_status(shown: Shown, json: bool) -> None:
    from bellglass.show import summary

    state, about = shown.state, shown.about
    if json:
        standing = about.standing and asdict(about.standing)
        more = {"head": about.head, "missing": list(about.missing), "standing": standing}
        say(json_.dumps({**summary.as_json(state), **more}, indent=2, sort_keys=True))
        return
    from bellglass.commands.console import print_summary
    from bellglass.store.folder import LOG_NAME
    from bellglass.store.owner import owner_of

    print_summary(state)
    ended = "still open" if not about.missing else "its end cannot be read"
    if state.ended is not None:
        ended = f"{state.ended['why']}: {state.ended['detail']}"
    if about.standing is not None:
        say(f"{about.standing.word}: {about.standing.why}")
        if not (about.standing.ours or about.standing.counterfeit):
            say(f"to go on with it: bellglass takeover {typed(shown.folder)}, which says what that means")
    say(f"{ended}\nledger head {about.head}\nfolder {shown.folder}")
    owner = owner_of(shown.folder)
    if owner is not None:
        asks = f"kill -USR1 {owner.pid}, and {LOG_NAME} in its folder says where it stands"
        say(f"driven by process {owner.pid}; to ask it where it stands: {asks}")


def say_whose(folder: Path) -> None:
    """Beside what is shown of a loop that was not made here as a whole."""
    from bellglass.show.view import about_standing
    from bellglass.store import ours
    from bellglass.store.ledger import Ledger

    with Ledger.open(folder) as ledger:
        standing = ours.standing_to_show(ledger)
    for line in about_standing(standing):
        say(line, err=True)


def log(
    loop: LoopName = None,
    follow: Annotated[bool, typer.Option("--follow", help="Go on until the loop ends.")] = False,
    loops: Loops = None,
    json: Json = False,
) -> None:
    """The ledger's events, oldest first."""
    from bellglass import paths
    from bellglass.commands.console import line_for
    from bellglass.store.ledger import Ledger

    folder = paths.find_loop(loop, paths.loops_home(loops))
    say_whose(folder)
    seen, ended = 0, False
    with Ledger.open(folder, write=False) as ledger:
        while True:
            events, fault = ledger.sound() if seen == 0 else (ledger.events(after=seen), "")
            for event in events:
                seen = event.seq
                if json:
                    record = {"seq": event.seq, "time": event.time, "kind": event.kind, "body": event.body}
                    say(json_.dumps({**record, "hash": event.hash}, sort_keys=True))
                else:
                    say(f"{event.seq:>5}  {event.kind:<20} {line_for(event) or ''}".rstrip())
                ended = event.kind == "loop.ended" or (ended and event.kind not in UNDO_AN_END)
            if fault:
                say(f"missing: the ledger is damaged behind event {seen}: {fault}", err=True)
                raise typer.Exit(1)
            if ended or not follow:
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
    from bellglass.store.lineage import Lineage
    from bellglass.store.state import state_of

    folder = paths.find_loop(loop, paths.loops_home(loops))
    state = state_of(folder)
    made = [gen.number for gen in state.generations.values() if gen.successor is not None]
    if not made or (generation is not None and generation not in made):
        wanted = "the last generation" if generation is None else f"generation {generation}"
        raise UsageError(
            f"{wanted} of {folder.name}",
            "no successor",
            f"one of {made or 'none yet'}",
            f"bellglass status {typed(folder)}",
            code="unknown_generation",
        )
    gen = state.generation(made[-1] if generation is None else generation)
    assert gen.successor is not None
    say_whose(folder)
    say(Lineage.open(folder / "lineage.git").diff(gen.parent, gen.successor))


def tasks(
    task: Annotated[
        str | None, typer.Argument(help="One task by name, or ./FOLDER of your own, which is tried. Default: all.")
    ] = None,
    fetch: Annotated[bool, typer.Option("--fetch", help="Download what that task needs, once.")] = False,
    json: Json = False,
) -> None:
    """The tasks: floor, headroom, noise, presets."""
    from bellglass import tasks as tasks_

    if fetch:
        _fetch(None if task is None else tasks_.load(task))
    loaded = [tasks_.load(name) for name in (tasks_.names() if task is None else [task])]
    if task is not None and tasks_.is_folder(task):
        from bellglass.steps.rehearsal import rehearse_task

        rehearse_task(loaded[0])
        say(f"{task}: documents of all presets can be judged on", err=True)
    if json:
        say(json_.dumps([task_json(task) for task in loaded], indent=2, sort_keys=True))
        return
    for one in loaded:
        for line in task_lines(one):
            say(line)


def _fetch(task: Task | None) -> None:
    from bellglass.download import fetch
    from bellglass.errors import UsageError

    if task is None:
        raise UsageError(
            "--fetch", "no task", "the name of one that downloads something", "bellglass tasks", code="option_invalid"
        )
    if not task.downloads:
        say(f"{task.name}: nothing to download", err=True)
    for download in task.downloads:
        fetch(task.name, download, task.cache, lambda line: say(line, err=True))


def task_lines(task: Task) -> Iterator[str]:
    """What a person wants to know before they pick it."""
    floor = "above an exact floor" if task.floor == "exact" else "no floor is known"
    yield f"{task.name}: {task.title} ({task.unit}, {floor})"
    found = task.measured
    if found:
        above = "above the floor, " if task.floor == "exact" else ""
        measured = "measured by benchmarks/tasks.py on one machine; a faster one trains further in that time"
        yield f"    scores: {above}{measured}"
    if "starter_cpu" not in found:
        yield "    unmeasured"
    for name, preset in task.presets.items():
        line = f"    preset {name}: {preset.budget.amount:g} {preset.budget.kind} a trial"
        if f"starter_{name}" not in found:
            yield f"{line}, unmeasured"
            continue
        starter, noise = found[f"starter_{name}"], found.get(f"noise_{name}")
        line += f", starter {starter:.3f}" + (f" ± {noise:.3f} over seeds" if noise is not None else "")
        if f"reference_{name}" in found:
            reference = found[f"reference_{name}"]
            line += f", reference {reference:.3f}, headroom {starter - reference:.3f}"
        yield line
    if task.confirm_slices > 1:
        slices = task.confirm_slices
        yield f"    a fixed corpus: {slices} slices of confirm, new ones for {slices // 2} generations, then again"
    for download in task.downloads:
        yield f"    downloads {download.url} (bellglass tasks {task.name} --fetch)"


def task_json(task: object) -> dict[str, object]:
    names = ("name", "title", "unit", "vocab", "context", "separable", "floor", "skills", "measured")
    fields: dict[str, object] = {name: getattr(task, name) for name in names}
    return fields
