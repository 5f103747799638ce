"""The tree of bundles: a bare git repository that is written from bytes and read as bytes.

Only git's command line touches it, in an environment made from nothing: no configuration of the system or of the
person, no hooks, no templates, no external diff. Author and date are fixed, so equal content gives an equal id; the id
is worked out here first, and git must come to the same one. Reading checks every object against its id.

Not covered: somebody who rewrites the repository together with the ledger. A commit that the ledger names cannot be
altered without being noticed.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import threading
import unicodedata
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from bellglass.errors import BellglassError, GuestFault, LoopFault, SetupError
from bellglass.records import Bundle, Kind, kind_of
from bellglass.store.bundles import BUNDLE_BYTES_MAX, FILES_MAX, NAME_CHARS, check_files

WHO = b"bellglass <bellglass@localhost> 946684800 +0000"  # a fixed moment: the ledger has the real times
COMMIT_ID = re.compile(r"[0-9a-f]{40}")
WHOLE_DIFF_BYTES = 8 << 20  # more than two bundles can differ by: who decides from a diff must see all of it
MESSAGE_CHARS = 4000
GIT_SECONDS = 60.0
OBJECT_BYTES_MAX = BUNDLE_BYTES_MAX + 1024
DISK_FULL = re.compile(r"No space left on device|Disk quota exceeded|File too large")
FSYNC_SINCE = (2, 36)  # the first git with core.fsync; older ones ignore the setting
INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
SETTINGS = (
    "core.fsync=all",
    "core.hooksPath=/dev/null",
    "core.attributesFile=/dev/null",
    "core.quotePath=true",
    "gc.auto=0",
    "maintenance.auto=false",
    "fastimport.unpackLimit=1000",  # loose objects: one pack per bundle would slow a long loop down
    "advice.detachedHead=false",
)


class Lineage:
    """Made by `create` or `open`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._writing = threading.Lock()  # two threads may come to the same bundle

    @classmethod
    def create(cls, folder: Path) -> Lineage:
        """Makes the repository; repeating it after a crash does no harm."""
        options = ("--bare", "--quiet", "--template=", "--initial-branch=main", "--object-format=sha1")
        _run(folder, ["init", *options, str(folder.absolute())])
        return cls.open(folder)

    @classmethod
    def open(cls, folder: Path) -> Lineage:
        if not (folder / "HEAD").is_file() or not (folder / "objects").is_dir():
            raise LoopFault(
                f"lineage {folder}",
                "no git repository",
                "the loop's lineage.git",
                "bellglass verify",
                code="lineage_damaged",
            )
        return cls(folder)

    def commit(self, bundle: Bundle, parent: str | None, message: str) -> str:
        """The id of `bundle` as a successor of `parent`. On disk when it returns; the same inputs give the same id."""
        check_files(bundle)
        if parent is not None:
            self._require(parent)
        text = (visible(message).strip()[:MESSAGE_CHARS] + "\n").encode()
        commit = _object_id(b"commit", _commit_bytes(_tree_id(bundle), parent, text))
        with self._writing:
            if not self.exists(commit):
                self._write(commit, _import_stream(commit, bundle, parent, text))
        return commit

    def _write(self, commit: str, stream: bytes) -> None:
        # A lock on this ref can only be left from a crash: the loop has one owner, and it is here.
        (self.folder / f"{_ref(commit)}.lock").unlink(missing_ok=True)
        made = self._git("fast-import", "--quiet", "--done", feed=stream).decode("ascii", "replace").strip()
        if made != commit:
            raise _damaged(self.folder, f"git made {made[:12]!r} of bundle {commit[:12]}")
        if _git_version() < FSYNC_SINCE:
            os.sync()  # slow, but an old git has no other way to put the ref on the disk

    def exists(self, commit: str) -> bool:
        _require_id(commit)
        return self._process("show-ref", "--verify", "--quiet", _ref(commit)).returncode == 0

    def read(self, commit: str) -> dict[str, bytes]:
        """The bundle, every byte checked against the id."""
        _require_id(commit)
        with self._objects() as objects:
            body = objects.get(commit, b"commit")
            tree = re.match(rb"tree ([0-9a-f]{40})\n", body)
            if tree is None:
                raise _damaged(self.folder, f"commit {commit[:12]} without a tree")
            files = dict(objects.files(tree.group(1).decode(), ""))
        try:
            check_files(files)
        except GuestFault as fault:
            raise _damaged(self.folder, f"bundle {commit[:12]}: {fault.detail}") from fault
        return dict(sorted(files.items()))

    def diff(self, a: str, b: str, most_bytes: int = WHOLE_DIFF_BYTES) -> str:
        """What a person reads: invisible and control characters are spelled out, so that the text is all there is."""
        raw = self._diff_tree("--patch", a, b)
        if len(raw) <= most_bytes:
            return visible(raw.decode("utf-8", "replace"))
        shown = raw[:most_bytes].decode("utf-8", "replace")
        return f"{visible(shown)}\n[{len(raw) - most_bytes} more bytes of this diff are not shown]\n"

    def changed(self, a: str, b: str) -> list[tuple[str, int, int]]:
        """(path, added lines, removed lines) for every path that differs; a binary file counts as replaced whole."""
        rows = [row.split("\t") for row in self._diff_tree("--numstat", a, b, "-z").decode("ascii").split("\0") if row]
        binary = any(added == "-" for added, _, _ in rows)
        old, new = (self.read(a), self.read(b)) if binary else ({}, {})
        return [
            (path, _lines(new, path), _lines(old, path)) if added == "-" else (path, int(added), int(removed))
            for added, removed, path in rows
        ]

    def kinds(self, a: str, b: str) -> frozenset[Kind]:
        return frozenset(kind for path, _, _ in self.changed(a, b) if (kind := kind_of(path)) is not None)

    def _diff_tree(self, form: str, a: str, b: str, *more: str) -> bytes:
        self._require(a)
        self._require(b)
        plain = ("-r", "--text", "--no-ext-diff", "--no-textconv", "--no-color", "--no-renames", "--no-relative")
        return self._git("diff-tree", *plain, "--diff-algorithm=histogram", "--full-index", form, *more, a, b, "--")

    def _require(self, commit: str) -> None:
        if not self.exists(commit):
            raise _damaged(self.folder, f"no bundle {commit[:12]}")

    def _git(self, *arguments: str, feed: bytes = b"") -> bytes:
        return _run(self.folder, [f"--git-dir={self.folder}", *arguments], feed)

    def _process(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        return _finished(self.folder, [f"--git-dir={self.folder}", *arguments], b"")

    @contextmanager
    def _objects(self) -> Iterator[_Objects]:
        command = [_git_program(), *_settings(), f"--git-dir={self.folder}", "cat-file", "--batch"]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, env=_environment()) as git:
            assert git.stdin is not None
            assert git.stdout is not None
            try:
                yield _Objects(self.folder, git.stdin, git.stdout)
            finally:
                git.kill()  # it only reads


class _Objects:
    """One running `git cat-file --batch`, trusted for nothing but bytes."""

    def __init__(self, folder: Path, ask: IO[bytes], answer: IO[bytes]) -> None:
        self.folder, self._ask, self._answer = folder, ask, answer
        self._files = 0

    def get(self, id_: str, kind: bytes) -> bytes:
        try:
            self._ask.write(id_.encode() + b"\n")
            self._ask.flush()
            header = self._answer.readline().split()
            size = int(header[2]) if len(header) == 3 and header[1] == kind else -1
            if not 0 <= size <= OBJECT_BYTES_MAX:
                raise _damaged(self.folder, f"no {kind.decode()} {id_[:12]}")
            body = self._answer.read(size + 1)[:-1]
        except (OSError, ValueError) as error:
            raise _damaged(self.folder, f"object {id_[:12]} cannot be read") from error
        if _object_id(kind, body) != id_:
            raise _damaged(self.folder, f"object {id_[:12]} does not match its id")
        return body

    def files(self, tree: str, prefix: str) -> Iterator[tuple[str, bytes]]:
        if prefix.count("/") > NAME_CHARS // 2:
            raise _damaged(self.folder, "folders too deep")
        rest = self.get(tree, b"tree")
        while rest:
            mode_name, _, rest = rest.partition(b"\0")
            id_, rest = rest[:20].hex(), rest[20:]
            mode, _, name = mode_name.partition(b" ")
            path = prefix + name.decode("ascii", "backslashreplace")
            self._files += 1
            if self._files > 4 * FILES_MAX:
                raise _damaged(self.folder, "too many files")
            if mode == b"40000":
                yield from self.files(id_, path + "/")
            elif mode == b"100644":
                yield path, self.get(id_, b"blob")
            else:
                raise _damaged(self.folder, f"{path!a} is no regular file")


def patches(diff: str) -> list[str]:
    """A diff by file. No line of a file begins with `diff`: a sign stands before it."""
    return re.split(r"(?m)^(?=diff --git )", diff)


def visible(text: str) -> str:
    """`text` with every character that a terminal would act on or hide spelled out; newlines and tabs stay."""
    return "".join(c if c in "\n\t" or unicodedata.category(c) not in INVISIBLE else f"\\u{{{ord(c):x}}}" for c in text)


def _lines(files: Bundle, path: str) -> int:
    return len(files.get(path, b"").splitlines())


# Ids, worked out as git does


def _object_id(kind: bytes, body: bytes) -> str:
    return hashlib.sha1(b"%s %d\0" % (kind, len(body)) + body, usedforsecurity=False).hexdigest()


def _commit_bytes(tree: str, parent: str | None, message: bytes) -> bytes:
    lines = [f"tree {tree}".encode(), *([f"parent {parent}".encode()] if parent else [])]
    return b"\n".join([*lines, b"author " + WHO, b"committer " + WHO, b"", message])


def _tree_id(files: Mapping[str, bytes]) -> str:
    folders: dict[str, dict[str, bytes]] = {}
    entries: list[tuple[bytes, bytes]] = []  # git sorts a folder as if its name ended in a slash
    for path, data in files.items():
        top, slash, rest = path.partition("/")
        if slash:
            folders.setdefault(top, {})[rest] = data
        else:
            entries.append((top.encode(), b"100644 %s\0" % top.encode() + bytes.fromhex(_object_id(b"blob", data))))
    for name, inside in folders.items():
        entry = b"40000 %s\0" % name.encode() + bytes.fromhex(_tree_id(inside))
        entries.append((name.encode() + b"/", entry))
    return _object_id(b"tree", b"".join(entry for _, entry in sorted(entries)))


def _import_stream(commit: str, bundle: Bundle, parent: str | None, message: bytes) -> bytes:
    """What fast-import reads: it writes the objects and syncs them before it sets the ref."""
    parts = [b"feature done\ncommit %s\nmark :1\n" % _ref(commit).encode()]
    parts += [b"author ", WHO, b"\ncommitter ", WHO, b"\ndata %d\n" % len(message), message, b"\n"]
    if parent:
        parts.append(b"from %s\n" % parent.encode())
    parts.append(b"deleteall\n")
    for path, data in sorted(bundle.items()):
        parts += [b"M 100644 inline %s\ndata %d\n" % (path.encode(), len(data)), data, b"\n"]
    parts.append(b"get-mark :1\ndone\n")
    return b"".join(parts)


def _ref(commit: str) -> str:
    return f"refs/bundles/{commit}"


def _require_id(commit: str) -> None:
    if COMMIT_ID.fullmatch(commit) is None:
        raise LoopFault(
            f"bundle {ascii(commit)[:60]}",
            "no commit id",
            "40 hexadecimal digits",
            "bellglass log",
            code="lineage_damaged",
        )


# Running git


def _git_program() -> str:
    program = shutil.which("git")
    if program is None:
        raise SetupError(
            "git",
            "not found on PATH",
            "git 2.31 or newer",
            "install git (macOS: xcode-select --install)",
            code="git_unfit",
        )
    return program


@functools.cache
def _git_version() -> tuple[int, int]:
    said = re.search(rb"(\d+)\.(\d+)", _run(Path(), ["version"]))
    return (int(said.group(1)), int(said.group(2))) if said else (0, 0)


def _settings() -> list[str]:
    return [word for setting in SETTINGS for word in ("-c", setting)]


def _environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "TMPDIR", "DEVELOPER_DIR") if name in os.environ}
    return {
        **kept,
        "HOME": os.devnull,
        "XDG_CONFIG_HOME": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_SYSTEM": os.devnull,
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "LC_ALL": "C",
        "TZ": "UTC",
    }


def _run(folder: Path, arguments: list[str], feed: bytes = b"") -> bytes:
    done = _finished(folder, arguments, feed)
    if done.returncode == 0:
        return done.stdout
    said = visible(done.stderr.decode("utf-8", "replace").strip())[-400:]
    if DISK_FULL.search(said) or done.returncode == -signal.SIGXFSZ:
        raise SetupError(
            f"writing {folder}", said, "free disk space", "free some space, then bellglass resume", code="disk_full"
        )
    if arguments[0] == "init":
        raise SetupError(
            f"making {folder}",
            said,
            "git 2.31 or newer and a folder this user may write",
            "git --version",
            code="git_unfit",
        )
    command = next(word for word in arguments if not word.startswith("-"))
    raise _damaged(folder, f"git {command} failed: {said}")


def _finished(folder: Path, arguments: list[str], feed: bytes) -> subprocess.CompletedProcess[bytes]:
    command = [_git_program(), *_settings(), *arguments]
    try:
        return subprocess.run(
            command, input=feed, env=_environment(), capture_output=True, timeout=GIT_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        found, look = f"git silent for {GIT_SECONDS:.0f} s", f"df -h {shlex.quote(str(folder))}"
        raise LoopFault(f"lineage {folder}", found, "a disk that answers", look, code="disk_silent") from error
    except OSError as error:
        raise SetupError("git", str(error.strerror), "a git that runs", "git --version", code="git_unfit") from error


def _damaged(folder: Path, found: str) -> BellglassError:
    return LoopFault(
        f"lineage {folder}", found, "the bundles that the ledger names", "bellglass verify", code="lineage_damaged"
    )
