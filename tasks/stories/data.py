"""Makes the `stories` splits: short tales over a secret lexicon, with the code length of every choice known.

A tale is a chain of picks. Each pick takes one of several strings, of which none begins another, and writes it down;
what may be picked, and with which weight, follows from what was written before. So a text can be read back into its
picks in exactly one way, the probability of a text is the product of its picks' weights, and no model can beat the
sum of their code lengths on average: that sum is the floor. A pick's bits lie evenly on the characters it wrote, all
of one skill, so floors are exact per text and per skill (not per character).

The lexicon (names with a gender and a home, things with favourite adjectives and boxes) comes from the `world` key and
is the same in all splits; the picks come from the split's key. Both are secret, and the stream is cryptographic: seeing
any amount of text tells nothing about the rest of the stream. Picks use 64-bit draws modulo small weights; the bias
(below 2^-50) is ignored. Not covered: prose a person would enjoy.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Protocol

import numpy as np

CONTEXT = 256
SYMBOLS = "\n .?0123456789abcdefghijklmnopqrstuvwxyzABDFGHIJKLMNPRSTVWZ"  # token = index + 1; 0 is padding
SKILLS = ("grammar", "spelling", "copying", "agreement", "number", "holder", "place", "sum")
GRAMMAR, SPELLING, COPYING, AGREEMENT, NUMBER, HOLDER, PLACE, SUM = range(len(SKILLS))
LONGEST = 46  # no sentence is longer, with its space; another one starts only while one still fits

NAMES, THINGS, ADJECTIVES, PLACES, BOXES = 150, 300, 60, 40, 12

Group = tuple[int, int, Sequence[str]]  # weight of the group, skill, strings that share the weight evenly


class Stream:
    """Uniform integers from SHAKE-256 in counter mode, one stream per (key, label)."""

    def __init__(self, key: bytes, label: str) -> None:
        self._seed = len(key).to_bytes(2, "little") + key + label.encode() + b"\0"
        self._block, self._words, self._at = 0, (), 0  # type: int, Sequence[int], int

    def below(self, n: int) -> int:
        if self._at == len(self._words):
            raw = hashlib.shake_256(self._seed + self._block.to_bytes(8, "little")).digest(512)
            self._words = np.frombuffer(raw, dtype="<u8").tolist()
            self._block, self._at = self._block + 1, 0
        self._at += 1
        return self._words[self._at - 1] % n

    def sample(self, n: int, k: int) -> list[int]:
        """k different integers below n, in random order."""
        pool = list(range(n))
        for i in range(k):
            j = i + self.below(n - i)
            pool[i], pool[j] = pool[j], pool[i]
        return pool[:k]


@dataclass(frozen=True)
class Lexicon:
    names: tuple[str, ...]
    she: tuple[bool, ...]
    homes: tuple[str, ...]  # a name's favourite place
    things: tuple[str, ...]
    phrases: tuple[tuple[str, str, str], ...]  # "a dim tolip" with each of the thing's favourite adjectives
    plural: tuple[bool, ...]
    thing_boxes: tuple[str, ...]  # a thing's favourite box
    places: tuple[str, ...]
    boxes: tuple[str, ...]


@lru_cache(maxsize=4)
def lexicon(world: bytes) -> Lexicon:
    stream = Stream(world, "lexicon")
    taken = {"he", "she", "who", "how", "where"}  # no name may begin like another opening of a sentence
    things = _words(stream, THINGS, taken)
    adjectives, places, boxes = (_words(stream, n, taken) for n in (ADJECTIVES, PLACES, BOXES))
    names = tuple(word.capitalize() for word in _words(stream, NAMES, taken, first="bdfghjklmnprstvz"))
    plural = tuple(stream.below(3) == 0 for _ in things)
    things = tuple(word + "s" if many else word for word, many in zip(things, plural, strict=True))
    phrases = []
    for thing, many in zip(things, plural, strict=True):
        likes = [adjectives[i] for i in stream.sample(ADJECTIVES, 3)]
        phrases.append(tuple(f"{_article(word, many)} {word} {thing}" for word in likes))
    return Lexicon(
        names=names,
        she=tuple(stream.below(2) == 0 for _ in names),
        homes=tuple(places[stream.below(PLACES)] for _ in names),
        things=things,
        phrases=tuple(phrases),  # type: ignore[arg-type]
        plural=plural,
        thing_boxes=tuple(boxes[stream.below(BOXES)] for _ in things),
        places=places,
        boxes=boxes,
    )


def _words(stream: Stream, count: int, taken: set[str], first: str = "bcdfghjklmnpqrstvwxzaeiou") -> tuple[str, ...]:
    """Invented words of two or three syllables; none begins another, so that each can be told from its text."""
    words: list[str] = []
    while len(words) < count:
        word = first[stream.below(len(first))]
        for _ in range(2 + stream.below(2)):
            if word[-1] not in "aeiou":
                word += "aeiou"[stream.below(5)]
            word += "bcdfghjklmnpqrtvwxz"[stream.below(19)]  # no s: it is the plural's
        if not any(word.startswith(other) or other.startswith(word) for other in taken):
            taken.add(word)
            words.append(word)
    return tuple(words)


def _article(word: str, many: bool) -> str:
    return "some" if many else "an" if word[0] in "aeiou" else "a"


class Pen(Protocol):
    """What a tale is told with: the writer draws its picks, the reader (in the tests) finds them in a text."""

    length: int

    def say(self, text: str, skill: int = GRAMMAR) -> None: ...

    def pick(self, *groups: Group) -> str: ...


class Writer:
    """Draws picks from a stream and keeps text, skills and code length per character."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self.length = 0
        self.parts: list[tuple[str, int, float]] = []  # text, skill, bits of the whole part

    def say(self, text: str, skill: int = GRAMMAR) -> None:
        self.parts.append((text, skill, 0.0))
        self.length += len(text)

    def pick(self, *groups: Group) -> str:
        total = sum(group[0] for group in groups)
        at = self._stream.below(total)
        for group in groups:
            if at < group[0]:
                break
            at -= group[0]
        weight, skill, strings = group
        text = strings[self._stream.below(len(strings))] if len(strings) > 1 else strings[0]
        self.parts.append((text, skill, math.log2(total / weight * len(strings))))
        self.length += len(text)
        return text


@dataclass
class Person:
    name: str
    she: bool
    home: str
    place: str = ""
    coins: int = 0


@dataclass
class Thing:
    name: str
    plural: bool
    box_it_likes: str
    holder: Person | None
    box: str = ""


@dataclass
class Tale:
    """What has been told so far, and the rules for what may come next."""

    words: Lexicon
    pen: Pen
    people: list[Person] = field(default_factory=list)
    things: list[Thing] = field(default_factory=list)
    subject: Person | None = None  # whom "he" or "she" would mean
    asked: set[str] = field(default_factory=set)  # the questions since the last statement

    def tell(self) -> None:
        self.pen.say("\n")
        self._meet(self.pen.pick((1, SPELLING, self.words.names)))
        while self.pen.length + LONGEST <= CONTEXT:
            self.pen.say(" ")
            self._sentence()
        self.pen.say("\n")

    def _sentence(self) -> None:
        groups: list[Group] = []
        if self.subject is not None:
            groups.append((6, AGREEMENT, ["She" if self.subject.she else "He"]))
        groups += [(2, COPYING, [person.name]) for person in self.people if person is not self.subject]
        if len(self.people) < 3:
            known = {person.name for person in self.people}
            groups.append((2, SPELLING, [name for name in self.words.names if name not in known]))
        if self._whose():
            groups.append((2, GRAMMAR, ["Who has"]))
        if self._wheres():
            groups.append((2, GRAMMAR, ["Where"]))
        if sum(1 for person in self.people if person.coins) > 1 and "coins" not in self.asked:
            groups.append((8, GRAMMAR, ["How many coins are there?"]))
        opening = self.pen.pick(*groups)
        if opening not in ("Who has", "Where") and not opening.startswith("How"):
            self.asked.clear()
        self._go_on(opening)

    def _whose(self) -> list[Thing]:
        return [thing for thing in self.things if thing.holder and thing.name not in self.asked]

    def _wheres(self) -> list[tuple[str, Person | Thing]]:
        people = [(f" is {person.name}?", person) for person in self.people if person.name not in self.asked]
        things = [thing for thing in self.things if thing.box and thing.name not in self.asked]
        return [*people, *((f" {'are' if thing.plural else 'is'} the {thing.name}?", thing) for thing in things)]

    def _go_on(self, opening: str) -> None:
        named = [person for person in self.people if person.name == opening]
        if opening in ("He", "She") or named:
            self.subject = named[0] if named else self.subject
            assert self.subject is not None
            self._act(self.subject)
        elif opening == "Who has":
            self._ask_who()
        elif opening == "Where":
            self._ask_where()
        elif opening.startswith("How"):
            self.pen.say(f" {sum(person.coins for person in self.people)}.", SUM)
            self.asked.add("coins")
            self.subject = None
        else:
            self._meet(opening)

    def _meet(self, name: str) -> None:
        which = self.words.names.index(name)
        person = Person(name, self.words.she[which], self.words.homes[which])
        self.pen.say(" is at the ")
        self._arrive(person)
        self.people.append(person)
        self.subject = person

    def _arrive(self, person: Person) -> None:
        others = [place for place in self.words.places if place not in (person.home, person.place)]
        home = [] if person.place == person.home else [(3, SPELLING, [person.home])]
        person.place = self.pen.pick(*home, (2, SPELLING, others))
        self.pen.say(".")

    def _act(self, who: Person) -> None:
        held = [thing for thing in self.things if thing.holder is who]
        boxed = [thing for thing in self.things if thing.box]
        verbs = [(2, " goes to the ")]
        verbs += [(4, " owns ")] if len(self.things) < 3 else []
        verbs += [(2, " finds ")] if who.coins else [(5, " has ")]
        verbs += [(3, " puts the ")] if held else []
        verbs += [(3, " gives the ")] if held and len(self.people) > 1 else []
        verbs += [(2, " takes the ")] if boxed else []
        verb = self.pen.pick(*((weight, GRAMMAR, [text]) for weight, text in verbs)).strip()
        if verb == "goes to the":
            self._arrive(who)
        elif verb == "owns":
            self._own(who)
        elif verb in ("has", "finds"):
            self._coins(who)
        else:
            self._handle(verb, who, boxed if verb.startswith("takes") else held)

    def _own(self, who: Person) -> None:
        known = {thing.name for thing in self.things}
        free = [row for row, name in zip(self.words.phrases, self.words.things, strict=True) if name not in known]
        columns = list(zip(*free, strict=True))
        phrase = self.pen.pick(*((w, SPELLING, column) for w, column in zip((7, 2, 1), columns, strict=True)))
        which = self.words.things.index(phrase.rsplit(" ", 1)[1])
        plural, box = self.words.plural[which], self.words.thing_boxes[which]
        self.things.append(Thing(self.words.things[which], plural, box, who))
        self.pen.say(".")

    def _coins(self, who: Person) -> None:
        most = 9 if who.coins else 20
        count = int(self.pen.pick((1, NUMBER, [f"{n} " for n in range(1, most + 1)])))
        self.pen.say("coin" if count == 1 else "coins", AGREEMENT)
        self.pen.say(".")
        if who.coins:
            self.pen.say(" Now ")
            self.pen.say("she" if who.she else "he", AGREEMENT)
            self.pen.say(" has ")
            self.pen.say(f"{who.coins + count}.", SUM)
        who.coins += count

    def _handle(self, verb: str, who: Person, choice: list[Thing]) -> None:
        name = self.pen.pick(*((1, COPYING, [thing.name]) for thing in choice))
        thing = next(thing for thing in choice if thing.name == name)
        thing.holder, thing.box = who, ""
        if verb.startswith("puts"):
            self.pen.say(" in the ")
            others = [box for box in self.words.boxes if box != thing.box_it_likes]
            thing.box = self.pen.pick((3, SPELLING, [thing.box_it_likes]), (1, SPELLING, others))
            thing.holder = None
            self.pen.say(" box")
        elif verb.startswith("gives"):
            self.pen.say(" to ")
            name = self.pen.pick(*((1, COPYING, [other.name]) for other in self.people if other is not who))
            thing.holder = next(other for other in self.people if other.name == name)
        self.pen.say(".")

    def _ask_who(self) -> None:
        held = {f" the {thing.name}?": thing for thing in self._whose()}
        thing = held[self.pen.pick((1, COPYING, list(held)))]
        assert thing.holder is not None
        self.pen.say(f" {thing.holder.name}.", HOLDER)
        self.asked.add(thing.name)
        self.subject = None

    def _ask_where(self) -> None:
        known = dict(self._wheres())
        about = known[self.pen.pick((1, COPYING, list(known)))]
        self.pen.say(f" At the {about.place}." if isinstance(about, Person) else f" In the {about.box} box.", PLACE)
        self.asked.add(about.name)
        self.subject = None


def encode(text: str) -> np.ndarray:
    return _TOKEN_OF[np.frombuffer(text.encode("ascii"), dtype=np.uint8)]


def decode(tokens: np.ndarray) -> str:
    return "".join(SYMBOLS[int(token) - 1] for token in tokens if token)


_TOKEN_OF = np.zeros(128, dtype=np.uint16)
_TOKEN_OF[[ord(symbol) for symbol in SYMBOLS]] = np.arange(1, len(SYMBOLS) + 1)


def make(split: str, key: bytes, docs: int, world: bytes) -> dict[str, np.ndarray]:
    """`docs` tales. Tale i depends on (world, key, split, i) alone, so a larger split begins with the smaller."""
    words = lexicon(world)
    shape = (docs, CONTEXT + 1)
    tokens, skill = np.zeros(shape, dtype=np.uint16), np.zeros(shape, dtype=np.uint8)
    floor_bits = np.zeros(shape, dtype=np.float32)
    for row in range(docs):
        pen = Writer(Stream(key, f"{split} {row}"))
        Tale(words, pen).tell()
        text = "".join(part[0] for part in pen.parts)
        counts = [len(part[0]) for part in pen.parts]
        tokens[row, : len(text)] = encode(text)
        skill[row, : len(text)] = np.repeat([part[1] for part in pen.parts], counts)
        floor_bits[row, : len(text)] = np.repeat([part[2] / len(part[0]) for part in pen.parts], counts)
    target = tokens != 0
    target[:, 0] = False  # the first newline only opens the tale
    return {"tokens": tokens, "target": target, "skill": skill, "floor_bits": floor_bits}
