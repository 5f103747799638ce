"""From a model's name and the environment to an endpoint: provider, address, key. No network, no litellm.

Keys live here and in the calls to litellm, and nowhere else. Texts of a provider that may be shown go through
`Endpoint.clean`.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from bellglass.errors import SetupError, UsageError

FRAGMENT = 6  # characters of a key in a row that count as a leak: providers repeat its first or last ones
NO_KEY = "none"  # what a local server gets: the client library insists on something


@dataclass(frozen=True, slots=True)
class Provider:
    route: str  # litellm's prefix
    key_variable: str | None
    base_variables: tuple[str, ...]
    default_base: str
    probe_path: str  # answers GET on any server of this kind


PROVIDERS: Mapping[str, Provider] = {
    "anthropic": Provider(
        "anthropic",
        "ANTHROPIC_API_KEY",
        ("ANTHROPIC_BASE_URL", "ANTHROPIC_API_BASE"),
        "https://api.anthropic.com",
        "/v1/models",
    ),
    "openai": Provider(
        "openai", "OPENAI_API_KEY", ("OPENAI_BASE_URL", "OPENAI_API_BASE"), "https://api.openai.com/v1", "/models"
    ),
    "ollama": Provider("ollama_chat", None, ("OLLAMA_API_BASE", "OLLAMA_HOST"), "http://127.0.0.1:11434", "/api/tags"),
}


@dataclass(frozen=True, slots=True)
class Endpoint:
    name: str  # as the person wrote it
    provider: str
    model: str
    base: str = field(repr=False)  # may hold a password
    key: str = field(repr=False)
    is_default: bool  # the provider's own address: only there do its prices hold
    secrets: tuple[str, ...] = field(default=(), repr=False)  # every key of the environment, this one's or not

    @property
    def route_model(self) -> str:
        return f"{PROVIDERS[self.provider].route}/{self.model}"

    @property
    def address(self) -> str:
        """Host and port, safe to show."""
        parts = urlsplit(self.base)
        return f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)

    @property
    def probe_url(self) -> str:
        return self.base.rstrip("/") + PROVIDERS[self.provider].probe_path

    def clean(self, text: str, longest: int = 300) -> str:
        """The text without secrets: all of it is withheld when a piece of the key is in it."""
        for secret in (*self.secrets, urlsplit(self.base).password or ""):
            if any(piece in text for piece in _pieces(secret)):
                return "(withheld: the message repeats a part of a key)"
        text = re.sub(r"\borg-\w+", "org-…", text)
        return " ".join(text.split())[:longest]


def _pieces(secret: str) -> set[str]:
    if len(secret) <= FRAGMENT:
        return {secret} - {""}
    return {secret[at : at + FRAGMENT] for at in range(len(secret) - FRAGMENT + 1)}


def resolve(name: str, environ: Mapping[str, str]) -> Endpoint:
    """UsageError for a name that no provider has, SetupError for a missing key."""
    family, _, model = name.partition("/")
    provider = PROVIDERS.get(family)
    if provider is None or not model:
        needed = ", ".join(f"{known}/NAME" for known in PROVIDERS)
        raise UsageError("the model", repr(name), needed, "bellglass run --help", code="no_such_model")
    given = next((environ[v].strip() for v in provider.base_variables if environ.get(v, "").strip()), "")
    base = _base(given, family) if given else provider.default_base
    key = environ.get(provider.key_variable, "").strip() if provider.key_variable else ""
    if provider.key_variable and not key and not (given and is_loopback(base)):
        local = ", or OPENAI_BASE_URL with a local server's address" if family == "openai" else ""
        raise SetupError(
            f"the model {name}",
            f"{provider.key_variable} is not set",
            f"a key in {provider.key_variable}{local}",
            f"export {provider.key_variable}=…",
            code="key_missing",
        )
    keys = tuple(environ.get(p.key_variable or "", "").strip() for p in PROVIDERS.values())
    return Endpoint(name, family, model, base, key or NO_KEY, not given, keys)


def _base(given: str, family: str) -> str:
    """OLLAMA_HOST is often written without a scheme, or as the address a server listens on."""
    if family == "ollama":
        given = (given if "://" in given else f"http://{given}").replace("//0.0.0.0", "//127.0.0.1")
        if urlsplit(given).scheme == "http" and urlsplit(given).port is None:
            given = given.rstrip("/") + ":11434"
    parts = urlsplit(given)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        variables, usual = PROVIDERS[family].base_variables, PROVIDERS[family].default_base
        thing, found = f"the address in {' or '.join(variables)}", "no http:// or https:// address"
        raise SetupError(thing, found, f"one such as {usual}", f"export {variables[0]}={usual}", code="address_invalid")
    return given.rstrip("/")


def is_loopback(base: str) -> bool:
    host = urlsplit(base).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
