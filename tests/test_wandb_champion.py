"""What W&B is told when, and which bundle and weights it calls the champion's: in loops that ran, and without W&B."""

from __future__ import annotations

import contextlib
import itertools
from pathlib import Path

import pytest
import wandb_bench
from small_world import SUBMIT, Scripted, Tuner, run, write
from wandb_bench import Notes, noted
from whose import another_user

from bellglass.paths import LEDGER_NAME
from bellglass.ports import Model
from bellglass.records import Bundle
from bellglass.show import showing, wandb_rows
from bellglass.show.following import Following
from bellglass.show.wandb_replay import Replay
from bellglass.store.ledger import Ledger
from bellglass.store.state import State

BETTER = write("trainer/objective.py", "SMOOTHING = 10.0\n")


def part(bundle: Bundle, name: str) -> Bundle:
    return {path: data for path, data in bundle.items() if path.startswith(name)}


def check(folder: Path, board: Notes) -> State:
    """One bundle is the champion's, file by file, and one set of weights, of its trainer."""
    shown = showing.open_loop(folder)
    champion = shown.lineage.read(shown.state.champion)
    (bundle,) = board.named("bundle-", "champion")
    assert bundle.files == champion
    assert bundle.metadata["champion"] == shown.state.champion
    (weights,) = board.named("weights-", "champion")
    trained = shown.lineage.read(shown.state.trials[weights.metadata["trial"]].bundle)
    assert part(trained, "trainer/") == part(champion, "trainer/")
    for gen in shown.state.generations.values():
        (used,) = board.runs[f"{shown.state.loop_id}-gen-{gen.number:03d}"].used
        (parent,) = board.named(*used.split(":"))
        assert parent.files == shown.lineage.read(gen.parent)
    return shown.state


@pytest.mark.parametrize("generations", [1, 4])
def test_one_bundle_is_called_the_champions_and_successors_hang_on_their_parents(
    tmp_path: Path, generations: int
) -> None:
    folder = wandb_bench.write(tmp_path, generations)
    state = check(folder, noted(folder))
    assert state.champion not in {gen.successor for gen in state.generations.values()}  # as in a loop that ran


def told_of(folder: Path) -> set[str]:
    """Everything by which W&B tells a run or an artifact from others, and the groups."""
    board = noted(folder)
    artifacts = {artifact.name for run in board.runs.values() for artifact in run.artifacts}
    return set(board.runs) | artifacts | {run.opening.group for run in board.runs.values()}


@pytest.mark.parametrize("defended", [True, False])
def test_a_loop_with_the_id_of_another_does_not_take_the_place_of_its_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, defended: bool
) -> None:
    own = wandb_bench.write(tmp_path / "own", 1)
    with another_user():
        posing = [wandb_bench.write(tmp_path / name, 2) for name in ("one", "two")]
        assert {showing.open_loop(folder).state.loop_id for folder in (own, *posing)} == {"00000001"}
    if not defended:
        monkeypatch.setattr(wandb_rows, "name_of_loop", lambda doc: wandb_rows.safe(doc["loop"]["id"]))
    told = [told_of(folder) for folder in (own, *posing)]
    shared = [a & b for a, b in itertools.combinations(told, 2)]
    assert all(not found for found in shared) if defended else all("00000001-loop" in found for found in shared)
    assert "00000001-loop" in told[0], "under the same id however often"


def test_the_starter_is_told_when_it_has_been_measured(tmp_path: Path) -> None:
    folder, board, replay = tmp_path / "stories-00000001", wandb_bench.Notes(), Replay()
    with Ledger.create(folder) as ledger:
        for kind, body in wandb_bench.events(folder, 1, ("loss",)):
            ledger.append(kind, body)
            if kind in ("loop.created", "loop.calibrated", "gate.decided", "generation.ended"):
                with contextlib.closing(Following(folder)) as followed:
                    replay.tell(board, *followed.shown(), followed.document(), last=False)
                assert bool(board.runs) == (kind == "generation.ended")
    assert board.runs["00000001-gen-000"].rows[-1].keys() == noted(folder).runs["00000001-gen-000"].rows[-1].keys()
    assert board.runs["00000001-loop"].opening.config["noise_sd"] is not None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "scaffold", "versions"),
    [
        (Tuner(), "inherited", 2),
        (Scripted(BETTER, SUBMIT), "unchanged", 2),
        (Scripted(BETTER, write("scaffold/improve.py", "raise SystemExit(0)\n"), SUBMIT), "failed boot check", 3),
    ],
)
def test_in_a_loop_that_ran_the_champion_is_called_so(home: Path, model: Model, scaffold: str, versions: int) -> None:
    state = run(home, model)
    result = state.generations[1].result
    assert (result["trainer"], result["scaffold"]) == ("adopted", scaffold)
    (folder,) = (path.parent for path in home.glob(f"*/{LEDGER_NAME}"))
    board = noted(folder)
    check(folder, board)
    assert sum(artifact.type == "code" for made in board.runs.values() for artifact in made.artifacts) == versions


def test_a_scaffold_inherited_alone_makes_a_bundle_and_leaves_the_trainer() -> None:
    gens = [
        {"n": 1, "done": True, "parent": "a", "champion": "b", "trainer": "adopted"},
        {"n": 2, "done": True, "parent": "b", "champion": "c", "trainer": "unchanged"},
        {"n": 3, "done": True, "parent": "c", "champion": "c", "trainer": "rejected"},
        {"n": 4, "done": False, "parent": "c", "champion": None, "trainer": "adopted"},
    ]
    assert wandb_rows.champions(gens) == (2, 1)
    assert wandb_rows.champions(gens[:1]) == (1, 1)
    assert wandb_rows.champions([]) == (0, 0)
