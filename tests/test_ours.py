"""Whose a loop is: what this user's key signed and as it was left, or somebody else's."""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import made_loop
import pytest
from typer.testing import CliRunner
from whose import VARIABLE, another_user

from bellglass import config, deciding, paths, wiring
from bellglass.bounds import Bounds
from bellglass.cli import app
from bellglass.commands import check, start
from bellglass.errors import BellglassError, Interrupted, LoopFault, SetupError, UsageError
from bellglass.loop import take_requests
from bellglass.paths import LEDGER_NAME
from bellglass.received import meaning, take_over
from bellglass.records import Json
from bellglass.show import showing
from bellglass.show.conclusions import CONDITION
from bellglass.store import connections, ours, state_folder
from bellglass.store import ledger as ledger_module
from bellglass.store.blobs import Blobs
from bellglass.store.books import Books
from bellglass.store.ledger import Ledger, digest
from bellglass.store.ours import Standing
from bellglass.verify import verify


def begin(folder: Path, events: int = 3) -> Path:
    with closing(Ledger.create(folder)) as ledger:
        ledger.append("loop.created", {"loop_id": "1a2b3c4d"})
        for number in range(1, events):
            ledger.append("stop.requested", {"who": "me", "reason": str(number)})
    return folder


@pytest.fixture
def loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "state"))
    return begin(tmp_path / "stories-1a2b3c4d")


def standing(folder: Path) -> Standing:
    with closing(Ledger.open(folder)) as ledger:
        return ledger.standing()


def code(act: Callable[[], object]) -> str:
    with pytest.raises(BellglassError) as refused:
        act()
    return refused.value.code


def copy(folder: Path, name: str) -> Path:
    return shutil.copytree(folder, folder.with_name(name))


def append(folder: Path, kind: str = "stop.requested", **body: Json) -> None:
    with closing(Ledger.open(folder, write=True)) as ledger:
        ledger.append(kind, body)


def sql(folder: Path, *statements: str) -> None:
    with closing(sqlite3.connect(folder / LEDGER_NAME, isolation_level=None)) as other:
        for statement in statements:
            other.execute(statement)


def rehashed(folder: Path, change: Callable[[str, Json], None], begin_at: int = 1) -> None:
    """As somebody else does it who may write the folder: every hash fits again, no signature does."""
    with closing(Ledger.open(folder)) as ledger:
        events = ledger.events()
    prev = "0" * 64 if begin_at == 1 else events[begin_at - 2].hash
    with closing(sqlite3.connect(folder / LEDGER_NAME, isolation_level=None)) as other:
        for event in events[begin_at - 1 :]:
            change(event.kind, event.body)
            text = json.dumps(event.body, sort_keys=True, separators=(",", ":"))
            hash_ = digest(event.seq, event.time, event.kind, text, prev)
            other.execute("UPDATE events SET body=?, prev=?, hash=? WHERE seq=?", (text, prev, hash_, event.seq))
            prev = hash_
    with closing(Ledger.open(folder)) as ledger:
        assert ledger.verify() == len(events)  # nothing but whose it is tells


def test_what_is_made_here_is_ours(loop: Path) -> None:
    assert standing(loop).code == "made_here"
    append(loop)
    assert standing(loop).made_here


def test_to_another_user_it_is_received_and_nothing_can_be_appended(loop: Path, tmp_path: Path) -> None:
    with another_user():
        assert (standing(loop).word, standing(loop).code) == ("received", "no_key")
        assert not paths.state_home().exists()  # whoever looks makes nothing
        assert code(lambda: append(loop)) == "loop_received"
        begin(tmp_path / "their-own")
        assert standing(loop).code == "forged"  # they have one of this id
    with another_user():
        begin(tmp_path / "another")
        shutil.rmtree(paths.state_home() / "heads")
        assert standing(loop).code == "other_key"


def test_of_two_copies_that_are_whole_the_first_to_go_on_is_ours(loop: Path) -> None:
    second = copy(loop, "second")
    assert standing(loop).ours
    assert standing(second).ours
    append(second)
    assert standing(second).ours
    assert standing(loop).code == "cut"  # an older copy looks like one that was cut
    assert code(lambda: append(loop)) == "loop_received"


def test_an_end_that_was_cut_off_is_found_without_a_head(loop: Path) -> None:
    sql(loop, "DELETE FROM events WHERE seq = 3", "DELETE FROM signatures WHERE seq = 3")
    assert standing(loop).code == "cut"
    with closing(Ledger.open(loop)) as ledger:
        assert ledger.verify() == 2  # the rest is whole
    with another_user():  # the head is noted where it was made, and nowhere else
        assert standing(loop).code != "cut"


def test_a_forgery_of_which_all_hashes_fit_is_found(loop: Path) -> None:
    def lies(kind: str, body: Json) -> None:
        body["reason"] = "another"

    later, first = copy(loop, "later"), copy(loop, "first")
    rehashed(later, lies, begin_at=2)
    assert standing(later).code == "altered"
    rehashed(first, lies)
    assert standing(first).code == "forged"
    assert all(standing(folder).counterfeit for folder in (later, first))


def test_what_somebody_added_behind_our_last_event_is_found(loop: Path) -> None:
    """The chain holds the head that was noted: without signatures it could not be told from what a crash left."""
    theirs = copy(loop, "theirs")
    with another_user(), closing(Ledger.open(theirs, write=True, received=True)) as ledger:
        noted = ledger.head
        ledger.append("review.decided", {"decision": "approve"})
    with closing(Ledger.open(theirs)) as ledger:
        assert ledger.verify() == 4
        assert noted in [event.hash for event in ledger.events()]
    assert standing(theirs).code == "altered"
    sql(theirs, "DELETE FROM signatures WHERE seq = 4")
    assert standing(theirs).code == "altered"
    sql(theirs, "INSERT INTO signatures SELECT 4, mac FROM signatures WHERE seq = 3")
    assert standing(theirs).code == "altered"
    assert code(lambda: append(theirs)) == "loop_received"


@pytest.mark.parametrize("lost", ["key", "heads", "both", "damaged head", "readable key", "short key"])
def test_with_the_state_folder_the_loop_is_lost(loop: Path, lost: str) -> None:
    home = paths.state_home()
    if lost in ("key", "both"):
        (home / "key").unlink()
    if lost in ("heads", "both"):
        shutil.rmtree(home / "heads")
    if lost == "damaged head":
        next((home / "heads").iterdir()).write_text("[1]")
    if lost == "readable key":
        (home / "key").chmod(0o644)
    if lost == "short key":
        (home / "key").write_text("ab")
    expected = {"key": "no_key", "both": "no_key", "short key": "no_key", "readable key": "no_state"}
    assert standing(loop).code == expected.get(lost, "no_head")


def test_a_head_may_lag_or_be_emptied_by_a_power_cut(loop: Path) -> None:
    file = next((paths.state_home() / "heads").iterdir())
    noted = file.read_bytes()
    append(loop)
    append(loop)
    file.write_bytes(noted)
    assert standing(loop).made_here
    for left in (b"", bytes(len(noted))):
        file.write_bytes(left)
        assert standing(loop).made_here
    sql(loop, "DELETE FROM signatures WHERE seq = 4")  # then every event is asked
    assert standing(loop).code == "altered"


def test_a_loop_of_an_earlier_version_is_received(loop: Path) -> None:
    sql(loop, "DROP TABLE signatures")
    with another_user():
        assert standing(loop).code == "unsigned"
    assert standing(loop).code == "altered"  # its head was noted here, which no earlier version did


def test_where_no_key_can_be_kept_no_loop_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(VARIABLE, str(tmp_path / "file"))
    assert code(lambda: begin(tmp_path / "loop")) == "state_folder_unsafe"
    assert not (tmp_path / "loop").exists()


def test_a_head_that_can_not_be_noted_stops_the_next_event_before_it_is_written(loop: Path) -> None:
    home = paths.state_home()
    with closing(Ledger.open(loop, write=True)) as ledger:
        (home / "heads").rename(home / "away")
        (home / "heads").symlink_to(home / "away")  # a folder that is refused
        ledger.append("stop.requested", {})
        with pytest.raises(SetupError):
            ledger.append("stop.requested", {})
        assert ledger.last_seq == 4
        (home / "heads").unlink()
        (home / "away").rename(home / "heads")
        ledger.append("stop.requested", {})
    assert standing(loop).made_here


def test_the_key_is_kept_for_this_user_alone(loop: Path) -> None:
    key = paths.state_home() / "key"
    assert key.stat().st_mode & 0o777 == 0o600
    assert len(bytes.fromhex(key.read_text())) == 32
    assert ours.ready() == bytes.fromhex(key.read_text())


# Taking over


def taken(folder: Path) -> None:
    done = CliRunner().invoke(app, ["takeover", str(folder), "--yes"])
    assert done.exit_code == 0, done.exception


@pytest.fixture
def received(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "state"))
    with another_user():
        return made_loop.write(tmp_path, 2, texts=True, seed=4)


def test_a_loop_is_taken_over_only_after_a_yes(received: Path) -> None:
    asked = CliRunner().invoke(app, ["takeover", str(received)])
    assert asked.exception.code == "not_confirmed"
    assert "can vouch for its past" in asked.stdout
    assert standing(received).code == "no_key"
    taken(received)
    assert standing(received).code == "taken_over"
    assert not standing(received).made_here
    append(received)
    assert standing(received).ours
    assert code(lambda: taken_again(received)) == "already_yours"


def test_a_no_is_taken_for_one(received: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check.sys, "stdin", Typed("n\n"))
    with pytest.raises(UsageError) as refused:
        check.takeover(str(received))
    assert (refused.value.code, "--yes" in refused.value.next_command) == ("not_confirmed", False)
    assert not standing(received).ours


class Typed(io.StringIO):
    """What a person types."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("unsafe", ["", "heads"])
def test_a_state_folder_that_others_may_write_is_said_before_a_person_is_asked(received: Path, unsafe: str) -> None:
    begin(received.parent / "mine")
    (paths.state_home() / unsafe).chmod(0o777)
    assert code(lambda: meaning(received)) == "state_folder_unsafe"


def test_a_loop_without_bounds_as_the_demo_makes_it_is_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "state"))
    with another_user():
        folder = wiring.create(config.load(None, {**start.DEMO, "seed": 1, "glass": "process"}), tmp_path)
    assert any("no bound on training, no bound on money" in line for line in meaning(folder))
    taken(folder)


def taken_again(folder: Path) -> None:
    raise CliRunner().invoke(app, ["takeover", str(folder), "--yes"]).exception


def test_a_takeover_of_somebody_else_makes_it_nobodys_here(received: Path) -> None:
    with another_user():
        taken(received)
        assert standing(received).ours
    assert standing(received).word == "received"


def test_requests_that_came_along_are_gone_with_the_takeover(received: Path) -> None:
    with closing(Ledger.open(received)) as ledger:
        ledger.post("stop", {"who": "them"})
        ledger.post("review", {"decision": "approve"})
    sql(received, "INSERT INTO inbox (time, kind, body) VALUES (0.0, 'x', 'not json')")
    taken(received)
    with closing(Ledger.open(received)) as ledger:
        assert ledger.waiting() == 0
        assert ledger.events()[-1].body["requests"] == 3


def test_an_older_loop_of_ones_own_is_taken_over(received: Path) -> None:
    sql(received, "DROP TABLE signatures")
    assert standing(received).code == "unsigned"
    taken(received)
    assert standing(received).code == "taken_over"


def test_what_was_taken_over_and_comes_back_altered_is_received_again(received: Path) -> None:
    untouched = copy(received, "untouched")
    taken(received)
    assert standing(untouched).code == "altered"
    append(received)
    before = copy(received, "before")
    append(received)
    assert standing(before).code == "cut"
    with another_user(), closing(Ledger.open(received, write=True, received=True)) as ledger:
        ledger.append("stop.requested", {})
    assert standing(received).code == "altered"


def cut(folder: Path) -> None:
    last = "(SELECT max(seq) FROM events)"
    sql(folder, f"DELETE FROM signatures WHERE seq = {last}", f"DELETE FROM events WHERE seq = {last}")


def gone_on_with(folder: Path) -> None:
    with another_user(), closing(Ledger.open(folder, write=True, received=True)) as ledger:
        ledger.append("stop.requested", {})


def without_signatures(folder: Path) -> None:
    sql(folder, "DROP TABLE signatures")


def under_another_key(folder: Path) -> None:
    sql(folder, f"UPDATE signatures SET mac = '{'ab' * 32}'")


def with_another_past(folder: Path) -> None:
    rehashed(folder, lambda kind, body: body.update(version="another") if kind == "loop.created" else None)


@pytest.mark.parametrize("change", [cut, gone_on_with, without_signatures, under_another_key, with_another_past])
def test_no_altered_copy_of_ones_own_loop_is_taken_over_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], None]
) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "state"))
    own = made_loop.write(tmp_path, 1, texts=True, seed=5)
    altered = copy(own, "altered")
    change(altered)
    assert code(lambda: meaning(altered)) == "loop_counterfeit"
    assert code(lambda: take_over(altered)) == "loop_counterfeit"
    assert standing(own).made_here
    monkeypatch.setattr(Standing, "counterfeit", property(lambda self: False))
    take_over(altered)
    assert standing(altered).ours, "two loops of one id, whose guests are told apart by it"
    assert standing(own).ours == (change is with_another_past), "and this one's head was noted in the place of ours"


def test_where_ones_own_is_gone_an_older_copy_is_taken_over_once_its_head_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "state"))
    own = made_loop.write(tmp_path, 1, texts=True, seed=5)
    cut(own)
    with pytest.raises(LoopFault) as refused:
        take_over(own)
    named = Path(refused.value.needed.rpartition(" ")[2])
    for head in named.parent.glob(named.name):
        head.unlink()
    take_over(own)
    assert standing(own).code == "taken_over"


def test_a_loop_with_the_id_of_one_of_ours_is_not_taken_over(received: Path, tmp_path: Path) -> None:
    with closing(Ledger.create(tmp_path / "own")) as ledger:
        ledger.append("loop.created", {"loop_id": "00000004"})
    assert code(lambda: taken_again(received)) == "loop_counterfeit"
    assert standing(tmp_path / "own").made_here


def test_verify_says_whose_it_is_and_fails_on_a_counterfeit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "state"))
    folder = made_loop.write(tmp_path, 1, texts=True, seed=5)
    sql(folder, "DELETE FROM events WHERE seq = (SELECT max(seq) FROM events)")
    with closing(Ledger.open(folder)) as ledger:
        assert [finding.what for finding in verify(folder, ledger) if not finding.ok] == ["standing"]
    told = CliRunner().invoke(app, ["verify", str(folder)])
    assert isinstance(told.exception, LoopFault)
    assert told.exception.code == "loop_counterfeit"
    assert told.exception.next_command == f"bellglass takeover {folder}"
    with another_user():
        told = CliRunner().invoke(app, ["verify", str(folder)])
    assert told.exit_code == 0
    assert "--   standing: received" in told.stdout


def test_whoever_looks_at_a_received_loop_is_told_so(received: Path) -> None:
    for words in (["log"], ["diff"], ["review"]):
        assert "Received: " in CliRunner().invoke(app, [words[0], str(received)]).stderr, words
    assert f"its maker's word: {received.name}" in CliRunner().invoke(app, ["compare", str(received)]).stdout
    may = showing.open_loop(received).document()["conclusions"]["may"]
    assert may[0] == CONDITION
    assert all(line.startswith("By those records, ") for line in may[1:])


def test_status_says_the_word_and_why(received: Path) -> None:
    told = CliRunner().invoke(app, ["status", str(received)])
    assert "received: this user has no key here" in told.stdout
    assert f"bellglass takeover {received}" in told.stdout
    shown = CliRunner().invoke(app, ["status", str(received), "--json"]).stdout
    assert json.loads(shown)["standing"]["code"] == "no_key"


def test_nobody_decides_or_resumes_before_the_takeover(received: Path) -> None:
    size = os.path.getsize(received / LEDGER_NAME)
    for words in (["resume"], ["review", "--rearm", "leak", "--reason", "fine"], ["stop"], ["stop", "--now"]):
        done = CliRunner().invoke(app, [words[0], str(received), *words[1:]])
        assert isinstance(done.exception, LoopFault), words
        assert done.exception.code == "loop_received", words
    assert os.path.getsize(received / LEDGER_NAME) == size
    assert state_folder.names("heads") == []


def test_no_decision_is_handed_to_whoever_holds_the_lock_of_a_received_loop(
    received: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alarm = {"name": "leak", "generation": 1, "sentence": "look", "evidence": []}
    with another_user(), closing(Ledger.open(received, write=True, received=True)) as ledger:
        ledger.append("tripwire.fired", alarm)
    monkeypatch.setattr(deciding, "TAKEN_SECONDS", 0.0)
    lock = os.open(received / paths.LOCK_NAME, os.O_RDWR)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for defended in (True, False):
            if not defended:
                monkeypatch.setattr(deciding, "require_ours", lambda folder, standing: None)
            if defended:
                assert code(lambda: deciding.rearm(received, "leak", "fine")) == "loop_received"
            else:
                assert not deciding.rearm(received, "leak", "fine").taken
            with closing(Ledger.open(received)) as ledger:
                assert ledger.waiting() == (0 if defended else 1)
    finally:
        os.close(lock)


def test_a_request_that_came_along_is_acted_upon_only_where_the_takeover_leaves_it(received: Path) -> None:
    def asked_to_stop(folder: Path) -> bool:
        with closing(Ledger.open(folder, write=True)) as ledger:
            books = Books(ledger, Blobs(folder / "blobs"), Bounds())
            with contextlib.suppress(Interrupted):
                take_requests(books)
            return books.state.stop_requested is not None

    with closing(Ledger.open(received)) as ledger:
        ledger.post("stop", {"who": "them", "reason": "theirs"})
    careless = copy(received, "careless")
    taken(received)
    assert not asked_to_stop(received)
    shutil.rmtree(paths.state_home() / "heads")
    with closing(Ledger.open(careless, write=True, received=True)) as ledger:
        ledger.append("loop.taken_over", {"who": "me"})  # the same event, and the inbox as it was
    assert asked_to_stop(careless)


def test_a_trigger_that_came_along_runs_only_where_nobody_looks(
    received: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sql(
        received,
        "CREATE TRIGGER t AFTER INSERT ON events BEGIN INSERT INTO inbox (time, kind, body) "
        "VALUES (0.0, 'stop', '{}'); END",
    )
    assert code(lambda: Ledger.open(received)) == "ledger_damaged"
    assert code(lambda: taken_again(received)) == "ledger_damaged"
    for module in (ledger_module, connections):
        monkeypatch.setattr(module, "require_own_tables", lambda folder, connection: None)
    taken(received)
    with closing(Ledger.open(received)) as ledger:
        assert ledger.waiting() == 0  # the takeover empties the inbox behind its event
    append(received)
    with closing(Ledger.open(received)) as ledger:
        assert ledger.waiting() == 1
