"""Commands that put a loop on paper: report and compare. They change nothing in a loop's record."""

from __future__ import annotations

import json as json_
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bellglass.commands.options import Json, LoopName, Loops
from bellglass.commands.terminal import say, say_exactly
from bellglass.paths import written_anew

if TYPE_CHECKING:
    from bellglass.show.showing import Shown


class Format(StrEnum):
    HTML = "html"
    MD = "md"
    SVG = "svg"


def report(
    loop: LoopName = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="The file to write, - for stdout. Default: report.html in the loop's folder."
        ),
    ] = None,
    format: Annotated[
        Format,
        typer.Option(
            "--format", help="html: the page in one file; md: text; svg: the lineage picture (no png: convert it)."
        ),
    ] = Format.HTML,
    loops: Loops = None,
) -> None:
    """One static file of at most 3 MB that shows a loop: pictures, numbers, safety, limits. Fetches nothing."""
    from bellglass import paths
    from bellglass.show import showing

    shown = showing.open_loop(paths.find_loop(loop, paths.loops_home(loops)))
    if out == Path("-"):
        say_exactly(rendered(shown, format))
        return
    say(write_report(shown, format, out))


def write_report(shown: Shown, format: Format = Format.HTML, out: Path | None = None) -> Path:
    name = "lineage.svg" if format is Format.SVG else f"report.{format}"
    file = shown.folder / name if out is None else out
    with written_anew(file, "bellglass report -o FILE") as out_file:
        out_file.write(rendered(shown, format).encode())
    return file


def rendered(shown: Shown, format: Format) -> str:
    from bellglass.show.lineage_picture import picture_of
    from bellglass.show.report import gather, html
    from bellglass.show.report_text import markdown
    from bellglass.show.showing import of_this_version

    if format is Format.SVG:
        with of_this_version(shown.folder):
            return picture_of(shown.state)
    found = gather(shown)
    return markdown(found) if format is Format.MD else html(found)


def compare(
    wanted: Annotated[
        list[str] | None, typer.Argument(metavar="LOOP...", help="Loops by name or id. Default: all of them.")
    ] = None,
    loops: Loops = None,
    json: Json = False,
) -> None:
    """Loops side by side: what each adopted, gained and cost; and the mean where they are of one kind."""
    from bellglass import paths
    from bellglass.commands.console import print_comparison
    from bellglass.errors import LoopFault, UsageError
    from bellglass.show import compare as compare_
    from bellglass.show import showing

    home = paths.loops_home(loops)
    folders = [paths.find_loop(name, home) for name in wanted] if wanted else paths.list_loops(home)
    if not folders:
        raise UsageError(f"loops in {home}", "none", "at least one loop", "bellglass demo", code="no_loop")
    states: dict[str, Shown] = {}
    found = []
    for folder in folders:
        try:
            shown = showing.open_loop(folder)
            with showing.of_this_version(folder):
                row = compare_.row(shown)
        except LoopFault as error:
            say(f"left out: {error.one_line()}", err=True)
            continue
        known = states.setdefault(shown.state.loop_id, shown)
        if known is shown:
            found.append(row)
        else:
            compare_.require_same(known, shown)
    if json:
        say(
            json_.dumps(
                {"loops": found, "means": [asdict(mean) for mean in compare_.means(found)]}, indent=2, sort_keys=True
            )
        )
        return
    print_comparison(found, compare_.means(found), compare_.cautions([shown.state for shown in states.values()], found))
