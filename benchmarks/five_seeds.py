"""Five demos with five seeds, as `bellglass demo` runs them: what they adopt, and how the champions do on `final`.

    python benchmarks/five_seeds.py [--seeds 1,2,3,4,5] [--glass process]

Resumable: a seed whose loop has finished is not run again (its folder lies under build/five_seeds). Writes the section
`five-seeds` of docs/benchmarks.md, the README's picture and the README's output, both from the first seed.
"""

from __future__ import annotations

import argparse
import io
import json
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import page  # noqa: E402
from rich.console import Console  # noqa: E402

from bellglass import paths  # noqa: E402
from bellglass.commands import console  # noqa: E402
from bellglass.show import summary  # noqa: E402
from bellglass.show.lineage_picture import picture_of  # noqa: E402
from bellglass.store.state import State, state_of  # noqa: E402

WORK = page.ROOT / "build" / "five_seeds"


def run(seed: int, glass: str) -> dict:
    """The facts of one demo; from its file when it has finished before."""
    home = WORK / f"{glass}-{seed}"
    facts_file = home / "facts.json"
    if facts_file.exists():
        return json.loads(facts_file.read_text())
    shutil.rmtree(home, ignore_errors=True)
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    command = [sys.executable, "-m", "bellglass", "demo", "--seed", str(seed), "--glass", glass, "--loops", str(home)]
    done = subprocess.run(command, cwd=page.ROOT)
    wall, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != 0:
        raise SystemExit(f"the demo with seed {seed} ended with {done.returncode}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    folder = paths.list_loops(home)[0].name
    facts = {"seed": seed, "glass": glass, "wall_seconds": wall, "cpu_seconds": cpu, "folder": folder}
    facts["machine"] = page.machine()
    facts_file.write_text(json.dumps(facts))
    return facts


def state_after(facts: dict) -> State:
    return state_of(WORK / f"{facts['glass']}-{facts['seed']}" / facts["folder"])


def verdict_on(state: State) -> tuple[bool, bool, bool]:
    """Adopted a better trainer; inherited a changed scaffold; better than the starter on `final`, clear of zero."""
    adopted = any(gen.adopted for gen in state.generations.values())
    inherited = any(gen.result["scaffold"] == "inherited" for gen in state.generations.values())
    gain = summary.final_gain(state)
    return adopted, inherited, gain is not None and gain.low > 0


def generations_table(state: State) -> str:
    rows = [[*console.cells(row), console.interval_text(row.gain, sign="+")] for row in summary.rows(state)]
    head = ["gen", "parent", "changed", "claim", "verdict (95%)", "trainer", "scaffold", "cost", "gain over parent"]
    return page.table(head, rows)


def about(all_facts: list[dict]) -> str:
    made = page.machines(((f.get("machine", page.UNRECORDED), str(f["seed"])) for f in all_facts), "seed ")
    return (
        f"Machine: {made}. Command: `python benchmarks/five_seeds.py`, glass: {all_facts[0]['glass']}. "
        f"Bits per byte; lower is better. {summary.POSITIVE_CONTROL}"
    )


def section(all_facts: list[dict]) -> str:
    states = [state_after(facts) for facts in all_facts]
    verdicts = [verdict_on(state) for state in states]
    parts = [
        about(all_facts),
        page.table(
            ["seed", "better trainer adopted", "changed scaffold inherited", "champion over starter on `final` (95%)",
             "wall", "CPU in all"],
            [
                [str(facts["seed"]), *("yes" if ok else "no" for ok in verdict[:2]),
                 console.final_line(state).removeprefix("final (opened once): champion better than starter by "),
                 f"{facts['wall_seconds']:.0f} s", f"{facts['cpu_seconds']:.0f} s"]
                for facts, state, verdict in zip(all_facts, states, verdicts, strict=True)
            ],
        ),
        f"{sum(all(verdict) for verdict in verdicts)} of {len(verdicts)} demos did all three.",
    ]  # fmt: skip
    for facts, state in zip(all_facts, states, strict=True):
        parts.append(f"### Seed {facts['seed']}\n\n{generations_table(state)}")
    return "\n\n".join(parts)


def demo_output(state: State) -> str:
    buffer = io.StringIO()
    console.print_summary(state, Console(file=buffer, width=100, highlight=False, color_system=None))
    return "```text\n" + "\n".join(line.rstrip() for line in buffer.getvalue().splitlines()) + "\n```"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", default="1,2,3,4,5")
    parser.add_argument("--glass", default="process")
    chosen = parser.parse_args()
    all_facts = [run(int(seed), chosen.glass) for seed in chosen.seeds.split(",")]
    page.put(page.BENCHMARKS, "five-seeds", section(all_facts))
    first = state_after(all_facts[0])
    page.put(page.ROOT / "README.md", "demo-output", demo_output(first))
    (page.ROOT / "docs" / "lineage.svg").write_text(picture_of(first))


if __name__ == "__main__":
    main()
