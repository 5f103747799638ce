"""Rehearsal: documents are made and looked at before anything is spent on them.

Not covered: `train` before a loop, because it takes longest. The calibration makes it, before a model is asked; where a
stored one is used, as many were made once. And of a fixed corpus the slices of `confirm` behind the first.
"""

from __future__ import annotations

import secrets

import numpy as np

from bellglass.data_file import check_command
from bellglass.errors import UsageError
from bellglass.steps.judge import check_documents
from bellglass.steps.trial import Workbench, make_documents
from bellglass.tasks import Split, Task

JUDGED: tuple[Split, ...] = ("select", "confirm", "final")  # on the first nothing is decided or proved


def rehearse(bench: Workbench) -> None:
    """What trials will be judged on; UsageError where they can't be."""
    for split in JUDGED:
        which = f"{split} documents (preset {bench.preset.name})"
        docs = make_documents(bench, split, "")
        check_documents(bench.task, docs, split != "select", which)
        if split == "confirm":
            _refuse_unkeyed(bench, docs.tokens, which)


def rehearse_task(task: Task) -> None:
    """All presets, each under a secret of its own, and of the smallest what is trained on, too."""
    for preset in task.presets.values():
        bench = Workbench(task, preset, secrets.token_bytes(32), "cpu", side_by_side=1)
        rehearse(bench)
        if preset.name == "tiny":
            make_documents(bench, "train", "")


def _refuse_unkeyed(bench: Workbench, tokens: np.ndarray, which: str) -> None:
    """The same key must make the same documents, for `verify` and `recheck`; another one others, for the gate."""
    same, other = (make_documents(bench, "confirm", salt).tokens for salt in ("", "g1-1"))
    found = ""
    if not np.array_equal(tokens, same):
        found = "other ones when made again with the same key"
    elif np.array_equal(tokens, other):
        found = "the same ones under another key"
    if found:
        thing, needed = f"{which} of task {bench.task.name!r}", "a make() whose documents follow from its key alone"
        raise UsageError(thing, found, needed, check_command(bench.task.folder))
