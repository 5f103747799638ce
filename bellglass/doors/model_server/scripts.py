"""Scripted behaviours for `ModelServer`: the good ones, and the bad days of a provider that the door must survive."""

from __future__ import annotations

import json
from dataclasses import replace

from bellglass.doors.model_server.dialects import Fault
from bellglass.doors.model_server.http import Answer, Script
from bellglass.records import ChatMessage, ChatReply, ChatRequest, Cost, Json, ToolCall

USED = Cost(tokens_in=100, tokens_out=20, calls=1)


def says(text: str = "hello", *, cost: Cost = USED) -> Script:
    return lambda request, index: ChatReply(text, (), "end", cost=cost)


def calls(name: str = "write_file", args: Json = None, *, text: str = "", opaque: tuple[Json, ...] = ()) -> Script:
    """A tool call. `args` as a string is sent as it is: that is how malformed arguments are made."""
    call = ToolCall("call_1", name, {"path": "a.txt"} if args is None else args)
    return lambda request, index: ChatReply(text, (call,), "calls", opaque, USED)


def in_turn(*scripts: Script) -> Script:
    """The first request gets the first script, and so on; the last one serves all that follow."""
    return lambda request, index: scripts[min(index, len(scripts) - 1)](request, index)


def fails(status: int, code: str = "error", message: str = "scripted failure", **headers: str) -> Script:
    """`headers` in Python spelling: retry_after="1" is sent as retry-after."""
    fault = Fault(status, code, message, {name.replace("_", "-"): value for name, value in headers.items()})
    return lambda request, index: fault


def rate_limited(retry_after: str = "0") -> Script:
    return fails(429, "rate_limit_exceeded", "slow down", retry_after=retry_after)


def refuses_key(echo: str = "") -> Script:
    """Real providers repeat part of the key in this message; `echo` is what this one repeats."""
    return fails(401, "invalid_api_key", f"Incorrect API key provided: {echo}. Find your key in your account.")


def unknown_model() -> Script:
    return fails(404, "model_not_found", "The model does not exist or you do not have access to it.")


def context_overflow() -> Script:
    message = "This model's maximum context length is 4096 tokens. However, your messages resulted in 9000 tokens."
    return fails(400, "context_length_exceeded", message)


def server_error() -> Script:
    return fails(500, "server_error", "the server had an error")


def slow(seconds: float) -> Script:
    return lambda request, index: Answer(500, b"{}", wait_seconds=seconds)


def dead() -> Script:
    """Takes the request, then resets the connection: nobody knows whether it was billed."""
    return lambda request, index: Answer(drop=True)


def drips(seconds: float) -> Script:
    """One byte at a time: alive for every read time-out, and never done."""
    return lambda request, index: Answer(200, b" " * 100_000, drip_seconds=seconds)


def bills_garbage(*, usage: bool = True) -> Script:
    """A reply that is charged but has no usable message in it (OpenAI's dialect)."""
    body: dict[str, Json] = {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": []}
    if usage:
        body["usage"] = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}
    return lambda request, index: Answer(200, json.dumps(body).encode())


def not_json() -> Script:
    return lambda request, index: Answer(200, b"<html>a proxy's login page</html>")


def repeats_first_line(tool: str = "repeat_marker") -> Script:
    """A good server for the start-up probe: finds the marker in what it can see and calls the tool with it."""

    def script(request: ChatRequest, index: int) -> ChatReply:
        words = request.messages[0].text.split("\n", 1)[0].split()
        marker = next((word.strip(".") for word in words if word.startswith("marker-")), "marker-unseen")
        if not request.tools:
            return ChatReply(f"The marker is {marker}.", (), "end", cost=USED)
        return ChatReply("", (ToolCall("call_1", tool, {"marker": marker}),), "calls", cost=USED)

    return script


def truncates(keep_bytes: int, then: Script) -> Script:
    """A server with a small context that silently forgets the beginning, as local servers do."""

    def script(request: ChatRequest, index: int) -> ChatReply | Fault | Answer:
        room, kept = keep_bytes, list[ChatMessage]()
        for message in reversed(request.messages):
            tail = message.text[max(0, len(message.text) - room) :] if room > 0 else ""
            room -= len(tail)
            kept.append(replace(message, text=tail))
        return then(replace(request, messages=tuple(reversed(kept))), index)

    return script


def ignores_tools(then: Script) -> Script:
    """A server started without its tool parser: answers in prose whatever tools it was given."""
    return lambda request, index: then(replace(request, tools=()), index)


def refuses_tools(then: Script) -> Script:
    """Ollama's answer for a model whose template has no tools."""
    refusal = Fault(400, "invalid_request_error", "this model does not support tools")
    return lambda request, index: refusal if request.tools else then(request, index)
