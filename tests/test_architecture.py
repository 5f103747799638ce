"""The layers, the size caps and "importing does nothing", checked by a machine."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from source_tree import (
    ROOT,
    functions,
    imports,
    length,
    module_name,
    name,
    nodes,
    own_imports,
    package_modules,
    python_files,
    tree,
)

from bellglass import error_codes
from bellglass.doors.docker import engine
from bellglass.errors import MODEL_FAULTS, ONE_MEANING
from bellglass.records import GUEST_FAULTS

# A module may import its own layer and those below, without cycles. Two rules more: doors never import each other, and
# only `wiring` imports doors.
LAYERS = {
    0: "errors error_codes records trial_ids stats variance strict_json bootstrap visible",  # vocabulary; pure
    1: "paths gpus config tasks data_file download bounds processes weights nulls calibration curves forecast "
    "store changed_lines",  # disk
    2: "ports line doors",  # protocols, frames, and what implements them
    3: "steps tripwires blame red_flags review deciding chronicle rederive verify received rejudge holds recheck halt "
    "probe",  # receive ports
    4: "loop calibrating wiring preflight contradictions",
    5: "cli commands show web __main__",  # what people type and see; nothing below depends on it
}
LAYER_OF = {module: layer for layer, modules in LAYERS.items() for module in modules.split()}

THIRD_PARTY = {
    "numpy",
    "pydantic",
    "rich",
    "typer",
    "docker",
    "litellm",
    "openai",
    "optuna",
    "httpx",
    "starlette",
    "uvicorn",
    "wandb",
}  # all that bellglass imports
ONE_IMPORTER = {"docker", "litellm", "wandb", "optuna", "starlette", "uvicorn", "ray"}
NEVER_LOADED_BY_IMPORTING = {
    "torch",
    "lightning",
    "litellm",
    "docker",
    "wandb",
    "sklearn",
    "openai",
    "httpx",
    "optuna",
    "starlette",
    "uvicorn",
}
INSIDE = {  # what goes inside the glass, and what it may import beside the standard library and its own files
    "agent": {"glass"},
    "sandbox": set(),
    "trainer_seed": {"glass", "lightning", "lightning_fabric", "numpy", "safetensors", "torch"},
}
# It warms up with them, then runs a bundle's model.py.
INSIDE_EXCEPTIONS = {
    "sandbox/glass_child.py": {"torch", "lightning_fabric", "numpy", "model"},
    "sandbox/nursery.py": {"torch", "lightning_fabric", "numpy"},
}
TASK_IMPORTS = {"numpy", "sklearn"}

CODE = ("bellglass", "sandbox", "agent", "trainer_seed", "tasks", "benchmarks", "locks", "docs")
MAX_FILE, MAX_FUNCTION, MAX_P95, MAX_TRAINER = 500, 60, 45, 350
SIZE_EXCEPTIONS: dict[str, str] = {}  # "path" or "path:function" -> the reason
MUST_ONLY_NOT_CRASH = {"tests/test_frames_fuzz.py:test_what_passes_the_grammar_meets_the_caps_without_a_crash"}


def short(module: str) -> str:
    """bellglass.doors.docker.engine -> doors"""
    return module.removeprefix("bellglass.").split(".")[0]


def door(module: str) -> str | None:
    parts = module.split(".")
    return parts[2] if parts[:2] == ["bellglass", "doors"] and len(parts) > 2 else None


def test_every_module_has_a_layer_and_no_layer_is_left_over() -> None:
    modules = {short(module) for module in package_modules()} - {"bellglass"}
    assert modules == set(LAYER_OF)


def test_a_module_imports_only_its_own_layer_and_those_below() -> None:
    wrong = [
        f"{name(path)}:{line} (L{LAYER_OF[short(module)]}) imports {target} (L{LAYER_OF[short(target)]})"
        for module, path in package_modules().items()
        for target, line in own_imports(path)
        if "bellglass" not in (module, target) and LAYER_OF[short(target)] > LAYER_OF[short(module)]
    ]
    assert wrong == []


def test_only_wiring_opens_doors() -> None:
    wrong = [
        f"{name(path)}:{line} imports {target}"
        for module, path in package_modules().items()
        for target, line in own_imports(path)
        if short(target) == "doors"
        and module != "bellglass.wiring"
        and (door(module) is None or door(module) != door(target))
    ]
    assert wrong == []


def test_imports_have_no_cycle() -> None:
    graph = {
        module: {target for target, _ in own_imports(path) if target not in (module, "bellglass")}
        for module, path in package_modules().items()
    }
    for module in graph:  # a package's own __init__ is imported by its modules without being named
        graph[module] -= {module.rpartition(".")[0]}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as cycle:
        pytest.fail(f"imports go round: {' -> '.join(cycle.args[1])}")
    assert graph


def test_bellglass_imports_no_training_library_and_nothing_that_evolves() -> None:
    allowed = sys.stdlib_module_names | THIRD_PARTY | {"bellglass"}
    wrong = [
        f"{name(path)}:{line} imports {target}"
        for path in python_files("bellglass")
        for target, line in imports(path)
        if target.split(".")[0] not in allowed
    ]
    assert wrong == []


def test_each_foreign_library_has_one_importing_file() -> None:
    importers: dict[str, set[str]] = {}
    for path in python_files("bellglass"):
        for target, _ in imports(path):
            importers.setdefault(target.split(".")[0], set()).add(name(path))
    assert {lib: sorted(files) for lib, files in importers.items() if lib in ONE_IMPORTER and len(files) > 1} == {}


@pytest.mark.parametrize("folder", INSIDE)
def test_what_goes_inside_the_glass_imports_only_what_is_there(folder: str) -> None:
    files = python_files(folder)
    own = {path.stem for path in files}
    wrong = [
        f"{name(path)}:{line} imports {target}"
        for path in files
        for target, line in imports(path)
        if target.split(".")[0]
        not in sys.stdlib_module_names | INSIDE[folder] | own | INSIDE_EXCEPTIONS.get(name(path), set())
    ]
    assert wrong == []


def test_a_task_imports_no_torch_and_no_bellglass() -> None:
    wrong = [
        f"{name(path)}:{line} imports {target}"
        for path in python_files("tasks")
        for target, line in imports(path)
        if target.split(".")[0] not in sys.stdlib_module_names | TASK_IMPORTS
    ]
    assert wrong == []


def test_files_and_functions_stay_short() -> None:
    long = {path: len(path.read_text().splitlines()) for path in python_files(*CODE, "tests")}
    found = {name(path): lines for path, lines in long.items() if lines > MAX_FILE}
    for path in python_files(*CODE, "tests"):
        found |= {f"{name(path)}:{f.name}": length(f) for f in functions(path) if length(f) > MAX_FUNCTION}
    assert {what: lines for what, lines in found.items() if what not in SIZE_EXCEPTIONS} == {}
    assert set(SIZE_EXCEPTIONS) <= set(found), "these need no exception any more"


def test_nineteen_of_twenty_functions_are_shorter_still() -> None:
    lengths = sorted(length(function) for path in python_files(*CODE) for function in functions(path))
    assert lengths[int(0.95 * len(lengths))] <= MAX_P95


def test_the_starter_trainer_is_small() -> None:
    assert sum(len(path.read_text().splitlines()) for path in python_files("trainer_seed")) <= MAX_TRAINER


def test_every_module_says_what_it_does() -> None:
    assert [name(path) for path in python_files(*CODE, "tests") if not ast.get_docstring(tree(path))] == []


def test_a_broad_except_gives_its_reason() -> None:
    wrong = []
    for path in python_files(*CODE):
        lines = path.read_text().splitlines()
        for node in nodes(path):
            if isinstance(node, ast.ExceptHandler) and catches_all(node) and not raises_again(node):
                around = "".join(lines[node.lineno - 2 : node.lineno])
                if "#" not in around:
                    wrong.append(f"{name(path)}:{node.lineno}")
    assert wrong == [], "say why in a comment on the line or the one before"


def catches_all(handler: ast.ExceptHandler) -> bool:
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(
        kind is None or (isinstance(kind, ast.Name) and kind.id in ("Exception", "BaseException")) for kind in kinds
    )


def raises_again(handler: ast.ExceptHandler) -> bool:
    return isinstance(handler.body[-1], ast.Raise) and handler.body[-1].exc is None


CODES = {
    "BellglassError": error_codes.FAILED,
    "UsageError": error_codes.USAGE,
    "SetupError": error_codes.SETUP,
    "LoopFault": error_codes.LOOP,
}
CODES_BY_NAME = {"bellglass/doors/docker/engine.py": {row[0] for row in engine._ANSWERS}}  # `code=code`, from a table


def errors_made(folder: str) -> Iterator[tuple[str, str, set[str]]]:
    """Where, of which class, and with which codes: none where it is neither a word nor from a known table."""
    for path in python_files(folder):
        for node in nodes(path):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in CODES:
                given = next((word.value for word in node.keywords if word.arg == "code"), None)
                from_table = CODES_BY_NAME.get(name(path), set()) if isinstance(given, ast.Name) else set()
                codes = {str(given.value)} if isinstance(given, ast.Constant) else from_table
                yield f"{name(path)}:{node.lineno}", node.func.id, codes


@pytest.mark.parametrize("folder", ["bellglass", "benchmarks"])
def test_every_error_has_a_code_of_its_class(folder: str) -> None:
    made = list(errors_made(folder))
    assert [where for where, kind, codes in made if not codes or not codes <= CODES[kind].keys()] == []


def test_every_code_is_one_word_of_one_class_and_in_use() -> None:
    used = {(kind, code) for _, kind, codes in errors_made("bellglass") for code in codes}
    listed = [(kind, code) for kind, table in CODES.items() for code in table]
    assert sorted(listed) == sorted(used)
    codes = [*(code for _, code in listed), *GUEST_FAULTS, *MODEL_FAULTS, *(kind.meaning for kind in ONE_MEANING)]
    assert [code for code in codes if not re.fullmatch(r"[a-z]+(_[a-z]+)*", code) or codes.count(code) > 1] == []


def checks(function: ast.AST) -> bool:
    """It asserts, expects an exception, or searches for a counterexample (where a crash is the failure)."""
    inside = list(ast.walk(function))
    words = {getattr(node, "attr", getattr(node, "id", "")) for node in inside}
    says_so = any(
        word.startswith(("assert", "check", "refuse", "expect", "verify")) for word in words
    )  # raises by itself
    return any(isinstance(node, ast.Assert) for node in inside) or says_so or bool(words & {"raises", "fail", "given"})


def test_every_test_can_fail() -> None:
    found = [(path, function) for path in python_files("tests") for function in functions(path)]
    helpers = {function.name for _, function in found if checks(function) and not function.name.startswith("test_")}
    wrong = []
    for path, function in found:
        called = {
            getattr(n.func, "attr", getattr(n.func, "id", "")) for n in ast.walk(function) if isinstance(n, ast.Call)
        }
        if function.name.startswith("test_") and not checks(function) and not called & helpers:
            wrong.append(f"{name(path)}:{function.name}")
    assert set(wrong) - MUST_ONLY_NOT_CRASH == set()


def test_no_test_mocks_our_own_code() -> None:
    wrong = [
        f"{name(p)}:{line}" for p in python_files("tests") for target, line in imports(p) if "mock" in target.split(".")
    ]
    assert wrong == []


WATCH = """
import json, os, sys, threading
done = []
def hook(event, args):
    if event in ("socket.connect", "socket.bind", "subprocess.Popen", "os.system", "os.mkdir", "os.remove"):
        done.append(f"{event} {args[:1]}")
    elif event == "open" and (isinstance(args[1], str) and set(args[1]) & set("wax+") or (args[2] or 0) & os.O_CREAT):
        done.append(f"writes {args[0]}")
sys.addaudithook(hook)
import importlib
for module in json.loads(sys.argv[1]):
    importlib.import_module(module)
loaded = sorted(set(json.loads(sys.argv[2])) & set(sys.modules))
print(json.dumps({"done": done, "loaded": loaded, "threads": threading.active_count()}))
"""


def test_importing_does_nothing(tmp_path: Path) -> None:
    modules = sorted(module for module in package_modules() if module != "bellglass.__main__")
    command = [
        sys.executable,
        "-W",
        "error",
        "-c",
        WATCH,
        json.dumps(modules),
        json.dumps(sorted(NEVER_LOADED_BY_IMPORTING)),
    ]
    scrubbed = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": str(ROOT),
    }
    ran = subprocess.run(command, cwd=tmp_path, env=scrubbed, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout) == {"done": [], "loaded": [], "threads": 1}, "importing did something"
    assert ran.stderr == ""
    assert list(tmp_path.iterdir()) == []


def test_packages_have_an_init_file() -> None:
    folders = {path.parent for path in python_files("bellglass")}
    assert [name(folder) for folder in sorted(folders) if not (folder / "__init__.py").is_file()] == []
    assert module_name(ROOT / "bellglass" / "__init__.py") == "bellglass"
