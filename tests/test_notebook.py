"""The read-only view and the CSV files: the same numbers as the page, the loop left alone."""

from __future__ import annotations

import csv
import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import made_loop
import pytest

import bellglass
from bellglass.curves import Curves
from bellglass.errors import SetupError, UsageError
from bellglass.show import table_files
from bellglass.show.notebook import Loop
from bellglass.store.blobs import Blobs
from bellglass.store.ledger import Ledger

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_loop.write(tmp_path_factory.mktemp("made"), 6, texts=True)


def files_of(folder: Path) -> dict[str, str]:
    found = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("loop.db-"))
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_loop_is_found_by_name_id_and_folder(folder: Path) -> None:
    name = folder.name
    for wanted in (name, folder, None):
        assert bellglass.open(wanted, loops=folder.parent).folder.name == name
    with pytest.raises(UsageError):
        bellglass.open("no-such-loop", loops=folder.parent)


def test_looking_changes_nothing(folder: Path, tmp_path: Path) -> None:
    before = files_of(folder)
    loop = bellglass.open(folder)
    _ = loop.document, loop.trials, loop.final, loop.diff(1), loop.session(1), loop.bundle(), repr(loop)
    table_files.write(loop, tmp_path)
    assert files_of(folder) == before


def test_trials_are_the_ledgers(folder: Path) -> None:
    loop = Loop(folder)
    assert [trial["id"] for trial in loop.trials] == list(loop.state.trials)
    for row, trial in zip(loop.trials, loop.state.trials.values(), strict=True):
        assert row["fault"] == trial.fault
        assert row["score"] == (None if trial.verdict is None else pytest.approx(trial.verdict.score, abs=1e-5))


def test_the_champion_and_each_successor_can_be_read(folder: Path) -> None:
    loop = Loop(folder)
    assert any(path.startswith("trainer/") for path in loop.bundle())
    assert loop.bundle(1) == dict(loop._shown.lineage.read(loop.state.generations[1].successor))
    with pytest.raises(UsageError, match="no successor"):
        loop.bundle(99)


def test_curves_are_what_the_trainer_reported(folder: Path) -> None:
    loop, curves = Loop(folder), Curves()
    for step in range(5):
        curves.take("loss", step, step / 10, 3.0 - step / 10)
    trial_id = next(iter(loop.state.trials))
    assert loop.curves(trial_id) == {}
    object.__setattr__(loop.state.trials[trial_id], "curves", Blobs(folder / "blobs").put(bytes(curves)))
    assert [point[2] for point in loop.curves(trial_id)["loss"]] == [3.0, 2.9, 2.8, 2.7, 2.6]
    with pytest.raises(UsageError, match="no such trial"):
        loop.curves("g99-nothing")


def test_csv_files_hold_the_numbers_of_the_page(folder: Path, tmp_path: Path) -> None:
    loop = Loop(folder)
    (generations, trials, _), missing = table_files.write(loop, tmp_path / "new")
    assert missing == []
    starter, *rows = read(generations)
    assert (starter["n"], starter["trainer"]) == ("0", "")
    assert starter["raw_mean"] == str(loop.document["starter"]["raw"]["mean"])
    assert [int(row["n"]) for row in rows] == [gen["n"] for gen in loop.generations]
    for row, gen in zip(rows, loop.generations, strict=True):
        assert row["trainer"] == gen["trainer"]
        assert row["raw_mean"] == ("" if gen["raw"] is None else str(gen["raw"]["mean"]))
        assert row["train_seconds"] == str(gen["cost"]["train_seconds"])
        for skill, value in gen["skills"].items():
            assert row[f"skill_{skill}"] == str(value)
    assert [row["id"] for row in read(trials)] == list(loop.state.trials)


def test_the_tables_of_two_loops_can_be_joined(folder: Path, tmp_path: Path) -> None:
    found = Loop(folder)
    explored = next(trial for trial in found.state.trials.values() if trial.purpose == "explore")
    object.__setattr__(explored, "budget", replace(explored.budget, amount=explored.budget.amount / 4))
    rows = {row["id"]: row for row in read(table_files.write(found, tmp_path)[0][1])}
    assert {row["loop"] for row in rows.values()} == {found.state.loop_id}
    parent, child = rows["g1-pair-0-parent"], rows["g1-pair-0-child"]
    beside = ("pair", "init_seed", "data_seed")
    assert [parent[key] for key in beside] == [child[key] for key in beside]
    assert (parent["pair"], rows["cal-0x0"]["pair"]) == ("g1-pair-0", "")
    for trial_id, trial in found.state.trials.items():
        assert (rows[trial_id]["init_seed"], rows[trial_id]["data_seed"]) == tuple(
            map(str, asdict(trial.seeds).values())
        )
    assert (rows[explored.trial_id]["share"], child["share"]) == ("0.25", "1.0")


def run_notebook() -> dict[str, Any]:
    """On the newest loop; what its cells leave."""
    cells = json.loads((ROOT / "docs" / "notebooks" / "a_loop.ipynb").read_text("utf-8"))["cells"]
    names: dict[str, Any] = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), cell["id"], "exec"), names)
    return names


@pytest.mark.parametrize("last", ["loop.created", "trial.settled", "loop.calibrated", "generation.started"])
def test_the_notebook_of_the_docs_runs_on_a_loop_that_has_only_begun(
    last: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`trial.settled`: three of the calibration's four trainings have ended."""
    monkeypatch.setenv("BELLGLASS_HOME", str(tmp_path))
    times = 3 if last == "trial.settled" else 1
    with Ledger.create(tmp_path / "stories-00000001") as ledger:
        for kind, body in made_loop.Maker(1).events():
            ledger.append(kind, body)
            times -= kind == last
            if times == 0:
                break
    names = run_notebook()
    assert len(names["loop"].generations) == (last == "generation.started")
    assert names["curves"] == {}


def test_the_notebook_of_the_docs_runs_on_any_loop(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BELLGLASS_HOME", str(folder.parent))
    run_notebook()
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in printed[:6]] == [str(gen["n"]) for gen in Loop(folder).generations]
    measured, recorded = (float(word) for word in printed[6].split())
    assert measured == pytest.approx(recorded, abs=1e-4)


@pytest.mark.parametrize("text", ["=1+1", "+cmd", "-2+3", "@sum", "＝SUM(1)"])
def test_no_text_of_a_guest_becomes_a_formula(text: str) -> None:
    assert table_files._cell(text) == f"'{text}"
    assert table_files._cell(-1.5) == -1.5


def test_no_text_of_a_guest_starts_a_cell_or_a_line_of_its_own() -> None:
    assert table_files._cell("fine;=1+1") == "fine,=1+1"
    assert "\n" not in str(table_files._cell("fine\n=1+1"))
    assert str(table_files._cell("\ud800")).isascii()


def test_a_file_is_written_anew_and_never_through_a_link(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "somebody-elses"
    other.write_text("theirs")
    (tmp_path / "csv").mkdir()
    (tmp_path / "csv" / "curves.csv").symlink_to(other)
    table_files.write(Loop(folder), tmp_path / "csv")
    assert other.read_text() == "theirs"
    assert (tmp_path / "csv" / "curves.csv").read_text().startswith("trial,metric")
    with pytest.raises(SetupError, match="a place to write"):
        table_files.write(Loop(folder), other)
