"""Writes the lock files again, from pyproject.toml and the indexes: `python locks/update.py`, then commit what changed.

    torch-cpu.txt   step 1: torch alone (install with --no-deps): the CPU wheels of PyTorch's own index, and macOS's
    torch-cuda.txt  step 1 instead, where a GPU is asked for: PyPI's torch with its CUDA libraries (Linux)
    base.txt        step 2: what the loop needs: core, docker, trainer, and what torch itself needs
    trainer.txt     a part of base.txt: what the trainer's image needs beside torch
    litellm.txt     hosted models; digits.txt: the `digits` task; tpe.txt: the baseline `tpe`; wandb.txt: W&B
    dev.txt         everything for `make check` and `make test`

Every file pins versions and hashes for Python 3.11-3.13 on Linux (x86-64, aarch64) and macOS (Apple silicon), and all
agree with each other. They are complete, so they are installed without a resolver (pip's --no-deps).

Needs uv (`pip install uv`), which reads metadata only and downloads no wheel. Standard library besides.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import urllib.request
from html import unescape
from pathlib import Path
from urllib.parse import unquote

LOCKS = Path(__file__).resolve().parent
TORCH = "2.13.0"
TORCH_INDEX = "https://download.pytorch.org/whl/cpu/torch/"
# What torch's CPU wheels require; tests/test_packaging.py compares it with the installed wheel.
TORCH_NEEDS = [
    "filelock",
    "fsspec>=0.8.5",
    "jinja2",
    "networkx>=2.5.1",
    "setuptools>=77.0.3",
    "sympy>=1.13.3",
    "typing-extensions>=4.10.0",
]
SUPPORTED_WHEEL = re.compile(
    rf"torch-{re.escape(TORCH)}"
    r"(\+cpu-cp3(11|12|13)-cp3\d+-manylinux_2_28_(x86_64|aarch64)|-cp3(11|12|13)-cp3\d+-macosx_\w+_arm64)\.whl"
)


def wheels_of_page(html: str) -> dict[str, str]:
    """File name -> sha256 of every wheel for a supported platform that a "simple" index page lists."""
    links = re.findall(r"""href=["']?([^"'\s>]+)#sha256=([0-9a-f]{64})""", unescape(html))
    named = {unquote(link).rsplit("/", 1)[-1]: digest for link, digest in links}
    return {name: digest for name, digest in sorted(named.items()) if SUPPORTED_WHEEL.fullmatch(name)}


def torch_cpu_lock(wheels: dict[str, str]) -> str:
    """One requirement with several accepted hashes; the comments name the wheels."""
    assert len(wheels) == 9, f"expected 3 Pythons x 3 platforms, found {list(wheels)}"
    names = "".join(f"# {digest[:12]}  {name}\n" for name, digest in wheels.items())
    pins = " \\\n".join([f"torch=={TORCH}", *(f"    --hash=sha256:{digest}" for digest in wheels.values())])
    return f"{header()}#\n{names}{pins}\n"


def header() -> str:
    return "# Made by locks/update.py; do not edit.\n"


def resolve(uv: str, wanted: list[str], work: Path, *, constraints: Path | None = None, torch: bool = False) -> str:
    """Pins and hashes for `wanted`, for all supported platforms at once."""
    source, override, out = work / "wanted.in", work / "override.txt", work / "out.txt"
    source.write_text("\n".join(wanted) + "\n")
    # torch has its own lock: an impossible marker keeps it and its gigabytes of CUDA libraries out of this one.
    override.write_text("" if torch else f"torch=={TORCH}; sys_platform == 'never'\n")
    out.unlink(missing_ok=True)
    command = [uv, "pip", "compile", str(source), "-o", str(out), "--quiet", "--universal", "--python-version", "3.11"]
    command += ["--fork-strategy", "fewest", "--only-binary", ":all:", "--generate-hashes", "--no-header"]
    command += ["--no-annotate", "--no-config", "--override", str(override)]
    command += ["--constraints", str(constraints)] if constraints else []
    subprocess.run(command, check=True)
    blocks = re.split(r"(?m)^(?=[a-z0-9])", out.read_text())
    return "".join(block for block in blocks if "sys_platform == 'never'" not in block and "'win32'" not in block)


def main() -> int:
    uv = shutil.which("uv")
    if uv is None:
        print("locks/update.py needs uv; next: pip install uv", file=sys.stderr)
        return 3
    project = tomllib.loads((LOCKS.parent / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    trainer = TORCH_NEEDS + extras["trainer"]
    locks = {
        "base": project["dependencies"] + extras["docker"] + trainer,
        "trainer": trainer,
        "litellm": extras["litellm"],
        "digits": extras["digits"],
        "tpe": extras["tpe"],
        "wandb": extras["wandb"],
        "dev": extras["litellm"] + extras["digits"] + extras["tpe"] + extras["wandb"] + extras["dev"],
    }
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        everything = work / "everything.txt"
        together = resolve(uv, [item for wanted in locks.values() for item in wanted], work)
        everything.write_text(together)
        for name, wanted in locks.items():
            text = resolve(uv, wanted, work, constraints=everything)
            (LOCKS / f"{name}.txt").write_text(header() + text)
        cuda = resolve(uv, [f"torch=={TORCH}"], work, constraints=everything, torch=True)
        (LOCKS / "torch-cuda.txt").write_text(header() + cuda)
    request = urllib.request.Request(TORCH_INDEX, headers={"User-Agent": "bellglass-locks"})
    with urllib.request.urlopen(request, timeout=60) as page:
        (LOCKS / "torch-cpu.txt").write_text(torch_cpu_lock(wheels_of_page(page.read().decode())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
