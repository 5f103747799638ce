"""Every command of `bellglass` as it is typed on a loop or recording that an attacker made, and what it then shows.

The commands are those that the command line has: a new one without a case here fails `test_hostile.py`.
"""

from __future__ import annotations

import contextlib
import functools
import io
import signal
import sys
from collections.abc import Iterator

import pytest
import typer

from bellglass import cli

STATUSES = {0, 1, 2, 3, 4, 5, 6}
RESULTS = "{result}"  # a file or folder beside the loop
SERVED, TILL_INTERRUPTED = "served", "till interrupted"
STARTS = ("--loops", "{home}", "--generations", "1")

# command -> how it is typed on a loop or recording; a word instead: how test_hostile.py tries it
CASES: dict[str, list[tuple[str, ...]] | str] = {
    "demo": TILL_INTERRUPTED,
    "run": [
        ("run", *STARTS, "--preset", "tiny", "--glass", "docker"),  # which is silent; one that starts is tried apart
        ("run", "{loop}/task", *STARTS, "--preset", "none", "--glass", "process"),
    ],
    "calibrate": TILL_INTERRUPTED,
    "resume": [("resume", "{loop}"), ("resume", "{loop}", "--wandb", "offline", "--task", "{loop}/task")],
    "status": [("status", "{loop}"), ("status", "{loop}", "--json"), ("status", "--loops", "{home}")],
    "log": [("log", "{loop}"), ("log", "{loop}", "--json")],
    "diff": [("diff", "{loop}"), ("diff", "{loop}", "1"), ("diff", "{loop}", "77")],
    "watch": SERVED,
    "report": [
        ("report", "{loop}"),
        ("report", "{loop}", "--format", "md", "-o", "-"),
        ("report", "{loop}", "--format", "svg", "-o", RESULTS),
    ],
    "compare": [("compare", "{loop}"), ("compare", "--loops", "{home}", "--json")],
    "pack": [("pack", "{loop}", "-o", RESULTS)],
    "tasks": [("tasks", "--json"), ("tasks", "{loop}/nothing")],
    "export csv": [("export", "csv", "{loop}"), ("export", "csv", "{loop}", "-o", RESULTS)],
    "export wandb": [("export", "wandb", "{loop}", "--offline", "-o", RESULTS)],
    "review": [
        ("review", "{loop}"),
        ("review", "{loop}", "--decision", "approve", "--evidence", "ab" * 32, "--reason", "x"),
        ("review", "{loop}", "--rearm", "leak", "--reason", "x"),
    ],
    "stop": [("stop", "{loop}", "--patience", "0.1"), ("stop", "{loop}", "--now")],
    "verify": [
        ("verify", "{loop}"),
        ("verify", "{loop}", "--json", "--head", "0" * 64),
        ("verify", "{loop}", "--rejudge"),
        ("verify", "{loop}", "--rejudge", "--task", "{loop}"),
    ],
    "recheck": [("recheck", "{loop}", "1"), ("recheck", "{loop}", "1", "--exact", "--json")],
    "takeover": [("takeover", "{loop}")],
    "doctor": [("doctor", "--json")],
    "image build": [("image", "build", "--wheels", "{loop}")],
}


def commands(group: object, before: str = "") -> Iterator[str]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{before}{name} ")
        else:
            yield before + name


parser = functools.cache(typer.main.get_command)
TYPED = [words for cases in CASES.values() if isinstance(cases, list) for words in cases]


def run(words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> tuple[int, str]:
    """As it is typed: the status, and all that a terminal would be shown. A traceback fails the test."""
    shown = io.StringIO()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    monkeypatch.setattr(typer.main, "get_command", parser)  # made anew, it would be the most of what this costs
    monkeypatch.setattr(sys, "argv", ["bellglass", *words])
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(shown):
        try:
            cli.main()
            status = 0
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 0 if end.code is None else 99
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
    return status, shown.getvalue()


def unacted(text: str) -> str:
    """The characters in it that a terminal would act on."""
    odd = {sign for sign in text if sign not in "\n\t" and (ord(sign) < 32 or 127 <= ord(sign) < 160)}
    return "".join(sorted(odd | {sign for sign in text if sign in "\u202a\u202b\u202d\u202e\u2066\u2067\u2068"}))
