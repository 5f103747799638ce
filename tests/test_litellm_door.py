"""The litellm door over real HTTP, against the shipped double: good days and bad days, each honestly charged.

One import of litellm serves the whole module; it takes seconds.
"""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from litellm_bench import (
    CLOUD,
    EVERY,
    KEY,
    OPAQUE,
    PRICE,
    PROMPT,
    REQUEST,
    TOOLS,
    ask,
    door,
    environ,
    fault_of,
    needs_litellm,
)

from bellglass.doors.litellm_model import LitellmModel, library, messages
from bellglass.doors.litellm_model import model as door_model
from bellglass.doors.model_server import Answer, ModelServer, Script, scripts
from bellglass.errors import ModelFault, SetupError, UsageError
from bellglass.records import ChatMessage, ChatReply, ChatRequest, Cost, ToolCall

pytestmark = needs_litellm


@pytest.fixture(scope="module", autouse=True)
def litellm() -> Any:
    return library.load()


# Good days


@pytest.mark.parametrize("name", EVERY)
def test_a_plain_reply_is_read_and_charged_at_what_it_reports(name: str) -> None:
    reply = ask(scripts.says("hello"), name)
    assert (reply.text, reply.calls, reply.stop) == ("hello", (), "end")
    assert reply.cost == Cost(tokens_in=100, tokens_out=20, calls=1, usd=pytest.approx(140e-6))
    assert reply.provider_model == name.split("/")[-1]
    assert reply.sampling["max_tokens"] == 100


@pytest.mark.parametrize("name", EVERY)
def test_a_tool_call_and_its_reasoning_make_the_round_trip_unchanged(name: str) -> None:
    with ModelServer(scripts.calls("write_file", {"path": "a.txt"}, opaque=(OPAQUE[name],))) as server:
        model = door(server, name)
        reply = model.chat(REQUEST)
        assert [(call.name, call.args) for call in reply.calls] == [("write_file", {"path": "a.txt"})]
        assert reply.stop == "calls"
        assert reply.opaque == (OPAQUE[name],)
        again = ChatMessage("assistant", reply.text, reply.calls, opaque=reply.opaque)
        result = ChatMessage("tool", "written", call_id=reply.calls[0].id)
        model.chat(ChatRequest("main", (*REQUEST.messages, again, result), TOOLS, 100))
        seen = server.asked[1].request.messages
        blocks = [block for message in seen for block in message.opaque]
        assert [json.dumps(b, sort_keys=True) for b in blocks] == [json.dumps(OPAQUE[name], sort_keys=True)]
        assert [call.args for message in seen for call in message.calls] == [{"path": "a.txt"}]
        assert [m.text for m in seen if m.role == "tool"] == ["written"]


def test_the_request_is_what_was_asked_for_and_nothing_else() -> None:
    with ModelServer(scripts.says()) as server:
        door(server).chat(REQUEST)
        asked = server.asked[0]
        assert set(asked.body) == {"model", "messages", "tools", "max_tokens"}
        assert asked.request.messages == REQUEST.messages
        assert asked.request.tools == REQUEST.tools
        assert asked.had_key


@pytest.mark.parametrize("name", EVERY)
def test_malformed_arguments_pass_as_the_raw_string_and_can_be_sent_back(name: str) -> None:
    with ModelServer(scripts.calls("write_file", '{"path": ')) as server:
        model = door(server, name)
        reply = model.chat(REQUEST)
        assert [call.args for call in reply.calls] == ['{"path": ']
        again = ChatMessage("assistant", "", (*reply.calls, ToolCall("c2", "no such/name", {})))
        results = tuple(ChatMessage("tool", "no", call_id=call.id) for call in again.calls)
        model.chat(ChatRequest("main", (*REQUEST.messages, again, *results), TOOLS, 100))
        names = [call.name for message in server.asked[1].request.messages for call in message.calls]
        assert names == ["write_file", "no_such_name"]


def test_a_reply_that_was_cut_says_so() -> None:
    assert ask(lambda request, index: ChatReply("half a", (), "length", cost=scripts.USED)).stop == "length"


def test_the_records_of_a_request_are_not_changed_by_the_library() -> None:
    block = {"type": "thinking", "thinking": "hmm", "signature": "s1g"}
    said = ChatMessage("assistant", "ok", (ToolCall("c1", "write_file", {"path": "x"}),), opaque=(block,))
    request = ChatRequest("main", (*REQUEST.messages, said, ChatMessage("tool", "ok", call_id="c1")), TOOLS, 100)
    before = repr(request)
    ask(scripts.says(), CLOUD, request)
    assert repr(request) == before
    said_json, tools_json = messages.outgoing(request, strict_args=True)
    said_json[2]["thinking_blocks"][0]["thinking"] = tools_json[0]["function"]["parameters"]["type"] = "edited"
    assert repr(request) == before


# Bad days


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize(
    ("script", "code"),
    [
        (scripts.refuses_key(KEY), "refused_key"),
        (scripts.fails(403, "permission_error"), "refused_key"),
        (scripts.unknown_model(), "unknown_model"),
        (scripts.context_overflow(), "context_overflow"),
        (scripts.fails(400, "invalid_request_error", "messages: at least one is required"), "bad_request"),
        (scripts.fails(302, "moved", location="http://127.0.0.1:1/"), "server"),
    ],
    ids=["401", "403", "404", "overflow", "400", "302"],
)
def test_a_refusal_is_final_named_and_free(name: str, script: Script, code: str) -> None:
    fault, attempts = fault_of(script, name)
    assert (fault.code, fault.billed, fault.cost, attempts) == (code, False, Cost(), 1)


@pytest.mark.parametrize("name", EVERY)
def test_a_rate_limit_is_waited_for_as_long_as_the_server_asks(name: str) -> None:
    began = time.monotonic()
    reply = ask(scripts.in_turn(scripts.rate_limited("0.4"), scripts.says("at last")), name)
    assert reply.text == "at last"
    assert time.monotonic() - began >= 0.4
    assert reply.cost.tokens_in == 100


def test_a_rate_limit_that_never_ends_is_given_up_within_the_total_time(monkeypatch: pytest.MonkeyPatch) -> None:
    fault, attempts = fault_of(scripts.rate_limited())
    assert (fault.code, fault.billed, attempts) == ("rate_limited", False, 6)
    monkeypatch.setattr(door_model.time, "sleep", lambda seconds: pytest.fail("it waits for what it won't live to see"))
    fault, attempts = fault_of(scripts.rate_limited("3000"), total_seconds=5.0)
    assert (fault.code, attempts) == ("rate_limited", 1)


def test_a_used_up_quota_is_not_retried() -> None:
    fault, attempts = fault_of(scripts.fails(429, "insufficient_quota", "You exceeded your current quota"))
    assert (fault.code, attempts) == ("rate_limited", 1)
    assert "quota" in fault.detail


@pytest.mark.parametrize("script", [scripts.server_error(), scripts.fails(529, "overloaded_error", "Overloaded")])
def test_a_server_error_is_retried_and_free(script: Script) -> None:
    assert ask(scripts.in_turn(script, script, scripts.says("back"))).text == "back"
    fault, attempts = fault_of(script)
    assert (fault.code, fault.billed, attempts) == ("server", False, 6)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize(
    "script", [scripts.slow(30), scripts.dead(), scripts.drips(0.02)], ids=["slow", "dead", "drips"]
)
def test_an_unanswered_request_is_charged_and_tried_only_once_more(name: str, script: Script) -> None:
    began = time.monotonic()
    with ModelServer(script) as server:
        model = door(server, name, attempt_seconds=0.3)
        with pytest.raises(ModelFault) as caught:
            model.chat(REQUEST)
        assert len(server.asked) == 2
    assert (caught.value.code, caught.value.billed) == ("unreachable", True)
    assert caught.value.cost == model.forecast(REQUEST)
    assert time.monotonic() - began < 25, "that of the slow one takes 30"


def test_an_answer_after_a_lost_attempt_costs_both() -> None:
    with ModelServer(scripts.in_turn(scripts.dead(), scripts.says())) as server:
        model = door(server)
        reply = model.chat(REQUEST)
        most = model.forecast(REQUEST)
    assert reply.cost.tokens_in == 100 + most.tokens_in // 2
    assert reply.cost.usd is not None
    assert most.usd is not None
    assert most.usd / 2 < reply.cost.usd < most.usd


@pytest.mark.parametrize("name", EVERY)
def test_no_server_is_unreachable_and_free(name: str) -> None:
    server = ModelServer(scripts.says())
    gone = environ(server)
    server._server.server_close()
    model = LitellmModel(name, price=PRICE, environ=gone, backoff_seconds=0.01)
    with pytest.raises(ModelFault) as caught:
        model.chat(REQUEST)
    assert (caught.value.code, caught.value.billed) == ("unreachable", False)
    with pytest.raises(SetupError) as missing:
        model.reachable()
    assert "127.0.0.1" in str(missing.value)


@pytest.mark.parametrize("name", EVERY)
def test_a_reply_that_bills_but_cannot_be_read_is_charged_at_its_own_figures(name: str) -> None:
    fault, attempts = fault_of(scripts.bills_garbage(), name)
    assert (fault.code, fault.billed, attempts) == ("unparsable", True, 1)
    assert fault.cost == Cost(tokens_in=100, tokens_out=20, calls=1, usd=pytest.approx(140e-6))


@pytest.mark.parametrize("script", [scripts.not_json(), scripts.bills_garbage(usage=False)])
def test_a_reply_that_says_nothing_of_its_price_is_charged_at_the_most(script: Script) -> None:
    fault, _attempts = fault_of(script)
    assert (fault.code, fault.billed) == ("unparsable", True)
    assert fault.cost is not None
    assert fault.cost.tokens_in > 100


def test_a_good_reply_without_usage_is_charged_at_the_most() -> None:
    message = {"role": "assistant", "content": "hi"}
    body = {"id": "x", "object": "chat.completion", "created": 0, "model": "m"}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    reply = ask(lambda request, index: Answer(200, json.dumps({**body, "choices": [choice]}).encode()))
    assert reply.text == "hi"
    assert reply.cost.tokens_in > 100


def test_an_endless_reply_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    from bellglass.doors.litellm_model import exchange

    monkeypatch.setattr(exchange, "MAX_REPLY", 50_000)
    fault, _attempts = fault_of(lambda request, index: Answer(200, b" " * 10**6))
    assert fault.code == "unreachable"


def test_what_breaks_inside_the_library_is_no_fault_of_the_server(
    monkeypatch: pytest.MonkeyPatch, litellm: Any
) -> None:
    def breaks(**options: Any) -> None:
        raise litellm.InternalServerError("a bug", "openai", "foo")

    monkeypatch.setattr(litellm, "completion", breaks)
    fault, attempts = fault_of(scripts.says())
    assert (fault.code, fault.billed, attempts) == ("bad_request", False, 0)


# Prices


def test_the_forecast_is_never_under_what_a_tokenizer_counts(litellm: Any) -> None:
    texts = [
        "plain words " * 50,
        "def f(x):\n    return x ** 2\n" * 30,
        "数字は十二" * 40,
        "\x00\x01ÿ🌍" * 1000,
        '"\\' * 100,
    ]
    with ModelServer(scripts.says()) as server:
        model = door(server)
        for text in texts:
            request = ChatRequest("main", (ChatMessage("user", text),), TOOLS, 100)
            assert model.forecast(request).tokens_in >= 2 * litellm.token_counter(model="gpt-4o", text=text)


def test_a_listed_price_is_used_at_the_providers_own_address_only() -> None:
    at_home = LitellmModel(CLOUD, environ={"ANTHROPIC_API_KEY": KEY})
    assert at_home.price is not None
    assert 0 < at_home.price.usd_in < at_home.price.usd_out
    usd = at_home.forecast(REQUEST).usd
    assert usd is not None
    assert usd > 0
    elsewhere = {"ANTHROPIC_API_KEY": KEY, "ANTHROPIC_BASE_URL": "http://127.0.0.1:1"}
    assert LitellmModel(CLOUD, environ=elsewhere).forecast(REQUEST).usd is None


@pytest.mark.parametrize("name", ["openai/foo", "ollama/llama3"])
def test_an_unknown_price_is_unknown_and_never_zero(name: str) -> None:
    with ModelServer(scripts.says()) as server:
        model = door(server, name, price=None)
        assert model.forecast(REQUEST).usd is None
        assert model.chat(REQUEST).cost.usd is None
        declared = door(server, name, price=None, free=True)
        assert declared.forecast(REQUEST).usd == 0
        assert declared.chat(REQUEST).cost.usd == 0


def test_a_free_call_after_a_failed_one_stays_free_and_a_refused_one_of_unknown_price_costs_nothing() -> None:
    fault, _attempts = fault_of(scripts.refuses_key(), price=None)
    assert fault.cost == Cost()


def test_a_providers_own_model_cannot_be_declared_free() -> None:
    with pytest.raises(UsageError):
        LitellmModel(CLOUD, free=True, environ={"ANTHROPIC_API_KEY": KEY})


# Ollama's context


def test_ollama_is_always_asked_for_a_sufficient_context() -> None:
    with ModelServer(scripts.says()) as server:
        door(server, "ollama/llama3").chat(REQUEST)
        assert server.asked[0].body["options"] == {"num_predict": 100, "num_ctx": 32_768}


def test_what_ollama_would_silently_truncate_is_refused_before_it_is_sent() -> None:
    with ModelServer(scripts.says()) as server:
        long = ChatRequest("main", (ChatMessage("user", "words " * 20_000),), (), 100)
        with pytest.raises(ModelFault) as caught:
            door(server, "ollama/llama3").chat(long)
        assert (caught.value.code, caught.value.billed) == ("context_overflow", False)
        assert not server.asked


# A model behind HTTP


class Parrot:
    """Any ports.Model can stand behind the server; this one repeats the last message."""

    name, hosted = "offline:parrot", False

    def forecast(self, request: ChatRequest) -> Cost:
        return Cost()

    def chat(self, request: ChatRequest) -> ChatReply:
        if request.messages[-1].text == "fail":
            raise ModelFault("context_overflow", "maximum context length")
        call = ToolCall("c1", request.tools[0].name, {"path": request.messages[-1].text})
        return ChatReply("", (call,), "calls", provider_model="parrot-1")


@pytest.mark.parametrize("name", EVERY)
def test_any_model_can_be_driven_through_real_http(name: str) -> None:
    with ModelServer(Parrot()) as server:
        reply = door(server, name).chat(REQUEST)
        assert reply.calls[0].args == {"path": PROMPT}
        assert reply.provider_model == "parrot-1"
        failing = ChatRequest("main", (ChatMessage("user", "fail"),), TOOLS, 100)
        with pytest.raises(ModelFault) as caught:
            door(server, name).chat(failing)
        assert caught.value.code == "context_overflow"
