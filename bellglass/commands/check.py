"""Commands that check: calibrate, verify, recheck, takeover, doctor, image."""

from __future__ import annotations

import json as json_
import re
import shlex
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer

from bellglass.commands.options import Device, GlassName, Json, LoopName, Loops, TaskFolder
from bellglass.commands.terminal import say
from bellglass.errors import BellglassError, LoopFault, SetupError, UsageError
from bellglass.paths import typed

image = typer.Typer(help="The images that sealed guests run from.", no_args_is_help=True)


def verify(
    loop: LoopName = None,
    rejudge: Annotated[
        bool, typer.Option("--rejudge", help="Judge the stored weights again from the revealed secret.")
    ] = False,
    head: Annotated[
        str | None,
        typer.Option("--head", help="A ledger head noted earlier (or its first 12 digits): must be part of the chain."),
    ] = None,
    task: TaskFolder = None,
    device: Device = None,
    loops: Loops = None,
    json: Json = False,
) -> None:
    """Re-derive a loop's chain and hashes; fails when anything does not fit."""
    from bellglass import paths, received, wiring
    from bellglass import rejudge as rejudge_
    from bellglass import verify as verify_
    from bellglass.store.ledger import Ledger
    from bellglass.store.state import state_of

    if head is not None and not re.fullmatch("[0-9a-f]{12,64}", head):
        raise UsageError(
            "--head", repr(head), "12 to 64 hex digits of a ledger head", "bellglass status", code="option_invalid"
        )
    folder = paths.find_loop(loop, paths.loops_home(loops))
    with Ledger.open(folder, write=False) as ledger:
        findings = verify_.verify(folder, ledger, head)
        if rejudge and all(finding.ok for finding in findings):
            received.trusted_task(state_of(folder), task, rejudge_.again_for(folder))  # before a guest is opened
            with wiring.judging_glass(folder, device) as glass:
                findings += rejudge_.rejudge(folder, ledger, glass, task, device)
    if json:
        say(json_.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        for finding in findings:
            say(f"{finding.mark:<4} {finding.what}: {finding.found}")
    wrong = {finding.what: finding.found for finding in findings if not finding.ok}
    if verify_.STANDING in wrong:
        needed = "the loop as you left it; where that is gone, takeover refuses this one and says what to remove first"
        again = f"bellglass takeover {typed(folder)}"
        raise LoopFault(f"loop {folder.name}", wrong[verify_.STANDING], needed, again, code="loop_counterfeit")
    if wrong:
        raise BellglassError(
            f"loop {folder.name}",
            f"what does not fit: {', '.join(wrong)}",
            "a loop that fits its ledger",
            f"bellglass log {typed(folder)}",
            code="verify_failed",
        )


def takeover(
    loop: Annotated[str, typer.Argument(help="A loop's name or the beginning of its id.")],
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask: I have read what it means.")] = False,
    loops: Loops = None,
) -> None:
    """Make a loop that came from elsewhere yours, so that it can be resumed; says first what that means."""
    from bellglass import paths, received

    folder = paths.find_loop(loop, paths.loops_home(loops))
    for line in received.meaning(folder):
        say(f"- {line}")
    if not yes and not sys.stdin.isatty():
        again = f"bellglass takeover {typed(folder)} --yes"
        raise UsageError(f"loop {folder.name}", "nobody to ask", "a yes", again, code="not_confirmed")
    if not yes and not typer.confirm("Take it over?", err=True):
        again = f"bellglass verify {typed(folder)} --rejudge, which looks into it and changes nothing"
        raise UsageError(f"loop {folder.name}", "a no", "nothing: it stays received", again, code="not_confirmed")
    head = received.take_over(folder)
    say(f"taken over; ledger head {head}\nnext: bellglass resume {typed(folder)}")


def recheck(
    loop: Annotated[str, typer.Argument(help="A loop's name or the beginning of its id.")],
    generation: Annotated[int, typer.Argument(help="One that the gate decided.")],
    seeds: Annotated[
        int | None, typer.Option("--seeds", min=3, help="Train on so many new seeds. Default: those of its gate.")
    ] = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="Under the recorded clock: weights and scores the same to the bit (CPU).")
    ] = False,
    task: TaskFolder = None,
    device: Device = None,
    loops: Loops = None,
    json: Json = False,
) -> None:
    """Train a past generation's parent and child again, judge them again, say whether the verdict holds."""
    from bellglass import holds, paths, wiring
    from bellglass import recheck as recheck_
    from bellglass.store.ledger import Ledger

    folder = paths.find_loop(loop, paths.loops_home(loops))
    with Ledger.open(folder, write=False) as ledger:
        case = recheck_.prepare(folder, ledger, holds.Asked(generation, seeds, exact, task, device))
    with wiring.judging_glass(folder, device) as glass:
        together = wiring.side_by_side(case.config)
        if not json:
            say(holds.HEAD)
        tell = (lambda again: None) if json else lambda again: say(holds.trial_line(again))
        outcome = recheck_.recheck(case, glass, side_by_side=together, say=tell)
    if json:
        say(json_.dumps(holds.as_json(outcome), indent=2))
    else:
        for line in holds.lines(outcome):
            say(line)
    if not outcome.holds:
        by_chance = holds.CHANCE in outcome.why and case.config.device == "cpu"
        exactly = replace(case.asked, seeds=None, exact=True).typed(folder)
        exactly += "" if task is None else f" --task {shlex.quote(str(task))}"
        raise BellglassError(
            f"generation {generation} of {folder.name}",
            outcome.why,
            "a verdict that repeats",
            exactly if by_chance else f"bellglass verify {typed(folder)}",
            code="verdict_not_repeated",
        )


def calibrate(
    task: Annotated[str, typer.Argument(help="A task; `bellglass tasks` lists them.")] = "stories",
    preset: Annotated[str, typer.Option("--preset", help="tiny, cpu or gpu.")] = "cpu",
    glass: GlassName = "auto",
    device: Annotated[str, typer.Option("--device", help="cpu, cuda or cuda:1.")] = "cpu",
    seeds: Annotated[
        int, typer.Option("--seeds", min=3, max=20, help="Initialisations, each with as many data orders.")
    ] = 6,
    loops: Loops = None,
    json: Json = False,
) -> None:
    """Measure a task's noise, where it comes from and what bounds can see; loops that start later use it."""
    from bellglass import calibrating, config, paths, tasks, wiring
    from bellglass.commands.progress import LoopView
    from bellglass.commands.start import catch_interrupts

    home = paths.loops_home(loops)
    chosen = config.load(None, {"task": task, "preset": preset, "glass": glass, "device": device})
    say(calibrating.forecast_line(chosen, seeds), err=True)
    folder = calibrating.folder_for(chosen, seeds, home)
    again = f"bellglass calibrate {shlex.quote(task)} --preset {preset} --glass {glass} --device {device}"
    again += f" --seeds {seeds}"
    if loops is not None:
        again += f" --loops {shlex.quote(str(loops))}"
    with LoopView() as view:
        surface = wiring.Surface(view.event, view.progress, None, catch_interrupts(again))
        with wiring.open_loop(folder, surface, models={}) as crew:
            view.watch(lambda: crew.state, crew.place.lab.bench.side_by_side)
            view.say(f"folder {folder}")
            body = calibrating.run(crew)
    if json:
        say(json_.dumps(body, indent=2, sort_keys=True))
    else:
        for line in calibrating.lines(body, tasks.load(chosen.task).unit):
            say(line)


def doctor(json: Json = False) -> None:
    """What this machine can do, and whether its Docker really seals."""
    from bellglass.commands import doctor as doctor_

    checks = doctor_.examine()
    if json:
        say(json_.dumps([{"what": c.what, "ok": c.ok, "found": c.found, "next": c.next_command} for c in checks]))
    else:
        for check in checks:
            say(f"{'ok  ' if check.ok else '--  '} {check.what}: {check.found}")
            if not check.ok and check.next_command:
                say(f"       next: {check.next_command}")
    if not all(check.ok or check.optional for check in checks):
        raise SetupError("this machine", "a missing part, see above", "the parts marked --", code="machine_unfit")


@image.command("build")
def image_build(
    device: Annotated[str, typer.Option("--device", help="cpu or cuda.")] = "cpu",
    base: Annotated[
        str | None, typer.Option("--base", help="Another base image, e.g. from sandbox/base_image.sh.")
    ] = None,
    wheels: Annotated[Path | None, typer.Option("--wheels", help="A folder of wheels: nothing is downloaded.")] = None,
) -> None:
    """Build the three images; says first how large they are and how long it takes."""
    from bellglass import wiring

    for line in wiring.build_images(device, base, wheels):
        say(line)
