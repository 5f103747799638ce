"""For the browser tests: `bellglass watch` as a person starts it, a loop's driver, and what a page may not do."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent
PATIENCE_MS = 60_000  # of every wait: the machine may be busy


@dataclass
class Seen:
    """What the pages of a test did that no page may do."""

    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    expected: tuple[str, ...] = ()  # beginnings of console errors that the test provokes

    def unexpected(self) -> list[str]:
        errors = [error for error in self.errors if not error.startswith(self.expected or ("never",))]
        hosts = {urlsplit(url).hostname for url in self.requests if not url.startswith(("data:", "blob:"))}
        return errors + sorted(f"a request to {host}" for host in hosts - {"127.0.0.1"})


@contextmanager
def watching(*words: str | Path) -> Iterator[str]:
    """The address of a page that `bellglass watch` serves; ended by Ctrl-C, as by a person."""
    command = [sys.executable, "-m", "bellglass", "watch", *map(str, words), "--no-open", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, text=True) as process:
        try:
            yield json.loads(process.stdout.readline())["url"]
        finally:
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=30) == 0


@contextmanager
def driver(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Runs or resumes a loop of the small world, in a process of its own."""
    command = [sys.executable, TESTS / "small_driver.py", folder, folder.parent.parent / "guests"]
    with subprocess.Popen(
        command, cwd=TESTS, stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": ROOT}
    ) as process:
        try:
            yield process
        finally:
            process.kill()
            process.stderr.read()
