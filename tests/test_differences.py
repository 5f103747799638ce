"""Differences between bundles: git's own, line for line where there is one shortest; right and bounded everywhere."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bellglass.records import Bundle
from bellglass.store import differences as module
from bellglass.store.bundles import FILE_BYTES_MAX
from bellglass.store.differences import differences
from bellglass.store.lineage import Lineage

OLD = {
    "a/gone.txt": b"one\n",
    "a/model.py": b"import x\n\ndef f():\n" + b"".join(b"    a%d\n" % n for n in range(30)) + b"end\n",
    "a/no newline": b"x\ny",
    "a/empty": b"",
    "a/same": b"s\n",
    "a.txt": b"1\n2\n3\n",
}
NEW = {
    "a/model.py": OLD["a/model.py"].replace(b"a7\n", b"changed\n").replace(b"    a25\n", b""),
    "a/no newline": b"x\nz",
    "a/emptied": b"",
    "a/same": b"s\n",
    "a.txt": b"0\n1\n2\n3\n\0\xff\n",
    "a-new": b"\n\n",
}


def patch_of(old: Bundle, new: Bundle) -> bytes:
    return b"".join(one.patch for one in differences(old, new))


def by_git(folder: Path, old: Bundle, new: Bundle) -> bytes:
    lineage = Lineage.create(folder)
    first = lineage.commit(old, None, "old")
    second = lineage.commit(new, first, "new")
    plain = ("-r", "--text", "--no-renames", "--full-index", "--diff-algorithm=minimal", "--no-indent-heuristic", "-p")
    command = ["git", f"--git-dir={folder}", "diff-tree", *plain, first, second]
    return subprocess.run(command, capture_output=True, check=True).stdout


def test_a_difference_is_what_git_prints(tmp_path: Path) -> None:
    assert patch_of(OLD, NEW) == by_git(tmp_path / "x.git", OLD, NEW)
    assert patch_of(NEW, OLD) == by_git(tmp_path / "y.git", NEW, OLD)


def test_the_counts_are_those_of_the_lines_shown() -> None:
    found = {one.path: (one.added, one.removed) for one in differences(OLD, NEW)}
    assert found == {
        "a-new": (2, 0),
        "a.txt": (2, 0),
        "a/empty": (0, 0),
        "a/emptied": (0, 0),
        "a/gone.txt": (0, 1),
        "a/model.py": (1, 2),
        "a/no newline": (1, 1),
    }


LINES = st.lists(st.sampled_from([b"a\n", b"b\n", b"c\n", b"d e\n", b"\n"]), max_size=30)


def common(a: list[bytes], b: list[bytes]) -> int:
    """The length of the longest common subsequence, by the book."""
    row = [0] * (len(b) + 1)
    for line in a:
        above = row[:]
        for j, other in enumerate(b):
            row[j + 1] = above[j] + 1 if line == other else max(above[j + 1], row[j])
    return row[-1]


@settings(max_examples=300)
@given(LINES, LINES, st.booleans())
def test_a_difference_is_as_short_as_can_be_and_git_applies_it(
    tmp_path_factory: pytest.TempPathFactory, a: list[bytes], b: list[bytes], cut: bool
) -> None:
    old, new = b"".join(a), b"".join(b)[: -1 if cut else None]
    b = module.LINE.findall(new)
    for one in differences({"x": old}, {"x": new}):
        kept = common(a, b)
        assert (one.removed, one.added) == (len(a) - kept, len(b) - kept)
        place = tmp_path_factory.getbasetemp() / "applied"
        place.mkdir(exist_ok=True)
        (place / "x").write_bytes(old)
        subprocess.run(["git", "apply", "--unidiff-zero", "-"], input=one.patch, cwd=place, check=True)
        assert (place / "x").read_bytes() == new


def test_a_file_made_to_take_for_ever_is_shown_as_replaced_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = random.Random(1)
    lines = [b"%d\n" % (n % 256) for n in range(FILE_BYTES_MAX // 4)]
    old = {f"scaffold/{n}": b"".join(draw.sample(lines, len(lines))) for n in range(4)}
    new = {path: b"".join(draw.sample(lines, len(lines))) for path in old}
    taken: list[int] = []
    adds = module._adds
    monkeypatch.setattr(module, "_adds", lambda *args: taken.append(1) or adds(*args))
    found = list(differences(old, new))
    assert len(taken) <= 4 * module.MOST_EDITS**2  # of 65,536 times as many
    assert all(one.added == one.removed > len(lines) - 10 for one in found)


def test_with_the_budget_spent_equal_beginnings_and_ends_are_still_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_STEPS", 100)
    draw = random.Random(1)
    lines = [b"%d\n" % (n % 16) for n in range(500)]
    old = {"a": b"".join(lines), "b": b"1\n2\n3\n"}
    new = {"a": b"".join(draw.sample(lines, len(lines))), "b": b"1\n3\n"}
    assert [(one.added, one.removed) for one in differences(old, new)][1] == (0, 1)
