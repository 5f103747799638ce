"""The bootstrap: one clear error per missing thing, steps that resume, nothing to do when up to date.

A recording shell script stands for the new environment's python, so that nothing is downloaded.
"""

from __future__ import annotations

import ast
import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from source_tree import ROOT

from bellglass import bootstrap

FAKE_PYTHON = """#!/bin/sh
echo "$@" >> "{root}/calls"
for word in "$@"; do if [ -n "$BROKEN" ] && [ "$word" = "$BROKEN" ]; then exit 1; fi; done
sleep "${{SLOW:-0}}"
"""


class Checkout:
    """A small checkout whose `.venv` is already made, with the recording python in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "bellglass").mkdir()
        shutil.copy(ROOT / "bellglass" / "bootstrap.py", root / "bellglass")
        shutil.copytree(ROOT / "locks", root / "locks")
        (root / "pyproject.toml").write_text("[project]\n")
        python = root / ".venv" / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.write_text(FAKE_PYTHON.format(root=root))
        python.chmod(0o755)
        self.stamp({"venv": f"{sys.version_info[0]}.{sys.version_info[1]}"})

    def stamp(self, steps: dict[str, str]) -> None:
        (self.root / ".venv" / "bellglass-stamp.json").write_text(json.dumps(steps))

    def command(self, *flags: str) -> list[str]:
        return [sys.executable, "-I", str(self.root / "bellglass" / "bootstrap.py"), *flags]

    def run(self, *flags: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.command(*flags), capture_output=True, text=True, env={**os.environ, **env})

    def calls(self) -> list[str]:
        """What was run since the last look."""
        log = self.root / "calls"
        lines = log.read_text().splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        return lines


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_it_parses_on_old_pythons() -> None:
    tree = ast.parse((ROOT / "bellglass" / "bootstrap.py").read_text(), feature_version=(3, 6))
    hints = [n.annotation for n in ast.walk(tree) if isinstance(n, (ast.arg, ast.AnnAssign)) and n.annotation]
    hints += [n.returns for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.returns]
    assert hints
    assert [ast.unparse(hint) for hint in hints if not isinstance(hint, (ast.Name, ast.Constant))] == []


def test_it_needs_only_the_standard_library() -> None:
    command = [sys.executable, "-I", "-S", str(ROOT / "bellglass" / "bootstrap.py"), "--help"]
    assert subprocess.run(command, capture_output=True, text=True).returncode == 0


@pytest.mark.parametrize("version", [(3, 10, 0), (3, 14, 0)])
def test_an_unsupported_python_is_named_with_one_to_use(
    version: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "version_info", version)
    with pytest.raises(
        bootstrap.SetupProblem, match=r"found: CPython .*needed: CPython 3\.11.*next: make demo PYTHON="
    ):
        bootstrap.check_python()


@pytest.mark.parametrize(
    ("system", "machine", "libc", "word"),
    [
        ("win32", "AMD64", "", "wsl --install"),
        ("darwin", "x86_64", "", "arm64 Python"),
        ("linux", "x86_64", "", "without glibc"),
        ("linux", "riscv64", "glibc", "use one of these"),
        ("freebsd14", "amd64", "", "use one of these"),
    ],
)
def test_an_unsupported_platform_is_named(
    system: str, machine: str, libc: str, word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(platform, "libc_ver", lambda: (libc, "2.36" if libc else ""))
    with pytest.raises(bootstrap.SetupProblem, match=word):
        bootstrap.check_platform()


@pytest.mark.parametrize(("system", "machine"), [("darwin", "arm64"), ("linux", "x86_64"), ("linux", "aarch64")])
def test_a_supported_platform_passes(system: str, machine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(platform, "libc_ver", lambda: ("glibc", "2.36") if system == "linux" else ("", ""))
    assert bootstrap.check_platform() is None


def test_a_missing_venv_module_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ensurepip", None)
    with pytest.raises(bootstrap.SetupProblem, match=r"next: sudo apt install python3\.1\d-venv"):
        bootstrap.check_venv_module()


def test_a_full_disk_is_said_before_anything_is_downloaded() -> None:
    with pytest.raises(bootstrap.SetupProblem, match=r"disk space; found: \d+ MB free"):
        bootstrap.check_disk(10**12)


def test_steps_run_in_order_and_then_never_again(checkout: Checkout) -> None:
    ran = checkout.run("--with", "dev")
    assert ran.returncode == 0, ran.stderr
    assert "downloads at most" in ran.stderr
    calls = checkout.calls()
    assert [call.split("locks/")[1].split()[0] for call in calls[:-1]] == ["torch-cpu.txt", "base.txt", "dev.txt"]
    assert all("--require-hashes" in call and "--no-deps" in call for call in calls[:-1])
    assert "--editable ." in calls[-1]
    assert "--no-build-isolation" in calls[-1], "or pip would fetch an unlocked setuptools"

    again = checkout.run()
    assert (again.returncode, again.stdout, again.stderr, checkout.calls()) == (0, "", "", [])


def test_an_up_to_date_environment_costs_no_time(checkout: Checkout) -> None:
    checkout.run()
    times = []
    for _ in range(3):
        start = os.times()
        checkout.run()
        end = os.times()
        times.append(end.children_user + end.children_system - start.children_user - start.children_system)
    assert min(times) < 0.5


def test_an_interrupted_install_goes_on_where_it_was(checkout: Checkout) -> None:
    broken = checkout.run(BROKEN="locks/base.txt")
    assert broken.returncode == 3
    assert "error: installing locks/base.txt; found: exit code 1" in broken.stderr
    assert len(checkout.calls()) == 2
    assert checkout.run().returncode == 0
    assert [("base.txt" in call, "--editable" in call) for call in checkout.calls()] == [(True, False), (False, True)]


def test_only_what_changed_is_installed_again(checkout: Checkout) -> None:
    checkout.run("--with", "litellm")
    checkout.calls()
    with (checkout.root / "locks" / "litellm.txt").open("a") as lock:
        lock.write("# newer\n")
    checkout.run()  # did not ask for litellm, but has it
    (call,) = checkout.calls()
    assert "locks/litellm.txt" in call


def test_cpu_wheels_come_from_find_links_or_else_from_pytorch(checkout: Checkout) -> None:
    if sys.platform == "darwin":
        pytest.skip("macOS takes them from PyPI")
    checkout.run(BROKEN="--no-index")
    first, second = checkout.calls()[:2]
    assert first.endswith("--no-index")
    assert second.endswith(f"--index-url {bootstrap.TORCH_INDEX}")

    ran = Checkout.run(checkout, "--device", "cuda")
    assert "torch-cuda" in ran.stderr
    (call,) = checkout.calls()
    assert call.endswith("locks/torch-cuda.txt --force-reinstall"), "a CPU torch of the same version must not stay"
    checkout.run()
    assert checkout.calls() == [], "what .venv has stays the default"


def test_torch_that_cannot_be_fetched_is_one_clear_error(checkout: Checkout) -> None:
    ran = checkout.run(BROKEN="locks/torch-cpu.txt")
    assert ran.returncode == 3
    assert ran.stderr.count("error: ") == 1
    assert "DEVICE=cuda" in ran.stderr or sys.platform == "darwin"


def test_a_damaged_stamp_or_another_python_starts_over(checkout: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "VENV", str(checkout.root / ".venv"))
    monkeypatch.setattr(bootstrap, "STAMP", str(checkout.root / ".venv" / "bellglass-stamp.json"))
    assert bootstrap.read_stamp() != {}
    for text in ("", "[]", "{", '{"venv": "3.9"}'):
        Path(bootstrap.STAMP).write_text(text)
        assert bootstrap.read_stamp() == {}, text


def test_two_at_once_take_turns(checkout: Checkout) -> None:
    env = {**os.environ, "SLOW": "0.1"}
    both = [subprocess.Popen(checkout.command(), env=env, stderr=subprocess.DEVNULL) for _ in range(2)]
    assert [process.wait(30) for process in both] == [0, 0]
    assert len(checkout.calls()) == 3
