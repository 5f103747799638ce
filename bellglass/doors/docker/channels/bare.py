"""Profiles for containers that run the probes without a supervisor: as a guest's, and with every defence off."""

from __future__ import annotations

import secrets

from bellglass.doors.docker.image import Image
from bellglass.doors.docker.profile import MAPPED_UIDS, Profile, profile_for, seccomp_file
from bellglass.doors.docker.reaper import labels_of
from bellglass.paths import content_root
from bellglass.ports import GuestSpec
from bellglass.records import Role

EVERYTHING = '{"defaultAction": "SCMP_ACT_ALLOW"}'
MEMORY_MB, LIFE_SECONDS = 256, 900.0


class Undefended(Profile):
    """Nothing is hidden."""

    __slots__ = ()

    @property
    def masked(self) -> tuple[str, ...]:
        return ()


def a_uid() -> int:
    return secrets.choice(MAPPED_UIDS)


def spec_of(role: Role, side: str = "") -> GuestSpec:
    return GuestSpec(role, {"loop": "channels", "side": side}, MEMORY_MB, LIFE_SECONDS)


def defended(found: Image, role: Role, uid: int, runtime: str = "") -> Profile:
    """As DockerGlass makes it."""
    spec = spec_of(role)
    seccomp = (content_root() / "sandbox" / seccomp_file(spec)).read_text("utf-8")
    labels = labels_of(spec)
    return profile_for(
        spec, uid=uid, image=found.id, image_env=found.env, labels=labels, seccomp=seccomp, runtime=runtime
    )


def undefended(found: Image, uid: int, runtime: str = "") -> Profile:
    """Nothing is refused; give both guests one uid, and nothing is kept apart."""
    real = defended(found, Role.PREDICT, uid, runtime)
    return Undefended(**{name: getattr(real, name) for name in Profile.__slots__} | {"seccomp": EVERYTHING})
