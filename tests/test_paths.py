"""Paths: content, loops, disks, processes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bellglass import paths
from bellglass.errors import LoopFault, SetupError, UsageError
from bellglass.paths import (
    content_hash,
    filesystem_of,
    find_loop,
    install_command,
    loops_home,
    parse_mount_output,
    parse_mountinfo,
)
from bellglass.store.owner import drop_lock, take_lock

# Content


def test_the_checkout_comes_first() -> None:
    assert paths.content_root() == Path(__file__).resolve().parent.parent


def test_an_installed_package_uses_its_own_copy(tmp_path: Path) -> None:
    package = tmp_path / "site-packages" / "bellglass"
    shutil.copytree(Path(paths.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__", "content"))
    code = "from bellglass.paths import content_root; print(content_root())"
    command = [sys.executable, "-c", code]
    environment = {**os.environ, "PYTHONPATH": str(package.parent)}
    for part in paths.CONTENT:
        (package / "content" / part).mkdir(parents=True)
    found = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=True)
    assert Path(found.stdout.strip()) == package / "content"
    shutil.rmtree(package / "content" / "agent")
    broken = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
    assert "bellglass's own content" in broken.stderr


def test_a_content_hash_ignores_what_running_leaves_behind(tmp_path: Path) -> None:
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "a.py").write_bytes(b"1")
    before = content_hash(tmp_path)
    for leaving in ("__pycache__/a.pyc", "tools/__pycache__/a.cpython-311.pyc", "tools/b.pyc", ".DS_Store"):
        (tmp_path / leaving).parent.mkdir(exist_ok=True)
        (tmp_path / leaving).write_bytes(b"x")
    assert content_hash(tmp_path) == before


def test_a_content_hash_sees_names_and_bytes_and_their_borders(tmp_path: Path) -> None:
    seen = set()
    one, two = [{"a": b"1"}, {"b": b"1"}, {"a": b"2"}, {"d/a": b"1"}], [{"a": b"1", "b": b""}, {"a": b"1b:"}]
    for files in (*one, *two, {"a": b"11:b:0:"}):
        folder = tmp_path / str(len(seen))
        for name, data in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
        seen.add(content_hash(folder))
    assert len(seen) == 7


# Loops


@pytest.fixture
def home(tmp_path: Path) -> Path:
    for age, name in enumerate(("stories-1a2b", "stories-1c3d", "digits-9f00")):
        folder = tmp_path / name
        folder.mkdir()
        for file in ("loop.db", "loop.lock"):
            (folder / file).touch()
        os.utime(folder / "loop.lock", (1000 - age, 1000 - age))
    (tmp_path / "no-loop").mkdir()
    return tmp_path


def test_the_flag_beats_the_variable_beats_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BELLGLASS_HOME", raising=False)
    assert paths.loops_home() == Path("loops")
    monkeypatch.setenv("BELLGLASS_HOME", "/elsewhere")
    assert paths.loops_home() == Path("/elsewhere")
    assert paths.loops_home(Path("/here")) == Path("/here")


def test_no_name_means_the_loop_last_taken(home: Path) -> None:
    assert find_loop(None, home) == home / "stories-1a2b"
    os.utime(home / "digits-9f00" / "loop.lock", (2000, 2000))
    assert find_loop(None, home) == home / "digits-9f00"


@pytest.mark.parametrize("wanted", ["digits-9f00", "digits", "9f", "9f00"])
def test_a_loop_is_found_by_name_or_beginning(home: Path, wanted: str) -> None:
    assert find_loop(wanted, home) == home / "digits-9f00"
    assert find_loop(str(home / "digits-9f00"), Path("/nowhere")) == home / "digits-9f00"


@pytest.mark.parametrize("wanted", ["no-loop", "x", "", "..", "/"])
def test_an_unknown_loop_is_an_error_that_lists_those_that_exist(home: Path, wanted: str) -> None:
    with pytest.raises(UsageError, match="stories-1a2b, stories-1c3d, digits-9f00"):
        find_loop(wanted, home)


def test_an_ambiguous_beginning_is_an_error_that_lists_the_candidates(home: Path) -> None:
    with pytest.raises(UsageError, match="several: stories-1a2b, stories-1c3d;"):
        find_loop("1", home)


@pytest.mark.parametrize("wanted", ["~nobody-of-this-name", "x" * 5000, "a\0b"])
def test_a_name_that_no_folder_can_have_is_a_usage_error(home: Path, wanted: str) -> None:
    with pytest.raises(UsageError):
        find_loop(wanted, home)
    with pytest.raises(UsageError):
        find_loop(None, loops_home("~nobody-of-this-name"))


@pytest.mark.parametrize("name", ["nosuch", "x" * 300])
def test_a_recording_that_is_not_there_is_said_to_be_missing(home: Path, name: str) -> None:
    with pytest.raises(UsageError, match="no such file") as missing:
        paths.find_loop(f"{name}.bellglass", home)
    assert "watch" not in missing.value.next_command
    (home / "there.bellglass").touch()
    with pytest.raises(UsageError, match="a recording only plays"):
        paths.find_loop(str(home / "there.bellglass"), home)


def test_no_loops_at_all_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no loop yet"):
        find_loop(None, tmp_path / "missing")
    with pytest.raises(UsageError, match="no loops"):
        find_loop("x", tmp_path)


# Disks

MOUNTINFO = r"""
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
23 22 0:21 / /mnt/with\040space rw - nfs4 server:/x rw
24 22 0:22 / /mnt/c rw,noatime - 9p drvfs rw,aname=drvfs;path=C:\
25 22 0:23 / /home/me/remote rw - fuse.sshfs me@host: rw
26 22 0:24 / /tmp rw - nfs server:/tmp rw
27 22 0:25 / /tmp rw - tmpfs tmpfs rw
""".strip()

MOUNT_OUTPUT = """
/dev/disk3s1s1 on / (apfs, sealed, local, read-only, journaled)
//me@server/a (b) on /Volumes/a (b) (smbfs, nodev, nosuid, mounted by me)
"""


@pytest.mark.parametrize(
    ("place", "kind"),
    [
        ("/work", "ext4"),
        ("/mnt/with space", "nfs4"),
        ("/mnt/with space/not/there/yet", "nfs4"),
        ("/mnt/with spaces", "ext4"),
        ("/mnt/c/Users", "9p"),
        ("/home/me/remote/x", "fuse.sshfs"),
        ("/tmp/x", "tmpfs"),
    ],
)
def test_the_innermost_and_last_mount_decides(place: str, kind: str) -> None:
    assert filesystem_of(Path(place), parse_mountinfo(MOUNTINFO)) == kind


def test_macos_mounts_are_read() -> None:
    assert parse_mount_output(MOUNT_OUTPUT) == [("/", "apfs"), ("/Volumes/a (b)", "smbfs")]


def test_network_file_systems_are_refused_and_local_ones_are_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    paths.refuse_network_filesystem(tmp_path / "not" / "there")
    monkeypatch.setattr(paths, "_mounts", lambda: parse_mountinfo(MOUNTINFO))
    for place in ("/mnt/c/loops", "/mnt/with space", "/home/me/remote"):
        with pytest.raises(LoopFault, match="network") as caught:
            paths.refuse_network_filesystem(Path(place))
        assert "BELLGLASS_HOME" in caught.value.next_command
    paths.refuse_network_filesystem(Path("/srv/loops"))


def test_too_little_disk_is_said_before_anything_starts(tmp_path: Path) -> None:
    paths.require_free_disk(tmp_path / "not" / "there", 1, "a loop")
    with pytest.raises(SetupError, match="free"):
        paths.require_free_disk(tmp_path, 10**18, "a loop")


def test_the_newest_loop_is_the_one_last_taken_and_not_the_one_last_left(tmp_path: Path) -> None:
    """So that `stop` without a name means the loop that runs, and not an older one that has just ended."""
    older, newer = tmp_path / "stories-a", tmp_path / "stories-b"
    held = []
    for folder in (older, newer):
        folder.mkdir()
        (folder / paths.LEDGER_NAME).touch()
        held.append(take_lock(folder))
        time.sleep(0.05)
    drop_lock(held[0])
    assert find_loop(None, tmp_path) == newer
    drop_lock(held[1])
    drop_lock(take_lock(older))
    assert find_loop(None, tmp_path) == older


# What is written


def test_a_file_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "table.csv"
    file.write_text("what was there")
    with pytest.raises(SetupError, match="full"), paths.written_anew(file, "try again") as out:
        out.write(b"half")
        raise OSError("full")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["what was there"]
    with paths.written_anew(file, "try again") as out:
        out.write(b"whole")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["whole"]
    with pytest.raises(SetupError, match="a place to write to"), paths.written_anew(tmp_path / ("x" * 999), "") as out:
        out.write(b"nowhere")


def test_what_is_no_file_is_not_replaced_by_one(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(UsageError, match="no file"), paths.written_anew(pipe, "name a file") as out:
        out.write(b"gone")
    assert pipe.is_fifo()


# Who


def test_labels_are_plain_words() -> None:
    labels = paths.user_host()
    assert sorted(labels) == ["host", "user"]
    assert all(word and set(word) <= set("-_.") | set(map(chr, range(48, 123))) for word in labels.values())


def test_a_user_without_a_name_has_a_label(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 987654)
    assert paths.user_host()["user"] == "uid-987654"


def test_the_state_folder_is_where_the_convention_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert paths.state_home() == tmp_path / "bellglass"
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_STATE_HOME", "state")
    assert paths.state_home() == tmp_path / "home/.local/state/bellglass"
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert paths.state_home() == tmp_path / "home/.local/state/bellglass"


def test_a_folder_that_is_no_loop_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as refused:
        find_loop(str(tmp_path), tmp_path)
    assert refused.value.code == "unknown_loop"
    assert refused.value.found.startswith(f"no loop.db in {tmp_path}; ")


def test_an_extra_is_installed_as_this_bellglass_was(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    root = Path(paths.__file__).parent.parent
    monkeypatch.setattr(paths.sys, "prefix", str(root / ".venv"))
    monkeypatch.chdir(tmp_path)
    assert install_command("wandb").startswith(f"{root}/.venv/bin/python -I {root}/bellglass/bootstrap.py")
    monkeypatch.chdir(root)
    assert install_command("wandb") == ".venv/bin/python -I bellglass/bootstrap.py --with wandb"
    monkeypatch.setattr(paths.sys, "prefix", str(tmp_path))
    assert install_command("wandb").endswith("-m pip install 'bellglass[wandb]'")
