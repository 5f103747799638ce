"""A session: one guest in the `improve` role, and a desk on the host that answers what it asks.

The same loop serves an improver at work (propose) and a scaffold under examination (boot): they differ in the desk.
Whatever happens, the session ends in a `Submission` or in a fault word; a bundle cannot make the driver raise.

Not covered: whether the submission is allowed (bundles.check_submission) or any good (the trials).
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from bellglass.errors import BoundReached, GuestFault, ModelFault
from bellglass.line.intake import Done, FileReceived, Log, LogTail, Request
from bellglass.ports import Glass, Guest, GuestSpec
from bellglass.records import Bundle, Json

LOG_TAIL_BYTES = 8000


class Desk(Protocol):
    """What a guest may ask for, besides submitting. Refusals are GuestFault, ModelFault or BoundReached."""

    def chat(self, body: bytes) -> bytes: ...

    def trial(self, files: Mapping[str, bytes], args: Json) -> Json: ...

    def trials(self, files: Mapping[str, bytes], candidates: Json) -> Json: ...

    def history(self) -> Json: ...

    def budget(self) -> Json: ...

    def note(self, text: str) -> None: ...

    def tick(self) -> None:
        """Called often; raises to end the session (a stop, a bound)."""


@dataclass(frozen=True, slots=True)
class Submission:
    files: Mapping[str, bytes]
    note: str


@dataclass(frozen=True, slots=True)
class SessionEnd:
    submission: Submission | None
    fault: str | None
    detail: str
    log: bytes


def serve(
    glass: Glass, spec: GuestSpec, bundle: Bundle, brief: str, args: Json, desk: Desk, *, wall_seconds: float
) -> SessionEnd:
    """Open a guest, give it the bundle twice (to run and to edit), answer until it submits or fails."""
    log = LogTail(LOG_TAIL_BYTES)
    with glass.company(check=desk.tick):
        try:
            guest = glass.open(spec)
        except GuestFault as error:
            return SessionEnd(None, error.code, error.detail, b"")
        try:
            _send_workspace(guest, bundle, brief)
            guest.send("start", args=args)
            submission = _converse(guest, desk, log, time.monotonic() + wall_seconds)
            return SessionEnd(submission, None, "", bytes(log))
        except GuestFault as error:
            return SessionEnd(None, error.code, error.detail, bytes(log))
        finally:
            guest.end()


def _send_workspace(guest: Guest, bundle: Bundle, brief: str) -> None:
    guest.send_file("brief.md", brief.encode())
    for path in sorted(bundle):
        guest.send_file(path, bundle[path])
        guest.send_file(f"work/{path}", bundle[path])


def _converse(guest: Guest, desk: Desk, log: LogTail, deadline: float) -> Submission:
    received: dict[str, bytes] = {}
    while True:
        desk.tick()
        if time.monotonic() > deadline:
            raise GuestFault("timeout", "the session's wall time")
        event = guest.recv(timeout=0.25)
        if isinstance(event, Done):
            raise GuestFault("no_submit" if event.why == "ok" else "crashed", event.why)
        if isinstance(event, Log):
            log.take(event)
        elif isinstance(event, FileReceived):
            received[event.name] = event.data
        elif isinstance(event, Request) and event.op == "submit":
            guest.send("reply", id=event.id, ok=True, value=None)
            return Submission(_under("submit/", received), _text(event.args, "note"))
        elif isinstance(event, Request):
            _answer(guest, desk, event, received)
            received.clear()


def _answer(guest: Guest, desk: Desk, request: Request, received: Mapping[str, bytes]) -> None:
    """One request, one reply. A refusal is an answer too: the improver may go on."""
    try:
        value, body = _dispatch(desk, request, received)
    except (ModelFault, GuestFault) as error:
        _refuse(guest, request, error.code, error.detail)
    except BoundReached as error:
        _refuse(guest, request, "bound", error.one_line())
    else:
        guest.send("reply", body, id=request.id, ok=True, value=value)


def _refuse(guest: Guest, request: Request, code: str, detail: str) -> None:
    guest.send("reply", id=request.id, ok=False, value={"code": code, "detail": detail[:2000]})


def _dispatch(desk: Desk, request: Request, received: Mapping[str, bytes]) -> tuple[Json, bytes]:
    if request.op == "chat":
        return {"ok": True}, desk.chat(request.body)
    if request.op == "trial":
        return desk.trial(_under("trial/", received), request.args), b""
    if request.op == "trials":
        return desk.trials(_under("trial/", received), _candidates(request.body)), b""
    if request.op == "history":
        return desk.history(), b""
    if request.op == "budget":
        return desk.budget(), b""
    if request.op == "note":
        desk.note(_text(request.args, "text"))
        return None, b""
    raise GuestFault("refused", f"operation {request.op!r}")


def _under(prefix: str, received: Mapping[str, bytes]) -> dict[str, bytes]:
    return {name.removeprefix(prefix): data for name, data in received.items() if name.startswith(prefix)}


def _text(args: Json, key: str) -> str:
    value = args.get(key, "") if isinstance(args, dict) else ""
    return value[:4000] if isinstance(value, str) else ""


def _candidates(body: bytes) -> list[Json]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise GuestFault("refused", "candidates that are no JSON") from error
    if not isinstance(value, list) or not 1 <= len(value) <= 32:
        raise GuestFault("refused", "candidates: a list of 1 to 32 objects")
    return value
