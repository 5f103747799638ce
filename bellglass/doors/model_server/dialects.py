"""Four ways to say the same chat in JSON: OpenAI (old and new), Anthropic, Ollama. The server's side of each.

Reading is lenient (a double must accept what a client library sends); writing follows what the real servers send.
Opaque blocks are dictionaries with a "type": "reasoning_content" (OpenAI, Ollama), "reasoning_items" (OpenAI's newer
"responses"), "thinking" or "redacted_thinking" (Anthropic).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from bellglass.records import ChatMessage, ChatReply, ChatRequest, Json, ToolCall, ToolSpec


@dataclass(frozen=True, slots=True)
class Fault:
    """An error answer, said in the caller's dialect."""

    status: int
    code: str
    message: str
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Dialect:
    read: Callable[[Json], ChatRequest]
    write: Callable[[ChatRequest, ChatReply], Json]
    write_fault: Callable[[Fault], Json]


def of_path(path: str) -> Dialect | None:
    by_end = {
        "/chat/completions": Dialect(read_openai, write_openai, fault_openai),
        "/responses": Dialect(read_responses, write_responses, fault_openai),
        "/messages": Dialect(read_anthropic, write_anthropic, fault_anthropic),
        "/api/chat": Dialect(read_ollama, write_ollama, lambda fault: {"error": fault.message}),
    }
    plain = path.split("?")[0]
    return next((dialect for end, dialect in by_end.items() if plain.endswith(end)), None)


def _text(content: Json) -> str:
    if isinstance(content, list):
        return "".join(_text(part.get("text", part.get("content", ""))) for part in content)
    return content if isinstance(content, str) else ""


def _args(raw: Json) -> Json:
    if not isinstance(raw, str):
        return raw
    try:
        return json.loads(raw)
    except ValueError:
        return raw


def _raw(args: Json) -> str:
    return args if isinstance(args, str) else json.dumps(args)


def _tokens(request: ChatRequest, reply: ChatReply) -> tuple[int, int]:
    """What the reply says it cost, else a rough count: every real server reports some."""
    said = sum(len(message.text) for message in request.messages)
    return reply.cost.tokens_in or 1 + said // 4, reply.cost.tokens_out or 1 + len(reply.text) // 4


# --- OpenAI ---


def read_openai(body: Json) -> ChatRequest:
    tools = tuple(
        ToolSpec(t["function"]["name"], t["function"].get("description", ""), t["function"].get("parameters", {}))
        for t in body.get("tools") or ()
    )
    limit = body.get("max_completion_tokens") or body.get("max_tokens") or 4096
    return ChatRequest(body["model"], tuple(_openai_message(m) for m in body["messages"]), tools, limit)


def _openai_message(message: Json) -> ChatMessage:
    calls = tuple(
        ToolCall(c.get("id", ""), c["function"]["name"], _args(c["function"]["arguments"]))
        for c in message.get("tool_calls") or ()
    )
    thought = message.get("reasoning_content") or message.get("thinking")
    opaque = ({"type": "reasoning_content", "reasoning_content": thought},) if thought else ()
    role: Json = "system" if message["role"] == "developer" else message["role"]
    return ChatMessage(role, _text(message.get("content")), calls, message.get("tool_call_id") or "", opaque)


def write_openai(request: ChatRequest, reply: ChatReply) -> Json:
    message: dict[str, Json] = {"role": "assistant", "content": reply.text or None}
    if reply.calls:
        message["tool_calls"] = [
            {"id": c.id, "type": "function", "function": {"name": c.name, "arguments": _raw(c.args)}}
            for c in reply.calls
        ]
    thoughts = [b["reasoning_content"] for b in reply.opaque if isinstance(b, dict) and "reasoning_content" in b]
    if thoughts:
        message["reasoning_content"] = "".join(thoughts)
    tokens_in, tokens_out = _tokens(request, reply)
    return {
        "id": "chatcmpl-double",
        "object": "chat.completion",
        "created": 0,
        "model": reply.provider_model or request.model,
        "choices": [{"index": 0, "message": message, "finish_reason": _openai_stop(reply)}],
        "usage": {"prompt_tokens": tokens_in, "completion_tokens": tokens_out, "total_tokens": tokens_in + tokens_out},
    }


def _openai_stop(reply: ChatReply) -> str:
    return {"end": "stop", "calls": "tool_calls", "length": "length"}[reply.stop]


def fault_openai(fault: Fault) -> Json:
    return {"error": {"message": fault.message, "type": fault.code, "param": None, "code": fault.code}}


# --- OpenAI's newer "responses" ---


def read_responses(body: Json) -> ChatRequest:
    said = body["input"] if isinstance(body["input"], list) else [{"role": "user", "content": body["input"]}]
    messages = [ChatMessage("system", body["instructions"])] if body.get("instructions") else []
    messages += [_responses_item(item) for item in said]
    tools = tuple(ToolSpec(t["name"], t.get("description", ""), t["parameters"]) for t in body.get("tools") or ())
    return ChatRequest(body["model"], tuple(messages), tools, body.get("max_output_tokens") or 4096)


def _responses_item(item: Json) -> ChatMessage:
    """Here a call, its output and a reasoning block are items of their own, each a message of ours."""
    kind = item.get("type", "message")
    if kind == "function_call":
        return ChatMessage("assistant", "", (ToolCall(item["call_id"], item["name"], _args(item["arguments"])),))
    if kind == "function_call_output":
        return ChatMessage("tool", _text(item["output"]), call_id=item["call_id"])
    if kind == "reasoning":
        return ChatMessage("assistant", opaque=({"type": "reasoning_items", "reasoning_items": [item]},))
    return ChatMessage(item["role"], _text(item["content"]))


def write_responses(request: ChatRequest, reply: ChatReply) -> Json:
    output: list[Json] = []
    for block in reply.opaque:
        output += block.get("reasoning_items", ())
    if reply.text:
        content = [{"type": "output_text", "text": reply.text, "annotations": []}]
        output.append({"type": "message", "id": "m1", "role": "assistant", "status": "completed", "content": content})
    for call in reply.calls:
        said = {"call_id": call.id, "name": call.name, "arguments": _raw(call.args), "status": "completed"}
        output.append({"type": "function_call", "id": f"fc_{call.id}", **said})
    tokens_in, tokens_out = _tokens(request, reply)
    cut = reply.stop == "length"
    return {
        "id": "resp_double",
        "object": "response",
        "created_at": 0,
        "model": reply.provider_model or request.model,
        "status": "incomplete" if cut else "completed",
        "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
        "error": None,
        "instructions": None,
        "metadata": {},
        "output": output,
        "parallel_tool_calls": True,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "usage": {
            "input_tokens": tokens_in,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": tokens_out,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": tokens_in + tokens_out,
        },
    }


# --- Anthropic ---


def read_anthropic(body: Json) -> ChatRequest:
    messages: list[ChatMessage] = []
    if body.get("system"):
        messages.append(ChatMessage("system", _text(body["system"])))
    for message in body["messages"]:
        messages.extend(_anthropic_messages(message))
    tools = tuple(
        ToolSpec(t["name"], t.get("description", ""), t.get("input_schema", {})) for t in body.get("tools") or ()
    )
    return ChatRequest(body["model"], tuple(messages), tools, body["max_tokens"])


def _anthropic_messages(message: Json) -> list[ChatMessage]:
    """One message of theirs holds several of ours: every tool result is a message of its own."""
    if isinstance(message["content"], str):
        return [ChatMessage(message["role"], message["content"])]
    parts = message["content"]
    found = [
        ChatMessage("tool", _text(p.get("content")), call_id=p["tool_use_id"])
        for p in parts
        if p["type"] == "tool_result"
    ]
    text = "".join(p["text"] for p in parts if p["type"] == "text")
    calls = tuple(ToolCall(p["id"], p["name"], p["input"]) for p in parts if p["type"] == "tool_use")
    opaque = tuple(p for p in parts if p["type"] in ("thinking", "redacted_thinking"))
    if text or calls or opaque or not found:
        found.append(ChatMessage(message["role"], text, calls, opaque=opaque))
    return found


def write_anthropic(request: ChatRequest, reply: ChatReply) -> Json:
    content: list[Json] = [b for b in reply.opaque if b.get("type") in ("thinking", "redacted_thinking")]
    if reply.text:
        content.append({"type": "text", "text": reply.text})
    content += [{"type": "tool_use", "id": c.id, "name": c.name, "input": c.args} for c in reply.calls]
    tokens_in, tokens_out = _tokens(request, reply)
    return {
        "id": "msg_double",
        "type": "message",
        "role": "assistant",
        "model": reply.provider_model or request.model,
        "content": content,
        "stop_reason": {"end": "end_turn", "calls": "tool_use", "length": "max_tokens"}[reply.stop],
        "stop_sequence": None,
        "usage": {"input_tokens": tokens_in, "output_tokens": tokens_out},
    }


def fault_anthropic(fault: Fault) -> Json:
    return {"type": "error", "error": {"type": fault.code, "message": fault.message}}


# --- Ollama ---


def read_ollama(body: Json) -> ChatRequest:
    options = body.get("options") or {}
    request = read_openai({**body, "messages": [_named(m) for m in body["messages"]]})
    return ChatRequest(request.model, request.messages, request.tools, options.get("num_predict", 128))


def _named(message: Json) -> Json:
    """Ollama's tool calls have no id and their arguments are objects; tool results name nobody."""
    calls = [
        {"id": c.get("id", ""), "function": {"name": c["function"]["name"], "arguments": c["function"]["arguments"]}}
        for c in message.get("tool_calls") or ()
    ]
    return {**message, "tool_calls": calls}


def write_ollama(request: ChatRequest, reply: ChatReply) -> Json:
    message: dict[str, Json] = {"role": "assistant", "content": reply.text}
    if reply.calls:
        message["tool_calls"] = [{"function": {"name": c.name, "arguments": c.args}} for c in reply.calls]
    thoughts = [b["reasoning_content"] for b in reply.opaque if isinstance(b, dict) and "reasoning_content" in b]
    if thoughts:
        message["thinking"] = "".join(thoughts)
    tokens_in, tokens_out = _tokens(request, reply)
    return {
        "model": reply.provider_model or request.model,
        "created_at": "2025-01-01T00:00:00Z",
        "message": message,
        "done": True,
        "done_reason": "length" if reply.stop == "length" else "stop",
        "prompt_eval_count": tokens_in,
        "eval_count": tokens_out,
    }
