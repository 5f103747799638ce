"""The command line. Thin: each command checks its words, opens a loop and prints; the work is in `loop` and `steps`.

Heavy imports happen inside commands, so that `--help` and `status` answer at once.
"""

from __future__ import annotations

import sys

import typer

from bellglass import __version__
from bellglass.commands import check, decide, export, look, report, start, watch
from bellglass.commands.terminal import say, say_fault
from bellglass.errors import BellglassError, Interrupted

app = typer.Typer(
    name="bellglass",
    help="A real, miniature recursive-improvement testbed: sealed, bounded, measured.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

for panel, commands in (
    ("Start", (start.demo, start.run, start.resume)),
    ("Look", (look.status, look.log, look.diff, watch.watch, report.report, report.compare)),
    ("Look", (watch.pack, look.tasks)),
    ("Decide", (decide.review, decide.stop)),
    ("Check", (check.calibrate, check.verify, check.recheck, check.takeover, check.doctor)),
):
    for command in commands:
        app.command(rich_help_panel=panel)(command)
app.add_typer(export.export, name="export", rich_help_panel="Look")
app.add_typer(check.image, name="image", rich_help_panel="Check")


@app.callback(invoke_without_command=True)
def version(show: bool = typer.Option(False, "--version", help="Print the version and end.")) -> None:
    if show:
        say(f"bellglass {__version__}")
        raise typer.Exit


def explain(error: BellglassError) -> str:
    """The one clear error: the thing, what was found, what was needed, the next command, the code. A stop is none."""
    lines = [f"{'stopped' if isinstance(error, Interrupted) else 'error'}: {error.thing}"]
    for label, text in (("found", error.found), ("needed", error.needed), ("next", error.next_command)):
        if text:
            lines.append(f"  {label + ':':<8}{text}")
    return "\n".join([*lines, f"  code:   {error.code}"])


def main() -> None:
    sys.excepthook = say_fault
    try:
        app()
    except BellglassError as error:
        say(explain(error), err=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        say("interrupted; what was done is kept: bellglass resume", err=True)
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
