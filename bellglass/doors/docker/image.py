"""The images that guests run in: built from the Dockerfile, found by label, refused when stale.

Each carries a hash of everything of ours that went into it (Dockerfile, guest code, locks), so that an image of another
version is never taken for this one. Guests are started by image id: a tag may move, an id may not.

Not covered: what the base image and the wheels do. The locks pin the wheels by hash; the base is whatever BASE names.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal, TypeAlias

from bellglass.doors.docker.engine import Engine
from bellglass.doors.docker.profile import LABEL
from bellglass.errors import SetupError, UsageError
from bellglass.paths import content_root, require_free_disk
from bellglass.records import Role

Stage: TypeAlias = Literal["agent", "trainer"]
STAGES: tuple[Stage, ...] = ("agent", "trainer")
STAGE_OF: dict[Role, Stage] = {Role.IMPROVE: "agent", Role.TRAIN: "trainer", Role.PREDICT: "trainer"}
DEFAULT_BASE = "python:3.11-slim-bookworm"
DEVICES = {
    # lock, index, what to expect
    "cpu": (
        "torch-cpu.txt", "https://download.pytorch.org/whl/cpu",
        "about 280 MB of download and 2.5 GB of disk while building; 2-5 minutes",
    ),
    "cuda": (
        "torch-cuda.txt", "https://pypi.org/simple",
        "about 3 GB of download and 8 GB of disk; 5-15 minutes (estimates: this variant is unmeasured)",
    ),
}  # fmt: skip
NEEDED_BYTES = {"cpu": 3_000_000_000, "cuda": 16_000_000_000}


@dataclass(frozen=True, slots=True)
class Image:
    id: str
    env: tuple[str, ...]
    bytes: int


def build(device: str = "cpu", base: str | None = None, wheels: Path | None = None) -> Iterator[str]:
    """Builds both images; yields lines for a person, the first of which say size and time before anything happens."""
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
    lock, index, cost = DEVICES[device]
    name = base or DEFAULT_BASE
    source = f"wheels from {wheels}" if wheels else f"wheels from {index} and PyPI"
    yield f"building bellglass-agent and bellglass-trainer for {device} on {name}: {cost}; {source}"
    if device == "cuda":
        yield "the cuda variant is unmeasured: it was built by no test of this version"
    require_free_disk(Path(tempfile.gettempdir()), NEEDED_BYTES[device] // 4, "the build context")
    for stage in STAGES:
        tag = f"bellglass-{stage}:{device}"
        yield f"{tag} ..."
        with tempfile.TemporaryFile() as context:
            _write_context(context, wheels if stage == "trainer" else None)
            args = {"BASE": name, "TORCH_LOCK": lock, "TORCH_INDEX": index}
            labels = {**_labels(stage, device), LABEL + "content": content_of(stage, device)}
            lines = engine.build(
                context, target=stage, tag=tag, args=args, labels=labels, offline=wheels is not None or stage == "agent"
            )
            yield from (f"  {text.splitlines()[0]:.100}" for text in lines if text.startswith("Step "))
        found = engine.image(tag)
        if found is None:
            raise SetupError(
                f"image {tag}", "gone after its build", "an image", "bellglass image build", code="image_missing"
            )
        yield f"{tag} is {found['Id'][7:19]}, {found.get('Size', 0) / 1e6:.0f} MB"


def find(engine: Engine, role: Role, device: str = "cpu") -> Image:
    """The image for guests of this role. SetupError when it is missing or was made from other files than these."""
    stage = STAGE_OF[role]
    # The improver's image holds no torch, so that any device's will do.
    wanted = _labels(stage, None if stage == "agent" else device)
    candidates = engine.images(wanted)
    command = "bellglass image build" + (f" --device {device}" if device != "cpu" else "")
    if not candidates:
        raise SetupError(
            f"the image for {role} guests",
            f"no bellglass-{stage}:{device}",
            "a built image",
            command,
            code="image_missing",
        )
    contents = {content_of(stage, each) for each in (DEVICES if stage == "agent" else (device,))}
    for candidate in candidates:
        if candidate.labels.get(LABEL + "content") in contents:
            facts = engine.image(candidate.id)
            if facts is not None:
                env = tuple((facts.get("Config") or {}).get("Env") or ())
                return Image(candidate.id, env, int(facts.get("Size") or 0))
    found = f"bellglass-{stage}:{device} is stale: made from another Dockerfile, guest or lock"
    raise SetupError(f"the image for {role} guests", found, "one made from these files", command, code="image_stale")


def content_of(stage: Stage, device: str) -> str:
    """A hash over every file of ours that goes into the stage's image."""
    total = hashlib.sha256()
    for name, data in sorted(_sources(DEVICES[device][0] if stage == "trainer" else None).items()):
        total.update(f"{name}:{len(data)}:".encode())
        total.update(data)
    return total.hexdigest()


def _sources(lock: str | None) -> dict[str, bytes]:
    root = content_root()
    files = [root / "Dockerfile", root / "sandbox/guest.py", *sorted((root / "sandbox").glob("glass*.py"))]
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
        files = {name: data for lock, _, _ in DEVICES.values() for name, data in _sources(lock).items()}
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


def _labels(stage: Stage, device: str | None) -> dict[str, str]:
    return {LABEL + "stage": stage, **({LABEL + "device": device} if device else {})}
