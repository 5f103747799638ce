"""Shared by the tests of channels: an image that nobody else has."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator

from bellglass.doors.docker import image
from bellglass.doors.docker.engine import Engine
from bellglass.doors.docker.image import Image
from bellglass.records import Role


@contextlib.contextmanager
def copied_image(engine: Engine) -> Iterator[Image]:
    """A copy of an image as one layer that nobody else has, so that no loop on this machine keeps its files."""
    import docker

    api = docker.APIClient(base_url=engine.url, version="auto", timeout=300)  # a busy machine takes its time
    of = image.find(engine, Role.IMPROVE)
    name = f"bellglass-test:{secrets.token_hex(6)}"
    container = engine.create(name.replace(":", "-"), {"Image": of.id})
    try:
        repository, _, tag = name.partition(":")
        api.import_image_from_data(api.export(container), repository=repository, tag=tag)
    finally:
        engine.remove(container)
    yield Image(engine.image(name)["Id"], of.env, of.bytes)
    api.remove_image(name)
    api.close()
