"""The live page's server, for one loop or one recording: on this machine alone, for who has its address.

How it is closed to others:
- it listens on the loopback interface alone, and answers only to that interface's names (a page of another site that
  has its own name point here is refused by the Host header);
- everything about the loop needs a random token in a header that no other site's page can set or know. The token comes
  in the part of the address behind `#`, which browsers send nowhere; it is no cookie, because cookies are shared by all
  ports of a machine and go along unasked;
- what decides needs the page's own Origin besides. No cross-origin sharing is offered;
- the page may run its own scripts and nothing else (Content-Security-Policy), nobody may frame it.

What it decides goes the way the console's decisions go (`deciding`, `halt`). A recording is read-only.

Not covered: another process of the same user, which can read the loop's folder anyway; TLS.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import re
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bellglass import strict_json
from bellglass.errors import BellglassError, SetupError, UsageError
from bellglass.records import Json
from bellglass.show.following import Following
from bellglass.show.recording import Recording

if TYPE_CHECKING:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

STATIC = Path(__file__).parent / "static"
TYPES = {".js": "text/javascript", ".css": "text/css"}
HOST = "127.0.0.1"
FIRST_PORT, PORTS_TRIED = 8642, 50
LOOPBACK = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:[0-9]{1,5})?")
TOKEN_HEADER = b"x-bellglass"
MOST_BODY_BYTES = 64 << 10
MOST_PATH_CHARS = 200
MOST_LISTENERS = 32
POLL_SECONDS, KEEPALIVE_SECONDS = 0.4, 10.0
REST = 20.0  # times what a document takes to make
IDLE_SECONDS = 30.0  # an attached server without driver and without a page ends after so long
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "cache-control": "no-store",
}

Scope = MutableMapping[str, Any]
Deed = Callable[[dict[str, Json]], str]  # what a person does on the page; the answer is shown to them


@dataclass
class Site:
    show: Following | Recording
    token: str
    deeds: Mapping[str, Deed] = field(default_factory=dict)
    speed: float = 60.0  # of playing a recording
    ending: Callable[[], bool] = lambda: False
    listeners: int = 0
    busy: int = 0  # deeds under way
    last_seen: float = field(default_factory=time.monotonic)

    def idle(self) -> bool:
        """Nobody has had the page open for a while."""
        if self.listeners or self.busy:
            self.last_seen = time.monotonic()
        return time.monotonic() - self.last_seen > IDLE_SECONDS

    # What is asked

    def document(self, request: Request) -> Json:
        if isinstance(self.show, Following):
            return self.show.document()
        asked = request.query_params.get("at")
        if asked is None:  # the page comes: what it needs to play is told once
            how = {"at": 1, "speed": self.speed, "times": self.show.times(), "playing": True}
            return {**self.show.document(1), "playback": {**how, "last": self.show.last}}
        made = self.show.document(_number(asked))
        return {**made, "playback": {"at": made["loop"]["seq"], "last": self.show.last}}

    def diff(self, request: Request) -> Json:
        return self.show.diff(request.path_params["number"])

    def session(self, request: Request) -> Json:
        return self.show.session(request.path_params["number"])

    def curves(self, request: Request) -> Json:
        return self.show.curves(request.path_params["number"])

    def live_curves(self, request: Request) -> Json:
        return self.show.live_curves() if isinstance(self.show, Following) else {"series": []}

    def act(self, what: str, body: bytes) -> Json:
        deed = self.deeds.get(what)
        if deed is None:
            raise UsageError(
                f"{what!a:.40}",
                "nothing this page can do",
                " or ".join(self.deeds) or "nothing: read-only",
                code="request_invalid",
            )
        try:
            asked = strict_json.loads(body)
        except ValueError as error:
            raise UsageError("the request", str(error), "JSON", code="request_invalid") from error
        if not isinstance(asked, dict):
            raise UsageError("the request", type(asked).__name__, "an object", code="request_invalid")
        self.busy += 1
        try:
            return {"message": deed(asked)}
        finally:
            self.busy -= 1

    async def news(self) -> AsyncIterator[str]:
        """Server-sent events: one when a page comes, one for each change; comments between keep the line open."""
        known, told, quiet = None, 0.0, time.monotonic()
        self.listeners += 1
        try:
            yield "retry: 1000\n\n: here\n\n"
            while not self.ending():
                rested = time.monotonic() - told > self._rest()
                news = await asyncio.to_thread(self._news) if rested else None
                if news is not None and news != known:
                    known, told, quiet = news, time.monotonic(), time.monotonic()
                    yield f"data: {json.dumps(news)}\n\n"
                elif time.monotonic() - quiet > KEEPALIVE_SECONDS:
                    quiet = time.monotonic()
                    yield ": still here\n\n"
                await asyncio.sleep(POLL_SECONDS)
        finally:
            self.listeners -= 1

    def _rest(self) -> float:
        """Between two pieces of news, so that a page takes a small share of a machine that trains."""
        return REST * self.show.document_seconds if isinstance(self.show, Following) else 0.0

    def _news(self) -> Json:
        if isinstance(self.show, Recording):
            return None
        try:
            return self.show.news()
        except BellglassError:  # asked for, the document says what is wrong; here it is tried again
            return None


# Who may ask


def refusal(method: str, path: str, headers: Mapping[bytes, list[bytes]], token: str) -> tuple[int, str] | None:
    """Status and reason for a request that is not from this server's own page; None: let it pass."""
    host = _one(headers, b"host")
    if host is None or LOOPBACK.fullmatch(host) is None:
        return 421, "this server answers to 127.0.0.1 and localhost alone"
    if len(path) > MOST_PATH_CHARS:
        return 414, "nothing here has so long an address"
    if method not in ("GET", "HEAD", "POST"):
        return 405, "only GET and POST"
    origin = _one(headers, b"origin")
    if b"origin" in headers and origin != f"http://{host}":
        return 403, "asked by another site's page"
    if not path.startswith("/api/"):
        return None if method != "POST" else (405, "nothing to write there")
    if b"sec-fetch-site" in headers and _one(headers, b"sec-fetch-site") not in ("same-origin", "none"):
        return 403, "asked by another site's page"
    if not hmac.compare_digest((_one(headers, TOKEN_HEADER) or "").encode(), token.encode()):
        return 403, "no valid token: open the address that `bellglass watch` prints"
    if method == "POST":
        return _refusal_of_write(headers, origin)
    return None


def _refusal_of_write(headers: Mapping[bytes, list[bytes]], origin: str | None) -> tuple[int, str] | None:
    if origin is None:
        return 403, "a write without an Origin"
    if (_one(headers, b"content-type") or "").partition(";")[0].strip() != "application/json":
        return 415, "JSON alone"
    length = _one(headers, b"content-length") or ""
    if b"transfer-encoding" in headers or not length.isascii() or not length.isdecimal():  # chunks go beyond a length
        return 411, "a length is needed"
    return (413, "too long") if int(length) > MOST_BODY_BYTES else None


def _one(headers: Mapping[bytes, list[bytes]], name: bytes) -> str | None:
    """A header's value; None when it is absent, or there twice."""
    values = headers.get(name, [])
    return values[0].decode("latin-1") if len(values) == 1 else None


class Guard:
    """Stands before everything: refuses, and puts its headers on every answer."""

    def __init__(self, app: Any, token: str) -> None:
        self._app, self._token = app, token

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return  # no websockets; a lifespan is not needed
        headers: dict[bytes, list[bytes]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.lower(), []).append(value)

        async def dressed(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                own = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message["headers"] = [*message["headers"], *own]
            await send(message)

        refused = refusal(scope["method"], scope["path"], headers, self._token)
        app = self._app if refused is None else _answer({"message": refused[1]}, refused[0])
        await app(scope, receive, dressed)


# The application


def application(site: Site) -> Starlette:
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.responses import Response, StreamingResponse
    from starlette.routing import Route

    page = page_for(site)
    files = {path.name: path.read_bytes() for path in STATIC.iterdir() if path.suffix in TYPES}

    def index(request: Request) -> Response:
        return Response(page, media_type="text/html")

    def static(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in files:
            return _answer({"message": "no such file"}, 404)
        return Response(files[name], media_type=TYPES[Path(name).suffix])

    def asks(method: Callable[[Request], Json]) -> Callable[[Request], Response]:
        def endpoint(request: Request) -> Response:
            return _told(lambda: method(request))

        return endpoint

    async def act(request: Request) -> Response:
        body, what = await request.body(), request.path_params["what"]
        return await asyncio.to_thread(_told, lambda: site.act(what, body))

    async def events(request: Request) -> Response:
        if site.listeners >= MOST_LISTENERS:
            return _answer({"message": "too many pages are open"}, 503)
        return StreamingResponse(site.news(), media_type="text/event-stream")

    routes = [
        Route("/", index),
        Route("/static/{name}", static),
        Route("/api/document", asks(site.document)),
        Route("/api/diff/{number:int}", asks(site.diff)),
        Route("/api/session/{number:int}", asks(site.session)),
        Route("/api/curves/{number:int}", asks(site.curves)),
        Route("/api/live", asks(site.live_curves)),
        Route("/api/events", events),
        Route("/api/act/{what}", act, methods=["POST"]),
    ]
    return Starlette(routes=routes, middleware=[Middleware(Guard, token=site.token)])


def page_for(site: Site) -> str:
    """The page with what it can do here, and with the script by which it reaches this server."""
    page = (STATIC / "page.html").read_text("utf-8")
    can = " ".join(["curves", *(["live"] if isinstance(site.show, Following) else []), *site.deeds])
    page = page.replace("</head>", f'<meta name="bellglass-can" content="{can}">\n</head>')
    last = '<script src="static/app.js" defer></script>'
    assert last in page
    return page.replace(last, f'<script src="static/live.js" defer></script>\n{last}')


def _told(ask: Callable[[], Json]) -> Response:
    """The answer, or what is wrong, in the one form that the page shows."""
    try:
        return _answer(ask(), 200)
    except UsageError as error:
        return _answer({"code": error.code, "message": error.one_line()}, 409)
    except BellglassError as error:
        return _answer({"code": error.code, "message": error.one_line()}, 503)


def _answer(value: Json, status: int) -> Response:
    from starlette.responses import Response

    # ASCII: a lone surrogate in a guest's text is no crash.
    return Response(json.dumps(value, separators=(",", ":")), status, media_type="application/json")


def _number(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 9:
        raise UsageError("the event", repr(text[:20]), "a number", code="request_invalid")
    return int(text)


# Running it


def bind(port: int) -> socket.socket:
    """A listening socket on this port of the loopback interface, or on the next free one."""
    for candidate in range(port, port + PORTS_TRIED):
        listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port that a restart has just left
        try:
            listening.bind((HOST, candidate))
            listening.listen()
            return listening
        except OSError:
            listening.close()
    raise SetupError(
        f"port {port}",
        f"{PORTS_TRIED} ports from it on in use",
        "a free one",
        "bellglass watch --port 0",
        code="port_taken",
    )


def server_for(site: Site) -> uvicorn.Server:
    import uvicorn

    config = uvicorn.Config(
        application(site),
        log_config=None,
        log_level="error",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        lifespan="off",
        ws="none",
        http="h11",
        loop="asyncio",
        timeout_graceful_shutdown=2,
    )
    server = uvicorn.Server(config)
    site.ending = lambda: server.should_exit
    return server


def end_when_idle(server: uvicorn.Server, site: Site, driver_is_gone: Callable[[], bool]) -> None:
    """For a server beside a loop: it outlives its driver only as long as somebody has the page open."""

    def look() -> None:
        while not server.should_exit:
            time.sleep(1.0)
            if site.idle() and driver_is_gone():
                server.should_exit = True

    threading.Thread(target=look, daemon=True, name="idle").start()
