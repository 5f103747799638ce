"""The owner's books: every effect is reserved here before it happens and settled here after.

Joins the ledger (truth), the state folded from it, the blobs and the bounds. One lock makes "admit, then record the
intent" a single step, so that two trials side by side cannot both take the last second of a bound.

Not here: what the effects are (steps) and who may ask for them (gateway, session).
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping

from bellglass import bounds as bounds_
from bellglass.bounds import Bounds, Left
from bellglass.errors import BoundReached
from bellglass.records import CallKey, Cost, Json, Trial
from bellglass.store.blobs import Blobs
from bellglass.store.ledger import Event, Ledger
from bellglass.store.state import State, apply, fold, to_json

Listener = Callable[[Event], None]
CLOCK_EVERY_SECONDS = 10.0


class Books:
    def __init__(self, ledger: Ledger, blobs: Blobs, bounds: Bounds, listener: Listener | None = None) -> None:
        self.ledger, self.blobs, self.bounds = ledger, blobs, bounds
        self.state: State = fold(ledger.events())
        self._listener = listener
        self._lock = threading.RLock()
        self._clock_from = time.monotonic()

    def record(self, kind: str, *, answers: int | None = None, **body: Json) -> Event:
        """Append one event and apply it. `answers` is the inbox request that it disposes of."""
        with self._lock:
            event = self.ledger.append(kind, body, answers)
            apply(self.state, event)
        if self._listener is not None:
            self._listener(event)
        return event

    def tick(self, *, at_least: float = CLOCK_EVERY_SECONDS) -> None:
        """Book the wall time that passed, so that a wall bound holds over interruptions; then enforce it."""
        passed = time.monotonic() - self._clock_from
        if passed >= at_least:
            self._clock_from += passed
            self.record("loop.clock", wall_seconds=round(passed, 3))
        bounds_.admit_wall(self.bounds, self.state.wall_seconds)

    def tick_quietly(self) -> None:
        """Book the rest of the wall time as the loop ends, whatever the bound says."""
        with contextlib.suppress(BoundReached):
            self.tick(at_least=0.0)

    def _admit(self, ask: Cost) -> None:
        bounds_.admit(self.bounds, self.state.spent + self.state.burnt, self.state.reserved, ask)

    def left(self) -> Left:
        """What the next ask may take at most."""
        with self._lock:
            return bounds_.left(self.bounds, self.state.spent + self.state.burnt, self.state.reserved)

    # Trials

    def settled_trial(self, trial_id: str) -> Trial | None:
        return self.state.trials.get(trial_id)

    def begin_trials(self, asks: Mapping[str, Cost], intents: Mapping[str, Mapping[str, Json]]) -> None:
        """All of them or none: a bound that holds only some of a batch must not leave reservations behind."""
        with self._lock:
            self._admit(sum(asks.values(), Cost()))
            for trial_id, ask in asks.items():
                self.record("trial.intended", trial_id=trial_id, ask=to_json(ask), **intents[trial_id])

    def end_trial(self, trial: Trial) -> None:
        self.record("trial.settled", **to_json(trial))

    def disturb_trial(self, trial_id: str, **facts: Json) -> None:
        """It fell through no fault of its bundle, and may be run again if the bounds bear what that took."""
        self.record("trial.disturbed", trial_id=trial_id, **facts)
        with self._lock:
            self._admit(Cost())

    # Model calls: ports.CallBook

    def recall(self, key: CallKey, request_sha: str) -> bytes | None:
        """A restarted session asks the same again: it gets the recorded answer and pays nothing."""
        call = self.state.calls.get(name_of(key))
        if call is None or call.request_sha != request_sha or call.reply_sha is None:
            return None
        return self.blobs.get(call.reply_sha)

    def cost_of(self, key: CallKey) -> Cost:
        """Of a settled call; nothing for one that was not made."""
        call = self.state.calls.get(name_of(key))
        return Cost() if call is None else call.cost

    def reserve(self, key: CallKey, model: str, ask: Cost, request: bytes) -> None:
        request_sha = self.blobs.put(request)
        with self._lock:
            self._admit(ask)
            self.record("call.reserved", key=name_of(key), model=model, ask=to_json(ask), request_sha=request_sha)

    def settle(self, key: CallKey, cost: Cost, reply: bytes | None, facts: Mapping[str, Json]) -> None:
        reply_sha = None if reply is None else self.blobs.put(reply)
        self.record("call.settled", key=name_of(key), cost=to_json(cost), reply_sha=reply_sha, facts=dict(facts))

    # After a crash

    def settle_orphans(self) -> int:
        """Effects that were under way when the last owner died. Returns how many there were.

        A model call is settled at its full reservation, as `unknown`: the provider may have charged it. A trial's
        reservation is charged apart as burnt; the trial will be run again under the same id.
        """
        orphans = 0
        for name, intent in list(self.state.open_calls.items()):
            self.record("call.settled", key=name, cost=intent["ask"], reply_sha=None, facts={"outcome": "unknown"})
            orphans += 1
        for trial_id in list(self.state.open_trials):
            self.record("trial.burnt", trial_id=trial_id)
            orphans += 1
        return orphans


def name_of(key: CallKey) -> str:
    return f"g{key.generation}-{key.session}-{key.index}"
