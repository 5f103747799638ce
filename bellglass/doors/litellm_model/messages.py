"""Our records as litellm's messages, and its replies as ours. Pure.

Opaque blocks keep the provider's own shape: "thinking" and "redacted_thinking" as Anthropic signs them,
"reasoning_items" as OpenAI's newer interface makes them, "reasoning_content" for servers that send plain text.
Whatever litellm calls them, they go back unchanged on the next request.
"""

from __future__ import annotations

import copy
import json
import re
from typing import Literal

from bellglass.records import ChatMessage, ChatReply, ChatRequest, Cost, Json, ToolCall

THINKING = ("thinking", "redacted_thinking")
NAMED = ("reasoning_items", "reasoning_content")


def outgoing(request: ChatRequest, *, strict_args: bool) -> tuple[list[Json], list[Json]]:
    """Messages and tools. `strict_args`: this provider takes a call's arguments as an object only, so what the model
    once wrote as broken JSON goes back wrapped."""
    tools = [
        {"type": "function", "function": {"name": t.name, "description": t.description, "parameters": t.parameters}}
        for t in request.tools
    ]
    said = [_message(m, strict_args) for m in request.messages]
    # A copy, because litellm edits what it is given, and the request is a record.
    return copy.deepcopy(said), copy.deepcopy(tools)


def _message(message: ChatMessage, strict_args: bool) -> Json:
    said: dict[str, Json] = {"role": message.role, "content": message.text}
    if message.role == "tool":
        said["tool_call_id"] = message.call_id
    if message.calls:
        said["tool_calls"] = [_call(call, strict_args) for call in message.calls]
        said["content"] = message.text or None
    thinking = [block for block in message.opaque if block.get("type") in THINKING]
    if thinking:
        said["thinking_blocks"] = thinking
    for block in message.opaque:
        if block.get("type") in NAMED:
            said[block["type"]] = block[block["type"]]
    return said


def _call(call: ToolCall, strict_args: bool) -> Json:
    if isinstance(call.args, str):
        arguments = json.dumps({"raw": call.args}) if strict_args else call.args
    else:
        arguments = json.dumps(call.args)
    # A model may have called a tool by a name that no provider accepts back.
    name = re.sub(r"[^A-Za-z0-9_-]", "_", call.name)[:64]
    return {"id": call.id, "type": "function", "function": {"name": name, "arguments": arguments}}


def incoming(response: Json, cost: Cost, sampling: dict[str, Json], body: bytes) -> ChatReply:
    """`response` is litellm's, as a plain dict; `body` the provider's own words. Raises KeyError, TypeError,
    IndexError or ValueError when it has no usable message."""
    choice = response["choices"][0]
    message = choice["message"]
    calls = tuple(_read_call(call, at) for at, call in enumerate(message.get("tool_calls") or ()))
    text = message.get("content") or (message.get("provider_specific_fields") or {}).get("refusal") or ""
    if not isinstance(text, str):
        raise TypeError("content that is no text")
    stop: Literal["end", "calls", "length"] = "calls" if calls else "end"
    if choice.get("finish_reason") == "length":
        stop = "length"
    return ChatReply(
        _legal(text), calls, stop, _opaque(message), cost, _model_in(body) or str(response.get("model") or ""), sampling
    )


def _read_call(call: Json, at: int) -> ToolCall:
    function = call["function"]
    name = function["name"]
    if not isinstance(name, str) or not name:
        raise ValueError("a tool call without a name")
    raw = function.get("arguments") or "{}"  # some servers send nothing for a tool without parameters
    args = raw
    if isinstance(raw, str):
        try:
            args = json.loads(raw)
        except (ValueError, RecursionError):
            args = raw
    if not isinstance(args, dict):  # broken JSON, or JSON that is no object: the scaffold gets it as it was written
        args = _legal(args if isinstance(args, str) else str(raw))
    return ToolCall(call.get("id") or f"call_{at}", name, args)


def _opaque(message: Json) -> tuple[Json, ...]:
    blocks: list[Json] = [b for b in message.get("thinking_blocks") or () if b.get("type") in THINKING]
    for name in NAMED:
        # litellm repeats the thinking blocks' text as reasoning_content; sent back too, it would be said twice
        if message.get(name) and not blocks:
            blocks.append({"type": name, name: message[name]})
    return tuple(json.loads(json.dumps(blocks)))


def _legal(text: str) -> str:
    """Without lone surrogates, which no JSON reader of ours accepts."""
    return text.encode("utf-8", "replace").decode()


def _model_in(body: bytes) -> str:
    """What the provider says it ran. litellm's word is sometimes only what was asked for."""
    try:
        model = json.loads(body)["model"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return ""
    return model if isinstance(model, str) else ""


def usage_of(body: bytes) -> tuple[int, int] | None:
    """Tokens in and out that a raw answer of any of the three dialects reports; None when it reports none."""
    try:
        answer = json.loads(body)
        usage = answer.get("usage") or answer
        found = [
            (usage[into], usage[out])
            for into, out in (
                ("prompt_tokens", "completion_tokens"),
                ("input_tokens", "output_tokens"),
                ("prompt_eval_count", "eval_count"),
            )
            if type(usage.get(into)) is int and type(usage.get(out)) is int
        ]
    except (ValueError, AttributeError, RecursionError):
        return None
    return found[0] if found else None
