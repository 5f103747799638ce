"""For the tests of the W&B export: a made loop with curves and weights, `bellglass export wandb` as a person types it,
and what it wrote, read back with wandb's own `leet inspect --json`.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import made_loop

from bellglass.curves import Curves
from bellglass.ports import Artifact, Opening, Row, Table
from bellglass.show.following import Following
from bellglass.show.wandb_replay import Replay
from bellglass.store.blobs import Blobs
from bellglass.store.ledger import Ledger
from bellglass.store.lineage import Lineage

ROOT = Path(__file__).resolve().parent.parent
PATIENCE_SECONDS = 120.0


def events(folder: Path, generations: int, names: tuple[str, ...], **chosen: Any) -> Iterator[tuple[str, Any]]:
    """Of a loop whose trainers report these metrics and leave weights."""
    maker = made_loop.Maker(generations, **chosen)
    maker.lineage, maker.blobs = Lineage.create(folder / "lineage.git"), Blobs(folder / "blobs")
    for number, (kind, body) in enumerate(maker.events()):
        if kind == "trial.settled":
            curves = Curves()
            for step in range(4):
                for place, name in enumerate(name for name in names if name != "claim_bits"):
                    curves.take(name, step * 10, step / 2, 3.0 + place - step / 10)
            if "claim_bits" in names:  # as the starter's trainer does: after the last step, and it names none
                curves.take("claim_bits", 0, 2.0, 2.5)
            blobs = {"curves": maker.blobs.put(bytes(curves)), "weights": maker.blobs.put(b"weights %d" % number)}
            body = {**body, **blobs}
        yield kind, body


def write(home: Path, generations: int, names: tuple[str, ...] = ("loss", "claim_bits"), **chosen: Any) -> Path:
    folder = home / "stories-00000001"
    with Ledger.create(folder) as ledger:
        for kind, body in events(folder, generations, names, **chosen):
            ledger.append(kind, body)
    return folder


@dataclass
class Noted:
    """A run that keeps what it is told, for tests that need no W&B."""

    opening: Opening
    rows: list[Row] = field(default_factory=list)
    artifacts: list[Artifact] = field(default_factory=list)
    used: list[str] = field(default_factory=list)
    exit_code: int | None = None

    def log(self, row: Row, place: int, time: float | None) -> None:
        self.rows.append(row)

    def artifact(self, artifact: Artifact) -> None:
        self.artifacts.append(artifact)

    def uses(self, name: str, alias: str) -> None:
        self.used.append(f"{name}:{alias}")

    def configure(self, config: Row) -> None:
        pass

    def finish(self, summary: Row, tables: Mapping[str, Table], exit_code: int = 0) -> None:
        self.exit_code = exit_code


class Notes:
    """A board of such runs."""

    def __init__(self) -> None:
        self.address, self.missing, self.runs = "", [], {}

    def run(self, opening: Opening) -> Noted:
        return self.runs.setdefault(opening.id, Noted(opening))

    def named(self, collection: str, alias: str) -> list[Artifact]:
        """Whatever took this alias, in order."""
        found = [artifact for run in self.runs.values() for artifact in run.artifacts]
        return [artifact for artifact in found if artifact.name.startswith(collection) and alias in artifact.aliases]


def noted(folder: Path) -> Notes:
    """What a board is told of a finished loop."""
    board = Notes()
    with contextlib.closing(Following(folder)) as followed:
        Replay().tell(board, *followed.shown(), followed.document(), last=True)
    return board


def environment(home: Path, **more: str) -> dict[str, str]:
    """Nothing of the person who runs the tests: no key, no netrc. But the state folder in which loops are theirs."""
    home.mkdir(exist_ok=True)
    kept = {name: os.environ[name] for name in ("PATH", "XDG_STATE_HOME") if name in os.environ}
    return {**kept, "HOME": str(home), "PYTHONPATH": str(ROOT), **more}


def export(folder: Path, home: Path, *words: str | Path, **more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-m", "bellglass", "export", "wandb", str(folder), *map(str, words)]
    return subprocess.run(
        command,
        env=environment(home, **more),
        cwd=home,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
    )


@dataclass(frozen=True)
class Told:
    """One run, as wandb reads its log."""

    folder: Path
    records: list[Any]

    def of(self, kind: str) -> list[Any]:
        return [record[kind] for record in self.records if record["type"] == kind]

    @property
    def run(self) -> Any:
        return self.of("run")[0]

    @property
    def config(self) -> Any:
        merged = dict(self.run["config"]["update"])
        for update in self.of("config"):
            merged |= update.get("update", {})
        return {key: value for key, value in merged.items() if key != "_wandb"}

    @property
    def history(self) -> list[dict[str, Any]]:
        """Its rows, without what W&B adds to each."""
        return [
            {key: value for key, value in item["item"].items() if key not in ("_runtime", "_step", "_timestamp")}
            for item in self.of("history")
        ]

    @property
    def summary(self) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        for update in self.of("summary"):
            merged |= update["update"]
        return {key: value for key, value in merged.items() if not key.startswith("_")}

    def table(self, name: str) -> Any:
        (file,) = self.folder.glob(f"files/media/table/{name}_*.table.json")
        return json.loads(file.read_text())


def inspect(wandb: Path, home: Path) -> dict[str, Told]:
    """Every run in the folder, by id; two folders of one run are an error."""
    found: dict[str, Told] = {}
    for folder in sorted(wandb.glob("*run-*-*")):
        if folder.is_symlink():
            continue
        (log,) = folder.glob("run-*.wandb")
        command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(log)]
        ran = subprocess.run(command, env=environment(home), capture_output=True, text=True, timeout=PATIENCE_SECONDS)
        assert ran.returncode == 0, ran.stderr
        told = Told(folder, [json.loads(line) for line in ran.stdout.splitlines()])
        run_id = told.run["run_id"]
        assert run_id not in found, f"run {run_id} twice"
        assert re.fullmatch(rf"(offline-)?run-\d+_\d+-{re.escape(run_id)}", folder.name)
        found[run_id] = told
    return found
