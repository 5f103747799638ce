"""Git's loose objects as bytes: each a file with one zlib stream, named by the sha1 of what it holds.

A loop's repository may come from somebody else, and git believes what lies in one: its settings name commands to run,
its alternates other repositories to read. So git is never run over it. What is read here is bounded before it is
unpacked and must have the id that was asked for; what is written, git can read.

Not covered: two contents with one sha1, which takes years of computing; packs, which bellglass never writes.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from pathlib import Path

from bellglass.errors import BellglassError, LoopFault
from bellglass.store.blobs import disk_fault, make_folder, write_durably
from bellglass.store.folder import read_plain

OBJECT_ID = re.compile(r"[0-9a-f]{40}")
HEADER = re.compile(rb"([a-z]{4,6}) (0|[1-9][0-9]{0,8})\0")
HEADER_BYTES = 17  # the longest that HEADER takes


def object_id(kind: bytes, body: bytes) -> str:
    return hashlib.sha1(_whole(kind, body), usedforsecurity=False).hexdigest()


class Objects:
    """The folder `objects` of a repository."""

    def __init__(self, folder: Path, keeps: int = 0) -> None:
        """`keeps`: bytes that stay in memory, for who reads many bundles, which have most of their files in common."""
        self.folder = folder
        self._keeps, self._kept, self._kept_bytes = keeps, dict[str, tuple[bytes, bytes]](), 0

    def get(self, id_: str, kind: bytes, most_bytes: int) -> bytes:
        """LoopFault where there is none of this kind, size and content."""
        found, body = self._kept.get(id_, (b"", b""))
        if found == kind and len(body) <= most_bytes:
            return body
        body = self._read(id_, kind, most_bytes)
        if self._keeps:
            if self._kept_bytes + len(body) > self._keeps:
                self._kept, self._kept_bytes = {}, 0
            self._kept[id_] = (kind, body)
            self._kept_bytes += len(body)
        return body

    def _read(self, id_: str, kind: bytes, most_bytes: int) -> bytes:
        try:
            packed = read_plain(self._path(id_), most_bytes + most_bytes // 500 + 1024)  # what zlib adds at most
        except FileNotFoundError:
            raise self.damaged(f"no {kind.decode()} {id_[:12]}") from None
        except OSError as error:
            raise self.damaged(f"object {id_[:12]} cannot be read: {error.strerror}") from error
        whole = self._unpacked(packed, most_bytes + HEADER_BYTES, id_)
        header = HEADER.match(whole)
        body = whole[header.end() :] if header else b""
        if header is None or header.group(1) != kind or int(header.group(2)) != len(body) or len(body) > most_bytes:
            raise self.damaged(f"object {id_[:12]} is no {kind.decode()} of at most {most_bytes} bytes")
        if object_id(kind, body) != id_:
            raise self.damaged(f"object {id_[:12]} does not match its id")
        return body

    def put(self, kind: bytes, body: bytes) -> str:
        """Its id. On the disk when this returns; one that is there already stays, a damaged one is replaced."""
        id_ = object_id(kind, body)
        path = self._path(id_)
        if not self._holds(id_, kind, body):
            try:
                make_folder(path.parent)
                write_durably(path, zlib.compress(_whole(kind, body)))
            except OSError as error:
                raise disk_fault(self.folder, error) from error
        return id_

    def _holds(self, id_: str, kind: bytes, body: bytes) -> bool:
        try:
            return self.get(id_, kind, len(body)) == body
        except BellglassError:
            return False

    def _unpacked(self, packed: bytes, most_bytes: int, id_: str) -> bytes:
        stream = zlib.decompressobj()
        try:
            whole = stream.decompress(packed, most_bytes + 1)
        except zlib.error as error:
            raise self.damaged(f"object {id_[:12]} is no zlib stream") from error
        if not stream.eof or stream.unused_data:
            raise self.damaged(f"object {id_[:12]} is cut off, too large, or followed by something")
        return whole

    def _path(self, id_: str) -> Path:
        if OBJECT_ID.fullmatch(id_) is None:
            raise self.damaged(f"{id_!a:.60} is no object's id")
        return self.folder / id_[:2] / id_[2:]

    def damaged(self, found: str) -> LoopFault:
        """Whatever is found to be wrong with what the ledger names."""
        needed = "the bundles that the ledger names"
        return LoopFault(f"lineage {self.folder.parent}", found, needed, "bellglass verify", code="lineage_damaged")


def _whole(kind: bytes, body: bytes) -> bytes:
    return b"%s %d\0" % (kind, len(body)) + body
