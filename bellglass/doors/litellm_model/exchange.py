"""What really went over HTTP in one attempt, and what a failure therefore means.

Client libraries turn a dropped connection into "internal server error" and a garbled reply into an IndexError. So the
door watches its own HTTP client: whether a request left, which status came back, and the bytes. From that, and only
then from the library's exception, comes the fault, and whether somebody may have been charged.

Not covered: a request that a later litellm might send through a client of its own. There the exception's status is
all there is, and only its time-outs bound the wait.
"""

from __future__ import annotations

import contextlib
import functools
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from bellglass.doors.litellm_model.provider import Endpoint
from bellglass.errors import ModelFault
from bellglass.records import Json

MAX_REPLY = 16 * 2**20  # bytes of one answer
NOTHING_SENT = ("ConnectError", "ConnectTimeout", "PoolTimeout", "ProxyError", "UnsupportedProtocol", "InvalidURL")
OVERFLOW = (
    "context_length_exceeded",
    "maximum context length",
    "context window",
    "context size",
    "context length",
    "prompt is too long",
    "too many tokens",
)


@dataclass(slots=True)
class Exchange:
    """One attempt. Filled in by the hooks of the HTTP client on the calling thread."""

    seconds: float
    deadline: float = 0.0  # time.monotonic(); set as the request leaves
    sent: bool = False
    status: int | None = None
    retry_after: float | None = None
    body: bytes = field(default=b"", repr=False)
    complete: bool = False


@dataclass(frozen=True, slots=True)
class Failure:
    fault: ModelFault
    retry: bool
    wait: float | None = None  # what the server asked for


class Watch:
    """Makes an HTTP client that reports to the current thread's Exchange."""

    def __init__(self) -> None:
        self._local = threading.local()

    @contextlib.contextmanager
    def attempt(self, seconds: float) -> Iterator[Exchange]:
        exchange = Exchange(seconds)
        self._local.exchange = exchange
        try:
            yield exchange
        finally:
            self._local.exchange = None

    def client(self) -> Any:
        import httpx

        class Bounded(httpx.SyncByteStream):
            """A read time-out never fires on a server that drips bytes, so the whole body has a deadline and a size."""

            def __init__(self, inner: Any, exchange: Exchange) -> None:
                self._inner, self._exchange, self._size = inner, exchange, 0

            def __iter__(self) -> Iterator[bytes]:
                for part in self._inner:
                    self._size += len(part)
                    if time.monotonic() > self._exchange.deadline:
                        raise httpx.ReadTimeout("the reply did not end in time")
                    if self._size > MAX_REPLY:
                        raise httpx.ReadError("the reply is too large")
                    yield part

            def close(self) -> None:
                self._inner.close()

        def on_request(request: Any) -> None:
            exchange: Exchange = self._local.exchange
            exchange.sent, exchange.deadline = True, time.monotonic() + exchange.seconds

        def on_response(response: Any) -> None:
            exchange: Exchange = self._local.exchange
            exchange.status = response.status_code
            exchange.retry_after = _seconds(response.headers.get("retry-after", ""))
            response.stream = Bounded(response.stream, exchange)
            response.read()
            exchange.body, exchange.complete = response.content, True

        hooks: dict[str, list[Callable[..., Any]]] = {"request": [on_request], "response": [on_response]}
        # No redirects: one to another host would carry the key there.
        return httpx.Client(verify=_certificates(), event_hooks=hooks, follow_redirects=False)


@functools.cache
def _certificates() -> Any:
    """Reading the list of authorities takes longer than a call on the loopback."""
    import httpx

    return httpx.create_ssl_context()


def _seconds(header: str) -> float | None:
    try:
        return max(0.0, min(float(header), 3600.0))
    except ValueError:
        return None  # an HTTP date: rare, and our own backoff does instead


def failure_of(error: Exception, exchange: Exchange, endpoint: Endpoint) -> Failure:
    """One of MODEL_FAULTS for anything that litellm can raise."""
    where = f"{endpoint.name} at {endpoint.address}"
    if exchange.status is None and exchange.sent:
        return _no_answer(error, where)
    if exchange.status is not None and not exchange.complete:
        return Failure(ModelFault("unreachable", f"{where}: the reply broke off", billed=True), retry=True)
    if exchange.status is not None and 200 <= exchange.status < 300:
        return Failure(ModelFault("unparsable", f"{where} answered with no usable message", billed=True), retry=False)
    status = exchange.status or _status_of(error)
    if status is None:
        kind = type(error).__name__
        return Failure(ModelFault("bad_request", f"{where}: the client library failed ({kind})"), retry=False)
    return _by_status(status, error, exchange, endpoint)


def _status_of(error: Exception) -> int | None:
    """Of an error that no exchange explains. A made-up 500 is how litellm reports whatever broke in itself."""
    status = getattr(error, "status_code", None)
    return status if type(status) is int and 400 <= status < 500 else None


def _no_answer(error: Exception, where: str) -> Failure:
    names = {type(link).__name__ for link in _chain(error)}
    if names & set(NOTHING_SENT):
        return Failure(ModelFault("unreachable", f"{where}: no connection"), retry=True)
    slow = any("Timeout" in name for name in names)
    detail = f"{where}: no answer in time" if slow else f"{where}: the connection was dropped"
    # The request left. Whether it was served and charged, nobody here can know.
    return Failure(ModelFault("unreachable", detail, billed=True), retry=True)


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: list[BaseException | None] = [error]
    for link in seen:
        if link is not None and len(seen) < 50:
            yield link
            seen += [e for e in (link.__cause__, link.__context__) if e is not None and e not in seen]


def _by_status(status: int, error: Exception, exchange: Exchange, endpoint: Endpoint) -> Failure:
    where = f"{endpoint.name} at {endpoint.address}: HTTP {status}"
    said = _message_in(exchange.body) or str(error)
    low = said.lower()
    if status in (401, 403):
        return Failure(ModelFault("refused_key", where), retry=False)
    if status == 429:
        used_up = "insufficient_quota" in low or ("quota" in low and "exceeded" in low)
        detail = f"{where}, the account's quota is used up" if used_up else where
        return Failure(ModelFault("rate_limited", detail), retry=not used_up, wait=exchange.retry_after)
    if status in (408, 409, 425) or status >= 500:
        return Failure(ModelFault("server", where), retry=status != 501, wait=exchange.retry_after)
    if status in (400, 413, 422) and (status == 413 or any(phrase in low for phrase in OVERFLOW)):
        return Failure(ModelFault("context_overflow", where), retry=False)
    if status == 404:
        return Failure(
            ModelFault("unknown_model", f"{where}; ollama pull {endpoint.model}?" if _is_ollama(endpoint) else where),
            retry=False,
        )
    if 300 <= status < 400:
        return Failure(ModelFault("server", f"{where}, a redirect that is not followed"), retry=False)
    return Failure(ModelFault("bad_request", f"{where}: {endpoint.clean(said)}"), retry=False)


def _is_ollama(endpoint: Endpoint) -> bool:
    return endpoint.provider == "ollama"


def _message_in(body: bytes) -> str:
    """The provider's own words in an error body, with its code: {"error": {"message", "code"}} or {"error": "…"}."""
    try:
        error: Json = json.loads(body)["error"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return body[:2000].decode("utf-8", "replace")
    if isinstance(error, dict):
        return " ".join(str(error[key]) for key in ("message", "code") if error.get(key))
    return str(error)
