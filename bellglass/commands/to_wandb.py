"""A loop in Weights & Biases: `export wandb`, and the follower beside a loop that runs (`--wandb`).

The follower is a process of its own that reads the ledger, as `log --follow` does. So an outage never touches the loop:
nothing of W&B is imported, called or waited for where the loop runs, but for a few seconds when it has ended.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bellglass.commands.beside import Driver, start
from bellglass.commands.options import LoopName, Loops
from bellglass.commands.terminal import say
from bellglass.errors import UsageError
from bellglass.paths import typed
from bellglass.store.folder import open_written, read_plain, require_plain

if TYPE_CHECKING:
    from bellglass.ports import Board
    from bellglass.show.following import Following
    from bellglass.show.wandb_replay import Replay

FOLLOWER_LOG = "follower.log"  # in the loop's folder of W&B: what its follower said
POLL_SECONDS = 2.0
PATIENCE_SECONDS = 5.0  # for the follower, when its loop has ended
MOST_LOG = 1 << 20
LINGER_SECONDS = 600.0  # how long a follower may still upload after that


def wandb(
    loop: LoopName = None,
    online: Annotated[
        bool | None, typer.Option("--online/--offline", help="Default: WANDB_MODE, else online where there is a key.")
    ] = None,
    project: Annotated[str | None, typer.Option("--project", help="Default: WANDB_PROJECT, else bellglass.")] = None,
    entity: Annotated[str | None, typer.Option("--entity", help="Default: WANDB_ENTITY, else your own.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A folder for `wandb`. Default: the loop's.")
    ] = None,
    trials: Annotated[bool, typer.Option("--trials", help="One run per trial, too.")] = False,
    weights: Annotated[bool, typer.Option("--weights/--no-weights", help="Weights as artifacts, too.")] = True,
    attached: Annotated[float | None, typer.Option("--attached", hidden=True)] = None,
    loops: Loops = None,
) -> None:
    """Runs in Weights & Biases, made from the ledger; as often as you like, under the same ids."""
    from bellglass import paths, wiring
    from bellglass.show.following import Following
    from bellglass.show.wandb_replay import Replay
    from bellglass.show.wandb_rows import name_of_loop

    folder = paths.find_loop(loop, paths.loops_home(loops))
    mode = wiring.wandb_mode(None if online is None else "online" if online else "offline", project, entity)
    if mode == "disabled":
        say("WANDB_MODE is disabled: nothing was exported", err=True)
        return
    replay, root = Replay(trials=trials, weights=weights), output or folder
    driver = None if attached is None else Driver(attached)
    with contextlib.closing(Following(folder)) as followed:
        name = name_of_loop(followed.document())
        with _when_free(driver, lambda: wiring.wandb_board(root, name, mode, project, entity)) as board:
            if driver is not None:
                _follow(replay, board, followed, driver)
            replay.tell(board, *followed.shown(), followed.document(), last=True)
        unread = followed.document()["missing"]
    for line in dict.fromkeys([*unread, *replay.missing, *board.missing]):
        say(f"missing: {line}", err=True)
    say(f"{replay.runs} runs in {root / 'wandb'}; {board.address or f'upload: wandb sync {root}/wandb'}")


@contextlib.contextmanager
def _when_free(driver: Driver | None, opened: Callable[[], AbstractContextManager[Board]]) -> Iterator[Board]:
    """A follower whose forerunner still uploads waits for it, as long as its own loop runs."""
    with contextlib.ExitStack() as stack:
        while True:
            try:
                board = stack.enter_context(opened())
                break
            except UsageError:
                if driver is None or driver.gone(POLL_SECONDS):
                    raise
        yield board


def _follow(replay: Replay, board: Board, followed: Following, driver: Driver) -> None:
    """Each generation as it ends, until the loop's process is gone."""
    ended = -1
    while not driver.gone(POLL_SECONDS):
        shown, events = followed.shown()
        now = sum(gen.result is not None for gen in shown.state.generations.values())
        if now != ended:
            replay.tell(board, shown, events, followed.document(), last=False)
            ended = now


# Beside a loop


def check(word: str) -> None:
    """Before anything is spent: whether `--wandb` can do what it says."""
    from bellglass import wiring

    if word not in ("online", "offline", "off"):
        raise UsageError("--wandb", repr(word), "online, offline or off", "bellglass run --help", code="option_invalid")
    if word != "off":
        wiring.wandb_mode(word)


@contextlib.contextmanager
def follower(folder: Path, word: str) -> Iterator[subprocess.Popen[bytes] | None]:
    """A follower while the loop runs. That none comes up, or none ends, never stops a loop."""
    started = None if word == "off" else _start(folder.absolute(), word)
    try:
        yield started
    finally:
        if started is not None:
            say(_end(started, folder), err=True)


def _start(folder: Path, word: str) -> subprocess.Popen[bytes] | None:
    words = ("export", "wandb", str(folder), f"--{word}", "--attached", str(LINGER_SECONDS))
    require_plain(folder)
    try:
        (folder / "wandb").mkdir(exist_ok=True)
        with open(open_written(folder / "wandb" / FOLLOWER_LOG), "wb") as log:
            log.truncate()
            return start(*words, stdout=log, stderr=log)
    except OSError as error:
        say(f"W&B     not followed: {error.strerror or error}", err=True)
        return None


def _end(follower: subprocess.Popen[bytes], folder: Path) -> str:
    """What became of it, in a line."""

    again = f"bellglass export wandb {typed(folder)}"
    assert follower.stdin is not None
    with contextlib.suppress(OSError):  # it is dead already
        follower.stdin.close()
    try:
        code = follower.wait(PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        return f"W&B     still takes it in; when it has not after {LINGER_SECONDS / 60:g} minutes: {again}"
    if code != 0:
        return f"W&B     not up to date; see {folder}/wandb/{FOLLOWER_LOG}; then: {again}"
    with contextlib.suppress(OSError):
        said = read_plain(folder / "wandb" / FOLLOWER_LOG, MOST_LOG).decode("utf-8", "replace").strip()
        return f"W&B     {said.splitlines()[-1] if said else again}"
    return f"W&B     {again}"
