"""Loops and recordings as an attacker sends them: a real one, and every trick that was thought of, in several kinds.

Each trick reaches for a canary of the receiver: files that are to stay as they are, a folder in which nothing may ever
appear, a process that is to live on. `python tests/hostile_loop.py FOLDER` writes all of them there, to look at.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import sqlite3
import sys
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import made_loop
from whose import another_user

from bellglass import paths
from bellglass.errors import LoopFault
from bellglass.paths import content_hash, content_root
from bellglass.processes import named
from bellglass.records import Bundle, Json
from bellglass.show import recording
from bellglass.show.summary import as_json
from bellglass.store.blobs import Blobs
from bellglass.store.ledger import GENESIS, Event, Ledger, digest
from bellglass.store.lineage import Lineage
from bellglass.store.state import fold

PRECIOUS = "what the receiver would miss\n"
LOOP_ID = "00000004"
TERMINAL = "\x1b]0;owned\x07\x1b[2J\x1b[31m"  # a title, a cleared screen, red
MARKUP = "<script>fetch('//evil')</script><img src=x onerror=alert(1)>[red]x[/red][link=file:///etc/passwd]y[/link]"
NOTE = f"{TERMINAL}{MARKUP}\u202eleft\u0007\r\nerror: all is well"
LARGE, HUGE = 10**38, 10**400  # what every float takes, and none


@dataclass(frozen=True)
class Canaries:
    """What belongs to the receiver."""

    folder: Path
    pid: int  # of a process that has nothing to do with any loop

    @property
    def file(self) -> Path:
        return self.folder / "precious.txt"

    @property
    def ran(self) -> Path:
        """Whatever runs leaves a file here."""
        return self.folder / "ran"

    def touch(self, by: str) -> str:
        """A shell command that shows that it ran."""
        return f"touch {self.ran}/{by}"

    def python(self, by: str) -> str:
        return f"open({str(self.ran / by)!r}, 'w').close()\n"

    def lay(self) -> None:
        self.ran.mkdir(parents=True)
        self.file.write_text(PRECIOUS)
        (self.folder / "objects").mkdir()

    def unharmed(self) -> bool:
        kept = sorted(path.name for path in self.folder.iterdir()) == ["objects", "precious.txt", "ran"]
        return kept and self.file.read_text() == PRECIOUS and not any(self.ran.iterdir())


@dataclass
class Hostile(made_loop.Maker):
    """Its bundles touch a canary, and its words are written for terminals and browsers."""

    canaries: Canaries | None = None

    def _commit(self, bundle: Bundle, parent: str | None) -> str:
        assert self.canaries is not None
        code = self.canaries.python("bundle").encode()
        odd = {f"scaffold/{MARKUP[8:20].replace('/', '')}.md": NOTE.encode()}
        plain = {**bundle, "trainer/train.py": code + bundle["trainer/train.py"], "trainer/model.py": code}
        try:
            return super()._commit({**plain, **odd}, parent)
        except Exception:  # a name that no bundle may have: the loop then comes without it
            return super()._commit(plain, parent)


def write(home: Path, canaries: Canaries, generations: int = 2, *, ends: bool = True) -> Path:
    """The loop that all kinds are made from: whole, and lying about who made it and how."""
    folder = home / f"stories-{LOOP_ID}"
    maker = Hostile(generations, seed=int(LOOP_ID), note=NOTE, canaries=canaries)
    with another_user(), closing(Ledger.create(folder)) as ledger:
        maker.lineage, maker.blobs = Lineage.create(folder / "lineage.git"), Blobs(folder / "blobs")
        for kind, body in maker.events():
            if kind == "loop.created":
                body |= {"glass": "process", "sealed": True, **paths.user_host(), "version": NOTE}
                body["config"] |= {"glass": "process"}
            if kind == "trial.settled":
                body["weights"] = maker.blobs.put(body["trial_id"].encode())
            if kind in ("generation.ended", "gate.decided"):
                (body.get("gate") or body)["why"] = NOTE
            if ends or kind != "loop.ended":
                ledger.append(kind, body)
        ledger.append("session.note", {"generation": 1, "text": NOTE})
    (folder / "secret").write_bytes(maker.secret)
    return folder


# Kinds


def words(folder: Path, canaries: Canaries) -> None:
    """Nothing a loop of ours could not have: only what it says."""
    with closing(Ledger.open(folder)) as ledger:
        ledger.post("stop", {"who": NOTE, "reason": NOTE})
        ledger.post("review", {"generation": 1, "decision": "approve", "reason": "", "who": "you", "evidence_hash": ""})
        ledger.post("rearm", {"name": "leak", "who": "you", "reason": NOTE})
        ledger.post("bounds", {"budget_usd": 1e9, "generations": 10**6})
    name = named(canaries.pid)
    (folder / "loop.lock").write_text(json.dumps({"pid": name.pid, "start": name.start}))
    note = folder / "watch.json"
    note.write_text(json.dumps({"port": 8642, "token": "A" * 32}))
    note.chmod(0o600)
    (folder / "wandb").mkdir()
    (folder / "wandb" / "settings").write_text("[default]\nbase_url = http://127.0.0.1:9\napi_key = " + "k" * 40)
    (folder / "wandb" / "follower.log").symlink_to(canaries.file)
    for name_, text in (("sitecustomize.py", canaries.python("site")), ("conftest.py", canaries.python("conftest"))):
        (folder / name_).write_text(text)


def own_task(folder: Path, canaries: Canaries) -> None:
    """A task that came along, as its ledger says, and vouches for."""
    task = folder / "task"
    shutil.copytree(content_root() / "tasks" / "stories", task, ignore=shutil.ignore_patterns("__pycache__"))
    (task / "data.py").write_text(canaries.python("data.py") + (task / "data.py").read_text())
    (task / "brief.md").write_text(NOTE)

    def change(event: Event) -> None:
        if event.kind == "loop.created":
            event.body["config"]["task"] = str(task)
            event.body["content"]["task"] = content_hash(task)

    _rewrite(folder, change)


def lineage(folder: Path, canaries: Canaries) -> None:
    """Whatever git believes of a repository that it is shown, and a part that would have to be fetched."""
    git = folder / "lineage.git"
    command = canaries.touch("git")
    with (git / "config").open("a") as config:
        config.write(
            f'[core]\n\tfsmonitor = "{command}"\n\tsshCommand = "{command}"\n\thooksPath = hooks\n'
            f'\tpager = "{command}"\n[extensions]\n\tpartialClone = origin\n[remote "origin"]\n'
            f'\turl = file://{folder}\n\tpromisor = true\n\tuploadpack = "{command};"\n'
            f'[diff]\n\texternal = "{command}"\n[include]\n\tpath = {canaries.file}\n'
        )
    (git / "hooks").mkdir(exist_ok=True)
    for hook in ("post-checkout", "reference-transaction", "pre-auto-gc"):
        (git / "hooks" / hook).write_text(f"#!/bin/sh\n{command}\n")
        (git / "hooks" / hook).chmod(0o755)
    (git / "objects" / "info").mkdir(exist_ok=True)
    (git / "objects" / "info" / "alternates").write_text(f"{canaries.folder / 'objects'}\n")
    for blob in sorted((git / "objects").glob("??/*"))[:4]:
        blob.unlink()


def links(folder: Path, canaries: Canaries) -> None:
    """Every name that a command reads or writes leads to the receiver's."""
    for name in ("loop.lock", "driver.log", "secret", "watch.json", "report.html", "report.md", "lineage.svg"):
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(canaries.file)
    for name in ("csv", "live"):
        (folder / name).symlink_to(canaries.folder)
    first = next((folder / "blobs").glob("??/*"))
    first.unlink()
    first.symlink_to(canaries.file)
    os.mkfifo(folder / "pipe")


def database(folder: Path, canaries: Canaries) -> None:
    """What SQLite does by itself when somebody writes or reads."""
    with closing(sqlite3.connect(folder / "loop.db", isolation_level=None)) as other:
        other.execute(
            "CREATE TRIGGER approve AFTER INSERT ON events BEGIN INSERT INTO inbox (time, kind, body) "
            "VALUES (0.0, 'review', '{}'); END"
        )
        other.execute("CREATE VIEW notes AS SELECT load_extension('/tmp/x.so') AS x")


def numbers(folder: Path, canaries: Canaries) -> None:
    """No size that a number could not have."""

    def change(event: Event) -> None:
        body = event.body
        if event.kind == "trial.settled" and body["verdict"] is not None:
            body["verdict"]["score"] = 1e308 if event.seq % 2 else -1e308
            body["train_seconds"], body["wall_seconds"] = LARGE, 1e308
        if event.kind == "gate.decided" and body["gate"]["gain"] is not None:
            body["gate"]["gain"]["mean"] = LARGE
        if event.kind == "loop.created":
            body["config"] |= {"generations": LARGE, "budget_usd": 1e308}

    _rewrite(folder, change)


def larger(folder: Path, canaries: Canaries) -> None:
    """A number that no float takes."""

    def change(event: Event) -> None:
        if event.kind == "trial.settled":
            event.body["train_seconds"] = HUGE

    _rewrite(folder, change)


def shapes(folder: Path, canaries: Canaries) -> None:
    """Values of other types than every event of that kind has, and kinds that there are not."""
    odd: list[Json] = [None, [], {}, "x", -1, True, NOTE, {"a": [[[[]]]]}]

    def change(event: Event) -> None:
        for place, key in enumerate(sorted(event.body)):
            if (event.seq + place) % 7 == 0 and event.kind != "loop.created":
                event.body[key] = odd[(event.seq + place) // 7 % len(odd)]

    _rewrite(folder, change)
    with another_user(), closing(Ledger.open(folder, write=True, received=True)) as ledger:
        ledger.append(f"{TERMINAL}kind", {"x": NOTE})
        ledger.append("loop.created", {"loop_id": NOTE})


def strings(folder: Path, canaries: Canaries) -> None:
    """Written for a terminal: every string of every event that may be anything without the loop's being refused."""
    with another_user(), closing(Ledger.open(folder, write=True, received=True)) as ledger:
        ledger.append("tripwire.fired", {"name": "leak", "generation": 2, "sentence": "x", "evidence": ["x"]})
        ledger.append("review.decided", {"generation": 2, "decision": "reject", "who": "you", "reason": "x"})
        events = ledger.events()
    spoilt = {place for place in _strings(events) if _can_be_shown(deepcopy(events), place)}
    _rewrite(folder, lambda event: [_spoil(event, place) for place in spoilt])


Place: TypeAlias = tuple[str, ...]  # an event's kind, then keys


def _strings(events: list[Event]) -> set[Place]:
    def below(value: Json, place: Place) -> Iterator[Place]:
        if isinstance(value, str):
            yield place
        for key, inside in value.items() if isinstance(value, dict) else ():
            yield from below(inside, (*place, key))

    return {place for event in events for place in below(event.body, (event.kind,))}


def _spoil(event: Event, place: Place) -> None:
    kind, *keys, last = place
    body = event.body
    for key in keys:
        body = body.get(key) if isinstance(body, dict) else None
    if event.kind == kind and isinstance(body, dict) and isinstance(body.get(last), str):
        body[last] = NOTE + body[last]


def _can_be_shown(events: list[Event], place: Place) -> bool:
    for event in events:
        _spoil(event, place)
    try:
        as_json(fold(events))
    except (LoopFault, LookupError, TypeError, AttributeError, ValueError, ArithmeticError):
        return False
    return True


def nothing(folder: Path, canaries: Canaries) -> None:
    """A ledger that does not begin, in a folder whose name is written for a terminal."""
    with closing(sqlite3.connect(folder / "loop.db", isolation_level=None)) as other:
        other.execute("DELETE FROM events")
    shutil.rmtree(folder / "blobs")
    shutil.rmtree(folder / "lineage.git")


KINDS: dict[str, Callable[[Path, Canaries], None]] = {
    kind.__name__: kind
    for kind in (words, own_task, lineage, links, database, numbers, larger, shapes, strings, nothing)
}


def _rewrite(folder: Path, change: Callable[[Event], None]) -> None:
    """All events anew, every hash made to fit."""
    with closing(Ledger.open(folder)) as ledger:
        events = ledger.events()
    prev = GENESIS
    with closing(sqlite3.connect(folder / "loop.db", isolation_level=None)) as other:
        for event in events:
            change(event)
            text = json.dumps(event.body, sort_keys=True, separators=(",", ":"))
            hash_ = digest(event.seq, event.time, event.kind, text, prev)
            other.execute("UPDATE events SET body=?, prev=?, hash=? WHERE seq=?", (text, prev, hash_, event.seq))
            prev = hash_


# Recordings


def recordings(folder: Path, canaries: Canaries, into: Path) -> Iterator[Path]:
    """Files that pass for recordings: the first is whole, and only says what the loop says."""
    packed = io.BytesIO()
    recording.pack_into(folder, packed)
    with zipfile.ZipFile(packed) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    bomb = b"\n" * (132 << 20)  # more than any member of a recording may hold
    kinds: dict[str, list[tuple[str | zipfile.ZipInfo, bytes]]] = {
        "whole": [],
        "up": [("../../precious.txt", b"x"), (f"../{canaries.ran.name}/up", b"x")],
        "absolute": [(str(canaries.ran / "absolute"), b"x")],
        "link": [(_link(), str(canaries.file).encode())],
        "bomb": [("curves/1.json", bomb)],
        "lines": [("events.jsonl", bomb)],
        "twice": [("events.jsonl", members["events.jsonl"])],
        "deep": [("document.json", b"[" * 200_000)],
        "none": [],
    }
    for kind, more in kinds.items():
        path = into / f"{kind}.bellglass"
        if kind == "none":
            path.write_bytes(b"PK\x05\x06" + os.urandom(200))
        else:
            told = {name if isinstance(name, str) else name.filename for name, _ in more}
            kept = [(name, data) for name, data in members.items() if kind == "twice" or name not in told]
            with (
                warnings.catch_warnings(),
                zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
            ):
                warnings.simplefilter("ignore")  # of the member that comes twice
                for name, data in [*kept, *more]:
                    archive.writestr(name, data)
        yield path


def _link() -> zipfile.ZipInfo:
    info = zipfile.ZipInfo("diffs/9.json")
    info.external_attr = 0o120777 << 16
    return info


def main(home: Path) -> None:
    canaries = Canaries(home / "receiver", os.getpid())
    canaries.lay()
    for kind, make in KINDS.items():
        folder = write(home / kind, canaries)
        make(folder, canaries)
        print(folder)
    for path in recordings(write(home / "packed", canaries), canaries, home):
        print(path)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
