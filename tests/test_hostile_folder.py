"""A loop's folder that somebody else made: links, pipes, planted locks and journals reach nothing of the receiver's.

Each attack is made twice: with what holds it off taken away, where it works, and as bellglass does it, where it fails.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
import struct
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import made_loop
import pytest
from typer.testing import CliRunner
from whose import VARIABLE

from bellglass import halt, verify, wiring
from bellglass.cli import app
from bellglass.errors import BellglassError, LoopFault
from bellglass.processes import named
from bellglass.store import blobs as blobs_module
from bellglass.store import connections, state_folder
from bellglass.store import folder as folder_module
from bellglass.store import ledger as ledger_module
from bellglass.store.blobs import Blobs
from bellglass.store.folder import entries, require_plain
from bellglass.store.ledger import Ledger
from bellglass.store.owner import is_owned, owner_of
from bellglass.store.state import State

PRECIOUS = "what the receiver would miss\n"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_loop.write(tmp_path_factory.mktemp("made"), 1, texts=True, seed=4)


@pytest.fixture
def loop(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / made.name))


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    path = tmp_path / "victim.txt"
    path.write_text(PRECIOUS)
    return path


@pytest.fixture
def unguarded(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Without the look at the folder that every opening begins with."""
    monkeypatch.setattr(ledger_module, "require_plain", lambda folder: None)
    return monkeypatch


def refused(use: Callable[[], object], code: str = "folder_refused") -> None:
    with pytest.raises(BellglassError) as caught:
        use()
    assert caught.value.code == code


def run(*words: str) -> str | None:
    """The code of the error that a command ends with."""
    return getattr(CliRunner().invoke(app, list(words)).exception, "code", None)


# The lock


def lock_as_before(folder: Path) -> None:
    """How a lock was taken: the file is opened whatever it is, and the owner's name written into it."""
    handle = os.open(folder / "loop.lock", os.O_RDWR | os.O_CREAT)
    os.ftruncate(handle, 0)
    os.close(handle)


WRITERS = {
    "stop": ("stop", "{loop}"),
    "stop --now": ("stop", "{loop}", "--now"),
    "resume": ("resume", "{loop}"),
    "review --rearm": ("review", "{loop}", "--rearm", "self_score", "--reason", "seen"),
}


@pytest.mark.parametrize("linked", [os.symlink, os.link])
@pytest.mark.parametrize("words", WRITERS.values(), ids=WRITERS)
def test_a_lock_that_is_another_name_of_a_file_empties_no_file(
    loop: Path, victim: Path, words: tuple[str, ...], linked: Callable[[Path, Path], None]
) -> None:
    (loop / "loop.lock").unlink(missing_ok=True)
    linked(victim, loop / "loop.lock")
    assert run(*(word.format(loop=loop) for word in words)) == "folder_refused"
    assert victim.read_text() == PRECIOUS
    lock_as_before(loop)
    assert victim.read_text() == ""


def test_a_lock_behind_a_link_is_not_taken_even_where_nobody_looked_before(
    loop: Path, victim: Path, unguarded: pytest.MonkeyPatch
) -> None:
    (loop / "loop.lock").unlink(missing_ok=True)
    (loop / "loop.lock").symlink_to(victim)
    refused(lambda: Ledger.open(loop, write=True), "folder_unwritable")
    assert victim.read_text() == PRECIOUS


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    """A process of the receiver that has nothing to do with any loop."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


@pytest.mark.parametrize("polite_seconds", [0.0, 0.2])
def test_a_process_that_a_loops_folder_names_is_not_killed(
    loop: Path, bystander: subprocess.Popen[bytes], polite_seconds: float
) -> None:
    name = named(bystander.pid)
    (loop / "loop.lock").write_text(json.dumps({"pid": name.pid, "start": name.start}))
    assert owner_of(loop) is None
    halt.stop(loop, lambda: 0, polite_seconds=polite_seconds, reason="enough")
    assert bystander.poll() is None
    noted = json.loads((loop / "loop.lock").read_text())  # as it was read before
    os.kill(noted["pid"], 9)
    assert bystander.wait(5) == -9


def test_a_process_that_once_owned_the_loop_and_holds_no_lock_is_not_killed(
    loop: Path, bystander: subprocess.Popen[bytes]
) -> None:
    with Ledger.open(loop, write=True):
        (note,) = [name for name in state_folder.names("owners") if str((loop / "loop.lock").stat().st_ino) in name]
    name = named(bystander.pid)
    state_folder.write(f"owners/{note}", json.dumps({"pid": name.pid, "start": name.start}).encode())
    assert owner_of(loop) is None
    halt.stop(loop, lambda: 0, polite_seconds=0.0, reason="enough")
    assert bystander.poll() is None


HOLDER = """
import fcntl, os, sys
handle = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
fcntl.flock(handle, fcntl.LOCK_EX)
print("held", flush=True)
input()
"""


def test_a_lock_that_nobody_known_holds_is_said_and_no_guest_is_killed(loop: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(loop / "loop.lock")]
    killed: list[int] = []
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert is_owned(loop)
        assert owner_of(loop) is None
        stop = lambda: halt.stop(loop, lambda: killed.append(1) or 0, polite_seconds=0.0, reason="enough")  # noqa: E731
        refused(stop, "loop_owned")
        assert holder.poll() is None
        assert killed == []
        holder.kill()


def test_looking_who_owns_a_loop_keeps_nobody_from_owning_it(loop: Path) -> None:
    looking = "from pathlib import Path; from bellglass.store.owner import owner_of\nwhile True: owner_of(Path({!r}))"
    with subprocess.Popen([sys.executable, "-c", looking.format(str(loop))]) as process:
        time.sleep(0.5)
        for _ in range(200):
            Ledger.open(loop, write=True).close()
        assert process.poll() is None
        process.kill()


# Links, pipes, other names


@pytest.mark.parametrize(
    "name",
    ["loop.db", "loop.db-wal", "loop.db-shm", "secret", "blobs", "live", "lineage.git", "wandb", "anything", "deep/er"],
)
def test_a_link_is_refused_wherever_it_lies(loop: Path, tmp_path: Path, name: str) -> None:
    place = loop / name
    place.parent.mkdir(exist_ok=True)
    if place.exists():
        place.rename(tmp_path / "moved")
    place.symlink_to(tmp_path / "moved")
    refused(lambda: require_plain(loop))
    if name != "loop.db":  # of which a loop is known
        refused(lambda: Ledger.open(loop))
        assert run("verify", str(loop)) == "folder_refused"


@pytest.mark.parametrize("name", ["blobs/ab/pipe", "loop.lock", "live/x", "secret"])
def test_a_pipe_is_refused(loop: Path, name: str) -> None:
    (loop / name).parent.mkdir(parents=True, exist_ok=True)
    (loop / name).unlink(missing_ok=True)
    os.mkfifo(loop / name)
    with pytest.raises(subprocess.TimeoutExpired):
        subprocess.run(["cat", loop / name], timeout=0.3, check=False)
    refused(lambda: Ledger.open(loop))


def test_what_is_written_lands_in_the_loops_own_folder(
    loop: Path, tmp_path: Path, unguarded: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "elsewhere"
    (loop / "blobs").rename(place)
    (loop / "blobs").symlink_to(place)
    before = sum(1 for _ in place.rglob("*"))
    with Ledger.open(loop):
        Blobs(loop / "blobs").put(b"new")
    assert sum(1 for _ in place.rglob("*")) > before  # outside the loop
    unguarded.undo()
    refused(lambda: Ledger.open(loop))


def test_a_ledger_with_a_second_name_is_not_written(
    loop: Path, made: Path, tmp_path: Path, unguarded: pytest.MonkeyPatch
) -> None:
    mine = tmp_path / "mine.db"
    shutil.copy(made / "loop.db", mine)
    (loop / "loop.db").unlink()
    os.link(mine, loop / "loop.db")
    before = mine.read_bytes()
    Ledger.open(loop).close()
    with closing(connections.InPlace(loop / "loop.db")) as source:  # as whoever posts or owns
        source.now().execute("INSERT INTO inbox (time, kind, body) VALUES (1.0, 'stop', '{}')")
    assert mine.read_bytes() != before  # the receiver's own was written
    unguarded.undo()
    refused(lambda: Ledger.open(loop))


def test_a_secret_is_not_taken_from_another_file(loop: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.write_bytes(bytes(32))
    (loop / "secret").unlink(missing_ok=True)
    (loop / "secret").symlink_to(mine)
    assert (loop / "secret").read_bytes() == bytes(32)
    assert verify.secret_of(loop, State()) is None
    refused(lambda: wiring._read_secret(loop, State()), "secret_unreadable")


@pytest.mark.parametrize("name", ["secret", "blob"])
def test_a_file_as_long_as_a_disk_is_not_read(loop: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blobs_module, "BLOB_BYTES_MAX", 1 << 20)
    blobs = Blobs(loop / "blobs")
    sha = blobs.put(b"short")
    path = loop / "secret" if name == "secret" else blobs.path(sha)
    path.touch()
    path.chmod(0o644)
    os.truncate(path, 1 << 40)  # takes no space
    tracemalloc.start()
    if name == "secret":
        assert verify.secret_of(loop, State()) is None
    else:
        refused(lambda: blobs.get(sha), "blob_damaged")
        assert blobs.put(b"short") == sha
        assert blobs.get(sha) == b"short"
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()


def test_a_blob_behind_a_link_is_damaged_and_replaced_not_followed(loop: Path, victim: Path) -> None:
    blobs = Blobs(loop / "blobs")
    sha = blobs.put(PRECIOUS.encode())
    blobs.path(sha).unlink()
    (loop / "blobs" / sha[:2] / sha).symlink_to(victim)
    refused(lambda: blobs.get(sha), "blob_damaged")
    assert blobs.put(PRECIOUS.encode()) == sha
    assert not blobs.path(sha).is_symlink()
    assert victim.read_text() == PRECIOUS


def test_a_folder_without_an_end_is_refused(loop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = loop / "/".join("abcdefghijklmnop")
    deep.mkdir(parents=True)
    refused(lambda: require_plain(loop))
    shutil.rmtree(loop / "a")
    require_plain(loop)
    monkeypatch.setattr(folder_module, "MOST_ENTRIES", 20)
    refused(lambda: require_plain(loop))


def test_what_wandb_links_in_its_own_folder_is_left_to_it(loop: Path) -> None:
    (loop / "wandb").mkdir()
    (loop / "wandb" / "latest-run").symlink_to("run-1")
    assert "wandb/latest-run" not in set(entries(loop, ("wandb",)))
    Ledger.open(loop).close()


# The ledger's file


def super_journal(folder: Path, victim: Path) -> None:
    """A journal that SQLite plays back before anything is asked, then removing the file that it names as its head."""
    page = (folder / "loop.db").read_bytes()[:4096]
    magic, nonce = bytes.fromhex("d9d505f920a163d7"), 12345
    count = (folder / "loop.db").stat().st_size // 4096
    header = (magic + struct.pack(">IIIII", 1, nonce, count, 512, 4096)).ljust(512, b"\0")
    check = (nonce + sum(page[at] for at in range(len(page) - 200, 0, -200))) & 0xFFFFFFFF
    record = struct.pack(">I", 1) + page + struct.pack(">I", check)
    name = os.fsencode(victim)
    head = struct.pack(">I", (1 << 30) // 4096 + 1) + name + struct.pack(">II", len(name), sum(name)) + magic
    (folder / "loop.db-journal").write_bytes(header + record + head)


def test_a_planted_journal_removes_no_file(loop: Path, victim: Path, unguarded: pytest.MonkeyPatch) -> None:
    super_journal(loop, victim)
    unguarded.undo()
    for write in (False, True):
        refused(lambda write=write: Ledger.open(loop, write=write))
    assert victim.exists()
    unguarded.setattr(ledger_module, "require_plain", lambda folder: None)
    Ledger.open(loop, write=True, received=True).close()
    assert not victim.exists()


def test_a_loop_of_somebody_else_is_opened_for_writing_by_no_command_that_asks_whose_it_is(
    loop: Path, victim: Path, unguarded: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Where the file system hides a journal's name, SQLite would find it, and play it back. Readers work on a copy."""
    unguarded.setenv(VARIABLE, str(tmp_path / "state"))
    super_journal(loop, victim)
    Ledger.open(loop).close()
    refused(lambda: Ledger.open(loop, write=True), "loop_received")
    assert victim.exists()
    Ledger.open(loop, write=True, received=True).close()  # which asks nothing
    assert not victim.exists()


def test_a_row_that_claims_more_than_the_file_holds_is_not_made_up(loop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(sqlite3.connect(loop / "loop.db", isolation_level=None)) as other:
        body = json.dumps({"why": "x" * 200_000})
        other.execute("UPDATE events SET body = ? WHERE seq = 2", (body,))
    assert any("x" * 100 in str(row) for row in _bodies(loop))
    monkeypatch.setattr(connections, "ROW_BYTES_MAX", 100_000)
    with Ledger.open(loop) as ledger:
        refused(ledger.events, "ledger_too_large")


def _bodies(loop: Path) -> list[tuple[str]]:
    with closing(sqlite3.connect(loop / "loop.db")) as other:
        return other.execute("SELECT body FROM events").fetchall()


def altered(loop: Path, *statements: str) -> None:
    with closing(sqlite3.connect(loop / "loop.db", isolation_level=None)) as other:
        for statement in ("PRAGMA writable_schema = 1", *statements):
            other.execute(statement)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE events SET hash = X'00' WHERE seq = (SELECT max(seq) FROM events)",
        "UPDATE sqlite_schema SET sql = CAST(X'83' || sql AS TEXT) WHERE name = 'inbox'",
        "UPDATE sqlite_schema SET sql = 'CREATE TABLE ' || CAST(X'83' AS TEXT) || ' oops (' WHERE name = 'inbox'",
        "UPDATE sqlite_schema SET rootpage = 1 WHERE name = 'events'",
        "UPDATE sqlite_schema SET rootpage = 10000000 WHERE name = 'events'",
    ],
)
def test_tables_that_no_bellglass_wrote_are_a_clear_fault(loop: Path, statement: str) -> None:
    altered(loop, statement)
    refused(lambda: _used(loop), "ledger_damaged")


def _used(loop: Path) -> None:
    with Ledger.open(loop) as ledger:
        _ = ledger.head, ledger.sound(), ledger.pending(), ledger.events()


def test_flipped_bytes_in_a_ledgers_files_end_in_an_error_of_ours_or_in_nothing(made: Path, tmp_path: Path) -> None:
    draw = random.Random(7)
    begun = tmp_path / "begun"
    with closing(sqlite3.connect(made / "loop.db", isolation_level=None)) as other, Ledger.open(made) as ledger:
        other.execute("SELECT 1 FROM events").fetchone()
        ledger.post("stop", {"who": "x"})
        shutil.copytree(made, begun)  # with its side files
    codes = set()
    for number in range(60):
        loop = Path(shutil.copytree(begun, tmp_path / str(number)))
        for name in draw.sample(["loop.db", "loop.db-wal", "loop.db-shm"], 2):
            data = bytearray((loop / name).read_bytes())
            for _ in range(draw.choice([1, 3, 20])):
                data[draw.randrange(min(len(data), draw.choice([100, 4096, len(data)])))] = draw.randrange(256)
            (loop / name).write_bytes(data[: draw.choice([len(data), len(data), draw.randrange(len(data))])])
        try:
            _used(loop)
        except BellglassError as error:
            codes.add(error.code)
        shutil.rmtree(loop)
    assert "ledger_damaged" in codes


STRANGERS = {
    "a trigger": ("CREATE TRIGGER t AFTER INSERT ON inbox BEGIN DELETE FROM events WHERE seq > 1; END",),
    "a view": ("CREATE VIEW v AS SELECT * FROM events",),
    "a view in a table's place": (
        "ALTER TABLE inbox RENAME TO kept",
        "CREATE VIEW inbox AS SELECT 1 AS id, 1.0 AS time, 'stop' AS kind, '{}' AS body",
    ),
    "a generated column": (
        "DROP TABLE inbox",
        "CREATE TABLE inbox (id INTEGER PRIMARY KEY, time, kind, body, more AS (hex(zeroblob(100000000))))",
    ),
    "a virtual table": ("CREATE VIRTUAL TABLE v USING fts5(x)",),
    "an index": ("CREATE INDEX i ON events (kind)",),
    "a default that computes": (
        "DROP TABLE inbox",
        "CREATE TABLE inbox (id INTEGER PRIMARY KEY AUTOINCREMENT, time REAL, kind TEXT, body TEXT DEFAULT (hex('x')))",
    ),
    "a table more": ("CREATE TABLE other (x)",),
    "a journal instead of a log": ("PRAGMA journal_mode = DELETE",),
}


@pytest.mark.parametrize("what", STRANGERS)
def test_tables_are_exactly_those_that_bellglass_makes(loop: Path, what: str) -> None:
    altered(loop, *STRANGERS[what])
    for write in (False, True):
        refused(lambda write=write: Ledger.open(loop, write=write), "ledger_damaged")
    assert run("stop", str(loop)) == "ledger_damaged"


def test_a_planted_trigger_runs_when_somebody_posts_and_nobody_looked(
    loop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    altered(loop, *STRANGERS["a trigger"])
    for module in (ledger_module, connections):
        monkeypatch.setattr(module, "require_own_tables", lambda folder, connection: None)
    with Ledger.open(loop) as ledger:
        assert ledger.last_seq > 1
        ledger.post("stop", {"who": "x"})
        assert ledger.last_seq == 1


def test_a_second_name_of_the_lock_of_a_loop_that_runs_names_no_process_to_kill(
    loop: Path, tmp_path: Path, bystander: subprocess.Popen[bytes]
) -> None:
    """As a tar with a hard link makes it, unpacked beside the loop."""
    evil = tmp_path / "evil"
    shutil.copytree(loop, evil)
    (evil / "loop.lock").unlink(missing_ok=True)
    with Ledger.open(loop, write=True):
        (note,) = [name for name in state_folder.names("owners") if str((loop / "loop.lock").stat().st_ino) in name]
        name = named(bystander.pid)
        state_folder.write(f"owners/{note}", json.dumps({"pid": name.pid, "start": name.start}).encode())
        assert owner_of(loop) is not None  # who may be killed for the loop itself
        os.link(loop / "loop.lock", evil / "loop.lock")
        assert owner_of(evil) is None
        with pytest.raises(LoopFault):
            halt.stop(evil, lambda: 0, polite_seconds=0.0, reason="enough")
    assert bystander.poll() is None
