"""The scripts under benchmarks/ as modules, for the tests of what they compute and write."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

from source_tree import ROOT


def load(name: str) -> ModuleType:
    """By the name that the scripts know each other under, so that they and the tests share one copy."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        before, sys.modules[name] = list(sys.path), module  # dataclasses look their module up there
        try:
            spec.loader.exec_module(module)
        finally:
            sys.path[:] = before
    return sys.modules[name]
