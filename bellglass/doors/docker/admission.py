"""Which images a guest may run from: each of ours, and each that is ever derived from one of ours. Pure.

`refusals` reads what the engine says about an image and about all others that carry our labels; `image.find` asks it
whenever a glass is made. `unfit` reads every file of an image; `image.build` asks it once, before an image gets its
name. An image that was derived in a hurry (`FROM` one of ours and a file more) keeps its parent's layers, so a guest of
it would have the very files, and so the page cache, of a guest of another role: it is refused until it is flattened,
which is what the last stages of the Dockerfile do (`FROM scratch`, then `COPY --from`).

Not covered: an image whose labels lie. Who can make one may talk to the daemon, and is root on this machine.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bellglass.doors.docker.profile import ENV, LABEL, PYTHON, SCRIPT, WORK

# Mounted over while a guest runs, so what an image has there is never seen.
MOUNTED = ("dev", "proc", "sys", "tmp", WORK.strip("/"))
SHOWN = 4


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What the engine says about one image of ours."""

    id: str
    layers: tuple[str, ...]
    config: Mapping[str, Any]
    bytes: int

    @classmethod
    def read(cls, inspected: Mapping[str, Any]) -> ImageFacts:
        root = inspected.get("RootFS") or {}
        return cls(
            id=inspected["Id"],
            layers=tuple(root.get("Layers") or ()),
            config=inspected.get("Config") or {},
            bytes=int(inspected.get("Size") or 0),
        )

    def label(self, name: str) -> str:
        labels = self.config.get("Labels") or {}
        return str(labels.get(LABEL + name, ""))

    @property
    def stage(self) -> str:
        return self.label("stage")

    @property
    def short(self) -> str:
        return self.id.removeprefix("sha256:")[:12]


@dataclass(frozen=True, slots=True)
class Contents:
    """What an image's keeper would have to hold."""

    files: int
    megabytes: float
    faults: tuple[str, ...]


def refusals(image: ImageFacts, ours: Iterable[ImageFacts]) -> list[str]:
    """Every reason why no guest may run from it; empty when one may. `ours`: all that carry our labels, it or not."""
    reasons = _oddities(image.config)
    if not image.layers:
        reasons.append("the engine names no layers of it")
    for other in ours:
        common = shared(image.layers, other.layers)
        if other.id == image.id or not common or _is_built_on(other, image):
            continue
        # Versions of one stage may have a layer in common, as long as neither is the other with something on top:
        # that is how a new version of the guest's program is built in seconds.
        if other.stage != image.stage or _is_built_on(image, other):
            layers = f"{len(common)} of its {len(image.layers)} layers"
            reasons.append(f"it shares {layers} with {other.stage} {other.short}")
    return reasons


def shared(one: Sequence[str], other: Sequence[str]) -> set[str]:
    """The layers of both."""
    return set(one) & set(other)


def unfit(files: Iterable[tarfile.TarInfo]) -> Contents:
    """Walks all that is in an image: nothing that gives rights, nothing to write to, nothing a guest can't read."""
    count = size = 0
    faults: list[str] = []
    for entry in files:
        path = entry.name.removeprefix("./").strip("/")
        if entry.isreg():
            count += 1
            size += entry.size
        hidden = path.split("/")[0] in MOUNTED
        if not hidden and (fault := _fault(entry)):
            faults.append(f"/{path} {fault}")
    return Contents(count, size / 1e6, tuple(faults))


def _fault(entry: tarfile.TarInfo) -> str:
    if entry.issym():
        return ""
    if not (entry.isreg() or entry.isdir() or entry.islnk()):
        return "is neither a file nor a folder"
    if entry.mode & 0o6000:
        return "is setuid or setgid"
    if entry.mode & 0o022:
        return "may be written to by others than its owner"
    readable = 0o555 if entry.isdir() else 0o444
    if entry.mode & readable != readable:
        return "can't be read by everyone"
    if entry.uid or entry.gid:
        return f"is owned by {entry.uid}:{entry.gid}"
    return ""


def _is_built_on(image: ImageFacts, base: ImageFacts) -> bool:
    return len(base.layers) < len(image.layers) and image.layers[: len(base.layers)] == base.layers


def _oddities(config: Mapping[str, Any]) -> list[str]:
    """The profile sets most of this itself for every container; an image that wants something else was not made for
    guests."""
    names = {entry.partition("=")[0] for entry in config.get("Env") or ()}
    is_odd = {
        "its entry point is not the guest's": config.get("Entrypoint") != [PYTHON, "-I", SCRIPT],
        "it has a command": config.get("Cmd"),
        "its environment is more than PATH": names - ENV.keys(),
        "it names a user": config.get("User"),
        "it has volumes": config.get("Volumes"),
        "it has commands for images built on it": config.get("OnBuild"),
        "it has a health check": config.get("Healthcheck"),
    }
    return [words for words, odd in is_odd.items() if odd]
