"""Two guests try to talk to each other through the machine, over every way that we know. Each way is tried twice.

With its defences off (one uid, no keeper, every system call, nothing masked) what is sent must arrive, or the attack
proves nothing. With the profile of real guests half of the bits arrive right, as by guessing.
"""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable, Iterator

import pytest

from bellglass.doors.docker import image
from bellglass.doors.docker.channels import host
from bellglass.doors.docker.channels.host import CHANNELS, LONG, LONGER, SHORT, Channel, Heard, Pair, random_bits
from bellglass.doors.docker.channels.meeting import BareContainers
from bellglass.doors.docker.engine import Engine
from bellglass.doors.docker.image import Image
from bellglass.doors.docker.keeper import Keepers
from bellglass.doors.docker.profile import MAPPED_UIDS, Profile, profile_for, seccomp_file
from bellglass.doors.docker.reaper import labels_of
from bellglass.paths import content_root
from bellglass.ports import GuestSpec
from bellglass.records import Role

pytestmark = pytest.mark.docker
EVERYTHING = '{"defaultAction": "SCMP_ACT_ALLOW"}'
NONE_HERE = {
    "dropped pages, nowait": "overlayfs answers preadv2(RWF_NOWAIT) with EOPNOTSUPP",
    "dropped pages, mincore": "says `resident` of every page of a file that the caller can't write",
    "dropped pages, cachestat": "EPERM for a file that the caller can't write",
    "paged out, major faults": "MADV_PAGEOUT leaves files alone that the caller can't write",
    "flock on the image": "each container's overlay has inodes of its own",
    "lock on the image": "each container's overlay has inodes of its own",
    "watch on the image": "each container's overlay has inodes of its own",
}
COLD = "crowded pages, major faults"  # needs pages that nobody was charged for yet
WAYS = [pytest.param(each, order, id=f"{each.name}, {order}") for each in CHANNELS.values() for order in each.orders]


class Undefended(Profile):
    """Nothing hidden, nothing refused."""

    __slots__ = ()

    @property
    def masked(self) -> tuple[str, ...]:
        return ()


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    made = Engine.connect()
    yield made
    made.close()


@pytest.fixture(scope="module")
def own_image(engine: Engine) -> Iterator[Image]:
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


def defended(image: Image, role: Role, uid: int) -> Profile:
    """As DockerGlass makes it."""
    spec = GuestSpec(role, {"loop": "channels"}, 256, 600.0)
    seccomp = (content_root() / "sandbox" / seccomp_file(spec)).read_text("utf-8")
    return profile_for(
        spec, uid=uid, image=image.id, image_env=image.env, labels=labels_of(spec), seccomp=seccomp
    )  # fmt: skip


def undefended(image: Image, uid: int) -> Profile:
    real = defended(image, Role.PREDICT, uid)
    given = {name: getattr(real, name) for name in Profile.__slots__}
    return Undefended(**given | {"seccomp": EVERYTHING})


def a_uid() -> int:
    return secrets.choice(MAPPED_UIDS)


@pytest.fixture(scope="module")
def open_pair(engine: Engine, own_image: Image) -> Iterator[Pair]:
    uid = a_uid()
    with host.beside(BareContainers(engine, undefended(own_image, uid), undefended(own_image, uid))) as made:
        yield made


def few(channel: Channel) -> str:
    """Enough to see that nothing is guessed: a step of a row takes seconds, a page microseconds."""
    return random_bits({1: 40, 4: 8}.get(channel.width, SHORT))


def arrives(heard: Heard) -> bool:
    return not heard.refused and heard.right >= 0.85 * len(heard.sent)


@pytest.mark.parametrize(("channel", "order"), WAYS)
def test_with_its_defences_off_what_is_sent_arrives(
    engine: Engine, own_image: Image, open_pair: Pair, channel: Channel, order: str
) -> None:
    if channel.name == COLD:
        pytest.skip("has a test of its own")
    if order == "beside":
        heard = open_pair.send(channel, few(channel))
    else:
        uid = a_uid()
        meeting = BareContainers(engine, undefended(own_image, uid), undefended(own_image, uid))
        heard = host.after(meeting, channel, few(channel))
    assert arrives(heard) != (channel.name in NONE_HERE), f"{heard.right} of {len(heard.sent)} {heard.refused}"


# Each defence alone


def closed(send: Callable[[str], Heard]) -> tuple[bool, str]:
    """Whether what arrives is what guessing gives; where 1,000 bits leave it open, 4,000 more decide."""
    heard = send(random_bits(LONG))
    if not heard.by_chance:
        heard = send(random_bits(LONGER))
    return heard.by_chance, f"{heard.right} of {len(heard.sent)} {heard.refused}"


def by(defence: str) -> list[pytest.ParameterSet]:
    return [way for way in WAYS if way.values[0].closed_by == defence and way.values[0].name not in NONE_HERE]


@pytest.fixture(scope="module")
def kept_image(engine: Engine, own_image: Image, open_pair: Pair) -> Iterator[Image]:
    """The same image with a keeper; nothing arrives from here on in pairs that were open before."""
    keepers = Keepers(engine)
    assert keepers.of(own_image, {}).lacking == ""
    yield own_image
    keepers.close()


@pytest.mark.parametrize(("channel", "order"), by(host.KEEPER))
def test_a_keeper_alone_closes_what_goes_through_pages(
    engine: Engine, kept_image: Image, channel: Channel, order: str
) -> None:
    uid = a_uid()
    meeting = BareContainers(engine, undefended(kept_image, uid), undefended(kept_image, uid))
    if order == "after":
        is_closed, found = closed(lambda bits: host.after(meeting, channel, bits))
    else:
        with host.beside(meeting) as pair:
            is_closed, found = closed(lambda bits: pair.send(channel, bits))
    assert is_closed, found


@pytest.mark.parametrize(("channel", "order"), by(host.UID))
def test_a_uid_of_its_own_alone_closes_what_goes_through_counters_of_a_user(
    engine: Engine, strangers: Pair, channel: Channel, order: str
) -> None:
    is_closed, found = closed(lambda bits: strangers.send(channel, bits))
    assert is_closed, found


@pytest.fixture(scope="module")
def strangers(engine: Engine, own_image: Image) -> Iterator[Pair]:
    one, other = random.sample(MAPPED_UIDS, 2)
    with host.beside(BareContainers(engine, undefended(own_image, one), undefended(own_image, other))) as made:
        yield made
