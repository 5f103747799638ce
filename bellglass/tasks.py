"""Tasks: what is trained and judged on. Reads `tasks/<name>/task.toml`, and checks the documents that `data.py` makes.

A task is named by one of the shipped folders, or by the path of a folder of one's own; docs/tasks.md says how to write
one.

All data of a loop derives from its one secret: a key for what the splits share (`world`), one key per split, and with
a salt a fresh split of the same kind. A label's key tells nothing about the others.

Not covered: `data.py` and `task.toml` are trusted host code; nothing from a glass reaches this module.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from bellglass import data_file
from bellglass.data_file import check_command
from bellglass.download import Download, ready, recorded
from bellglass.errors import LoopFault, UsageError
from bellglass.paths import CONTENT, cache_home, content_hash, content_root
from bellglass.records import Budget, Json
from bellglass.store.blobs import BLOB_BYTES_MAX

Split: TypeAlias = Literal["train", "select", "confirm", "final"]
SPLITS: tuple[Split, ...] = ("train", "select", "confirm", "final")
PRESETS = ("tiny", "cpu", "gpu")
PAD = 0
TRAIN_SHARE = 0.9  # of the train split that one data seed shows to a trainer
LIST = "bellglass tasks"
FIGURES = "baselines.json"  # what loops on a shipped task reached: benchmarks rewrite it, and nothing is made from it
OWN = "task"  # in the first event: the hash of a folder of one's own


@dataclass(frozen=True, slots=True)
class Preset:
    """A size of trial: its budget (`steps` is the same in virtual time) and how many documents each split has."""

    name: str
    budget: Budget
    steps: int
    train_docs: int
    select_docs: int
    confirm_docs: int
    final_docs: int
    weights_mb: float
    predict_seconds: float


@dataclass(frozen=True, slots=True)
class Task:
    name: str
    title: str
    unit: str
    vocab: int  # token 0 is padding
    context: int  # a document has at most context + 1 tokens
    separable: bool  # True: a target can be withheld from the guest that predicts it
    targets: Literal["all", "last"]  # every token but the first, or the last one alone
    floor: Literal["exact", "unknown"]
    skills: tuple[str, ...]
    confirm_slices: int  # of a fixed corpus: used in turn, two a generation; 1: each salt draws anew
    downloads: tuple[Download, ...]  # public files that data.py reads
    presets: Mapping[str, Preset]
    measured: Mapping[str, Json]
    folder: Path

    @property
    def cache(self) -> Path:
        """Where its downloads lie."""
        return cache_home() / self.name

    def brief(self) -> str:
        """What an improver may read about the task."""
        path = self.folder / "brief.md"
        try:
            return path.read_text(encoding="utf-8")
        except OSError as error:
            found, needed = f"{path}: {error.strerror}", "a readable brief.md"
            raise UsageError(
                f"task {self.name!r}", found, needed, check_command(self.folder), code="task_folder_broken"
            ) from None


@dataclass(frozen=True, slots=True, eq=False)
class Documents:
    """N documents of L = context + 1 tokens. Token j, where it is a target, is predicted from tokens[:, :j]."""

    tokens: npt.NDArray[np.uint16]
    target: npt.NDArray[np.bool_]
    skill: npt.NDArray[np.uint8]  # index into the task's skills
    floor_bits: npt.NDArray[np.float32]  # the source's own code length; zeros where it is unknown

    def __len__(self) -> int:
        return len(self.tokens)

    def take(self, rows: npt.NDArray[np.int64]) -> Documents:
        return Documents(self.tokens[rows], self.target[rows], self.skill[rows], self.floor_bits[rows])


def names() -> tuple[str, ...]:
    """Every task there is, by folder."""
    return tuple(sorted(path.parent.name for path in (content_root() / "tasks").glob("*/task.toml")))


def load(name: str) -> Task:
    """The task of that name or in that folder, or UsageError that says what exists or what is wrong with it."""
    if is_folder(name):
        return read(Path(full_name(name)))
    if name not in names():
        folder = f"./{name}" if Path(name).is_dir() else "./FOLDER"
        raise UsageError(
            f"task {name!r}", "no such task", f"one of {', '.join(names())}, or {folder}", LIST, code="unknown_task"
        )
    return read(content_root() / "tasks" / name)


def is_folder(name: str) -> bool:
    """Whether it names a folder of one's own: what has a slash, `~` or a dot is a path."""
    return os.sep in name or name.startswith((".", "~"))


def is_shipped(name: str) -> bool:
    """Whether it is of those that came with bellglass, so that its data.py is nobody else's code."""
    return Path(full_name(name)).parent in (Path(), content_root() / "tasks")


def full_name(name: str) -> str:
    """The name as a loop keeps it: a folder by its full path, so that the loop finds it again from anywhere."""
    if not is_folder(name):
        return name
    try:
        return os.path.abspath(Path(name).expanduser())
    except RuntimeError:  # ~nobody
        raise UsageError(
            f"task {name!r}", "no such user", "~ alone, or a user of this machine", LIST, code="unknown_user"
        ) from None


def read(folder: Path) -> Task:
    """The task that a folder describes."""
    path = folder / "task.toml"
    if not re.fullmatch(r"[A-Za-z][\w-]{0,40}", folder.name):  # it becomes part of a loop's name
        raise UsageError(
            f"task folder {folder}",
            "a name that a task can't have",
            "letters, digits, _ and -",
            LIST,
            code="task_folder_broken",
        )
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        found = error.strerror or type(error).__name__
        raise UsageError(
            str(path), found, "a readable task.toml", check_command(folder), code="task_folder_broken"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(
            str(path), f"broken TOML: {error}", "valid TOML", check_command(folder), code="task_folder_broken"
        ) from None
    top = _Section(str(path), content, check_command(folder))
    task = Task(
        name=folder.name,
        title=top.text("title"),
        unit=top.text("unit"),
        vocab=top.count("vocab", least=2, most=65535),
        context=top.count("context", most=65535),
        separable=top.flag("separable"),
        targets=cast(Literal["all", "last"], top.one_of("targets", "all", "last")),
        floor=cast(Literal["exact", "unknown"], top.one_of("floor", "exact", "unknown")),
        skills=top.texts("skills"),
        confirm_slices=top.count("confirm_slices", default=1),
        downloads=tuple(_download(name, table) for name, table in top.tables("downloads")),
        presets=_presets(top.section("presets")),
        measured=top.take("measured", dict, "a table", default={}),
        folder=folder,
    )
    top.done()
    task.brief()
    return task


def _download(name: str, section: _Section) -> Download:
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]{0,99}", name):
        raise section.wrong(name, "a name that a file in the cache can't have", "letters, digits, dots, dashes")
    download = Download(name, section.text("url"), section.text("sha256", default="") or None)
    section.done()
    return download


def _presets(section: _Section) -> dict[str, Preset]:
    presets = {name: _preset(name, section.section(name)) for name in PRESETS}
    section.done()
    return presets


def _preset(name: str, section: _Section) -> Preset:
    budget = section.section("budget")
    kind = budget.one_of("kind", "cpu_seconds", "gpu_seconds", "steps")
    preset = Preset(
        name=name,
        budget=Budget(cast(Any, kind), budget.number("amount"), budget.number("wall_seconds")),
        steps=section.count("steps"),
        train_docs=section.count("train_docs"),
        select_docs=section.count("select_docs"),
        confirm_docs=section.count("confirm_docs"),
        final_docs=section.count("final_docs"),
        weights_mb=section.number("weights_mb", BLOB_BYTES_MAX / 1e6),
        predict_seconds=section.number("predict_seconds"),
    )
    budget.done()
    section.done()
    return preset


KEYS = {field.name for record in (Task, Preset, Budget) for field in fields(record)} | {*PRESETS, "url", "sha256"}


class _Section:
    """One table of a task.toml, read key by key; what is missing, wrong or left over is one clear error."""

    def __init__(self, where: str, content: Mapping[str, Json], next_command: str) -> None:
        self._where, self._content, self._next = where, dict(content), next_command

    def wrong(self, key: str, found: str, needed: str) -> UsageError:
        return UsageError(f"{self._where}: {key}", found, needed, self._next, code="task_folder_broken")

    def take(self, key: str, kind: type | tuple[type, ...], needed: str, default: Json = None) -> Any:
        if key not in self._content and default is not None:
            return default
        if key not in self._content:
            near = difflib.get_close_matches(key, self._content.keys() - KEYS, 1)
            raise self.wrong(key, f"nothing, but {near[0]!r}" if near else "nothing", needed)
        value = self._content.pop(key)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise self.wrong(key, repr(value), needed)
        return value

    def text(self, key: str, default: str | None = None) -> str:
        return str(self.take(key, str, "a string", default))

    def flag(self, key: str) -> bool:
        return bool(self.take(key, bool, "true or false"))

    def texts(self, key: str) -> tuple[str, ...]:
        value = self.take(key, list, "a list of strings")
        if not value or not all(isinstance(item, str) for item in value):
            raise self.wrong(key, repr(value), "a list of at least one string")
        return tuple(value)

    def one_of(self, key: str, *allowed: str) -> str:
        value = self.take(key, str, "a string")
        if value not in allowed:
            raise self.wrong(key, repr(value), f"one of {', '.join(allowed)}")
        return str(value)

    def count(self, key: str, least: int = 1, most: int = 10**9, default: int | None = None) -> int:
        value = self.take(key, int, "a whole number", default)
        if not least <= value <= most:
            raise self.wrong(key, str(value), f"{least} to {most}")
        return int(value)

    def number(self, key: str, most: float = float("inf")) -> float:
        value = self.take(key, (int, float), "a number")
        if not 0 < value < float("inf") or value > most:
            needed = "a positive number" if most == float("inf") else f"a positive number, {most:g} at most"
            raise self.wrong(key, str(value), needed)
        return float(value)

    def section(self, key: str) -> _Section:
        return _Section(f"{self._where} [{key}]", self.take(key, dict, "a table"), self._next)

    def tables(self, key: str) -> list[tuple[str, _Section]]:
        """The tables in a table, none where it is left out."""
        group = _Section(f"{self._where} [{key}]", self.take(key, dict, "a table", default={}), self._next)
        return [(name, group.section(name)) for name in list(group._content)]

    def done(self) -> None:
        if self._content:
            key = sorted(self._content)[0]
            raise self.wrong(key, "an unknown key", "only keys that docs and the other tasks use")


def make(task: Task, split: Split, secret: bytes, docs: int, salt: str = "") -> Documents:
    """That many documents of a split; with another salt other ones, of the same world.

    A fixed corpus can't be drawn from for ever: confirm's salt ("g3-0" for the first pair of generation 3's gate,
    "panel-g3-0" for its champion's panel) says which slice comes: all pairs of a gate draw from one, and after the last
    slice the first comes again.
    """
    assert split in SPLITS, split
    extras: dict[str, Any] = {}
    if task.downloads:
        extras["files"] = {download.name: ready(task.name, download, task.cache) for download in task.downloads}
    if task.confirm_slices > 1:
        extras["part"] = (_turn(salt) % task.confirm_slices, task.confirm_slices) if split == "confirm" else (0, 1)
    key, world = _derive(secret, f"{split}\0{salt}"), _derive(secret, "world")
    documents = Documents(**data_file.run(task.name, task.folder, split, key, docs, world, **extras))
    _check(task, documents, docs)
    return documents


def _turn(salt: str) -> int:
    """Two a generation: its gate's, then its panel's, which must not be what chose the champion."""
    number = re.search(r"\d+", salt)
    return 2 * max(0, int(number[0]) - 1) + salt.startswith("panel") if number else 0


def contents(task: Task) -> dict[str, str]:
    """Hashes of all that a loop is made from, for its first event; a folder of one's own and downloads are apart."""
    root = content_root()
    own = {} if _shipped(task) else {OWN: content_hash(task.folder)}
    fetched = {d.name: checksum or "" for d, checksum in zip(task.downloads, _checksums(task), strict=True)}
    parts = {part: content_hash(root / part, (FIGURES,) if part == "tasks" else ()) for part in CONTENT}
    return parts | own | fetched


def documents_hash(task: Task, preset: Preset) -> str:
    """Of what makes the documents that a preset trains and scores on, and of how many those are.

    Of a shipped task data.py says all; whoever wrote another may have put anything beside it.
    """
    counts = (preset.train_docs, preset.select_docs)
    made_from = (task.folder / "data.py").read_bytes() + repr((counts, _checksums(task))).encode()
    own = "" if _shipped(task) else content_hash(task.folder)
    return hashlib.sha256(made_from + own.encode()).hexdigest()


def _shipped(task: Task) -> bool:
    return task.folder.parent == content_root() / "tasks"


def _checksums(task: Task) -> list[str | None]:
    """Of its downloads, as pinned or as recorded; None of one that is not there."""
    return [download.sha256 or recorded(task.cache / download.name) for download in task.downloads]


def reopen(name: str, made_from: Mapping[str, str]) -> Task:
    """The task of a loop that exists; LoopFault where its documents would not be the same."""
    task = load(name)
    now = contents(task)
    changed = sorted(part for part in now if part not in CONTENT and now[part] != made_from.get(part))
    if changed:
        found = f"{task.folder if changed == [OWN] else ', '.join(changed)}: not what the loop began with"
        raise LoopFault(
            f"task {task.name!r}", found, "the same files", "bellglass run, for a new loop", code="task_changed"
        )
    return task


def train_order(docs: Documents, data_seed: int) -> Documents:
    """The order and the share of the train split that this data seed shows to a trainer. Made by the host."""
    raw = hashlib.shake_256(b"bellglass train order" + data_seed.to_bytes(16, "little", signed=True))
    ranks = np.frombuffer(raw.digest(8 * len(docs)), dtype="<u8")
    keep = max(1, round(TRAIN_SHARE * len(docs)))
    return docs.take(np.argsort(ranks, kind="stable")[:keep])


def meta(task: Task) -> dict[str, Json]:
    """What a trainer is told beside the tokens, as `data/meta.json`."""
    return {"context": task.context, "vocab": task.vocab, "pad": PAD, "targets": task.targets}


def _derive(secret: bytes, label: str) -> bytes:
    """One 32-byte key per label: keyed BLAKE2b, which is a pseudo-random function of its key."""
    assert len(secret) >= 16, "a loop's secret has 32 bytes"
    return hashlib.blake2b(label.encode(), key=secret, digest_size=32, person=b"bellglass-data").digest()


def _check(task: Task, made: Documents, docs: int) -> None:
    """A task that breaks its own contract must not become a strange verdict."""

    def wrong(found: str, needed: str) -> UsageError:
        thing = f"documents of task {task.name!r} ({task.folder / 'data.py'})"
        return UsageError(thing, found, needed, check_command(task.folder), code="task_documents_unfit")

    shape = (docs, task.context + 1)
    for name, dtype in (("tokens", np.uint16), ("target", np.bool_), ("skill", np.uint8), ("floor_bits", np.float32)):
        array = getattr(made, name)
        if array.shape != shape or array.dtype != dtype:
            raise wrong(f"{name}: {array.dtype} {array.shape}", f"{np.dtype(dtype)} {shape}")
    if made.tokens.max() >= task.vocab:
        raise wrong(f"token {made.tokens.max()}", f"tokens below the vocab of task.toml, {task.vocab}")
    if made.skill.max() >= len(task.skills):
        raise wrong(f"skill {made.skill.max()}", f"an index into the {len(task.skills)} skills of task.toml")
    if made.target[:, 0].any():
        raise wrong("a target in column 0, with nothing before it", "targets from column 1 on")
    if not ((made.floor_bits >= 0.0) & (made.floor_bits < np.inf)).all():  # neither holds for NaN
        raise wrong("floor_bits that are negative, infinite or no number", "code lengths in bits")
    if task.floor == "unknown" and made.floor_bits.any():
        raise wrong("floor_bits that are not 0, and an unknown floor", 'zeros, or floor = "exact" in task.toml')
    if task.targets == "last" and (made.target & ~_last(made.tokens)).any():
        raise wrong("a target before a document's last token", 'that one alone, or targets = "all" in task.toml')


def _last(tokens: npt.NDArray[np.uint16]) -> npt.NDArray[np.bool_]:
    """Where each document's last token stands, before its padding."""
    told = tokens != PAD
    last: npt.NDArray[np.bool_] = told & (told[:, ::-1].cumsum(axis=1)[:, ::-1] == 1)
    return last
