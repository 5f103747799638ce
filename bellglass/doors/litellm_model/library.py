"""The only importer of litellm: late, checked, and silenced.

litellm at its defaults reads `.env`, fetches a price list and other files at import, prints banners, and lets loggers
and callbacks see what is said. All of that is off before the first call. An installed version that is known to be
broken or malicious is refused before it is imported.

Not covered: what a version does that nobody has found out about yet; the lock pins it by hash.
"""

from __future__ import annotations

import asyncio
import functools
import importlib.metadata
import logging
import os
import re
import shlex
import sys
import warnings
from typing import Any

from bellglass.errors import SetupError
from bellglass.paths import install_command

NEEDED = "litellm below 2, but not 1.106 to 1.108 (nor 1.82.7, 1.82.8)"
# Read by litellm (and the openai client) at import. Not dials of ours, and no person needs to know them.
ENVIRONMENT = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS": "True",
    "LITELLM_LOCAL_BLOG_POSTS": "True",
    "LITELLM_MODE": "PRODUCTION",  # "DEV", the default, loads the .env file of the current folder
    "LITELLM_LOG": "CRITICAL",
}
CHATTERBOXES = ("LiteLLM", "LiteLLM Router", "LiteLLM Proxy", "openai", "httpx", "httpcore")


def refuse_bad_version(version: str) -> None:
    """1.82.7 and 1.82.8 carried malware; 1.106 to 1.108 raise on any call with tools unless `mcp` is installed."""
    release = tuple(int(n) for n in re.findall(r"\d+", version)[:3])
    if release in ((1, 82, 7), (1, 82, 8)):
        found = f"{version}, a malicious release: treat every key on this machine as stolen"
        raise SetupError(
            "the litellm package",
            found,
            NEEDED,
            f"{shlex.quote(sys.executable)} -m pip uninstall litellm && {install_command('litellm')}",
            code="library_unfit",
        )
    if release >= (2,) or (1, 106) <= release[:2] <= (1, 108):
        raise SetupError("the litellm package", version, NEEDED, install_command("litellm"), code="library_unfit")


def check_installed() -> None:
    """Without importing it."""
    try:
        version = importlib.metadata.version("litellm")
    except importlib.metadata.PackageNotFoundError:
        raise SetupError(
            "a hosted or local model",
            "litellm is not installed",
            NEEDED,
            install_command("litellm"),
            code="library_missing",
        ) from None
    refuse_bad_version(version)


@functools.cache
def load() -> Any:
    """The module, with safe settings. Takes seconds the first time."""
    check_installed()
    os.environ.update(ENVIRONMENT)
    os.environ.pop("OPENAI_LOG", None)  # "debug" would print every message
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own affairs with pydantic
        import litellm

        litellm.ModelResponse()  # built at first use, with more of them
    litellm.suppress_debug_info = True
    litellm.set_verbose = False
    litellm.turn_off_message_logging = True
    litellm.redact_messages_in_exceptions = True
    for callbacks in ("callbacks", "input_callback", "success_callback", "failure_callback"):
        setattr(litellm, callbacks, [])
    litellm.drop_params = False
    litellm.cache = None
    for name in CHATTERBOXES:
        silence(name)
    return litellm


def complete(**asked: Any) -> Any:
    """One blocking call. In a thread that may still get an event loop litellm would open one and leave it open; in one
    that is told that it has none, litellm opens its own and closes it."""
    asyncio.set_event_loop(None)
    return load().completion(**asked)


def silence(name: str) -> None:
    """A logger and all below it: even with the root logger at DEBUG, nobody's words or keys are written."""
    logger = logging.getLogger(name)
    logger.handlers = [logging.NullHandler()]
    logger.propagate = False
    logger.setLevel(logging.CRITICAL + 1)


def wants_openai_client(route_model: str, base: str, tools: list[Any]) -> bool:
    """litellm sends OpenAI's newest models to another interface when there are tools, and that one wants its own kind
    of client. Asked of litellm itself; should the question ever go away, the older answer is tried."""
    provider, _, model = route_model.partition("/")
    if provider != "openai":
        return False
    ask = getattr(load().main, "responses_api_bridge_check", None)
    if ask is None:
        return True
    info, _name = ask(model=model, custom_llm_provider=provider, tools=tools, api_base=base)
    return bool(info.get("mode") != "responses")


def client_for(openai_kind: bool, base: str, key: str, http_client: Any) -> Any:
    """litellm's wrapper of an httpx client."""
    if openai_kind:
        import openai

        return openai.OpenAI(api_key=key, base_url=base, http_client=http_client, max_retries=0)
    from litellm.llms.custom_httpx.http_handler import HTTPHandler

    return HTTPHandler(client=http_client)


def timeout(seconds: float) -> Any:
    """An address that swallows packets is known to be one after ten seconds; a model may think for minutes."""
    import httpx

    return httpx.Timeout(seconds, connect=min(10.0, seconds))
