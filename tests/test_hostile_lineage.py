"""A repository that somebody else made: what it does to whoever asks git for its bundles, and nothing here.

Every attack is made twice: against git's `cat-file`, as bellglass asked it before, where it works; and against the
lineage, which refuses it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from bellglass.errors import LoopFault
from bellglass.store.lineage import WHO, Lineage

BUNDLE = {"trainer/model.py": b"x = 1\n", "scaffold/improve.py": b"import glass\n"}
OLD_SETTINGS = ("-c", "core.hooksPath=/dev/null", "-c", "core.attributesFile=/dev/null", "-c", "gc.auto=0")


class Received:
    """A loop's repository with one bundle, and tools to spoil it."""

    def __init__(self, home: Path) -> None:
        self.home, self.folder, self.ran = home, home / "lineage.git", home / "ran"
        self.lineage = Lineage.create(self.folder)
        self.commit = self.lineage.commit(BUNDLE, None, "starter")
        self.blob = object_id(b"blob", BUNDLE["trainer/model.py"])
        (self.folder / "config").chmod(0o644)
        self.program = home / "program"
        self.program.write_text(f"#!/bin/sh\ntouch {self.ran}\nexit 1\n")
        self.program.chmod(0o755)

    def asked(self, id_: str, *, settings: tuple[str, ...] = OLD_SETTINGS) -> bytes | None:
        """What git answers, with all that an older version did to hold it back."""
        command = ["git", *settings, f"--git-dir={self.folder}", "cat-file", "--batch"]
        environment = {"PATH": os.environ["PATH"], "HOME": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "LC_ALL": "C"}
        done = subprocess.run(command, input=f"{id_}\n".encode(), capture_output=True, env=environment, check=False)
        header, _, rest = done.stdout.partition(b"\n")
        return rest[:-1] if header.startswith(id_.encode()) and b"missing" not in header else None

    def loose(self, id_: str) -> Path:
        return self.folder / "objects" / id_[:2] / id_[2:]

    def store(self, kind: bytes, body: bytes, id_: str | None = None) -> str:
        """Anything at all, under its own id or another's."""
        name = object_id(kind, body) if id_ is None else id_
        place = self.loose(name)
        place.parent.mkdir(exist_ok=True)
        place.unlink(missing_ok=True)
        place.write_bytes(zlib.compress(b"%s %d\0" % (kind, len(body)) + body))
        return name

    def commit_of(self, tree: str, rest: bytes = b"author " + WHO + b"\ncommitter " + WHO + b"\n\nforged\n") -> str:
        return self.store(b"commit", b"tree %s\n" % tree.encode() + rest)

    def is_refused(self, commit: str | None = None) -> str:
        """By opening it or by reading it, as every command does."""
        with pytest.raises(LoopFault) as caught:
            Lineage.open(self.folder).read(commit or self.commit)
        assert caught.value.code in ("lineage_refused", "lineage_damaged", "folder_refused")
        return caught.value.found


def object_id(kind: bytes, body: bytes) -> str:
    return hashlib.sha1(b"%s %d\0" % (kind, len(body)) + body).hexdigest()


def entry(mode: bytes, name: bytes, id_: str) -> bytes:
    return b"%s %s\0" % (mode, name) + bytes.fromhex(id_)


@pytest.fixture
def received(tmp_path: Path) -> Received:
    return Received(tmp_path)


def test_a_promisor_remote_runs_a_command_under_git_and_nothing_here(received: Received) -> None:
    with (received.folder / "config").open("w") as config:
        config.write("[core]\n\trepositoryformatversion = 1\n\tbare = true\n[extensions]\n\tpartialClone = evil\n")
        config.write(
            f'[remote "evil"]\n\turl = {received.home}\n\tpromisor = true\n\tuploadpack = {received.program}\n'
        )
    received.loose(received.blob).unlink()
    received.asked(received.blob)
    assert received.ran.exists()
    received.ran.unlink()
    assert "config" in received.is_refused()
    (received.folder / "config").write_text("[core]\n\tbare = true\n")
    assert received.blob[:12] in received.is_refused()  # the missing part is found and nobody is asked for it
    assert not received.ran.exists()


@pytest.mark.parametrize("name", ["alternates", "http-alternates"])
def test_alternates_reach_no_other_repository_of_the_receiver(received: Received, name: str) -> None:
    mine = Lineage.create(received.home / "mine.git")
    mine.commit({"scaffold/key": b"the receiver's own\n"}, None, "private")
    private = object_id(b"blob", b"the receiver's own\n")
    (received.folder / "objects" / "info" / name).write_text(f"{mine.folder}/objects\n")
    forged = received.commit_of(received.store(b"tree", entry(b"100644", b"key", private)))
    if name == "alternates":
        assert received.asked(private) == b"the receiver's own\n"
    assert name in received.is_refused(forged)
    (received.folder / "objects" / "info" / name).unlink()
    assert private[:12] in received.is_refused(forged)


def test_a_pack_is_refused(received: Received) -> None:
    subprocess.run(["git", f"--git-dir={received.folder}", "repack", "-adqn"], check=True)
    subprocess.run(["git", f"--git-dir={received.folder}", "prune-packed"], check=True)
    assert received.asked(received.blob) == BUNDLE["trainer/model.py"]
    assert "objects/" in received.is_refused()


@pytest.mark.parametrize("name", ["shallow", "info/grafts", "packed-refs", "hooks/update", "info/attributes", "index"])
def test_whatever_else_git_would_believe_is_refused(received: Received, name: str) -> None:
    (received.folder / name).parent.mkdir(exist_ok=True)
    (received.folder / name).write_text(f"{received.commit}{' refs/heads/x' if name == 'packed-refs' else ''}\n")
    assert received.asked(received.blob) is not None
    assert name.partition("/")[0] in received.is_refused()


@pytest.mark.parametrize("setting", ["core.fsmonitor", "core.pager", "alias.log", "filter.x.smudge", "include.path"])
def test_a_setting_that_names_a_command_is_refused(received: Received, setting: str) -> None:
    subprocess.run(["git", f"--git-dir={received.folder}", "config", setting, str(received.program)], check=True)
    assert received.asked(received.blob) is not None or setting == "include.path"
    assert "config" in received.is_refused()


def test_settings_without_an_end_are_refused(received: Received) -> None:
    with (received.folder / "config").open("a") as config:
        config.write("[gc]\n" * 1000)
    assert received.asked(received.blob) is not None
    assert "config" in received.is_refused()


def test_a_planted_hook_runs_under_git_and_nothing_here(received: Received) -> None:
    hooks = received.folder / "hooks"
    hooks.mkdir()
    shutil.copy(received.program, hooks / "reference-transaction")
    update = ["update-ref", "refs/bundles/x", received.commit]
    subprocess.run(["git", f"--git-dir={received.folder}", *update], capture_output=True, check=False)
    assert received.ran.exists()
    received.ran.unlink()
    received.lineage.commit({**BUNDLE, "scaffold/new": b""}, received.commit, "written where a hook lies")
    assert not received.ran.exists()
    assert "hooks" in received.is_refused()


# Links and special files


def moved_aside(received: Received, path: Path) -> None:
    path.rename(received.home / "elsewhere")
    path.symlink_to(received.home / "elsewhere")


PLACES: dict[str, Callable[[Received], Path]] = {
    "an object": lambda received: received.loose(received.blob),
    "a folder of objects": lambda received: received.loose(received.blob).parent,
    "all objects": lambda received: received.folder / "objects",
    "HEAD": lambda received: received.folder / "HEAD",
    "the repository": lambda received: received.folder,
    "the names": lambda received: received.folder / "refs" / "bundles",
}


@pytest.mark.parametrize("place", PLACES)
def test_a_link_is_refused_wherever_it_lies(received: Received, place: str) -> None:
    moved_aside(received, PLACES[place](received))
    if place != "HEAD":  # which git reads as a name
        assert received.asked(received.blob) == BUNDLE["trainer/model.py"]  # from a file outside the folder
    received.is_refused()


def test_an_object_that_became_a_link_after_the_opening_is_not_read(received: Received) -> None:
    moved_aside(received, received.loose(received.blob))
    with pytest.raises(LoopFault, match="cannot be read"):
        received.lineage.read(received.commit)


def test_a_pipe_in_place_of_an_object_keeps_nobody_waiting(received: Received) -> None:
    received.loose(received.blob).unlink()
    os.mkfifo(received.loose(received.blob))
    with pytest.raises(subprocess.TimeoutExpired):
        subprocess.run(["cat", received.loose(received.blob)], timeout=0.3, check=False)
    with pytest.raises(LoopFault, match="cannot be read"):
        received.lineage.read(received.commit)
    received.is_refused()


# Objects


def test_a_bomb_is_not_unpacked(received: Received) -> None:
    size = 64 << 20
    bomb = zlib.compress(b"blob %d\0" % size + bytes(size), 9)
    received.loose(received.blob).unlink()
    received.loose(received.blob).write_bytes(bomb)
    assert len(bomb) < 100_000
    tracemalloc.start()
    assert len(zlib.decompress(bomb)) > size
    assert tracemalloc.get_traced_memory()[1] > size
    tracemalloc.reset_peak()
    received.is_refused()
    assert tracemalloc.get_traced_memory()[1] < 4 << 20
    tracemalloc.stop()


def test_a_file_as_long_as_a_disk_is_not_read(received: Received) -> None:
    received.loose(received.blob).chmod(0o644)
    os.truncate(received.loose(received.blob), 1 << 40)  # takes no space
    tracemalloc.start()
    received.is_refused()
    assert tracemalloc.get_traced_memory()[1] < 4 << 20
    tracemalloc.stop()


@pytest.mark.parametrize(
    "whole",
    [
        b"blob 6\0x = 9\n",
        b"blob 7\0x = 1\n",
        b"blob 06\0x = 1\n",
        b"tree 6\0x = 1\n",
        b"blob  6\0x = 1\n",
        b"blob 6x = 1\n",
        b"",
    ],
)
def test_an_object_with_another_content_kind_or_size_is_refused(received: Received, whole: bytes) -> None:
    received.loose(received.blob).unlink()
    received.loose(received.blob).write_bytes(zlib.compress(whole))
    if whole == b"blob 6\0x = 9\n":
        assert received.asked(received.blob) == b"x = 9\n"  # git does not look
    received.is_refused()


@pytest.mark.parametrize("spoil", [lambda raw: raw[:-3], lambda raw: raw + b"more", lambda raw: b"\0" + raw])
def test_a_stream_that_is_cut_off_or_followed_by_something_is_refused(
    received: Received, spoil: Callable[[bytes], bytes]
) -> None:
    path = received.loose(received.blob)
    raw = path.read_bytes()
    path.unlink()
    path.write_bytes(spoil(raw))
    received.is_refused()


TREES: dict[str, Callable[[Received], bytes]] = {
    "above": lambda r: entry(b"100644", b"../x", r.blob),
    "dots": lambda r: entry(b"100644", b"..", r.blob),
    "a path": lambda r: entry(b"100644", b"scaffold/x", r.blob),
    "git's own": lambda r: entry(b"40000", b".git", r.store(b"tree", entry(b"100644", b"config", r.blob))),
    "a link": lambda r: entry(b"120000", b"x", r.blob),
    "another repository": lambda r: entry(b"160000", b"x", r.commit),
    "a program": lambda r: entry(b"100755", b"x", r.blob),
    "a folder of another spelling": lambda r: entry(b"040000", b"x", r.store(b"tree", entry(b"100644", b"y", r.blob))),
    "the same name twice": lambda r: entry(b"100644", b"x", r.blob) * 2,
    "names out of order": lambda r: entry(b"100644", b"y", r.blob) + entry(b"100644", b"x", r.blob),
    "case": lambda r: entry(b"100644", b"X", r.blob) + entry(b"100644", b"x", r.blob),
    "an empty folder": lambda r: entry(b"40000", b"x", r.store(b"tree", b"")) + entry(b"100644", b"y", r.blob),
    "a file as a folder": lambda r: entry(b"40000", b"x", r.blob),
    "a folder as a file": lambda r: entry(b"100644", b"x", r.store(b"tree", b"")),
    "an escape": lambda r: entry(b"100644", b"\x1b[2J", r.blob),
    "half an entry": lambda r: entry(b"100644", b"x", r.blob)[:-1],
    "something behind": lambda r: entry(b"100644", b"x", r.blob) + b"100644",
}


@pytest.mark.parametrize("what", TREES)
def test_a_tree_that_no_bundle_has_is_refused(received: Received, what: str) -> None:
    body = TREES[what](received)
    tree = received.store(b"tree", body)
    assert received.asked(tree) == body  # git serves it
    received.is_refused(received.commit_of(tree))


def test_folders_nested_ten_thousand_deep_are_refused(received: Received) -> None:
    tree = received.store(b"tree", entry(b"100644", b"x", received.blob))
    for _ in range(10_000):
        tree = received.store(b"tree", entry(b"40000", b"a", tree))
    assert received.asked(tree) is not None
    assert received.is_refused(received.commit_of(tree)) == "folders too deep"


def test_names_that_add_up_cost_no_memory(received: Received) -> None:
    """A repository of some kB, whose paths together would be gigabytes."""
    files = b"".join(entry(b"100644", b"%04d" % number, received.blob) for number in range(1000))
    tree = received.store(b"tree", files)
    for _ in range(60):
        tree = received.store(b"tree", entry(b"40000", b"x" * 45_000, tree))
    commit = received.commit_of(tree)
    tracemalloc.start()
    try:
        assert "a name of more than 200 characters" in received.is_refused(commit)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_folders_that_multiply_are_refused(received: Received) -> None:
    tree = received.store(b"tree", entry(b"100644", b"x", received.blob))
    for _ in range(40):  # 2^40 files
        tree = received.store(b"tree", entry(b"40000", b"a", tree) + entry(b"40000", b"b", tree))
    assert "too many" in received.is_refused(received.commit_of(tree))


@pytest.mark.parametrize(
    "rest",
    [
        b"author x <x> 1 +0000\ncommitter x <x> 1 +0000\n\nforged\n",
        b"parent HEAD\nauthor " + WHO + b"\ncommitter " + WHO + b"\n\n\n",
        b"author " + WHO + b"\ncommitter " + WHO + b"\ngpgsig x\n\n\n",
        b"",
    ],
)
def test_a_commit_that_bellglass_cannot_have_made_is_refused(received: Received, rest: bytes) -> None:
    tree = received.store(b"tree", entry(b"100644", b"x", received.blob))
    body = b"tree %s\n" % tree.encode() + rest
    commit = received.store(b"commit", body)
    assert received.asked(commit) == body
    received.is_refused(commit)


def test_names_in_the_repository_have_no_say(received: Received) -> None:
    ref = received.folder / "refs" / "bundles" / received.commit
    ref.unlink()
    ref.write_text("0" * 40)
    assert Lineage.open(received.folder).read(received.commit) == BUNDLE
