"""What a ledger's events are folded into; events of another version are one clear error."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import made_loop
import pytest

from bellglass.errors import LoopFault
from bellglass.records import Json
from bellglass.store.ledger import Event, Ledger
from bellglass.store.state import fold


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> list[Event]:
    folder: Path = made_loop.write(tmp_path_factory.mktemp("made"), 2, seed=5)
    with closing(Ledger.open(folder)) as ledger:
        return list(ledger.events())


def spoilt(events: list[Event], kind: str, change: Callable[[Json], Json]) -> list[Event]:
    """All events up to the first of this kind, and that one changed."""
    at = next(index for index, event in enumerate(events) if event.kind == kind)
    return [*events[:at], replace(events[at], body=change(events[at].body))]


CHANGES: dict[str, tuple[str, Callable[[Json], Json]]] = {
    "lacks one": ("trial.settled", lambda body: {key: value for key, value in body.items() if key != "seeds"}),
    "has one more": ("trial.settled", lambda body: {**body, "mood": "good"}),
    "has one more inside": ("trial.settled", lambda body: {**body, "verdict": {**body["verdict"], "mood": "good"}}),
    "has none": ("generation.started", lambda body: {}),
}


@pytest.mark.parametrize(("kind", "change"), CHANGES.values(), ids=CHANGES.keys())
def test_an_event_with_other_fields_is_one_clear_error(
    events: list[Event], kind: str, change: Callable[[Json], Json]
) -> None:
    fold(spoilt(events, kind, lambda body: body))
    with pytest.raises(LoopFault, match=rf"event \d+ of the ledger; found: {re.escape(kind)} with other fields"):
        fold(spoilt(events, kind, change))


def test_an_event_of_an_unknown_kind_is_one_clear_error(events: list[Event]) -> None:
    with pytest.raises(LoopFault, match=re.escape("kind 'trial.dreamt'")):
        fold([*events, replace(events[-1], kind="trial.dreamt")])


def test_a_loop_begins_once(events: list[Event]) -> None:
    """Else a stranger's loop could go on under the id of one that runs here, and `stop` would end that one's guests."""
    with pytest.raises(LoopFault) as refused:
        fold([*events, replace(events[0], body={**events[0].body, "loop_id": "0000000b"})])
    assert refused.value.code == "other_version"
