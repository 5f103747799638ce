"""The page's server: who may ask it, what it answers; what it decides goes where the console's decisions go."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import made_loop
import pytest

from bellglass import deciding
from bellglass.commands import watch
from bellglass.errors import SetupError, UsageError
from bellglass.show import showing
from bellglass.show.following import Following
from bellglass.store.ledger import Ledger
from bellglass.web import server

TOKEN = "t" * 32
HERE = "127.0.0.1:8642"
EVIDENCE = "ab" * 32
OWN = {"host": HERE, "x-bellglass": TOKEN}
WRITE = {**OWN, "origin": f"http://{HERE}", "content-type": "application/json"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_loop.write(tmp_path_factory.mktemp("made"), 3, texts=True)


@pytest.fixture
def waiting(tmp_path: Path) -> Path:
    """A loop whose second generation waits for a person."""
    folder = tmp_path / "stories-1a2b3c4d"
    with closing(Ledger.create(folder)) as ledger:
        for kind, body in made_loop.Maker(2, seed=5).events():
            if kind == "generation.ended" and body["generation"] == 2:
                break
            ledger.append(kind, body)
        ledger.append("review.requested", {"generation": 2, "evidence_hash": EVIDENCE})
    return folder


@pytest.fixture
def site(waiting: Path) -> Iterator[server.Site]:
    with closing(Following(waiting)) as followed:
        yield server.Site(followed, TOKEN, watch.deeds(waiting))


def ask(site: server.Site, path: str, headers: dict[str, str], *, method: str = "GET", body: bytes = b"") -> Any:
    """(status, headers, body) of one request, given to the application as a server would."""
    path, _, query = path.partition("?")
    length = {"content-length": str(len(body))} if method == "POST" else {}
    raw = [(name.encode(), value.encode()) for name, value in {**length, **headers}.items()]
    scope = {"type": "http", "method": method, "path": path, "query_string": query.encode(), "headers": raw}
    scope |= {"http_version": "1.1", "scheme": "http", "root_path": "", "raw_path": path.encode()}
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(server.application(site)(scope, receive, send))
    told = {name.decode().lower(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], told, b"".join(message.get("body", b"") for message in sent[1:])


def decide(site: server.Site, **changed: object) -> tuple[int, dict[str, str]]:
    asked = {"generation": 2, "decision": "approve", "reason": "looked", "evidence_hash": EVIDENCE, **changed}
    status, _, body = ask(site, "/api/act/review", WRITE, method="POST", body=json.dumps(asked).encode())
    return status, json.loads(body)


@pytest.mark.parametrize(
    ("status", "method", "path", "headers"),
    [
        (421, "GET", "/", {"host": "evil.example:8642"}),
        (421, "GET", "/api/document", {**OWN, "host": "127.0.0.1.evil.example"}),
        (421, "GET", "/", {}),
        (403, "GET", "/api/document", {"host": HERE}),
        (403, "GET", "/api/document", {**OWN, "x-bellglass": "t" * 31 + "u"}),
        (403, "GET", "/api/document", {**OWN, "x-bellglass": ""}),
        (403, "GET", "/api/document", {**OWN, "x-bellglass": "é"}),
        (403, "GET", "/api/document?token=" + TOKEN, {"host": HERE}),
        (403, "GET", "/api/document", {**OWN, "origin": "https://evil.example"}),
        (403, "GET", "/api/document", {**OWN, "origin": "http://127.0.0.1:9999"}),
        (403, "GET", "/api/document", {**OWN, "sec-fetch-site": "cross-site"}),
        (403, "GET", "/api/events", {"host": HERE}),
        (403, "POST", "/api/act/stop", {k: v for k, v in WRITE.items() if k != "origin"}),
        (403, "POST", "/api/act/stop", {**WRITE, "origin": "null"}),
        (415, "POST", "/api/act/stop", {**WRITE, "content-type": "text/plain"}),
        (411, "POST", "/api/act/stop", {**WRITE, "content-length": "-1"}),
        (411, "POST", "/api/act/stop", {**WRITE, "content-length": "2", "transfer-encoding": "chunked"}),
        (413, "POST", "/api/act/stop", {**WRITE, "content-length": "65537"}),
        (414, "GET", "/api/diff/" + "9" * 5000, OWN),
        (405, "POST", "/", WRITE),
        (405, "PUT", "/api/document", OWN),
        (405, "OPTIONS", "/api/document", OWN),
        (404, "GET", "/static/..%2fserver.py", OWN),
        (404, "GET", "/static/page.html", OWN),
    ],
)
def test_who_is_not_this_page_is_refused(
    site: server.Site, status: int, method: str, path: str, headers: dict[str, str]
) -> None:
    assert ask(site, path, headers, method=method)[0] == status


@pytest.mark.parametrize("host", [HERE, "localhost:9000", "[::1]:8642"])
def test_the_page_itself_is_answered_by_every_name_of_this_machine(site: server.Site, host: str) -> None:
    assert ask(site, "/api/document", {**OWN, "host": host, "origin": f"http://{host}"})[0] == 200


@pytest.mark.parametrize("path", ["/", "/static/app.js", "/api/document", "/api/nothing", "/api/diff/x"])
def test_every_answer_is_closed_to_others_and_tells_no_token(site: server.Site, path: str) -> None:
    for headers in (OWN, {"host": "evil.example"}):
        _, told, body = ask(site, path, headers)
        assert {name: told.get(name) for name in server.HEADERS} == server.HEADERS
        assert not any(name.startswith("access-control") or name == "set-cookie" for name in told)
        assert TOKEN.encode() not in body


def test_the_document_is_that_of_the_loop(site: server.Site, waiting: Path) -> None:
    status, _, body = ask(site, "/api/document", OWN)
    assert (status, json.loads(body)) == (200, json.loads(json.dumps(showing.open_loop(waiting).document())))


def test_large_texts_come_one_by_one(whole: Path) -> None:
    with closing(Following(whole)) as followed:
        site = server.Site(followed, TOKEN)
        found = {what: json.loads(ask(site, f"/api/{what}/1", OWN)[2]) for what in ("diff", "session", "curves")}
        absent = json.loads(ask(site, "/api/diff/999", OWN)[2])
    assert found["diff"]["files"][0]["path"].startswith("trainer/")
    assert len(found["session"]["calls"]) == 2
    assert found["curves"]["series"] == []
    assert "no successor" in absent["missing"]


def test_what_is_appended_is_followed_as_a_fresh_look_would_show_it(waiting: Path) -> None:
    with closing(Following(waiting)) as followed:
        before = followed.news()
        with closing(Ledger.open(waiting, write=True)) as ledger:
            ledger.append("loop.clock", {"wall_seconds": 3.0})
            ledger.append("loop.dreamt", {})
        after = followed.news()
        assert (after["seq"], after["head"] != before["head"]) == (before["seq"] + 2, True)
        assert followed.document() == showing.open_loop(waiting).document()
        assert any("loop.dreamt" in line for line in followed.document()["missing"])


def test_a_ledger_that_is_damaged_meanwhile_is_shown_up_to_the_damage(waiting: Path) -> None:
    with closing(Following(waiting)) as followed:
        with closing(sqlite3.connect(waiting / "loop.db")) as db, db:
            db.execute("UPDATE events SET body = body || ' ' WHERE seq = 9")
        with closing(Ledger.open(waiting, write=True)) as ledger:
            ledger.append("loop.clock", {"wall_seconds": 3.0})
        assert Following(waiting).document()["loop"]["seq"] == 8
        assert any("damaged behind event 8" in line for line in Following(waiting).document()["missing"])
        assert followed.news()["seq"] > 8  # what was read whole before stays


def test_a_ledger_that_was_put_back_and_went_another_way_is_read_anew(waiting: Path) -> None:
    with closing(Following(waiting)) as followed:
        known = followed.news()["seq"]
        with closing(sqlite3.connect(waiting / "loop.db")) as db, db:
            db.execute("DELETE FROM events WHERE seq > ?", (known - 2,))
            db.execute("DELETE FROM signatures WHERE seq > ?", (known - 2,))
        with closing(Ledger.open(waiting, write=True, received=True)) as ledger:
            for _ in range(4):
                ledger.append("loop.clock", {"wall_seconds": 3.0})
        assert followed.document() == showing.open_loop(waiting).document()


def test_a_decision_of_the_page_is_in_the_ledger_and_the_second_person_is_told(
    site: server.Site, waiting: Path
) -> None:
    status, said = decide(site)
    assert (status, said["message"].split(";")[0]) == (200, "recorded: approve for generation 2")
    status, said = decide(site, decision="reject")
    assert (status, said["code"]) == (409, "nothing_waits")
    review = deciding.state_of(waiting).generation(2).review
    assert (review["decision"], review["reason"], review["evidence_hash"]) == ("approve", "looked", EVIDENCE)


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"evidence_hash": "cd" * 32}, "evidence_changed"),
        ({"reason": " "}, "reason_missing"),
        ({"decision": "maybe"}, "option_invalid"),
        ({"generation": "2"}, "request_invalid"),
        ({"generation": True}, "request_invalid"),
    ],
)
def test_a_decision_on_other_evidence_or_without_a_reason_changes_nothing(
    site: server.Site, waiting: Path, changed: dict[str, object], code: str
) -> None:
    status, said = decide(site, **changed)
    assert (status, said["code"]) == (409, code)
    assert deciding.state_of(waiting).generation(2).review is None


def test_with_an_owner_at_work_the_decision_waits_for_it_and_a_second_one_is_told(
    waiting: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deciding, "TAKEN_SECONDS", 0.1)
    with closing(Ledger.open(waiting, write=True)) as owner:
        assert not deciding.decide(waiting, 2, "approve", "looked", EVIDENCE).taken
        with pytest.raises(UsageError) as told:
            deciding.decide(waiting, 2, "reject", "no", EVIDENCE)
        assert told.value.code == "already_decided"
        (request,) = owner.take()
        assert (request.kind, request.body["decision"]) == ("review", "approve")


def test_a_re_arming_that_an_owner_has_not_taken_is_not_called_done(
    waiting: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deciding, "TAKEN_SECONDS", 0.1)
    with closing(Ledger.open(waiting, write=True)) as owner:
        owner.append("tripwire.fired", {"name": "canary", "generation": 2, "sentence": "it sang", "evidence": []})
        told = deciding.rearm(waiting, "canary", "looked")
    assert not told.taken
    assert told.line.startswith("handed in: re-arm canary; bellglass resume ")


def test_only_a_latched_tripwire_can_be_re_armed(site: server.Site, waiting: Path) -> None:
    body = json.dumps({"name": "canary", "reason": "looked", "seen": "it sang"}).encode()
    assert ask(site, "/api/act/rearm", WRITE, method="POST", body=body)[0] == 409
    with closing(Ledger.open(waiting, write=True)) as ledger:
        wire = {"name": "canary", "generation": 2, "level": "pause", "sentence": "it sang", "evidence": []}
        ledger.append("tripwire.fired", wire)
    other = body.replace(b"it sang", b"it coughed")
    status, _, told = ask(site, "/api/act/rearm", WRITE, method="POST", body=other)
    assert (status, json.loads(told)["code"]) == (409, "evidence_changed"), "a person re-arms what they were shown"
    assert ask(site, "/api/act/rearm", WRITE, method="POST", body=body)[0] == 200
    assert deciding.state_of(waiting).tripwires == []


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"a": 1, "a": 2}', b'{"a": NaN}', b"[" * 60_000])
def test_a_request_that_is_no_object_is_refused(site: server.Site, body: bytes) -> None:
    assert ask(site, "/api/act/review", WRITE, method="POST", body=body)[0] == 409


def test_a_deed_that_this_page_lacks_is_refused(site: server.Site) -> None:
    assert ask(site, "/api/act/sing", WRITE, method="POST", body=b"{}")[0] == 409


def test_a_port_in_use_gives_way_to_the_next_free_one() -> None:
    with server.bind(0) as first:
        port = first.getsockname()[1]
        with server.bind(port) as second:
            assert port < second.getsockname()[1] < port + server.PORTS_TRIED
            assert second.getsockname()[0] == "127.0.0.1"


def test_no_free_port_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "PORTS_TRIED", 1)
    with server.bind(0) as first, pytest.raises(SetupError, match="in use"):
        server.bind(first.getsockname()[1])


def test_a_pages_token_and_port_are_kept_for_its_user_and_never_taken_from_a_loops_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    folder, note = tmp_path / "loop", {"port": 8650, "token": TOKEN}
    folder.mkdir()
    (folder / "watch.json").write_text(json.dumps(note))
    assert watch._kept(folder) == {}
    watch._keep(folder, note)
    assert watch._kept(folder) == note
    assert [path.name for path in folder.iterdir()] == ["watch.json"]
    (kept,) = (tmp_path / "state" / "bellglass" / "pages").iterdir()
    kept.chmod(0o644)
    assert watch._kept(folder) == {}
    watch._keep(folder, {**note, "token": "short"})
    assert watch._kept(folder) == {}


def test_a_page_beside_a_loop_ends_when_the_driver_is_gone_and_nobody_looks(
    site: server.Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "IDLE_SECONDS", 0.5)
    running, gone = server.server_for(site), threading.Event()
    site.listeners = 1
    server.end_when_idle(running, site, gone.is_set)
    gone.set()
    time.sleep(1.3)
    assert not running.should_exit  # somebody has it open
    site.listeners = 0
    deadline = time.monotonic() + 20
    while not running.should_exit and time.monotonic() < deadline:
        time.sleep(0.05)
    assert running.should_exit
    assert site.ending()


def test_news_come_less_often_where_a_document_takes_long(
    site: server.Site, waiting: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a page of a long loop takes a small share of a machine that trains."""

    now = [1000.0]
    monkeypatch.setattr(server, "time", SimpleNamespace(monotonic=lambda: now[0]))

    async def rest(seconds: float) -> None:
        now[0] += seconds
        with closing(Ledger.open(waiting, write=True)) as ledger:
            ledger.append("loop.clock", {"wall_seconds": 1.0})

    monkeypatch.setattr(server.asyncio, "sleep", rest)

    async def pieces(document_seconds: float) -> int:
        site.show.document_seconds = document_seconds
        until = now[0] + 20 * server.POLL_SECONDS
        site.ending = lambda: now[0] > until
        return [piece.startswith("data: ") async for piece in site.news()].count(True)

    assert asyncio.run(pieces(0.0)) >= 20
    assert asyncio.run(pieces(1.0)) == 1


@pytest.mark.slow
def test_a_loop_starts_with_a_page_in_a_process_of_its_own(waiting: Path, capfd: pytest.CaptureFixture[str]) -> None:
    page = watch.page_beside(waiting)
    assert page is not None
    try:
        base, _, token = capfd.readouterr().err.removeprefix("page").strip().partition("#token=")
        with urllib.request.urlopen(urllib.request.Request(f"{base}api/document", headers={"X-Bellglass": token})) as r:
            assert json.load(r)["oversight"]["waiting"] == 2
    finally:
        page.terminate()
        for pipe in (page.stdin, page.stdout):
            pipe.close()
        page.wait(timeout=20)


@pytest.mark.slow
def test_a_page_that_does_not_come_up_is_said_and_stops_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert watch.page_beside(tmp_path) is None
    assert "no page: bellglass watch" in capfd.readouterr().err


@pytest.mark.slow
def test_a_recheck_asked_for_on_the_page_trains_again_and_tells(adopted: Path) -> None:
    said = watch.deeds(adopted)["recheck"]({"generation": 1})
    assert "holds" in said.splitlines()[-1]
    assert said.startswith("scores are as the gate compares them")
    assert all(line.startswith("g1-pair-") for line in said.splitlines()[1:3])
    with pytest.raises(UsageError) as told:
        watch.deeds(adopted)["recheck"]({"generation": "1"})
    assert told.value.code == "request_invalid"
