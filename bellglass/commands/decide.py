"""Commands by which a person decides: review and stop."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bellglass.commands.options import LoopName, Loops, Reason
from bellglass.commands.terminal import say
from bellglass.errors import UsageError
from bellglass.paths import typed


def review(
    loop: LoopName = None,
    decision: Annotated[
        str | None, typer.Option("--decision", help="approve, trainer (without its scaffold) or reject.")
    ] = None,
    evidence: Annotated[
        str | None,
        typer.Option("--evidence", help="The hash that you were shown, or its first 12 digits; needed to decide."),
    ] = None,
    rearm: Annotated[str | None, typer.Option("--rearm", help="Re-arm this tripwire after having looked.")] = None,
    reason: Reason = "",
    loops: Loops = None,
) -> None:
    """Show what waits for a person, or decide on it. Without --decision nothing changes."""
    from bellglass import deciding, paths

    folder = paths.find_loop(loop, paths.loops_home(loops))
    if rearm is not None:
        say(deciding.rearm(folder, rearm, reason).line)
    elif decision is None:
        _show(folder)
    else:
        _decide(folder, decision, evidence, reason)


def _show(folder: Path) -> None:
    from bellglass import deciding
    from bellglass.commands.console import Terminal
    from bellglass.commands.look import say_whose
    from bellglass.commands.review_console import show
    from bellglass.show.showing import of_this_version
    from bellglass.tripwires import place

    with of_this_version(folder):
        state, waiting = deciding.waiting(folder)
        say_whose(folder)
        for wire in state.tripwires:
            say(f"tripwire {wire['name']} ({place(wire)}): {wire['sentence']}")
        if waiting is None:
            say("no successor waits for a decision")
            return
        show(waiting, Terminal())
    if waiting.hash != state.generation(waiting.generation).review_hash:
        say(
            f"the loop asked about other evidence, as another version of bellglass shows it; "
            f"bellglass resume {typed(folder)} asks again"
        )
        return
    say(
        f"decide: bellglass review {typed(folder)} --decision approve|trainer|reject "
        f"--evidence {waiting.hash} --reason '...'\nthen:   bellglass resume {typed(folder)}"
    )


def _decide(folder: Path, decision: str, evidence: str | None, reason: str) -> None:
    from bellglass import deciding
    from bellglass.review import DECISIONS, pending
    from bellglass.store.state import state_of

    if decision not in DECISIONS:
        raise UsageError(
            "--decision",
            repr(decision),
            f"one of {', '.join(DECISIONS)}",
            f"bellglass review {typed(folder)}",
            code="option_invalid",
        )
    number = pending(state_of(folder))
    if number is None:
        raise UsageError(
            "the decision",
            "nothing waits for one",
            "a loop that waits",
            f"bellglass status {typed(folder)}",
            code="nothing_waits",
        )
    if evidence is None:
        raise UsageError(
            "the decision",
            "no --evidence",
            "the hash that you were shown",
            f"bellglass review {typed(folder)}",
            code="evidence_not_named",
        )
    say(deciding.decide(folder, number, decision, reason, evidence).line)


def stop(
    loop: LoopName = None,
    now: Annotated[bool, typer.Option("--now", help="Don't ask first: kill driver and guests at once.")] = False,
    patience: Annotated[float, typer.Option("--patience", help="Seconds that a polite stop may take.")] = 20.0,
    reason: Reason = "asked by a person",
    loops: Loops = None,
) -> None:
    """Stop a running loop: ask, then kill. Works with the driver hung. `resume` goes on later."""
    from bellglass import halt, paths, wiring

    folder = paths.find_loop(loop, paths.loops_home(loops))
    outcome = halt.stop(folder, wiring.killer(folder), polite_seconds=0.0 if now else patience, reason=reason)
    say(outcome)
