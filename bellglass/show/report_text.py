"""The report as Markdown: the same numbers, statistics, safety results and limits, for reading anywhere.

Text from a bundle or a model is put on one line, its control characters spelled out and Markdown's own signs escaped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from bellglass.records import Json
from bellglass.show.report import Report
from bellglass.show.summary import final_text
from bellglass.tripwires import place
from bellglass.visible import visible

SIGNS = re.compile(r"([\\`*_{}\[\]<>#|~!])")


def markdown(report: Report) -> str:
    doc = report.document
    parts = [
        _head(doc),
        _measured(doc),
        _generations(report),
        _skills(doc),
        _safety(report),
        _limits(doc),
        _again(report),
    ]
    return "\n".join(line for part in parts for line in part) + "\n"


def _head(doc: Json) -> Iterator[str]:
    loop = doc["loop"]
    yield f"# {foreign(loop['task'])}, loop {foreign(loop['id'])}"
    yield ""
    seal = "sealed" if loop["sealed"] else "unsealed: plain processes, which isolate nothing"
    models = ", ".join(f"{key}: {value}" for key, value in loop["models"].items())
    yield f"{foreign(loop['title'])}. Glass {foreign(loop['glass'])}, {seal}. Improver {foreign(models)}."
    yield ""
    ended = doc["ended"]
    yield "Still open." if ended is None else f"Ended: {foreign(ended['why'])}, {foreign(ended['detail'])}."
    for line in [*doc["said"], *doc["missing"]]:
        yield f"- {foreign(line)}"
    yield ""


def _measured(doc: Json) -> Iterator[str]:
    unit = foreign(doc["loop"]["unit"])
    yield "## What was measured"
    yield ""
    final = doc["final"]
    if final is not None and final["gain"] is not None:
        clear = "clear of zero" if final["clear"] else "NOT clear of zero"
        told = f"champion better than starter by {interval(final['gain'], '+')} {unit}, {clear}"
        yield f"- final, opened once: {told}" + (f"; {foreign(final['failed'])}" if final["failed"] else "")
    else:
        yield "- final: " + ("not opened" if final is None else foreign(final_text(final, "")))
    yield f"- starter: verdict {interval(doc['starter']['raw'])} {unit}"
    if doc["floor"]:
        yield f"- floor of the champion's documents: {doc['floor']:.4f} {unit}; each set of documents has its own"
    found = doc["calibration"]
    if found is not None:
        yield (
            f"- noise over seeds: {found['sd']:.4f} on {found['df']} degrees of freedom; the smallest gain that "
            f"generation 1 can detect, if that is the noise: {found['smallest_gain']:.3f}"
        )
    if doc["baselines"] is not None:
        yield f"- {foreign(doc['baselines']['line'])}"
    for bound in doc["bounds"]:
        unit = f" {bound['unit']}" if bound["unit"] else ""
        used = "unknown" if bound["used"] is None else f"{bound['used']:g}{unit}"
        limit = ", no limit" if bound["limit"] is None else f" of {bound['limit']:g}{unit}"
        yield f"- {bound['label']}: {used}{limit}"
    yield ""


def _generations(report: Report) -> Iterator[str]:
    doc = report.document
    yield "## Generations"
    yield ""
    yield "Intervals of verdicts are 95% over seeds; those of gains are the gate's own. A claim never decides."
    yield ""
    head = [
        "generation",
        "trainer",
        "scaffold",
        "changed",
        "gain over parent",
        "verdict",
        "claim",
        "fitted to select",
        "trained",
    ]
    yield "| " + " | ".join(head) + " |"
    yield "|---" * len(head) + "|"
    for gen in doc["generations"]:
        cells = (
            str(gen["n"]),
            foreign(gen["trainer"]),
            foreign(gen["scaffold"] or "–"),
            foreign(", ".join(gen["kinds"]) or "–"),
            interval(gen["gain"], "+"),
            interval(gen["raw"]),
            number(gen["claim"]),
            interval(gen["fitted"], "+"),
            f"{gen['cost']['train_seconds']:.0f} s",
        )
        yield "| " + " | ".join(cells) + " |"
    yield ""
    for gen in doc["generations"]:
        yield f"- generation {gen['n']}: {foreign(gen['why'] or gen['gate_why'] or gen['fault'] or 'not decided yet')}"
        yield from _flags(report.diffs.get(gen["n"]))
        if gen["note"]:
            yield f"  - the improver's own words (testimony, not evidence): {foreign(gen['note'])}"
    yield ""


def _flags(diff: Json) -> Iterator[str]:
    for flag in (diff or {}).get("flags", ()):
        places = ", ".join(f"{place['path']}:{place['line']}" for place in flag["places"])
        more = f" and {flag['more']} more" if flag["more"] else ""
        yield f"  - red flag, {foreign(flag['code'])}: {foreign(flag['sentence'])} ({foreign(places)}{more})"


def _skills(doc: Json) -> Iterator[str]:
    measured = [("starter", doc["starter"]["skills"])]
    measured += [(str(gen["n"]), gen["skills"]) for gen in doc["generations"] if gen["skills"]]
    skills = sorted({skill for _, found in measured for skill in found})
    if not skills:
        return
    yield "## Skills"
    yield ""
    yield "Bits above each skill's own floor; lower is better."
    yield ""
    yield "| generation | " + " | ".join(foreign(skill) for skill in skills) + " |"
    yield "|---" * (len(skills) + 1) + "|"
    for name, found in measured:
        yield f"| {name} | " + " | ".join(number(found.get(skill)) for skill in skills) + " |"
    yield ""


def _safety(report: Report) -> Iterator[str]:
    doc, watched = report.document, report.document["oversight"]
    yield "## Safety and oversight"
    yield ""
    for wire in doc["tripwires"]:
        yield f"- TRIPWIRE {foreign(wire['name'])}, {place(wire)}: {foreign(wire['sentence'])}"
    yield f"- tripwires fired: {watched['alarms']}; latched: {len(doc['tripwires'])}"
    yield f"- reviews: {_reviews(watched)}"
    yield f"- adopted without a person's decision: {watched['adopted_without_review']} of {watched['adopted']}"
    looks = doc["looks"]
    if looks is not None:
        sets = f"{looks['confirm']} on {looks['confirm_sets']} sets of documents"
        yield f"- verdicts by split: select {looks['select']}, confirm {sets}, final {looks['final']}"
    for finding in report.findings:
        yield f"- verify, {finding.what}: {finding.mark}, {foreign(finding.found)}"
    yield ""


def _reviews(watched: Json) -> str:
    """In the page's words."""
    rule = {"every": "every successor", "tripwire": "only after a tripwire", "never": "never"}.get(watched["rule"], "–")
    count = watched["decided"]
    people = f" by {foreign(', '.join(watched['people']))}" if watched["people"] else ""
    found = ", ".join(f"{foreign(word)} {number}" for word, number in watched["decisions"].items())
    return f"asked for: {rule}. {count} decision{'' if count == 1 else 's'}{people}{f' ({found})' if found else ''}"


def _limits(doc: Json) -> Iterator[str]:
    for title, lines in (("May be concluded", "may"), ("May not be concluded", "may_not")):
        if doc["conclusions"][lines]:
            yield f"## {title}"
            yield ""
            yield from (f"- {foreign(line)}" for line in doc["conclusions"][lines])
            yield ""


def _again(report: Report) -> Iterator[str]:
    yield "## How to reproduce it"
    yield ""
    yield from (f"    {_line(command)}" for command in report.reproduce["commands"])
    yield ""
    yield from (f"- {foreign(name)}: `{_line(value).replace('`', '')}`" for name, value in report.reproduce["facts"])


def interval(found: Json, sign: str = "") -> str:
    if found is None:
        return "–"
    mean = f"{found['mean']:{sign}.3f}"
    return mean if found["low"] is None else f"{mean} [{found['low']:{sign}.3f}, {found['high']:{sign}.3f}]"


def number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def foreign(text: object) -> str:
    return SIGNS.sub(r"\\\1", _line(text))


def _line(text: object) -> str:
    return visible(" ".join(str(text).split()))
