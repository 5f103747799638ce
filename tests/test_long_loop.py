"""A loop that has grown long: what is asked for each generation looks at that generation, not at all before it.

Counted are looks, not seconds; benchmarks/long_loop.py has the seconds, and runs here on a small subset.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import made_loop
import pytest
from benchmark_scripts import load
from hypothesis import given
from hypothesis import strategies as st

from bellglass import tripwires
from bellglass.commands.progress import expected_seconds
from bellglass.show import phase, recording, report, showing
from bellglass.steps.history import digest
from bellglass.steps.panel import rules_of
from bellglass.store import chain, folder
from bellglass.store.ledger import Ledger
from bellglass.store.lineage import Lineage
from bellglass.store.objects import Objects
from bellglass.store.state import State, fold
from bellglass.trial_ids import generation_of
from bellglass.verify import verify

GENERATIONS = 40


class Unwalked(dict[Any, Any]):
    """Whoever goes through all of it is found out; one that is named may be asked for, and the last ones."""

    def values(self) -> Any:
        raise AssertionError("all of them were gone through")

    items = keys = __iter__ = values  # type: ignore[assignment]


class Counted(dict[Any, Any]):
    def __init__(self, all_: dict[Any, Any]) -> None:
        super().__init__(all_)
        self.asked: set[Any] = set()

    def __getitem__(self, name: Any) -> Any:
        self.asked.add(name)
        return super().__getitem__(name)

    def values(self) -> Any:
        self.asked |= set(super().keys())
        return super().values()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_loop.write(tmp_path_factory.mktemp("long"), GENERATIONS, texts=True)


@pytest.fixture
def state(made: Path) -> State:
    with closing(Ledger.open(made)) as ledger:
        return fold(ledger.events())


def test_the_index_holds_every_trial_and_call_once_where_its_name_says(state: State) -> None:
    found = [trial.trial_id for number in (0, *state.generations) for trial in state.trials_in(number)]
    assert sorted(found) == sorted(state.trials)
    assert all(generation_of(t.trial_id) == number for number in state.names for t in state.trials_in(number))
    calls = [key for number in (0, *state.generations) for key, _ in state.calls_in(number)]
    assert sorted(calls) == sorted(state.calls)
    assert [gen.number for gen in state.adopted()] == [n for n, gen in state.generations.items() if gen.adopted]


def test_what_a_generation_asks_for_does_not_go_through_the_loop(state: State) -> None:
    state.trials, state.calls = Unwalked(state.trials), Unwalked(state.calls)
    rules_of(state, GENERATIONS)
    digest(state, GENERATIONS)
    expected_seconds(state, f"g{GENERATIONS}-pair-0-child")
    trials = tuple(state.trials_in(GENERATIONS))
    assert trials
    tripwires.look(tripwires.Watched(GENERATIONS, trials, "exact", (), state.disturbed_by(GENERATIONS)))


def test_a_terminal_that_is_drawn_again_and_again_does_not_go_through_the_generations(state: State) -> None:
    state.generations, state.ended = Unwalked(state.generations), None
    assert phase.phase(state).startswith(f"after generation {GENERATIONS}")
    assert phase.next_review(state).startswith("none")


def test_rules_look_at_new_champions_alone(state: State) -> None:
    state.generations, state.trials = Counted(state.generations), Counted(state.trials)
    rules_of(state, GENERATIONS)
    assert state.generations.asked == set(state.adoptions)
    assert {generation_of(name) for name in state.trials.asked} <= set(state.adoptions)


def test_a_trial_that_is_told_twice_stands_in_the_index_once(made: Path) -> None:
    """No ledger of ours tells it twice; one that does is shown all the same."""
    with closing(Ledger.open(made)) as ledger:
        events = list(ledger.events())
    at = next(place for place, event in enumerate(events) if event.kind == "trial.settled")
    intent = next(event for event in events if event.kind == "trial.intended")
    state = fold([*events[: at + 1], intent, *events[at:]])
    assert len(state.trials_in(0)) == len({trial.trial_id for trial in state.trials_in(0)})


# Reading


@pytest.fixture
def looked_through(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Which repositories were gone through, entry by entry."""
    found: list[Path] = []
    true = folder.entries

    def counted(path: Path, closed: tuple[str, ...] = ()) -> Iterator[str]:
        found.append(path)
        return true(path, closed)

    monkeypatch.setattr("bellglass.store.lineage.entries", counted)
    return found


def test_a_recording_and_a_report_look_through_the_repository_once(
    made: Path, tmp_path: Path, looked_through: list[Path]
) -> None:
    recording.pack(made, tmp_path / "packed.bellglass")
    assert len(looked_through) == 1
    looked_through.clear()
    gathered = report.gather(showing.open_loop(made))
    assert len(looked_through) == 2, "once to verify, once for the diffs"
    assert all(diff["files"] for diff in gathered.diffs.values())


def test_verify_reads_each_event_and_each_object_once(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[int] = []
    read: list[str] = []
    true_digest, true_read = chain.digest, Objects._read

    def digest_(seq: int, *rest: Any) -> str:
        hashed.append(seq)
        return true_digest(seq, *rest)

    def read_(self: Objects, id_: str, kind: bytes, most_bytes: int) -> bytes:
        read.append(id_)
        return true_read(self, id_, kind, most_bytes)

    monkeypatch.setattr(chain, "digest", digest_)
    monkeypatch.setattr(Objects, "_read", read_)
    with closing(Ledger.open(made)) as ledger:
        assert [finding for finding in verify(made, ledger) if not finding.ok] == []
        last = ledger.last_seq
    assert len(read) == len(set(read))
    assert len(hashed) <= last + 2  # whose it is, the first and the noted head tell


def test_what_is_kept_in_memory_is_bounded_and_what_was_damaged_is_found_anew(made: Path) -> None:
    commits = sorted({gen.parent for gen in fold_of(made).generations.values()})
    small, none = Lineage.open(made / "lineage.git", 2000), Lineage.open(made / "lineage.git")
    for commit in commits:
        assert small.read(commit) == none.read(commit)
        assert small._objects._kept_bytes <= 2000
    assert none._objects._kept == {}


def fold_of(made: Path) -> State:
    with closing(Ledger.open(made)) as ledger:
        return fold(ledger.events())


NUMBERS = st.one_of(st.integers(), st.floats(allow_nan=False), st.booleans(), st.text(max_size=3))


@given(seq=NUMBERS, when=NUMBERS, kind=st.text(), body=st.text(), prev=st.text())
def test_an_events_hash_is_that_of_its_five_parts_as_json(seq: Any, when: Any, kind: str, body: str, prev: str) -> None:
    text = json.dumps([seq, when, kind, body, prev], separators=(",", ":"))
    assert chain.digest(seq, when, kind, body, prev) == hashlib.sha256(text.encode()).hexdigest()


# The benchmark


def test_the_small_subset_of_the_benchmark_runs_and_says_what_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bench, state_home = load("long_loop"), os.environ["XDG_STATE_HOME"]
    bench.main(["--generations", "10,40", "--read", "4", "--home", str(tmp_path), "--print"])
    said = capsys.readouterr().out
    assert said.startswith("**A small subset, up to generation 40.**")
    rows = [line.strip("| ").split(" | ") for line in said.splitlines() if line.startswith("| ")]
    assert [row[0] for row in rows] == ["generation", "10", "40"]
    assert all(float(cell.split()[0]) > 0 for row in rows[1:] for cell in row[1 : 1 + len(bench.PARTS)])
    assert os.environ["XDG_STATE_HOME"] == state_home
    assert list(tmp_path.iterdir()) == []


def test_a_missed_goal_is_said() -> None:
    bench = load("long_loop")
    parts = dict.fromkeys(bench.PARTS, 1.0)
    slow = {name: 1.3 * value for name, value in parts.items()}
    costs, young = [bench.Cost(slow, 70)], [bench.Cost(parts, 70)]
    found = [bench.Figures(10_000, costs, young, 9, 60.0, 1 << 20)]
    said = bench.text(10, found, bench.Read(376, 26_000, {"`verify`": 2.5, "`pack`": 1.5}))
    assert "1.30 times" in said
    assert "at most 1.2, missed" in said
    assert "at most 2 s, missed by `verify`)" in said
    assert "subset" not in said
    assert "keeps 6 kB of each" in said
    assert "512 generations of these" in said
