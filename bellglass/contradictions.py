"""What a loop can't be begun with, whatever machine it runs on: said before anything is made or spent.

Not covered: what this machine lacks; `wiring` finds that when it opens doors.
"""

from __future__ import annotations

from bellglass.config import LoopConfig, wants_hosted
from bellglass.errors import UsageError
from bellglass.steps.gate import LOOKS
from bellglass.steps.trial import worst_case
from bellglass.tasks import Task


def refuse_contradictions(config: LoopConfig, task: Task) -> None:
    """UsageError where two things that were chosen don't go together."""
    _refuse_unmeasured(config, task)
    _refuse_told_documents(config)
    _refuse_undecidable(config, task)


def _refuse_undecidable(config: LoopConfig, task: Task) -> None:
    """Said before anything is spent: a bound that an improver may use up before its first successor is decided on."""
    each = worst_case(config.preset_of(task).budget).train_seconds
    explored = config.trials_per_generation  # an improver may use all of them before the first pair
    least = round((config.panel + explored + 2 * LOOKS[0]) * each, 1)
    if config.train_seconds is not None and config.train_seconds < least:
        parts = f"{config.panel} trainings to calibrate, {explored:g} to explore"
        needed = f"at least {least:g} s: {parts} and {LOOKS[0]} pairs to adopt anything"
        again = f"the same with --train-seconds {least:g}"
        raise UsageError(
            "the bound on training time", f"{config.train_seconds:g} s", needed, again, code="bound_too_small"
        )


def _refuse_unmeasured(config: LoopConfig, task: Task) -> None:
    """Where steps are counted, a trainer that never asks for the time left trains until its wall cap."""
    if wants_hosted(config) and config.preset_of(task).budget.kind == "steps":
        thing = "the virtual clock" if config.virtual_clock else f"preset {config.preset!r} of {task.name}"
        needed = "a budget that the host measures: where steps are counted a trainer that never asks trains on"
        raise UsageError(thing, "steps, with a hosted model", needed, "bellglass run --help", code="choices_clash")


def _refuse_told_documents(config: LoopConfig) -> None:
    """From a seed anyone can make every document that decides; an improver is told it, and could guess a short one."""
    if config.seed is not None and wants_hosted(config):
        needed = "no seed, because who knows it can make the documents that decide"
        raise UsageError(
            "the seed",
            f"{config.seed}, with a hosted model",
            needed,
            "bellglass run without --seed",
            code="choices_clash",
        )
