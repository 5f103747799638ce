"""The door: one chat call in bounded time, honestly charged.

Upper bounds come from bytes: a token is at least one byte, so no tokenizer of any model can need more tokens than the
request has bytes. An attempt that left and was never answered may have been charged, so it is: a call is reserved for
two such attempts, and a second one is the last.

Not covered: discounts that a provider gives later, and charges for things that this door never asks for.
"""

from __future__ import annotations

import json
import os
import random
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from bellglass.doors.litellm_model import library, messages
from bellglass.doors.litellm_model.exchange import Exchange, Failure, Watch, failure_of
from bellglass.doors.litellm_model.provider import PROVIDERS, Endpoint, resolve
from bellglass.errors import ModelFault, SetupError, UsageError
from bellglass.forecast import Price
from bellglass.records import ChatReply, ChatRequest, Cost, Json
from bellglass.store.driver_log import LOG

ATTEMPTS = 6
UNANSWERED_ATTEMPTS = 2  # how many may have been charged without a reply
PER_MESSAGE_TOKENS = 16  # what a provider's template adds around each message
PER_REQUEST_TOKENS = 1024  # and its own words about how to call tools
BYTES_PER_TOKEN = 3  # a guess at code and prose, only to refuse what Ollama would silently truncate


class LitellmModel:
    hosted = True  # a local server's model writes the same kind of code: it too needs a sealed glass

    def __init__(
        self,
        name: str,
        free: bool = False,
        *,
        price: Price | None = None,
        num_ctx: int = 32_768,
        attempt_seconds: float = 300.0,
        total_seconds: float = 600.0,
        backoff_seconds: float = 1.0,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        """UsageError or SetupError here, before anything is spent; nothing heavy is imported yet.

        `free` and `price` are a person's word: a model on their own machine, or a price that the list does not have.
        """
        library.check_installed()  # before a key is asked for
        self._endpoint = resolve(name, environ)
        if free and self._endpoint.is_default and self._endpoint.provider != "ollama":
            raise UsageError(
                f"the model {name}",
                "declared free",
                "free only for a server of your own",
                "--budget-usd",
                code="model_not_free",
            )
        self.name = name
        self._declared = Price(0.0, 0.0) if free else price
        self._num_ctx, self._attempt_seconds, self._total_seconds = num_ctx, attempt_seconds, total_seconds
        self._backoff_seconds = backoff_seconds
        self._watch = Watch()
        self._clients: dict[bool, Any] = {}
        self._lock = threading.Lock()

    @property
    def price(self) -> Price | None:
        """None: unknown. The local list speaks of the provider's own address only, and a 0 in it means "not known"."""
        if self._declared is not None or not self._endpoint.is_default:
            return self._declared
        return _listed_price(library.load().model_cost, self._endpoint)

    def forecast(self, request: ChatRequest) -> Cost:
        once = self._most(request)
        return replace(_times(once, UNANSWERED_ATTEMPTS), calls=1)

    def reachable(self) -> None:
        """SetupError when nothing answers at the address. Sends no key and no prompt."""
        endpoint = self._endpoint
        try:
            urllib.request.urlopen(endpoint.probe_url, timeout=10).close()
        except urllib.error.HTTPError as answered:  # it wants a key: it is there
            answered.close()
        except (OSError, ValueError) as error:
            found = f"no answer ({type(getattr(error, 'reason', error)).__name__})"
            variables = PROVIDERS[endpoint.provider].base_variables
            start = "ollama serve" if endpoint.provider == "ollama" else f"start the server, or check {variables[0]}"
            raise SetupError(
                f"the model server at {endpoint.address}", found, "a running server", start, code="model_server_silent"
            ) from None

    def chat(self, request: ChatRequest) -> ChatReply:
        once = self._most(request)
        self._refuse_silent_truncation(request, once)
        end = time.monotonic() + self._total_seconds
        unanswered = 0
        for attempt in range(1, ATTEMPTS + 1):
            outcome = self._attempt(request, once, min(self._attempt_seconds, end - time.monotonic()))
            if isinstance(outcome, ChatReply):
                return replace(outcome, cost=outcome.cost + _times(once, unanswered))
            fault = outcome.fault
            if fault.billed and fault.cost is None:
                unanswered += 1
            wait = self._wait(attempt) if outcome.wait is None else outcome.wait
            over = time.monotonic() + wait >= end or attempt == ATTEMPTS or unanswered >= UNANSWERED_ATTEMPTS
            if over or not outcome.retry:
                break
            LOG.info("model call: attempt %d failed (%s), again in %.1f s", attempt, fault.code, wait)
            time.sleep(wait)
        known = fault.cost or Cost()
        charged = known + _times(once, unanswered)
        # Raised here, outside any handler: no client library's exception (it holds headers) hangs on to this one.
        billed = charged != Cost()
        raise ModelFault(fault.code, fault.detail, billed=billed, cost=replace(charged, calls=1) if billed else Cost())

    def _wait(self, attempt: int) -> float:
        """Doubling, with jitter, so that two loops that failed together don't come back together."""
        return min(30.0, self._backoff_seconds * 2.0 ** (attempt - 1)) * random.uniform(0.5, 1.0)

    def _attempt(self, request: ChatRequest, once: Cost, seconds: float) -> ChatReply | Failure:
        endpoint = self._endpoint
        said, tools = messages.outgoing(request, strict_args=endpoint.provider != "openai")
        sampling: dict[str, Json] = {"max_tokens": request.max_tokens}
        if endpoint.provider == "ollama":
            sampling["num_ctx"] = self._num_ctx  # at its default, a few thousand tokens, Ollama drops the beginning
        with self._watch.attempt(seconds) as exchange:
            try:
                client = self._client(tools)
                answer = library.complete(
                    model=endpoint.route_model,
                    messages=said,
                    tools=tools or None,
                    api_base=endpoint.base,
                    api_key=endpoint.key,
                    client=client,
                    timeout=library.timeout(seconds),
                    num_retries=0,
                    max_retries=0,
                    **sampling,
                )
                response = answer.model_dump()
                cost = self._cost(response.get("usage") or {}, once)
                return messages.incoming(response, cost, sampling, exchange.body)
            except Exception as error:  # boundary: litellm raises its own, openai's, httpx's and plain Python errors
                return self._charged(failure_of(error, exchange, endpoint), exchange)

    def _charged(self, failure: Failure, exchange: Exchange) -> Failure:
        """An unusable reply that says how many tokens it took is charged for those."""
        used = messages.usage_of(exchange.body) if failure.fault.code == "unparsable" else None
        if used is None:
            return failure
        cost = Cost(tokens_in=used[0], tokens_out=used[1], calls=1, usd=self._usd(*used))
        return replace(failure, fault=ModelFault("unparsable", failure.fault.detail, billed=True, cost=cost))

    def _client(self, tools: list[Json]) -> Any:
        endpoint = self._endpoint
        kind = library.wants_openai_client(endpoint.route_model, endpoint.base, tools)
        with self._lock:
            if kind not in self._clients:
                http_client = self._watch.client()
                self._clients[kind] = library.client_for(kind, endpoint.base, endpoint.key, http_client)
            return self._clients[kind]

    def _most(self, request: ChatRequest) -> Cost:
        """The most that one served attempt can cost."""
        tokens_in = _bytes(request) + PER_MESSAGE_TOKENS * len(request.messages) + PER_REQUEST_TOKENS
        return Cost(tokens_in=tokens_in, tokens_out=request.max_tokens, usd=self._usd(tokens_in, request.max_tokens))

    def _cost(self, usage: Mapping[str, Json], once: Cost) -> Cost:
        tokens_in, tokens_out = usage.get("prompt_tokens") or 0, usage.get("completion_tokens") or 0
        if not tokens_in:  # a server that reports nothing: charge what it could have been
            return replace(once, calls=1)
        cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
        return Cost(tokens_in=tokens_in, tokens_out=tokens_out, calls=1, usd=self._usd(tokens_in, tokens_out, cached))

    def _usd(self, tokens_in: int, tokens_out: int, cached_in: int = 0) -> float | None:
        price = self.price
        return None if price is None else price.of(tokens_in, tokens_out, cached_in)

    def _refuse_silent_truncation(self, request: ChatRequest, once: Cost) -> None:
        if self._endpoint.provider != "ollama":
            return
        needed = _bytes(request) // BYTES_PER_TOKEN + request.max_tokens
        if needed > self._num_ctx:
            detail = f"about {needed} tokens with the reply, over this loop's num_ctx of {self._num_ctx}"
            raise ModelFault("context_overflow", detail)


def _bytes(request: ChatRequest) -> int:
    said, tools = messages.outgoing(request, strict_args=True)
    return len(json.dumps([said, tools], ensure_ascii=False).encode("utf-8", "replace"))


def _times(cost: Cost, times: int) -> Cost:
    usd = None if cost.usd is None else cost.usd * times
    if times == 0:
        usd = 0.0
    return Cost(tokens_in=cost.tokens_in * times, tokens_out=cost.tokens_out * times, usd=usd)


def _listed_price(price_list: Mapping[str, Any], endpoint: Endpoint) -> Price | None:
    """USD per token in litellm's bundled list; ours are per million."""
    entry = price_list.get(endpoint.name) or price_list.get(endpoint.model)
    if entry is None or entry.get("litellm_provider") != endpoint.provider:
        return None

    def rate(name: str, *, dearest: bool = False) -> float | None:
        keys = [key for key in entry if key.startswith(name + "_above_")] if dearest else [name]
        found = [entry[key] for key in keys if isinstance(entry.get(key), (int, float))]
        return max(found) * 1e6 if found else None

    usd_in, usd_out = rate("input_cost_per_token"), rate("output_cost_per_token")
    if not usd_in or not usd_out:
        return None
    return Price(
        usd_in,
        usd_out,
        rate("cache_read_input_token_cost"),
        rate("input_cost_per_token", dearest=True),
        rate("output_cost_per_token", dearest=True),
    )
