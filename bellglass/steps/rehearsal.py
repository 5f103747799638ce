"""Rehearsal: documents are made and looked at before anything is spent on them.

Not covered: `train` before a loop, because it takes longest. The calibration makes it, before a model is asked; where a
stored calibration is used, that one made as many. Of a fixed corpus, the slices of `confirm` behind the first, and how
many documents another loop's secret deals to a split. And what differs between two processes, as `hash()` of a string.
"""

from __future__ import annotations

import secrets
from dataclasses import fields

import numpy as np

from bellglass.data_file import check_command
from bellglass.errors import UsageError
from bellglass.steps.judge import check_documents
from bellglass.steps.trial import Workbench, make_documents
from bellglass.tasks import Documents, Split, Task

JUDGED: tuple[Split, ...] = ("select", "confirm", "final")  # on the first nothing is decided or proved


def rehearse(bench: Workbench) -> None:
    """What trials will be judged on; UsageError where they can't be."""
    for split in JUDGED:
        which = f"{split} documents (preset {bench.preset.name})"
        docs = make_documents(bench, split, "")
        check_documents(bench.task, docs, split != "select", which)
        if not _same(docs, make_documents(bench, split, "")):
            raise _wrong(bench.task, which, "others when made again", "a make() that draws from its key alone")
        if split == "confirm" and _same_set(docs, make_documents(bench, split, "g1-1")):
            needed = f"others in each pair: drawn from the key, of a fixed text fewer than there are ({split}_docs)"
            raise _wrong(bench.task, which, "the same ones under another key", needed)


def rehearse_task(task: Task) -> None:
    """All presets, each under a secret of its own, and what is trained on, too."""
    for preset in task.presets.values():
        bench = Workbench(task, preset, secrets.token_bytes(32), "cpu", side_by_side=1)
        rehearse(bench)
        make_documents(bench, "train", "")


def _same(first: Documents, second: Documents) -> bool:
    return all(np.array_equal(getattr(first, each.name), getattr(second, each.name)) for each in fields(Documents))


def _same_set(first: Documents, second: Documents) -> bool:
    """In whatever order."""
    return {row.tobytes() for row in first.tokens} == {row.tobytes() for row in second.tokens}


def _wrong(task: Task, which: str, found: str, needed: str) -> UsageError:
    return UsageError(
        f"{which} of task {task.name!r}", found, needed, check_command(task.folder), code="task_documents_unfit"
    )
