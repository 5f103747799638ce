"""The ledger: what is acknowledged stays, what is altered is found, one process owns it."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bellglass.errors import LoopFault, SetupError
from bellglass.store.ledger import GENESIS, Ledger, canonical, digest
from bellglass.store.owner import owner_of
from bellglass.store.tables import FORMAT
from bellglass.verify import verify


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "stories-1a2b"


def filled(folder: Path, events: int = 5) -> list[str]:
    """A closed ledger; returns its hashes."""
    with Ledger.create(folder) as ledger:
        return [ledger.append("made", {"n": n, "text": "a\ud800é"}).hash for n in range(events)]


def child(code: str, *arguments: str, **more: object) -> subprocess.Popen[str]:
    code = "from bellglass.store.ledger import Ledger; from pathlib import Path; import sys\n" + code
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True, env=environment, **more)  # type: ignore[call-overload]


def altered(folder: Path, statement: str, *values: object) -> None:
    connection = sqlite3.connect(folder / "loop.db")
    connection.execute(statement, values)
    connection.commit()
    connection.close()


# Events


def test_events_come_back_as_they_were_appended(folder: Path) -> None:
    with Ledger.create(folder) as ledger:
        assert (ledger.head, ledger.last_seq, ledger.events()) == (GENESIS, 0, [])
        first = ledger.append("one", {"b": 1, "a": (1.5, None, "\x00\ud800")})
        second = ledger.append("two", {})
        assert first.body == {"a": [1.5, None, "\x00\ud800"], "b": 1}
        assert second.prev == first.hash
    with Ledger.open(folder) as reader:
        assert reader.events() == [first, second]
        assert reader.events(after=1) == [second]
        assert reader.events(after=2) == reader.events(after=9) == []
        assert reader.head == second.hash


def test_a_later_owner_goes_on_with_the_chain(folder: Path) -> None:
    hashes = filled(folder)
    with Ledger.open(folder, write=True) as ledger:
        assert ledger.append("next", {}).prev == hashes[-1]
        assert ledger.verify() == 6


def test_a_reader_cannot_append(folder: Path) -> None:
    filled(folder)
    with Ledger.open(folder) as reader:
        with pytest.raises(LoopFault, match="opened for reading"):
            reader.append("x", {})
        with pytest.raises(LoopFault, match="opened for reading"):
            reader.take()


def test_many_threads_append_one_unbroken_chain(folder: Path) -> None:
    with Ledger.create(folder) as ledger:
        threads = [threading.Thread(target=lambda: [ledger.append("t", {"n": n}) for n in range(25)]) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert ledger.verify() == 200


def test_an_interrupt_right_after_the_commit_does_not_break_the_chain(folder: Path) -> None:
    class Interrupted(Ledger):
        @contextmanager
        def _transaction(self) -> Iterator[None]:
            with super()._transaction():
                yield
            if self.last_seq == 1:
                raise KeyboardInterrupt

    with Interrupted.create(folder) as ledger:
        with pytest.raises(KeyboardInterrupt):
            ledger.append("written", {})
        assert ledger.append("next", {}).seq == 2
        assert ledger.verify() == 2


def test_a_body_that_is_no_json_changes_nothing(folder: Path) -> None:
    with Ledger.create(folder) as ledger:
        for bad in ({"x": float("nan")}, {"x": object()}):
            with pytest.raises((ValueError, TypeError)):
                ledger.append("x", bad)
        ledger.append("y", {})
        assert ledger.verify() == 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=50, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.text(), JSON, max_size=4))
def test_canonical_text_does_not_depend_on_the_order_of_keys(body: dict[str, object]) -> None:
    backwards = dict(reversed(list(body.items())))
    assert canonical(body) == canonical(backwards)
    assert canonical(body).isascii()


def test_an_append_takes_milliseconds(folder: Path) -> None:
    """Of this process: how long a disk takes to sync is no doing of ours."""
    with Ledger.create(folder) as ledger:
        times = []
        for n in range(60):
            began = time.thread_time()
            ledger.append("timed", {"n": n})
            times.append(time.thread_time() - began)
    assert sorted(times)[30] < 0.005  # typically 0.0003


# Damage


@pytest.mark.parametrize("column", ["time", "kind", "body", "prev", "hash"])
def test_any_altered_column_breaks_the_chain_at_its_event(folder: Path, column: str) -> None:
    filled(folder)
    new = "time + 0.25" if column == "time" else f"replace({column}, substr({column}, 3, 1), 'x')"
    altered(folder, f"UPDATE events SET {column} = {new} WHERE seq = 3")
    with Ledger.open(folder) as reader, pytest.raises(LoopFault, match="chain broken at event 3"):
        reader.events()


def test_a_flipped_byte_anywhere_in_an_event_is_found(folder: Path) -> None:
    filled(folder)
    path = folder / "loop.db"
    whole = path.read_bytes()
    rows = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    body, hash_ = rows.execute("SELECT body, hash FROM events WHERE seq = 3").fetchone()
    rows.close()
    start = whole.index(f"made{body}".encode())
    end = whole.index(hash_.encode(), start) + 64
    for position in range(start - 8, end):  # the eight bytes before hold the time
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0x80]) + whole[position + 1 :])
        with Ledger.open(folder) as reader, pytest.raises(LoopFault, match=r"broken|damage|malformed"):
            reader.events()
    path.write_bytes(whole)
    with Ledger.open(folder) as reader:
        assert len(reader.events()) == 5


def test_an_event_forged_with_a_right_hash_of_its_own_breaks_the_next(folder: Path) -> None:
    filled(folder)
    with Ledger.open(folder) as reader:
        third = reader.events()[2]
    forged = digest(3, third.time, "made", "{}", third.prev)
    altered(folder, "UPDATE events SET body = '{}', hash = ? WHERE seq = 3", forged)
    with Ledger.open(folder) as reader, pytest.raises(LoopFault, match="chain broken at event 4"):
        reader.events()


def test_a_gap_in_the_numbers_is_found_though_the_hashes_fit(folder: Path) -> None:
    head = filled(folder)[-1]
    row = (9, 1.5, "made", "{}", head, digest(9, 1.5, "made", "{}", head))
    altered(folder, "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?)", *row)
    with Ledger.open(folder) as reader, pytest.raises(LoopFault, match="chain broken at event 6"):
        reader.events()


def test_a_missing_event_is_found(folder: Path) -> None:
    filled(folder)
    altered(folder, "DELETE FROM events WHERE seq = 2")
    with Ledger.open(folder) as reader:
        with pytest.raises(LoopFault, match="chain broken at event 2"):
            reader.verify()
        with pytest.raises(LoopFault, match="chain broken at event 2"):
            reader.events(after=2)


def test_events_cut_off_the_end_are_found_by_a_head_noted_elsewhere(folder: Path) -> None:
    hashes = filled(folder)
    altered(folder, "DELETE FROM events WHERE seq = 5")
    with Ledger.open(folder) as reader:
        assert reader.verify() == 4
        for head, fits in ((hashes[-1], False), (hashes[-2][:12], True)):
            found = {finding.what: finding.ok for finding in verify(folder, reader, head)}
            assert (found["ledger"], found["head"]) == (True, fits)
            assert "standing" in found, "the other checks are not skipped"


@pytest.mark.parametrize("content", [b"", b"no database at all" * 300])
def test_a_file_that_is_no_ledger_is_refused(folder: Path, content: bytes) -> None:
    filled(folder)
    (folder / "loop.db").write_bytes(content)
    for write in (False, True):
        with pytest.raises(LoopFault) as caught:
            Ledger.open(folder, write=write)
        assert caught.value.next_command


def test_a_malformed_page_is_a_clear_fault(folder: Path) -> None:
    filled(folder, 120)
    path = folder / "loop.db"
    whole = bytearray(path.read_bytes())
    whole[4096 * 4 : 4096 * 8] = b"\xff" * (4096 * 4)
    path.write_bytes(whole)
    with Ledger.open(folder) as reader, pytest.raises(LoopFault, match="ledger"):
        reader.verify()


def test_a_ledger_of_a_newer_version_is_refused(folder: Path) -> None:
    filled(folder)
    altered(folder, f"PRAGMA user_version = {FORMAT + 1}")
    for write in (False, True):
        with pytest.raises(LoopFault, match="newer bellglass"):
            Ledger.open(folder, write=write)


def test_a_missing_folder_and_a_missing_ledger_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(LoopFault, match="no such folder"):
        Ledger.open(tmp_path / "nowhere")
    with pytest.raises(LoopFault, match=r"no loop\.db"):
        Ledger.open(tmp_path, write=True)


def test_a_ledger_is_not_made_over_another(folder: Path) -> None:
    filled(folder)
    with pytest.raises(LoopFault, match="already"):
        Ledger.create(folder)
    with Ledger.open(folder, write=True) as ledger:
        assert ledger.verify() == 5


def test_a_creation_that_was_cut_off_can_be_repeated(folder: Path) -> None:
    folder.mkdir()
    (folder / "loop.db.new").write_bytes(b"half")
    filled(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["loop.db", "loop.lock"]


# Ownership


def test_the_second_writer_is_told_who_owns_the_loop(folder: Path) -> None:
    filled(folder)
    owner = child("l = Ledger.open(Path(sys.argv[1]), write=True); print('mine', flush=True); input()", str(folder))
    try:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "mine\n"
        with pytest.raises(LoopFault, match=f"in use by process {owner.pid}"):
            Ledger.open(folder, write=True)
        found = owner_of(folder)
        assert found is not None
        assert found.pid == owner.pid
        with Ledger.open(folder) as reader:
            assert reader.verify() == 5
    finally:
        owner.kill()
        owner.communicate()
    assert owner_of(folder) is None
    Ledger.open(folder, write=True, wait_seconds=5).close()


def test_a_second_writer_in_the_same_process_is_refused(folder: Path) -> None:
    with Ledger.create(folder), pytest.raises(LoopFault, match="this process already"):
        Ledger.open(folder, write=True)
    assert owner_of(folder) is None


def test_a_refused_open_leaves_no_lock_behind(folder: Path) -> None:
    filled(folder)
    altered(folder, "PRAGMA user_version = 99")
    for _ in range(2):
        with pytest.raises(LoopFault, match="newer"):
            Ledger.open(folder, write=True)


def test_a_killed_writer_loses_no_acknowledged_event(folder: Path) -> None:
    filled(folder, 1)
    code = """
with Ledger.open(Path(sys.argv[1]), write=True, wait_seconds=5) as ledger:
    while True:
        print(ledger.append("x", {"pad": "y" * 500}).seq, flush=True)
"""
    acknowledged = 0
    for lines in (1, 7, 40):
        writer = child(code, str(folder))
        assert writer.stdout is not None
        read = [writer.stdout.readline() for _ in range(lines)]
        writer.send_signal(signal.SIGKILL)  # it does not wait for its reader: this comes in the middle of an append
        read += writer.communicate()[0].splitlines(keepends=True)
        acknowledged = max(int(line) for line in read if line.endswith("\n"))
        with Ledger.open(folder, write=True, wait_seconds=5) as ledger:
            assert ledger.verify() >= acknowledged
    assert acknowledged >= 48


# The inbox


def test_a_request_is_answered_by_an_event_in_one_step(folder: Path) -> None:
    with Ledger.create(folder) as ledger, Ledger.open(folder) as other:
        number = other.post("review", {"decision": "approve"})
        (request,) = ledger.take()
        assert (request.id, request.kind) == (number, "review")
        assert request.body == {"decision": "approve"}
        assert ledger.take() == []
        assert [waiting.id for waiting in other.pending()] == [number]
        ledger.append("review.decided", {}, answers=number)
        assert other.pending() == []


def test_a_request_that_an_owner_died_over_comes_to_the_next(folder: Path) -> None:
    filled(folder, 1)
    with Ledger.open(folder, write=True) as ledger:
        ledger.post("stop", {})
        assert len(ledger.take()) == 1
    with Ledger.open(folder, write=True) as ledger:
        assert [request.kind for request in ledger.take()] == ["stop"]


def test_a_failed_answer_keeps_the_request(folder: Path) -> None:
    with Ledger.create(folder) as ledger:
        number = ledger.post("stop", {})
        altered(folder, "CREATE TRIGGER t BEFORE DELETE ON inbox BEGIN SELECT RAISE(ABORT, 'no'); END")
        with pytest.raises(LoopFault):
            ledger.append("stop.requested", {}, answers=number)
        assert (ledger.events(), len(ledger.pending())) == ([], 1)
        altered(folder, "DROP TRIGGER t")
        ledger.append("stop.requested", {}, answers=number)
        assert (ledger.verify(), ledger.pending()) == (1, [])


def test_a_slow_reader_does_not_hold_up_the_owner(folder: Path) -> None:
    with Ledger.create(folder) as ledger:
        for n in range(20):
            ledger.append("x", {"n": n})
        reader = sqlite3.connect(f"file:{folder / 'loop.db'}?mode=ro", uri=True)
        rows = reader.execute("SELECT * FROM events")
        rows.fetchone()
        for n in range(20):
            ledger.append("x", {"n": n})  # one that waited for this reader would wait for ever
        assert ledger.last_seq == 40
        assert len(rows.fetchall()) == 19, "its snapshot is what it was"
        rows.close()
        reader.close()


# The disk

FILL = """
import resource, signal
from bellglass.errors import SetupError
folder = Path(sys.argv[1])
ledger = Ledger.create(folder)
for n in range(3):
    ledger.append("before", {"n": n})
filler = None
"""
LIMIT = "resource.setrlimit(resource.RLIMIT_FSIZE, ((folder / 'loop.db-wal').stat().st_size + 20_000, -1))\n"
FLOOD = """
kept = 3
try:
    while kept < 100_000:
        ledger.append("flood", {"pad": "x" * 1000})
        kept += 1
except SetupError as error:
    print(error.exit_code, error.next_command)
assert kept < 100_000
assert len(ledger.events()) == kept, (len(ledger.events()), kept)
"""
AFTER = """
ledger.append("after", {})
assert ledger.verify() == kept + 1
ledger.close()
with Ledger.open(folder, write=True) as again:
    assert again.verify() == kept + 1
print("whole")
"""


def output_of(code: str, *arguments: str) -> str:
    process = child(code, *arguments, stderr=subprocess.STDOUT)
    return process.communicate(timeout=30)[0]


def test_a_file_size_limit_is_a_setup_error_and_loses_nothing(folder: Path) -> None:
    unlimit = "resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))\n"
    said = output_of(FILL + LIMIT + FLOOD + unlimit + AFTER, str(folder))
    assert said.splitlines() == ["3 free some space, then bellglass resume", "whole"]


def test_a_full_disk_is_a_setup_error_and_loses_nothing(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounts = ["unshare", "-rm", "mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    try:
        possible = subprocess.run(mounts, capture_output=True, check=False).returncode == 0
    except OSError:
        possible = False
    if not possible:
        pytest.skip("needs Linux user namespaces for a small disk of its own")
    full = "(folder.parent / 'filler').write_bytes(b'x' * 500_000)\n"
    free = "(folder.parent / 'filler').unlink()\n"
    script = tmp_path / "script.py"
    header = "from bellglass.store.ledger import Ledger; from pathlib import Path; import sys\n"
    script.write_text(header + FILL + full + FLOOD + free + AFTER)
    run = f'mount -t tmpfs -o size=1m tmpfs "{disk}" && exec "{sys.executable}" "{script}" "{disk}/loop"'
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", run], capture_output=True, text=True, timeout=60, env=environment, check=False
    )
    assert (done.stdout + done.stderr).splitlines() == ["3 free some space, then bellglass resume", "whole"]


def test_a_ledger_on_a_read_only_disk_can_be_read(folder: Path) -> None:
    filled(folder)
    look = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parent.parent)!r})
from pathlib import Path
from bellglass.errors import SetupError
from bellglass.store.ledger import Ledger
folder = Path(sys.argv[1])
print(Ledger.open(folder).verify())
for refused in (lambda: Ledger.open(folder, write=True), lambda: Ledger.open(folder).post("stop", {{}})):
    try:
        refused()
    except SetupError:
        print("refused")
"""
    mount = 'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" && exec "$2" -c "$3" "$1"'
    command = ["unshare", "-rm", "sh", "-c", mount, "-", str(folder), sys.executable, look]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except OSError:
        pytest.skip("needs Linux user namespaces")
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip("needs Linux user namespaces")
    assert done.stdout.splitlines() == ["5", "refused", "refused"], done.stderr


def test_a_folder_without_write_permission_is_a_setup_error(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write anywhere")
    tmp_path.chmod(0o500)
    with pytest.raises(SetupError):
        Ledger.create(tmp_path / "loop")
