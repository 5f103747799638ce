"""Writes docs/errors.md from the tables of codes: `python docs/make_errors.py`. A test compares the two."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Mapping
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from bellglass import error_codes, errors, records  # noqa: E402

HEAD = """# Errors

Made by `python docs/make_errors.py`; don't edit. An error says what it is about, what was found, what is needed and
what to type next; its last line is its code. Words may change, a code keeps its meaning and its exit status. Where a
loop ends with an error, the ledger's event `loop.ended` carries the code, too. Only the command line's own mistakes (an
unknown option, a value of the wrong kind) have no code: its parser answers them, with exit status 2.

| code | exit status | what it means |
|---|---|---|
"""
FAULTS = """
## Faults of guests and models

They become events, and a loop goes on; the few commands that can't end with exit status 1.

| code | of | what it means |
|---|---|---|
"""
WORD = re.compile(r'^    "(\w+)",  # (.+)$', re.MULTILINE)


def page() -> str:
    classes: list[tuple[type[errors.BellglassError], Mapping[str, str]]] = [
        (errors.UsageError, error_codes.USAGE),
        (errors.SetupError, error_codes.SETUP),
        (errors.BellglassError, error_codes.FAILED),
        (errors.LoopFault, error_codes.LOOP),
        *((kind, {kind.meaning: kind.__doc__ or ""}) for kind in errors.ONE_MEANING),
    ]
    rows = [(code, kind.exit_code, says) for kind, codes in classes for code, says in codes.items()]
    guests = dict(WORD.findall(inspect.getsource(records)))
    faults = [(code, "a guest", guests[code]) for code in records.GUEST_FAULTS]
    faults += [(code, "a model", f"needed: {needed}") for code, needed in errors.MODEL_FAULTS.items()]
    return HEAD + table(sorted(rows)) + FAULTS + table(faults)


def table(rows: list[tuple[str, object, str]]) -> str:
    return "".join(f"| `{code}` | {middle} | {says} |\n" for code, middle, says in rows)


if __name__ == "__main__":
    (HERE / "errors.md").write_text(page())
