"""A loop as CSV files, for spreadsheets and other programs: generations, trials, curves. docs/data.md has the columns.

The same numbers as everywhere (view.py). Words that came from a guest are kept from being read as formulas.
"""

from __future__ import annotations

import csv
import io
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from bellglass.errors import BellglassError, SetupError
from bellglass.paths import written_anew
from bellglass.records import Json
from bellglass.show.notebook import Loop
from bellglass.store.lineage import visible

Row = Sequence[Json]
ELSEWHERE = "bellglass export csv -o FOLDER"
FORMULA = ("=", "+", "-", "@")
INTERVALS = ("raw", "score", "gain", "fitted")
PLAIN = (
    "n", "from", "parent", "successor", "champion", "claim", "measured_by", "gate", "trainer", "scaffold", "why",
    "fault", "trials", "explored", "best_explored", "alarms",
)  # fmt: skip


def write(loop: Loop, folder: Path) -> list[Path]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SetupError(f"the folder {folder}", str(error.strerror), "a place to write to", ELSEWHERE) from None
    tables = {"generations": _generations(loop), "trials": _trials(loop), "curves": _curves(loop)}
    return [_write(folder / f"{name}.csv", rows) for name, rows in tables.items()]


def _write(file: Path, rows: Iterable[Row]) -> Path:
    with written_anew(file, ELSEWHERE) as out, io.TextIOWrapper(out, "utf-8", newline="") as text:
        csv.writer(text).writerows([_cell(value) for value in row] for row in rows)
    return file


def _generations(loop: Loop) -> Iterator[Row]:
    starter = {"n": 0, "champion": loop.state.starter, "kinds": [], "cost": {}, **loop.document["starter"]}
    skills = sorted({skill for gen in (starter, *loop.generations) for skill in gen["skills"]})
    costs = ("train_seconds", "calls", "tokens_in", "tokens_out", "usd")
    ends = [f"{name}_{end}" for name in INTERVALS for end in ("mean", "low", "high")]
    yield [*PLAIN, "kinds", *ends, *(f"skill_{skill}" for skill in skills), *costs]
    for gen in (starter, *loop.generations):
        values = [(gen.get(name) or {}).get(end) for name in INTERVALS for end in ("mean", "low", "high")]
        kinds = " ".join(gen["kinds"])
        yield [
            *(gen.get(key) for key in PLAIN), kinds, *values, *(gen["skills"].get(skill) for skill in skills),
            *(gen["cost"].get(key) for key in costs),
        ]  # fmt: skip


def _trials(loop: Loop) -> Iterator[Row]:
    found = loop.document["trials"]
    yield found["columns"]
    yield from found["rows"]


def _curves(loop: Loop) -> Iterator[Row]:
    yield ["trial", "metric", "step", "seconds", "value"]
    for trial_id in loop.state.trials:
        try:
            found = loop.curves(trial_id)
        except (
            BellglassError,
            ValueError,
        ):  # its blob is gone: `verify` says so, and the other curves are still worth having
            continue
        for name, points in found.items():
            yield from ([trial_id, name, *point] for point in points)


def _cell(value: Json) -> Json:
    """A spreadsheet takes a text that begins like this for a formula, and some split at semicolons."""
    if not isinstance(value, str):
        return value
    text = " ".join(visible(value).replace(";", ",").split())
    return f"'{text}" if unicodedata.normalize("NFKC", text)[:1] in FORMULA else text
