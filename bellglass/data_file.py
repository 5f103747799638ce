"""Runs a task's data.py. What its author got wrong in it is one clear error, with its line where it has one.

Not covered: what the documents hold (tasks.py looks at that), and code that never returns or ends the process.
"""

from __future__ import annotations

import hashlib
import linecache
import shlex
import sys
import traceback
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from bellglass.errors import BellglassError, SetupError, UsageError
from bellglass.paths import install_command

ARRAYS = ("tokens", "target", "skill", "floor_bits")


def check_command(folder: Path) -> str:
    """What tries a task again; it trains nothing."""
    return f"bellglass tasks {shlex.quote(str(folder.absolute()))}"


def run(task: str, folder: Path, *given: object, **more: object) -> dict[str, npt.NDArray[Any]]:
    """The arrays that its make() returns."""
    path = folder / "data.py"
    try:
        made = load(folder).make(*given, **more)
    except BellglassError:
        raise
    except ImportError as error:
        raise _missing(task, folder, error) from None
    except Exception as error:  # another's code may raise anything; what it was is told
        raise _mistake(task, folder, str(given[0]), error) from error
    if not isinstance(made, dict) or set(made) != set(ARRAYS):
        found = f"make() returned {', '.join(map(str, made)) if isinstance(made, dict) else type(made).__name__}"
        raise UsageError(
            str(path), found, f"a dict of {', '.join(ARRAYS)}", check_command(folder), code="task_data_broken"
        )
    if strange := [name for name in ARRAYS if not isinstance(made[name], np.ndarray)]:
        found = f"make() returned {strange[0]} as {type(made[strange[0]]).__name__}"
        raise UsageError(str(path), found, "numpy arrays", check_command(folder), code="task_data_broken")
    return made


@lru_cache(maxsize=16)
def load(folder: Path) -> ModuleType:
    path = folder / "data.py"
    name = f"bellglass_task_{folder.name}_{hashlib.sha256(str(folder).encode()).hexdigest()[:8]}"
    if path.is_symlink() or not path.is_file():  # a link is not in the folder's hash
        raise UsageError(
            f"task {folder.name!r}",
            f"no file {path}",
            "a data.py with make()",
            check_command(folder),
            code="task_data_broken",
        )
    module = ModuleType(name)
    module.__file__ = str(path)
    sys.modules[name] = module  # dataclasses look their module up there
    # From its source: an import would take a __pycache__ that came with the folder, which is not in its hash either.
    exec(compile(path.read_bytes(), str(path), "exec"), module.__dict__)
    if not callable(getattr(module, "make", None)):
        raise UsageError(
            str(path),
            "no make()",
            "make(split, key, docs, world), as docs/tasks.md has it",
            check_command(folder),
            code="task_data_broken",
        )
    return module


def _missing(task: str, folder: Path, error: ImportError) -> SetupError:
    """A library that data.py wants. It may say itself what is needed and what to type, as second and third words."""
    command = install_command(task)  # an extra has its task's name
    if error.name and (folder / f"{error.name}.py").exists():
        command = f"move what is needed of {error.name}.py into data.py, which is read alone"
    elif error.name:  # Python's own words; the extras are for tasks that say it themselves
        command = f"install a {error.name} that has it into this environment"
    said = tuple(map(str, error.args))[:3]
    usual = ("an ImportError", "the libraries that its data.py uses", command)
    return SetupError(f"task {task!r}", *said, *usual[len(said) :], code="library_missing")


def _mistake(task: str, folder: Path, split: str, error: Exception) -> UsageError:
    path = folder / "data.py"
    frames = traceback.extract_tb(error.__traceback__)
    if isinstance(error, ValueError) and _raised_by(path, frames[-1]):
        thing, needed = f"{split} documents of task {task!r}", f"another {split}_docs in task.toml"
        return UsageError(thing, str(error), needed, check_command(folder), code="task_documents_short")
    lines = [frame.lineno for frame in frames if frame.filename == str(path)]
    said = str(error)
    if isinstance(error, SyntaxError) and error.filename == str(path):
        lines, said = [error.lineno], error.msg
    where = f"{path}, line {lines[-1]}" if lines and lines[-1] else str(path)
    found = f"{type(error).__name__}: {' '.join(said.split())}"
    return UsageError(where, found, "a make() that returns documents", check_command(folder), code="task_data_broken")


def _raised_by(path: Path, last: traceback.FrameSummary) -> bool:
    """Whether a `raise` of the file says it: errors of numpy's compiled parts seem to come from its lines, too."""
    if last.filename != str(path) or last.lineno is None:
        return False
    return linecache.getline(last.filename, last.lineno)[last.colno :].lstrip().startswith("raise")
