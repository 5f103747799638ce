"""What a loop can't be begun with."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bellglass import tasks
from bellglass.config import load
from bellglass.contradictions import refuse_contradictions
from bellglass.errors import UsageError
from bellglass.tasks import Task


def counting_steps() -> Task:
    """A task whose preset `tiny` has no other budget."""
    task = tasks.load("sums")
    tiny = task.presets["tiny"]
    stepped = replace(tiny, budget=replace(tiny.budget, kind="steps", amount=6.0))
    return replace(task, presets={**task.presets, "tiny": stepped})


@pytest.mark.parametrize(
    ("task", "chosen", "thing"),
    [
        (counting_steps(), {}, "preset 'tiny' of sums"),
        (tasks.load("sums"), {"virtual_clock": True}, "the virtual clock"),
    ],
    ids=["preset", "clock"],
)
def test_a_hosted_model_is_refused_where_steps_are_counted(task: Task, chosen: dict[str, object], thing: str) -> None:
    with pytest.raises(UsageError, match="never asks trains on") as caught:
        refuse_contradictions(load(None, {"preset": "tiny", "model": "ollama/any", **chosen}), task)
    assert caught.value.thing == thing


def test_a_built_in_improver_may_count_steps_and_a_hosted_one_seconds() -> None:
    refuse_contradictions(load(None, {"preset": "tiny"}), counting_steps())
    refuse_contradictions(load(None, {"preset": "cpu", "model": "ollama/any"}), counting_steps())
