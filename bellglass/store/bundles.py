"""Bundles as bytes: the starter, and what a guest may turn one into.

A file that came out of a glass is only ever a name and bytes. Names are plain printable ASCII, so that no two of them
can meet on a disk that folds case or Unicode, and none means anything to git, a shell or a terminal.

Not covered: what the bytes do. They run only inside a glass.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from bellglass.errors import GuestFault, SetupError
from bellglass.paths import content_files, content_root
from bellglass.records import KIND_OF_PATH, Bundle, Kind, kind_of

SCAFFOLD_ENTRY = "scaffold/improve.py"
NAME_CHARS = 200
FILES_MAX = 200
FILE_BYTES_MAX = 256 * 1024
BUNDLE_BYTES_MAX = 2 * 1024 * 1024
SCAFFOLD_BYTES_MAX = 512 * 1024
TRAINER_BYTES_MAX = 48 * 1024  # source, not weights in disguise; the starter has about 9 KB

# One part of a path: it begins with a letter, digit or underscore, or with a dot that is no `.git…`, and does not end
# in a dot or space (Windows drops those, which would make two names one).
PART = re.compile(r"(?!\.git)(?!git~\d)[A-Za-z0-9_.](?:[A-Za-z0-9_.+@=, ~-]*[A-Za-z0-9_+@=,~-])?", re.IGNORECASE)


def starter() -> Bundle:
    """The bundle of generation 0, from the content that ships with bellglass."""
    root = content_root()
    files = {f"scaffold/{name}": path.read_bytes() for name, path in content_files(root / "agent")}
    for name, path in content_files(root / "trainer_seed"):
        if f"trainer/{name}" in KIND_OF_PATH:
            files[f"trainer/{name}"] = path.read_bytes()
    missing = [path for path in (*KIND_OF_PATH, SCAFFOLD_ENTRY) if path not in files]
    if missing:
        raise SetupError(
            "the starter bundle",
            f"no {missing[0]} in {root}",
            "a complete checkout or installation",
            "git status",
            code="installation_incomplete",
        )
    check_files(files)
    return dict(sorted(files.items()))


def check_submission(parent: Bundle, files: Mapping[str, bytes], may_edit: frozenset[Kind]) -> Bundle:
    """The successor: `files` replaces trainer/ and scaffold/ whole. GuestFault naming the path that is at fault."""
    bundle = check_bundle(parent, files, may_edit)
    if bundle == dict(parent):
        raise GuestFault("empty_submit", "nothing differs from the parent")
    return bundle


def check_bundle(parent: Bundle, files: Mapping[str, bytes], may_edit: frozenset[Kind]) -> Bundle:
    """The same for a trial, which may also be of the unchanged parent."""
    check_files(files)
    bundle = {path: bytes(data) for path, data in sorted(files.items()) if not is_leaving(path)}
    for path in bundle:
        if kind_of(path) is None:
            raise _bad(path, "is no part of a bundle")
    for path in (*KIND_OF_PATH, SCAFFOLD_ENTRY):
        if path not in bundle:
            raise _bad(path, "is missing")
    for path in sorted(changed_paths(parent, bundle)):
        kind = kind_of(path)
        if kind not in may_edit:
            raise _bad(path, f"belongs to {kind}, which this loop does not let an improver edit")
    if trainer_bytes(bundle) > TRAINER_BYTES_MAX:
        raise _bad("trainer/", f"holds {trainer_bytes(bundle)} bytes, more than {TRAINER_BYTES_MAX}")
    if scaffold_bytes(bundle) > SCAFFOLD_BYTES_MAX:
        raise _bad("scaffold/", f"holds {scaffold_bytes(bundle)} bytes, more than {SCAFFOLD_BYTES_MAX}")
    return bundle


def check_files(files: Mapping[str, bytes]) -> None:
    """Names, count and sizes that any bundle must keep to."""
    if len(files) > FILES_MAX:
        raise GuestFault("bad_submit", f"{len(files)} files, more than {FILES_MAX}")
    total = 0
    seen: dict[str, str] = {}
    for path, data in files.items():
        check_name(path)
        if len(data) > FILE_BYTES_MAX:
            raise _bad(path, f"holds {len(data)} bytes, more than {FILE_BYTES_MAX}")
        total += len(data)
        other = seen.setdefault(path.lower(), path)
        if other != path:
            raise _bad(path, f"differs only in case from {other}")
    if total > BUNDLE_BYTES_MAX:
        raise GuestFault("bad_submit", f"{total} bytes together, more than {BUNDLE_BYTES_MAX}")
    for path in files:
        parts = path.lower().split("/")
        for depth in range(1, len(parts)):
            if "/".join(parts[:depth]) in seen:
                raise _bad(path, "lies inside a file of the same name as its folder")


def check_name(path: str) -> None:
    if not path or len(path) > NAME_CHARS:
        raise _bad(path, f"has {len(path)} characters; 1 to {NAME_CHARS} are allowed")
    for part in path.split("/"):
        if part in (".", "..") or PART.fullmatch(part) is None:
            raise _bad(path, "is not an allowed name")


def is_leaving(path: str) -> bool:
    """What Python leaves behind when an improver tries its code; dropped without a word."""
    return path.endswith(".pyc") or "__pycache__" in path.split("/")


def changed_paths(parent: Bundle, child: Bundle) -> set[str]:
    """Added, removed and altered ones."""
    return {path for path in {*parent, *child} if parent.get(path) != child.get(path)}


def trainer_bytes(bundle: Bundle) -> int:
    return sum(len(data) for path, data in bundle.items() if path.startswith("trainer/"))


def scaffold_bytes(bundle: Bundle) -> int:
    return sum(len(data) for path, data in bundle.items() if path.startswith("scaffold/"))


def _bad(path: str, why: str) -> GuestFault:
    return GuestFault("bad_submit", f"{ascii(path)[1:-1][:NAME_CHARS]} {why}")
