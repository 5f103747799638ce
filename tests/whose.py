"""Another user's state folder, so that what is made under it came from elsewhere."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

VARIABLE = "XDG_STATE_HOME"


@contextmanager
def another_user(state: Path | None = None) -> Iterator[None]:
    """Under `state`, or under a folder that is gone afterwards."""
    before = os.environ[VARIABLE]
    with tempfile.TemporaryDirectory(prefix="bellglass-other-") as fresh:
        os.environ[VARIABLE] = str(state or fresh)
        try:
            yield
        finally:
            os.environ[VARIABLE] = before
