"""The start-up probe tells a short memory from missing tools, and says what to change."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from support import FakeModel

from bellglass import preflight
from bellglass import probe as probe_
from bellglass.bounds import Bounds
from bellglass.doors.litellm_model import LitellmModel
from bellglass.doors.model_server import Answer, Fault, ModelServer, Script, scripts
from bellglass.errors import BoundReached, ModelFault, SetupError
from bellglass.probe import BookedModel, probe, probe_request
from bellglass.records import ChatReply, ChatRequest, Cost, ToolCall
from bellglass.store.blobs import Blobs
from bellglass.store.books import Books
from bellglass.store.ledger import Ledger

GOOD = scripts.repeats_first_line()


def model(script: Script, name: str = "openai/local") -> FakeModel:
    """The server's scripts without the server."""

    def answer(request: ChatRequest) -> ChatReply:
        outcome = script(request, 0)
        if isinstance(outcome, Fault):
            raise ModelFault(outcome.code, outcome.message)
        assert not isinstance(outcome, Answer)
        return outcome

    return FakeModel(answer, name)


def test_a_server_that_is_not_there_is_said_before_a_prompt_is_sent(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if importlib.util.find_spec("litellm") is None:  # not importorskip: importing is the door's, with its safe settings
        pytest.skip("litellm is not installed")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    with pytest.raises(SetupError, match="no answer") as caught:
        preflight.probe_lines({"main": LitellmModel("openai/local")}, books(tmp_path))
    assert caught.value.exit_code == 3
    assert list(tmp_path.glob("blobs/*")) == []


def books(folder: Path, usd: float | None = None) -> Books:
    ledger = Ledger.create(folder)
    return Books(ledger, Blobs(folder / "blobs"), Bounds(usd=usd))


def test_what_a_probe_costs_is_booked_and_bounded_like_any_other_call(tmp_path: Path) -> None:
    # Any `ports.Model` will do; that it is hosted is all that probe_lines asks.
    good = model(GOOD)
    booked = books(tmp_path / "rich", usd=10.0)
    assert probe(BookedModel(good, booked, first=0)).ok
    assert booked.state.spent.calls == 1
    assert booked.state.spent.tokens_in == scripts.USED.tokens_in
    poor = books(tmp_path / "poor", usd=0.4)
    with pytest.raises(BoundReached):
        probe(BookedModel(good, poor, first=0))
    assert len(good.asked) == 1, "the call that does not fit was made"


def test_a_good_model_passes_with_one_call() -> None:
    good = model(GOOD)
    report = probe(good)
    assert report.ok
    assert report.advice == ()
    assert report.cost == scripts.USED
    assert len(good.asked) == 1


def test_the_probe_is_longer_than_the_contexts_that_local_servers_start_with() -> None:
    text = probe_request("marker-1").messages[0].text
    assert text.startswith("The marker is marker-1")
    assert text.count("marker-1") == 1
    assert len(text.split()) > 8192  # a word is at least one token


def test_a_server_that_forgets_the_beginning_is_found() -> None:
    report = probe(model(scripts.truncates(16_000, GOOD), "ollama/small"))
    assert (report.ok, report.sees_all, report.calls_tools) == (False, False, True)
    assert len(report.advice) == 1
    assert "OLLAMA_CONTEXT_LENGTH" in report.advice[0]
    assert report.cost == scripts.USED + scripts.USED


def test_a_server_that_says_its_context_is_too_small_is_found() -> None:
    def short(request: ChatRequest, index: int) -> Any:
        if len(request.messages[0].text) > 16_000:
            return Fault(400, "context_overflow", "maximum context length")
        return GOOD(request, index)

    report = probe(model(short))
    assert (report.sees_all, report.calls_tools) == (False, True)
    assert "-c 32768" in report.advice[0]


def test_a_model_that_answers_in_prose_is_found() -> None:
    report = probe(model(scripts.ignores_tools(GOOD)))
    assert (report.ok, report.sees_all, report.calls_tools) == (False, True, False)
    assert len(report.advice) == 1
    assert "--enable-auto-tool-choice" in report.advice[0]


def test_a_server_that_refuses_tools_is_found_and_its_reason_shown() -> None:
    def refuses(request: ChatRequest, index: int) -> Fault:
        return Fault(400, "bad_request", "this model does not support tools")

    report = probe(model(refuses, "ollama/small"))
    assert (report.ok, report.sees_all, report.calls_tools) == (False, None, False)
    assert "does not support tools" in report.advice[0]
    assert "ollama show" in report.advice[0]


def test_a_server_with_both_faults_gets_both_pieces_of_advice() -> None:
    report = probe(model(scripts.truncates(16_000, scripts.ignores_tools(GOOD))))
    assert (report.sees_all, report.calls_tools) == (False, False)
    assert len(report.advice) == 2


def test_a_model_that_calls_the_tool_with_nonsense_is_not_ok() -> None:
    call = ToolCall("c", probe_.TOOL, {"marker": "marker-unseen"})
    report = probe(model(lambda request, index: ChatReply("", (call,), "calls", cost=scripts.USED)))
    assert not report.ok
    assert "larger model" in report.advice[0]


def test_a_model_that_cannot_be_used_at_all_raises_its_own_fault() -> None:
    with pytest.raises(ModelFault) as caught:
        probe(model(lambda request, index: Fault(401, "refused_key", "no")))
    assert caught.value.code == "refused_key"


def test_what_failed_calls_cost_is_part_of_the_report() -> None:
    charged = Cost(tokens_in=9, calls=1)

    def answer(request: ChatRequest) -> ChatReply:
        raise ModelFault("bad_request", "no tools", billed=True, cost=charged)

    assert probe(FakeModel(answer)).cost == charged + charged


@pytest.mark.skipif(importlib.util.find_spec("litellm") is None, reason="needs the litellm extra")
@pytest.mark.parametrize(
    ("script", "found"),
    [
        (GOOD, (True, True)),
        (scripts.truncates(16_000, GOOD), (False, True)),
        (scripts.ignores_tools(GOOD), (True, False)),
        (scripts.refuses_tools(GOOD), (None, False)),
    ],
    ids=["good", "truncates", "prose", "refuses"],
)
@pytest.mark.parametrize("name", ["openai/local", "ollama/local"])
def test_the_probe_sees_the_same_through_the_litellm_door(
    name: str, script: Script, found: tuple[bool | None, bool]
) -> None:
    from bellglass.doors.litellm_model import LitellmModel

    with ModelServer(script) as server:
        model = LitellmModel(name, environ={"OPENAI_BASE_URL": server.openai_base, "OLLAMA_HOST": server.url})
        report = probe(model)
    assert (report.sees_all, report.calls_tools) == found
    assert report.ok == (found == (True, True))
