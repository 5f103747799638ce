"""A loop as one file that can be sent around and played back without compute: `pack` makes it, `load` reads it.

The file is a zip: `recording.json` (what it is), `events.jsonl` (the ledger, with its hashes), `document.json` (the
loop as it was at the end, for readers without bellglass), and for each generation `diffs/N.json`, `sessions/N.json` and
`curves/N.json`. A loop's secret is in it only when the ledger has revealed it; weights and bundles are not in it.

A recording may come from anybody: members are read by the names expected here and no other, never unpacked to disk,
each up to a cap, as strict JSON; nothing in it is executed. What it shows is what its maker wrote: a whole chain says
that no event was altered in between, not that the loop ever ran.

Not covered: a person who takes a recording for evidence. `verify` needs the loop's folder.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import re
import threading
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from bellglass import __version__, strict_json
from bellglass.errors import LoopFault, UsageError
from bellglass.paths import written_anew
from bellglass.records import Json
from bellglass.show import showing, transcript
from bellglass.store import ours
from bellglass.store.chain import body_from
from bellglass.store.ledger import GENESIS, Event, Ledger, canonical, digest
from bellglass.store.ours import Standing

FORMAT = 1
SUFFIX = ".bellglass"
NAME = re.compile(r"(recording\.json|events\.jsonl|document\.json|(diffs|sessions|curves)/[1-9][0-9]{0,5}\.json)")
MOST_MEMBERS = 30_000
# A kilobyte can unpack to a megabyte, which as JSON can take twenty. The shipped loop has 50 kB of events a generation.
MOST_BYTES = {"events.jsonl": 128 << 20}
MOST_OTHER_BYTES = 32 << 20
MOST_LINE_BYTES = 4 << 20  # of one event
LONGEST_GAP_SECONDS = 120.0  # a pause between two events is played no longer than this
WHEN = (2025, 1, 1, 0, 0, 0)  # the same loop makes the same file
RECEIVED = Standing("received", "recording", "a recording: it shows what its maker wrote")
FOLDERS = {"diff": "diffs", "session": "sessions", "curves": "curves"}


# Packing


def pack(folder: Path, target: Path) -> tuple[int, tuple[str, ...]]:
    """Writes the recording; returns its size and what could not be put in."""
    with written_anew(target, "bellglass pack -o FILE") as file:
        missing = pack_into(folder, file)
    return target.stat().st_size, missing


def played(folder: Path) -> Recording:
    """A loop's own folder as a recording."""
    packed = io.BytesIO()
    pack_into(folder, packed)
    with Ledger.open(folder) as ledger:
        return load(packed, folder.name, ours.standing_to_show(ledger))


def pack_into(folder: Path, file: IO[bytes]) -> tuple[str, ...]:
    shown, events = showing.open_with_events(folder)
    document = shown.document()
    about = {
        "format": FORMAT,
        "made_by": f"bellglass {__version__}",
        "loop": shown.state.loop_id,
        "events": len(events),
        "head": shown.about.head,
        "missing": list(shown.about.missing),
    }
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        _write(archive, "recording.json", about)
        _write(archive, "document.json", document)
        lines = (json.dumps([e.seq, e.time, e.kind, e.body, e.prev, e.hash]) for e in events)
        archive.writestr(_info("events.jsonl"), "\n".join(lines) + "\n")
        missing = list(document["missing"])
        diff = shown.differ()
        for number in shown.state.generations:
            for what, text in (("diff", diff), ("session", shown.session), ("curves", shown.curves)):
                try:
                    found = text(number)
                    _write(archive, f"{FOLDERS[what]}/{number}.json", found)
                    if what != "diff" or shown.state.generation(number).successor is not None:
                        missing += _lost(f"the {what} of generation {number}", found["missing"])
                except (LookupError, TypeError, AttributeError, ValueError) as error:  # a record that is not ours
                    missing.append(f"the {what} of generation {number} cannot be read ({type(error).__name__})")
    return tuple(missing)


def _lost(what: str, missing: str | list[str]) -> Iterator[str]:
    """One line for what a text says it lacks."""
    said = [missing] if isinstance(missing, str) else missing
    if any(said):
        yield f"{what}: {said[0]}" + (f"; and {len(said) - 1} more" if len(said) > 1 else "")


def _write(archive: zipfile.ZipFile, name: str, value: Json) -> None:
    archive.writestr(_info(name), json.dumps(value, separators=(",", ":")))


def _info(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, WHEN)
    info.compress_type = zipfile.ZIP_DEFLATED
    info.external_attr = 0o644 << 16
    return info


# Playing


class Recording:
    """A loop at any of its events. Safe to use from several threads; close it at the end."""

    def __init__(
        self,
        name: str,
        archive: zipfile.ZipFile,
        events: Sequence[Event],
        told: tuple[str, ...],
        standing: Standing = RECEIVED,
    ) -> None:
        self.name = name
        self._archive, self._events, self._told, self._standing = archive, events, told, standing
        self._guard = threading.RLock()
        self._stored = _stored_document(archive, name)
        self._shown = showing.shown_at(Path(name), events[:1], standing, told)

    @property
    def last(self) -> int:
        return len(self._events)

    def document(self, at: int | None = None) -> Json:
        """As it was after event `at`; by default after the first, where playing begins."""
        at = min(max(1 if at is None else at, 1), self.last)
        with self._guard:
            self._go(at)
            made = self._shown.document()
        loop, end = made["loop"], self._stored.get("loop", {})
        # What its task is called and what baselines reached was known where it ran, not necessarily here.
        known = {key: end[key] for key in ("title", "unit") if isinstance(end.get(key), str)}
        beside = {"baselines": self._stored["baselines"]} if "baselines" in self._stored else {}
        return {**made, **beside, "loop": {**loop, **known}}

    def times(self) -> list[float]:
        """When each event happens, in seconds from the first, long pauses shortened."""
        seconds, total, before = [], 0.0, self._events[0].time
        for event in self._events:
            total += min(max(event.time - before, 0.0), LONGEST_GAP_SECONDS)
            before = event.time
            seconds.append(round(total, 2))
        return seconds

    def diff(self, number: int) -> Json:
        return self._text(f"diffs/{number}.json") or transcript.no_diff(number, "not recorded")

    def session(self, number: int) -> Json:
        empty = {"generation": number, "calls": [], "printed": [], "missing": ["not recorded"]}
        return self._text(f"sessions/{number}.json") or empty

    def curves(self, number: int) -> Json:
        return self._text(f"curves/{number}.json") or {"generation": number, "series": [], "missing": ["not recorded"]}

    def close(self) -> None:
        self._archive.close()

    def _go(self, at: int) -> None:
        """Forwards from where it is; backwards from the start, because a fold has no way back."""
        now = self._shown.about.seq
        if at == now:
            return
        if at < now:
            self._shown = showing.shown_at(self._shown.folder, self._events[:at], self._standing, self._told)
            return
        self._shown = showing.grown(self._shown, self._events[now:at], self._events[:at])

    def _text(self, name: str) -> Json:
        with self._guard:
            if name not in self._archive.namelist():
                return None
            found = _json(self._archive, name, self.name)
        return found if isinstance(found, dict) else None


def load(source: Path | IO[bytes], name: str = "", standing: Standing = RECEIVED) -> Recording:
    """`standing`: that of the loop, where who asks has just packed it."""
    name = name or (source.name if isinstance(source, Path) else "recording")
    try:
        archive = zipfile.ZipFile(source)
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise _not_one(name, str(error)) from error
    try:
        _check_names(archive, name)
        about = _json(archive, "recording.json", name)
        if not isinstance(about, dict) or not isinstance(about.get("format"), int):
            raise _not_one(name, "no format in recording.json")
        if about["format"] > FORMAT:
            found = f"format {about['format']}, from a newer bellglass"
            update = "git pull in a checkout, else pip install --upgrade bellglass"
            raise LoopFault(f"recording {name}", found, f"format {FORMAT}", update, code="newer_format")
        events, told = _events(archive, name)
        if not events:
            raise _not_one(name, "; ".join(told) or "no event")
        packed = about.get("missing")
        said = [line for line in packed if isinstance(line, str)] if isinstance(packed, list) else []
        told = (*told, *(line for line in said if line.startswith("the ledger")))
        return Recording(name, archive, events, told, standing)
    except BaseException:
        archive.close()
        raise


def is_recording(path: Path) -> bool:
    """Whether to take this path for a recording; reading it says whether it is one."""
    return path.is_file()


def speed_of(text: str) -> float:
    """`60x` or `60` -> 60.0"""
    digits = text.removesuffix("x")
    try:
        speed = float(digits)
    except ValueError:
        speed = math.nan
    if not 0.1 <= speed <= 100_000:
        raise UsageError("--play", repr(text), "a speed such as 60x", "the same with --play 60x", code="option_invalid")
    return speed


def _check_names(archive: zipfile.ZipFile, name: str) -> None:
    names = archive.namelist()
    strange = [one for one in names if NAME.fullmatch(one) is None]
    if len(names) > MOST_MEMBERS or len(set(names)) != len(names) or strange:
        raise _not_one(name, f"a member {strange[0]!a:.80}" if strange else f"{len(names)} members, or one twice")


def _read(archive: zipfile.ZipFile, member: str, name: str) -> bytes:
    """Not longer than its cap, whatever the archive says about its size."""
    most = MOST_BYTES.get(member, MOST_OTHER_BYTES)
    with _opened(archive, member, name) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise _too_large(name, member, most)
    return data


def _lines(archive: zipfile.ZipFile, member: str, name: str) -> Iterator[bytes]:
    """One at a time: a member of nothing but line ends would else be a list of half a billion lines."""
    most, read = MOST_BYTES[member], 0
    with _opened(archive, member, name) as file:
        while line := file.readline(MOST_LINE_BYTES + 1):
            read += len(line)
            if len(line) > MOST_LINE_BYTES or read > most:
                raise _too_large(name, member, most)
            yield line


def _too_large(name: str, member: str, most: int) -> LoopFault:
    return _not_one(name, f"{member} is larger than {most >> 20} MB, or has a line over {MOST_LINE_BYTES >> 20} MB")


@contextlib.contextmanager
def _opened(archive: zipfile.ZipFile, member: str, name: str) -> Iterator[IO[bytes]]:
    try:
        with archive.open(member) as file:
            yield file
    except KeyError:
        raise _not_one(name, f"no {member}") from None
    except (OSError, EOFError, RuntimeError, NotImplementedError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise _not_one(name, f"{member}: {error}") from error


def _json(archive: zipfile.ZipFile, member: str, name: str) -> Json:
    try:
        return strict_json.loads(_read(archive, member, name))
    except ValueError as error:
        raise _not_one(name, f"{member}: {error}") from error


def _events(archive: zipfile.ZipFile, name: str) -> tuple[list[Event], tuple[str, ...]]:
    """Those whose chain holds, from the first on."""
    found: list[Event] = []
    prev = GENESIS
    for line in _lines(archive, "events.jsonl", name):
        event = _event(line, len(found) + 1, prev)
        if event is None:
            return found, (f"the recording is damaged behind event {len(found)}",)
        found.append(event)
        prev = event.hash
    return found, ()


def _event(line: bytes, seq: int, prev: str) -> Event | None:
    """None: it does not follow the one before."""
    try:
        values: Any = body_from(line.decode("utf-8"))
        number, when, kind, body, before, hash_ = values
        right = (type(number), type(kind), type(body)) == (int, str, dict) and isinstance(when, float)
        if not right or not math.isfinite(when) or (number, before) != (seq, prev):
            return None
        text = canonical(body)
        if hash_ != digest(number, when, kind, text, before):
            return None
        return Event(number, when, kind, body, before, hash_)
    except (ValueError, TypeError, RecursionError):
        return None


def _stored_document(archive: zipfile.ZipFile, name: str) -> dict[str, Json]:
    try:
        found = _json(archive, "document.json", name)
    except LoopFault:  # only beside what the events say
        return {}
    return found if isinstance(found, dict) and isinstance(found.get("loop"), dict) else {}


def _not_one(name: str, found: str) -> LoopFault:
    return LoopFault(
        f"recording {name}", found, "a file that bellglass pack made", "bellglass pack LOOP", code="recording_damaged"
    )
