"""The images that guests run in: one for each role, built from the Dockerfile, found by label, refused when stale.

Each carries a hash of everything of ours that went into it (Dockerfile, guest code, locks), so that an image of another
version is never taken for this one. Guests are started by image id: a tag may move, an id may not. Whether an image
may be run from at all, admission.py says; a further image (other wheels, other programs) is a row of RECIPES and a
stage of the Dockerfile.

Not covered: what the base image and the wheels do. The locks pin the wheels by hash; the base is whatever BASE names.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from bellglass.doors.docker.admission import SHOWN, ImageFacts, refusals, unfit
from bellglass.doors.docker.engine import Engine
from bellglass.doors.docker.profile import LABEL
from bellglass.doors.docker.reaper import owner_labels
from bellglass.errors import SetupError, UsageError
from bellglass.paths import content_root, require_free_disk
from bellglass.records import Role

DEFAULT_BASE = "python:3.11-slim-bookworm"


@dataclass(frozen=True, slots=True)
class Device:
    """Where the libraries for one kind of device come from, and what a build costs."""

    lock: str  # in locks/
    index: str
    cost: str
    context_bytes: int


DEVICES = {
    "cpu": Device(
        lock="torch-cpu.txt",
        index="https://download.pytorch.org/whl/cpu",
        cost="about 280 MB of download and 4.5 GB of disk; 2-5 minutes",
        context_bytes=750_000_000,
    ),
    "cuda": Device(
        lock="torch-cuda.txt",
        index="https://pypi.org/simple",
        cost="about 3 GB of download and 25 GB of disk; 5-15 minutes (estimates: this variant is unmeasured)",
        context_bytes=4_000_000_000,
    ),
}


@dataclass(frozen=True, slots=True)
class Recipe:
    """One image: the role it is for, and the stage of the Dockerfile that makes it."""

    role: Role
    stage: str
    libraries: bool  # whether it has torch, and so is another one for another device

    def content(self, device: str) -> str:
        """A hash over every file of ours that goes into it."""
        total = hashlib.sha256()
        sources = _sources(DEVICES[device].lock if self.libraries else None)
        for name, data in sorted(sources.items()):
            total.update(f"{name}:{len(data)}:".encode())
            total.update(data)
        return total.hexdigest()

    def tag(self, device: str) -> str:
        return f"bellglass-{self.stage}:{device}"

    def labels(self, device: str) -> dict[str, str]:
        return {LABEL + "stage": self.stage, LABEL + "device": device}

    def made_by(self, facts: ImageFacts, device: str) -> bool:
        """Whether an image is of this stage, whatever its version. The improver's holds no torch, so that any device's
        will do."""
        fits = not self.libraries or facts.label("device") == device
        return facts.stage == self.stage and fits


# In the order of the Dockerfile: an older builder makes every stage up to the one that is asked for.
RECIPES = {
    recipe.role: recipe
    for recipe in (
        Recipe(Role.IMPROVE, "agent", libraries=False),
        Recipe(Role.TRAIN, "trainer", libraries=True),
        Recipe(Role.PREDICT, "predictor", libraries=True),
    )
}


@dataclass(frozen=True, slots=True)
class Image:
    id: str
    env: tuple[str, ...]
    bytes: int


def build(device: str = "cpu", base: str | None = None, wheels: Path | None = None) -> Iterator[str]:
    """Builds all images; yields lines for a person, the first of which say size and time before anything happens."""
    if device not in DEVICES:
        raise UsageError(
            "the device of an image", repr(device), "cpu or cuda", "bellglass image build --help", code="option_invalid"
        )
    if wheels is not None and not any(wheels.glob("*.whl")):
        raise UsageError(
            "the folder of wheels",
            f"no *.whl in {wheels}",
            "what locks/torch-cpu.txt and locks/trainer.txt name",
            f"python3.11 -m pip download --no-deps -r locks/torch-cpu.txt -r locks/trainer.txt -d {wheels}",
            code="no_wheels",
        )
    engine = Engine.connect()
    of = DEVICES[device]
    name = base or DEFAULT_BASE
    source = f"wheels from {wheels}" if wheels else f"wheels from {of.index} and PyPI"
    names = ", ".join(recipe.tag(device) for recipe in RECIPES.values())
    yield f"building {names} on {name}: {of.cost}; {source}"
    if device == "cuda":
        yield "the cuda variant is unmeasured: it was built by no test of this version"
    require_free_disk(Path(tempfile.gettempdir()), of.context_bytes, "the build context")
    for recipe in RECIPES.values():
        yield f"{recipe.tag(device)} ..."
        yield from _build(engine, recipe, device, name, wheels)


def _build(engine: Engine, recipe: Recipe, device: str, base: str, wheels: Path | None) -> Iterator[str]:
    """One image, which keeps its name only when every file in it is as it should be."""
    tag, of = recipe.tag(device), DEVICES[device]
    with tempfile.TemporaryFile() as context:
        _write_context(context, wheels if recipe.libraries else None)
        args = {"BASE": base, "TORCH_LOCK": of.lock, "TORCH_INDEX": of.index}
        labels = recipe.labels(device) | {LABEL + "content": recipe.content(device)}
        offline = wheels is not None or not recipe.libraries
        made = yield from engine.build(context, target=recipe.stage, tag=tag, args=args, labels=labels, offline=offline)
    # By its id: another checkout may build under the same name meanwhile.
    found = engine.image(made)
    if found is None:
        raise SetupError(
            f"image {tag}", "gone after its build", "an image", "bellglass image build", code="image_missing"
        )
    facts = ImageFacts.read(found)
    inside = unfit(engine.files_of(facts.id, owner_labels("look", {})))
    faults = [*inside.faults, *refusals(facts, ours(engine).values())]
    if faults:
        engine.remove_image(facts.id)
        raise _refused(f"image {tag}", faults, "bellglass image build --base another-image")
    yield f"{tag} is {facts.short}: {inside.files} files, {inside.megabytes:.0f} MB, no layer of another image"


def find_all(engine: Engine, device: str = "cpu") -> dict[Role, Image]:
    """The image for guests of each role. SetupError when one is missing, stale, or not fit for guests."""
    everything = ours(engine)
    return {role: _choose(everything, role, device) for role in Role}


def find(engine: Engine, role: Role, device: str = "cpu") -> Image:
    """The image for guests of one role, as above."""
    return _choose(ours(engine), role, device)


def _choose(everything: Mapping[str, ImageFacts], role: Role, device: str) -> Image:
    """The newest that may be run from, among all that are ours."""
    recipe = RECIPES[role]
    command = "bellglass image build" + (f" --device {device}" if device != "cpu" else "")
    thing = f"the image for {role} guests"
    candidates = [facts for facts in everything.values() if recipe.made_by(facts, device)]
    if not candidates:
        raise SetupError(thing, f"no {recipe.tag(device)}", "a built image", command, code="image_missing")
    current = {recipe.content(each) for each in ((device,) if recipe.libraries else DEVICES)}
    refused: SetupError | None = None
    for facts in candidates:
        if facts.label("content") not in current:
            continue
        faults = refusals(facts, everything.values())
        if not faults:
            return Image(facts.id, tuple(facts.config.get("Env") or ()), facts.bytes)
        again = f"docker image rm --force {facts.short} && {command}"
        refused = refused or _refused(f"{thing}, {facts.short}", faults, again)
    found = f"{recipe.tag(device)} is stale: made from another Dockerfile, guest or lock"
    raise refused or SetupError(thing, found, "one made from these files", command, code="image_stale")


def ours(engine: Engine) -> dict[str, ImageFacts]:
    """Every image that carries our labels, whatever its name and version; the newest first."""
    found = (engine.image(each.id) for each in engine.images({LABEL + "stage": ""}))
    return {facts.id: facts for facts in (ImageFacts.read(each) for each in found if each is not None)}


def _refused(thing: str, faults: list[str], next_command: str) -> SetupError:
    more = f" and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
    needed = "files that only root may write to, and no layer of another image"
    return SetupError(thing, "; ".join(faults[:SHOWN]) + more, needed, next_command, code="image_unfit")


def _sources(lock: str | None) -> dict[str, bytes]:
    root = content_root()
    files = [root / "Dockerfile", root / "sandbox/slim.py", root / "sandbox/guest.py"]
    files += sorted((root / "sandbox").glob("glass*.py"))
    files += [root / "locks" / lock, root / "locks/trainer.txt"] if lock else []
    try:
        return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}
    except OSError as error:
        raise SetupError(
            "bellglass's own content",
            f"{error.filename} can't be read: {error.strerror}",
            "a checkout or a complete installation",
            "pip install --force-reinstall bellglass",
            code="installation_incomplete",
        ) from error


def _write_context(into: IO[bytes], wheels: Path | None) -> None:
    """The build context as a tar, the same for the same files: no times, no owners, so that the build cache holds."""
    with tarfile.open(fileobj=into, mode="w") as tar:
        files = {name: data for of in DEVICES.values() for name, data in _sources(of.lock).items()}
        for name, data in sorted(files.items()):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o644
            tar.addfile(entry, io.BytesIO(data))
        for wheel in sorted(wheels.glob("*.whl")) if wheels else ():
            entry = tarfile.TarInfo(f"wheels/{wheel.name}")
            entry.size, entry.mode = wheel.stat().st_size, 0o644
            with wheel.open("rb") as file:
                tar.addfile(entry, file)
    into.seek(0)
