"""A driver as a process of its own, for tests that freeze or kill one: `guest_driver.py KIND HOME LOOP STAGE`.

It says each stage on a line of its own just before it enters it, stays in the last one, and is then dealt with.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path

from guests import begin, open_glass, spec

# Slow enough to stay under its caps while the driver reads; once it does not, every pipe fills up and stays full.
FLOOD = """
import glass, time
while True:
    glass._link.send("file", bytes(1 << 20), name="out/weights.safetensors", last=False)
    time.sleep(0.04)
"""
FORK = "import os, time\nif os.fork() == 0:\n    os.setsid()\n    os.fork()\ntime.sleep(600)"


def main(kind: str, home: str, loop: str, last: str) -> None:
    def enter(stage: str) -> None:
        print(stage, flush=True)

    def stay_if(stage: str) -> None:
        enter(stage)
        if stage == last:
            time.sleep(600)

    glass = open_glass(kind, Path(home))
    wanted = replace(spec(lease=2.0, deadline=60.0), labels={"loop": loop, "purpose": "test"})
    enter("opening")
    guest = glass.open(wanted)
    stay_if("ready")
    if last == "sending":
        enter("sending")
        while True:
            guest.send_file("data/tokens.npy", bytes(10_000_000))
    code = {
        "running": "import time; time.sleep(600)",
        "asking": "import glass; glass.time_left()",
        "holding": "import ctypes; ctypes.PyDLL(None).sleep(600)",
        "forking": FORK,
        "flooding": FLOOD,
    }
    begin(guest, code[last])
    time.sleep(0.3)
    stay_if(last)


if __name__ == "__main__":
    main(*sys.argv[1:])
