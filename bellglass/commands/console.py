"""What a terminal shows of a loop: its events as plain lines, tables at the end. `progress` is the live view.

Progress goes to stderr, data to stdout. rich is only ever spoken to through `Terminal`, for which text is data.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from bellglass.calibration import out_of_reach
from bellglass.paths import CONTENT
from bellglass.records import Interval, Json
from bellglass.show.compare import Mean
from bellglass.show.splits import looks_line
from bellglass.show.summary import (
    Row,
    about_improvers,
    baselines_line,
    final_gain,
    final_text,
    final_words,
    rows,
    title_and_unit,
)
from bellglass.store.ledger import Event
from bellglass.store.state import State, trial_from
from bellglass.visible import visible

NARROW = 96  # columns of a terminal, below which the table of generations needs its words measured


class Terminal(Console):
    """rich's, for text that is data: no markup and no emoji in it."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"markup": False, "emoji": False, "highlight": False, **options})

    def render_str(self, text: str, **options: Any) -> Text:
        """Before it is laid out, so that its width is right."""
        return super().render_str(visible(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """All that rich shows comes by here; what it does to the screen itself is marked as `control`."""
        if isinstance(renderable, Text) and renderable.plain != visible(renderable.plain):
            renderable = Text(visible(renderable.plain), renderable.style)
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=visible(segment.text))


def bounds_line(state: State) -> str:
    ended = sum(gen.result is not None for gen in state.generations.values())
    return "used: " + ", ".join([f"{ended}/{state.config['generations']} generations", *bound_parts(state)])


def bound_parts(state: State) -> list[str]:
    """What is used of what is allowed, as the bounds count; what neither has a bound nor was used is left out."""
    config, spent = state.config, state.spent + state.burnt
    parts = [f"{_seconds(spent.train_seconds, config['train_seconds'])} trained"]
    if config.get("wall_seconds") is not None:
        parts.append(f"{_seconds(state.wall_seconds, config['wall_seconds'])} in all")
    if spent.calls or config.get("calls") is not None:
        parts.append(f"{spent.calls}{_of(config.get('calls'))} calls")
    if spent.usd is None or spent.usd or config["budget_usd"] is not None:
        usd = "unknown" if spent.usd is None else f"{spent.usd:.3f}"
        parts.append(f"{usd}{_of(config['budget_usd'])} USD")
    if config.get("tokens") is not None:
        parts.append(f"{spent.tokens_in + spent.tokens_out}{_of(config['tokens'])} tokens")
    return parts


def _of(limit: Json) -> str:
    return "" if limit is None else f"/{limit:g}" if isinstance(limit, float) else f"/{limit}"


def _seconds(used: float, limit: float | None) -> str:
    """Both in one unit, so that they compare at a glance."""
    longest = max(used, limit or 0.0)
    unit, size = ("s", 1) if longest < 1000 else ("min", 60) if longest < 60_000 else ("h", 3600)
    digits = 1 if unit == "h" else 0
    return f"{used / size:.{digits}f}{'' if limit is None else f'/{limit / size:.{digits}f}'} {unit}"


def line_for(event: Event) -> str | None:
    """One event as a line, or None for one that only machines need."""
    maker = LINES.get(event.kind)
    try:
        return None if maker is None else maker(event.body)
    except (LookupError, TypeError, AttributeError, ValueError, ArithmeticError) as error:
        return f"  other fields than this version knows ({type(error).__name__}); --json shows them"


def _created(body: Json) -> str:
    return banner(body["loop_id"], body["task"], body["glass"], body["sealed"])


def banner(loop_id: str, task: str, glass: str, sealed: bool) -> str:
    """Which loop it is, and what its guests run in."""
    return f"loop {loop_id}: task {task}, {_glass(glass, sealed)}"


def _glass(name: str, sealed: bool) -> str:
    return f"glass {name} ({'sealed' if sealed else 'UNSEALED: a plain process isolates nothing'})"


def _resumed(body: Json) -> str:
    changed = ", ".join(f"{part}/" if part in CONTENT else part for part in body.get("content", ()))
    return f"resumed; not what the loop began with: {changed}" if changed else "resumed"


def _trial(body: Json) -> str:
    trial = trial_from(body)
    if trial.verdict is None:
        return f"  {trial.trial_id}: failed ({trial.fault}) after {trial.train_seconds:.1f} s"
    claim = "no claim" if trial.claim.bits is None else f"claim {trial.claim.bits:.3f}"
    took = f"{trial.train_seconds:.1f} s"
    if trial.purpose == "explore" and trial.budget.kind != "steps":  # most are short ones, and look worse for it
        took += f", explored on {trial.budget.amount:g} s"
    return f"  {trial.trial_id}: {claim}, verdict {trial.verdict.raw_bits:.3f} bits ({took})"


def _proposal(body: Json) -> str:
    if body["successor"] is None:
        return f"  no successor: {body['fault']}"
    return f"  successor {body['successor'][:8]} changes {', '.join(body['kinds'])}"


def _generation_ended(body: Json) -> str:
    return f"  trainer {body['trainer']}, scaffold {body['scaffold']}: {body['why']}"


def _calibrated(body: Json) -> str:
    noise, seconds = body["noise"], body["trial_seconds"]
    source = f"measured ({body['why']})" if body["measured"] else body["why"]
    said = out_of_reach(body)
    return (
        f"calibration {source}: noise {noise['sd']:.4f} bits over {len(body['scores'])} trainings, "
        f"{seconds:.1f} s a trial; the smallest gain that generation 1 can detect, if that is the noise: "
        f"{body['smallest_gain']:.3f} bits" + (f"; {said}" if said else "")
    )


def _glass_opened(body: Json) -> str:
    told = [f"from here on {_glass(body['glass'], body['sealed'])}"] if "glass" in body else []
    if body.get("noise_from"):
        told.append(f"the noise that gates start from was measured in glass {body['noise_from']}")
    if body["why_alone"]:
        told.append(f"guests that prove a score answer alone, one at a time: {body['why_alone']}")
    else:
        told.append("guests that prove a score need not answer alone")
    return "; ".join(told)


def _final_opened(body: Json) -> str:
    if body["gain"] is None:
        return f"final opened: no gain measured{': ' + body['lacks'] if body.get('lacks') else ''}"
    return f"final opened: champion better than starter by {Interval(**body['gain']).text('+')} bits"


LINES: dict[str, Callable[[Json], str | None]] = {
    "loop.created": _created,
    "loop.calibrated": _calibrated,
    "loop.resumed": _resumed,
    "glass.opened": _glass_opened,
    "loop.taken_over": lambda body: f"taken over by {body['who']}: what is above came from elsewhere",
    "generation.started": lambda body: f"generation {body['generation']} (parent {body['parent'][:8]})",
    "trial.settled": _trial,
    "trial.burnt": lambda body: f"  {body['trial_id']}: interrupted; will run again, its seconds are charged apart",
    "trial.disturbed": lambda body: f"  {body['trial_id']}: {body['why']}{'' if body['last'] else '; it is run again'}",
    "proposal.made": _proposal,
    "boot.checked": lambda body: f"  boot check {'passed' if body['ok'] else 'FAILED'}: {body['why']}",
    "gate.decided": lambda body: f"  gate: {body['gate']['decision']}: {body['gate']['why']}",
    "tripwire.fired": lambda body: f"  TRIPWIRE {body['name']}: {body['sentence']}",
    "tripwire.rearmed": lambda body: f"  tripwire {body['name']} re-armed by {body['who']}: {body['reason']}",
    "review.decided": lambda body: f"  review: {body['decision']} by {body['who']}: {body['reason']}",
    "generation.ended": _generation_ended,
    "final.opened": _final_opened,
    "loop.ended": lambda body: f"loop ended: {body['why']}: {body['detail']}",
}


COLUMNS = ("gen", "parent", "changed", "claim", "verdict (95%)", "trainer", "scaffold", "cost")


def generation_table(state: State, width: int) -> Table:
    """Whole words wherever they fit: on a narrow terminal no edges, and each column as wide as its longest word."""
    made = [cells(item) for item in rows(state)]
    narrow = width < NARROW
    table = Table(title=title(state), title_justify="left", show_lines=True, show_edge=not narrow, pad_edge=not narrow)
    for name, column in zip(COLUMNS, zip(COLUMNS, *made, strict=True), strict=True):
        longest = max(len(word) for cell in column for word in cell.split())
        table.add_column(name, overflow="fold", width=longest if narrow else None)
    for row in made:
        table.add_row(*row)
    return table


def cells(item: Row) -> list[str]:
    cost = f"{item.cost.train_seconds:.0f} s"
    if item.cost.usd is None:
        cost += ", USD unknown"
    elif item.cost.usd:
        cost += f", {item.cost.usd:.3f} USD"
    return [
        str(item.generation),
        item.parent,
        ", ".join(item.kinds) or ("–" if item.successor is None else "nothing"),
        "–" if item.claim_bits is None else f"{item.claim_bits:.3f}",
        interval_text(item.verdict_bits),
        item.trainer,
        item.scaffold,
        cost,
    ]


def title(state: State) -> str:
    seal = "sealed" if state.created["sealed"] else "unsealed"
    task, glass, unit = state.created["task"], ", then ".join(state.glasses), title_and_unit(state)[1]
    return f"loop {state.loop_id} · {task} · {glass} glass, {seal} · {unit}"


def interval_text(interval: Interval | None, *, sign: str = "") -> str:
    return "–" if interval is None else interval.text(sign)


def why_lines(state: State) -> list[str]:
    return [f"generation {item.generation}: {item.why}" for item in rows(state) if item.why]


def split_lines(state: State) -> list[str]:
    """What the splits tell, for people alone."""
    told = [
        f"generation {item.generation}: fitted to select by {interval_text(item.fitted, sign='+')} bits "
        "(its gain there minus its gain on confirm)"
        for item in rows(state)
        if item.fitted is not None
    ]
    return [*told, looks_line(state)]


def final_line(state: State) -> str:
    gain, words = final_gain(state), final_words(state)
    if gain is None:
        return f"final: {final_text(words, '')}"
    clear = "clear of zero" if gain.low > 0 else "NOT clear of zero"
    told = f"champion better than starter by {interval_text(gain, sign='+')} bits, {clear}"
    return f"final (opened once): {final_text(words, told)}"


def print_summary(state: State, out: Terminal | None = None) -> None:
    console = out or Terminal(file=sys.stdout)
    _widen(console)
    console.print(generation_table(state, console.width))
    beside = baselines_line(state)
    for line in [
        *why_lines(state),
        *split_lines(state),
        final_line(state),
        *([beside] if beside else []),
        bounds_line(state),
    ]:
        console.print(line, soft_wrap=not console.is_terminal)
    for line in about_improvers(state):
        console.print(line, style="dim", soft_wrap=not console.is_terminal)


def _widen(console: Terminal) -> None:
    """A file or a pipe has no edge; rich takes it for a narrow terminal."""
    if not console.is_terminal and console.width < 100:
        console.width = 100


def print_comparison(found: Sequence[Json], means: Sequence[Mean], cautions: Sequence[str]) -> None:
    """Loops as rows; below them the means of those that are of one kind, and the baselines' where a loop improved."""
    console = Terminal(file=sys.stdout)
    _widen(console)
    narrow = console.width < NARROW
    units = {row["unit"] for row in found}
    unit = units.pop() if len(units) == 1 else "bits, by each task's own unit"
    table = Table(title=f"{unit}, lower is better", title_justify="left", show_edge=not narrow, pad_edge=not narrow)
    for name in ("loop", "improver", "adopted", "starter", "champion", "final gain", "trained", "end"):
        table.add_column(name, overflow="fold", no_wrap=name == "loop")
    for row in found:
        table.add_row(*_comparison_cells(row))
    console.print(table)
    for row in found:
        if row["final_failed"]:
            line = f"{row['loop']}: final, {row['final_failed']}"
            console.print(line, soft_wrap=not console.is_terminal)
    for mean in means:
        if mean.gain is not None:
            line = f"{mean.of}: final gain {mean.gain.text('+')} over {mean.gain.n} of {mean.loops} loops"
            console.print(line, soft_wrap=not console.is_terminal)
    for beside in dict.fromkeys(row["baselines"]["line"] for row in found if row["baselines"] is not None):
        console.print(beside, soft_wrap=not console.is_terminal)
    for line in cautions:
        console.print(line, style="dim", soft_wrap=not console.is_terminal)


def _comparison_cells(row: Json) -> list[str]:
    def bits(found: Json) -> str:
        return "–" if found is None else f"{found['mean']:.3f}"

    gain = row["final_gain"]
    return [
        row["loop"],
        row["improver"],
        f"{row['adopted']} of {row['generations']}",
        bits(row["starter"]),
        bits(row["champion"]),
        "–" if gain is None else interval_text(Interval(**gain), sign="+"),
        f"{row['train_seconds']:.0f} s",
        "still open" if row["ended"] is None else str(row["ended"]),
    ]
