"""Whose a loop is: ours, or received from elsewhere.

Ours is a loop whose first event this user's key signed, or which a person here took over (an event that the key signed,
too), *and* whose chain goes on from the head that was last noted here, by events that the key signed. Key and heads lie
in the user's state folder, so a folder that comes back cut, altered or gone on with is not ours any more, whatever it
says of itself. Everything else is received: nothing in it is acted upon.

Every event is signed, because one that somebody added behind our last would else pass for what a crash left. For the
same reason a head may lag, and is noted without waiting for the disk: after a power cut an older one may be there, and
the signatures vouch for the rest. An end that was cut off is noticed down to the head that was noted.

Not covered: a copy of a loop of ours that is whole. It is ours as well, until the other one goes on. And whoever can
read the state folder, who is this user.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from bellglass.errors import BellglassError, SetupError
from bellglass.paths import state_home
from bellglass.store import state_folder
from bellglass.store.chain import Event

KEY, HEADS = "key", "heads"
TAKEN_OVER = "loop.taken_over"
KEY_BYTES = 32

Why = Literal[
    "made_here", "taken_over",  # ours
    "empty", "unsigned", "other_key", "no_key", "no_head", "cut", "altered", "forged", "damaged", "no_state",
    "recording",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Standing:
    word: Literal["ours", "received"]
    code: Why
    why: str  # for people, without a full stop

    @property
    def ours(self) -> bool:
        return self.word == "ours"

    @property
    def made_here(self) -> bool:
        """From its first event on, and nothing of it came from elsewhere."""
        return self.code == "made_here"

    @property
    def counterfeit(self) -> bool:
        """It passes for a loop that was made here, and is not what was noted of that one."""
        return self.code in ("cut", "altered", "forged")


class Chain(Protocol):
    """What is asked of a ledger, or of a recording."""

    def marked(self) -> Sequence[Event]:
        """The first event and all takeovers."""

    def hash_at(self, seq: int) -> str | None: ...

    def events(self, after: int = 0) -> Sequence[Event]: ...

    def signatures(self, after: int = 0) -> Mapping[int, str]:
        """Of the first event, of the takeovers, and of all events behind number `after`."""


# The key


def ready() -> bytes:
    """This user's key, made where there is none; SetupError where none can be had."""
    key = _key()
    if key is None:
        state_folder.keep(KEY, secrets.token_hex(KEY_BYTES).encode())
        key = _key()
    if key is None:
        found, needed = "something else than a key", f"{2 * KEY_BYTES} hex digits"
        raise SetupError(
            f"the key {state_home() / KEY}",
            found,
            needed,
            f"mv {state_home() / KEY} {state_home()}/old",
            code="state_folder_unsafe",
        )
    return key


def sign(key: bytes, hash_: str) -> str:
    """Of the event with this hash, which is made from the event and all before it."""
    return hmac.new(key, f"an event of bellglass: {hash_}".encode(), hashlib.sha256).hexdigest()


def mark(text: str) -> str:
    """Of a text of this user's that is no event; `marked_here` knows it again."""
    return _mark(ready(), text)


def marked_here(text: str, found: object) -> bool:
    key = _key()
    return (
        key is not None and isinstance(found, str) and found.isascii() and hmac.compare_digest(_mark(key, text), found)
    )


def _mark(key: bytes, text: str) -> str:
    return hmac.new(key, f"a text of bellglass: {text}".encode(), hashlib.sha256).hexdigest()


def _key() -> bytes | None:
    kept = state_folder.read(KEY)
    try:
        key = b"" if kept is None else bytes.fromhex(kept.decode("ascii"))
    except ValueError:
        return None
    return key if len(key) == KEY_BYTES else None


# Heads


def note(first: Event, head: Event) -> None:
    """From now on the loop is ours only with this head in its chain."""
    state_folder.write(_name(first), json.dumps([head.seq, head.hash]).encode(), sync=False)


def _noted(first: Event) -> tuple[int, str] | None:
    kept = state_folder.read(_name(first))
    if kept is not None and not kept.strip(b"\0"):  # what a power cut may leave of an unsynced file
        return first.seq, first.hash
    try:
        seq, head = json.loads(kept or b"")
        return int(seq), str(head)
    except (ValueError, TypeError):
        return None


def _name(first: Event) -> str:
    """By the first event, so that a stranger's loop of the same id can't take the place of one of ours."""
    return f"{HEADS}/{_loop(first)}-{first.hash[:40]}"


def _loop(first: Event) -> str:
    id_ = first.body.get("loop_id") if isinstance(first.body, dict) else None
    return id_ if isinstance(id_, str) and re.fullmatch("[0-9a-f]{1,32}", id_) else "loop"


def _another_of_this_name(first: Event) -> bool:
    begins, own = f"{_loop(first)}-", _name(first).rpartition("/")[2]
    return begins != "loop-" and any(name.startswith(begins) and name != own for name in state_folder.names(HEADS))


# Telling


def standing(chain: Chain) -> Standing:
    """Whose it is, and why. Reads the state folder, and makes nothing there."""
    marked = chain.marked()
    if not marked or marked[0].seq != 1:
        return Standing("received", "empty", "it does not say how it began")
    try:
        key, noted = _key(), _noted(marked[0])  # before the chain, which may grow meanwhile
        return _standing(chain, marked[0], marked[1:], key, noted)
    except SetupError as error:
        return Standing("received", "no_state", f"{error.thing} cannot be believed ({error.found})")


def standing_to_show(chain: Chain) -> Standing:
    """The same for who shows a loop: a damaged chain is received."""
    try:
        return standing(chain)
    except BellglassError as error:
        return Standing("received", "damaged", error.found)


def _standing(
    chain: Chain, first: Event, takeovers: Sequence[Event], key: bytes | None, noted: tuple[int, str] | None
) -> Standing:
    signatures = chain.signatures(after=0 if noted is None else noted[0])

    def ours(event: Event) -> bool:
        return key is not None and hmac.compare_digest(sign(key, event.hash), signatures.get(event.seq, ""))

    if not ours(first) and not any(map(ours, takeovers)):
        return _stranger(first, key, signatures, noted is not None)
    if noted is None:
        return Standing("received", "no_head", "its head was never noted in this user's state folder")
    seq, head = noted
    there = chain.hash_at(seq)
    if there is None:
        return Standing("received", "cut", f"event {seq}, which was noted here, is not in it: cut, or an older copy")
    if there != head:
        return Standing("received", "altered", f"its event {seq} is another than the one that was noted here")
    strange = [event.seq for event in chain.events(after=seq) if not ours(event)]
    if strange:
        return Standing("received", "altered", f"its event {strange[0]} was not written by this user")
    if takeovers:
        return Standing("ours", "taken_over", "it came from elsewhere, and was taken over here")
    return Standing("ours", "made_here", "made by this user, and as it was left here")


def _stranger(first: Event, key: bytes | None, signatures: Mapping[int, str], noted: bool) -> Standing:
    if noted and key is not None:  # a copy whose signatures were taken off, or the key is another than it was then
        return Standing("received", "altered", "its head was noted here, and this user's key signed no beginning of it")
    if _another_of_this_name(first):
        return Standing("received", "forged", f"a loop {_loop(first)} was made here, and this one begins otherwise")
    if first.seq not in signatures:
        return Standing("received", "unsigned", "no key signed its beginning: made elsewhere, or by an older bellglass")
    if key is None:
        return Standing("received", "no_key", "this user has no key here that could have signed its beginning")
    return Standing("received", "other_key", "another key than this user's signed its beginning")
