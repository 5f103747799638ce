"""Commands by which a person decides: review and stop."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import typer

from bellglass.cli_options import LoopName, Loops, Reason
from bellglass.errors import LoopFault, UsageError


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
    from bellglass import paths

    folder = paths.find_loop(loop, paths.loops_home(loops))
    if rearm is not None:
        _rearm(folder, rearm, reason)
    elif decision is None:
        _show(folder)
    else:
        _decide(folder, decision, evidence, reason)


def _waiting(folder: Path) -> Any:
    from bellglass.ledger import Ledger
    from bellglass.lineage import Lineage
    from bellglass.review import gather, pending
    from bellglass.state import fold

    with closing(Ledger.open(folder, write=False)) as ledger:
        state = fold(ledger.events())
    number = pending(state)
    if number is None:
        return state, None
    return state, gather(state, number, Lineage.open(folder / "lineage.git"))


def _show(folder: Path) -> None:
    from rich.console import Console

    from bellglass.review_console import show

    state, waiting = _waiting(folder)
    for wire in state.tripwires:
        typer.echo(f"tripwire {wire['name']} (generation {wire['generation']}): {wire['sentence']}")
    if waiting is None:
        typer.echo("no successor waits for a decision")
        return
    show(waiting, Console())
    typer.echo(
        f"decide: bellglass review {folder.name} --decision approve|trainer|reject "
        f"--evidence {waiting.hash} --reason '...'\nthen:   bellglass resume {folder.name}"
    )


def _decide(folder: Path, decision: str, evidence: str | None, reason: str) -> None:
    from bellglass.paths import user_name
    from bellglass.review import Answer, decision_event

    _, waiting = _waiting(folder)
    if waiting is None:
        raise UsageError(
            "the decision", "nothing waits for one", "a loop that waits", f"bellglass status {folder.name}"
        )
    if evidence is None:
        raise UsageError(
            "the decision", "no --evidence", "the hash that you were shown", f"bellglass review {folder.name}"
        )
    answer = Answer(decision, reason, user_name())  # type: ignore[arg-type]  # decision_event checks the word
    number = waiting.generation
    _deliver(folder, "review", "review.decided", lambda state: decision_event(state, number, answer, evidence))
    typer.echo(f"recorded: {decision} for generation {waiting.generation}")


def _rearm(folder: Path, name: str, reason: str) -> None:
    from bellglass.paths import user_name

    if not reason.strip():
        raise UsageError("re-arming", "no --reason", "why it is safe to go on", "the same with --reason '...'")
    body = {"name": name, "who": user_name(), "reason": reason.strip()}
    _deliver(folder, "rearm", "tripwire.rearmed", lambda state: body if _latched(folder, state, name) else {})
    typer.echo(f"re-armed {name}; bellglass resume {folder.name} goes on")


def _latched(folder: Path, state: Any, name: str) -> bool:
    if name not in {wire["name"] for wire in state.tripwires}:
        found = ", ".join(sorted({wire["name"] for wire in state.tripwires})) or "none"
        raise UsageError(
            f"tripwire {name!r}", f"latched: {found}", "a latched tripwire", f"bellglass review {folder.name}"
        )
    return True


def _deliver(folder: Path, request: str, kind: str, body_for: Callable[[Any], dict[str, Any]]) -> None:
    """With an owner at work, a request in its inbox; without one, this command takes the lock and writes the event.

    `body_for` checks against the state as it is then, so that of two people who decide at once the second is told.
    """
    from bellglass.ledger import Ledger
    from bellglass.state import fold

    try:
        owned = Ledger.open(folder, write=True)
    except LoopFault:
        with closing(Ledger.open(folder, write=False)) as ledger:
            ledger.post(request, body_for(fold(ledger.events())))
        return
    with closing(owned):
        owned.append(kind, body_for(fold(owned.events())))


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
    typer.echo(outcome)
