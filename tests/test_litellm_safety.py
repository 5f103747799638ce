"""The litellm door before the first call, and what it never lets out: keys, and what was said."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from litellm_bench import CLOUD, EVERY, KEY, PROMPT, door, fault_of, needs_litellm
from support import MemoryBook

from bellglass.doors.litellm_model import LitellmModel, library
from bellglass.doors.litellm_model.provider import Endpoint, is_loopback, resolve
from bellglass.doors.model_server import Answer, Fault, ModelServer, Script, scripts
from bellglass.errors import ModelFault, SetupError, UsageError
from bellglass.line.gateway import Gateway
from bellglass.paths import install_command
from bellglass.records import CallKey

pytestmark = needs_litellm


@pytest.fixture(scope="module", autouse=True)
def litellm() -> Any:
    return library.load()


# Start-up


def test_a_missing_library_is_said_before_a_missing_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(SetupError) as refused:
        LitellmModel(CLOUD, environ={})
    assert (refused.value.code, refused.value.next_command) == ("library_missing", install_command("litellm"))


def test_a_missing_key_names_its_variable() -> None:
    for name, variable in ((CLOUD, "ANTHROPIC_API_KEY"), ("openai/gpt-4o", "OPENAI_API_KEY")):
        with pytest.raises(SetupError) as caught:
            LitellmModel(name, environ={})
        assert variable in str(caught.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "127.9.9.9"])
def test_a_server_on_this_machine_needs_no_key(host: str) -> None:
    model = LitellmModel("openai/foo", environ={"OPENAI_BASE_URL": f"http://{host}:8000/v1"})
    assert model.hosted, "but its code is a stranger's all the same"


@pytest.mark.parametrize("host", ["10.0.0.5", "localhost.evil.com", "127.0.0.1.evil.com"])
def test_a_server_elsewhere_needs_one(host: str) -> None:
    with pytest.raises(SetupError):
        LitellmModel("openai/foo", environ={"OPENAI_BASE_URL": f"http://{host}:8000/v1"})


@pytest.mark.parametrize("name", ["", "gpt-4", "openai/", "nobody/x"])
def test_an_unknown_provider_is_a_usage_error(name: str) -> None:
    with pytest.raises(UsageError):
        LitellmModel(name, environ={"OPENAI_API_KEY": KEY})


def test_an_address_that_is_none_is_a_setup_error_that_does_not_repeat_it() -> None:
    with pytest.raises(SetupError) as caught:
        LitellmModel("openai/foo", environ={"OPENAI_BASE_URL": KEY, "OPENAI_API_KEY": KEY})
    assert KEY not in str(caught.value)
    assert caught.value.next_command == "export OPENAI_BASE_URL=https://api.openai.com/v1"


def test_ollamas_address_may_be_written_as_ollama_writes_it() -> None:
    for given, base in {
        "0.0.0.0": "http://127.0.0.1:11434",
        "box:1234": "http://box:1234",
        "https://box.example": "https://box.example",
        "": "http://127.0.0.1:11434",
    }.items():
        assert resolve("ollama/x", {"OLLAMA_HOST": given}).base == base
    assert not is_loopback("http://box:1234")


@pytest.mark.parametrize("version", ["1.82.7", "1.82.8", "1.106.0", "1.107.3", "1.108.1.dev2", "2.0.0", "2.1"])
def test_a_bad_release_of_litellm_is_refused(version: str) -> None:
    with pytest.raises(SetupError) as caught:
        library.refuse_bad_version(version)
    assert version in str(caught.value)


@pytest.mark.parametrize("version", ["1.82.6", "1.82.9", "1.105.3", "1.109.0"])
def test_a_good_release_is_not(version: str) -> None:
    library.refuse_bad_version(version)


def test_a_reachable_server_is_found_without_a_key_or_a_prompt() -> None:
    with ModelServer(scripts.refuses_key()) as server:
        for name in EVERY:
            door(server, name).reachable()
        assert not server.asked


def test_making_a_model_imports_nothing_heavy() -> None:
    code = (
        "import sys; from bellglass.doors.litellm_model import LitellmModel;"
        "LitellmModel('openai/x', environ={'OPENAI_API_KEY': 'k'});"
        "print([m for m in ('litellm', 'openai', 'httpx') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout.strip() == "[]"


# Nothing leaks


@pytest.mark.parametrize(("name", "path"), [("openai/foo", "/v1/chat/completions"), (CLOUD, "/v1/messages")])
def test_a_redirect_does_not_carry_the_key_elsewhere(name: str, path: str) -> None:
    with ModelServer(scripts.says()) as elsewhere:
        away = scripts.fails(307, "moved", location=elsewhere.url + path)
        fault, attempts = fault_of(away, name)
        assert (fault.code, attempts) == ("server", 1)
        assert not elsewhere.asked


def echoes(status: int) -> Script:
    """A server that repeats everything it was told, as debugging proxies do."""
    return lambda request, index: Fault(status, "error", f"you sent Authorization: Bearer {KEY} and {KEY[3:15]}")


LEAKS: dict[str, Script] = {
    **{str(status): echoes(status) for status in (302, 400, 401, 404, 413, 429, 500)},
    "slow": scripts.slow(30),
    "dead": scripts.dead(),
    "garbage": scripts.bills_garbage(),
    "not json": lambda request, index: Answer(200, f"<html>{KEY}</html>".encode()),
    "error page": lambda request, index: Answer(502, f"<html>{KEY}</html>".encode()),
    "fine": scripts.says("fine"),
}


@pytest.fixture
def everything_logged() -> Iterator[list[str]]:
    lines: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage() + str(record.__dict__))

    root, keep = logging.getLogger(), Keep()
    level = root.level
    root.addHandler(keep)
    root.setLevel(1)
    yield lines
    root.removeHandler(keep)
    root.setLevel(level)


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERY)
def test_the_key_is_in_no_error_record_log_or_output(
    name: str, everything_logged: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    texts: list[str] = []
    hangers_on: list[BaseException | None] = []
    for what, script in LEAKS.items():
        book = MemoryBook()
        with ModelServer(script) as server:
            model = door(server, name, attempt_seconds=0.2, total_seconds=1.0)
            texts.append(repr(model) + repr(vars(model)))
            try:
                Gateway({"main": model}, book).chat(wire_body(), CallKey(1, "improve", 0))
                assert what == "fine"
            except ModelFault as fault:
                texts += [repr(fault), str(fault), repr(vars(fault)), "".join(traceback.format_exception(fault))]
                hangers_on += [fault.__cause__, fault.__context__]
        texts.append(repr(book))
    assert not any(hangers_on)
    printed = capfd.readouterr()
    logged = "".join(everything_logged)
    for text in [*texts, printed.out, printed.err, logged]:
        assert KEY not in text
        assert KEY[3:15] not in text
    assert PROMPT not in printed.out + printed.err + logged
    assert "Give Feedback" not in printed.out


def wire_body() -> bytes:
    return json.dumps({"model": "main", "messages": [{"role": "user", "text": PROMPT}]}).encode()


def test_a_providers_message_is_shown_unless_it_holds_a_piece_of_the_key() -> None:
    endpoint = Endpoint("openai/x", "openai", "x", "http://user:pa55word@h:1", KEY, False, (KEY,))
    assert endpoint.clean("too many messages in org-abc123\n") == "too many messages in org-…"
    for leak in (KEY, KEY[:6], f"it ends in {KEY[-6:]}.", "pa55word"):
        assert "withheld" in endpoint.clean(f"bad key {leak}")
    assert "pa55word" not in endpoint.address
    assert KEY not in repr(endpoint)


@pytest.mark.slow  # imports litellm once more
def test_a_first_call_in_a_fresh_process_warns_of_nothing_and_leaves_no_event_loop_open() -> None:
    code = (
        "import asyncio, gc; from litellm_bench import ask; from bellglass.doors.model_server import scripts;"
        "print(ask(scripts.says('quiet')).text); asyncio.set_event_loop(None); gc.collect()"
    )
    path = os.pathsep.join([os.path.dirname(__file__), os.path.dirname(os.path.dirname(__file__))])
    environment = {**os.environ, "PYTHONPATH": path}
    python = [sys.executable, "-W", "default::ResourceWarning", "-c", code]
    done = subprocess.run(python, capture_output=True, text=True, check=True, env=environment)
    assert (done.stdout, done.stderr) == ("quiet\n", "")


def test_the_environments_loud_switches_are_overruled(litellm: Any) -> None:
    assert os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] == "True"
    assert os.environ["LITELLM_MODE"] == "PRODUCTION"
    assert litellm.suppress_debug_info
    assert not litellm.callbacks
