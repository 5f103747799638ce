"""Racing: rungs belong to the scaffold's tool, bounds to the host (docs/decisions/011-racing-is-the-scaffolds.md).

The tool that the offline improver builds, in a real session: real desk, lab, guests and books.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import small_world
from small_world import SUBMIT, Scripted, opened

from bellglass import wiring
from bellglass.doors.offline_model import gifts
from bellglass.records import ChatReply, ChatRequest, Json, Trial
from bellglass.steps.propose import propose
from bellglass.store.state import to_json

WAS = "SMOOTHING = 100000.0"
CANDIDATES = {
    "broken": "raise RuntimeError('no')",
    "less": "SMOOTHING = 10.0",
    "more": "SMOOTHING = 1e9",
    "again": "SMOOTHING = 1.0",
}


class Listener(Scripted):
    """Keeps what the tools answered."""

    heard: tuple[str, ...] = ()

    def chat(self, request: ChatRequest) -> ChatReply:
        self.heard = tuple(message.text for message in request.messages if message.role == "tool")
        return super().chat(request)


def race(home: Path, *, short: float = 0.5, lanes: int = 3, **chosen: object) -> tuple[str, list[Trial], int, str]:
    """What the tool answered; the trials it booked; the lineage's bundles; the objective that was submitted."""
    listed = [
        {"name": name, "edits": [{"path": "trainer/objective.py", "old": WAS, "new": new}]}
        for name, new in CANDIDATES.items()
    ]
    model = Listener(("race", {"candidates": listed, "short": short, "lanes": lanes}), SUBMIT)
    bundle = {**small_world.starter(), gifts.RACE_PATH: gifts.RACE.encode()}
    home.mkdir()
    folder = wiring.create(small_world.config(generations=1, **chosen), home, bundle)
    with opened(folder, model) as crew:
        books = crew.place.books
        books.record("generation.started", generation=1, parent=books.state.starter)
        books.record("session.started", generation=1, left=to_json(books.left()))
        proposal = propose(crew.place, 1, books.state.starter, brief="Tales.", seed=1)
        made = list((folder / "lineage.git" / "refs" / "bundles").iterdir())
        commit = proposal.successor or books.state.starter
        kept = crew.place.lineage.read(commit)["trainer/objective.py"].decode()
        return model.heard[0], [t for t in books.state.trials.values() if t.purpose == "explore"], len(made), kept


@pytest.fixture(scope="module")
def settled(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Json], list[Trial], str]:
    answer, trials, _, kept = race(tmp_path_factory.mktemp("race") / "loops")
    return json.loads(answer), trials, kept


def test_a_race_is_short_trials_in_rounds(settled: tuple[dict[str, Json], list[Trial], str]) -> None:
    result, trials, kept = settled
    assert [trial.budget.amount for trial in trials] == [3.0] * 4  # of the preset's 6 steps
    assert len({trial.seeds for trial in trials}) == 1, "so that they compare"
    assert {*result["scores"]} == {"unchanged", "less", "more"}
    assert result["best"] == result["scores"]["less"] < result["scores"]["unchanged"]
    assert result["kept"] == ["less"]
    assert result["unfit"] == ["again"], "the line it would edit is another one by now"
    assert kept == "SMOOTHING = 10.0\n"


def test_a_candidate_that_fails_costs_its_rung_and_no_more(settled: tuple[dict[str, Json], list[Trial], str]) -> None:
    result, trials, _ = settled
    assert result["faults"] == {"broken": "crashed"}
    (broken,) = [trial for trial in trials if trial.fault]
    assert broken.verdict is None
    assert broken.train_seconds <= broken.budget.amount == 3.0
    assert result["left"]["trials"] == 12 - 4 * 0.5


def test_a_race_beyond_the_session_s_trials_trains_nothing(tmp_path: Path) -> None:
    answer, trials, bundles, kept = race(tmp_path / "loops", short=2.0, trials_per_generation=1)
    assert "refused" in answer
    assert trials == []
    assert bundles == 1  # the starter
    assert kept == small_world.TRAINER["trainer/objective.py"]


@pytest.mark.slow
def test_what_the_session_s_trials_do_not_pay_for_stays_untried(tmp_path: Path) -> None:
    answer, trials, _, kept = race(tmp_path / "loops", lanes=1, trials_per_generation=1)
    assert [trial.fault for trial in trials] == [None, "crashed"]
    assert json.loads(answer)["untried"] == ["less", "more", "again"]
    assert kept == small_world.TRAINER["trainer/objective.py"]
