"""What a loop knows about its noise before it decides anything, and the shelf where later loops find it again.

A calibration holds for the conditions it was made under: task, preset, budget, device, glass, starter, images and the
speed of the machine. Under other ones it is not used, and the reason is said.

The shelf lies beside the loops, where somebody else's folder may have brought it along. Noise is what a gate decides
by, so a file is believed only under this user's mark (store/ours.py).

Not covered: noise that depends on the secret's own data; loops of one task differ in that by little.
"""

from __future__ import annotations

import hashlib
import json
import math
import shlex
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from bellglass.paths import written_anew
from bellglass.records import Json, Noise
from bellglass.store import ours
from bellglass.store.folder import read_plain

SPEED_SLACK = 1.3  # a shared machine's own speed wanders by less
MARK, MOST_BYTES = "mark", 1 << 20
REFERENCE_SIZE, REFERENCE_ROUNDS = 192, 120


@dataclass(frozen=True, slots=True)
class Conditions:
    task: str
    preset: str
    budget: str  # kind and amount
    device: str
    glass: str
    starter: str  # its commit, which follows from its bytes
    images: str  # what the guests run
    documents: str  # hash of what makes them, and how many
    speed_ms: float  # CPU milliseconds of a fixed piece of work; 0 where budgets don't depend on it


@dataclass(frozen=True, slots=True)
class Calibration:
    conditions: Conditions
    noise: Noise  # of one training's score, over seeds
    scores: tuple[float, ...]
    document_se: float  # sampling error of one score over the documents it is judged on
    trial_seconds: float  # wall time of one trial, judging included
    parts: Mapping[str, Json]  # what only `bellglass calibrate` measures: see steps/grid.py

    def as_json(self) -> Json:
        return asdict(self)


def from_json(body: Json) -> Calibration:
    """ValueError for a noise that nobody measured: decisions would start from it."""
    noise = Noise(**body["noise"])
    if not (0.0 < noise.sd < math.inf and noise.df >= 1):
        raise ValueError(f"a noise of {noise.sd} on {noise.df} degrees of freedom")
    return Calibration(
        conditions=Conditions(**body["conditions"]),
        noise=noise,
        scores=tuple(body["scores"]),
        document_se=body["document_se"],
        trial_seconds=body["trial_seconds"],
        parts=body["parts"],
    )


SCARCE = 2.0  # times the smallest gain: of less than that above the floor, a child must take half to be seen


def out_of_reach(body: Json) -> str:
    """Of `loop.calibrated`: a warning where the gate can hardly see a gain, so little is left above the floor."""
    most = body.get("most_gain")
    if not isinstance(most, int | float) or most > SCARCE * body["smallest_gain"]:
        return ""
    seen = "no gain can be that large" if most <= body["smallest_gain"] else "few gains can be that large"
    return f"{seen}: the starter is only {most:.3f} above the floor; allow more max_pairs"


class Shelf:
    """One file per task, preset, device and glass, beside the loops."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, wanted: Conditions, least_df: int = 1) -> tuple[Calibration | None, str]:
        """The calibration for these conditions, or None with what does not fit about the stored one."""
        stored, why = self._read(wanted)
        if stored is None:
            return None, why
        strange = mismatches(stored.conditions, wanted)
        if stored.noise.df < least_df:
            strange.append(f"{stored.noise.df} degrees of freedom, not {least_df} or more")
        return (None, "the stored one is for " + "; ".join(strange)) if strange else (stored, "")

    def knows_more(self, than: Calibration) -> bool:
        """Of the same but for the machine's speed, which may come back."""
        stored, _ = self._read(than.conditions)
        if stored is None or stored.noise.df <= than.noise.df:
            return False
        return replace(stored.conditions, speed_ms=than.conditions.speed_ms) == than.conditions

    def keep(self, calibration: Calibration) -> Path:
        self._folder.mkdir(parents=True, exist_ok=True)
        file = self._file(calibration.conditions)
        body = calibration.as_json()
        marked = {**body, MARK: ours.mark(_text(body))}
        with written_anew(file, f"ls -ld {shlex.quote(str(self._folder))}") as out:
            out.write(json.dumps(marked, indent=1, sort_keys=True).encode() + b"\n")
        return file

    def _read(self, wanted: Conditions) -> tuple[Calibration | None, str]:
        try:
            body = json.loads(read_plain(self._file(wanted), MOST_BYTES))
            stored, mark = from_json(body), body.pop(MARK, None)
        except FileNotFoundError:
            return None, "none is stored"
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            return None, f"the stored one cannot be read ({type(error).__name__})"
        if not ours.marked_here(_text(body), mark):
            return None, "the stored one was not measured by this user, or by an older bellglass"
        return stored, ""

    def _file(self, conditions: Conditions) -> Path:
        task = Path(conditions.task).name  # of a folder of one's own the path, so that two of a name stay apart
        if task != conditions.task:
            task += "-" + hashlib.sha256(conditions.task.encode()).hexdigest()[:8]
        name = "-".join((task, conditions.preset, conditions.device.replace(":", ""), conditions.glass))
        return self._folder / f"{name}.json"


def _text(body: Json) -> str:
    return json.dumps(body, sort_keys=True)


def mismatches(stored: Conditions, wanted: Conditions) -> list[str]:
    """What differs, in words."""
    old, new = asdict(stored), asdict(wanted)
    found = [f"{key} {old[key]}, not {new[key]}" for key in old if key != "speed_ms" and old[key] != new[key]]
    slow, fast = max(stored.speed_ms, wanted.speed_ms), min(stored.speed_ms, wanted.speed_ms)
    if slow > SPEED_SLACK * fast:
        found.append(f"a machine that took {stored.speed_ms:.0f} ms for what took {wanted.speed_ms:.0f} ms here")
    return found


def speed_reference() -> float:
    """CPU milliseconds of a fixed piece of single-precision work; the median of five, so that no hiccup is a speed."""
    matrix = np.linspace(-1.0, 1.0, REFERENCE_SIZE**2, dtype=np.float32).reshape(REFERENCE_SIZE, REFERENCE_SIZE)
    times = []
    for _ in range(5):
        began, value = time.thread_time(), matrix
        for _ in range(REFERENCE_ROUNDS):
            value = np.tanh(matrix * value)
        times.append(time.thread_time() - began)
    return round(sorted(times)[2] * 1000.0, 2)
