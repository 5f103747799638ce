"""Doubles that several tests share. Those that a person could use outside of tests live in bellglass/doors."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from bellglass.errors import BoundReached
from bellglass.records import CallKey, ChatReply, ChatRequest, Cost, Json


@dataclass
class MemoryBook:
    """A CallBook in memory: keeps everything, forgets nothing, and can be given a bound in tokens."""

    max_tokens: int | None = None
    reserved: dict[CallKey, Cost] = field(default_factory=dict)  # open
    requests: dict[CallKey, bytes] = field(default_factory=dict)
    settled: dict[CallKey, tuple[Cost, bytes | None, Mapping[str, Json]]] = field(default_factory=dict)

    def recall(self, key: CallKey, request_sha: str) -> bytes | None:
        if key not in self.settled or hashlib.sha256(self.requests[key]).hexdigest() != request_sha:
            return None
        return self.settled[key][1]

    def reserve(self, key: CallKey, model: str, ask: Cost, request: bytes) -> None:
        assert key not in self.reserved
        total = sum((cost for cost in [*self.reserved.values(), self.spent, ask]), Cost())
        if self.max_tokens is not None and total.tokens_in + total.tokens_out > self.max_tokens:
            raise BoundReached("model tokens", "all used", "more")
        self.reserved[key], self.requests[key] = ask, request

    def settle(self, key: CallKey, cost: Cost, reply: bytes | None, facts: Mapping[str, Json]) -> None:
        del self.reserved[key]
        self.settled[key] = (cost, reply, facts)

    @property
    def spent(self) -> Cost:
        return sum((cost for cost, _reply, _facts in self.settled.values()), Cost())


@dataclass
class FakeModel:
    """A Model that answers with a function, and remembers what it was asked."""

    answer: Callable[[ChatRequest], ChatReply]
    name: str = "offline:fake"
    hosted: bool = False
    bound: Cost = field(default_factory=lambda: Cost(tokens_in=1000, tokens_out=500, calls=1, usd=0.5))
    asked: list[ChatRequest] = field(default_factory=list)

    def forecast(self, request: ChatRequest) -> Cost:
        return self.bound

    def chat(self, request: ChatRequest) -> ChatReply:
        self.asked.append(request)
        return self.answer(request)
