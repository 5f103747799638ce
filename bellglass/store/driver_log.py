"""A loop's `driver.log`: what its driver did and when, for a person who has to find out why a loop stands still.

A line for each event of the ledger that moves the loop on, for each phase of a trial, for what is tried again; and for
the error that ended it, with the places in the code. `kill -USR1 PID` asks a driver where it stands: the stacks of all
its threads are written here, even while Python itself hangs.

It holds the host's own words, ids and numbers alone: `TOLD` is the whole rule for events. What a model, a guest or a
person wrote is left out, and of an error that is none of ours only the kind is told, because its message may quote
anything. Nothing reads this file, and where it can't be written the loop goes on without.

Only a loop's owner writes it, never through a link. When it is full it is renamed, and the oldest is dropped.

Not covered: what happens before a loop is owned, and in the guests; two loops in one process, whose lines would mix.
"""

from __future__ import annotations

import errno
import faulthandler
import logging
import os
import platform
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from logging.handlers import BaseRotatingHandler
from pathlib import Path

from bellglass import __version__
from bellglass.errors import BellglassError, GuestFault, ModelFault
from bellglass.records import Json
from bellglass.store.chain import Event
from bellglass.store.folder import LOG_NAME, open_written
from bellglass.visible import visible

MOST_BYTES = 2_000_000  # of one file: some two hundred generations
OLDER = 2  # files beside the one that is written
LINE_CHARS, VALUE_CHARS = 600, 200
OTHERS_WORDS = (GuestFault, ModelFault)  # of ours, and yet their details quote guests and providers

LOG = logging.getLogger("bellglass")  # as long as no log is open, what is told to it goes nowhere

TOLD: dict[str, tuple[str, ...]] = {  # kind of event -> what is told of it; others are not told
    "loop.resumed": (),
    "loop.taken_over": (),
    "loop.calibrated": ("measured", "trial_seconds"),
    "loop.ended": ("why", "code"),
    "glass.opened": ("glass", "sealed"),
    "generation.started": ("generation", "parent"),
    "session.started": ("generation",),
    "proposal.made": ("generation", "successor", "fault"),
    "trial.intended": ("trial_id",),
    "trial.settled": ("trial_id", "fault", "train_seconds", "wall_seconds", "judge_seconds"),
    "trial.burnt": ("trial_id",),
    "trial.disturbed": ("trial_id", "owner", "why", "last"),
    "call.reserved": ("key", "model"),
    "call.settled": ("key", "facts.outcome"),
    "boot.checked": ("generation", "ok", "fault"),
    "gate.decided": ("generation", "gate.decision"),
    "generation.watched": ("generation", "alarms"),
    "champion.retrained": ("generation", "alarms"),
    "tripwire.fired": ("name", "generation"),
    "tripwire.rearmed": ("name",),
    "review.requested": ("generation",),
    "review.decided": ("generation", "decision"),
    "generation.ended": ("generation", "trainer", "scaffold"),
    "final.opened": (),
    "stop.requested": (),
    "request.refused": ("code",),
}


@contextmanager
def opened(folder: Path) -> Iterator[None]:
    """For the loop's owner, while it owns the loop. An error that passes through is told, and goes on."""
    file = _file(folder / LOG_NAME)
    before, threading.excepthook = threading.excepthook, _thread_fault
    LOG.addHandler(file)
    LOG.setLevel(logging.INFO)
    try:
        LOG.info("driver begins: pid %d, bellglass %s, Python %s", os.getpid(), __version__, platform.python_version())
        yield
        LOG.info("driver ends")
    except BaseException as error:
        _tell_fault("driver ends by", error)
        raise
    finally:
        LOG.setLevel(logging.NOTSET)
        LOG.removeHandler(file)
        threading.excepthook = before
        faulthandler.unregister(signal.SIGUSR1)
        with suppress(OSError):  # a full disk: the ledger says it, where it matters
            file.close()


def listening(listener: Callable[[Event], None] | None) -> Callable[[Event], None]:
    """The same listener to a ledger's events, behind this log."""

    def both(event: Event) -> None:
        if event.kind in TOLD:
            said = [f"{name} {_value(event.body, name)}" for name in TOLD[event.kind]]
            LOG.info("%s", ": ".join([event.kind, *([", ".join(said)] if said else [])]))
        if listener is not None:
            listener(event)

    return both


def following(progress: Callable[[str, str], None]) -> Callable[[str, str], None]:
    """The same for the phases of trials."""

    def both(trial_id: str, word: str) -> None:
        LOG.info("%s: %s", trial_id, word)
        progress(trial_id, word)

    return both


def _value(body: Json, name: str) -> str:
    for part in name.split("."):
        body = body.get(part) if isinstance(body, dict) else None
    return "none" if body is None else str(body)[:VALUE_CHARS]


# Errors


def _tell_fault(what: str, error: BaseException) -> None:
    """With what it came from, and where in the code each was raised."""
    shown: set[int] = set()
    now: BaseException | None = error
    while now is not None and id(now) not in shown:
        shown.add(id(now))
        LOG.error("%s %s", what, _named(now))
        for place in traceback.extract_tb(now.__traceback__):
            LOG.error("at %s:%s in %s", "/".join(Path(place.filename).parts[-3:]), place.lineno, place.name)
        now, what = now.__cause__ or (None if now.__suppress_context__ else now.__context__), "which came from"


def _named(error: BaseException) -> str:
    kind = type(error).__name__
    if isinstance(error, OTHERS_WORDS):
        return f"{kind} {error.code}"
    if isinstance(error, BellglassError):
        return f"{kind} {error.code}: {error.said()}"
    if isinstance(error, OSError) and error.errno is not None:
        return f"{kind} {errno.errorcode.get(error.errno, error.errno)}"
    return kind


def _thread_fault(hook: threading.ExceptHookArgs) -> None:
    name = hook.thread.name if hook.thread else "a thread"
    if hook.exc_value is not None:
        _tell_fault(f"thread {name} ended by", hook.exc_value)
    threading.__excepthook__(hook)


# The file


class _Lines(logging.Formatter):
    """One line each, whatever it holds."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s.%(msecs)03dZ %(levelname)s %(threadName)s %(message)s", "%Y-%m-%dT%H:%M:%S")
        self.converter = time.gmtime

    def format(self, record: logging.LogRecord) -> str:
        return visible(" ".join(super().format(record).split()))[:LINE_CHARS]


class _Rotating(BaseRotatingHandler):
    """The library's own opens by name, which follows links, and closes before it opens anew: a signal that came in
    between would find no file."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "a")
        self.setFormatter(_Lines())

    def _open(self) -> TextIOWrapper:
        stream = os.fdopen(open_written(Path(self.baseFilename), os.O_APPEND), "a", encoding="utf-8")
        faulthandler.register(signal.SIGUSR1, stream)
        return stream

    def shouldRollover(self, record: logging.LogRecord) -> bool:
        return self.stream is not None and os.fstat(self.stream.fileno()).st_size >= MOST_BYTES

    def doRollover(self) -> None:
        full, path = self.stream, self.baseFilename
        for number in range(OLDER, 0, -1):
            with suppress(FileNotFoundError):
                os.replace(f"{path}.{number - 1}" if number > 1 else path, f"{path}.{number}")
        self.stream = self._open()
        if full is not None:
            full.close()

    def handleError(self, record: logging.LogRecord) -> None:
        """A full disk: the ledger says it, where it matters."""


def _file(path: Path) -> logging.Handler:
    """Where no log can be written, stacks go to stderr, and lines nowhere."""
    try:
        return _Rotating(path)
    except OSError:
        with suppress(OSError, ValueError, RuntimeError, AttributeError):  # no stderr, or one that is no file
            faulthandler.register(signal.SIGUSR1, sys.stderr)
        return logging.NullHandler()
