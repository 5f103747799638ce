"""A loop followed as it grows: its state, brought up to date from the ledger's new events whenever somebody asks.

Reads alone, takes no lock. A ledger that is damaged or from another version is followed as far as it can be read, and
the document says what is missing. Safe to use from several threads.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path

from bellglass.errors import BellglassError, LoopFault
from bellglass.records import Json
from bellglass.show import showing
from bellglass.store import ours
from bellglass.store.ledger import Event, Ledger


class Following:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._guard = threading.RLock()
        self._ledger: Ledger | None = None
        self._events: list[Event] = []
        self._told: tuple[str, ...] = ()
        self._looked = (-1, "")  # where the ledger's end was when it was last read
        self._shown = showing.shown_at(folder, [])
        self._made: tuple[tuple[int, str], Json] | None = None
        self.document_seconds = 0.0  # of processor time, that the last document took
        self.news()

    def news(self) -> Json:
        """Where the loop is, and its trainings under way. Raises where the ledger cannot be opened at all."""
        with self._guard:
            self._catch_up()
            shown = self._shown
            return {"seq": shown.about.seq, "head": shown.about.head, "live": shown.live.stamp()}

    def document(self) -> Json:
        with self._guard:
            self._catch_up()
            if self._made is None or self._made[0] != self._looked:
                began = time.thread_time()
                self._made = (self._looked, self._shown.document())
                self.document_seconds = time.thread_time() - began
            return self._made[1]

    def shown(self) -> tuple[showing.Shown, Sequence[Event]]:
        """The loop behind the document, and its events; both change when it is looked at again."""
        with self._guard:
            self._catch_up()
            return self._shown, self._events

    def diff(self, number: int) -> Json:
        with self._guard:
            return self._shown.diff(number)

    def session(self, number: int) -> Json:
        with self._guard:
            return self._shown.session(number)

    def curves(self, number: int) -> Json:
        with self._guard:
            return self._shown.curves(number)

    def live_curves(self) -> Json:
        with self._guard:
            self._catch_up()
            return self._shown.live_curves()

    def close(self) -> None:
        with self._guard:
            if self._ledger is not None:
                self._ledger.close()
            self._ledger = None

    def _catch_up(self) -> None:
        if self._ledger is None:
            self._ledger = Ledger.open(self.folder, write=False)
        try:
            end = (self._ledger.last_seq, self._ledger.head)
            if end == self._looked:
                return
            fresh = None if self._told else self._fresh(end[0])
        except BellglassError:  # gone, or another file in its place: the next call opens it anew
            self.close()
            raise
        if fresh is None:
            self._read_anew()
        else:
            self._add(fresh)
        self._looked = end

    def _fresh(self, last: int) -> Sequence[Event] | None:
        """What came behind the events that are known; None: it does not continue them."""
        assert self._ledger is not None
        seq = self._shown.about.seq
        if not 0 < seq < last:
            return None
        try:
            fresh = self._ledger.events(after=seq)
        except LoopFault:
            return None
        return fresh if fresh and fresh[0].prev == self._shown.about.head else None

    def _add(self, fresh: Sequence[Event]) -> None:
        assert self._ledger is not None
        self._events.extend(fresh)
        taken_over = any(event.kind == ours.TAKEN_OVER for event in fresh)
        self._shown = showing.grown(
            self._shown, fresh, self._events, ours.standing_to_show(self._ledger) if taken_over else None
        )

    def _read_anew(self) -> None:
        assert self._ledger is not None
        self._events, fault = self._ledger.sound()
        self._told = showing.damage(self._events, fault)
        self._shown = showing.shown_at(self.folder, self._events, ours.standing_to_show(self._ledger), self._told)
