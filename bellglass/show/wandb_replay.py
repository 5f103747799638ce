"""A loop's ledger told to Weights & Biases: one run for the loop, one per generation, the same ids however often.

A `Board` is what takes it (doors/wandb_sink.py). A `Replay` may be told of a loop that still grows. A generation is
passed on when it has ended, so that what was told stays true and row N of a run is the same in every replay; one that
is under way is in the tables only.

Not covered: a blob or bundle that is gone from the loop's folder. It is left out, and said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bellglass import curves
from bellglass.errors import BellglassError
from bellglass.ports import Artifact, Board, Opening, Row, Run
from bellglass.records import Bundle, Json, Trial
from bellglass.show import summary
from bellglass.show import wandb_rows as rows_
from bellglass.show.showing import Shown
from bellglass.store.ledger import Event

CODE, WEIGHTS = "code", "model"  # types of artifacts, in W&B's words
WEIGHTS_FILE = "weights.safetensors"
CHAMPION = ("champion",)  # the alias

GENERATION_STEPS = (("*", rows_.GENERATION),)
TOLD_OF_GENERATION = (
    "from", "parent", "successor", "kinds", "done", "why", "fault", "measured_by", "gate_why",
)  # fmt: skip
TRAINING_STEPS = tuple((name, rows_.STEP) for name in (rows_.SECONDS, "claim/*", "claimed/*", "verdict/*"))


class Replay:
    def __init__(self, *, trials: bool = False, weights: bool = True) -> None:
        """`trials`: one run per trial, too. `weights`: those of one of a successor's trials, too."""
        self._trials, self._weights = trials, weights
        self._loop: Run | None = None
        self._told: set[int] = set()
        self._versions: dict[str, str] = {}  # of the bundles that are parents: commit -> alias
        self.missing: list[str] = []
        self.runs = 0

    def tell(self, board: Board, shown: Shown, events: Sequence[Event], document: Json, *, last: bool) -> None:
        """What is new since the last call. After `last` there is no other.

        The first is told when a generation has ended: until then the loop's noise and its starter are being measured.
        """
        if not last and not any(gen["done"] for gen in document["generations"]):
            return
        times = rows_.last_times(events)
        shares = summary.shares(shown.state)
        if self._loop is None:
            name = document["loop"]["name"]
            self._loop = loop = board.run(self._opening(document, "loop", name, "loop", GENERATION_STEPS))
            starter = shown.state.starter
            trials = [trial for trial in shares[0].trials if trial.bundle == starter]  # not the champion's on `final`
            self._generation(board, Place(shown, document, 0, starter, trials, times.get(0)), None)
        loop = self._loop
        for gen in document["generations"]:
            number = gen["n"]
            if number in self._told or not gen["done"]:
                continue
            trials = shares[number].children(shown.state.generations[number]) or shares[number].of("explore")
            self._generation(board, Place(shown, document, number, gen["successor"], trials, times.get(number)), gen)
            self._told.add(number)
        loop.configure({key: document["loop"][key] for key in ("head", "seq", "champion")})
        if not last:
            return
        if self._trials:
            self._each_trial(board, shown, document, times)
        tables = {"generations": rows_.generations_table(document), "candidates": rows_.candidates_table(document)}
        loop.finish(rows_.end_of(document), tables, rows_.exit_code(document))

    def _opening(
        self, doc: Json, suffix: str, name: str, kind: str, steps: tuple[tuple[str, str], ...], more: Row | None = None
    ) -> Opening:
        self.runs += 1
        loop = rows_.name_of_loop(doc)
        config = {**rows_.about_loop(doc), **(more or {})}
        notes = rows_.notes(doc) if kind == "loop" else ""
        of = str(rows_.plain(doc["loop"]["name"]))
        group = of if of and loop == rows_.safe(doc["loop"]["id"]) else f"{of} {loop}".strip()
        return Opening(f"{loop}-{suffix}", str(rows_.plain(name)) or loop, group, kind, config, steps, notes)

    def _generation(self, board: Board, at: Place, gen: Json) -> None:
        """`gen` is None for the starter, which nobody proposed and nothing came before."""
        doc, loop, alias = at.document, rows_.name_of_loop(at.document), rows_.alias(at.number)
        bundle = self._read(at.shown, at.commit)
        size = rows_.scaffold_size(bundle) if bundle else {}
        row = rows_.row_of_starter(doc, size) if gen is None else rows_.row_of(gen, doc["loop"]["unit"], size)
        trained = next((trial for trial in at.trials if trial.curves is not None), None)
        more = {"generation": at.number, "curves_of": trained.trial_id if trained else None}
        if gen is not None:
            review = gen["review"] and gen["review"].get("decision")  # who decided, and why, stays in the loop
            more |= {**{key: rows_.plain(gen[key]) for key in TOLD_OF_GENERATION}, "review": rows_.plain(review)}
        run = board.run(self._opening(doc, alias, alias, "generation", TRAINING_STEPS, more))
        if gen is not None:
            run.uses(f"bundle-{loop}", self._versions.get(gen["parent"], rows_.alias(gen["from"])))
        for place, line in enumerate(rows_.training(self._curves(at.shown, trained), row)):
            run.log(line, place, at.time)
        of_bundle, of_trainer = rows_.champions(doc["generations"])
        made = at.commit if gen is None else gen["champion"] if gen["champion"] != gen["parent"] else None
        self._store_bundles(run, at, bundle, made, CHAMPION if at.number == of_bundle else ())
        if self._weights:
            aliases = (alias, *(CHAMPION if at.number == of_trainer else ()))
            self._store_weights(run, at, f"weights-{loop}", aliases)
        run.finish(row, {})
        assert self._loop is not None
        self._loop.log(row, at.number, at.time)

    def _each_trial(self, board: Board, shown: Shown, doc: Json, times: Mapping[int, float]) -> None:
        found = doc["trials"]
        for row in found["rows"]:
            name, number, purpose = row[:3]
            end = rows_.verdict_of_trial(row, found["columns"], doc["loop"]["unit"])
            more = {"generation": number, "purpose": purpose}
            suffix = f"trial-{rows_.safe(name)}"
            run = board.run(self._opening(doc, suffix, name, "trial", TRAINING_STEPS, more))
            points = self._curves(shown, shown.state.trials[name])
            for place, line in enumerate(rows_.training(points, end)):
                run.log(line, place, times.get(number))
            run.finish(end, {})

    # What lies in the loop's folder

    def _read(self, shown: Shown, commit: str | None) -> Bundle | None:
        if not commit:
            return None
        try:
            return shown.lineage.read(commit)
        except BellglassError as error:
            self._miss(f"bundle {commit[:12]}: {error.one_line()}")
            return None

    def _store_bundles(
        self, run: Run, at: Place, successor: Bundle | None, made: str | None, champion: tuple[str, ...]
    ) -> None:
        """The successor's; and where a part of it was left behind, the one that the next generation starts from."""
        name, alias = f"bundle-{rows_.name_of_loop(at.document)}", rows_.alias(at.number)
        kept = successor if made == at.commit else self._read(at.shown, made)
        same = kept is not None and kept == successor
        if successor:
            told = {"commit": at.commit, **({"champion": made} if same else {})}
            run.artifact(Artifact(name, CODE, (alias, *(champion if same else ())), successor, told))
        if made and kept and not same:
            run.artifact(Artifact(name, CODE, (f"{alias}-kept", *champion), kept, {"champion": made}))
        if made and kept:
            self._versions[made] = alias if same else f"{alias}-kept"

    def _store_weights(self, run: Run, at: Place, name: str, aliases: tuple[str, ...]) -> None:
        judged = [trial for trial in at.trials if trial.purpose != "explore"]  # an explored try is not the successor
        trial = next((trial for trial in judged if trial.weights is not None), None)
        if trial is None or trial.weights is None:
            return
        try:
            file = at.shown.blobs.path(trial.weights)
        except BellglassError as error:
            self._miss(f"weights of {trial.trial_id}: {error.one_line()}")
            return
        told = {"trial": trial.trial_id, "purpose": trial.purpose, "sha256": trial.weights}
        run.artifact(Artifact(name, WEIGHTS, aliases, {WEIGHTS_FILE: file}, told))

    def _curves(self, shown: Shown, trial: Trial | None) -> curves.Lines:
        if trial is None or trial.curves is None:
            return {}
        try:
            return curves.read(shown.blobs.get(trial.curves))
        except (BellglassError, ValueError, TypeError, AttributeError) as error:
            self._miss(f"curves of {trial.trial_id}: {error}")
            return {}

    def _miss(self, what: str) -> None:
        if what not in self.missing:
            self.missing.append(what)


@dataclass(frozen=True, slots=True)
class Place:
    """A generation within its loop."""

    shown: Shown
    document: Json
    number: int
    commit: str | None  # its successor; of generation 0 the starter
    trials: Sequence[Trial]  # those that measure the successor; where there are none, the explored ones
    time: float | None
