"""bellglass: a real, miniature recursive-improvement testbed.

Importing this package does nothing: no folders, no network, no heavy library.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bellglass.show.notebook import Loop

__version__ = "0.1.0"


def open(loop: str | Path | None = None, *, loops: Path | None = None) -> Loop:
    """A loop as a read-only view, for notebooks: by name, id or folder; None is the latest."""
    from bellglass import paths
    from bellglass.show import notebook

    return notebook.Loop(paths.find_loop(None if loop is None else str(loop), paths.loops_home(loops)))
