"""Words that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

LoopName: TypeAlias = Annotated[
    str | None, typer.Argument(help="A loop's name or the beginning of its id; default: the newest.")
]
Loops: TypeAlias = Annotated[
    Path | None, typer.Option("--loops", help="Where loops live (default: $BELLGLASS_HOME, else ./loops).")
]
Json: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]
GlassName: TypeAlias = Annotated[str | None, typer.Option("--glass", help="auto, docker or process.")]
Seed: TypeAlias = Annotated[int | None, typer.Option("--seed", help="Draw data and seeds from this number.")]
Generations: TypeAlias = Annotated[int | None, typer.Option("--generations", help="How many generations at most.")]
BudgetUsd: TypeAlias = Annotated[float | None, typer.Option("--budget-usd", help="How much money at most.")]
TrainSeconds: TypeAlias = Annotated[float | None, typer.Option("--train-seconds", help="How much training at most.")]
WallSeconds: TypeAlias = Annotated[float | None, typer.Option("--wall-seconds", help="How much wall time at most.")]
Calls: TypeAlias = Annotated[int | None, typer.Option("--calls", help="How many model calls at most.")]
Tokens: TypeAlias = Annotated[int | None, typer.Option("--tokens", help="How many model tokens at most.")]
Review: TypeAlias = Annotated[
    str | None, typer.Option("--review", help="every, tripwire or never. A hosted model gets every unless you say so.")
]
TaskFolder: TypeAlias = Annotated[
    Path | None,
    typer.Option("--task", help="The folder of a loop's own task: its data.py runs here, with your rights."),
]
Device: TypeAlias = Annotated[
    str | None,
    typer.Option("--device", help="cpu, cuda or cuda:1. Default: the loop's; of one from elsewhere the CPU."),
]
Reason: TypeAlias = Annotated[str, typer.Option("--reason", help="Why, in a few words; kept in the ledger.")]
Watch: TypeAlias = Annotated[bool, typer.Option("--watch", help="With a live page, in a process of its own.")]
Wandb: TypeAlias = Annotated[
    str, typer.Option("--wandb", help="online, offline or off: Weights & Biases, fed by a process of its own.")
]
