"""A reader's private copy: whole at every moment, and nothing of the owner's is mapped, made, locked or unlocked."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from bellglass.errors import LoopFault
from bellglass.store import private_copy, write_ahead
from bellglass.store.ledger import Event, Ledger
from bellglass.store.write_ahead import FRAME_BYTES, HEADER_BYTES, WriteAhead

PAGE = 4096
FRAME = FRAME_BYTES + PAGE


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with Ledger.create(tmp_path / "stories-1a2b") as ledger:
        for n in range(5):
            ledger.append("made", {"n": n, "pad": "x" * 900})
    return tmp_path / "stories-1a2b"


def write(ledger: Ledger, events: int) -> None:
    for n in range(events):
        ledger.append("made", {"n": n, "pad": "y" * 900})


def read(folder: Path) -> list[Event]:
    with Ledger.open(folder) as ledger:
        return ledger.events()


def as_left_by_a_kill(folder: Path, at: Path, events: int = 40) -> Path:
    """A copy with the log of an owner who was killed after so many events more."""
    with Ledger.open(folder, write=True) as owner:
        write(owner, events)
        return Path(shutil.copytree(folder, at))


@contextmanager
def process(code: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """It ends at the end of its input, or is killed."""
    code = "from bellglass.store.ledger import Ledger; from pathlib import Path; import sys\n" + code
    command = [sys.executable, "-c", code, *arguments]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as running:
        try:
            yield running
        finally:
            running.kill()


def line(running: subprocess.Popen[str]) -> str:
    assert running.stdout is not None
    return running.stdout.readline().strip()


def go_on(running: subprocess.Popen[str]) -> None:
    assert running.stdin is not None
    running.stdin.write("\n")
    running.stdin.flush()


# What lies on the disk while its owner is at work, or was killed


@pytest.mark.parametrize("log", ["as it is", "sums of the other order"])
def test_a_copy_holds_what_sqlite_itself_reads_wherever_a_log_was_cut_or_damaged(
    folder: Path, tmp_path: Path, log: str
) -> None:
    """SQLite is asked for the truth, on a copy of its own."""
    left = as_left_by_a_kill(folder, tmp_path / "left")
    whole = (left / "loop.db-wal").read_bytes()
    if log != "as it is":
        whole = other_order(whole)
    draw, counts = random.Random(3), set[int]()
    for number in range(60):
        data = bytearray(whole)
        if number % 3 == 1:
            data = data[: draw.randrange(len(data))]
        elif number % 3 == 2:
            frame = draw.randrange(HEADER_BYTES, len(data), FRAME)
            places = range(HEADER_BYTES), range(frame, frame + FRAME_BYTES), range(len(data))
            data[draw.choice(draw.choice(places))] ^= 1 << draw.randrange(8)
        (left / "loop.db-wal").write_bytes(data)
        theirs = Path(shutil.copytree(left, tmp_path / str(number)))
        (theirs / "loop.db-shm").unlink()
        with closing(sqlite3.connect(theirs / "loop.db")) as db:
            truth = [hash_ for (hash_,) in db.execute("SELECT hash FROM events ORDER BY seq")]
        assert [event.hash for event in read(left)] == truth
        counts.add(len(truth))
        shutil.rmtree(theirs)
    assert len(counts) > 10
    assert (min(counts), max(counts)) == (5, 45)


def other_order(log: bytes) -> bytes:
    """The same log as a machine of the other byte order writes it."""
    header = struct.unpack(">8I", log[:HEADER_BYTES])
    begun = struct.pack(">6I", header[0] ^ 1, *header[1:6])
    order = write_ahead.MAGIC[header[0] ^ 1]
    sums = write_ahead.summed(begun, order, (0, 0))
    parts = [begun, struct.pack(">2I", *sums)]
    for at in range(HEADER_BYTES, len(log), FRAME):
        frame = log[at : at + FRAME]
        sums = write_ahead.summed(frame[:8] + frame[FRAME_BYTES:], order, sums)
        parts += [frame[:16], struct.pack(">2I", *sums), frame[FRAME_BYTES:]]
    return b"".join(parts)


def test_a_copying_over_that_was_cut_off_anywhere_loses_nothing(folder: Path, tmp_path: Path) -> None:
    left = as_left_by_a_kill(folder, tmp_path / "left")
    whole, log = (left / "loop.db").read_bytes(), (left / "loop.db-wal").read_bytes()
    frames = [log[at : at + FRAME] for at in range(HEADER_BYTES, len(log), FRAME)]
    last = {struct.unpack(">I", frame[:4])[0]: frame[FRAME_BYTES:] for frame in frames}
    assert len(last) > 5
    for copied in range(len(last) + 1):
        data = bytearray(whole)
        for number in sorted(last)[:copied]:
            data[len(data) :] = bytes(max(0, number * PAGE - len(data)))
            data[(number - 1) * PAGE : number * PAGE] = last[number]
        (left / "loop.db").write_bytes(data[: max(len(whole), len(data) - 100)])  # the last page half
        assert len(read(left)) == 45


# While it changes


def started_over(folder: Path) -> None:
    """All is copied over, and the log begins again, with one event in it."""
    with closing(sqlite3.connect(folder / "loop.db")) as other:
        other.execute("PRAGMA wal_checkpoint(RESTART)")


@pytest.fixture
def between(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Lets something happen once, just behind the first reading of the database."""

    def arrange(happens: Callable[[], object]) -> None:
        waiting, content = [happens], private_copy._content

        def then(folder: Path, file: int) -> bytearray:
            image = content(folder, file)
            if waiting:
                waiting.pop()()
            return image

        monkeypatch.setattr(private_copy, "_content", then)

    return arrange


@pytest.mark.parametrize("looks", ["as it is", "as if nobody asked"])
def test_a_log_that_is_started_over_while_it_is_read_is_read_again(
    folder: Path, between: Callable[[Callable[[], object]], None], monkeypatch: pytest.MonkeyPatch, looks: str
) -> None:
    if looks != "as it is":
        monkeypatch.setattr(WriteAhead, "holds", True)
    with Ledger.open(folder, write=True) as owner:
        write(owner, 20)

        def happens() -> None:
            started_over(folder)
            write(owner, 1)

        between(happens)
        with closing(private_copy.PrivateCopy(folder)) as copy:
            image = copy.news()
        assert image is not None
        with closing(sqlite3.connect(":memory:")) as db:
            db.deserialize(image)
            try:
                count = len(db.execute("SELECT * FROM events").fetchall())
            except sqlite3.DatabaseError:
                count = 0
        assert (count == 26) == (looks == "as it is")


@pytest.mark.parametrize("looks", ["as it is", "as if nobody read it twice"])
def test_a_database_without_a_log_that_changes_while_it_is_read_is_read_again(
    folder: Path, between: Callable[[Callable[[], object]], None], monkeypatch: pytest.MonkeyPatch, looks: str
) -> None:
    """An owner came and went: there was no log before, and there is none behind it."""
    if looks != "as it is":
        monkeypatch.setattr(private_copy, "_same", lambda file, image: True)

    def happens() -> None:
        with Ledger.open(folder, write=True) as owner:
            write(owner, 20)

    with closing(private_copy.PrivateCopy(folder)) as copy:
        between(happens)
        image = copy.news()
    assert image is not None
    assert (len(image) == (folder / "loop.db").stat().st_size) == (looks == "as it is")


WRITER = """
with Ledger.open(Path(sys.argv[1]), write=True) as owner:
    owner._db.execute("PRAGMA wal_autocheckpoint = 12")
    print("begun", flush=True)
    for n in range(int(sys.argv[2])):
        if n % 25 == 0:
            sys.stdin.readline()
        owner.append("made", {"n": n, "pad": "z" * 900})
    print(owner.head, flush=True)
"""


def test_every_copy_of_a_ledger_that_is_being_written_is_whole(folder: Path) -> None:
    """The log starts over every few events. The chain says whether a copy is whole."""
    seen = 0
    with process(WRITER, str(folder), "600") as writer, Ledger.open(folder) as reader:
        assert line(writer) == "begun"
        for _ in range(600 // 25):
            go_on(writer)
            for events in (reader.events(), read(folder), reader.events(), read(folder)):
                assert len(events) >= seen
                seen = len(events)
        assert line(writer) == reader.head
        writer.wait(60)
        assert len(reader.events()) == 605


def test_a_ledger_that_never_rests_is_an_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(private_copy, "TRIES", 3)
    monkeypatch.setattr(private_copy, "_same", lambda file, image: False)
    with pytest.raises(LoopFault) as caught:
        Ledger.open(folder)
    assert caught.value.code == "ledger_busy"


# Following


def test_who_follows_reads_what_is_new_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    readings, content = [], private_copy._content
    monkeypatch.setattr(private_copy, "_content", lambda *rest: readings.append(1) or content(*rest))
    with Ledger.open(folder, write=True) as owner, Ledger.open(folder) as reader:
        write(owner, 1)
        assert reader.last_seq == 6
        readings.clear()
        for n in range(200):
            write(owner, 1)
            assert (reader.last_seq, reader.events(after=6 + n)[0].seq) == (7 + n, 7 + n)
        assert readings == []
        started_over(folder)
        write(owner, 1)
        assert reader.last_seq == 207
        assert readings == [1]


def dated(folder: Path, seconds: float) -> None:
    os.utime(folder / "loop.db", (seconds, seconds))


def test_a_ledger_at_rest_is_read_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dated(folder, 1000.0)
    readings, content = [], private_copy._content
    monkeypatch.setattr(private_copy, "_content", lambda *rest: readings.append(1) or content(*rest))
    with Ledger.open(folder) as reader:
        for _ in range(20):
            assert reader.last_seq == 5
        assert readings == [1]
        Ledger.open(folder).post("stop", {})
        assert len(reader.pending()) == 1


def test_a_change_within_a_tick_of_the_file_systems_clock_is_seen(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An owner came and went, and the file is as long as it was, and bears the same time."""
    monkeypatch.setattr(private_copy, "SETTLED_NS", 10**15)  # however long this machine takes for the lines below
    now, size = time.time(), (folder / "loop.db").stat().st_size
    dated(folder, now)
    with Ledger.open(folder) as reader:
        assert reader.last_seq == 5
        with Ledger.open(folder, write=True) as owner:
            owner.append("made", {})
        dated(folder, now)
        assert (folder / "loop.db").stat().st_size == size
        assert reader.last_seq == 6


def test_a_loop_that_goes_away_or_is_another_is_noticed(folder: Path, tmp_path: Path) -> None:
    with Ledger.create(tmp_path / "other") as other:
        write(other, 5)
        head = other.head
    for loop in (folder, tmp_path / "other"):
        dated(loop, 1000.0)
    assert (folder / "loop.db").stat().st_size == (tmp_path / "other" / "loop.db").stat().st_size
    with Ledger.open(folder) as reader:
        assert reader.head != head
        folder.rename(tmp_path / "gone")
        with pytest.raises(LoopFault) as caught:
            _ = reader.head
        assert caught.value.code == "no_loop_folder"
        (tmp_path / "other").rename(folder)
        assert reader.head == head
    with Ledger.open(folder) as reader:
        assert reader.head == head
        os.replace(tmp_path / "gone" / "loop.db", folder / "loop.db")
        assert reader.head != head


# What a reader does to others, and they to it

READER = """
reader = Ledger.open(Path(sys.argv[1]))
print(reader.last_seq, flush=True)
while sys.stdin.readline():
    for ledger in (lambda: reader, lambda: Ledger.open(Path(sys.argv[1]))):
        try:
            print(len(ledger().sound()[0]), ledger().waiting(), flush=True)
        except Exception as error:
            print(getattr(error, "code", error), flush=True)
"""
OWNER = """
with Ledger.open(Path(sys.argv[1]), write=True) as owner:
    for n in range(30):
        owner.append("made", {"n": n, "pad": "z" * 900})
    print("written", flush=True)
    input()
"""


ANSWERS = {  # of who had it open before, and of who opens it afterwards
    "loop.db": ({"35 0"}, {"ledger_damaged"}),
    "loop.db-wal": ({"35 0", "5 0"}, {"5 0"}),
    "loop.db-shm": ({"35 0"}, {"35 0"}),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_a_file_that_is_cut_off_under_a_reader_does_not_kill_it(folder: Path, name: str) -> None:
    """As a mapping of it would: signal 7."""
    with process(OWNER, str(folder)) as owner:
        assert line(owner) == "written"
        with process(READER, str(folder)) as reader:
            assert line(reader) == "35"
            for bytes_left in (5000, 100, 0):
                with (folder / name).open("r+b") as file:
                    file.truncate(bytes_left)
                go_on(reader)
                for answer in ANSWERS[name]:
                    assert line(reader) in answer
            assert reader.stdin is not None
            reader.stdin.close()
            assert reader.wait(60) == 0


def test_a_reader_makes_no_file_and_keeps_no_log_from_being_started_over(folder: Path) -> None:
    before = sorted(path.name for path in folder.iterdir())
    with Ledger.open(folder) as reader:
        assert len(reader.events()) == 5
        assert sorted(path.name for path in folder.iterdir()) == before
        with Ledger.open(folder, write=True) as owner:
            write(owner, 20)
            assert reader.last_seq == 25
            with closing(sqlite3.connect(folder / "loop.db")) as other:
                assert other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
            assert reader.last_seq == 25


POST = "Ledger.open(Path(sys.argv[1])).post('stop', {})"


@pytest.mark.parametrize("closing", ["as it is", "as if no lock were lost"])
def test_a_reader_in_its_owners_process_gives_up_none_of_its_locks(
    folder: Path, monkeypatch: pytest.MonkeyPatch, closing: str
) -> None:
    """Without them whoever comes next takes itself for the last, and removes the log that the owner writes to."""
    if closing != "as it is":
        monkeypatch.setattr(private_copy, "_CONNECTIONS", _Nothing())
    with Ledger.open(folder, write=True) as owner:
        write(owner, 3)
        with Ledger.open(folder) as reader:
            assert reader.last_seq == 8
        with process(POST, str(folder)) as other:
            assert other.wait(60) == 0
        if closing == "as it is":
            write(owner, 1)
            assert len(read(folder)) == 9
            assert len(owner.take()) == 1
        else:
            assert not (folder / "loop.db-wal").exists()


class _Nothing(dict[object, int]):
    """Keeps no count of connections."""

    def __contains__(self, key: object) -> bool:
        return False


# Sizes


def test_a_file_or_a_log_as_long_as_a_disk_is_not_read(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = as_left_by_a_kill(folder, tmp_path / "left")
    assert len(read(left)) == 45
    for limit in (60_000, 20_000):  # the log is longer; the database is
        monkeypatch.setattr(private_copy, "LEDGER_BYTES_MAX", limit)
        with pytest.raises(LoopFault) as caught:
            read(left)
        assert caught.value.code == "ledger_too_large"
    monkeypatch.undo()
    with (left / "loop.db").open("r+b") as file:
        file.truncate(1 << 40)  # takes no space
    with pytest.raises(LoopFault) as caught:
        read(left)
    assert caught.value.code == "ledger_too_large"


def test_a_log_that_claims_a_large_database_takes_no_memory_for_it(folder: Path, tmp_path: Path) -> None:
    left = as_left_by_a_kill(folder, tmp_path / "left")
    log = (left / "loop.db-wal").read_bytes()
    first = bytearray(log[HEADER_BYTES : HEADER_BYTES + FRAME])
    first[4:8] = struct.pack(">I", 1 << 30)
    magic, stored = struct.unpack(">I", log[:4])[0], struct.unpack(">2I", log[24:32])
    first[16:24] = struct.pack(
        ">2I", *write_ahead.summed(first[:8] + first[FRAME_BYTES:], write_ahead.MAGIC[magic], stored)
    )
    (left / "loop.db-wal").write_bytes(log[:HEADER_BYTES] + first)
    with pytest.raises(LoopFault) as caught:
        read(left)
    assert caught.value.code == "ledger_too_large"
