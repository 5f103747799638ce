"""Commands that start: demo, run, resume."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bellglass.commands.options import (
    BudgetUsd,
    Calls,
    Generations,
    GlassName,
    Json,
    LoopName,
    Loops,
    Review,
    Seed,
    TaskFolder,
    Tokens,
    TrainSeconds,
    WallSeconds,
    Wandb,
    Watch,
)
from bellglass.commands.terminal import say
from bellglass.errors import BellglassError, Interrupted
from bellglass.paths import typed

if TYPE_CHECKING:
    from bellglass.steps.generation import Crew
    from bellglass.store.state import State

# About 300 CPU-seconds.
DEMO = {"task": "stories", "preset": "tiny", "panel": 3, "max_pairs": 5, "trials_per_generation": 3}


@dataclass(frozen=True, slots=True)
class Companions:
    """What shows a loop while it runs, each in a process of its own."""

    watch: bool
    wandb: str

    def check(self) -> None:
        """Before anything is spent."""
        from bellglass.commands import to_wandb

        to_wandb.check(self.wandb)

    def processes(self, folder: Path) -> AbstractContextManager[object]:
        from bellglass.commands import to_wandb

        if self.watch:
            from bellglass.commands.watch import page_beside

            page_beside(folder)
        return to_wandb.follower(folder, self.wandb)


def demo(
    seed: Seed = None,
    generations: Generations = 3,
    glass: GlassName = "auto",
    watch: Watch = False,
    wandb: Wandb = "off",
    loops: Loops = None,
    json: Json = False,
) -> None:
    """A real loop of three generations with the offline improver: no key, no GPU, two minutes on two idle cores."""
    chosen = {**DEMO, "seed": seed, "generations": generations, "glass": glass}
    folder = _start(None, chosen, loops, json, Companions(watch, wandb))
    if not json:
        bellglass, loop = program(), typed(folder)
        commands = (f"watch {loop}", f"status {loop}", f"diff {loop} 1", f"verify {loop}")
        say("\nNext:\n" + "\n".join(f"  {bellglass} {command}" for command in commands))
        say(_report(folder))


def run(
    task: Annotated[str | None, typer.Argument(help="A task; `bellglass tasks` lists them. Default: stories.")] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="offline, random, tpe, anthropic/…, openai/…, ollama/…")
    ] = None,
    preset: Annotated[str | None, typer.Option("--preset", help="tiny, cpu or gpu.")] = None,
    device: Annotated[str | None, typer.Option("--device", help="cpu, cuda or cuda:1.")] = None,
    generations: Generations = None,
    budget_usd: BudgetUsd = None,
    train_seconds: TrainSeconds = None,
    wall_seconds: WallSeconds = None,
    calls: Calls = None,
    tokens: Tokens = None,
    review: Review = None,
    glass: GlassName = None,
    seed: Seed = None,
    config: Annotated[Path | None, typer.Option("--config", help="A TOML file with the same words and more.")] = None,
    watch: Watch = False,
    wandb: Wandb = "off",
    loops: Loops = None,
    json: Json = False,
) -> None:
    """Start a loop and run it until its bounds are reached."""
    chosen = {
        "task": task,
        "model": model,
        "preset": preset,
        "device": device,
        "generations": generations,
        "budget_usd": budget_usd,
        "train_seconds": train_seconds,
        "wall_seconds": wall_seconds,
        "calls": calls,
        "tokens": tokens,
        "review": review,
        "glass": glass,
        "seed": seed,
    }
    _start(config, chosen, loops, json, Companions(watch, wandb))


def resume(
    loop: LoopName = None,
    generations: Generations = None,
    budget_usd: BudgetUsd = None,
    train_seconds: TrainSeconds = None,
    wall_seconds: WallSeconds = None,
    calls: Calls = None,
    tokens: Tokens = None,
    task: TaskFolder = None,
    watch: Watch = False,
    wandb: Wandb = "off",
    loops: Loops = None,
    json: Json = False,
) -> None:
    """Go on with a loop that ended early; bounds may be raised."""
    from bellglass import paths
    from bellglass.store.ledger import Ledger, require_ours
    from bellglass.store.state import fold

    raised = {
        "generations": generations,
        "budget_usd": budget_usd,
        "train_seconds": train_seconds,
        "wall_seconds": wall_seconds,
        "calls": calls,
        "tokens": tokens,
    }
    companions = Companions(watch, wandb)
    companions.check()
    folder = paths.find_loop(loop, paths.loops_home(loops))
    with Ledger.open(folder) as ledger:  # before a page or a board is told of it
        require_ours(folder, ledger.standing())
        state = fold(ledger.events())
    overrides = {key: value for key, value in raised.items() if value is not None}
    if state.ended is not None and state.ended["why"] == "finished" and not overrides:
        _show(state, json)
        say("finished: nothing to do", err=True)
        return
    _run(folder, overrides, json, companions, task)


def _show(state: State, json: bool) -> None:
    from bellglass.commands.console import print_summary
    from bellglass.show.summary import as_json

    if json:
        _print_json(as_json(state))
    else:
        print_summary(state)


def _report(folder: Path) -> str:
    """Where the loop's report lies now. A report that cannot be written is no failure of the loop."""
    from bellglass.commands import report
    from bellglass.show import showing

    try:
        return f"  open {report.write_report(showing.open_loop(folder))} in a browser"
    except BellglassError as error:
        return f"  no report was written: {error.one_line()}"


def _start(
    config_file: Path | None, chosen: dict[str, Any], loops: Path | None, json: bool, companions: Companions
) -> Path:
    from bellglass import config, paths, wiring

    companions.check()
    loaded = config.load(config_file, {key: value for key, value in chosen.items() if value is not None})
    _say_before_spending(loaded)
    folder = wiring.create(loaded, paths.loops_home(loops))
    _run(folder, {}, json, companions)
    return folder


def _say_before_spending(loaded: Any) -> None:
    """The forecast comes before the first paid call, which is the probe's."""
    from bellglass import preflight

    for line in preflight.forecast_lines(loaded):
        say(line, err=True)


def _run(folder: Path, overrides: dict[str, Any], json: bool, companions: Companions, task: Path | None = None) -> None:
    from bellglass import wiring
    from bellglass.commands.console import banner
    from bellglass.commands.progress import LoopView
    from bellglass.commands.review_console import TerminalReviewer
    from bellglass.loop import run_loop

    stop = catch_interrupts()
    with companions.processes(folder), LoopView() as view:
        reviewer = TerminalReviewer(view.pause) if sys.stdin.isatty() and sys.stderr.isatty() else None
        surface = wiring.Surface(view.event, view.progress, reviewer, stop)
        with wiring.open_loop(folder, surface, overrides, named=task) as crew:
            view.watch(lambda: crew.state, crew.place.lab.bench.side_by_side)
            glass = crew.place.glass
            opened = banner(crew.state.loop_id, crew.state.created["task"], glass.name, glass.sealed)
            view.say(f"{opened}\nfolder {folder}")
            try:
                run_loop(crew, lambda: _probe(crew, view.say))
            except BellglassError as error:  # what to type next must name this very loop, wherever it lies
                error.next_command = naming(error.next_command, crew.state.loop_id, typed(folder))
                raise
            finally:
                view.pause()
                _show(crew.state, json)
                say(f"ledger head {crew.place.books.ledger.head}", err=True)


def _probe(crew: Crew, say: Callable[[str], None]) -> None:
    from bellglass import preflight

    for line in preflight.probe_lines(crew.models, crew.place.books):
        say(line)


def program() -> str:
    """How to call this program from where the person stands: it need not be on their PATH."""
    if shutil.which("bellglass"):
        return "bellglass"
    return os.path.relpath(sys.argv[0]) if Path(sys.argv[0]).name == "bellglass" else f"{sys.executable} -m bellglass"


def naming(command: str, loop_id: str, name: str) -> str:
    """The command with this loop's name in it: in place of its id, or behind a `resume` that names none."""
    words = [name if word == loop_id else word for word in command.split()]
    if words[:2] == ["bellglass", "resume"] and name not in words:
        words.insert(2, name)
    return " ".join(words)


def _print_json(value: Any) -> None:
    import json

    say(json.dumps(value, indent=2, sort_keys=True))


def catch_interrupts(next_command: str = "bellglass resume") -> Any:
    """Ctrl-C once: end cleanly and resumably. Twice: end now."""
    asked = threading.Event()

    def on_signal(number: int, frame: object) -> None:
        if asked.is_set():
            os._exit(130)  # the guests end by themselves when this process is gone
        asked.set()
        say("stopping cleanly; once more to end at once", err=True)

    signal.signal(signal.SIGINT, on_signal)
    signal.signal(signal.SIGTERM, on_signal)

    def check() -> None:
        if asked.is_set():
            raise Interrupted("the loop", "interrupted", "nothing: everything done is kept", next_command)

    return check
