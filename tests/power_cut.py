"""The power fails under a running loop: clones of the disk that it writes to, made at any moment, and read again.

    python tests/power_cut.py write FOLDER      make and run small loops there, one after another, for ever
    python tests/power_cut.py read FOLDER       how many loops are there, and a line for each thing that is broken

The disk is an ext4 file system in a file on a btrfs one, so that a clone is one call (`cp --reflink`) and takes all of
the disk at one moment. What ext4 had not written by then is not in it, as after a power cut.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
DISK_MB, POOL_MB = 800, 4096  # files with holes
TRIES = 60
NEEDED = ("mkfs.btrfs", "mkfs.ext4", "mount", "umount")


def run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)


@contextmanager
def mounted(image: Path, at: Path) -> Iterator[Path]:
    at.mkdir(exist_ok=True)
    run("mount", "-o", "loop", str(image), str(at))
    try:
        yield at
    finally:
        for _ in range(TRIES):  # guests of a writer that was killed hold it a moment longer
            if subprocess.run(["umount", str(at)], check=False, capture_output=True).returncode == 0:
                break
            time.sleep(0.5)


@contextmanager
def pool(where: Path) -> Iterator[Path]:
    """A folder on btrfs."""
    image = where / "pool.img"
    with image.open("wb") as file:
        file.truncate(POOL_MB << 20)
    run("mkfs.btrfs", "-q", str(image))
    with mounted(image, where / "pool") as folder:
        yield folder


@contextmanager
def disk(folder: Path, at: Path) -> Iterator[Path]:
    """An ext4 disk in a file of that folder, mounted; gives the file."""
    image = folder / "disk.img"
    with image.open("wb") as file:
        file.truncate(DISK_MB << 20)
    run("mkfs.ext4", "-q", str(image))
    with mounted(image, at):
        yield image


def environment(disk: Path, guests: Path) -> dict[str, str]:
    """Loops and the user's state are on the disk; the workspaces of guests, which nobody keeps, are not."""
    path = os.pathsep.join([str(HERE), str(HERE.parent)])
    return {**os.environ, "XDG_STATE_HOME": str(disk / "state"), "TMPDIR": str(guests), "PYTHONPATH": path}


@contextmanager
def writer(disk: Path, guests: Path) -> Iterator[subprocess.Popen[bytes]]:
    words = [sys.executable, str(HERE / "power_cut.py"), "write", str(disk)]
    process = subprocess.Popen(words, env=environment(disk, guests), stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        if not process.stdout.readline():  # the first loop is made
            raise RuntimeError("the writer has ended")
        yield process
        if process.poll() is not None:
            raise RuntimeError("the writer has ended")
    finally:
        process.kill()
        process.communicate()


def after_cut(image: Path, work: Path) -> tuple[int, list[str]]:
    """Cut the power now, and read when it is back how many loops there are, and what is broken."""
    cut = image.with_name("cut.img")
    run("cp", "--reflink=always", str(image), str(cut))
    with mounted(cut, work / "after") as disk:
        words = [sys.executable, str(HERE / "power_cut.py"), "read", str(disk)]
        found = subprocess.run(words, env=environment(disk, work), capture_output=True, text=True, check=False)
    cut.unlink()
    count, *broken = found.stdout.splitlines() or ["0"]
    return int(count), [*broken, *([found.stderr] if found.returncode else [])]


def write(disk: Path) -> None:
    import small_world

    from bellglass.loop import run_loop

    while True:
        folder = small_world.create(disk / "loops", generations=1, max_pairs=3)
        print(folder, flush=True)
        with small_world.opened(folder, small_world.Tuner()) as crew:
            run_loop(crew)


def read(disk: Path) -> Iterator[str]:
    from bellglass import paths
    from bellglass.errors import BellglassError
    from bellglass.store.blobs import Blobs
    from bellglass.store.ledger import Ledger
    from bellglass.store.lineage import Lineage
    from bellglass.verify import verify

    home = disk / "loops"
    found = paths.list_loops(home)
    yield str(len(found))
    for folder in found:
        try:
            with Ledger.open(folder, write=True) as ledger:  # as `resume` does
                if not ledger.standing().ours:
                    yield f"{folder.name}: not ours any more: {ledger.standing().why}"
                yield from (
                    f"{folder.name}: {each.what}: {each.found}" for each in verify(folder, ledger) if not each.ok
                )
                first = ledger.events()[0].body["starter"]
            Lineage.open(folder / "lineage.git").read(first)
            Blobs(folder / "blobs").sweep()
        except BellglassError as error:
            yield f"{folder.name}: {error.one_line()}; heads: {heads()}"


def heads() -> dict[str, bytes | None]:
    from bellglass.store import state_folder

    return {name: state_folder.read(f"heads/{name}") for name in state_folder.names("heads")}


if __name__ == "__main__":
    if sys.argv[1] == "write":
        write(Path(sys.argv[2]))
    else:
        print(*read(Path(sys.argv[2])), sep="\n", end="")
