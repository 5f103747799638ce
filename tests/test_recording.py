"""Recordings: what is packed, what is not, and that a foreign file can do nothing but be refused or shown."""

from __future__ import annotations

import json
import random
import tracemalloc
import zipfile
from contextlib import closing
from pathlib import Path
from typing import Any

import made_loop
import pytest
from source_tree import ROOT

from bellglass.errors import LoopFault, UsageError
from bellglass.show import recording, showing
from bellglass.store.ledger import Ledger, canonical, digest

SHIPPED = ROOT / "docs" / "recordings" / "stories-offline.bellglass"


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_loop.write(tmp_path_factory.mktemp("made"), 3, texts=True, seed=4)


@pytest.fixture(scope="module")
def packed(loop: Path) -> Path:
    target = loop.parent / "loop.bellglass"
    recording.pack(loop, target)
    return target


def members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def rewritten(path: Path, target: Path, **changed: bytes | None) -> Path:
    with zipfile.ZipFile(target, "w") as archive:
        for name, data in {**members(path), **changed}.items():
            if data is not None:
                archive.writestr(name, data)
    return target


def plain(value: Any) -> Any:
    return json.loads(json.dumps(value))


def test_at_every_event_it_shows_what_the_loop_showed_then(loop: Path, packed: Path) -> None:
    with closing(Ledger.open(loop)) as ledger:
        events = ledger.events()
    with closing(recording.load(packed)) as tape:
        assert tape.last == len(events)
        for at in [1, 30, 2, tape.last, 17]:  # forwards and back
            shown = plain(showing.shown_at(loop, events[:at]).document())
            there = plain(tape.document(at))
            assert there["loop"].pop("standing")["code"] == "recording"
            assert there["said"].pop(0).startswith("Received: ")
            assert shown["loop"].pop("standing") is None
            may, conditional = shown["conclusions"].pop("may"), there["conclusions"].pop("may")
            assert [line.lower() for line in conditional[1:]] == [f"by those records, {line}".lower() for line in may]
            assert {**there, "baselines": None} == {**shown, "baselines": None}
        assert tape.document(10**6)["loop"]["seq"] == tape.last
        assert tape.document(0)["loop"]["seq"] == 1


def test_large_texts_come_back_as_they_were(loop: Path, packed: Path) -> None:
    from bellglass.show import transcript

    shown = showing.open_loop(loop)
    with closing(recording.load(packed)) as tape:
        assert tape.diff(1) == plain(transcript.diff_of(shown.state, shown.lineage, 1))
        assert tape.session(2) == plain(transcript.session_of(shown.state, shown.blobs, 2))
        assert tape.curves(3)["series"] == []
        assert tape.diff(77)["missing"] == "not recorded"


def test_the_same_loop_makes_the_same_file(loop: Path, packed: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.bellglass"
    recording.pack(loop, again)
    assert again.read_bytes() == packed.read_bytes()


def test_a_secret_that_is_not_revealed_is_not_in_it(tmp_path: Path) -> None:
    folder = tmp_path / "stories-1"
    secret = ""
    with closing(Ledger.create(folder)) as ledger:
        for kind, body in made_loop.Maker(2).events():
            if kind == "loop.ended":
                secret = body["secret"]
            else:
                ledger.append(kind, body)
    (folder / "secret").write_bytes(bytes.fromhex(secret))
    (folder / "watch.json").write_text('{"token": "not-to-be-sent-around"}')
    recording.pack(folder, tmp_path / "x")
    together = b"".join(members(tmp_path / "x").values())
    assert secret.encode() not in together
    assert bytes.fromhex(secret) not in together
    assert b"not-to-be-sent-around" not in together


def test_pauses_are_played_short_and_time_never_runs_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([1000.0, 1001.5, 90_000.0, 89_000.0, 89_001.0])  # a night's pause, then a clock that was set back
    with closing(Ledger.create(tmp_path / "stories-1")) as ledger:
        for kind, body in list(made_loop.Maker(1).events())[:5]:
            with monkeypatch.context() as patched:
                now = next(clock)
                patched.setattr("time.time", lambda now=now: now)
                ledger.append(kind, body)
    recording.pack(tmp_path / "stories-1", tmp_path / "x")
    with closing(recording.load(tmp_path / "x")) as tape:
        assert tape.times() == [0.0, 1.5, 121.5, 121.5, 122.5]


@pytest.mark.parametrize(
    "name", ["../../evil", "/etc/passwd", "diffs/../x.json", "diffs/01.json", "diffs/1.json.exe", "diffs\\1.json", "x/"]
)
def test_a_member_with_another_name_is_refused(packed: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(LoopFault, match="a member"):
        recording.load(rewritten(packed, tmp_path / "x", **{name: b"{}"}))
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_member_that_is_there_twice_is_refused(packed: Path, tmp_path: Path) -> None:
    copy = rewritten(packed, tmp_path / "x")
    with zipfile.ZipFile(copy, "a") as archive:
        archive.writestr("document.json", "{}")
    with pytest.raises(LoopFault, match="one twice"):
        recording.load(copy)


def test_a_member_beyond_its_cap_is_refused(packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "MOST_OTHER_BYTES", 4 << 20)
    bomb = rewritten(packed, tmp_path / "x", **{"recording.json": b" " * (5 << 20)})
    with pytest.raises(LoopFault, match="larger than 4 MB"):
        recording.load(bomb)


def test_a_small_file_that_unpacks_to_much_takes_little_memory(packed: Path, tmp_path: Path) -> None:
    bomb = rewritten(packed, tmp_path / "x", **{"events.jsonl": b"\n" * (8 << 20)})
    tracemalloc.start()
    try:
        with pytest.raises(LoopFault, match="damaged behind event 0"):
            recording.load(bomb)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_an_event_beyond_its_cap_is_refused(packed: Path, tmp_path: Path) -> None:
    long = b'[1, 1.0, "x", {"a": [' + b"[]," * (2 << 20)
    with pytest.raises(LoopFault, match="a line over 4 MB"):
        recording.load(rewritten(packed, tmp_path / "x", **{"events.jsonl": long}))


@pytest.mark.parametrize("task", [[[]], {}, "./\0", None, 5])
def test_a_recording_whose_task_is_no_name_is_shown_without_one(packed: Path, tmp_path: Path, task: Any) -> None:
    first, *rest = members(packed)["events.jsonl"].splitlines()
    seq, when, kind, body, before, _ = json.loads(first)
    body["task"] = task
    hash_ = digest(seq, when, kind, canonical(body), before)
    changed = json.dumps([seq, when, kind, body, before, hash_]).encode()
    recording.load(rewritten(packed, tmp_path / "x", **{"events.jsonl": b"\n".join([changed, *rest])})).close()


@pytest.mark.parametrize(
    ("name", "data", "match"),
    [
        ("recording.json", b"[]", "no format"),
        ("recording.json", None, r"no recording\.json"),
        ("recording.json", b'{"format": 99}', "newer bellglass"),
        ("recording.json", b'{"format": 1, "x": ' + b"[" * 100_000, "recording.json"),
        ("events.jsonl", None, r"no events\.jsonl"),
        ("events.jsonl", b"", "no event"),
        ("events.jsonl", b"[1,2]\n" + b"[" * 100_000, "damaged"),
    ],
)
def test_what_is_no_recording_is_one_clear_error(
    packed: Path, tmp_path: Path, name: str, data: bytes | None, match: str
) -> None:
    with pytest.raises(LoopFault, match=match):
        recording.load(rewritten(packed, tmp_path / "x", **{name: data}))


def test_an_altered_event_ends_what_is_shown_and_is_said(packed: Path, tmp_path: Path) -> None:
    lines = members(packed)["events.jsonl"].split(b"\n")
    event = json.loads(lines[11])
    event[3]["trial_id"] = "another"
    lines[11] = json.dumps(event).encode()
    with closing(recording.load(rewritten(packed, tmp_path / "x", **{"events.jsonl": b"\n".join(lines)}))) as tape:
        assert tape.last == 11
        assert any("damaged behind event 11" in line for line in tape.document(11)["missing"])


def test_a_file_with_flipped_bytes_is_refused_or_shown_but_never_a_crash(packed: Path, tmp_path: Path) -> None:
    draw, whole, outcomes = random.Random(1), packed.read_bytes(), set()
    for _ in range(120):
        data = bytearray(whole)
        for _ in range(draw.choice((1, 4))):
            data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        (tmp_path / "x").write_bytes(data[: draw.choice((len(data), draw.randrange(len(data))))])
        try:
            with closing(recording.load(tmp_path / "x")) as tape:
                for ask in (tape.document, tape.diff, tape.session, tape.curves):
                    ask(1)
            outcomes.add("shown")
        except LoopFault:
            outcomes.add("refused")
    assert outcomes == {"shown", "refused"}


@pytest.mark.parametrize(("text", "speed"), [("60x", 60.0), ("1", 1.0), ("0.5x", 0.5)])
def test_a_speed_is_a_number_with_or_without_an_x(text: str, speed: float) -> None:
    assert recording.speed_of(text) == speed


@pytest.mark.parametrize("text", ["", "x", "0x", "-1", "nan", "inf", "1e9"])
def test_what_is_no_speed_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--play"):
        recording.speed_of(text)


def test_the_shipped_recording_is_a_whole_loop_and_small() -> None:
    assert SHIPPED.stat().st_size <= 300_000
    with closing(recording.load(SHIPPED)) as tape:
        shown = tape.document(tape.last)
        assert (shown["ended"]["why"], shown["missing"], len(shown["generations"])) == ("finished", [], 3)
        assert all(tape.curves(gen["n"])["series"] for gen in shown["generations"])
