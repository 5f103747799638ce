"""The file that benchmarks/gate.py appends to, and what it holds so far. Each line is one training, pair or decision.

A line is written when its training has ended, so a run that was cut off goes on at the next one. Lines of a child
whose text has changed since are left aside.
"""

from __future__ import annotations

import fcntl
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import page  # noqa: E402

from bellglass.records import Noise  # noqa: E402
from bellglass.stats import sample_sd  # noqa: E402

Pair = tuple[float, float]  # parent's score, child's score
Place = tuple[int, str]  # block and cell


@dataclass
class Found:
    """What the lines say."""

    slope: dict[tuple[float, int], float] = field(default_factory=dict)  # (factor, seed) -> score
    calibrations: dict[int, list[float]] = field(default_factory=dict)
    pairs: dict[Place, list[Pair]] = field(default_factory=dict)
    words: dict[Place, str] = field(default_factory=dict)
    machines: dict[str, set[int | None]] = field(default_factory=dict)  # -> the blocks it trained for; None: the slope

    def take(self, line: Mapping[str, Any], children: Mapping[str, str]) -> None:
        """`children`: what each cell's child is made of now."""
        kind, block = line["kind"], line.get("block")
        if kind in ("pair", "decision") and children.get(line["cell"]) != line["child"]:
            return
        if kind == "slope":
            self.slope[line["factor"], line["seed"]] = line["score"]
        elif kind == "calibration":
            self.calibrations[block] = line["scores"]
        elif kind == "pair":
            self.pairs.setdefault((block, line["cell"]), []).append((line["parent"], line["score"]))
        else:
            self.words[block, line["cell"]] = line["word"]
            return  # nothing was trained
        self.machines.setdefault(line.get("machine", page.UNRECORDED), set()).add(block)

    def noise(self, block: int) -> Noise:
        scores = self.calibrations[block]
        return Noise(sample_sd(scores), len(scores) - 1)

    def decided(self, cell: str) -> list[tuple[str, list[Pair]]]:
        """This cell's decisions with their pairs, in the order in which they were made."""
        return [(word, self.pairs[place]) for place, word in sorted(self.words.items()) if place[1] == cell]

    def level(self, block: int) -> float:
        """The mean score of a block's parents: what a slow drift of the machine moves."""
        scores = [parent for place, pairs in self.pairs.items() if place[0] == block for parent, _ in pairs]
        return sum(scores) / len(scores)


class Log:
    """The open file. One run at a time may write it."""

    def __init__(self, path: Path, children: Mapping[str, str]) -> None:
        self._children = children
        self.found = Found()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a+")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise SystemExit(f"another run writes {path}") from None
        text = path.read_bytes()
        self._file.truncate(text.rfind(b"\n") + 1)  # a kill may have cut the last line off; its training comes again
        for line in lines_of(path):
            self.found.take(line, children)

    def put(self, **facts: Any) -> None:
        line = {**facts, "machine": page.machine()}
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        self.found.take(line, self._children)

    def __enter__(self) -> Log:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        self._file.close()


def lines_of(path: Path) -> list[dict[str, Any]]:
    """Every whole line; the last one may be only half written."""
    if not path.exists():
        return []
    text = path.read_text()
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def read(path: Path, children: Mapping[str, str]) -> Found:
    """For tables: without the lock, so that a run may go on meanwhile."""
    found = Found()
    for line in lines_of(path):
        found.take(line, children)
    return found
