"""Where things are: shipped content, loops on disk; and who asks: user and host.

Reads the machine; makes nothing. Loops are folders that hold a `loop.db`; the newest is the one last taken by an owner.

Not covered: a network file system that Linux or `mount` shows under a local type's name (some container shares do).
"""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import IO

from bellglass.errors import LoopFault, SetupError, UsageError

LEDGER_NAME = "loop.db"
LOCK_NAME = "loop.lock"
MAKING = ".new-"  # what the name of a folder begins with until its loop is made
HOME_VARIABLE = "BELLGLASS_HOME"
CONTENT = ("agent", "sandbox", "tasks", "trainer_seed")
LEAVINGS = (".DS_Store", "__pycache__")  # made by Python and by desktops, never content

NETWORK_TYPE = re.compile(
    r"9p|afpfs|afs|beegfs|ceph|cifs|davfs|drvfs|ftp|glusterfs|gpfs|lustre|ncpfs|nfs|nfs4|"
    r"prl_fs|smb2|smb3|smbfs|vboxsf|webdav|fuse\.ceph|fuse\.davfs2|fuse\.gcsfuse|fuse\.glusterfs|"
    r"fuse\.juicefs|fuse\.rclone|fuse\.s3fs|fuse\.sshfs|fuse\.vmhgfs-fuse|macfuse|osxfuse"
)


# Content


def content_root() -> Path:
    """The folder that holds `agent`, `sandbox`, `tasks`, `trainer_seed`: the checkout, else the installed copy."""
    package = Path(__file__).resolve().parent
    for root in (package.parent, package / "content"):
        if all((root / name).is_dir() for name in CONTENT):
            return root
    raise SetupError(
        "bellglass's own content",
        f"no {', '.join(CONTENT)} beside or inside {package}",
        "a checkout or a complete installation",
        "pip install --force-reinstall bellglass",
        code="installation_incomplete",
    )


def content_files(folder: Path) -> Iterator[tuple[str, Path]]:
    """(relative POSIX name, path) of every regular file, sorted by name; compiled leavings and links are skipped."""
    found = []
    for path in folder.rglob("*"):
        relative = path.relative_to(folder)
        if any(part in LEAVINGS for part in relative.parts) or path.suffix == ".pyc":
            continue
        if path.is_file() and not path.is_symlink():
            found.append((relative.as_posix(), path))
    return iter(sorted(found))


def content_hash(folder: Path, without: Collection[str] = ()) -> str:
    """sha256 over names and bytes; the same for a checkout, an installed copy and a used one.

    `without`: names of files that don't count, wherever they lie.
    """
    total = hashlib.sha256()
    for name, path in content_files(folder):
        if path.name in without:
            continue
        data = path.read_bytes()
        total.update(f"{len(name.encode())}:{name}:{len(data)}:".encode())
        total.update(data)
    return total.hexdigest()


def install_command(extra: str) -> str:
    """What installs an extra here: into a checkout's own environment from its locks, else by pip."""
    root = Path(__file__).resolve().parent.parent
    if Path(sys.prefix).resolve() != root / ".venv":
        return f"{shlex.quote(sys.executable)} -m pip install 'bellglass[{extra}]'"
    near = Path.cwd() == root
    python, script = ("" if near else f"{shlex.quote(str(root))}/") + ".venv/bin/python", "bellglass/bootstrap.py"
    return f"{python} -I {script if near else shlex.quote(str(root / script))} --with {extra}"


# Downloads


def cache_home() -> Path:
    """Where public files are kept that a task downloaded: the cache folder of the XDG convention. Not created here."""
    return _expanded(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "bellglass"


# What this user's bellglass remembers between loops


def state_home() -> Path:
    """The state folder of the XDG convention, outside every loop's folder. Not created here."""
    named = os.environ.get("XDG_STATE_HOME", "")
    # By the convention one that is not absolute is none: from elsewhere it would be another folder.
    return _expanded(named if os.path.isabs(named) else "~/.local/state") / "bellglass"


# Loops


def loops_home(flag: str | Path | None = None) -> Path:
    """Where loops live: the flag, else BELLGLASS_HOME, else ./loops. Not created here."""
    return _expanded(flag or os.environ.get(HOME_VARIABLE) or "loops")


def _expanded(path: str | Path) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError:  # ~nobody
        raise UsageError(
            f"folder {str(path)!r}", "no such user", "~ alone, or a user of this machine", code="unknown_user"
        ) from None


def loop_name(task: str, loop_id: str) -> str:
    """What its folder is called."""
    return f"{task}-{loop_id}"


@contextlib.contextmanager
def written_anew(file: Path, next_command: str) -> Iterator[IO[bytes]]:
    """A file that is there whole or not at all, and never through a link that lies there: a folder may be another's."""
    making = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        if file.exists() and not file.is_file():  # renaming over a device would be the end of it
            raise UsageError(
                f"the file {file}", "something that is no file", "a file's name", next_command, code="no_file"
            )
        with making.open("xb") as out:
            yield out
        making.replace(file)
    except OSError as error:
        found = error.strerror or str(error)
        raise SetupError(
            f"the file {file}", found, "a place to write to", next_command, code="folder_unwritable"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            making.unlink()


def typed(folder: Path) -> str:
    """What a command wants for this loop: its name in the usual place, else its path."""
    usual = folder.parent.absolute() == loops_home().absolute()
    return shlex.quote(folder.name if usual else str(folder.absolute()))


def _is_loop(folder: Path) -> bool:
    try:
        return (folder / LEDGER_NAME).is_file()
    except OSError:  # another's folder, or a name that no file can have
        return False


def list_loops(home: Path) -> list[Path]:
    """Every loop's folder, the last taken first."""
    if not home.is_dir():
        return []
    found = [folder for folder in home.iterdir() if not folder.name.startswith(MAKING) and _is_loop(folder)]
    return sorted(found, key=lambda folder: (-_last_taken(folder), folder.name))


def _last_taken(folder: Path) -> float:
    # Not the ledger's own time: a reader touches its side files.
    for name in (LOCK_NAME, LEDGER_NAME):
        try:
            return (folder / name).lstat().st_mtime
        except OSError:
            continue
    return 0.0


def find_loop(wanted: str | None, home: Path | None = None) -> Path:
    """The loop that `wanted` names: a path, a name, the beginning of a name or of its id; None is the newest."""
    home = loops_home() if home is None else home
    loops = list_loops(home)
    if wanted is None:
        if loops:
            return loops[0]
        raise UsageError(
            "no loop yet", f"no loop in {home}", "a loop, or --loops / BELLGLASS_HOME", "bellglass demo", code="no_loop"
        )
    if _is_loop(_expanded(wanted)):
        return _expanded(wanted)
    if wanted.endswith(".bellglass") and not os.path.exists(_expanded(wanted)):  # raises for no name
        raise UsageError(
            f"recording {wanted!r}",
            "no such file",
            "a file that bellglass pack made",
            "bellglass pack LOOP",
            code="unknown_recording",
        )
    if wanted.endswith(".bellglass"):
        again = f"bellglass watch {shlex.quote(wanted)} --play 60x"
        raise UsageError(
            f"loop {wanted!r}",
            "the name of a recording",
            "a loop's folder; a recording only plays",
            again,
            code="is_recording",
        )
    exact = [folder for folder in loops if folder.name == wanted]
    matching = exact or [folder for folder in loops if wanted and _named(folder.name, wanted)]
    if len(matching) == 1:
        return matching[0]
    names = _some([folder.name for folder in matching or loops])
    if matching:
        raise UsageError(
            f"loop {wanted!r}", f"several: {names}", "a longer beginning", "bellglass status", code="loop_ambiguous"
        )
    found = f"in {home}: {names}"
    if os.sep in wanted and _expanded(wanted).is_dir():
        found = f"no {LEDGER_NAME} in {wanted}; {found}"
    raise UsageError(f"loop {wanted!r}", found, "a loop that exists", "bellglass status", code="unknown_loop")


def _named(name: str, wanted: str) -> bool:
    """A loop's name ends in its id, after the last dash."""
    return name.startswith(wanted) or name.rpartition("-")[2].startswith(wanted)


def _some(names: list[str], most: int = 8) -> str:
    if not names:
        return "no loops"
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


# Disks


def refuse_network_filesystem(path: Path) -> None:
    """LoopFault when `path` (which need not exist yet) lies on a file system without sound locks for SQLite's WAL."""
    kind = filesystem_of(path)
    if NETWORK_TYPE.fullmatch(kind):
        raise LoopFault(
            f"loop folder {path}",
            f"a network or shared file system ({kind})",
            "a local disk, because file locks and memory maps must hold",
            f"set {HOME_VARIABLE} or --loops to a folder on a local disk",
            code="network_file_system",
        )


def filesystem_of(path: Path, mounts: list[tuple[str, str]] | None = None) -> str:
    """The file system type under `path`, or "" when unknown. A later mount on the same place hides the earlier one."""
    place = str(path.expanduser().resolve())
    best, kind = -1, ""
    for point, type_ in _mounts() if mounts is None else mounts:
        inside = point == "/" or place == point or place.startswith(point + "/")
        if inside and len(point) >= best:
            best, kind = len(point), type_
    return kind


def _mounts() -> list[tuple[str, str]]:
    if sys.platform == "darwin":
        return parse_mount_output(_output(["/sbin/mount"]))
    try:
        return parse_mountinfo(Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape"))
    except OSError:
        return []


def parse_mountinfo(text: str) -> list[tuple[str, str]]:
    """(mount point, type) of each line of /proc/self/mountinfo."""
    mounts = []
    for line in text.splitlines():
        before, dash, after = line.partition(" - ")
        fields = before.split(" ")
        if dash and len(fields) > 4:
            point = re.sub(r"\\([0-7]{3})", lambda m: chr(int(m.group(1), 8)), fields[4])
            mounts.append((point, after.split(" ")[0]))
    return mounts


def parse_mount_output(text: str) -> list[tuple[str, str]]:
    """The same from macOS's `mount`: `//me@host/share on /Volumes/share (smbfs, nodev)`."""
    return re.findall(r"^.*? on (/.*) \(([\w.-]+)[,)]", text, flags=re.MULTILINE)


def require_free_disk(path: Path, needed_bytes: int, purpose: str) -> None:
    place = path.expanduser().resolve()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < needed_bytes:
        raise SetupError(
            f"disk space for {purpose} at {path}",
            f"{free / 1e6:.0f} MB free",
            f"{needed_bytes / 1e6:.0f} MB",
            "free some space, or use another disk with --loops",
            code="disk_full",
        )


# Who


def user_host() -> dict[str, str]:
    """Labels that keep people apart who share a machine, and machines apart that share a disk."""
    return {"user": _label(user_name()), "host": _label(socket.gethostname())}


def user_name() -> str:
    """Whom the ledger names when a person decides."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a uid without a name, usual in containers
        return f"uid-{os.getuid()}"


def _label(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]", "_", text)[:63] or "unknown"


def _output(command: list[str]) -> str:
    """What a small system tool prints; "" when it fails, because each caller has a safe meaning for unknown."""
    env = {"LC_ALL": "C", "TZ": "UTC", "PATH": "/usr/bin:/bin:/usr/sbin:/sbin"}
    try:
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout
