"""Commands of the live page: watch and pack; and the page beside a loop that is about to run (`--watch`)."""

from __future__ import annotations

import json as json_
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bellglass.commands import beside
from bellglass.commands.options import Json, LoopName, Loops
from bellglass.commands.terminal import say
from bellglass.errors import SetupError, UsageError
from bellglass.paths import typed

Deed = Callable[[dict[str, Any]], str]

if TYPE_CHECKING:
    from bellglass.records import Json as JsonValue
    from bellglass.web.server import Site

PAGES = "pages"  # in the user's state folder: a loop's port and token, so that a restart of its page has the same
STARTS_WITHIN_SECONDS = 20.0
POLITE_SECONDS = 20.0
MOST_SAID = 4000  # characters of a recheck's outcome


def watch(
    loop: Annotated[
        str | None, typer.Argument(help="A loop, or a file that `bellglass pack` made; default: the newest loop.")
    ] = None,
    port: Annotated[
        int | None, typer.Option("--port", min=0, max=65535, help="The first port to try; 0: any that is free.")
    ] = None,
    no_open: Annotated[bool, typer.Option("--no-open", help="Print the address; open no browser.")] = False,
    play: Annotated[
        str | None, typer.Option("--play", help="Play it back from its start, so much faster: 60x.")
    ] = None,
    attached: Annotated[bool, typer.Option("--attached", hidden=True)] = False,
    loops: Loops = None,
    json: Json = False,
) -> None:
    """The loop as a live page, on this machine alone; or a recording, played back. Ctrl-C ends it, not the loop."""
    import contextlib

    from bellglass.show import recording
    from bellglass.web import server

    site, note = _site(loop, play, loops)
    wanted = port if port is not None else note.get("port", server.FIRST_PORT)
    listening = server.bind(wanted)
    with contextlib.closing(site.show), listening:
        taken = listening.getsockname()[1]
        if taken != wanted and wanted != 0:
            say(f"port {wanted} is in use; this page takes {taken}", err=True)
        url = f"http://{server.HOST}:{taken}/#token={site.token}"
        if not isinstance(site.show, recording.Recording):
            _keep(site.show.folder, {"port": taken, "token": site.token})
        say(json_.dumps({"url": url, "port": taken}) if json else url)
        running = server.server_for(site)
        if attached:
            server.end_when_idle(running, site, beside.Driver().gone)
        elif not no_open:
            _open_browser(url)
        with contextlib.suppress(KeyboardInterrupt):  # the usual way to end it
            running.run(sockets=[listening])


def pack(
    loop: LoopName = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file to write; default: the loop's name, here.")
    ] = None,
    loops: Loops = None,
    json: Json = False,
) -> None:
    """One file that plays a loop back anywhere: events, diffs, sessions, curves. No weights, no unrevealed secret."""
    from bellglass import paths
    from bellglass.show import recording

    folder = paths.find_loop(loop, paths.loops_home(loops))
    target = output if output is not None else Path(folder.resolve().name + recording.SUFFIX)
    size, missing = recording.pack(folder, target)
    if json:
        say(json_.dumps({"file": str(target), "bytes": size, "missing": missing}))
        return
    for line in missing:
        say(f"missing: {line}", err=True)
    say(f"{target} ({size / 1000:.0f} kB)\nplay it: bellglass watch {target} --play 60x")


def _site(wanted: str | None, play: str | None, loops: Path | None) -> tuple[Site, dict[str, JsonValue]]:
    """What to serve, and what the last page of this loop used."""
    import secrets

    from bellglass import paths
    from bellglass.show import following, recording
    from bellglass.web.server import Site

    speed = 60.0 if play is None else recording.speed_of(play)
    token = secrets.token_urlsafe(24)
    if wanted is not None and recording.is_recording(Path(wanted)):
        return Site(recording.load(Path(wanted)), token, speed=speed), {}
    folder = paths.find_loop(wanted, paths.loops_home(loops))
    if play is not None:
        return Site(recording.played(folder), token, speed=speed), {}
    note = _kept(folder)
    site = Site(following.Following(folder), str(note.get("token", token)))
    site.deeds = deeds(folder, lambda: site.ending())
    return site, note


def deeds(folder: Path, ending: Callable[[], bool] = lambda: False) -> dict[str, Deed]:
    """What a person can do on the page of a loop; each as the command of the same name does it."""
    from bellglass import deciding, halt, wiring

    def review(asked: dict[str, JsonValue]) -> str:
        number = asked.get("generation")
        if type(number) is not int:
            raise UsageError("the decision", "no generation", "the number of one that waits", code="request_invalid")
        words = [_text(asked, key) for key in ("decision", "reason", "evidence_hash")]
        done = deciding.decide(folder, number, words[0], words[1], words[2])
        return f"{done.line}{'' if _runs(folder) else f'; bellglass resume {typed(folder)} goes on'}"

    def rearm(asked: dict[str, JsonValue]) -> str:
        return deciding.rearm(folder, _text(asked, "name"), _text(asked, "reason"), _text(asked, "seen")).line

    def stop(asked: dict[str, JsonValue]) -> str:
        reason = _text(asked, "reason")
        return halt.stop(folder, wiring.killer(folder), polite_seconds=POLITE_SECONDS, reason=reason)

    return {"review": review, "rearm": rearm, "stop": stop, "recheck": Recheck(folder, ending)}


class Recheck:
    """Trains a generation's parent and child again, as `bellglass recheck` does, and tells what came out.

    In a process of its own, because it takes minutes and must end with the page's server.
    """

    def __init__(self, folder: Path, ending: Callable[[], bool]) -> None:
        self._folder, self._ending = folder, ending
        self._taken = threading.Lock()

    def __call__(self, asked: dict[str, JsonValue]) -> str:
        number = asked.get("generation")
        if type(number) is not int:
            raise UsageError(
                "the recheck", "no generation", "the number of one that the gate decided", code="request_invalid"
            )
        if not self._taken.acquire(blocking=False):
            raise UsageError("the recheck", "another is under way", "its end", code="recheck_under_way")
        try:
            said = self._run(number)
        finally:
            self._taken.release()
        return "\n".join(line.strip() for line in said.splitlines() if line.strip())[-MOST_SAID:]

    def _run(self, number: int) -> str:
        command = [*beside.PYTHON, "recheck", str(self._folder), str(number)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as running:
            while True:
                try:
                    return running.communicate(timeout=0.5)[0]
                except subprocess.TimeoutExpired:
                    if self._ending():
                        running.terminate()


def _runs(folder: Path) -> bool:
    from bellglass.store.owner import is_owned

    return is_owned(folder)


def _text(asked: dict[str, JsonValue], key: str) -> str:
    value = asked.get(key)
    if not isinstance(value, str) or len(value) > 10_000:
        raise UsageError(f"the request's {key}", "none, or too long", "a short text", code="request_invalid")
    return value


def _page(folder: Path) -> str:
    """Where what is kept of a loop's page lies: not in the loop's folder, which may come from whoever knows a token."""
    import hashlib

    return f"{PAGES}/{hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:32]}"


def _kept(folder: Path) -> dict[str, JsonValue]:
    """What was kept before; nothing where that is not exactly what is written here."""
    import re

    from bellglass.store import state_folder

    try:
        found = json_.loads(state_folder.read(_page(folder)) or b"")
    except (SetupError, ValueError):
        return {}
    right = isinstance(found, dict) and isinstance(found.get("port"), int) and 0 < found["port"] < 65536
    return found if right and re.fullmatch(r"[A-Za-z0-9_-]{32}", str(found.get("token"))) else {}


def _keep(folder: Path, note: dict[str, JsonValue]) -> None:
    """Best effort: without it a page only does not survive a restart."""
    import contextlib

    from bellglass.store import state_folder

    with contextlib.suppress(SetupError):
        state_folder.write(_page(folder), json_.dumps(note).encode())


def _open_browser(url: str) -> None:
    """Where there is a screen; elsewhere a text browser would take the terminal."""
    import webbrowser

    if sys.stdout.isatty() and (
        sys.platform == "darwin" or os.environ.get("DISPLAY") or "WAYLAND_DISPLAY" in os.environ
    ):
        webbrowser.open(url)


def page_beside(folder: Path) -> subprocess.Popen[bytes] | None:
    """Starts the page of a loop that is about to run, in a process of its own, and prints its address.

    It lives on when the driver ends, as long as somebody has the page open. That no page comes up never stops a loop.
    """
    import select

    page = beside.start("watch", str(folder), "--attached", "--json", stdout=subprocess.PIPE)
    assert page.stdout is not None
    ready, _, _ = select.select([page.stdout], [], [], STARTS_WITHIN_SECONDS)
    try:
        url = json_.loads(page.stdout.readline())["url"] if ready else None
    except (ValueError, KeyError):
        url = None
    if url is None:
        with page:
            page.terminate()
        say(f"no page: bellglass watch {typed(folder)} says why", err=True)
        return None
    say(f"page    {url}", err=True)
    _open_browser(url)
    return page
