"""Opening a loop to show it: whole, being written, damaged or of another version; and its large texts."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import made_loop
import pytest

from bellglass.errors import LoopFault
from bellglass.show import showing, transcript


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_loop.write(tmp_path_factory.mktemp("made"), 5, texts=True, seed=3)


@pytest.fixture
def copy(loop: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(loop, tmp_path / "copy"))


def change(folder: Path, statement: str) -> None:
    with closing(sqlite3.connect(folder / "loop.db")) as db, db:
        db.execute(statement)


def test_a_whole_loop_opens_with_its_head_title_and_unit(loop: Path) -> None:
    shown = showing.open_loop(loop).document()
    assert (shown["loop"]["unit"], len(shown["loop"]["head"])) == ("bits per byte", 64)
    assert shown["loop"]["started"] <= shown["loop"]["updated"]
    assert shown["missing"] == []


def test_a_damaged_ledger_opens_up_to_the_damage_and_says_where_it_is(copy: Path) -> None:
    change(copy, "UPDATE events SET body = body || ' ' WHERE seq = 40")
    shown = showing.open_loop(copy)
    assert shown.about.seq == 39
    assert any("damaged behind event 39" in line for line in shown.document()["missing"])


def test_events_of_another_version_are_counted_and_passed_over(loop: Path) -> None:
    from bellglass.store.ledger import Event, Ledger

    with closing(Ledger.open(loop)) as ledger:
        events = ledger.events()
    newer = Event(len(events) + 1, 0.0, "loop.dreamt", {}, "", "")
    odd = Event(len(events) + 2, 0.0, "gate.decided", {"generation": 999}, "", "")
    shown = showing.shown_at(loop, [*events, newer, odd, odd])
    told = "\n".join(shown.document()["missing"])
    assert "1 event(s) of the kind 'loop.dreamt'" in told
    assert "2 event(s) of the kind 'gate.decided'" in told


def test_what_is_no_ledger_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LoopFault, match=r"no loop\.db"):
        showing.open_loop(tmp_path)


def test_a_diff_comes_by_file_and_kind(loop: Path) -> None:
    shown = showing.open_loop(loop)
    (file,) = transcript.diff_of(shown.state, shown.lineage, 1)["files"]
    assert (file["path"], file["kind"], file["added"], file["removed"]) == ("trainer/train.py", "optimiser", 1, 1)
    assert file["patch"].splitlines() == ["@@ -1 +1 @@", "-RATE = 1.0", "+RATE = 2.0"]


def test_a_generation_without_a_successor_says_so(loop: Path) -> None:
    shown = showing.open_loop(loop)
    assert "no successor" in transcript.diff_of(shown.state, shown.lineage, 5)["missing"]


def test_a_session_tells_each_message_once(loop: Path) -> None:
    shown = showing.open_loop(loop)
    first, second = transcript.session_of(shown.state, shown.blobs, 2)["calls"]
    assert [message["role"] for message in first["heard"]] == ["user"]
    assert first["reply"]["reasoning"] == ["hmm"]
    assert first["reply"]["calls"] == [{"name": "read_file", "args": {"path": "trainer/train.py"}}]
    assert [(message["role"], message["text"]) for message in second["heard"]] == [("tool", "RATE = 1.0")]


def test_a_lost_blob_is_named_and_the_rest_is_told(copy: Path) -> None:
    shown = showing.open_loop(copy)
    call = shown.state.calls["g2-improve-0"]
    (copy / "blobs" / str(call.reply_sha)[:2] / str(call.reply_sha)).unlink()
    told = transcript.session_of(shown.state, shown.blobs, 2)
    assert told["calls"][0]["reply"] is None
    assert told["calls"][1]["reply"]["calls"][0]["name"] == "submit"
    assert "g2-improve-0" in told["missing"][0]
