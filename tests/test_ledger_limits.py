"""A small database with endless rows: pages of a table that name one page again and again, hundreds of times at each
level. Nothing that reads a ledger takes the memory or the time for them; with its limits taken off it does."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import struct
import tracemalloc
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import made_loop
import pytest
from hostile_commands import run
from whose import VARIABLE

from bellglass.errors import LoopFault
from bellglass.store import connections, limits
from bellglass.store.ledger import Ledger

PAGE = 4096
INTERIOR, LEAF = 5, 13  # the first byte of a table's page
CELLS = (PAGE - 12) // 7  # a cell of five bytes and its place of two


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_loop.write(tmp_path_factory.mktemp("made"), 1, seed=4)


@pytest.fixture
def loop(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "state"))
    return Path(shutil.copytree(made, tmp_path / made.name))


def without_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "STEPS_MAX", 10**12)
    monkeypatch.setattr(limits, "MEMORY_BYTES_MAX", 10**12)


def root_of(folder: Path, table: str) -> int:
    with closing(sqlite3.connect(folder / "loop.db", isolation_level=None)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return int(db.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (table,)).fetchone()[0])


def endless(folder: Path, table: str, levels: int) -> None:
    """The rows of this table, which fit on one page, CELLS to the power of `levels` times. No row takes more space."""
    root, file = root_of(folder, table), folder / "loop.db"
    pages = bytearray(file.read_bytes())
    at = (root - 1) * PAGE
    assert pages[at] in (LEAF, INTERIOR)
    below = len(pages) // PAGE + 1
    pages += pages[at : at + PAGE]
    for level in range(levels):
        page = _interior(below)
        if level == levels - 1:
            pages[at : at + PAGE] = page
        else:
            below = len(pages) // PAGE + 1
            pages += page
    pages[28:32] = struct.pack(">I", len(pages) // PAGE)
    file.write_bytes(pages)


def _interior(child: int) -> bytes:
    cell = struct.pack(">IB", child, 1)
    places = [PAGE - (index + 1) * len(cell) for index in range(CELLS)]
    head = struct.pack(">BHHHBI", INTERIOR, 0, CELLS, places[-1], 0, child)
    return (head + b"".join(struct.pack(">H", place) for place in places)).ljust(places[-1], b"\0") + cell * CELLS


def post(folder: Path, texts: int) -> None:
    with Ledger.open(folder) as ledger:
        for index in range(10):
            ledger.post("stop", {"reason": "x" * texts, "index": index})


def memory(reading: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        reading()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_small_inbox_takes_no_more_memory_than_it_may(loop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    post(loop, 100)
    endless(loop, "inbox", 1)
    assert (loop / "loop.db").stat().st_size < 200_000
    with Ledger.open(loop) as ledger:
        with monkeypatch.context() as off:
            without_limits(off)
            assert memory(ledger.pending) > 3_000_000
            assert len(ledger.pending()) == 10 * (CELLS + 1)
        monkeypatch.setattr(limits, "MEMORY_BYTES_MAX", 1_000_000)
        assert memory(lambda: refused(ledger.pending)) < 2_000_000


@pytest.mark.parametrize("table", ["events", "inbox", "signatures"])
def test_no_reading_goes_on_for_ever(loop: Path, table: str, monkeypatch: pytest.MonkeyPatch) -> None:
    post(loop, 10)
    endless(loop, table, 4)
    monkeypatch.setattr(limits, "STEPS_MAX", 2_000_000)
    monkeypatch.setattr(limits, "MEMORY_BYTES_MAX", 1_000_000)
    with Ledger.open(loop) as ledger:
        answers = {
            "events": (ledger.marked, ledger.events, ledger.standing),
            "inbox": (ledger.pending,),
            "signatures": (ledger.signatures,),
        }
        for answer in answers[table]:
            refused(answer, {"ledger_too_large", "ledger_damaged"})
        assert ledger.waiting() <= 1000
        assert ledger.sound()[0] is not None


def test_without_its_limit_it_would(loop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes as many steps as it is allowed, however many: a level more holds CELLS times the rows."""
    endless(loop, "events", 3)
    for most in (200_000, 2_000_000):
        monkeypatch.setattr(limits, "STEPS_MAX", most)
        with Ledger.open(loop) as ledger:
            assert refused(ledger.marked) == "rows without end"


@pytest.mark.parametrize("table", ["events", "inbox", "signatures"])
@pytest.mark.parametrize("typed", ["status", "log", "verify", "takeover", "review", "compare", "stop", "resume"])
def test_each_command_ends_on_it(loop: Path, table: str, typed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    post(loop, 10)
    endless(loop, table, 4)
    monkeypatch.setattr(limits, "STEPS_MAX", 2_000_000)
    monkeypatch.setattr(limits, "MEMORY_BYTES_MAX", 1_000_000)
    status, shown = run((typed, str(loop)), monkeypatch)
    assert status in range(7)
    assert "Traceback" not in shown


def test_a_row_may_not_be_large(loop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(sqlite3.connect(loop / "loop.db", isolation_level=None)) as db:
        db.execute("UPDATE events SET body = CAST(zeroblob(?) AS TEXT) WHERE seq = 2", (5 << 20,))
    os.utime(loop / "loop.db", (1000.0, 1000.0))  # at rest, so that the file is read once
    with Ledger.open(loop) as ledger:
        assert memory(lambda: refused(ledger.events)) < 2 << 20
    monkeypatch.setattr(connections, "ROW_BYTES_MAX", 1 << 30)
    with Ledger.open(loop) as ledger:
        assert memory(lambda: refused(ledger.events, {"ledger_damaged"})) > 5 << 20


def test_what_a_row_weighs_is_what_python_takes_for_it() -> None:
    for text in (json.dumps([[]] * 10_000), json.dumps([{}] * 10_000), json.dumps([f"{n:05}" for n in range(10_000)])):
        took = memory(lambda text=text: json.loads(text))
        assert 0.3 * took < limits._weight(text) < 5 * took


def test_a_ledger_of_a_thousand_generations_is_far_below_all_of_it(tmp_path: Path) -> None:
    text = [json.dumps(body) for _, body in made_loop.Maker(100).events()]
    weight = sum(limits.ROW_WEIGHT + limits._weight(body) for body in text)
    assert 10 * weight < limits.MEMORY_BYTES_MAX / 4
    assert 10 * len(text) * 20 < limits.STEPS_MAX / 4


def refused(reading: Callable[[], object], codes: set[str] | None = None) -> str:
    with pytest.raises(LoopFault) as caught:
        reading()
    assert caught.value.code in (codes or {"ledger_too_large"})
    return caught.value.found
