"""A loop's folder has its name when all of it is there, and nobody's leavings stay."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import small_world

from bellglass import paths
from bellglass.errors import SetupError
from bellglass.store import new_folder
from bellglass.store.ledger import Ledger
from bellglass.store.new_folder import begin_folder, end_folder


def test_what_a_dead_maker_left_is_removed_and_what_is_being_made_stays(tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from bellglass.store.new_folder import begin_folder; "
    code += f"print(begin_folder(Path({str(tmp_path)!r}), 'dead'))"
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    left = Path(made.stdout.strip())
    (left / "secret").write_bytes(b"s" * 32)
    strange = tmp_path / f"{paths.MAKING}strange"
    strange.mkdir()
    mine = begin_folder(tmp_path, "mine")
    assert begin_folder(tmp_path, "another").is_dir()
    assert mine.is_dir()
    assert not left.exists()
    assert not strange.exists()
    end_folder(mine, tmp_path / "named")
    assert (tmp_path / "named").is_dir()


def test_a_loop_that_is_being_made_is_no_loop_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cut(making: Path, folder: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("bellglass.wiring.end_folder", cut)
        with pytest.raises(KeyboardInterrupt):
            small_world.create(tmp_path)
    assert paths.list_loops(tmp_path) == []
    assert len(list(tmp_path.glob(f"{paths.MAKING}*"))) == 1


def test_a_loop_keeps_its_owner_when_it_gets_its_name(tmp_path: Path) -> None:
    with Ledger.open(small_world.create(tmp_path)) as ledger:
        assert ledger.standing().ours


def test_a_place_where_nothing_may_be_made_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(SetupError) as told:
        begin_folder(tmp_path / "file" / "loops", "x")
    assert told.value.code == "folder_unwritable"
    assert new_folder.MAKING.startswith(".")
