"""What is installed: only `bellglass` at top level, with its content; and locks that fit the project file."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement
from source_tree import ROOT, python_files

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
CONTENT = ("agent", "locks", "sandbox", "tasks", "trainer_seed")
LAYERED_LOCKS = ("base", "trainer", "litellm", "digits", "tpe", "wandb", "dev")
PIN = re.compile(
    r"(?m)^([a-z0-9-]+)==([^\s;\\]+)(?: ; [^\\\n]+)? \\\n((?: +--hash=sha256:[0-9a-f]{64}(?: \\\n|\n|$))+)"
)


def pins(lock: str) -> dict[str, str]:
    return {name: version for name, version, _ in PIN.findall((ROOT / "locks" / f"{lock}.txt").read_text())}


def load_update() -> ModuleType:
    spec = importlib.util.spec_from_file_location("locks_update", ROOT / "locks" / "update.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_package_folder_is_listed() -> None:
    folders = {path.parent.relative_to(ROOT) for path in python_files("bellglass")}
    expected = {".".join(folder.parts) for folder in folders}
    expected |= {"bellglass.content", *(f"bellglass.content.{name}" for name in CONTENT)}
    assert sorted(PROJECT["tool"]["setuptools"]["packages"]) == sorted(expected)


def test_locks_pin_and_hash_every_line_and_name_no_place() -> None:
    for path in sorted((ROOT / "locks").glob("*.txt")):
        rest = PIN.sub("", path.read_text())
        assert [line for line in rest.splitlines() if line and not line.startswith("#")] == [], path.name


def test_locks_agree_with_each_other() -> None:
    seen: dict[str, set[str]] = {}
    for lock in (*LAYERED_LOCKS, "torch-cpu", "torch-cuda"):
        for name, version in pins(lock).items():
            seen.setdefault(name, set()).add(version)
    assert {name: versions for name, versions in seen.items() if len(versions) > 1} == {}


def test_locks_satisfy_the_project_file() -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    wanted = {
        "base": PROJECT["project"]["dependencies"] + extras["docker"] + extras["trainer"],
        "trainer": extras["trainer"],
        "litellm": extras["litellm"],
        "digits": extras["digits"],
        "tpe": extras["tpe"],
        "wandb": extras["wandb"],
        "dev": extras["dev"] + extras["litellm"] + extras["digits"] + extras["tpe"] + extras["wandb"],
    }
    for lock, requirements in wanted.items():
        locked = pins(lock)
        for requirement in map(Requirement, requirements):
            assert requirement.specifier.contains(locked[requirement.name]), f"{lock}: {requirement}"


def test_versions_known_to_be_bad_are_refused() -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    (litellm,), lightning = map(Requirement, extras["litellm"]), Requirement(extras["trainer"][0])
    for bad in ("1.82.7", "1.82.8", "1.106.0", "1.107.3", "1.108.1", "2.0.0"):
        assert not litellm.specifier.contains(bad), bad
    for bad in ("2.6.2", "2.6.3", "2.6.5"):
        assert not lightning.specifier.contains(bad), bad


def test_the_torch_lock_has_a_wheel_for_every_supported_machine() -> None:
    text = (ROOT / "locks" / "torch-cpu.txt").read_text()
    named = dict(line[2:].split("  ")[::-1] for line in text.splitlines() if line.endswith(".whl"))
    for python in ("cp311", "cp312", "cp313"):
        for machine in ("manylinux_2_28_x86_64", "manylinux_2_28_aarch64", "macosx_14_0_arm64"):
            (wheel,) = (name for name in named if f"-{python}-" in name and machine in name)
            assert f"--hash=sha256:{named[wheel]}" in text
    assert text.count("--hash=") == 9


def test_the_torch_lock_is_made_from_an_index_page() -> None:
    page = "".join(
        f'<a href="/whl/torch-2.13.0{quoted}.whl#sha256={digit * 64}" data-x="1">x</a>'
        for quoted, digit in {
            "%2Bcpu-cp311-cp311-manylinux_2_28_x86_64": "a",
            "%2Bcpu-cp310-cp310-manylinux_2_28_x86_64": "b",
            "%2Bcpu-cp313-cp313t-manylinux_2_28_x86_64": "c",
            "%2Bcu130-cp311-cp311-manylinux_2_28_x86_64": "d",
            "-cp312-cp312-macosx_14_0_arm64": "e",
            "%2Bcpu-cp312-cp312-win_amd64": "f",
        }.items()
    )
    wheels = load_update().wheels_of_page(page)
    assert wheels == {
        "torch-2.13.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl": "a" * 64,
        "torch-2.13.0-cp312-cp312-macosx_14_0_arm64.whl": "e" * 64,
    }


def test_the_base_lock_lists_what_torch_needs() -> None:
    try:
        needs = importlib.metadata.requires("torch") or []
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("torch is not installed")
    plain = {r.name for r in map(Requirement, needs) if r.marker is None or r.marker.evaluate({"extra": ""})}
    plain = {name for name in plain if not name.startswith(("nvidia", "cuda", "triton"))}
    assert plain <= {Requirement(need).name for need in load_update().TORCH_NEEDS}
    assert plain <= set(pins("base")) & set(pins("trainer"))


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout's files, so that building leaves nothing behind in the checkout."""
    copy = tmp_path_factory.mktemp("copy")
    names = ["bellglass", *CONTENT, "tests", "pyproject.toml", "README.md", "LICENSE", "Dockerfile"]
    for name in names:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name)
        else:
            shutil.copy(ROOT / name, copy / name)
    return copy


def environment(folder: Path) -> Path:
    """A fresh environment that sees this one's packages, but not its bellglass. Returns its python."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "outer.pth").write_text(str(Path(importlib.util.find_spec("pip").origin).parent.parent) + "\n")
    return folder / "bin" / "python"


def pip(*arguments: str | Path) -> None:
    command = [sys.executable, "-m", "pip", *arguments]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr


PROBE = """
import importlib.util, json, bellglass, bellglass.paths
tops = ["agent", "sandbox", "tasks", "trainer_seed", "tests", "locks", "benchmarks", "docs"]
print(json.dumps([
    bellglass.__file__,
    str(bellglass.paths.content_root()),
    [name for name in tops if importlib.util.find_spec(name)],
]))
"""


def probe(python: Path, elsewhere: Path) -> tuple[str, str, list[str]]:
    ran = subprocess.run([python, "-c", PROBE], cwd=elsewhere, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    place, content, leaked = json.loads(ran.stdout)
    return place, content, leaked


@pytest.mark.slow
def test_the_wheel_holds_bellglass_with_its_content_and_nothing_else(copy: Path, tmp_path: Path) -> None:
    pip("wheel", "-q", "--no-deps", "--no-build-isolation", "-w", tmp_path / "wheels", copy)
    (wheel,) = (tmp_path / "wheels").glob("*.whl")
    python = environment(tmp_path / "env")
    pip("--python", python, "install", "-q", "--no-deps", "--no-index", wheel)
    place, content, leaked = probe(python, tmp_path)
    assert place.startswith(str(tmp_path / "env"))
    assert content == str(Path(place).parent / "content")
    assert leaked == []
    for name in CONTENT:
        for path in (ROOT / name).rglob("*"):
            inside = Path(content) / path.relative_to(ROOT)
            if path.is_file() and "__pycache__" not in path.parts:
                assert inside.read_bytes() == path.read_bytes(), inside
    for path in (ROOT / "bellglass" / "web" / "static").iterdir():
        assert (Path(place).parent / "web" / "static" / path.name).read_bytes() == path.read_bytes(), path.name
    assert (Path(content) / "Dockerfile").is_file()
    assert not any((Path(content) / name).exists() for name in ("tests", "pyproject.toml", "bellglass"))


@pytest.mark.slow
def test_an_editable_install_leaks_no_other_name(copy: Path, tmp_path: Path) -> None:
    python = environment(tmp_path / "env")
    pip("--python", python, "install", "-q", "--no-deps", "--no-build-isolation", "--editable", copy)
    place, content, leaked = probe(python, tmp_path)
    assert place == str(copy / "bellglass" / "__init__.py")
    assert content == str(copy)
    assert leaked == []
