"""The short form of the channel tests, for `doctor`: some seconds, some 200 random bits over each way without timing.

Real `predict` guests, one of which has seen a judge's text and one of which must not know it; and beside them, bare
containers that may make every system call, so that it is the keeper alone that holds the image's pages.

Not covered: timing, and guests of other roles; tests/conformance/test_channels.py has those.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from bellglass.doors.docker import image
from bellglass.doors.docker.channels import host
from bellglass.doors.docker.channels.bare import a_uid, undefended
from bellglass.doors.docker.channels.host import CHANNELS, Channel, Heard, random_bits
from bellglass.doors.docker.channels.meeting import BareContainers, RealGuests, files_of_both
from bellglass.doors.docker.engine import Engine
from bellglass.doors.docker.glass import DockerGlass
from bellglass.doors.docker.image import Image
from bellglass.doors.docker.keeper import remember_trusted
from bellglass.doors.docker.selfcheck import Check
from bellglass.records import Role


def check(engine: Engine | None = None, *, runtime: str = "") -> list[Check]:
    """Every check with what was found. Where bits arrive, guests can talk, and nothing here is called sealed."""
    engine = engine or Engine.connect()
    glass = DockerGlass(engine, runtime=runtime or None, warm=False, prove=False)
    try:
        found = list(_checks(engine, glass, runtime))
    finally:
        glass.close()
    if all(ok is not False for _, ok, _ in found):
        remember_trusted(engine.facts(), runtime)
    return found


def _checks(engine: Engine, glass: DockerGlass, runtime: str) -> Iterator[Check]:
    keeper, found = glass.keeper(Role.PREDICT), image.find(engine, Role.PREDICT)
    how = "" if keeper.held is None else f"{keeper.held.bytes >> 20} MB held"
    how += ", locked" if keeper.held and keeper.held.locked else ", mapped, but not locked"
    yield "an image's pages stay in memory", not keeper.why_alone, keeper.why_alone or how
    yield through_pages(engine, found, runtime)
    either = undefended(found, a_uid(), runtime)
    real = RealGuests(glass, Role.PREDICT, Role.PREDICT, files_of_both(engine, either, either))
    with host.beside(real) as pair:
        heard = {way: pair.send(way, _bits(way)) for way in _ways("beside")}
    yield _judged("guests at the same time", heard)
    # What a living guest is refused it is always refused.
    left = [way for way in _ways("after") if not heard[way].refused]
    yield _judged("guests one after the other", {way: host.after(real, way, _bits(way)) for way in left})


def through_pages(engine: Engine, found: Image, runtime: str = "") -> Check:
    """Whether guests that may make any system call hear each other through an image's pages; a keeper prevents it."""
    either = undefended(found, a_uid(), runtime)
    ways = [way for way in _ways("beside") if way.closed_by == host.KEEPER and way.send == "drop"]
    with host.beside(BareContainers(engine, either, either)) as pair:
        return _judged("guests that may do anything, by pages", {way: pair.send(way, _bits(way)) for way in ways})


def _ways(order: host.Order) -> list[Channel]:
    return [each for each in CHANNELS.values() if order in each.orders]


def _bits(way: Channel) -> str:
    return random_bits(host.FEW if way.is_row else host.SHORT)


def _judged(name: str, heard: Mapping[Channel, Heard]) -> Check:
    if not heard:
        return name, None, "nothing to try: each way was refused already to guests at the same time"
    open_ = [f"{way} ({each.right} of {len(each.sent)})" for way, each in heard.items() if not each.by_chance]
    if open_:
        return name, False, f"random bits arrive right: {', '.join(open_)}"
    refused = sum(bool(each.refused) for each in heard.values())
    rest = len(heard) - refused
    carried = f"; over the other {rest}, random bits arrived no better than by guessing" if rest else ""
    return name, True, f"{len(heard)} ways tried: {refused} refused{carried}"
