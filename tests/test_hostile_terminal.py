"""What a hostile loop wrote for a terminal never reaches one: nothing but the modules named here prints at all, every
command is run on a loop of which every string is such a text, and a few on a real terminal."""

from __future__ import annotations

import ast
import io
import os
import pty
import subprocess
import sys
from pathlib import Path

import hostile_loop
import pytest
from hostile_commands import TYPED, run, unacted
from hostile_loop import Canaries
from source_tree import name, nodes, python_files
from whose import VARIABLE

from bellglass.commands import console, terminal

PLANTED = ("\x1b]0;owned", "\x1b[2J", "\x1b]8;", "\x07", "\u202e")  # none of these does rich write by itself


@pytest.fixture
def canaries(tmp_path: Path) -> Canaries:
    found = Canaries(tmp_path / "receiver", os.getpid())
    found.lay()
    return found


@pytest.fixture
def loop(tmp_path: Path, canaries: Canaries, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "state"))
    folder = hostile_loop.write(tmp_path / "loops", canaries)
    hostile_loop.words(folder, canaries)
    return folder


def on_a_terminal(*words: str) -> str:
    """What is written to it, as it is."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-P", "-m", "bellglass", *words]
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "120"}
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                more = os.read(ours, 65536)
            except OSError:  # its other end is closed
                break
            shown += more
            if b"[y/N]" in shown:
                process.terminate()
    os.close(ours)
    return shown.decode("utf-8", "replace")


@pytest.mark.parametrize(
    "words", [("status",), ("log",), ("diff",), ("review",), ("compare",), ("verify",), ("takeover",), ("resume",)]
)
def test_a_terminal_is_sent_nothing_that_the_loops_maker_wrote_for_it(
    loop: Path, canaries: Canaries, words: tuple[str, ...]
) -> None:
    shown = on_a_terminal(words[0], str(loop), *words[1:])
    assert shown
    assert [sign for sign in PLANTED if sign in shown] == []
    assert canaries.unharmed()


PRINTS = {  # where a command's words come out; the rest runs as a program of its own, where there is no loop
    "bellglass/commands/terminal.py",
    "bellglass/bootstrap.py",
    "bellglass/doors/docker/selfcheck.py",
    "bellglass/doors/docker/channels/guest.py",
}
STREAMS = {"stdout", "stderr", "__stdout__", "__stderr__"}


def printing(node: ast.AST) -> bool:
    """Whether it says anything by another way than `say` and `Terminal`."""
    if isinstance(node, ast.Call):
        called = getattr(node.func, "attr", getattr(node.func, "id", ""))
        owner = getattr(getattr(node.func, "value", None), "id", "")
        if called == "print":
            return isinstance(node.func, ast.Name)
        return called in ("echo", "secho", "echo_via_pager") or (called == "Console" and owner != "")
    if isinstance(node, ast.Attribute) and node.attr in ("write", "writelines", "buffer"):
        return getattr(node.value, "attr", "") in STREAMS
    return isinstance(node, ast.ImportFrom) and node.module == "rich" and "print" in {a.name for a in node.names}


def test_nothing_else_prints() -> None:
    places = {
        f"{name(path)}:{node.lineno}" for path in python_files("bellglass") for node in nodes(path) if printing(node)
    }
    assert {place for place in places if place.partition(":")[0] not in PRINTS} == set()
    consoles = {
        name(path)
        for path in python_files("bellglass")
        for node in nodes(path)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("rich")
        and {"Console", "get_console"} & {alias.name for alias in node.names}
    }  # fmt: skip
    assert consoles == {"bellglass/commands/console.py"}


@pytest.mark.parametrize("line", ["print('x')", "typer.echo(x)", "sys.stderr.write(x)", "from rich import print"])
def test_a_new_print_is_seen(line: str) -> None:
    assert any(printing(node) for node in ast.walk(ast.parse(line)))


@pytest.fixture(params=["words", "strings"])
def spoilt(request: pytest.FixtureRequest, tmp_path: Path, canaries: Canaries, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A loop whose folder's name is such a text, too."""
    monkeypatch.setenv(VARIABLE, str(tmp_path / "state"))
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    monkeypatch.chdir(tmp_path)
    folder = hostile_loop.write(tmp_path / "made", canaries)
    hostile_loop.KINDS[request.param](folder, canaries)
    (tmp_path / "loops").mkdir()
    return folder.rename(tmp_path / "loops" / f"{hostile_loop.TERMINAL}\u202e")


def shown_by_all(loop: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    names = {"loop": loop, "home": loop.parent, "result": loop.parent.parent / "result\x1b[2J"}
    found = {}
    for case in TYPED:
        found[" ".join(case)] = run(tuple(word.format(**names) for word in case), monkeypatch)[1]
    return found


def test_no_command_sends_a_terminal_what_its_loop_says(spoilt: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = shown_by_all(spoilt, monkeypatch)
    assert {command: unacted(text) for command, text in shown.items() if unacted(text)} == {}
    assert all(shown.values())


def test_without_the_one_place_most_commands_would(spoilt: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (terminal, console):
        monkeypatch.setattr(module, "visible", lambda text: text)
    reached = {command.split()[0] for command, text in shown_by_all(spoilt, monkeypatch).items() if "\x1b" in text}
    assert {"status", "log", "diff", "report", "pack", "review", "verify", "resume"} <= reached


def test_a_mistake_of_ours_quotes_nothing_raw(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.say_fault(ValueError, ValueError(hostile_loop.TERMINAL), None)
    assert unacted(capsys.readouterr().err) == ""


def test_text_is_laid_out_by_what_is_shown_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    out = console.Terminal(width=20)
    out.print(console.Text("\x1b[2J" * 8))
    out.print("[red]:smile:[/red]")
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 20
    assert "".join(lines) == "\\u{1b}[2J" * 8 + "[red]:smile:[/red]"


def test_a_terminal_without_unicode_is_shown_all_of_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(shown, encoding="ascii"))
    terminal.say("0.1 ± 0.2")
    terminal.say_exactly("–")
    sys.stdout.flush()
    assert shown.getvalue() == b"0.1 \\xb1 0.2\n\\u2013"
