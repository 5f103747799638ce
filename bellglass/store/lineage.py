"""The tree of bundles: a bare git repository that is written from bytes and read as bytes, without git.

It is kept so that a person can read it with plain git; bellglass asks git for nothing, because a loop may come from
somebody else, and git believes what lies in a repository (`objects`). Which bundles there are, the ledger says: refs
are written for git's sake and never read. Author and date are fixed, so equal content gives an equal id.

Not covered: somebody who rewrites the repository together with the ledger. A commit that the ledger names cannot be
altered without being noticed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from bellglass.errors import GuestFault, LoopFault
from bellglass.records import Bundle, Kind, kind_of
from bellglass.store.blobs import disk_fault, make_folder, write_durably
from bellglass.store.bundles import BUNDLE_BYTES_MAX, FILE_BYTES_MAX, FILES_MAX, NAME_CHARS, changed_paths, check_files
from bellglass.store.differences import Difference, differences
from bellglass.store.folder import entries, read_plain
from bellglass.store.objects import OBJECT_ID, Objects, object_id
from bellglass.visible import spelled, visible

WHO = b"bellglass <bellglass@localhost> 946684800 +0000"  # a fixed moment: the ledger has the real times
WHOLE_DIFF_BYTES = 8 << 20  # more than two bundles can differ by: who decides from a diff must see all of it
MESSAGE_CHARS = 4000
COMMIT_BYTES_MAX = 8 * MESSAGE_CHARS
CODE = (".py",)  # what is no prose: there a letter that looks like another is one more way to hide something
SPELLED = "characters are spelled out here, as \\u{...}: outside ASCII in code, or that nobody would see"
MANY = 32 << 20  # bytes; a thousand generations of one changed file each
DEPTH_MAX = (NAME_CHARS - 1) // 2
ENTRIES_MAX = FILES_MAX * DEPTH_MAX  # files and folders of a bundle
TREE_BYTES_MAX = FILES_MAX * (NAME_CHARS + 30)
COMMIT = re.compile(
    rb"tree ([0-9a-f]{40})\n(?:parent [0-9a-f]{40}\n)?author %s\ncommitter %s\n\n.*" % ((re.escape(WHO),) * 2),
    re.DOTALL,
)
ENTRY = re.compile(rb"(100644|40000) ([^\0/]+)\0(.{20})", re.DOTALL)

HEAD = b"ref: refs/heads/main\n"
# The settings are for people who look with git: an automatic `gc` would make packs.
CONFIG = b"[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = true\n[gc]\n\tauto = 0\n"
# What older versions had git write: the same without `gc`, and whatever it found out about the disk.
TAME = re.compile(
    rb"(\s*(\[(core|gc)\]|(repositoryformatversion|auto|filemode|bare|ignorecase|precomposeunicode|symlinks) = "
    rb"(0|true|false))\n)*"
)
# All that bellglass, or git for it, ever wrote here; the last are what a crash leaves, and macOS where one looks.
LAYOUT = re.compile(
    r"HEAD|config|objects(/(info|pack|[0-9a-f]{2}(/[0-9a-f]{38})?))?"
    r"|refs(/(heads|tags|bundles(/[0-9a-f]{40}(\.lock)?)?))?"
    r"|fast_import_crash_\d+|([0-9a-z/]+/)?(\.new-\w+|tmp_(obj|pack|idx)_\w+|\.DS_Store)"
)


class Lineage:
    """Made by `create` or `open`."""

    def __init__(self, folder: Path, keeps: int = 0) -> None:
        self.folder = folder
        self._objects = Objects(folder / "objects", keeps)

    @classmethod
    def create(cls, folder: Path) -> Lineage:
        """Makes the repository; repeating it after a crash does no harm."""
        try:
            for name in ("objects/info", "objects/pack", "refs/heads", "refs/tags", "refs/bundles"):
                make_folder(folder / name)
            for name, content in (("config", CONFIG), ("HEAD", HEAD)):
                if not (folder / name).exists():
                    write_durably(folder / name, content)
        except OSError as error:
            raise disk_fault(folder, error) from error
        return cls.open(folder)

    @classmethod
    def open(cls, folder: Path, keeps: int = 0) -> Lineage:
        """Refuses a repository with anything in it that bellglass never writes, before any of it is used.

        `keeps`: bytes of files that stay in memory; MANY for who reads many bundles.
        """
        if folder.is_symlink() or not (folder / "HEAD").is_file() or not (folder / "objects").is_dir():
            raise LoopFault(
                f"lineage {folder}",
                "no git repository",
                "the loop's lineage.git",
                "bellglass verify",
                code="lineage_damaged",
            )
        for name in entries(folder):
            if LAYOUT.fullmatch(name) is None:
                raise _foreign(folder, f"{name!a:.200} in it")
        if TAME.fullmatch(_settings(folder)) is None:
            raise _foreign(folder, "other settings in its `config`")
        return cls(folder, keeps)

    def commit(self, bundle: Bundle, parent: str | None, message: str) -> str:
        """The id of `bundle` as a successor of `parent`. On disk when it returns; the same inputs give the same id.

        What is there already is looked at again, so that a bundle with a damaged part is whole afterwards.
        """
        check_files(bundle)
        if parent is not None:
            self._tree_of(parent)
        text = (visible(message).strip()[:MESSAGE_CHARS] + "\n").encode()
        tree = _tree(bundle, self._objects.put)
        commit = self._objects.put(b"commit", _commit_bytes(tree, parent, text))
        ref = self.folder / "refs" / "bundles" / commit  # without it git would throw the bundle away as unreachable
        try:
            if not ref.exists():
                make_folder(ref.parent)
                write_durably(ref, commit.encode() + b"\n")
        except OSError as error:
            raise disk_fault(self.folder, error) from error
        return commit

    def read(self, commit: str) -> dict[str, bytes]:
        """The bundle, every byte checked against the id, and nothing that `commit` would not have written."""
        tree = self._tree_of(commit)
        reading = _Reading(self._objects)
        files = reading.files(tree)
        try:
            check_files(files)
        except GuestFault as fault:
            raise self._objects.damaged(f"bundle {commit[:12]}: {fault.detail}") from fault
        if _tree(files, reading.id_of) != tree:
            raise self._objects.damaged(f"bundle {commit[:12]} is not as bellglass writes one")
        return dict(sorted(files.items()))

    def compare(self, a: str, b: str) -> Comparison:
        old, new = self.read(a), self.read(b)
        return Comparison(old, new, tuple(differences(old, new)))

    def diff(self, a: str, b: str) -> str:
        """What a person reads of a comparison."""
        return self.compare(a, b).text()

    def kinds(self, a: str, b: str) -> frozenset[Kind]:
        paths = changed_paths(self.read(a), self.read(b))
        return frozenset(kind for path in paths if (kind := kind_of(path)) is not None)

    def _tree_of(self, commit: str) -> str:
        if OBJECT_ID.fullmatch(commit) is None:
            found = f"bundle {ascii(commit)[:60]}"
            raise LoopFault(found, "no commit id", "40 hexadecimal digits", "bellglass log", code="lineage_damaged")
        body = COMMIT.fullmatch(self._objects.get(commit, b"commit", COMMIT_BYTES_MAX))
        if body is None:
            raise self._objects.damaged(f"commit {commit[:12]} is none of bellglass's")
        return body.group(1).decode()


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two bundles, and every path that differs between them."""

    old: Bundle
    new: Bundle
    files: tuple[Difference, ...]

    def text(self, most_bytes: int = WHOLE_DIFF_BYTES) -> str:
        """What a person reads: what they would not see is spelled out, so that the text is all there is.

        A first line says how much was, if anything.
        """
        parts, count, left = [], 0, most_bytes
        for one in self.files:
            shown, hidden = spelled(one.patch[: max(0, left)].decode("utf-8", "replace"), code=one.path.endswith(CODE))
            parts.append(shown)
            count, left = count + hidden, left - len(one.patch)
        if left < 0:
            parts.append(f"\n[{-left} more bytes of this diff are not shown]\n")
        return "".join([f"[{count} {SPELLED}]\n" if count else "", *parts])


class _Reading:
    """One bundle as it is read: what it may cost is bounded before it is known to be one."""

    def __init__(self, objects: Objects) -> None:
        self._objects, self._entries, self._bytes = objects, ENTRIES_MAX, BUNDLE_BYTES_MAX
        self._ids: dict[bytes, str] = {}  # of the files' contents, each checked when it was read

    def files(self, tree: str) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        for path, data in self._below(tree, "", 0):
            if path in found:
                raise self._objects.damaged(f"{path!a} twice")
            found[path] = data
        return found

    def id_of(self, kind: bytes, body: bytes) -> str:
        return self._ids[body] if kind == b"blob" else object_id(kind, body)

    def _below(self, tree: str, prefix: str, depth: int) -> Iterator[tuple[str, bytes]]:
        if depth > DEPTH_MAX:
            raise self._objects.damaged("folders too deep")
        body = self._objects.get(tree, b"tree", TREE_BYTES_MAX)
        at = 0
        while at < len(body):
            entry = ENTRY.match(body, at)
            self._entries -= 1
            if entry is None or self._entries < 0:
                found = "too many files" if entry else f"{body[at : at + 80]!a} is no regular file"
                raise self._objects.damaged(f"tree {tree[:12]}: {found}")
            at = entry.end()
            mode, name, id_ = entry.groups()
            if len(prefix) + len(name) > NAME_CHARS:
                raise self._objects.damaged(f"tree {tree[:12]}: a name of more than {NAME_CHARS} characters")
            path = prefix + name.decode("ascii", "backslashreplace")
            if mode == b"40000":
                yield from self._below(id_.hex(), f"{path}/", depth + 1)
            else:
                data = self._objects.get(id_.hex(), b"blob", min(FILE_BYTES_MAX, self._bytes))
                self._bytes -= len(data)
                self._ids[data] = id_.hex()
                yield path, data


def patches(diff: str) -> tuple[str, list[str]]:
    """What a diff says on top, if anything, and the diff by file. No line of a file begins with `diff`: a sign stands
    before it."""
    note, *files = re.split(r"(?m)^(?=diff --git )", diff)
    return (note, files) if not note.startswith("diff --git ") else ("", [note, *files])


# Objects, as git forms them


def _commit_bytes(tree: str, parent: str | None, message: bytes) -> bytes:
    lines = [f"tree {tree}".encode(), *([f"parent {parent}".encode()] if parent else [])]
    return b"\n".join([*lines, b"author " + WHO, b"committer " + WHO, b"", message])


def _tree(files: Mapping[str, bytes], keep: Callable[[bytes, bytes], str]) -> str:
    """The id of a folder. `keep` is given every object, what one names before itself, and tells its id."""
    folders: dict[str, dict[str, bytes]] = {}
    rows: list[tuple[bytes, bytes]] = []  # git sorts a folder as if its name ended in a slash
    for path, data in files.items():
        top, slash, rest = path.partition("/")
        if slash:
            folders.setdefault(top, {})[rest] = data
        else:
            rows.append((top.encode(), b"100644 %s\0" % top.encode() + bytes.fromhex(keep(b"blob", data))))
    for name, inside in folders.items():
        entry = b"40000 %s\0" % name.encode() + bytes.fromhex(_tree(inside, keep))
        rows.append((name.encode() + b"/", entry))
    return keep(b"tree", b"".join(row for _, row in sorted(rows)))


def _settings(folder: Path) -> bytes:
    try:
        return read_plain(folder / "config", 4096)
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise _foreign(folder, f"a `config` that can't be read ({error.strerror})") from error


def _foreign(folder: Path, found: str) -> LoopFault:
    needed = "nothing but what bellglass writes (no pack, no alternates, no hook)"
    return LoopFault(f"lineage {folder}", found, needed, "restore it from a copy of the loop", code="lineage_refused")
