"""The lineage as an SVG picture: for every generation the claim beside the verdict, its trainer's fate, and below, in
a row of its own, its scaffold's. Pure strings.

Readable without colour (every meaning has its own shape or dash) and on light and dark pages alike (no background, only
middle tones). All text from outside is escaped; there are no scripts, links or fonts to load.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

TEXT, GRID = "#6e7781", "#8b949e55"
VERDICT, CLAIM = "#2f86c8", "#d9730d"  # blue and orange: apart for every common colour vision
SCAFFOLD = "#9467bd"
TOP, LEFT, RIGHT, PLOT_HEIGHT, LINE = 96, 70, 24, 220, 14
SCAFFOLD_ROW, WORDS_ROW = 18, 46  # below the plot
FONT = "font-family='system-ui,-apple-system,Segoe UI,Helvetica,Arial,sans-serif'"
MIN_WIDTH, WIDE_COLUMN, NARROW_COLUMN = 640, 136, 22
MAX_COLUMNS_WIDTH = 1100
WORDS_FROM = 84  # below this column width the words under a generation would overlap: only tool tips then
MAX_WORDS = 5


@dataclass(frozen=True, slots=True)
class Node:
    """One generation. Bits: lower is better. `parent` is the generation it came from; None for the starter."""

    generation: int
    parent: int | None
    claim: float | None
    verdict: float | None  # None: it failed before it could be judged
    low: float | None
    high: float | None
    decision: Literal["starter", "adopt", "reject", "failed"]
    kinds: tuple[str, ...] = ()
    scaffold: str = ""  # what was decided on it, in the ledger's words; nobody decided on the starter's


@dataclass(frozen=True, slots=True)
class _Scale:
    """Where a generation and a number of bits stand in the picture."""

    column: float
    first: int
    low: float
    high: float
    ticks: tuple[float, ...]
    digits: int

    def x(self, generation: int) -> float:
        return LEFT + self.column * (generation - self.first + 0.5)

    def y(self, bits: float) -> float:
        inside = min(self.high, max(self.low, bits))
        return TOP + PLOT_HEIGHT * (self.high - inside) / (self.high - self.low)


def lineage_svg(nodes: Sequence[Node], *, title: str, unit: str = "bits") -> str:
    """The whole picture. `nodes` in order of generation."""
    scale = _scale(nodes)
    columns = max((node.generation for node in nodes), default=0) - scale.first + 1
    width = max(MIN_WIDTH, math.ceil(LEFT + scale.column * columns + RIGHT))
    words = max((min(MAX_WORDS, len(node.kinds)) for node in nodes), default=0) if scale.column >= WORDS_FROM else 0
    height = TOP + PLOT_HEIGHT + WORDS_ROW + 22 + LINE * (words + 1 if scale.column >= WORDS_FROM else 0)
    by_generation = {node.generation: node for node in nodes}
    parts = [
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}' width='{width}' height='{height}'",
        f" role='img' {FONT} font-size='12' fill='{TEXT}'>",
        f"<title>{_text(title)}</title>",
        _label(LEFT - 50, 22, title, size=15, weight=600),
        _legend(LEFT - 50, 46, TRAINER_MARKS),
        _label(LEFT - 50, 72, "scaffold"),
        _legend(LEFT + 12, 68, [(mark, word) for word, mark in SCAFFOLD_MARKS.items()]),
        *_grid(scale, width, unit),
        *(_branch(scale, by_generation[node.parent], node) for node in nodes if node.parent in by_generation),
        *(_mark(scale, node, unit) for node in nodes),
        _label(LEFT - 8, TOP + PLOT_HEIGHT + SCAFFOLD_ROW + 4, "scaffold", anchor="end", size=11),
        _label(LEFT - 8, TOP + PLOT_HEIGHT + WORDS_ROW, "trainer", anchor="end", size=11) if words else "",
        *(_scaffold(scale, node) for node in nodes),
        *(_under(scale, node) for node in nodes),
        "</svg>",
    ]
    return "\n".join(part for part in parts if part) + "\n"


def _scale(nodes: Sequence[Node]) -> _Scale:
    values = _finite([v for node in nodes for v in (node.verdict, node.low, node.high)]) or [0.0, 1.0]
    low, high = min(values), max(values)
    # A claim may be any number. One far away must not squeeze what was measured; it is drawn at the edge.
    reach = 2.0 * max(high - low, 0.1 * abs(high))
    claims = [v for v in _finite([node.claim for node in nodes]) if low - reach <= v <= high + reach]
    low, high = min([low, *claims]), max([high, *claims])
    margin = 0.08 * (high - low) or max(0.05, 0.05 * abs(high))
    low, high = low - margin, high + margin
    step = _step((high - low) / 3)
    ticks = tuple(k * step for k in range(math.ceil(low / step), math.floor(high / step) + 1))
    first = min((node.generation for node in nodes), default=0)
    count = max((node.generation for node in nodes), default=0) - first + 1
    column = min(WIDE_COLUMN, max(NARROW_COLUMN, MAX_COLUMNS_WIDTH / count))
    return _Scale(column, first, low, high, ticks, max(0, -math.floor(math.log10(step) + 1e-9)))


def _finite(values: Sequence[float | None]) -> list[float]:
    return [v for v in values if v is not None and math.isfinite(v)]


def _step(rough: float) -> float:
    """The next smaller of 1, 2, 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(rough))
    return max(factor * power for factor in (1.0, 2.0, 5.0) if factor * power <= rough * (1 + 1e-9))


def _grid(scale: _Scale, width: int, unit: str) -> list[str]:
    lines = [
        f"<line x1='{LEFT}' y1='{scale.y(tick):.1f}' x2='{width - RIGHT}' y2='{scale.y(tick):.1f}' stroke='{GRID}'/>"
        + _label(LEFT - 8, scale.y(tick) + 4, f"{tick:.{scale.digits}f}", anchor="end", size=11)
        for tick in scale.ticks
    ]
    middle = TOP + PLOT_HEIGHT / 2
    lines.append(
        f"<text x='20' y='{middle}' transform='rotate(-90 20 {middle})' text-anchor='middle' font-size='11'>"
        f"{_text(unit)} (lower is better)</text>"
    )
    return lines


def _branch(scale: _Scale, parent: Node, node: Node) -> str:
    """From parent to child: solid and thick when adopted, dashed and thin otherwise."""
    if parent.verdict is None:
        return ""
    end = TOP + 8.0 if node.verdict is None else scale.y(node.verdict)
    style = "stroke-width='2.5'" if node.decision == "adopt" else "stroke-width='1.2' stroke-dasharray='4 4'"
    return (
        f"<line x1='{scale.x(parent.generation):.1f}' y1='{scale.y(parent.verdict):.1f}' "
        f"x2='{scale.x(node.generation):.1f}' y2='{end:.1f}' stroke='{VERDICT}' {style}/>"
    )


def _mark(scale: _Scale, node: Node, unit: str) -> str:
    x = scale.x(node.generation)
    inner = [f"<title>{_text(_tip(node, unit))}</title>"]
    if node.low is not None and node.high is not None and math.isfinite(node.low) and math.isfinite(node.high):
        low, high = scale.y(node.low), scale.y(node.high)
        inner.append(
            f"<path d='M{x:.1f} {low:.1f}V{high:.1f}M{x - 5:.1f} {low:.1f}h10M{x - 5:.1f} {high:.1f}h10' "
            f"stroke='{VERDICT}' stroke-width='1.5' fill='none'/>"
        )
    if node.claim is not None and math.isfinite(node.claim):
        beside, claim = x + min(14.0, scale.column / 3), scale.y(node.claim)
        if node.verdict is not None:  # the thread shows how far a claim is from its verdict
            inner.append(
                f"<path d='M{x:.1f} {scale.y(node.verdict):.1f}L{beside:.1f} {claim:.1f}' stroke='{CLAIM}' "
                f"stroke-dasharray='1 3' stroke-width='1.5'/>"
            )
        inner.append(_diamond(beside, claim))
    if node.verdict is None:
        inner.append(_cross(x, TOP + 8.0))
    else:
        inner.append(_shape(node.decision, x, scale.y(node.verdict)))
    return "<g>" + "".join(inner) + "</g>"


def _shape(decision: str, x: float, y: float) -> str:
    """Adopted (and the starter): a filled circle. Rejected: an open square. Failed: a cross."""
    if decision in ("adopt", "starter"):
        return f"<circle cx='{x:.1f}' cy='{y:.1f}' r='6' fill='{VERDICT}'/>"
    if decision == "failed":
        return _cross(x, y)
    return (
        f"<rect x='{x - 5:.1f}' y='{y - 5:.1f}' width='10' height='10' fill='none' stroke='{VERDICT}' "
        f"stroke-width='2'/>"
    )


def _diamond(x: float, y: float) -> str:
    return f"<path d='M{x:.1f} {y - 6:.1f}l6 6-6 6-6-6z' fill='none' stroke='{CLAIM}' stroke-width='2'/>"


def _cross(x: float, y: float) -> str:
    return f"<path d='M{x - 5:.1f} {y - 5:.1f}l10 10m0-10l-10 10' stroke='{VERDICT}' stroke-width='2.5' fill='none'/>"


def _triangle(fill: str) -> str:
    return f"<path d='M0-5.5l6 10.5h-12z' fill='{fill}' stroke='{SCAFFOLD}' stroke-width='1.5'/>"


TRAINER_MARKS = (
    (_shape("adopt", 0, 0), "verdict, trainer adopted"),
    (_shape("reject", 0, 0), "rejected"),
    (_cross(0, 0), "failed"),
    (_diamond(0, 0), "claim (never decides)"),
    (f"<path d='M0-7V7M-5-7h10M-5 7h10' stroke='{VERDICT}' stroke-width='1.5' fill='none'/>", "interval"),
)
SCAFFOLD_MARKS = {  # by the ledger's words
    "inherited": _triangle(SCAFFOLD),
    "not inherited": _triangle("none"),
    "unchanged": f"<path d='M-5 0h10' stroke='{SCAFFOLD}' stroke-width='1.5'/>",
    "failed boot check": _triangle("none") + f"<path d='M-7 6L7-6' stroke='{SCAFFOLD}' stroke-width='1.5'/>",
}


def _scaffold(scale: _Scale, node: Node) -> str:
    mark = SCAFFOLD_MARKS.get(node.scaffold)
    if mark is None:
        return ""
    x, y = scale.x(node.generation), TOP + PLOT_HEIGHT + SCAFFOLD_ROW
    tip = f"generation {node.generation}, scaffold {node.scaffold}"
    return f"<g transform='translate({x:.1f} {y})'><title>{tip}</title>{mark}</g>"


def _under(scale: _Scale, node: Node) -> str:
    """The words below a generation: its number, the trainer's fate and what it changed."""
    x, y = scale.x(node.generation), TOP + PLOT_HEIGHT + WORDS_ROW
    name = "starter" if node.decision == "starter" else str(node.generation)
    if scale.column < WORDS_FROM:
        every = max(1, math.ceil(46 / scale.column))
        return _label(x, y, name, anchor="middle", size=11) if node.generation % every == 0 else ""
    decided = {"adopt": "adopted", "reject": "rejected", "failed": "failed", "starter": ""}[node.decision]
    weight = 600 if node.decision in ("adopt", "starter") else 400
    lines = [_label(x, y, name if not decided else f"{name} {decided}", anchor="middle", weight=weight)]
    for row, kind in enumerate(node.kinds[:MAX_WORDS], start=1):
        lines.append(_label(x, y + LINE * row, kind, anchor="middle", size=11))
    return "".join(lines)


def _legend(x: float, y: float, entries: Sequence[tuple[str, str]]) -> str:
    """Shapes with their words, in one row."""
    parts, at = [], x + 6
    for shape, words in entries:
        parts.append(f"<g transform='translate({at:.0f} {y})'>{shape}{_label(13, 4, words)}</g>")
        at += 37 + 6.6 * len(words)  # fits the widest of the usual fonts
    return "".join(parts)


def _tip(node: Node, unit: str) -> str:
    """What a pointer over a mark shows."""
    claim = "no claim" if node.claim is None else f"claim {node.claim:.3f}"
    verdict = "no verdict" if node.verdict is None else f"verdict {node.verdict:.3f}"
    if node.low is not None and node.high is not None:
        verdict += f" [{node.low:.3f}, {node.high:.3f}]"
    changed = f"; changed {', '.join(node.kinds)}" if node.kinds else ""
    return f"generation {node.generation}, {node.decision}: {verdict}, {claim} {unit}{changed}"


def _label(x: float, y: float, words: str, *, anchor: str = "start", size: int = 12, weight: int = 400) -> str:
    return (
        f"<text x='{x:.1f}' y='{y:.1f}' text-anchor='{anchor}' font-size='{size}' font-weight='{weight}'>"
        f"{_text(words)}</text>"
    )


def _text(words: str) -> str:
    """Escaped, and without the control characters that XML forbids."""
    return escape("".join(c if c.isprintable() else " " for c in words), quote=True)
