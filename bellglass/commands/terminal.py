"""The one way to a terminal. Whatever a command shows goes through `say`, or through `Terminal` in console.py. Both
spell out each character that a terminal would act on or hide; our own colours are added behind that.

No other module prints; `tests/test_hostile_terminal.py` holds them to it. Not covered: what a library prints by itself,
and lines that only look like ours, since a text may hold line ends.
"""

from __future__ import annotations

import sys
import traceback
from types import TracebackType

from bellglass.store.lineage import visible


def say(text: object, *, err: bool = False) -> None:
    """Data to stdout; with `err`, what a person is told beside it to stderr. Flushed, for whoever follows in a pipe."""
    print(visible(str(text)), file=sys.stderr if err else sys.stdout, flush=True)


def say_exactly(text: str) -> None:
    """A whole document to stdout, without a line end more."""
    sys.stdout.write(visible(text))


def say_fault(kind: type[BaseException], error: BaseException, at: TracebackType | None) -> None:
    """A mistake of ours, as Python shows it: its message may quote a loop."""
    say("".join(traceback.format_exception(kind, error, at)).rstrip(), err=True)
