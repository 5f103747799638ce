"""Where a loop says that it improved, what the baselines reached on the same task and preset stands beside it."""

from __future__ import annotations

import io
import json
from pathlib import Path

import made_loop
import pytest
from typer.testing import CliRunner

from bellglass.cli import app
from bellglass.commands.console import Terminal, print_summary
from bellglass.errors import UsageError
from bellglass.records import Interval
from bellglass.show import baselines, showing, summary, wandb_rows
from bellglass.show.baselines import Baselines
from bellglass.store.state import State

FOUND = Baselines("stories", "cpu", 30, 8, "a1", {"random": Interval(0.31, 0.2, 0.42, 8)})
LINE = "baselines on stories (cpu, 30 trainings a loop): random +0.310 [+0.200, +0.420] over 8 of 8 loops"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Content with one task in it, which has baselines."""
    (tmp_path / "tasks" / "stories").mkdir(parents=True)
    baselines.store(tmp_path / "tasks", FOUND)
    monkeypatch.setattr(baselines, "content_root", lambda: tmp_path)
    return tmp_path


def state(champion: str = "beef", model: str = "anthropic/x", **config: object) -> State:
    base = {"task": "stories", "preset": "cpu", "virtual_clock": False, "models": {"main": model}, "generations": 1}
    bounds = {"train_seconds": None, "budget_usd": None}
    created = {"task": "stories", "glass": "docker", "sealed": True, "content": {"trainer_seed": "a1"}}
    final = {"gain": {"mean": 0.4, "low": 0.3, "high": 0.5, "n": 4}, "champion": champion, "starter": "5eed"}
    chosen = {**base, **bounds, **config}
    return State("id", created=created, config=chosen, starter="5eed", champion=champion, final=final)


def printed(found: State) -> str:
    out = io.StringIO()
    print_summary(found, Terminal(file=out, width=300, color_system=None))
    return out.getvalue()


def test_a_loop_that_improved_shows_the_baselines_beside(home: Path) -> None:
    lines = printed(state()).splitlines()
    at = next(index for index, line in enumerate(lines) if line.startswith("final (opened once)"))
    assert lines[at + 1].strip() == LINE
    assert summary.as_json(state())["baselines"]["gains"] == {
        "random": {"mean": 0.31, "low": 0.2, "high": 0.42, "n": 8}
    }


@pytest.fixture
def loop(tmp_path: Path) -> Path:
    """One that improved on the task that `home` has baselines of."""
    return made_loop.write(tmp_path / "loops", 2)


def starter_of(loop: Path) -> str:
    return str(showing.open_loop(loop).state.created["content"]["trainer_seed"])


def test_loops_side_by_side_have_the_line_below_them_once(home: Path, loop: Path) -> None:
    same = made_loop.write(loop.parent, 2, seed=2)
    ran = CliRunner().invoke(app, ["compare", str(loop), str(same)])
    assert ran.exit_code == 0, ran.output
    assert ran.output.count("baselines on") == 1
    assert FOUND.line(starter_of(loop)) in ran.output.splitlines()
    ran = CliRunner().invoke(app, ["compare", str(loop), "--json"])
    (row,) = json.loads(ran.output)["loops"]
    assert row["baselines"]["gains"]["random"]["mean"] == 0.31


def test_the_summary_in_weights_and_biases_has_the_line(home: Path, loop: Path) -> None:
    told = wandb_rows.end_of(showing.open_loop(loop).document())
    assert told["baselines"] == FOUND.line(starter_of(loop))
    assert told["final/gain"] > 0


def test_loops_are_compared_and_exported_without_the_file(home: Path, loop: Path) -> None:
    (home / "tasks" / "stories" / baselines.FILE).unlink()
    ran = CliRunner().invoke(app, ["compare", str(loop)])
    assert ran.exit_code == 0, ran.output
    assert "baselines on" not in ran.output
    assert "baselines" not in wandb_rows.end_of(showing.open_loop(loop).document())


def test_nothing_is_shown_where_nothing_comparable_was_measured(home: Path) -> None:
    stays = state(champion="5eed")
    others = [
        state(preset="tiny"),
        state(task="sums"),
        state(task=str(home / "tasks" / "stories")),
        state(virtual_clock=True),
    ]
    for found in (stays, *others):
        assert "baselines on" not in printed(found)
        assert summary.as_json(found)["baselines"] is None


def test_nothing_is_shown_without_the_file(home: Path) -> None:
    (home / "tasks" / "stories" / baselines.FILE).unlink()
    assert "baselines on" not in printed(state())


def test_another_starter_is_said() -> None:
    assert FOUND.line("a1") == LINE
    assert FOUND.line("b2") == LINE + "; they began with another starter"


def test_what_is_stored_is_read_back_and_other_presets_stay(home: Path) -> None:
    tiny = Baselines("stories", "tiny", 12, 4, "b2", {"tpe": Interval(1.0, 0.5, 1.5, 2)})
    baselines.store(home / "tasks", tiny)
    assert baselines.load(home / "tasks", "stories") == {"cpu": FOUND, "tiny": tiny}


def test_a_broken_file_is_named(home: Path) -> None:
    path = home / "tasks" / "stories" / baselines.FILE
    for text in ("{", "[]", json.dumps({"cpu": {"gains": {}}})):
        path.write_text(text)
        with pytest.raises(UsageError, match=r"stories/baselines\.json"):
            printed(state())


def test_a_baseline_is_called_one_and_the_offline_improver_a_positive_control(home: Path) -> None:
    for model, control, baseline in (
        ("offline", True, False),
        ("offline:inert", True, False),
        ("random", False, True),
        ("tpe", False, True),
        ("anthropic/x", False, False),
    ):
        told = printed(state(model=model))
        assert ("positive control" in told) == control
        assert (f"The improver {model} is a baseline" in told) == baseline
