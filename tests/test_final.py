"""What is said of `final` when some of its trainings failed: a champion is not known by its better trainings alone."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import made_loop
import pytest
import recount
import small_world
from test_forged import wrong

from bellglass import wiring
from bellglass.commands.console import final_line, print_comparison
from bellglass.loop import run_loop
from bellglass.records import Json
from bellglass.show import compare, report, showing, summary, wandb_rows
from bellglass.show.report_text import markdown
from bellglass.stats import CONFIDENCE, paired_interval
from bellglass.steps.trial import seeds_of
from bellglass.store.state import state_of

STARTER, CHAMPION = "final-pair-1-starter", "final-pair-1-champion"
STATED = "champion better than starter by"
NONE = "no gain is stated, because a training of the champion failed (final-pair-1-champion)"


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_loop.write(tmp_path_factory.mktemp("made"), 6, texts=True, seed=4)


def failing(honest: Path, home: Path, trial_id: str, fault: str, **event: Json) -> tuple[Path, dict[str, str]]:
    """The same loop with one training on `final` failed, `event` in `final.opened`; and what verify finds wrong."""

    def fail(kind: str, body: Json, starter: str) -> None:
        if kind == "trial.settled" and body["trial_id"] == trial_id:
            body["verdict"], body["fault"] = None, fault
        if kind == "final.opened":
            del body["lacks"], body["pairs"][1]
            body |= {"gain": asdict(paired_interval(body["pairs"], CONFIDENCE)), **event}

    folder = home / "stories-00000004"
    return folder, wrong(honest, folder, fail)


def surfaces(folder: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """Every one that tells the gain on `final`, but for the page in a browser."""
    shown = showing.open_loop(folder)
    doc = shown.document()
    capsys.readouterr()
    print_comparison([compare.row(shown)], [], [])
    said = doc["conclusions"]
    return {
        "terminal": final_line(shown.state),
        "json": str(summary.as_json(shown.state)["final"]),
        "document": str(doc["final"]),
        "report": markdown(report.gather(shown)).replace("\\", "").partition("- starter")[0],
        "conclusions": " ".join(line for line in [*said["may"], *said["may_not"]] if "better than the starter" in line),
        "compare": " ".join(capsys.readouterr().out.split()),
        "wandb": str({key: value for key, value in wandb_rows.end_of(doc).items() if key.startswith("final/")}),
    }


@pytest.mark.parametrize("fault", ["crashed", "lost"])
@pytest.mark.parametrize("old", [False, True], ids=["", "old"])
def test_where_the_champion_failed_no_gain_is_stated_anywhere(
    honest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], fault: str, old: bool
) -> None:
    """Not even in an older ledger, which holds one over the other pairs and fits its own rule."""
    event = {} if old else {"gain": None, "lacks": NONE}
    folder, found = failing(honest, tmp_path, CHAMPION, fault, **event)
    assert found == {}
    state = state_of(folder)
    assert summary.final_gain(state) is None
    for name, text in surfaces(folder, capsys).items():
        assert f"1 of 4 pairs failed, first {CHAMPION}: {fault}" in text, name
        assert NONE in text, name
    shown = showing.open_loop(folder).document()
    assert (shown["final"]["gain"], shown["final"]["clear"]) == (None, False)
    assert not any("better than the starter" in line for line in shown["conclusions"]["may"])
    recount.check(recount.Events.of(folder), shown)


def test_a_failed_starter_leaves_its_pair_out_and_every_surface_says_so(
    honest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, found = failing(honest, tmp_path, STARTER, "crashed", lacks="")
    assert found == {}
    gain = summary.final_gain(state_of(folder))
    assert gain is not None
    assert gain.n == 3
    for name, text in surfaces(folder, capsys).items():
        assert f"1 of 4 pairs failed, first {STARTER}: crashed" in text, name
    assert STATED in final_line(state_of(folder))


def test_verify_finds_a_gain_that_leaves_out_a_failure_of_the_champion(honest: Path, tmp_path: Path) -> None:
    _, found = failing(honest, tmp_path, CHAMPION, "crashed", lacks="")
    assert "not that of its trials" in found["final"]


def test_where_nothing_failed_nothing_is_said_of_failures(honest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert STATED in final_line(state_of(honest))
    assert [name for name, text in surfaces(honest, capsys).items() if "pairs failed" in text] == []


def test_a_champion_that_gives_up_under_one_seed_of_final_has_no_gain(tmp_path: Path) -> None:
    twin = small_world.create(tmp_path / "twin", generations=1)  # the same seed, so the same secret
    when = seeds_of((twin / "secret").read_bytes(), CHAMPION).data_seed
    gives_up = f"glass.metric\nif SMOOTHING < 1e5 and glass.args['data_seed'] == {when}:\n    raise SystemExit(1)\n"
    bundle = small_world.starter()
    bundle = {**bundle, "trainer/train.py": bundle["trainer/train.py"] + gives_up.encode()}
    folder = wiring.create(small_world.config(generations=1, panel=3), tmp_path / "loops", bundle)
    with small_world.opened(folder, small_world.Tuner()) as crew:
        state = run_loop(crew)
    assert state.generations[1].result["trainer"] == "adopted"
    assert len(state.final["pairs"]) == 2
    assert (state.final["gain"], state.final["lacks"]) == (None, NONE)
