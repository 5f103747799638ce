"""The desk: where the editable files lie, and how a tool's path becomes one of them."""

from __future__ import annotations

import tomllib
from pathlib import Path

SCAFFOLD = Path(__file__).resolve().parent
WORKSPACE = SCAFFOLD.parent
WORK = WORKSPACE / "work"


class ToolError(Exception):
    """What a tool raises to tell the model what went wrong."""


def settings() -> dict:
    return tomllib.loads((SCAFFOLD / "scaffold.toml").read_text())


def inside(path: object) -> Path:
    """A path of the model's, within work/. Links are followed first, so they lead nowhere else either."""
    if not isinstance(path, str) or not path.strip():
        raise ToolError("path: a path relative to work/, such as trainer/model.py")
    full = (WORK / path.strip().removeprefix("work/")).resolve()
    if not full.is_relative_to(WORK.resolve()):
        raise ToolError(f"{path}: outside work/")
    return full


def read(path: object) -> str:
    full = inside(path)
    if not full.is_file():
        raise ToolError(f"{path}: no such file")
    return full.read_text(errors="replace")


def write(path: object, text: object) -> int:
    """Characters written."""
    if not isinstance(text, str):
        raise ToolError("text: the file's whole text")
    full = inside(path)
    if full.is_dir():
        raise ToolError(f"{path}: a folder")
    full.parent.mkdir(parents=True, exist_ok=True)
    return full.write_text(text)


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)


def clip(text: str, cap: int) -> str:
    """The head and the tail of a text that is longer than `cap`."""
    if len(text) <= cap:
        return text
    half = max(0, cap - 60) // 2
    return f"{text[:half]}\n[... {len(text) - 2 * half} characters cut ...]\n{text[len(text) - half :]}"
