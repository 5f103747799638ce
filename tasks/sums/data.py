"""Makes the `sums` splits: additions in base two, one after the other, with the code length of every character known.

A document is an opening `;` and then problems such as `1011+0110=10001;`: two numbers of DIGITS digits, and their sum
written from its last digit to its first, because that is the order in which it can be worked out. A drawn digit costs
one bit and everything else follows from what stands before it, so the floor is exact, and 0 for the answers.

Base two, because a last digit is the sum modulo the base: no digit alone tells anything about it, so a model sees no
slope for a long time, and then learns it within a few hundred steps. With base ten the starter needs minutes for that,
with base two about the 15 CPU-seconds of the `cpu` preset, give or take: that is the lesson.

Every character is a target, not the answers alone: the contract knows "all" and "last", a trainer's claim is made on
the same characters as the verdict, and above the floor the questions cost a model that knows its digits nothing. So the
score is the answers' bits, thinned by the share of the characters that answers are; the skills give them undiluted.

The split's key draws the digits. There are only 256 problems, and all of them stand in training: this is about whether
a run finds the rule (or the table) in time, not about problems that nobody saw.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np

BASE, DIGITS, PROBLEMS = 2, 4, 2  # of the digits; digits of each number; problems in a document
SYMBOLS = "01+=;"  # token = index + 1; 0 is padding and does not occur
SKILLS = ("question", "last digit", "no carry", "carry", "long carry")
QUESTION, LAST, NO_CARRY, CARRY, LONG_CARRY = range(len(SKILLS))
PLUS, EQUALS, END = (SYMBOLS.index(sign) for sign in "+=;")
WIDTH = 3 * DIGITS + 4  # of a problem: two numbers, their sum, three signs


def make(split: str, key: bytes, docs: int, world: bytes) -> dict[str, np.ndarray]:
    """`docs` documents; a larger split begins with the smaller."""
    drawn = _digits(key + split.encode(), docs * PROBLEMS * 2 * DIGITS).reshape(-1, 2, DIGITS)
    symbols = np.full((len(drawn), WIDTH), END)
    skill = np.zeros((len(drawn), WIDTH), dtype=np.uint8)
    bits = np.zeros((len(drawn), WIDTH), dtype=np.float32)
    for which, sign in ((0, PLUS), (1, EQUALS)):
        at = which * (DIGITS + 1)
        symbols[:, at : at + DIGITS], symbols[:, at + DIGITS] = drawn[:, which], sign
        bits[:, at : at + DIGITS] = math.log2(BASE)
    carry = np.zeros(len(drawn), dtype=int)
    handed_on = np.zeros(len(drawn), dtype=bool)  # the carry came from further away than one digit
    for place in range(DIGITS + 1):
        column = 2 * DIGITS + 2 + place
        both = drawn[:, :, DIGITS - 1 - place].sum(axis=1) if place < DIGITS else 0 * carry
        symbols[:, column] = (both + carry) % BASE
        skill[:, column] = LAST if place == 0 else np.where(carry, np.where(handed_on, LONG_CARRY, CARRY), NO_CARRY)
        handed_on = (both == BASE - 1) & (carry == 1)
        carry = (both + carry) // BASE
    return _documents(docs, symbols, skill, bits)


def _documents(docs: int, symbols: np.ndarray, skill: np.ndarray, bits: np.ndarray) -> dict[str, np.ndarray]:
    """The problems in rows of PROBLEMS, behind an opening sign that is no target."""
    tokens, skill, bits = (
        np.pad(array.reshape(docs, -1), ((0, 0), (1, 0)), constant_values=opening)
        for array, opening in ((symbols + 1, END + 1), (skill, QUESTION), (bits, 0.0))
    )
    target = np.ones(tokens.shape, dtype=bool)
    target[:, 0] = False
    return {"tokens": tokens.astype(np.uint16), "target": target, "skill": skill, "floor_bits": bits}


def _digits(key: bytes, count: int) -> np.ndarray:
    """Uniform digits: bytes of SHAKE-256 in blocks, without those that would favour small digits."""
    found, block, have = [], 0, 0
    while have < count:
        raw = hashlib.shake_256(b"sums" + key + b"\0" + block.to_bytes(8, "little")).digest(1 << 14)
        fair = np.frombuffer(raw, dtype=np.uint8)
        found.append(fair[fair < 256 // BASE * BASE] % BASE)
        have, block = have + len(found[-1]), block + 1
    return np.concatenate(found)[:count].astype(int)


def decode(tokens: np.ndarray) -> str:
    return "".join(SYMBOLS[int(token) - 1] for token in tokens)
