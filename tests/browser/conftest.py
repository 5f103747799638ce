"""A system Chromium, and the live page as a person starts it: `bellglass watch` in a process of its own.

Each page is watched: an error in its console, or a request that leaves this machine's loopback interface, fails the
test. With BELLGLASS_SCREENSHOTS=docs/pictures the tests write the pictures that the docs show.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pages import PATIENCE_MS, Seen

QUIET = ["--no-sandbox", "--disable-background-networking", "--disable-component-update", "--no-first-run"]
GONE = "Failed to load resource: net::ERR_CONNECTION_REFUSED"  # on a slow machine a page outlives its test's server
NOWHERE = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        path = shutil.which("chromium")
        browser = playwright.chromium.launch(executable_path=path, args=[*QUIET, NOWHERE], timeout=PATIENCE_MS)
        yield browser
        browser.close()


@pytest.fixture
def seen() -> Iterator[Seen]:
    found = Seen()
    yield found
    assert found.requests, "no page was opened"
    assert found.unexpected() == []


@pytest.fixture
def new_page(chromium: Any, seen: Seen) -> Iterator[Callable[..., Any]]:
    contexts = []

    def make(**options: Any) -> Any:
        context = chromium.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.on(
            "console", lambda said: seen.errors.append(said.text) if said.type == "error" and said.text != GONE else 0
        )
        page.on("pageerror", lambda error: seen.errors.append(str(error)))
        page.on("request", lambda request: seen.requests.append(request.url))
        return page

    yield make
    for context in contexts:
        context.close()


@pytest.fixture
def picture() -> Callable[..., None]:
    folder = os.environ.get("BELLGLASS_SCREENSHOTS")

    def take(page: Any, name: str, **options: Any) -> None:
        if folder:
            page.screenshot(path=Path(folder) / f"{name}.png", animations="disabled", **options)

    return take
