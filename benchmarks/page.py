"""Writes the parts of docs that scripts make: the text between `<!-- begin NAME -->` and `<!-- end NAME -->`."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BENCHMARKS = ROOT / "docs" / "benchmarks.md"
UNRECORDED = "not recorded"  # the machine of what was stored before machines were


def get(page: Path, name: str) -> str:
    return _inside(page, name)[1].strip()


def put(page: Path, name: str, text: str) -> None:
    found = _inside(page, name)
    page.write_text(f"{found.string[: found.start(1)]}\n{text.strip()}\n{found.string[found.end(1) :]}")


def _inside(page: Path, name: str) -> re.Match[str]:
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    found = re.search(f"{re.escape(begin)}(.*?){re.escape(end)}", page.read_text(), re.DOTALL)
    if found is None:
        raise SystemExit(f"{page} has no section {name}: add the lines {begin} and {end}")
    return found


def machine(device: str = "cpu") -> str:
    """The machine that figures were made on, in a line; with its GPU where they are of one."""
    model = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        names = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
        model = names[0] if names else model
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    system = f"{platform.system()} {platform.release()}, Python {platform.python_version()}"
    return f"{os.cpu_count()} cores ({model}), {memory:.0f} GiB, {system}{'' if device == 'cpu' else _gpu(device)}"


def _gpu(device: str) -> str:
    import torch

    return f", {torch.cuda.get_device_name(device)}, torch {torch.__version__}"


def machines(made: Iterable[tuple[str, str]], each: str = "") -> str:
    """Of (machine, what was made on it): each machine once, with all of that. `each`: what those are called."""
    found: dict[str, list[str]] = {}
    for machine, what in made:
        found.setdefault(machine, []).append(what)
    return "; ".join(f"{machine} ({each}{', '.join(parts)})" for machine, parts in found.items())


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])
