"""Writes docs/cli.md from the commands themselves: `python docs/make_cli.py`. A test compares the two."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import typer  # noqa: E402

from bellglass.cli import app  # noqa: E402


def page() -> str:
    group: Any = typer.main.get_command(app)
    parts = ["# Commands\n\nMade by `python docs/make_cli.py`; don't edit.\n"]
    for name, command in sorted(group.commands.items()):
        subcommands = getattr(command, "commands", None)
        if subcommands:
            parts += [describe(f"{name} {inner}", each) for inner, each in sorted(subcommands.items())]
        else:
            parts.append(describe(name, command))
    return "\n".join(parts)


def describe(name: str, command: Any) -> str:
    words = [argument(p) for p in command.params if not p.opts[0].startswith("-")]
    lines = [
        f"## bellglass {name}\n",
        (command.help or "").strip() + "\n",
        f"    bellglass {' '.join([name, *words])} [options]\n",
    ]
    for parameter in command.params:
        if getattr(parameter, "hidden", False):
            continue
        if not parameter.opts[0].startswith("-"):
            lines.append(f"- `{argument(parameter).strip('[]')}`: {parameter.help}{default(parameter)}")
        else:
            flags = ", ".join(f"`{flag}`" for flag in (*parameter.opts, *parameter.secondary_opts))
            lines.append(f"- {flags}: {parameter.help}{bounds(parameter)}{default(parameter)}")
    return "\n".join(lines) + "\n"


def bounds(parameter: Any) -> str:
    least, most = getattr(parameter, "min", None), getattr(parameter, "max", None)
    words = [f"at least {least}"] if least is not None else []
    words += [f"at most {most}"] if most is not None else []
    return f" {', '.join(words).capitalize()}." if words else ""


def default(parameter: Any) -> str:
    """What holds where it is left out; nothing where the words say so or nothing does."""
    value = parameter.default
    if (
        value in (None, "", ())
        or isinstance(value, bool)
        or callable(value)
        or "default" in (parameter.help or "").lower()
    ):
        return ""
    return f" Default: {value}."


def argument(parameter: Any) -> str:
    name = parameter.metavar or parameter.name.upper()
    return name if parameter.required else f"[{name}]"


if __name__ == "__main__":
    (HERE / "cli.md").write_text(page())
