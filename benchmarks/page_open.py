"""How long a loop's page takes to open, at ten and at a thousand generations, in a real browser.

    python benchmarks/page_open.py [--generations 10,1000] [--rounds 7] [--print]

Writes the section `page` of docs/benchmarks.md (`--print` only prints it). The loops are made, not run: events through
the real ledger (tests/made_loop.py), with no texts. Needs Playwright and a system Chromium; a quiet machine.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent / "tests")]

import made_loop  # noqa: E402
import page  # noqa: E402

from bellglass.show import report, showing, view  # noqa: E402
from bellglass.show.following import Following  # noqa: E402
from bellglass.web import server  # noqa: E402

TOKEN = "benchmark" * 4
# From the browser's own start of the navigation until the page is drawn and the frame after that is painted.
DRAWN = "#foot:not(:empty)"  # written last
PAINTED = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now()))))"


@contextmanager
def browser() -> Iterator[Any]:
    program = shutil.which("chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        program = None
    if program is None:
        raise SystemExit("page_open needs a system Chromium and the Python package playwright")
    with sync_playwright() as playwright:
        quiet = ["--no-sandbox", "--disable-background-networking"]
        yield playwright.chromium.launch(executable_path=program, args=quiet)


@dataclass(frozen=True, slots=True)
class Figures:
    generations: int
    events: int
    read: float  # seconds, from the ledger to the state
    document: float
    megabytes: float
    live: list[float]
    file: list[float]
    elements: int


def measure(chromium: Any, home: Path, generations: int, rounds: int) -> Figures:
    folder = made_loop.write(home, generations, seed=generations)
    shown = showing.open_loop(folder)
    file = home / f"{generations}.html"
    file.write_text(report.html(report.gather(shown)), "utf-8")
    opened = [_open(chromium, file.as_uri()) for _ in range(rounds)]
    return Figures(
        generations=generations,
        events=shown.about.seq,
        read=_median(lambda: showing.open_loop(folder), 3),
        document=_median(lambda: view.document(shown.state, shown.about), 3),
        megabytes=file.stat().st_size / 1e6,
        live=_live(chromium, folder, rounds),
        file=[seconds for seconds, _ in opened],
        elements=opened[0][1],
    )


def _median(act: Callable[[], object], rounds: int) -> float:
    taken = []
    for _ in range(rounds):
        began = time.perf_counter()
        act()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def _live(chromium: Any, folder: Path, rounds: int) -> list[float]:
    """The page as `bellglass watch` serves it, of a loop that the server has read."""
    with closing(Following(folder)) as followed:
        followed.document()
        site = server.Site(followed, TOKEN)
        running, listening = server.server_for(site), server.bind(server.FIRST_PORT)
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        try:
            address = f"http://{server.HOST}:{listening.getsockname()[1]}/#token={TOKEN}"
            return [_open(chromium, address)[0] for _ in range(rounds)]
        finally:
            running.should_exit = True
            thread.join(10.0)


def _open(chromium: Any, address: str) -> tuple[float, int]:
    tab = chromium.new_page(viewport={"width": 1280, "height": 900})
    try:
        tab.goto(address, wait_until="commit")
        tab.wait_for_selector(DRAWN, state="attached")
        return tab.evaluate(PAINTED) / 1000.0, tab.evaluate("document.getElementsByTagName('*').length")
    finally:
        tab.close()


def text(found: list[Figures], rounds: int) -> str:
    head = [
        "generations",
        "events",
        "read the ledger",
        "make the document",
        "report",
        "live page opens",
        "report opens",
    ]
    rows = [
        [
            f"{one.generations:,}",
            f"{one.events:,}",
            f"{one.read:.2f} s",
            f"{one.document:.3f} s",
            f"{one.megabytes:.2f} MB",
            *(f"{statistics.median(seconds):.2f} s, {min(seconds):.2f} s" for seconds in (one.live, one.file)),
        ]
        for one in found
    ]
    elements = ", ".join(f"{one.elements:,}" for one in found)
    how = (
        f"Median and fastest of {rounds} openings in a headless Chromium, from the start of the navigation until the "
        f"page is drawn and painted ({elements} elements). A server reads the ledger once, then only what is new."
    )
    load = os.getloadavg()[1]
    if load > 1:  # more than the browser's own
        how += f" The machine's load was {load:.1f}: other work ran beside, so these are too slow."
    made_by = f"Made by `python benchmarks/page_open.py` on {page.machine()}."
    return "\n".join([page.table(head, rows), "", how, "", made_by])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--generations", default="10,1000")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--print", action="store_true")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as home, browser() as chromium:
        counts = [int(count) for count in chosen.generations.split(",")]
        found = [measure(chromium, Path(home), count, chosen.rounds) for count in counts]
    made = text(found, chosen.rounds)
    print(made)
    if not chosen.print:
        page.put(page.BENCHMARKS, "page", made)


if __name__ == "__main__":
    main()
