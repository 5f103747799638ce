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
from bellglass.show.notebook import BESIDE, Loop
from bellglass.visible import visible

Row = Sequence[Json]
ELSEWHERE = "bellglass export csv -o FOLDER"
FORMULA = ("=", "+", "-", "@")
INTERVALS = ("raw", "score", "gain", "fitted")
PLAIN = (
    "n", "from", "parent", "successor", "champion", "claim", "measured_by", "gate", "trainer", "scaffold", "why",
    "fault", "trials", "explored", "best_explored", "alarms",
)  # fmt: skip


def write(loop: Loop, folder: Path) -> tuple[list[Path], list[str]]:
    """The files, and what could not be put into them."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SetupError(
            f"the folder {folder}", str(error.strerror), "a place to write to", ELSEWHERE, code="folder_unwritable"
        ) from None
    lost: dict[str, str] = {}  # trial -> why its curves cannot be read
    tables = {"generations": _generations(loop), "trials": _trials(loop), "curves": _curves(loop, lost)}
    files = [_write(folder / f"{name}.csv", rows) for name, rows in tables.items()]
    return files, [*loop.document["missing"], *_lines(lost)]


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
    yield [*loop.document["trials"]["columns"], *BESIDE]
    yield from (list(trial.values()) for trial in loop.trials)


def _curves(loop: Loop, lost: dict[str, str]) -> Iterator[Row]:
    yield ["trial", "metric", "step", "seconds", "value"]
    for trial_id in loop.state.trials:
        try:
            found = loop.curves(trial_id)
        except (BellglassError, ValueError) as error:  # its blob is gone: the others are still worth having
            lost[trial_id] = error.one_line() if isinstance(error, BellglassError) else str(error)
            continue
        for name, points in found.items():
            yield from ([trial_id, name, *point] for point in points)


def _lines(lost: dict[str, str]) -> Iterator[str]:
    """One for all of them: blobs go by the folder."""
    for trial_id, why in list(lost.items())[:1]:
        others = f" and {len(lost) - 1} other trial(s)" if len(lost) > 1 else ""
        yield f"the curves of {trial_id}{others}: {why}"


def _cell(value: Json) -> Json:
    """A spreadsheet takes a text that begins like this for a formula, and some split at semicolons."""
    if not isinstance(value, str):
        return value
    text = " ".join(visible(value).replace(";", ",").split())
    return f"'{text}" if unicodedata.normalize("NFKC", text)[:1] in FORMULA else text
