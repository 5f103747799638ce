"""Commands that hand a loop's data to other programs: export csv, export wandb. They read; no loop's lock is taken."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bellglass.commands import to_wandb
from bellglass.commands.options import LoopName, Loops
from bellglass.commands.terminal import say

export = typer.Typer(help="A loop's data for other programs.", no_args_is_help=True)


@export.command("csv")
def csv(
    loop: LoopName = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A folder. Default: csv in the loop's.")] = None,
    loops: Loops = None,
) -> None:
    """Generations, trials and curves as CSV files."""
    import bellglass
    from bellglass.show import table_files

    found = bellglass.open(loop, loops=loops)
    files, missing = table_files.write(found, output or found.folder / "csv")
    for line in missing:
        say(f"missing: {line}", err=True)
    for file in files:
        say(file)


export.command("wandb")(to_wandb.wandb)
