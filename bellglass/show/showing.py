"""Opening a loop to show it: as far as it can be read, saying what could not be. Never takes a lock, writes nothing.

For deciding and checking use `ledger` and `verify`, which refuse what this module puts up with.

Not covered: whether a received ledger is genuine. A broken chain is said, a forged whole one is not noticed here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bellglass.errors import BellglassError, LoopFault
from bellglass.records import Json
from bellglass.show import summary, transcript, view
from bellglass.store import ours
from bellglass.store.blobs import Blobs
from bellglass.store.ledger import GENESIS, Event, Ledger
from bellglass.store.lineage import MANY, Lineage
from bellglass.store.live_curves import LiveCurves
from bellglass.store.ours import Standing
from bellglass.store.state import State, apply


@dataclass(frozen=True, slots=True)
class Shown:
    """A loop as it was at its last readable event."""

    folder: Path
    state: State
    about: view.About

    @property
    def lineage(self) -> Lineage:
        return Lineage.open(self.folder / "lineage.git")

    @property
    def blobs(self) -> Blobs:
        return Blobs(self.folder / "blobs")

    def document(self) -> Json:
        """What page and report show; LoopFault where another version's events make a state that this one cannot."""
        with of_this_version(self.folder):
            return view.document(self.state, self.about)

    def diff(self, number: int) -> Json:
        """What a generation's successor changed, by file."""
        return self.differ()(number)

    def differ(self) -> Callable[[int], Json]:
        """The same for many generations: the repository is opened, and so looked through, once for all of them."""
        try:
            lineage = Lineage.open(self.folder / "lineage.git", MANY)
        except BellglassError as error:
            return partial(transcript.no_diff, why=error.one_line())

        def diff(number: int) -> Json:
            try:
                with of_this_version(self.folder):
                    return transcript.diff_of(self.state, lineage, number)
            except BellglassError as error:
                return transcript.no_diff(number, error.one_line())

        return diff

    def session(self, number: int) -> Json:
        """Its improver's conversation, call by call."""
        return transcript.session_of(self.state, self.blobs, number)

    def curves(self, number: int) -> Json:
        """What its trainers reported while they trained."""
        return transcript.curves_of(self.state, self.blobs, number)

    @property
    def live(self) -> LiveCurves:
        return LiveCurves(self.folder / "live")

    def live_curves(self) -> Json:
        """What the trainers under way have reported so far."""
        return transcript.live_curves_of(self.state, self.live)


@contextmanager
def of_this_version(folder: Path) -> Iterator[None]:
    """What is made of a state that this version cannot have written ends in one clear error."""
    try:
        yield
    except (LookupError, TypeError, AttributeError, ValueError, ArithmeticError) as error:
        found, name = f"{type(error).__name__} ({error})", folder.name
        raise LoopFault(
            f"showing {name}", found, "a loop of this version", f"bellglass log {name}", code="other_version"
        ) from error


def open_loop(folder: Path) -> Shown:
    """Raises only where there is no ledger at all, or one whose format this version cannot read."""
    return open_with_events(folder)[0]


def open_with_events(folder: Path) -> tuple[Shown, list[Event]]:
    with Ledger.open(folder, write=False) as ledger:
        events, fault = ledger.sound()
        standing = ours.standing_to_show(ledger)
    return shown_at(folder, events, standing, damage(events, fault)), events


def damage(events: Sequence[Event], fault: str) -> tuple[str, ...]:
    """The sentence for what `sound` found wrong behind these events."""
    return (f"the ledger is damaged behind event {len(events)}: {fault}",) if fault else ()


def shown_at(
    folder: Path, events: Sequence[Event], standing: Standing | None = None, told: tuple[str, ...] = ()
) -> Shown:
    """As it was after these events, which begin with the first."""
    state = State()
    skipped = _fold_as_far(events, state)
    return Shown(folder, state, _about(state, events, standing, (*told, *skipped)))


def grown(shown: Shown, fresh: Sequence[Event], events: Sequence[Event], standing: Standing | None = None) -> Shown:
    """The same loop after `fresh`, the last of its `events`. The state is folded on, so what was `shown` is used up."""
    told = (*shown.about.missing, *_fold_as_far(fresh, shown.state))
    standing = standing or shown.about.standing
    return Shown(shown.folder, shown.state, _about(shown.state, events, standing, tuple(dict.fromkeys(told))))


def _fold_as_far(events: Iterable[Event], state: State) -> tuple[str, ...]:
    """Apply what this version understands to `state`; a sentence for each kind of event that it does not."""
    strange: dict[str, int] = {}
    for event in events:
        try:
            apply(state, event)
        except (LoopFault, LookupError, TypeError, AttributeError, ValueError, ArithmeticError):
            strange[event.kind] = strange.get(event.kind, 0) + 1
    return tuple(
        f"{count} event(s) of the kind {kind!r} were written by another version and are not shown"
        for kind, count in strange.items()
    )


def _about(state: State, events: Sequence[Event], standing: Standing | None, told: tuple[str, ...] = ()) -> view.About:
    title, unit = summary.title_and_unit(state)
    return view.About(
        head=events[-1].hash if events else GENESIS,
        seq=events[-1].seq if events else 0,
        title=title,
        unit=unit,
        started=events[0].time if events else None,
        updated=events[-1].time if events else None,
        missing=told,
        standing=standing,
    )
