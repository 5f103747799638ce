"""Public files that a task needs and nobody ships: fetched once, kept in the cache folder, checked before each use.

A person asks for it (`bellglass tasks --fetch NAME`); nothing else here opens a connection. A broken transfer leaves a
`.part` file, and the next one goes on behind it where the server can (HTTP ranges, only of the same version: If-Range).

Trust: a checksum in task.toml is enforced. Without one, the first complete file is taken as it comes, and its checksum
is recorded beside it; from then on only this content counts. A file with another content is put aside as `.bad`. An
answer that does not say how long it is may have been cut off anywhere: it is taken only where a checksum is known.
Every address on the way is https, redirects included, or on this very machine.

Not covered: a publisher (or whoever answers in its name) who sends something wrong the first time.
"""

from __future__ import annotations

import http.client
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from email.message import Message
from functools import lru_cache
from hashlib import file_digest
from pathlib import Path
from typing import IO

from bellglass.errors import SetupError, UsageError

CHUNK_BYTES = 1 << 20
TIMEOUT_SECONDS = 30.0  # without a byte
LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True, slots=True)
class Download:
    """A file by its name in the cache, where it comes from, and its sha256 where we know it."""

    name: str
    url: str
    sha256: str | None


class _Broken(Exception):
    """The transfer ended early; what came is kept."""


class _Endless(Exception):
    """Nobody could say whether the transfer ended early."""


def ready(task: str, download: Download, folder: Path) -> Path:
    """The complete file, checked; SetupError that names the command which fetches it."""
    path = folder / download.name
    known = download.sha256 or recorded(path)
    if known is None or not path.is_file():
        raise SetupError(
            f"task {task!r}", f"no {path}", f"{download.url}, downloaded once", _next(task), code="download_missing"
        )
    stat = path.stat()
    _check(path, _digest_once(path, stat.st_size, stat.st_mtime_ns), known, task)
    return path


def fetch(task: str, download: Download, folder: Path, say: Callable[[str], None]) -> Path:
    """Download the file unless it is there; goes on with what an earlier attempt left."""
    path, part = folder / download.name, folder / f"{download.name}.part"
    known = download.sha256 or recorded(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not path.is_file():
            _complete(task, download, part, known is not None, say)
        there = path if path.is_file() else part  # a person may have copied the file to its place
        digest = _digest(there)
        if known is not None:
            _check(there, digest, known, task)
        there.replace(path)
        _beside(path).write_text(digest + "\n")
        _tag(part).unlink(missing_ok=True)
    except OSError as error:
        needed = "a folder this user may write, with room"
        raise SetupError(f"folder {folder}", str(error), needed, _next(task), code="folder_unwritable") from None
    how = "as known before" if known else f"the first one, so it is trusted from now on: {_beside(path).name}"
    say(f"{path}: sha256 {digest} ({how})")
    return path


def recorded(path: Path) -> str | None:
    """The checksum that the first download left beside the file."""
    try:
        text = _beside(path).read_text().strip()
    except OSError:
        return None
    return text if re.fullmatch(r"[0-9a-f]{64}", text) else None


def _complete(task: str, download: Download, part: Path, known: bool, say: Callable[[str], None]) -> None:
    """Ask again where a transfer broke off, as long as each attempt brings something."""
    while True:
        have = _size(part)
        say(f"{download.url}: {f'from byte {have} on' if have else 'from the start'}")
        try:
            return _transfer(download.url, part, known)
        except _Endless:
            needed = "a server that says it, or a sha256 in task.toml: nobody else could tell that it is whole"
            raise SetupError(
                download.url, "an answer that does not say its length", needed, _next(task), code="download_failed"
            ) from None
        except (_Broken, http.client.HTTPException, urllib.error.URLError, TimeoutError, ConnectionError) as error:
            if _size(part) > have:
                continue
            found = f"{error} ({_size(part)} bytes are here and kept)"
            needed = f"a machine that reaches it, or the file copied to {part.with_suffix('')}"
            raise SetupError(download.url, found, needed, _next(task), code="download_failed") from None


class _Watched(urllib.request.HTTPRedirectHandler):
    """Looks at each address on the way, before it is asked."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        try:
            _require_safe(newurl)
        except UsageError:
            fp.close()
            raise
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _transfer(url: str, part: Path, known: bool) -> None:
    """One request for what is missing. Raises _Broken, or what urllib raises, when not all of it came."""
    have, tag = _size(part), _read(_tag(part))
    headers = {"User-Agent": "bellglass", "Accept-Encoding": "identity"}
    if have and tag:  # without a tag nobody could say that the rest belongs to the same version
        headers |= {"Range": f"bytes={have}-", "If-Range": tag}
    _require_safe(url)
    try:
        opener = urllib.request.build_opener(_Watched)
        response = opener.open(urllib.request.Request(url, headers=headers), timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        with error:
            if error.code != 416 or "Range" not in headers:
                raise
            if error.headers.get("Content-Range") == f"bytes */{have}":
                return None  # it was complete
        part.unlink()
        return _transfer(url, part, known)
    with response:
        goes_on = response.status == 206
        total = _announced(response.headers, have if goes_on else None)
        if total is None and not known and (goes_on or not response.chunked):  # chunks have an end of their own
            raise _Endless
        tag = response.headers.get("ETag") or response.headers.get("Last-Modified") or ""
        with part.open("ab" if goes_on else "wb") as file:
            _tag(part).write_text("" if tag.startswith("W/") else tag)
            while chunk := response.read(CHUNK_BYTES):
                file.write(chunk)
    if total is not None and _size(part) != total:
        raise _Broken(f"it ended after {_size(part)} of {total} bytes")
    return None


def _announced(headers: Message, have: int | None) -> int | None:
    """How long the whole file is, where the server says so; `have` is where a partial answer must begin."""
    if have is None:
        length = headers.get("Content-Length", "")
        return int(length) if length.isdecimal() else None
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", headers.get("Content-Range", ""))
    if match is None or int(match[1]) != have:
        raise _Broken(f"an answer for other bytes than asked: {headers.get('Content-Range')}")
    return None if match[2] == "*" else int(match[2])


def _check(path: Path, digest: str, known: str, task: str) -> None:
    if digest == known:
        return
    bad = path.with_name(path.name.removesuffix(".part") + ".bad")
    path.replace(bad)
    found = f"sha256 {digest}; put aside as {bad.name}"
    raise SetupError(
        str(path), found, f"sha256 {known}, as pinned or as recorded beside it", _next(task), code="checksum_wrong"
    )


def _require_safe(url: str) -> None:
    """Unencrypted only on this very machine: nobody on the way may choose what is trusted."""
    place = urllib.parse.urlsplit(url)
    if place.scheme != "https" and not (place.scheme == "http" and place.hostname in LOOPBACK):
        raise UsageError(
            f"download {url!r}", f"{place.scheme or 'nothing'}", "https", "bellglass tasks", code="address_unsafe"
        )


def _next(task: str) -> str:
    return f"bellglass tasks --fetch {task}"


def _beside(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def _tag(part: Path) -> Path:
    """Which version the part is of: the server's ETag or date."""
    return part.with_name(part.name + ".tag")


def _read(path: Path) -> str:
    return path.read_text() if path.is_file() else ""


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


@lru_cache(maxsize=8)
def _digest_once(path: Path, size: int, changed_ns: int) -> str:
    """A large file is read once in a process, unless it changes."""
    return _digest(path)
