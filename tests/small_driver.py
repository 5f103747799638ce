"""Run or resume the small world's loop in this process: `python small_driver.py FOLDER GUESTS`. Made to be killed."""

import sys
from pathlib import Path

import small_world

from bellglass import wiring
from bellglass.doors.process_glass import ProcessGlass
from bellglass.loop import run_loop


def main() -> None:
    folder, guests = Path(sys.argv[1]), Path(sys.argv[2])
    glass = ProcessGlass(warm=False, forks=True, home=guests)
    with wiring.open_loop(folder, small_world.quiet(), models={"main": small_world.Tuner()}, glass=glass) as crew:
        run_loop(crew)


if __name__ == "__main__":
    main()
