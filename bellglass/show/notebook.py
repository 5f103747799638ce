"""A loop as a read-only view for notebooks and scripts: `loop = bellglass.open("stories-1a2b3c4d")`.

It opens what can be opened (see `showing`) and takes no lock, so a loop that runs may be looked at; `refresh` reads
it again. Numbers are those of page and report, because all of them come from `view`.

What a guest said (claims, curves, notes, sessions, file contents) is testimony: shown here, decided on nowhere.
"""

from __future__ import annotations

from pathlib import Path

from bellglass import curves, trial_ids
from bellglass.errors import UsageError
from bellglass.records import Budget, Json, Trial
from bellglass.show.showing import Shown, open_loop
from bellglass.steps.trial import DECIDING
from bellglass.store.state import State

BESIDE = ("loop", "pair", "init_seed", "data_seed", "share")  # of a trial, behind the page's columns


class Loop:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._shown: Shown = open_loop(folder)
        self._document: Json = None

    def __repr__(self) -> str:
        return f"<loop {self.folder.name}: {len(self.state.generations)} generations, {len(self.state.trials)} trials>"

    def refresh(self) -> None:
        self._shown, self._document = open_loop(self.folder), None

    @property
    def state(self) -> State:
        """The fold over its events: every record there is."""
        return self._shown.state

    @property
    def document(self) -> Json:
        """What page and report show, as one JSON value."""
        if self._document is None:
            self._document = self._shown.document()
        return self._document

    @property
    def generations(self) -> list[dict[str, Json]]:
        return list(self.document["generations"])

    @property
    def trials(self) -> list[dict[str, Json]]:
        """One dict a trial, ready for `pandas.DataFrame`: the page's numbers, and what joins tables of many loops."""
        found, whole = self.document["trials"], _whole_budget(self.state)
        rows = [dict(zip(found["columns"], row, strict=True)) for row in found["rows"]]
        return [{**row, **self._beside(row["id"], whole)} for row in rows]

    def _beside(self, trial_id: str, whole: Budget | None) -> dict[str, Json]:
        trial = self.state.trials[trial_id]
        same = whole is not None and whole.kind == trial.budget.kind
        share = round(trial.budget.amount / whole.amount, 4) if same and whole and whole.amount else None
        pair, seeds = trial_ids.pair_of(trial_id), trial.seeds
        values = (self.state.loop_id, pair, seeds.init_seed, seeds.data_seed, share)
        return dict(zip(BESIDE, values, strict=True))

    @property
    def final(self) -> Json:
        """Champion against starter, on documents that were opened once; None before."""
        return self.document["final"]

    def curves(self, trial_id: str) -> curves.Lines:
        """What the trainer reported: of each metric (step, seconds used, value)."""
        sha = self._trial(trial_id).curves
        return {} if sha is None else curves.read(self._shown.blobs.get(sha))

    def weights(self, trial_id: str) -> bytes:
        """The trained weights, as safetensors."""
        sha = self._trial(trial_id).weights
        if sha is None:
            raise UsageError(
                f"weights of {trial_id}",
                "none: the trial failed",
                "a trial that was judged",
                "loop.trials",
                code="unknown_trial",
            )
        return self._shown.blobs.get(sha)

    def bundle(self, generation: int | None = None) -> dict[str, bytes]:
        """The champion, or the successor of a generation: path to content."""
        commit = self.state.champion
        if generation is not None:
            found = self.state.generations.get(generation)
            commit = "" if found is None or found.successor is None else found.successor
        if not commit:
            raise UsageError(
                f"generation {generation}",
                "no successor",
                f"one of {list(self.state.generations)}",
                "loop.generations",
                code="unknown_generation",
            )
        return dict(self._shown.lineage.read(commit))

    def diff(self, generation: int) -> Json:
        """What its successor changed, by file."""
        return self._shown.diff(generation)

    def session(self, generation: int) -> Json:
        """Its improver's conversation, call by call."""
        return self._shown.session(generation)

    def _trial(self, trial_id: str) -> Trial:
        if trial_id not in self.state.trials:
            near = ", ".join(list(self.state.trials)[:3])
            raise UsageError(
                f"trial {trial_id!r}", "no such trial", f"one of {near}, …", "loop.trials", code="unknown_trial"
            )
        return self.state.trials[trial_id]


def _whole_budget(state: State) -> Budget | None:
    """What a training that decides gets; an exploration may get a part of it. None: nobody has had it yet."""
    return next((trial.budget for trial in state.trials.values() if trial.purpose in DECIDING), None)
