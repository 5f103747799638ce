"""What the tests of the litellm door share: a recognisable key, a request, and the door pointed at the double."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest

from bellglass.doors.litellm_model import LitellmModel
from bellglass.doors.model_server import ModelServer, Script
from bellglass.errors import ModelFault
from bellglass.forecast import Price
from bellglass.records import ChatMessage, ChatReply, ChatRequest, Json, ToolSpec

needs_litellm = pytest.mark.skipif(
    importlib.util.find_spec("litellm") is None, reason="needs the litellm extra: pip install 'bellglass[litellm]'"
)

KEY = "sk-RECOGNISABLE-0123456789abcdef"
PROMPT = "the-word-that-no-log-may-hold"
PRICE = Price(1.0, 2.0)
TOOLS = (ToolSpec("write_file", "Write a file.", {"type": "object", "properties": {"path": {"type": "string"}}}),)
REQUEST = ChatRequest("main", (ChatMessage("system", "Be brief."), ChatMessage("user", PROMPT)), TOOLS, 100)
THOUGHT = {"type": "thinking", "thinking": "hmm", "signature": "s1g"}
REASONING = {
    "type": "reasoning",
    "id": "rs_1",
    "encrypted_content": "x",
    "summary": [{"type": "summary_text", "text": "h"}],
}
OPAQUE: dict[str, Json] = {
    "openai/foo": {"type": "reasoning_content", "reasoning_content": "hmm"},
    "openai/responses/foo": {"type": "reasoning_items", "reasoning_items": [REASONING]},
    "anthropic/claude-sonnet-4-5": THOUGHT,
    "ollama/llama3": {"type": "reasoning_content", "reasoning_content": "hmm"},
}
EVERY = list(OPAQUE)
CLOUD = "anthropic/claude-sonnet-4-5"


def environ(server: ModelServer) -> dict[str, str]:
    return {
        "OPENAI_BASE_URL": server.openai_base,
        "OPENAI_API_KEY": KEY,
        "ANTHROPIC_BASE_URL": server.url,
        "ANTHROPIC_API_KEY": KEY,
        "OLLAMA_HOST": server.url.removeprefix("http://"),
    }


def door(server: ModelServer, name: str = "openai/foo", **options: Any) -> LitellmModel:
    options = {"price": PRICE, "attempt_seconds": 20.0, "backoff_seconds": 0.01, **options}
    return LitellmModel(name, environ=environ(server), **options)


def ask(script: Script, name: str = "openai/foo", request: ChatRequest = REQUEST, **options: Any) -> ChatReply:
    with ModelServer(script) as server:
        reply = door(server, name, **options).chat(request)
        assert not server.faults
        return reply


def fault_of(script: Script, name: str = "openai/foo", **options: Any) -> tuple[ModelFault, int]:
    """The fault, and how many attempts reached the server."""
    with ModelServer(script) as server:
        with pytest.raises(ModelFault) as caught:
            door(server, name, **options).chat(REQUEST)
        assert not server.faults
        return caught.value, len(server.asked)
