"""The server itself: a loopback HTTP server in a thread that records what it was asked and can misbehave on demand."""

from __future__ import annotations

import http.server
import json
import socket
import struct
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from bellglass.doors.model_server import dialects
from bellglass.doors.model_server.dialects import Fault
from bellglass.errors import ModelFault
from bellglass.ports import Model
from bellglass.records import ChatReply, ChatRequest, Json

MAX_BODY = 16 * 2**20
CREDENTIALS = ("authorization", "x-api-key")


@dataclass(frozen=True, slots=True)
class Answer:
    """Raw bytes instead of a reply in the caller's dialect, and ways to send them badly."""

    status: int = 200
    body: bytes = b""
    wait_seconds: float = 0.0  # before the first byte
    drip_seconds: float = 0.0  # between single bytes: no read time-out ever fires
    drop: bool = False  # reset the connection instead of answering


@dataclass(frozen=True, slots=True)
class Asked:
    """One request as it arrived. Credentials are left out on purpose; `had_key` says whether one came."""

    path: str
    body: Json
    request: ChatRequest
    headers: Mapping[str, str] = field(repr=False)
    had_key: bool


Script: TypeAlias = Callable[[ChatRequest, int], ChatReply | Fault | Answer]  # the request, how many came before it

STATUS_OF_FAULT = {
    "refused_key": (401, "invalid_api_key"),
    "unknown_model": (404, "model_not_found"),
    "context_overflow": (400, "context_length_exceeded"),
    "rate_limited": (429, "rate_limit_exceeded"),
    "bad_request": (400, "invalid_request_error"),
}


def _script_of(answerer: Model | Script) -> Script:
    if not hasattr(answerer, "chat"):
        return answerer
    model = answerer

    def script(request: ChatRequest, _index: int) -> ChatReply | Fault | Answer:
        try:
            return model.chat(request)
        except ModelFault as fault:
            status, code = STATUS_OF_FAULT.get(fault.code, (500, "server_error"))
            return Fault(status, code, fault.detail)

    return script


class ModelServer:
    """Use as a context manager: `with ModelServer(script) as server: ... server.openai_base ...`."""

    def __init__(self, answerer: Model | Script) -> None:
        self._script = _script_of(answerer)
        self.asked: list[Asked] = []
        self.faults: list[str] = []  # what went wrong in the server itself; empty after a good run
        self._lock = threading.Lock()
        self.closing = threading.Event()
        self._server = _Server(("127.0.0.1", 0), _handler_for(self))
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name="model-server", daemon=True
        )

    def __enter__(self) -> ModelServer:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._thread.join(5)
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def openai_base(self) -> str:
        """What OPENAI_BASE_URL must hold. ANTHROPIC_BASE_URL and OLLAMA_API_BASE take plain `url`."""
        return self.url + "/v1"

    def answer(self, path: str, body: Json, headers: Mapping[str, str]) -> tuple[int, Mapping[str, str], bytes, Answer]:
        dialect = dialects.of_path(path)
        if dialect is None:
            return 404, {}, b'{"error": {"message": "no such page"}}', Answer()
        request = dialect.read(body)
        with self._lock:
            index = len(self.asked)
            kept = {name: value for name, value in headers.items() if name not in CREDENTIALS}
            self.asked.append(Asked(path, body, request, kept, len(kept) < len(headers)))
        outcome = self._script(request, index)
        if isinstance(outcome, Answer):
            return outcome.status, {}, outcome.body, outcome
        if isinstance(outcome, Fault):
            return outcome.status, outcome.headers, json.dumps(dialect.write_fault(outcome)).encode(), Answer()
        return 200, {}, json.dumps(dialect.write(request, outcome)).encode(), Answer()


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # a handler may be waiting on purpose
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A caller that hung up is no news (the default prints a traceback); anything else is kept by the handler."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


def _handler_for(server: ModelServer) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            """Silent: a request line on stderr helps nobody."""

        def do_GET(self) -> None:
            self._send(200, {}, b'{"object": "list", "data": [], "models": []}', Answer())

        def do_POST(self) -> None:
            length = int(self.headers.get("content-length", 0))
            if not 0 < length <= MAX_BODY:
                return self._send(413, {}, b"{}", Answer())
            data = self.rfile.read(length)
            headers = {name.lower(): value for name, value in self.headers.items()}
            try:
                status, extra, body, manner = server.answer(self.path, json.loads(data), headers)
            except Exception as bug:  # boundary: a bug in a script must reach the test, not vanish in a thread
                server.faults.append(repr(bug))
                status, extra, body, manner = 500, {}, b'{"error": {"message": "the double is broken"}}', Answer()
            return self._send(status, extra, body, manner)

        def _send(self, status: int, extra: Mapping[str, str], body: bytes, manner: Answer) -> None:
            server.closing.wait(manner.wait_seconds)
            if manner.drop:
                # Zero linger makes close() send a reset, as a crashed server's kernel does.
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.close_connection = True
                self.connection.close()
                return
            self.send_response(status)
            headers = {"content-type": "application/json", "content-length": str(len(body)), "connection": "close"}
            for name, value in {**headers, **extra}.items():
                self.send_header(name, value)  # "connection: close" also ends the handler's thread
            self.end_headers()
            if not manner.drip_seconds:
                self.wfile.write(body)
                return
            for at in range(len(body)):
                if server.closing.wait(manner.drip_seconds):
                    self.close_connection = True
                    return
                self.wfile.write(body[at : at + 1])

    return Handler
