"""The self-check before a submission: what would certainly be refused, or leave the next session without its tools."""

from __future__ import annotations

import ast
from pathlib import Path

import desk
import glass

TRAINER = {"data": "data.py", "objective": "objective.py", "architecture": "model.py", "optimiser": "train.py"}
NEEDED = [f"trainer/{name}" for name in TRAINER.values()] + ["scaffold/improve.py", "scaffold/charter.md"]


def problems(note: str) -> list[str]:
    found = [f"{name}: missing" for name in NEEDED if not (desk.WORK / name).is_file()]
    for path in desk.files(desk.WORK):
        found += _file_problems(path, path.relative_to(desk.WORK).as_posix())
    changed = _changed()
    if not changed:
        found.append("nothing is changed: there is nothing to submit")
    allowed = glass.args.get("may_edit", [])
    found += [f"{name}: may not be changed in this loop" for name in changed if _kind(name) not in allowed]
    if "scaffold/charter.md" in changed and "charter" not in note.lower():
        found.append("scaffold/charter.md is changed and the note does not say so")
    return found


def _file_problems(path: Path, name: str) -> list[str]:
    if path.is_symlink():
        return [f"{name}: a link"]
    if path.suffix != ".py":
        return []
    try:
        tree = ast.parse(path.read_bytes(), name)
    except (SyntaxError, ValueError) as error:
        return [f"{name}: does not parse: {error}"]
    if not name.startswith("scaffold/tools/"):
        return []
    defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    for node in tree.body:
        if isinstance(node, ast.Assign):
            defined |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return [f"{name}: a tool needs {word}" for word in ("SPEC", "run") if word not in defined]


def _changed() -> list[str]:
    before, after = _contents(desk.WORKSPACE), _contents(desk.WORK)
    return sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))


def _contents(root: Path) -> dict[str, bytes]:
    paths = [path for half in ("trainer", "scaffold") for path in desk.files(root / half)]
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}


def _kind(name: str) -> str:
    if name.startswith("scaffold/"):
        return "scaffold"
    return next((kind for kind, file in TRAINER.items() if name == f"trainer/{file}"), "none")
