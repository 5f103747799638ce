"""Small files that belong to one user and to no loop: in the user's state folder, where no loop's maker can put any.

Every name is opened below an open folder and never through a link; a folder or file that another user owns, may write
or (a file) may read is refused, not believed. A file is there whole or not at all.

Not covered: whoever runs as the same user, or as root. The folders above this one are taken as they are: whoever may
write those is trusted with everything of this user anyway.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

from bellglass.errors import SetupError, UsageError
from bellglass.paths import state_home

MOST_BYTES = 4096  # what is kept here is a line or two
READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # NONBLOCK: a planted pipe must not be waited for
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def read(name: str) -> bytes | None:
    """What is kept under `name` (one word, or folder/word); None where nothing is."""
    try:
        with _folder(name, make=False) as folder:
            return _read(folder, name)
    except FileNotFoundError:
        return None


def write(name: str, data: bytes, *, sync: bool = True) -> None:
    """Keep this under `name`, in place of what was there. Without `sync` a power cut may leave what was there,
    an empty file, or one of zeros (ext4 may write down a file's length before its data)."""
    with _written(name, data, sync=sync) as (folder, making):
        os.replace(making, _last(name), src_dir_fd=folder, dst_dir_fd=folder)


def keep(name: str, data: bytes) -> bytes:
    """Keep this where nothing is yet. Returns what is kept then: of two processes that do so at once, one's."""
    with _written(name, data) as (folder, making):
        try:
            os.link(making, _last(name), src_dir_fd=folder, dst_dir_fd=folder)
            os.fsync(folder)
        except FileExistsError:
            pass
        return _read(folder, name)


def drop(name: str) -> None:
    """Keep nothing under `name` any more."""
    with contextlib.suppress(FileNotFoundError), _folder(name, make=False) as folder:
        os.unlink(_last(name), dir_fd=folder)


def names(within: str) -> list[str]:
    """What is kept in this folder of the state folder."""
    try:
        with _folder(f"{within}/", make=False) as folder:
            return sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except FileNotFoundError:
        return []


@contextlib.contextmanager
def _written(name: str, data: bytes, *, sync: bool = True) -> Iterator[tuple[int, str]]:
    """The folder, and a file in it that is still under a name of its own."""
    assert len(data) <= MOST_BYTES, name
    making = f".{secrets.token_hex(8)}"
    with _folder(name, make=True) as folder:
        try:
            handle = os.open(making, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=folder)
            with open(handle, "wb") as file:
                file.write(data)
                file.flush()
                if sync:
                    os.fsync(handle)
            yield folder, making
        except OSError as error:
            raise _unusable(name, error.strerror or str(error)) from error
        finally:
            with contextlib.suppress(OSError):
                os.unlink(making, dir_fd=folder)


@contextlib.contextmanager
def _folder(name: str, *, make: bool) -> Iterator[int]:
    """The open folder that `name` lies in. FileNotFoundError where it is not there and is not to be made."""
    home = _home()
    with contextlib.ExitStack() as opened:
        try:
            folder = _open_folder(str(home), None, make)
            opened.callback(os.close, folder)
            for part in name.split("/")[:-1]:
                folder = _open_folder(part, folder, make)
                opened.callback(os.close, folder)
        except OSError as error:
            if isinstance(error, FileNotFoundError) and not make:
                raise
            raise _unusable(name, error.strerror or str(error)) from error
        yield folder


def _home() -> Path:
    try:
        return state_home()
    except UsageError as error:  # a user without a home, usual in containers
        found, command = "no home folder of this user", "set XDG_STATE_HOME to a folder of your own"
        raise SetupError("the state folder", found, "one", command, code="state_folder_unsafe") from error


def _open_folder(path: str, within: int | None, make: bool) -> int:
    try:
        handle = os.open(path, FOLDER, dir_fd=within)
    except FileNotFoundError:
        if not make:
            raise
        if within is None:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o700, dir_fd=within)
        handle = os.open(path, FOLDER, dir_fd=within)
    found = os.fstat(handle)
    if found.st_uid != os.geteuid() or found.st_mode & 0o022:
        os.close(handle)
        raise PermissionError(0, "a folder that another user owns or may write")
    return handle


def _read(folder: int, name: str) -> bytes:
    try:
        handle = os.open(_last(name), READ, dir_fd=folder)
        with open(handle, "rb") as file:
            found = os.fstat(handle)
            if not stat.S_ISREG(found.st_mode):
                raise PermissionError(0, "no regular file")
            if found.st_uid != os.geteuid() or found.st_mode & 0o077:
                raise PermissionError(0, "a file that another user owns, or may read")
            return file.read(MOST_BYTES)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _unusable(name, error.strerror or str(error)) from error


def _last(name: str) -> str:
    return name.rpartition("/")[2]


def _unusable(name: str, found: str) -> SetupError:
    place: Path = state_home() / name
    needed = "a file and folders that are this user's alone"
    what_to_do = "set XDG_STATE_HOME to a folder of your own, or chmod it"
    return SetupError(f"state file {place}", found, needed, what_to_do, code="state_folder_unsafe")
