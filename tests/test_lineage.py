"""The lineage: equal content, equal id; git can read it and has no say; damage is found."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bellglass.errors import GuestFault, LoopFault
from bellglass.records import Kind
from bellglass.store.bundles import check_files
from bellglass.store.lineage import Lineage
from bellglass.visible import visible

STARTER = {
    "trainer/data.py": b"a\nb\nc\n",
    "trainer/model.py": b"x = 1\n",
    "scaffold/improve.py": b"import glass\n",
    "scaffold/tools.txt": b"sorts before a folder of its name\n",
    "scaffold/tools/run.py": b"\x00\xff binary \n",
    "scaffold/tools-old": b"",
}
CHILD = {**STARTER, "trainer/model.py": b"x = 2\ny = 3\n", "scaffold/new.md": b"hello\n"}
STARTER_ID = "bc2779a39efb583d0f47dee28b3e0a7e5752978c"


@pytest.fixture
def lineage(tmp_path: Path) -> Lineage:
    return Lineage.create(tmp_path / "lineage.git")


def git(lineage: Lineage, *arguments: str) -> str:
    command = ["git", f"--git-dir={lineage.folder}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_a_bundle_comes_back_as_it_was_committed(lineage: Lineage) -> None:
    first = lineage.commit(STARTER, None, "starter")
    second = lineage.commit(CHILD, first, "generation 1")
    assert lineage.read(first) == STARTER
    assert lineage.read(second) == CHILD
    assert [git(lineage, "log", "-1", "--format=%P", each).strip() for each in (first, second)] == ["", first]


def test_the_same_inputs_give_the_same_id_everywhere_and_for_ever(tmp_path: Path, lineage: Lineage) -> None:
    elsewhere = Lineage.create(tmp_path / "elsewhere.git")
    backwards = dict(reversed(list(STARTER.items())))
    ids = {each.commit(files, None, "starter") for each in (lineage, elsewhere) for files in (STARTER, backwards)}
    assert ids == {STARTER_ID}


def test_another_parent_or_message_gives_another_id(lineage: Lineage) -> None:
    first = lineage.commit(STARTER, None, "starter")
    assert len({first, lineage.commit(STARTER, first, "starter"), lineage.commit(STARTER, None, "other")}) == 3


def test_git_itself_finds_nothing_wrong(lineage: Lineage) -> None:
    first = lineage.commit(STARTER, None, "starter")
    second = lineage.commit(CHILD, first, "line\n\nand \x1b[31m more \x00 \ud800")
    git(lineage, "fsck", "--strict", "--full")
    assert git(lineage, "rev-parse", f"refs/bundles/{second}").strip() == second
    assert git(lineage, "config", "core.bare").strip() == "true"
    assert "\\u{1b}[31m more \\u{0}" in git(lineage, "log", "-1", "--format=%B", second)


def test_creating_and_committing_again_do_no_harm(lineage: Lineage) -> None:
    first = lineage.commit(STARTER, None, "starter")
    again = Lineage.create(lineage.folder)
    assert again.commit(STARTER, None, "starter") == first
    assert Lineage.open(lineage.folder).read(first) == STARTER


def test_a_bundle_with_a_part_that_is_gone_or_damaged_is_whole_after_the_next_commit(lineage: Lineage) -> None:
    first = lineage.commit(STARTER, None, "starter")
    for spoil in (Path.unlink, lambda path: path.write_bytes(b"rubbish")):
        part = loose(lineage, git(lineage, "rev-parse", f"{first}:trainer/model.py").strip())
        part.chmod(0o644)
        spoil(part)
        assert lineage.commit(STARTER, None, "starter") == first
        assert lineage.read(first) == STARTER


def test_a_repository_that_an_older_version_had_git_write_is_read_and_goes_on(tmp_path: Path, lineage: Lineage) -> None:
    first = lineage.commit(STARTER, None, "starter")
    old = tmp_path / "old.git"
    subprocess.run(["git", "init", "--bare", "--quiet", "--template=", str(old)], check=True)
    stream = subprocess.run(
        ["git", f"--git-dir={lineage.folder}", "fast-export", "--all"], capture_output=True, check=True
    )
    limit = ("-c", "fastimport.unpackLimit=1000")
    subprocess.run(["git", *limit, f"--git-dir={old}", "fast-import", "--quiet"], input=stream.stdout, check=True)
    (old / "refs" / "bundles" / f"{first}.lock").touch()  # as a crash leaves one
    (old / "objects" / "pack" / "tmp_pack_Xy12zw").touch()
    (old / "objects" / first[:2] / ".new-x8_ab1cd").touch()
    assert Lineage.open(old).read(first) == STARTER
    again = Lineage.create(old)
    assert again.read(again.commit(CHILD, first, "child")) == CHILD


def test_no_bundle_makes_a_pack(tmp_path: Path, lineage: Lineage) -> None:
    deep = {f"scaffold/{'/'.join('abcdefgh')}/{n}/{n}.py": b"%d" % n for n in range(199)}
    commit = lineage.commit({**deep, "scaffold/" + "a/" * 94 + "b": b""}, None, "many folders")
    assert len(lineage.read(commit)) == 200
    assert list((lineage.folder / "objects" / "pack").iterdir()) == []


def test_threads_may_commit_the_same_bundle_at_once(lineage: Lineage) -> None:
    made: list[str] = []
    threads = [threading.Thread(target=lambda: made.append(lineage.commit(STARTER, None, "starter"))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [STARTER_ID] * 6


NAMES = st.text("abAB.-+ 0/", min_size=1, max_size=8)


@settings(max_examples=20)
@given(st.dictionaries(NAMES, st.binary(max_size=50), min_size=1, max_size=12))
def test_any_allowed_set_of_files_comes_back(tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes]) -> None:
    try:
        check_files(files)
    except GuestFault:
        return
    lineage = Lineage.create(tmp_path_factory.getbasetemp() / "any.git")
    commit = lineage.commit(files, None, "any")
    assert lineage.read(commit) == files
    assert git(lineage, "ls-tree", "-r", "--name-only", "-z", commit).split("\0")[:-1] == sorted(files, key=str.encode)


@pytest.mark.parametrize("name", ["../x", ".git/config", "/x", "a\nb", "scaffold/.gitmodules"])
def test_a_hostile_name_reaches_no_repository(lineage: Lineage, name: str) -> None:
    with pytest.raises(GuestFault) as caught:
        lineage.commit({**STARTER, name: b"x"}, None, "bad")
    assert caught.value.code == "bad_submit"


# Reading changes


def changed(lineage: Lineage, a: str, b: str) -> list[tuple[str, int, int]]:
    return [(one.path, one.added, one.removed) for one in lineage.compare(a, b).files]


def test_changes_are_counted_by_path_and_kind(lineage: Lineage) -> None:
    first = lineage.commit(STARTER, None, "starter")
    second = lineage.commit(CHILD, first, "child")
    assert changed(lineage, first, second) == [("scaffold/new.md", 1, 0), ("trainer/model.py", 2, 1)]
    assert lineage.kinds(first, second) == {Kind.SCAFFOLD, Kind.ARCHITECTURE}
    assert changed(lineage, first, first) == []
    assert lineage.kinds(second, second) == frozenset()


def test_a_binary_file_counts_as_replaced_whole(lineage: Lineage) -> None:
    first = lineage.commit(STARTER, None, "starter")
    second = lineage.commit({**STARTER, "scaffold/tools/run.py": b"\0\n\0\n\0\n"}, first, "child")
    assert changed(lineage, first, second) == [("scaffold/tools/run.py", 3, 1)]
    assert "+\\u{0}" in lineage.diff(first, second)


def test_a_diff_hides_nothing_from_the_person_who_reads_it(lineage: Lineage) -> None:
    first = lineage.commit(STARTER, None, "starter")
    trick = "ok\r\x1b[2K\u202eevil\u200b\u2028\x9b\n".encode()
    second = lineage.commit({**STARTER, "trainer/model.py": trick}, first, "child")
    diff = lineage.diff(first, second)
    assert "+ok\\u{d}\\u{1b}[2K\\u{202e}evil\\u{200b}\\u{2028}\\u{9b}\n" in diff
    assert "-x = 1\n" in diff


@settings(max_examples=200)
@given(st.text())
def test_visible_text_has_no_character_that_a_terminal_acts_on(text: str) -> None:
    shown = visible(text)
    assert all(c in "\n\t" or c.isprintable() or c.isspace() for c in shown)
    assert not set(shown) & set("\x1b\x9b\r\u202e\u2066\u200b")


def test_a_diff_has_a_size_cap_and_says_so(lineage: Lineage) -> None:
    first = lineage.commit(STARTER, None, "starter")
    second = lineage.commit({**STARTER, "trainer/model.py": b"line\n" * 30_000}, first, "child")
    diff = lineage.compare(first, second).text(most_bytes=10_000)
    assert len(diff) < 10_200
    assert "more bytes of this diff are not shown" in diff


# Without git


def test_neither_writing_nor_reading_needs_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    lineage = Lineage.create(tmp_path / "lineage.git")
    first = lineage.commit(STARTER, None, "starter")
    second = lineage.commit(CHILD, first, "child")
    assert lineage.read(second) == CHILD
    assert "diff --git a/trainer/model.py b/trainer/model.py" in lineage.diff(first, second)


# Damage


def test_a_missing_repository_and_a_missing_bundle_are_clear_faults(tmp_path: Path, lineage: Lineage) -> None:
    with pytest.raises(LoopFault, match="no git repository"):
        Lineage.open(tmp_path / "nowhere.git")
    with pytest.raises(LoopFault, match="no commit 000000000000"):
        lineage.read("0" * 40)
    first = lineage.commit(STARTER, None, "starter")
    with pytest.raises(LoopFault, match="no commit 000000000000"):
        lineage.diff(first, "0" * 40)
    with pytest.raises(LoopFault, match="no commit 000000000000"):
        lineage.commit(CHILD, "0" * 40, "orphan")
    for name in ("HEAD", "--all", "", "bc27", STARTER_ID + "\n"):
        with pytest.raises(LoopFault, match="no commit id"):
            lineage.read(name)


def loose(lineage: Lineage, id_: str) -> Path:
    return lineage.folder / "objects" / id_[:2] / id_[2:]


def test_an_altered_file_is_found_when_it_is_read(lineage: Lineage) -> None:
    first = lineage.commit(STARTER, None, "starter")
    blob = git(lineage, "rev-parse", f"{first}:trainer/model.py").strip()
    path = loose(lineage, blob)
    path.chmod(0o644)
    path.write_bytes(zlib.compress(b"blob 6\0x = 9\n"))
    with pytest.raises(LoopFault, match="lineage"):
        lineage.read(first)
    path.write_bytes(b"rubbish")
    with pytest.raises(LoopFault, match="lineage"):
        lineage.read(first)
    path.unlink()
    with pytest.raises(LoopFault, match=blob[:12]):
        lineage.read(first)


def test_a_full_disk_is_a_setup_error_and_the_commit_can_be_repeated(tmp_path: Path, lineage: Lineage) -> None:
    code = """
import random, resource, sys
from pathlib import Path
from bellglass.errors import SetupError
from bellglass.store.lineage import Lineage
lineage = Lineage.open(Path(sys.argv[1]))
files = {"scaffold/big": random.Random(1).randbytes(200_000)}
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, -1))
try:
    lineage.commit(files, None, "big")
except SetupError as error:
    print(error.needed)
resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))
print(lineage.read(lineage.commit(files, None, "big")) == files)
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    command = [sys.executable, "-c", code, str(lineage.folder)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=30, check=False)
    assert (done.stdout + done.stderr).splitlines() == ["free space", "True"]
