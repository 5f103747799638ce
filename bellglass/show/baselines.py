"""What the baselines `random` and `tpe` reached on a task: `tasks/<name>/baselines.json`.

benchmarks/baselines.py writes the file and nobody else. It is data for people: a summary that says a champion is better
than its starter shows what a search that understands nothing gains there. No decision reads it.

Not covered: whether a loop had the baselines' bounds. The line says how many trainings those had.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from bellglass.errors import UsageError
from bellglass.paths import content_root
from bellglass.records import Interval, Json
from bellglass.store.state import State
from bellglass.tasks import FIGURES as FILE

NAMES = ("random", "tpe")


@dataclass(frozen=True, slots=True)
class Baselines:
    """Gains of a champion over the starter on `final`, in the task's unit: mean and 95% interval over loops."""

    task: str
    preset: str
    trainings: int  # at most, in a loop's sessions and at its gates
    planned: int  # loops of each
    starter: str  # hash of the trainer that they began with
    gains: Mapping[str, Interval]  # a baseline's name -> its gain; only of those with two loops or more

    def line(self, starter: str) -> str:
        """For a loop whose starter has this hash."""
        told = ", ".join(
            f"{name} {gain.text('+')} over {gain.n} of {self.planned} loops" for name, gain in self.gains.items()
        )
        other = "" if starter == self.starter else "; they began with another starter"
        return f"baselines on {self.task} ({self.preset}, {self.trainings} trainings a loop): {told}{other}"


def for_loop(state: State) -> Baselines | None:
    """What belongs beside a loop that says it improved; None where it does not, or nothing comparable was measured."""
    config = state.config
    if state.champion == state.starter or config["virtual_clock"]:
        return None
    return load(content_root() / "tasks", config["task"]).get(config["preset"])


def load(home: Path, task: str) -> dict[str, Baselines]:
    """By preset; nothing where no file is. A task in a folder of one's own has none."""
    path = home / task / FILE
    if "/" in task or not path.is_file():
        return {}
    try:
        return {preset: _of(task, preset, body) for preset, body in json.loads(path.read_text("utf-8")).items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        needed, made_by = "what benchmarks/baselines.py writes", "python benchmarks/baselines.py --write-only"
        raise UsageError(
            str(path), f"{type(error).__name__}: {error}", needed, made_by, code="baselines_broken"
        ) from None


def store(home: Path, found: Baselines) -> None:
    """Put it beside what the file holds for other presets."""
    kept = {**load(home, found.task), found.preset: found}
    body = {preset: _body(kept[preset]) for preset in sorted(kept)}
    (home / found.task / FILE).write_text(json.dumps(body, indent=1) + "\n", "utf-8")


def _of(task: str, preset: str, body: Json) -> Baselines:
    gains = {name: Interval(**gain) for name, gain in body["gains"].items()}
    return Baselines(task, preset, body["trainings"], body["planned"], body["starter"], gains)


def _body(found: Baselines) -> Json:
    return {key: value for key, value in asdict(found).items() if key not in ("task", "preset")}
