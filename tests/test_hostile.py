"""Every command of `bellglass` on loops and recordings that an attacker made (hostile_loop.py): nothing of the
receiver's is read, written, run or killed, and each command ends with a status of ours, in words that a terminal can be
shown.

The commands are those that the command line has: a new one without a case here fails.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import hostile_loop
import pytest
import typer
from hostile_commands import CASES, STARTS, STATUSES, TILL_INTERRUPTED, TYPED, commands, run, unacted
from hostile_loop import KINDS, LOOP_ID, PRECIOUS, Canaries
from whose import VARIABLE

import bellglass
from bellglass import cli
from bellglass.errors import BellglassError
from bellglass.show import recording
from bellglass.store import state_folder


def test_every_command_has_a_case() -> None:
    assert set(commands(typer.main.get_command(cli.app))) == set(CASES)


@pytest.fixture(scope="module")
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


@pytest.fixture(scope="module")
def canaries(tmp_path_factory: pytest.TempPathFactory, bystander: subprocess.Popen[bytes]) -> Canaries:
    found = Canaries(tmp_path_factory.mktemp("receiver"), bystander.pid)
    found.lay()
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, canaries: Canaries) -> Path:
    """The loop that all kinds are made from."""
    return hostile_loop.write(tmp_path_factory.mktemp("made"), canaries)


@pytest.fixture
def state_beside_docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The receiver's own."""
    monkeypatch.setenv(VARIABLE, str(tmp_path / "state"))
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "state"


@pytest.fixture
def state(state_beside_docker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The receiver's own; no Docker, so that what wants a sealed glass says so."""
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return state_beside_docker


def received(whole: Path, kind: str, tmp_path: Path, canaries: Canaries) -> Path:
    """A fresh one; also among the calibrations of its home, where `calibrate` looks for one to go on with."""
    folder = Path(shutil.copytree(whole, tmp_path / "loops" / whole.name))
    KINDS[kind](folder, canaries)
    shutil.copytree(folder, tmp_path / "loops" / "calibrations" / whole.name, symlinks=True, ignore=_pipes)
    (tmp_path / "loops" / "calibrations" / "stories-tiny.json").write_text(hostile_loop.NOTE)
    return folder


def _pipes(_: str, names: list[str]) -> list[str]:
    return [name for name in names if name == "pipe"]


def check(status: int, shown: str, canaries: Canaries, bystander: subprocess.Popen[bytes]) -> None:
    assert status in STATUSES
    assert unacted(shown) == ""
    assert "Traceback" not in shown
    assert PRECIOUS.strip() not in shown
    assert status == 0 or "code:" in shown or "missing:" in shown or "Usage:" in shown, shown
    assert canaries.unharmed()
    assert bystander.poll() is None


# All of it takes minutes; a change is seen on one kind at once.
TRIED = [pytest.param(kind, marks=() if kind == "words" else pytest.mark.slow) for kind in KINDS]
PACKED = ("whole", "bomb")  # what is in a recording matters only to `watch`, which is tried below on all


@pytest.fixture(scope="module")
def recordings(whole: Path, canaries: Canaries, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    into = tmp_path_factory.mktemp("recordings")
    return {path.stem: path for path in hostile_loop.recordings(whole, canaries, into)}


@pytest.mark.parametrize("kind", [*TRIED, *PACKED])
def test_no_command_on_a_hostile_loop_or_recording_reaches_anything(
    whole: Path,
    kind: str,
    recordings: dict[str, Path],
    canaries: Canaries,
    bystander: subprocess.Popen[bytes],
    state: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    target = recordings[kind] if kind in PACKED else received(whole, kind, tmp_path, canaries)
    wrong = []
    for index, case in enumerate(TYPED):
        names = {"loop": target, "home": target.parent, "result": tmp_path / f"result-{index}"}
        try:
            check(*run(tuple(word.format(**names) for word in case), monkeypatch), canaries, bystander)
        except Exception as error:  # all of them are told at once
            wrong.append(f"{' '.join(case)}: {type(error).__name__}: {str(error)[:300]}")
    assert wrong == []
    assert not any(LOOP_ID in name for name in state_folder.names("heads"))  # nothing was taken over


# watch


@contextlib.contextmanager
def typed(*words: str) -> Iterator[subprocess.Popen[bytes]]:
    """A command in a process of its own, ended in any case."""
    command = [sys.executable, "-P", "-m", "bellglass", *words]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def ask(url: str, path: str, token: str, body: object = None) -> tuple[int, str]:
    """What the page's server answers to one who has its address."""
    headers = {"x-bellglass": token, "content-type": "application/json", "origin": url}
    data = None if body is None else json.dumps(body).encode()
    asked = urllib.request.Request(url + path, data, headers)
    try:
        with urllib.request.urlopen(asked, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


READ = ("/", "/api/document", "/api/diff/1", "/api/session/1", "/api/curves/1", "/api/live", "/api/diff/77")
ACTS = {
    "review": {"generation": 1, "decision": "approve", "reason": "x", "evidence_hash": "ab" * 32},
    "rearm": {"name": "leak", "reason": "x", "seen": ""},
    "stop": {"reason": "x"},
    "recheck": {"generation": 1},
}


def watched(target: Path, *more: str) -> tuple[str, str]:
    """What the page says and refuses; and what `watch` itself said."""
    with typed("watch", str(target), "--no-open", "--json", "--port", "0", *more) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            _, said = process.communicate(timeout=120)
            assert process.returncode in STATUSES
            return "", said.decode()
        url, _, token = json.loads(line)["url"].partition("/#token=")
        assert token != "A" * 32  # the one that came along
        assert ask(url, "/api/document", "A" * 32)[0] in (401, 403)
        shown = ""
        for path in READ:
            status, text = ask(url, path, token)
            shown += text
            if path == "/api/document" and status == 200:
                assert json.loads(text)["loop"]["standing"]["word"] == "received"
        for name, body in ACTS.items():
            status, text = ask(url, f"/api/act/{name}", token, body)
            shown += f"\n{name}: {status} {text}"
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        return shown, ""


@pytest.mark.parametrize("kind", TRIED)
def test_the_page_of_a_hostile_loop_does_nothing_that_it_asks_for(
    whole: Path, kind: str, canaries: Canaries, bystander: subprocess.Popen[bytes], state: Path, tmp_path: Path
) -> None:
    folder = received(whole, kind, tmp_path, canaries)
    shown, said = watched(folder)
    assert "Traceback" not in shown + said
    assert PRECIOUS.strip() not in shown + said
    assert unacted(said) == ""
    assert "<script>fetch" not in shown.partition("</html>")[0]  # the rest is JSON, which the page shows as text
    assert "recorded: approve" not in shown
    assert canaries.unharmed()
    assert bystander.poll() is None


def test_a_hostile_recording_is_played_or_refused(
    recordings: dict[str, Path],
    canaries: Canaries,
    bystander: subprocess.Popen[bytes],
    state: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refused = {}
    for kind, path in recordings.items():
        try:
            recording.load(path).close()
            shown, said = watched(path, "--play", "60x")
        except BellglassError:  # no page, so no process of its own is needed
            shown, said = "", run(("watch", str(path), "--no-open", "--play", "60x"), monkeypatch)[1]
        assert "Traceback" not in shown + said, kind
        assert unacted(said) == "", kind
        refused[kind] = "recording_damaged" in said
        assert canaries.unharmed(), kind
    played = {kind for kind, was in refused.items() if not was}
    assert played == {"whole", "link", "bomb", "deep"}  # what is hostile in them is left out when it is asked for
    assert bystander.poll() is None


@pytest.mark.docker
@pytest.mark.parametrize("words", [("verify", "--rejudge"), ("recheck", "1")])
def test_what_runs_a_strangers_bundles_ends_and_they_fail_in_their_glass(
    words: tuple[str, ...],
    canaries: Canaries,
    bystander: subprocess.Popen[bytes],
    state_beside_docker: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What they reach for is not there. tests/test_received.py shows that a process would have reached it."""
    folder = hostile_loop.write(tmp_path, canaries, generations=1)
    status, shown = run((words[0], str(folder), *words[1:]), monkeypatch)
    check(status, shown, canaries, bystander)
    assert ("verify_failed" if words[0] == "verify" else "verdict_not_repeated") in shown
    for trial in ("g1-pair-0-parent", "g1-pair-0-child"):
        assert any(trial in line and "crashed" in line for line in shown.splitlines())


# Commands that take no loop, in a home that is full of hostile ones


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("demo", STARTS),
        ("run", (*STARTS, "--preset", "tiny")),
        ("calibrate", ("stories", "--preset", "tiny", "--loops", "{home}")),
    ],
)
def test_what_starts_beside_hostile_loops_leaves_them_alone(
    whole: Path,
    name: str,
    words: tuple[str, ...],
    canaries: Canaries,
    bystander: subprocess.Popen[bytes],
    state: Path,
    tmp_path: Path,
) -> None:
    assert name == "run" or CASES[name] == TILL_INTERRUPTED
    folder = received(whole, "own_task", tmp_path, canaries)
    with typed(name, "--glass", "process", *(word.format(home=folder.parent) for word in words)) as process:
        assert process.stderr is not None
        said = b""
        while b"folder " not in said:  # it owns a loop of its own, and is at work
            line = process.stderr.readline()
            assert line, said
            said += line
        process.send_signal(signal.SIGINT)
        _, rest = process.communicate(timeout=120)
    assert process.returncode == 130
    assert b"Traceback" not in said + rest
    assert canaries.unharmed()
    assert bystander.poll() is None


# After a takeover, which the person said yes to


def test_what_lay_in_wait_for_a_takeover_finds_nothing(
    whole: Path,
    canaries: Canaries,
    bystander: subprocess.Popen[bytes],
    state: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    still_open = hostile_loop.write(tmp_path / "open", canaries, ends=False)  # else there is nothing to resume
    for kind, ends in (("words", "docker_"), ("own_task", "task_not_trusted")):
        folder = received(still_open, kind, tmp_path / kind, canaries)
        monkeypatch.setenv(VARIABLE, str(tmp_path / kind / "state"))  # for all have one id
        status, shown = run(("takeover", str(folder), "--yes"), monkeypatch)
        check(status, shown, canaries, bystander)
        assert status == 0, shown
        status, shown = run(("resume", str(folder)), monkeypatch)
        check(status, shown, canaries, bystander)
        assert f"code:   {ends}" in shown
    for kind in ("links", "database", "larger", "shapes", "nothing"):
        folder = received(whole, kind, tmp_path / kind, canaries)
        monkeypatch.setenv(VARIABLE, str(tmp_path / kind / "state"))
        status, shown = run(("takeover", str(folder), "--yes"), monkeypatch)
        check(status, shown, canaries, bystander)
        assert status != 0, kind


@pytest.mark.parametrize("kind", ["words", "own_task", "lineage", "shapes", "nothing"])
def test_a_notebook_opens_it_and_runs_nothing(
    whole: Path, kind: str, canaries: Canaries, state: Path, tmp_path: Path
) -> None:
    loop = bellglass.open(str(received(whole, kind, tmp_path, canaries)))
    for look in (
        lambda: loop.document, lambda: loop.trials, lambda: loop.bundle(1), lambda: loop.diff(1),
        lambda: loop.session(1), lambda: loop.curves("g1-pair-0-child"), lambda: loop.weights("g1-pair-0-child"),
    ):  # fmt: skip
        with contextlib.suppress(BellglassError):
            look()
    assert canaries.unharmed()
