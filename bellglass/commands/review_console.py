"""The review at a terminal: shows the evidence and asks. Anything but a clear decision with a reason is no answer."""

from __future__ import annotations

import select
import sys
from collections.abc import Callable
from dataclasses import dataclass

from bellglass.commands.console import Terminal, interval_text
from bellglass.paths import user_name
from bellglass.records import Interval, Json
from bellglass.red_flags import Flag
from bellglass.review import DECISIONS, Answer, Evidence
from bellglass.store.lineage import patches

POLL_SECONDS = 0.3
MOST_LINES = 60  # of a file that is no trainer's; longer ones are folded


class _Elsewhere(Exception):
    """Somebody decided while this terminal asked."""


class TerminalReviewer:
    def __init__(self, make_room: Callable[[], None]) -> None:
        self._make_room = make_room
        self._console = Terminal(stderr=True)

    def ask(self, evidence: Evidence, decided: Callable[[], bool]) -> Answer | None:
        self._make_room()
        show(evidence, self._console)
        try:
            choice = self._line(f"decision ({', '.join(DECISIONS)}; empty: decide later) > ", decided)
            if choice not in DECISIONS:
                return None
            reason = self._line("reason > ", decided)
        except (EOFError, KeyboardInterrupt):
            return None
        except _Elsewhere:
            self._console.print("\nsomebody has decided elsewhere: this question is closed")
            return None
        if not reason:
            return None
        return Answer(choice, reason, user_name())

    def _line(self, prompt: str, decided: Callable[[], bool]) -> str:
        """What a person types; at a terminal, as long as nobody decides on the page or by another command."""
        if not sys.stdin.isatty():
            return self._console.input(prompt).strip()
        self._console.print(prompt, end="")
        while not select.select([sys.stdin], [], [], POLL_SECONDS)[0]:
            if decided():
                raise _Elsewhere
        line = sys.stdin.readline()
        if not line:
            raise EOFError
        return line.strip()


def show(evidence: Evidence, console: Terminal) -> None:
    """Red flags first, with their lines, then what the host knows, and the improver's own words, marked as its own; the
    trainer's diff whole and behind all other, where whoever is asked has it before their eyes; what each answer does
    last."""
    console.rule(f"review of generation {evidence.generation}")
    kinds = ", ".join(evidence.kinds)
    console.print(f"parent {evidence.parent[:8]}, successor {evidence.successor[:8]}; {kinds}")
    for flag in evidence.flags:
        _show_flag(flag, console)
    for line in evidence.changed:
        console.print(f"  {line}")
    _show_measured(evidence, console)
    console.print(f"the improver's own words (testimony): {evidence.testimony!r}", style="dim")
    note, patched = patches(evidence.diff)
    if note:
        console.print(note.strip(), style="bold")
    files = [Part(_path(patch), tuple(patch.splitlines())) for patch in patched]
    folded = [part for part in files if not _of_trainer(part) and len(part.lines) > MOST_LINES]
    for part in sorted(files, key=_of_trainer):
        if part in folded:
            console.print(f"{part.path}: {part.changed} changed lines, not shown here", style="bold")
            continue
        for line in part.lines:
            _print_diff_line(line, console)
    if folded:
        hidden = sum(part.changed for part in folded)
        console.print(f"NOT SHOWN HERE: {hidden} changed lines of {', '.join(part.path for part in folded)}; see "
                      f"bellglass diff {evidence.loop_id} {evidence.generation}", style="bold")  # fmt: skip
    if evidence.flags:
        codes = ", ".join(flag.code for flag in evidence.flags)
        console.print(f"{len(evidence.flags)} RED FLAGS, shown first: {codes}", style="bold red")
    for choice, outcome in evidence.choices:
        console.print(f"{choice}: {outcome}")
    console.print(f"evidence {evidence.hash}")


def _show_flag(flag: Flag, console: Terminal) -> None:
    console.print(f"RED FLAG {flag.code}: {flag.sentence}", style="bold red")
    for place in flag.places:
        end = f"-{place.end}" if place.end > place.line else ""
        console.print(f"  {place.path}:{place.line}{end}")
        for line in place.text.splitlines():
            _print_diff_line(line, console, indent="    ")
    if flag.more:
        console.print(f"  and {flag.more} more places, in the diff below")


def _show_measured(evidence: Evidence, console: Terminal) -> None:
    gate: Json = evidence.gate
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


@dataclass(frozen=True, slots=True)
class Part:
    """One file of a diff."""

    path: str
    lines: tuple[str, ...]

    @property
    def changed(self) -> int:
        body = self.lines[next((k for k, line in enumerate(self.lines) if line.startswith("@@")), len(self.lines)) :]
        return sum(line[:1] in ("+", "-") for line in body)


def _path(patch: str) -> str:
    return patch.partition("\n")[0].rpartition(" b/")[2]


def _of_trainer(part: Part) -> bool:
    return part.path.startswith("trainer/")


def _bits(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f} bits"


def _print_diff_line(line: str, console: Terminal, indent: str = "") -> None:
    """Whole, whatever its length: what runs over the edge is marked and can pass for no line of its own."""
    style = {"+": "green", "-": "red", "@": "cyan"}.get(line[:1], "")
    room = max(20, console.width - 2 - len(indent))
    for start in range(0, max(1, len(line)), room):
        console.print(indent + ("" if start == 0 else "↪ ") + line[start : start + room], style=style)
