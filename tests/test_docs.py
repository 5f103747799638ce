"""What the documents and the error messages tell a person to type exists, and every link leads somewhere."""

from __future__ import annotations

import ast
import functools
import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from source_tree import ROOT, name, nodes, package_modules, python_files

from bellglass import tasks
from bellglass.cli import app
from bellglass.config import is_hosted, load
from bellglass.records import Kind

DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("sandbox/*.md")])
FENCE = re.compile(r"(?ms)^```[^\n]*\n(.*?)^```")

NOT_COMMANDS = {"bellglass seed "}  # what is hashed into a seed


def test_the_map_names_every_module() -> None:
    named = set(re.findall(r"[a-z_]+", (ROOT / "docs" / "architecture.md").read_text().split("```")[1]))
    modules = {part for module in package_modules() if ".doors." not in module for part in module.split(".")[1:]}
    assert modules - {"__main__", "server"} - named == set()


def commands_typed(text: str) -> Iterator[str]:
    """Lines of code blocks, and code in running text, that start with one of our commands."""
    lines = [line for block in FENCE.findall(text) for line in block.splitlines()]
    lines += re.findall(r"`([^`\n]+)`", FENCE.sub("", text))
    for line in lines:
        typed = re.sub(r"^(\$ |[A-Z_]+=\S+ |\.venv/bin/)+", "", re.sub(r"\s+# .*", "", line.strip()))
        if re.match(r"(make|bellglass) [a-z]", typed):
            yield typed


@functools.cache
def command_line() -> Any:
    return typer.main.get_command(app)


def problem_with(typed: str) -> str | None:
    """Why a command can't be typed, or None. Words in place of values (FILE, <loop>, …) are taken for values."""
    program, *words = re.sub(r"\$\(.*?\)|[;|&>].*", "", typed).split()
    if program == "make":
        targets = re.findall(r"(?m)^([a-z]+):", (ROOT / "Makefile").read_text())
        return next((f"no make target {word}" for word in words if "=" not in word and word not in targets), None)
    command = command_line()
    while words and hasattr(command, "commands"):
        if words[0].startswith("-"):
            break
        if words[0] not in command.commands:
            return f"no command {words[0]}"
        command = command.commands[words.pop(0)]
    flags = {flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts)}
    given = {word.split("=")[0] for word in words if word.startswith("--")}
    return f"no flag {sorted(given - flags - {'--help'})}" if given - flags - {"--help"} else None


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_no_document_holds_two_versions_of_itself(path: Path) -> None:
    assert not re.findall(r"(?m)^(<<<<<<<|=======|>>>>>>>)( .*)?$", path.read_text())


SAFETY_ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in (ROOT / "docs" / "safety.md").read_text().splitlines()
    if line.startswith("| ") and not line.startswith("| attack |")
]


@pytest.mark.parametrize("row", SAFETY_ROWS, ids=lambda row: row[0].strip("| ")[:60])
def test_every_promise_of_safety_names_what_shows_it(row: list[str]) -> None:
    _attack, outcome, _defence, shown, _left = row
    assert outcome in ("prevented", "detected", "measured")
    files = re.findall(r"`(?:python )?((?:tests|benchmarks)/[a-z_/]+\.py)", shown)
    assert files, "neither a test nor a script"
    assert [file for file in files if not (ROOT / file).exists()] == []


STATISTICS, FIGURES_FROM = (ROOT / "docs" / "statistics.md").read_text().split("## Where the figures are from")
FIGURES = [
    (line.split(" | ")[0].strip("| "), re.findall(r"\]\(benchmarks.md#([^)]+)\)", line)[0], line.split("`")[-2])
    for line in FIGURES_FROM.splitlines()
    if "](benchmarks.md#" in line
]


def plain(text: str) -> str:
    return " ".join(text.replace("*", "").split())


def section(path: Path, anchor: str) -> str:
    """From its heading to the next."""
    parts = re.split(r"(?m)^(#+ .*)$", path.read_text())
    return next(text for head, text in zip(parts[1::2], parts[2::2], strict=True) if slug(head) == anchor)


@pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: figure[0])
def test_every_figure_of_statistics_stands_where_a_command_put_it(figure: tuple[str, str, str]) -> None:
    here, anchor, there = figure
    assert here in plain(STATISTICS)
    assert there.replace("\\|", "|") in section(ROOT / "docs" / "benchmarks.md", anchor)


def test_no_figure_of_statistics_is_left_out() -> None:
    listed = [here for here, _, _ in FIGURES]
    for paragraph in re.split(r"\n\n|\n(?=- )", STATISTICS):
        text = plain(paragraph)
        for found in re.findall(r"\d+\.\d+%|in \d+ of \d+|\d+ of \d+ \w+ions", text):
            assert any(found in here for here in listed), found
        if "simulation" in text and "benchmarks.md" not in text:
            assert any(here in text for here in listed), text


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_commands_in_documents_exist(path: Path) -> None:
    wrong = {typed: problem for typed in commands_typed(path.read_text()) if (problem := problem_with(typed))}
    assert wrong == {}


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_scripts_in_documents_exist_and_know_their_flags(path: Path) -> None:
    wrong = []
    for typed in re.findall(r"python (benchmarks/[^`#\n]+)", re.sub(r"(?<=\S)\n(?=--)", " ", path.read_text())):
        script, *words = typed.split()
        file = ROOT / script
        flags = {word for word in words if word.startswith("--")}
        if not file.exists() or any(f'"{flag}"' not in file.read_text() for flag in flags):
            wrong.append(typed)
    assert wrong == []


def test_commands_in_messages_exist() -> None:
    wrong = [
        f"{name(path)}:{node.lineno}: {node.value}: {problem}"
        for path in python_files("bellglass")
        for node in nodes(path)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value not in NOT_COMMANDS
        if re.match(r"(make|bellglass) [a-z-]+( |$)", node.value) and len(shlex_words(node.value)) < 8
        if (problem := problem_with(node.value))
    ]
    assert wrong == []


def shlex_words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        return text.split()


def slug(head: str) -> str:
    return re.sub(r"[^\w\- ]", "", head.lstrip("# ").lower()).replace(" ", "-")


def anchors(path: Path) -> set[str]:
    return {slug(head) for head in re.findall(r"(?m)^#+ .*$", FENCE.sub("", path.read_text()))}


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_links_in_documents_lead_somewhere(path: Path) -> None:
    wrong = []
    for link in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", path.read_text())):
        if not re.match(r"https?:|mailto:", link):
            file, _, anchor = link.partition("#")
            target = (path.parent / file).resolve() if file else path
            if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
                wrong.append(link)
    assert wrong == []


@pytest.mark.parametrize("made", ["cli", "config", "errors"])
def test_pages_made_from_the_code_are_fresh(made: str) -> None:
    spec = importlib.util.spec_from_file_location(f"make_{made}", ROOT / "docs" / f"make_{made}.py")
    assert spec is not None
    assert spec.loader is not None
    maker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maker)
    assert (ROOT / "docs" / f"{made}.md").read_text() == maker.page(), "next: make fix"


def test_the_example_of_a_config_is_one_that_its_improver_can_work_under(tmp_path: Path) -> None:
    (tmp_path / "loop.toml").write_text(FENCE.findall((ROOT / "docs" / "config.md").read_text())[0])
    config = load(tmp_path / "loop.toml")
    assert is_hosted(config.models["main"]) or set(config.may_edit) == set(Kind)  # the built-in ones don't know of it


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_parts_that_scripts_make_were_made(path: Path) -> None:
    text = path.read_text()
    made = dict(re.findall(r"(?s)<!-- begin ([\w-]+) -->(.*?)<!-- end \1 -->", text))
    assert set(made) == set(re.findall(r"<!-- (?:begin|end) ([\w-]+) -->", text))
    assert [part for part, inside in made.items() if not inside.strip()] == []


def test_every_attack_that_safety_md_lists_names_a_test_or_a_script_that_exists() -> None:
    rows = [line for line in (ROOT / "docs" / "safety.md").read_text().splitlines() if line.startswith("| ")]
    attacks = [row.strip("| ").split(" | ") for row in rows if not row.startswith(("| attack", "|---"))]
    assert len(attacks) > 20
    for attack, verdict, _, shown_by, _ in attacks:
        assert verdict in ("prevented", "detected", "measured"), attack
        named = re.findall(r"(?:tests|benchmarks)/\w[\w/]*\.py", shown_by)
        assert named, attack
        assert [path for path in named if not (ROOT / path).is_file()] == [], attack


def test_every_loop_that_the_readme_starts_needs_nothing_that_was_not_shipped() -> None:
    typed = [line.split() for line in commands_typed((ROOT / "README.md").read_text())]
    started = {words[2] for words in typed if words[:2] == ["bellglass", "run"] and not words[2].startswith("-")}
    assert "stories" in started
    assert {name for name in started if tasks.load(name).downloads} == set()


def test_the_readme_names_the_two_commands() -> None:
    assert {"make demo", "make test"} <= set(commands_typed((ROOT / "README.md").read_text()))


def test_a_wrong_command_is_noticed() -> None:
    assert problem_with("make nothing")
    assert problem_with("bellglass nothing")
    assert problem_with("bellglass image nothing")
    assert problem_with("bellglass run stories --nothing 1")
    assert problem_with("bellglass run stories --generations 5") is None
