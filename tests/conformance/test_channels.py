"""Two guests try to talk to each other through the machine, over every way that we know. Each way is tried twice.

With its defences off (one uid, no keeper, every system call, nothing masked) what is sent must arrive, or the attack
proves nothing. With the profile of real guests half of the bits arrive right, as by guessing.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from bare import copied_image

from bellglass.doors.docker import channels, image
from bellglass.doors.docker.channels import host
from bellglass.doors.docker.channels.bare import a_uid, defended, undefended
from bellglass.doors.docker.channels.check import through_pages
from bellglass.doors.docker.channels.host import CHANNELS, LONG, LONGER, SHORT, Channel, Heard, Pair, random_bits
from bellglass.doors.docker.channels.meeting import BareContainers, RealGuests, files_of_both, probing
from bellglass.doors.docker.engine import Engine
from bellglass.doors.docker.glass import DockerGlass
from bellglass.doors.docker.image import Image
from bellglass.doors.docker.keeper import Keepers
from bellglass.doors.docker.profile import MAPPED_UIDS
from bellglass.records import Role

pytestmark = pytest.mark.docker
# Tried because they look like channels; this kernel (6.18, overlay2 over ext4) itself gives nothing away.
NONE_HERE = {
    "dropped pages, nowait": "overlayfs answers preadv2(RWF_NOWAIT) with EOPNOTSUPP",
    "dropped pages, mincore": "says `resident` of every page of a file that the caller can't write",
    "dropped pages, cachestat": "EPERM for a file that the caller can't write",
    "paged out, major faults": "MADV_PAGEOUT leaves files alone that the caller can't write",
    "flock on the image": "each container's overlay has inodes of its own",
    "lock on the image": "each container's overlay has inodes of its own",
    "watch on the image": "each container's overlay has inodes of its own",
}
TRIES = 4
COLD = "crowded pages, major faults"  # needs pages that nobody was charged for yet: has a test of its own
WAYS = [pytest.param(each, order, id=f"{each.name}, {order}") for each in CHANNELS.values() for order in each.orders]


@pytest.fixture(scope="module")
def own_image(engine: Engine) -> Iterator[Image]:
    with copied_image(engine) as made:
        yield made


@pytest.fixture(scope="module")
def open_pair(engine: Engine, own_image: Image) -> Iterator[Pair]:
    uid = a_uid()
    with host.beside(BareContainers(engine, undefended(own_image, uid), undefended(own_image, uid))) as made:
        yield made


def few(channel: Channel) -> str:
    """Enough to see that nothing is guessed: a step of a row takes seconds, a page microseconds."""
    return random_bits(8 if channel.is_row else 40 if channel.width == 1 else SHORT)


def arrives(heard: Heard) -> bool:
    return not heard.refused and heard.right >= 0.85 * len(heard.sent)


@pytest.mark.parametrize(("channel", "order"), [way for way in WAYS if way.values[0].name != COLD])
def test_with_its_defences_off_what_is_sent_arrives(
    engine: Engine, own_image: Image, open_pair: Pair, channel: Channel, order: str
) -> None:
    def send() -> Heard:
        if order == "beside":
            return open_pair.send(channel, few(channel))
        uid = a_uid()
        meeting = BareContainers(engine, undefended(own_image, uid), undefended(own_image, uid))
        return host.after(meeting, channel, few(channel))

    heard = send()
    for _ in range(TRIES - 1):  # whatever else numbers pipes on this machine garbles a row
        if channel.is_row and not arrives(heard) and not heard.refused:
            heard = send()
    assert arrives(heard) != (channel.name in NONE_HERE), f"{heard.right} of {len(heard.sent)} {heard.refused}"


def test_pages_that_nobody_was_charged_for_are_pushed_out_by_a_guest_under_its_own_limit(
    engine: Engine, own_image: Image
) -> None:
    """As after a start of the machine. No advice is given: the sender reads the zeros, then much, then the ones."""
    uid = a_uid()
    meeting = BareContainers(engine, undefended(own_image, uid), undefended(own_image, uid))
    everything = files_of_both(engine, meeting.sending, meeting.receiving, 100_000)
    with probing(engine, meeting.sending, everything) as cold:
        assert cold({"do": "send", "how": "drop", "bits": "0" * len(everything)}) == {}
    heard = host.after(meeting, CHANNELS[COLD], few(CHANNELS[COLD]))
    assert arrives(heard), f"{heard.right} of {len(heard.sent)} {heard.refused}"


def test_doctor_hears_bits_where_no_keeper_holds_the_image(engine: Engine, own_image: Image) -> None:
    _, closed, found = through_pages(engine, own_image)
    assert not closed, found


# Each defence alone


def closed(channel: Channel, send: Callable[[str], Heard]) -> tuple[bool, str]:
    """Whether what arrives is what guessing gives; where 1,000 bits leave it open, 4,000 more decide."""
    first, second = (host.FEW, host.SOME) if channel.is_row else (LONG, LONGER)
    heard = send(random_bits(first))
    if not heard.by_chance:
        heard = send(random_bits(second))
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
        is_closed, found = closed(channel, lambda bits: host.after(meeting, channel, bits))
    else:
        with host.beside(meeting) as pair:
            is_closed, found = closed(channel, lambda bits: pair.send(channel, bits))
    assert is_closed, found


@pytest.mark.parametrize(("channel", "order"), by(host.UID))
def test_a_uid_of_its_own_alone_closes_what_goes_through_counters_of_a_user(
    engine: Engine, strangers: Pair, channel: Channel, order: str
) -> None:
    is_closed, found = closed(channel, lambda bits: strangers.send(channel, bits))
    assert is_closed, found


@pytest.fixture(scope="module")
def strangers(engine: Engine, own_image: Image) -> Iterator[Pair]:
    one, other = random.sample(MAPPED_UIDS, 2)
    with host.beside(BareContainers(engine, undefended(own_image, one), undefended(own_image, other))) as made:
        yield made


# Real guests: the attack is their bundle


PAIRS = {
    "judge's first and second": (Role.PREDICT, Role.PREDICT),
    "judge and improver": (Role.PREDICT, Role.IMPROVE),
    "judge and trainer": (Role.PREDICT, Role.TRAIN),
    "improver and judge": (Role.IMPROVE, Role.PREDICT),
    "trainer and judge": (Role.TRAIN, Role.PREDICT),
}


@pytest.fixture(scope="module")
def glass(engine: Engine) -> Iterator[DockerGlass]:
    made = DockerGlass(engine, warm=False, prove=False)
    yield made
    made.close()


def real(engine: Engine, glass: DockerGlass, roles: tuple[Role, Role]) -> RealGuests:
    one, other = (defended(image.find(engine, role), role, a_uid()) for role in roles)
    return RealGuests(glass, *roles, files_of_both(engine, one, other))


@pytest.fixture(scope="module", params=PAIRS)
def real_pair(engine: Engine, glass: DockerGlass, request: pytest.FixtureRequest) -> Iterator[Pair]:
    with host.beside(real(engine, glass, PAIRS[request.param])) as made:
        yield made


@pytest.mark.parametrize("channel", [each for each in CHANNELS.values() if "beside" in each.orders], ids=str)
def test_of_two_living_guests_one_is_the_judges_and_nothing_arrives(real_pair: Pair, channel: Channel) -> None:
    is_closed, found = closed(channel, lambda bits: real_pair.send(channel, bits))
    assert is_closed, found


@pytest.mark.parametrize("channel", [each for each in CHANNELS.values() if "after" in each.orders], ids=str)
@pytest.mark.parametrize("pair", PAIRS)
def test_from_a_guest_that_has_ended_nothing_arrives_where_one_is_the_judges(
    engine: Engine, glass: DockerGlass, pair: str, channel: Channel
) -> None:
    meeting = real(engine, glass, PAIRS[pair])
    is_closed, found = closed(channel, lambda bits: host.after(meeting, channel, bits))
    assert is_closed, found


def test_doctor_hears_nothing_here(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    found = channels.check(engine)
    assert [each for each in found if each[1] is False] == []
    assert len(found) == 4
