"""The start-up probe: can this model see a whole long prompt, and can it call a tool?

A server that silently drops the beginning of a prompt, or answers tool calls in prose, makes an improver that looks
merely stupid. So one long prompt, with a marker at its very beginning, asks for one tool call that repeats the marker.
If that fails, the same question in a short prompt tells the two faults apart.

Not covered: how well the model uses what it sees, and prompts longer than the probe's.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from bellglass.errors import ModelFault
from bellglass.ports import CallBook, Model
from bellglass.records import CallKey, ChatMessage, ChatReply, ChatRequest, Cost, ToolSpec

PROBE_BYTES = 42_000  # about 10,000 tokens: over the 2,048 to 8,192 that local servers start with
TOOL = "repeat_marker"
OUTPUT_TOKENS = 2048  # room for a reasoning model to think first

_TOOLS = (
    ToolSpec(
        TOOL,
        "Repeat the marker that stands in the first line of the conversation.",
        {"type": "object", "properties": {"marker": {"type": "string"}}, "required": ["marker"]},
    ),
)


@dataclass(frozen=True, slots=True)
class ProbeReport:
    sees_all: bool | None  # None: could not be told
    calls_tools: bool
    advice: tuple[str, ...]  # what to change, one line each; empty when all is well
    cost: Cost
    provider_model: str

    @property
    def ok(self) -> bool:
        return bool(self.sees_all) and self.calls_tools


@dataclass(frozen=True, slots=True)
class _Answer:
    saw: bool
    called: bool
    cost: Cost
    provider_model: str = ""
    why: str = ""


def probe_request(marker: str, prompt_bytes: int = PROBE_BYTES) -> ChatRequest:
    """The question. Also what to pass to `Model.forecast` to say what the probe costs."""
    lines = [f"The marker is {marker} and will be asked for at the end."]
    size, number = len(lines[0]), 0
    while size < prompt_bytes:
        number += 1
        lines.append(f"Line {number}: this line is filler and means nothing; the marker is not in it.")
        size += len(lines[-1]) + 1
    lines.append(f"Now call the tool {TOOL} once, with the marker from the first line. Say nothing else.")
    return ChatRequest("main", (ChatMessage("user", "\n".join(lines)),), _TOOLS, OUTPUT_TOKENS)


class BookedModel:
    """A model whose calls are reserved before and settled after, outside any session: a probe's cost is spent too."""

    def __init__(self, model: Model, book: CallBook, *, first: int) -> None:
        self.name, self.hosted = model.name, model.hosted
        self._model, self._book, self._next = model, book, first

    def forecast(self, request: ChatRequest) -> Cost:
        return self._model.forecast(request)

    def chat(self, request: ChatRequest) -> ChatReply:
        key, self._next = CallKey(0, "probe", self._next), self._next + 1
        ask = self.forecast(request)
        prompt = "\n".join(message.text for message in request.messages)
        self._book.reserve(key, self.name, ask, prompt.encode())
        try:
            reply = self._model.chat(request)
        except ModelFault as fault:
            cost = (ask if fault.cost is None else fault.cost) if fault.billed else Cost()
            self._book.settle(key, cost, None, {"outcome": fault.code, "detail": fault.detail})
            raise
        self._book.settle(key, reply.cost, None, {"outcome": "ok", "provider_model": reply.provider_model})
        return reply


def probe(model: Model) -> ProbeReport:
    """One call when all is well, two when not. Raises ModelFault when the model cannot be used at all."""
    long = _ask(model, PROBE_BYTES)
    if long.saw and long.called:
        return ProbeReport(True, True, (), long.cost, long.provider_model)
    short = _ask(model, 0)
    cost = long.cost + short.cost
    calls_tools = long.called or short.called
    sees_all = long.saw if long.saw or short.saw else None
    advice = []
    if sees_all is False:
        advice.append(_context_advice(model.name))
    if not calls_tools:
        advice.append(_tools_advice(model.name, short.why))
    if not advice:
        advice.append("it calls the tool, but never with the marker, not even in a short prompt: take a larger model")
    return ProbeReport(sees_all, calls_tools, tuple(advice), cost, short.provider_model or long.provider_model)


def _ask(model: Model, prompt_bytes: int) -> _Answer:
    marker = f"marker-{secrets.token_hex(4)}"
    try:
        reply = model.chat(probe_request(marker, prompt_bytes))
    except ModelFault as fault:
        if fault.code not in ("context_overflow", "bad_request"):
            raise
        # Two honest ways to say no: the prompt is too long, or (Ollama) this model does not take tools.
        return _Answer(False, False, fault.cost or Cost(), why=fault.detail)
    called = any(call.name == TOOL for call in reply.calls)
    return _Answer(marker in _said(reply), called, reply.cost, reply.provider_model)


def _said(reply: ChatReply) -> str:
    return " ".join([reply.text, *(str(call.args) for call in reply.calls)])


def _context_advice(name: str) -> str:
    what = f"{name} does not see the beginning of a prompt of {PROBE_BYTES:,} bytes: its context is too small; "
    if name.startswith("ollama/"):
        return what + (
            "bellglass asks Ollama for a large num_ctx, so the model or its memory limits it: "
            "set OLLAMA_CONTEXT_LENGTH=32768 for `ollama serve`, or take a model with a longer context (`ollama show`)"
        )
    return what + (
        "raise the server's context length to 32768 (llama.cpp: -c 32768 with -np 1; vLLM: --max-model-len 32768; "
        "SGLang: --context-length 32768; LM Studio: Context Length)"
    )


def _tools_advice(name: str, why: str) -> str:
    what = f"{name} answers without calling the tool" + (f" ({why})" if why else "") + "; "
    if name.startswith("ollama/"):
        return what + "take a model that `ollama show` lists with the capability `tools`"
    return what + (
        "take a model trained for tools and turn them on in the server (llama.cpp: --jinja; "
        "vLLM: --enable-auto-tool-choice --tool-call-parser NAME; SGLang: --tool-call-parser NAME)"
    )
