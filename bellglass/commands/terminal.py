"""The one way to a terminal. Whatever a command shows goes through `say`, or through `Terminal` in console.py. Both
spell out each character that a terminal would act on or hide; our own colours are added behind that.

No other module prints; `tests/test_hostile_terminal.py` holds them to it. Not covered: what a library prints by itself,
and lines that only look like ours, since a text may hold line ends.
"""

from __future__ import annotations

import sys
import traceback
from types import TracebackType
from typing import TextIO

from bellglass.visible import visible


def say(text: object, *, err: bool = False) -> None:
    """Data to stdout; with `err`, what a person is told beside it to stderr. Flushed, for whoever follows in a pipe."""
    stream = sys.stderr if err else sys.stdout
    print(_for(stream, str(text)), file=stream, flush=True)


def say_exactly(text: str) -> None:
    """A whole document to stdout, without a line end more."""
    sys.stdout.write(_for(sys.stdout, text))


def say_fault(kind: type[BaseException], error: BaseException, at: TracebackType | None) -> None:
    """A mistake of ours, as Python shows it: its message may quote a loop."""
    say("".join(traceback.format_exception(kind, error, at)).rstrip(), err=True)


def _for(stream: TextIO, text: str) -> str:
    """A stream of few characters, such as ASCII, gets the rest spelled out, too: no command fails over a dash."""
    encoding = stream.encoding or "utf-8"  # a test's has none
    return visible(text).encode(encoding, "backslashreplace").decode(encoding)
