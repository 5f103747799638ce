"""The `stories` generator: a text says every choice that made it, so its code length is a floor."""

from __future__ import annotations

import hashlib
import itertools
import math
import sys
from collections.abc import Sequence
from types import ModuleType

import numpy as np
import pytest

from bellglass import data_file, tasks

WORLD, KEY = (hashlib.sha256(name).digest() for name in (b"world", b"key"))


@pytest.fixture(scope="module")
def stories() -> ModuleType:
    return data_file.load(tasks.load("stories").folder)


class Reader:
    """A pen that writes nothing: it finds what was said and picked in a text, and adds up the picks' code lengths."""

    def __init__(self, text: str, skills: int) -> None:
        self.text, self.length = text, 0
        self.bits, self.characters = np.zeros(skills), np.zeros(skills, dtype=int)
        self.excess = np.zeros(3)  # code length, which group, which string: each above its expectation, in its own sd
        self.picks = np.zeros(3)

    def say(self, text: str, skill: int = 0) -> None:
        assert self.text.startswith(text, self.length), f"{text!r} is not in the text at {self.length}"
        self._passed(text, skill, 0.0)

    def pick(self, *groups: tuple[int, int, Sequence[str]]) -> str:
        ordered = sorted(string for group in groups for string in group[2])
        assert not any(b.startswith(a) for a, b in itertools.pairwise(ordered)), "a pick begins another"
        total = sum(weight for weight, _, _ in groups)
        lengths = [math.log2(total / weight * len(strings)) for weight, _, strings in groups]
        chances = [weight / total for weight, _, _ in groups]
        fits = [(i, s) for i, group in enumerate(groups) for s in group[2] if self.text.startswith(s, self.length)]
        assert len(fits) == 1, f"{len(fits)} picks fit the text at {self.length}"
        which, string = fits[0]
        self._expect(0, chances, lengths, which)
        self._expect(1, chances, range(len(groups)), which)
        strings = list(groups[which][2])
        self._expect(2, [1 / len(strings)] * len(strings), range(len(strings)), strings.index(string))
        self._passed(string, groups[which][1], lengths[which])
        return string

    def _expect(self, row: int, chances: Sequence[float], values: Sequence[float], came: int) -> None:
        mean = sum(p * value for p, value in zip(chances, values, strict=True))
        spread = math.sqrt(sum(p * (value - mean) ** 2 for p, value in zip(chances, values, strict=True)))
        if spread > 1e-6:
            self.excess[row] += (values[came] - mean) / spread
            self.picks[row] += 1

    def _passed(self, text: str, skill: int, bits: float) -> None:
        self.length += len(text)
        self.characters[skill] += len(text)
        self.bits[skill] += bits


def read(stories: ModuleType, text: str) -> Reader:
    reader = Reader(text, len(stories.SKILLS))
    stories.Tale(stories.lexicon(WORLD), reader).tell()
    assert reader.length == len(text), "the text goes on after its end"
    return reader


@pytest.fixture(scope="module")
def tales(stories: ModuleType) -> dict[str, np.ndarray]:
    return stories.make("train", KEY, 120, WORLD)


@pytest.fixture(scope="module")
def readers(stories: ModuleType, tales: dict[str, np.ndarray]) -> list[Reader]:
    return [read(stories, stories.decode(row)) for row in tales["tokens"]]


def test_a_text_can_be_read_back_into_exactly_one_chain_of_picks_with_the_same_code_length(
    stories: ModuleType, tales: dict[str, np.ndarray], readers: list[Reader]
) -> None:
    made = tales
    for row, reader in enumerate(readers):
        told = made["tokens"][row] != 0
        for skill in range(len(stories.SKILLS)):
            here = told & (made["skill"][row] == skill)
            assert here.sum() == reader.characters[skill]
            assert made["floor_bits"][row, here].sum(dtype=float) == pytest.approx(reader.bits[skill], abs=1e-4)


def test_a_changed_letter_is_no_tale_any_more(stories: ModuleType) -> None:
    text = stories.decode(stories.make("train", KEY, 1, WORLD)["tokens"][0])
    for place in range(0, len(text), 7):
        with pytest.raises((AssertionError, ValueError)):
            read(stories, text[:place] + "#" + text[place + 1 :])


def test_picks_come_as_often_as_their_weights_say(readers: list[Reader]) -> None:
    """Otherwise a model that knows the true frequencies could beat the floor."""
    z = sum(reader.excess for reader in readers) / np.sqrt(sum(reader.picks for reader in readers))
    assert (np.abs(z) < 4).all(), z


def test_every_skill_occurs_and_answers_are_certain(stories: ModuleType) -> None:
    made = stories.make("train", KEY, 200, WORLD)
    for index, name in enumerate(stories.SKILLS):
        here = made["target"] & (made["skill"] == index)
        assert here.any(), name
        if name in ("holder", "place", "sum"):
            assert made["floor_bits"][here].sum() == 0, name


def test_the_floor_is_about_a_third_of_a_bit_per_byte_and_far_below_gzip(stories: ModuleType) -> None:
    made = stories.make("train", KEY, 500, WORLD)
    assert 0.25 < made["floor_bits"].sum() / made["target"].sum() < 0.35


def test_tales_depend_on_both_keys_and_on_nothing_else(stories: ModuleType) -> None:
    made = stories.make("select", KEY, 3, WORLD)["tokens"]
    assert np.array_equal(made, stories.make("select", KEY, 5, WORLD)["tokens"][:3])
    assert not np.array_equal(made, stories.make("select", WORLD, 3, WORLD)["tokens"])
    assert not np.array_equal(made, stories.make("train", KEY, 3, WORLD)["tokens"])
    assert not np.array_equal(made, stories.make("select", KEY, 3, KEY)["tokens"])


def test_another_world_has_another_lexicon_and_the_same_world_the_same(stories: ModuleType) -> None:
    ours, theirs = stories.lexicon(WORLD), stories.lexicon(KEY)
    assert len(set(ours.names) & set(theirs.names)) < 8
    assert stories.lexicon.__wrapped__(WORLD) == ours


def test_no_sentence_is_longer_than_the_room_kept_for_it(stories: ModuleType) -> None:
    made = stories.make("train", KEY, 500, WORLD)["tokens"]
    sentences = stories.decode(made.flatten()).replace("?", ".").split(".")
    assert 30 < max(map(len, sentences)) < stories.LONGEST
    assert ((made != 0).sum(axis=1) > stories.CONTEXT - stories.LONGEST).all()


def test_the_vocabulary_is_what_the_task_file_says(stories: ModuleType) -> None:
    task = tasks.load("stories")
    assert task.vocab == len(stories.SYMBOLS) + 1 <= 65
    assert task.context == stories.CONTEXT
    assert task.skills == stories.SKILLS


def test_a_tale_is_told_in_about_a_thousand_calls(stories: ModuleType) -> None:
    """Under half a millisecond here; calls are counted, because a clock would measure the machine.

    A lexicon takes half a million: made anew for each tale, it would cost minutes at each gate.
    """
    stories.lexicon(WORLD)
    calls = 0

    def count(frame: object, event: str, argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        stories.make("train", KEY, 20, WORLD)
    finally:
        sys.setprofile(before)
    assert 20 * 100 < calls < 20 * 3000
