"""Weights, transcripts and curves, each stored once under the sha256 of its bytes.

A blob exists under its name only when all of it is on disk: temporary file, fsync, rename, fsync of the folder. Every
read checks the content against the name.

Not covered: a blob that somebody deletes; the next `get` says which one is missing.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shlex
import tempfile
from pathlib import Path

from bellglass.errors import BellglassError, LoopFault, SetupError
from bellglass.store.folder import read_plain

SHA256 = re.compile(r"[0-9a-f]{64}")
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NO_BLOB = (errno.ELOOP, errno.EINVAL, errno.EFBIG, errno.ENXIO)  # a link, a pipe or a device, too long, a socket
TEMPORARY = ".new-"
BLOB_BYTES_MAX = 1 << 30  # four times the largest weights of a shipped task


class Blobs:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, data: bytes | memoryview) -> str:
        sha = hashlib.sha256(data).hexdigest()
        path = self._path(sha)
        if self._holds(path, sha):
            return sha
        try:
            make_folder(path.parent)
            write_durably(path, data)
        except OSError as error:
            raise disk_fault(self.folder, error) from error
        return sha

    def get(self, sha: str) -> bytes:
        path = self._path(sha)
        try:
            data = read_plain(path, BLOB_BYTES_MAX)
        except FileNotFoundError:
            raise LoopFault(
                f"blob {sha[:12]} of {self.folder}",
                "no such file",
                "the file that the ledger names",
                "bellglass verify",
                code="blob_missing",
            ) from None
        except OSError as error:
            if error.errno in NO_BLOB:
                raise self._damaged(sha, str(error.strerror)) from error
            raise disk_fault(self.folder, error) from error
        if hashlib.sha256(data).hexdigest() != sha:
            raise self._damaged(sha, "content that does not match its name")
        return data

    def path(self, sha: str) -> Path:
        """The file that holds it, for readers that want a file; its bytes are checked before."""
        self.get(sha)
        return self._path(sha)

    def __contains__(self, sha: str) -> bool:
        return self._path(sha).is_file()

    def sweep(self) -> int:
        """Remove what writers left half written when they died; for the loop's owner. Returns how many."""
        leavings = list(self.folder.glob(f"*/{TEMPORARY}*"))
        for path in leavings:
            path.unlink(missing_ok=True)
        return len(leavings)

    def _path(self, sha: str) -> Path:
        if SHA256.fullmatch(sha) is None:
            raise LoopFault(
                f"blob {ascii(sha)[:80]}", "no sha256", "64 hexadecimal digits", "bellglass verify", code="blob_damaged"
            )
        return self.folder / sha[:2] / sha

    def _damaged(self, sha: str, found: str) -> LoopFault:
        return LoopFault(
            f"blob {sha[:12]} of {self.folder}",
            found,
            "the bytes that were stored",
            "bellglass verify, which lists all that is damaged",
            code="blob_damaged",
        )

    @staticmethod
    def _holds(path: Path, sha: str) -> bool:
        """A damaged copy counts as absent, so that storing the bytes again repairs it."""
        try:
            return hashlib.sha256(read_plain(path, BLOB_BYTES_MAX)).hexdigest() == sha
        except OSError:
            return False


def write_durably(path: Path, data: bytes | memoryview) -> None:
    """All of it under its name, or nothing; a link that lies there is replaced, not followed."""
    handle, name = tempfile.mkstemp(prefix=TEMPORARY, dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o444)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    fsync_folder(path.parent)


def make_folder(folder: Path) -> None:
    """With its parents; its entry, and theirs, are on the disk when this returns."""
    missing = [each for each in (folder, *folder.parents) if not each.is_dir()]
    folder.mkdir(parents=True, exist_ok=True)
    for each in missing:
        fsync_folder(each.parent)


def fsync_folder(folder: Path) -> None:
    """Make a new or renamed entry survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def disk_fault(folder: Path, error: OSError) -> BellglassError:
    """What went wrong with a write below `folder`, as one of ours."""
    if error.errno in DISK_FULL:
        return SetupError(
            f"storing in {folder}",
            "the disk is full",
            "free space",
            "free some space, bellglass resume",
            code="disk_full",
        )
    found, look = error.strerror or str(error), f"ls -ld {shlex.quote(str(folder))}"
    return SetupError(f"storing in {folder}", found, "a folder this user may write", look, code="folder_unwritable")
