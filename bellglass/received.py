"""What a loop that came from elsewhere may do here, and how a person makes it theirs.

Its bundles run in a sealed glass, and nothing of it runs on the host: `require_fit` is asked wherever a loop's bundles
meet a glass, whoever opened that and whatever the ledger says. It is gone on with only after `take_over`, and then in
a sealed glass as before, because its bundles were written elsewhere.

Not covered: what a sealed glass lets through (docs/safety.md).
"""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

from bellglass import tasks
from bellglass.config import LoopConfig, restore
from bellglass.errors import LoopFault, SetupError, UsageError
from bellglass.paths import content_hash, state_home, typed, user_host, user_name
from bellglass.ports import Glass
from bellglass.store import ours, state_folder
from bellglass.store.ledger import Ledger
from bellglass.store.ours import HEADS, Standing
from bellglass.store.state import State, fold
from bellglass.tasks import Task


def require_fit(glass: Glass, standing: Standing, *, hosted: bool = False) -> None:
    """SetupError where this loop's bundles must not run in this glass. A sealed one takes anybody's; another one only
    those of a loop that was made here, from its first event on, by a built-in improver."""
    if glass.sealed:
        return
    command = "bellglass doctor says what the sealed glass (Docker) lacks here"
    if not standing.made_here:
        found = f"bundles that came from elsewhere ({standing.why})"
        raise SetupError(f"the {glass.name} glass", found, "a sealed glass", command, code="not_sealed")
    if hosted:
        raise SetupError(f"the {glass.name} glass", "a hosted model", "a sealed glass", command, code="not_sealed")


def glass_name(standing: Standing, named: str) -> str:
    """Which glass to open for a loop whose ledger names this one: the ledger is believed where it is ours alone."""
    return named if standing.made_here else "docker"


def on_this_machine(config: LoopConfig, standing: Standing, device: str | None = None) -> LoopConfig:
    """The config to judge or train a loop again with. Of one that came from elsewhere neither device nor container
    runtime is its maker's choice: that would be a weaker seal than this machine's own, or the driver of a GPU."""
    if device is not None:
        config = restore(config.model_dump(mode="json"), {"device": device})
    if standing.ours:
        return config
    return config.model_copy(update={"device": device or "cpu", "runtime": None})


def trusted_task(state: State, named: Path | None, again: str) -> Task:
    """The loop's task: a shipped one, or that in the folder which a person named. Nothing of it has been run.

    `again`: the command that asked, for the error to name.
    """
    name, content = state.config["task"], state.created["content"]
    shipped = tasks.is_shipped(name)
    if shipped and named is not None:
        raise UsageError(
            "--task",
            f"{str(named)!r}, and the task of the loop is the shipped {name!r}",
            "none",
            again,
            code="choices_clash",
        )
    if not shipped and named is None:
        found = "no shipped one: its data.py is code of this loop, and would run here with your rights"
        needed = "--task with its folder, once you trust what is in there"
        raise UsageError(
            f"task {name!r}", found, needed, f"{again} --task {shlex.quote(name)}", code="task_not_trusted"
        )
    if named is None:
        return tasks.reopen(name, content)
    task = tasks.reopen(os.path.abspath(named.expanduser()), content)
    if content_hash(task.folder) != content.get(tasks.OWN):  # a shipped folder has no hash of its own
        raise LoopFault(
            f"task folder {task.folder}", "not what the loop began with", "the same files", again, code="task_changed"
        )
    return task


# Taking over


def meaning(folder: Path) -> list[str]:
    """What taking this loop over means, in sentences; raises where it can't be taken over."""
    with Ledger.open(folder) as ledger:
        state, standing, requests = fold(ledger.events()), ledger.standing(), ledger.waiting()
    _require_takeable(folder, state, standing)
    config = restore(state.config)
    name = state.config["task"]
    task = f"Its task is the shipped {name}."
    if not tasks.is_shipped(name):
        task = (
            "Its task came with it. That data.py would run on this machine with your rights, and does so only where "
            "you name its folder: resume --task FOLDER."
        )
    past = (
        "Nobody here can vouch for its past: every score, decision and approval in it is its maker's word, and what "
        "they decided stands. `verify`, `verify --rejudge` and `recheck` look into it, before or after."
    )
    where = "no container runtime of its own" if config.runtime is None else f"container runtime {config.runtime}"
    then = (
        "From then on it is yours, as it is now and in this one folder: each of its further events is signed with your "
        "key, and its head is noted in your state folder."
    )
    return [
        f"{folder.name} is received: {standing.why}.",
        past,
        f"`resume` goes on under what its maker chose: {_chosen(config)}; device {config.device}, {where}.",
        "Its bundles run in the sealed glass (Docker) alone, never as plain processes.",
        task,
        f"What lies in its inbox is thrown away: {requests} requests.",
        then,
    ]


def _chosen(config: LoopConfig) -> str:
    models = ", ".join(f"{name} = {provider}" for name, provider in config.models.items())
    bounds = [
        f"{config.generations} generations",
        "no bound on training" if config.train_seconds is None else f"{config.train_seconds:g} s of training",
        "no bound on money" if config.budget_usd is None else f"{config.budget_usd:g} USD",
        "no bound on model calls" if config.calls is None else f"{config.calls} model calls",
    ]
    return f"models {models} (with your keys); {', '.join(bounds)}; review {config.review}"


def take_over(folder: Path) -> str:
    """Make it ours: from here on it can be resumed and decided on. Returns the new head."""
    with Ledger.open(folder, write=True, received=True) as ledger:
        state, standing = fold(ledger.events()), ledger.standing()
        _require_takeable(folder, state, standing)
        body = {"who": user_name(), "was": standing.code, "requests": ledger.waiting(), **user_host()}
        return ledger.take_over(body).hash


def _require_takeable(folder: Path, state: State, standing: Standing) -> None:
    thing = f"loop {folder.name}"
    if standing.code == "no_state":  # these say what is wrong with it, before a person is asked anything
        ours.ready()
        state_folder.names(HEADS)
    if standing.ours:
        found, needed = f"yours already: {standing.why}", "a loop that came from elsewhere"
        raise UsageError(thing, found, needed, f"bellglass resume {typed(folder)}", code="already_yours")
    again = f"bellglass verify {typed(folder)}"
    if state.created is None or not re.fullmatch("[0-9a-f]{1,32}", state.loop_id):
        raise LoopFault(thing, "no beginning that gives it an id", "one", again, code="ledger_without_beginning")
    if standing.counterfeit:
        # It has an id of ours: its guests would be ended with those, and its head noted in place of one.
        needed = (
            "the loop as you left it, or an id that no loop of yours has; where yours is gone for good, remove its "
            f"head first: {state_home() / HEADS}/{state.loop_id}-*"
        )
        again = f"ls {shlex.quote(str(state_home() / HEADS))}"
        raise LoopFault(thing, standing.why, needed, again, code="loop_counterfeit")
