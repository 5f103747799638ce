"""The null edits fit the starter as it is, and change nothing that matters."""

from __future__ import annotations

import pytest

from bellglass import nulls
from bellglass.errors import LoopFault
from bellglass.nulls import ALL, Change, Null, edited
from bellglass.records import kind_of
from bellglass.store import bundles

STARTER = bundles.starter()


@pytest.mark.parametrize("null", ALL, ids=lambda null: null.name)
def test_a_null_edit_fits_the_starter_and_leaves_programs(null: Null) -> None:
    files = edited(STARTER, null)
    changed = {path for path in STARTER if files[path] != STARTER[path]}
    assert changed == {change.path for change in null.changes}
    assert all(kind_of(path) is not None and not path.startswith("scaffold/") for path in changed)
    for path in changed:
        compile(files[path], path, "exec")


def test_every_null_edit_is_another_one() -> None:
    assert len({null.name for null in ALL}) == len(ALL) == 5
    assert len({tuple(edited(STARTER, null).items()) for null in ALL}) == 5
    assert set(nulls.EQUAL_SPREAD) < set(ALL)


@pytest.mark.parametrize("old", ["no such text", "import"])
def test_an_edit_that_does_not_fit_exactly_once_is_an_error(old: str) -> None:
    with pytest.raises(LoopFault, match=r"holds .* (0|\d\d?) times"):
        edited(STARTER, Null("strange", "", (Change("trainer/train.py", old, "new"),)))


def test_an_edit_of_a_file_that_is_not_there_is_an_error() -> None:
    with pytest.raises(LoopFault, match="0 times"):
        edited({}, nulls.DRAW)
