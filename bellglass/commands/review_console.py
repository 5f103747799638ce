"""The review at a terminal: shows the evidence and asks. Anything but a clear decision with a reason is no answer."""

from __future__ import annotations

from collections.abc import Callable

from bellglass.commands.console import Terminal, interval_text
from bellglass.paths import user_name
from bellglass.records import Interval, Json
from bellglass.review import DECISIONS, Answer, Evidence

MAX_DIFF_LINES = 400


class TerminalReviewer:
    def __init__(self, make_room: Callable[[], None]) -> None:
        self._make_room = make_room
        self._console = Terminal(stderr=True)

    def ask(self, evidence: Evidence) -> Answer | None:
        self._make_room()
        show(evidence, self._console)
        try:
            choice = self._console.input(f"decision ({', '.join(DECISIONS)}; empty: decide later) > ").strip()
            if choice not in DECISIONS:
                return None
            reason = self._console.input("reason > ").strip()
        except (EOFError, KeyboardInterrupt):
            return None
        if not reason:
            return None
        return Answer(choice, reason, user_name())  # type: ignore[arg-type]  # checked against DECISIONS above


def show(evidence: Evidence, console: Terminal) -> None:
    """What the host knows first; the improver's own words last and marked as its own."""
    gate: Json = evidence.gate
    console.rule(f"review of generation {evidence.generation}")
    kinds = ", ".join(evidence.kinds)
    console.print(f"parent {evidence.parent[:8]}, successor {evidence.successor[:8]}; {kinds}")
    for line in evidence.changed:
        console.print(f"  {line}")
    lines = evidence.diff.splitlines()
    for line in lines[:MAX_DIFF_LINES]:
        _print_diff_line(line, console)
    if len(lines) > MAX_DIFF_LINES:
        console.print(f"NOT SHOWN HERE: {len(lines) - MAX_DIFF_LINES} more lines; see bellglass diff", style="bold")
    for trial in evidence.verdicts:
        claim, verdict = _bits(trial["claim_bits"]), _bits(trial["verdict_bits"])
        console.print(f"{trial['trial']}: claim {claim}, verdict {verdict} {trial['fault'] or ''}".rstrip())
    if gate is not None:
        gain = "" if gate["gain"] is None else f"; gain {interval_text(Interval(**gate['gain']), sign='+')}"
        console.print(f"gate: {gate['decision']}: {gate['why']}{gain}")
        if gate["decision"] == "reject":
            console.print("so whatever you decide, its trainer is not adopted", style="bold")
    if evidence.boot is not None:
        console.print(f"boot check: {'passed' if evidence.boot['ok'] else 'FAILED'}: {evidence.boot['why']}")
    console.print(f"the improver's own words (testimony): {evidence.testimony!r}", style="dim")
    console.print(f"evidence {evidence.hash}")


def _bits(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f} bits"


def _print_diff_line(line: str, console: Terminal) -> None:
    """Whole, whatever its length: what runs over the edge is marked and can pass for no line of its own."""
    style = {"+": "green", "-": "red", "@": "cyan"}.get(line[:1], "")
    room = max(20, console.width - 2)
    for start in range(0, max(1, len(line)), room):
        console.print(("" if start == 0 else "↪ ") + line[start : start + room], style=style)
