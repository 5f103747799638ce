"""The only way from a guest to a model: a strict reading, a new request, a booked call, a recorded reply.

A guest's JSON is never forwarded. It is read under a closed schema, and a new ChatRequest is built from what was read:
there is no field for a URL, a header, a file or a provider's option, and models go by the names of the loop's list.
Opaque blocks (a provider's reasoning) come back only if a reply of the same session handed them out, bit for bit: a
forged one could make a provider fetch a URL. Money is reserved before a call and settled after it, also when it fails.

Not covered: what the text says. A guest may write anything into a message, and the provider's operator can read it.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Callable, Mapping
from typing import NoReturn

from bellglass import strict_json
from bellglass.errors import GuestFault, ModelFault
from bellglass.ports import CallBook, Model
from bellglass.records import CallKey, ChatMessage, ChatReply, ChatRequest, Cost, Json, ToolCall, ToolSpec

MAX_BODY = 2**20  # bytes; the wire's largest body, so a reply must fit it too
MAX_MESSAGES = 2000
MAX_TOOLS = 64
MAX_CALLS = 64  # per message
MAX_OPAQUE = 64  # blocks per message
MAX_NAME = 256  # of a called tool: the model's word, so not held to a pattern; a declared one is
MAX_DESCRIPTION = 16 * 1024
MAX_DEPTH = 32
MAX_OUTPUT_TOKENS = 32_768
DEFAULT_OUTPUT_TOKENS = 4096
TOOL_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
ROLES = ("system", "user", "assistant", "tool")


class NoBook:
    """ports.CallBook for calls that cost nothing and decide nothing: none is booked."""

    def recall(self, key: CallKey, request_sha: str) -> bytes | None:
        return None

    def reserve(self, key: CallKey, model: str, ask: Cost, request: bytes) -> None:
        pass

    def settle(self, key: CallKey, cost: Cost, reply: bytes | None, facts: Mapping[str, Json]) -> None:
        pass


class Gateway:
    def __init__(self, models: Mapping[str, Model], book: CallBook) -> None:
        self._models, self._book = models, book
        self._issued: dict[tuple[int, str], set[str]] = {}  # session -> digests of the opaque blocks it was given
        self._lock = threading.Lock()

    def chat(self, body: bytes, key: CallKey) -> bytes:
        """Raises GuestFault("refused") for a breach of the schema, BoundReached, or the model's ModelFault."""
        issued = self._issued_to(key)
        request = read_request(body, self._models, lambda block: _digest(block) in issued)
        model = self._models[request.model]
        canonical = _json({"runs": model.name, **_request_json(request)})
        recorded = self._book.recall(key, hashlib.sha256(canonical).hexdigest())
        if recorded is not None:
            issued.update(_digest(block) for block in json.loads(recorded)["opaque"])
            return recorded
        ask = model.forecast(request)
        self._book.reserve(key, request.model, ask, canonical)
        reply, recorded = self._call(model, request, key, ask)
        issued.update(_digest(block) for block in reply.opaque)
        return recorded

    def _call(self, model: Model, request: ChatRequest, key: CallKey, ask: Cost) -> tuple[ChatReply, bytes]:
        facts: dict[str, Json] = {"provider": model.name}
        try:
            reply = model.chat(request)
            recorded = _write_reply(reply)
        except ModelFault as fault:
            cost = (ask if fault.cost is None else fault.cost) if fault.billed else Cost()
            self._book.settle(key, cost, None, {**facts, "outcome": fault.code, "detail": fault.detail})
            raise
        except BaseException:  # boundary: a bug in a door, or Ctrl-C, must not leave a reservation open; nobody knows
            self._book.settle(key, ask, None, {**facts, "outcome": "unknown"})
            raise
        facts |= {"outcome": "ok", "provider_model": reply.provider_model, "stop": reply.stop}
        self._book.settle(key, reply.cost, recorded, {**facts, "sampling": dict(reply.sampling)})
        return reply, recorded

    def _issued_to(self, key: CallKey) -> set[str]:
        """What this session was given. Earlier generations' sessions are over, so theirs is forgotten."""
        with self._lock:
            for old in [session for session in self._issued if session[0] < key.generation]:
                del self._issued[old]
            return self._issued.setdefault((key.generation, key.session), set())


# Reading: every function takes foreign JSON and returns a record or refuses.


def read_request(body: bytes, models: Mapping[str, object], issued: Callable[[Json], bool]) -> ChatRequest:
    """The guest's JSON as a new request. `issued` says whether an opaque block is one that a reply handed out."""
    if len(body) > MAX_BODY:
        _refuse(f"a conversation over {MAX_BODY} bytes")
    fields = _object(_parse(body), "the request", ("model", "messages", "tools", "max_tokens"), ("model", "messages"))
    name = _string(fields["model"], "model", 100)
    if name not in models:
        _refuse("a model that is not of the loop's list")
    limit = fields.get("max_tokens", DEFAULT_OUTPUT_TOKENS)
    if type(limit) is not int or not 1 <= limit <= MAX_OUTPUT_TOKENS:
        _refuse(f"max_tokens outside 1..{MAX_OUTPUT_TOKENS}")
    messages = tuple(_message(m, issued) for m in _list(fields["messages"], "messages", MAX_MESSAGES))
    if not messages:
        _refuse("no messages")
    tools = tuple(_tool(t) for t in _list(fields.get("tools", []), "tools", MAX_TOOLS))
    if len({tool.name for tool in tools}) < len(tools):
        _refuse("two tools of one name")
    return ChatRequest(name, messages, tools, limit)


def _message(value: Json, issued: Callable[[Json], bool]) -> ChatMessage:
    fields = _object(value, "a message", ("role", "text", "calls", "call_id", "opaque"), ("role",))
    role = fields["role"]
    if role not in ROLES:
        _refuse("a role other than system, user, assistant, tool")
    calls = tuple(_call(c) for c in _list(fields.get("calls", []), "calls", MAX_CALLS))
    opaque = tuple(_list(fields.get("opaque", []), "opaque", MAX_OPAQUE))
    call_id = _string(fields.get("call_id", ""), "call_id", MAX_NAME)
    if (calls or opaque) and role != "assistant":
        _refuse("calls or opaque blocks outside an assistant's message")
    if bool(call_id) != (role == "tool"):
        _refuse("call_id belongs to tool messages, and only there")
    if not all(issued(block) for block in opaque):
        _refuse("an opaque block that no reply of this session handed out")
    return ChatMessage(role, _string(fields.get("text", ""), "text", MAX_BODY), calls, call_id, opaque)


def _call(value: Json) -> ToolCall:
    fields = _object(value, "a call", ("id", "name", "args"), ("id", "name", "args"))
    args = fields["args"]
    if not isinstance(args, (dict, str)):
        _refuse("a call's args that are neither an object nor a string")
    return ToolCall(_string(fields["id"], "id", MAX_NAME, 1), _string(fields["name"], "name", MAX_NAME, 1), args)


def _tool(value: Json) -> ToolSpec:
    fields = _object(value, "a tool", ("name", "description", "parameters"), ("name",))
    name = fields["name"]
    if not isinstance(name, str) or not TOOL_NAME.fullmatch(name):
        _refuse("a tool's name outside [A-Za-z0-9_-]{1,64}")
    parameters = fields.get("parameters", {"type": "object", "properties": {}})
    if not isinstance(parameters, dict):
        _refuse("a tool's parameters that are no object")
    if _refers_outside(parameters):
        _refuse("a tool's parameters that refer to another document")
    return ToolSpec(name, _string(fields.get("description", ""), "description", MAX_DESCRIPTION), parameters)


def _refers_outside(schema: Json) -> bool:
    """A JSON schema can name another by URL, and some servers would fetch it."""
    if isinstance(schema, list):
        return any(_refers_outside(part) for part in schema)
    if not isinstance(schema, dict):
        return False
    for key, value in schema.items():
        outside = isinstance(value, str) and not value.startswith("#")
        if (key in ("$ref", "$dynamicRef", "$recursiveRef", "$id") and outside) or _refers_outside(value):
            return True
    return False


def _parse(body: bytes) -> Json:
    try:
        value = strict_json.loads(body)
    except ValueError:
        _refuse("a body that is not strict JSON")
    if _depth_over(value, MAX_DEPTH):
        _refuse(f"JSON nested deeper than {MAX_DEPTH}")
    return value


def _depth_over(value: Json, limit: int) -> bool:
    if not isinstance(value, (dict, list)):
        return False
    parts = value.values() if isinstance(value, dict) else value
    return limit == 0 or any(_depth_over(part, limit - 1) for part in parts)


def _object(value: Json, what: str, allowed: tuple[str, ...], required: tuple[str, ...]) -> dict[str, Json]:
    if not isinstance(value, dict):
        _refuse(f"{what} that is no object")
    if not set(value) <= set(allowed):
        _refuse(f"{what} with a key outside {', '.join(allowed)}")  # the key itself is the guest's text: not repeated
    if not set(required) <= set(value):
        _refuse(f"{what} without {', '.join(required)}")
    return value


def _list(value: Json, what: str, longest: int) -> list[Json]:
    if not isinstance(value, list) or len(value) > longest:
        _refuse(f"{what} that are no list of at most {longest}")
    return value


def _string(value: Json, what: str, longest: int, shortest: int = 0) -> str:
    if not isinstance(value, str) or not shortest <= len(value) <= longest:
        _refuse(f"{what} that is no text of {shortest} to {longest} characters")
    return value


def _refuse(detail: str) -> NoReturn:
    raise GuestFault("refused", f"chat: {detail}")


# Writing


def _json(value: Json) -> bytes:
    """The one canonical form: what is hashed, recorded and sent to the guest."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def _digest(block: Json) -> str:
    return hashlib.sha256(_json(block)).hexdigest()


def _calls_json(calls: tuple[ToolCall, ...]) -> list[Json]:
    return [{"id": call.id, "name": call.name, "args": call.args} for call in calls]


def _request_json(request: ChatRequest) -> dict[str, Json]:
    return {
        "model": request.model,
        "messages": [
            {"role": m.role, "text": m.text, "calls": _calls_json(m.calls), "call_id": m.call_id, "opaque": [*m.opaque]}
            for m in request.messages
        ],
        "tools": [{"name": t.name, "description": t.description, "parameters": t.parameters} for t in request.tools],
        "max_tokens": request.max_tokens,
    }


def _write_reply(reply: ChatReply) -> bytes:
    """The guest's reply body. A reply that the guest could not send back as history is no use to it: unparsable."""
    said = {"text": reply.text, "calls": _calls_json(reply.calls), "opaque": [*reply.opaque]}
    try:
        body = _json({**said, "stop": reply.stop})
        if len(body) > MAX_BODY:
            _refuse("a reply over the wire's largest body")
        _message({"role": "assistant", **_parse(_json(said))}, lambda block: True)
    except (GuestFault, ValueError, TypeError) as error:
        detail = error.detail if isinstance(error, GuestFault) else type(error).__name__
        raise ModelFault("unparsable", f"the reply has {detail}", billed=True, cost=reply.cost) from None
    return body
