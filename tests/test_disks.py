"""Whoever only reads needs no disk that can be written: on a full one and on a read-only one every reading command
answers as it does elsewhere, from a loop's first event on.

The loop, the user's state and the place for temporary files all lie on that disk; only what a command is told to make
lies elsewhere.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
import wandb_bench
from hostile_commands import CASES, RESULTS, run
from test_hostile import ask, typed
from whose import VARIABLE

from bellglass.show.following import Following
from bellglass.store.ledger import Ledger

READING = ("status", "log", "diff", "report", "compare", "pack", "export csv", "verify")
DISK_MB = 24


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Loops by name, all of one user: at rest, and as an owner left them who was killed."""
    home = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, str(home / "state"))
        return {"state": home / "state", **{name: _made(home / name, name) for name in ("begun", "whole")}}


def _made(home: Path, name: str) -> Path:
    """Two folders, `at rest` and `killed`, each with one loop of this name."""
    folder = home / "at rest" / f"{name}-1"
    with Ledger.create(folder) as owner:
        (folder / "secret").write_bytes(hashlib.sha256(b"secret 1").digest())  # a made loop's
        for kind, body in wandb_bench.events(folder, 2, ("loss",), waits=True):
            owner.append(kind, body)
            if name == "begun":
                break
        killed = Path(shutil.copytree(folder, home / "killed" / folder.name))
        (killed / "loop.db-shm").unlink()
    return home


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small one of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a disk, and not everywhere")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill(disk: Path) -> None:
    with pytest.raises(OSError, match="No space left"), (disk / "filler").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    with pytest.raises(OSError, match="No space left"):
        (disk / "more").write_bytes(b"x")


def forbid(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)


DISKS = {"full": fill, "read-only": forbid}


@pytest.fixture
def loop(disk: Path, tmp_path: Path, made: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    def on_the_disk(name: str, left: str) -> Path:
        shutil.copytree(made["state"], disk / "state")
        (disk / "tmp").mkdir()
        for variable, value in ((VARIABLE, "state"), ("TMPDIR", "tmp"), ("HOME", "home")):
            monkeypatch.setenv(variable, str(disk / value))
        monkeypatch.setattr(tempfile, "tempdir", None)
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        return Path(shutil.copytree(made[name] / left / f"{name}-1", disk / "loops" / f"{name}-1"))

    return on_the_disk


def answers(folder: Path, results: Path, monkeypatch: pytest.MonkeyPatch) -> dict[tuple[str, ...], tuple[int, str]]:
    """What each reading command says, and what files it made."""
    found = {}
    for number, words in enumerate(_typed()):
        result = results / str(number)
        filled = tuple(word.format(loop=folder, home=folder.parent, result=result) for word in words)
        status, shown = run(filled, monkeypatch)
        assert "Traceback" not in shown, words
        sizes = [(path.name, path.stat().st_size) for path in sorted(result.rglob("*"))] if result.is_dir() else []
        found[words] = status, shown.replace(str(results), "") + repr(sizes)
    return found


def _typed() -> Iterator[tuple[str, ...]]:
    for name in READING:
        cases = CASES[name]
        assert isinstance(cases, list)
        for words in cases:
            if words in (("report", "{loop}"), ("export", "csv", "{loop}")):  # else into the loop's folder
                yield (*words, "-o", RESULTS)
            elif "--rejudge" not in words:
                yield words


CASES_OF_A_DISK = [
    ("begun", "at rest", "full"),
    ("begun", "killed", "read-only"),
    ("whole", "at rest", "read-only"),
    ("whole", "killed", "full"),
]


@pytest.mark.parametrize(("name", "left", "how"), CASES_OF_A_DISK)
def test_every_reading_command_answers_as_it_does_elsewhere(
    loop: Callable[..., Path],
    disk: Path,
    tmp_path: Path,
    name: str,
    left: str,
    how: str,
    made: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = loop(name, left)
    for results in ("before", "then"):
        (tmp_path / results).mkdir()
    before = answers(folder, tmp_path / "before", monkeypatch)
    shutil.rmtree(folder)  # which may have been changed by who has read it
    shutil.copytree(made[name] / left / folder.name, folder)
    assert before["status", "{loop}"][0] == before["verify", "{loop}"][0] == 0
    names = sorted(folder.iterdir())
    DISKS[how](disk)
    assert answers(folder, tmp_path / "then", monkeypatch) == before
    assert sorted(folder.iterdir()) == names


@pytest.mark.parametrize("how", DISKS)
def test_a_page_is_served_and_followed(loop: Callable[..., Path], disk: Path, how: str, made: dict[str, Path]) -> None:
    folder = loop("whole", "killed")
    with closing(Following(made["whole"] / "killed" / folder.name)) as followed:
        expected = followed.news()
    DISKS[how](disk)
    with closing(Following(folder)) as followed:
        assert followed.news() == expected
    with typed("watch", str(folder), "--no-open", "--json", "--port", "0") as process:
        assert process.stdout is not None
        url, _, token = json.loads(process.stdout.readline())["url"].partition("/#token=")
        status, text = ask(url, "/api/document", token)
        assert (status, json.loads(text)["loop"]["head"]) == (200, expected["head"])
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)


@pytest.mark.parametrize("how", DISKS)
def test_runs_in_weights_and_biases_are_made_elsewhere(
    loop: Callable[..., Path], disk: Path, tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = loop("whole", "killed")
    DISKS[how](disk)
    for variable in ("TMPDIR", "HOME"):  # of wandb's own
        monkeypatch.setenv(variable, str(tmp_path))
    status, shown = run(("export", "wandb", str(folder), "--offline", "-o", str(tmp_path / "runs")), monkeypatch)
    assert status == 0, shown
    assert len(list((tmp_path / "runs" / "wandb").glob("offline-run-*"))) == 3


@pytest.mark.parametrize("how", DISKS)
def test_what_writes_there_says_so_in_one_error(
    loop: Callable[..., Path], disk: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = loop("whole", "at rest")
    DISKS[how](disk)
    for words in (("export", "csv", str(folder)), ("resume", str(folder)), ("stop", str(folder), "--patience", "0.1")):
        status, shown = run(words, monkeypatch)
        assert status == 3, shown
        assert "Traceback" not in shown
