"""The user's state folder: what is kept there is this user's alone, or it is refused."""

from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bellglass.errors import SetupError
from bellglass.store import state_folder


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / "bellglass"


def test_a_file_is_kept_for_its_user_alone(home: Path) -> None:
    state_folder.write("heads/one", b"first")
    state_folder.write("heads/one", b"second")
    assert state_folder.read("heads/one") == b"second"
    assert state_folder.names("heads") == ["one"] == os.listdir(home / "heads")
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (home, home / "heads", home / "heads" / "one")]
    assert modes == [0o700, 0o700, 0o600]


def test_reading_makes_nothing(home: Path) -> None:
    assert (state_folder.read("key"), state_folder.read("heads/one"), state_folder.names("heads")) == (None, None, [])
    assert not home.parent.exists()


def test_of_many_that_make_a_file_at_once_all_get_the_same(home: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        found = set(pool.map(lambda number: state_folder.keep("key", b"%d" % number), range(64)))
    assert found == {state_folder.read("key")}
    assert os.listdir(home) == ["key"]


@pytest.mark.parametrize("planted", ["link", "pipe", "readable", "folder"])
def test_what_was_planted_is_neither_read_nor_followed(home: Path, tmp_path: Path, planted: str) -> None:
    state_folder.write("other", b"")
    (tmp_path / "canary").write_bytes(b"canary")
    key = home / "key"
    if planted == "link":
        key.symlink_to(tmp_path / "canary")
    elif planted == "pipe":
        os.mkfifo(key, 0o600)
    elif planted == "readable":
        key.write_bytes(b"known")
        key.chmod(0o640)
    else:
        key.mkdir()
    with pytest.raises(SetupError):
        state_folder.read("key")
    with pytest.raises(SetupError):
        state_folder.keep("key", b"mine")
    assert (tmp_path / "canary").read_bytes() == b"canary"


def test_a_link_is_replaced_not_written_through(home: Path, tmp_path: Path) -> None:
    state_folder.write("other", b"")
    (tmp_path / "canary").write_bytes(b"canary")
    (home / "head").symlink_to(tmp_path / "canary")
    state_folder.write("head", b"mine")
    assert ((tmp_path / "canary").read_bytes(), state_folder.read("head")) == (b"canary", b"mine")


@pytest.mark.parametrize("mode", [0o777, 0o770])
def test_a_folder_that_others_may_write_is_refused(home: Path, mode: int) -> None:
    state_folder.write("key", b"mine")
    home.chmod(mode)
    with pytest.raises(SetupError):
        state_folder.read("key")
    with pytest.raises(SetupError):
        state_folder.write("key", b"mine")


def test_a_state_folder_that_is_a_link_is_refused(home: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    home.parent.mkdir()
    home.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SetupError):
        state_folder.write("key", b"mine")
    assert os.listdir(tmp_path / "elsewhere") == []


def test_a_user_without_a_home_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 987654)
    with pytest.raises(SetupError) as refused:
        state_folder.read("key")
    assert "XDG_STATE_HOME" in refused.value.next_command


@pytest.mark.parametrize("place", ["file", "/proc/none"])
def test_where_nothing_can_be_kept_the_error_says_what_to_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / place))
    with pytest.raises(SetupError) as refused:
        state_folder.write("key", b"mine")
    assert "XDG_STATE_HOME" in refused.value.next_command
