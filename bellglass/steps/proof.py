"""The proof's arithmetic: which positions a second guest is asked about, with what behind them, and what gaps mean.

A position is proved by one row: the document up to the position, then text of another document to the same length. A
model that looks behind the position, or that remembers the text from elsewhere, answers the row worse than it scored.
What keeps the row itself from giving the answer away:

- one position per row, the last one kept, so nothing behind it is in the row;
- a document is asked about at most twice, the longer prefix in a later call, so that no earlier call showed its answer;
- the text put behind comes from donor documents that are never asked about.

Half of the positions are uniform over targets: their mean gap corrects the score. The other half are where the model
gains most over others (a plain one that the host makes, and the source where it is known), at most one per document:
there a leak that is too sparse for the uniform half must show, because that is where it pays. Telling the two guests
apart does not help a model: it must answer the rows without having the answers, and that is what the gap measures.

Not covered: a channel from the first guest to the second (they never run bundle code at the same time, but what one did
to the machine's caches can be timed), and leaks worth less than the tolerances below.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from bellglass.records import Proof

Ints: TypeAlias = NDArray[np.int64]
Bits: TypeAlias = NDArray[np.float64]

MIN_DOCS = 4
DONOR_SHARE = 8  # one document in eight lends its text and is never asked about
HOST_ORDER = 4  # tokens of context of the host's own model
LEAK_Z = 4.0  # of a half's mean gap; the noise's own estimate is rough
SPARED = 2  # largest gaps of a half that are not counted
NOISE_FLOOR = 1e-3  # bits per position; float32 rounding in another order stays far below
UNIFORM_TOLERANCE = 0.003  # bits; a gap inside it is not worth a person's time, and the score is corrected by it anyway
TARGETED_TOLERANCE = 0.05  # bits; choosing the largest gains favours positions where rounding helped the score
SCATTER_TOLERANCE = 0.02  # bits per position, on the side that no look-ahead explains


@dataclass(frozen=True, slots=True)
class Question:
    """One call of a guest, and which (document, column) each judged row and logit column stands for."""

    tokens: Ints  # [B, T]
    rows: Ints  # [K]
    docs: Ints  # [K]
    cols: Ints  # [K]: token `cols` is predicted by the logits at `cols - 1`


@dataclass(frozen=True, slots=True)
class Plan:
    """The positions to prove: uniform ones first, then targeted ones by falling gain."""

    docs: Ints
    cols: Ints
    uniform: int  # how many of them are uniform
    weights: Bits  # of the uniform ones: how many targets their document has
    donors: Ints  # empty for a separable task, where nothing stands behind


class Draw:
    """Random words that nobody without the key can predict: SHAKE-256 of key and label."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def words(self, label: str, count: int) -> NDArray[np.uint64]:
        stream = hashlib.shake_256(len(self._key).to_bytes(2, "big") + self._key + label.encode())
        return np.frombuffer(stream.digest(8 * count), dtype="<u8")

    def order(self, label: str, count: int) -> Ints:
        return np.argsort(self.words(label, count), kind="stable").astype(np.int64)

    def below(self, label: str, limits: Ints) -> Ints:
        """One number below each limit; the modulo's bias is limit / 2**64."""
        return (self.words(label, len(limits)) % limits.astype(np.uint64)).astype(np.int64)


def plan(bits: Bits, target: NDArray[np.bool_], against: Bits, draw: Draw, *, rows: int, separable: bool) -> Plan:
    """At most `rows` positions, half of them uniform."""
    asked = np.flatnonzero(target.any(axis=1))
    shuffled = asked[draw.order("roles", len(asked))]
    donors = shuffled[:0] if separable else shuffled[: max(1, len(asked) // DONOR_SHARE)]
    usable = shuffled[len(donors) :]
    uniform = usable[: min(len(usable), max(2, rows // 2))]
    counts = target[uniform].sum(axis=1).astype(np.int64)
    picked = draw.below("uniform", counts)
    uniform_cols = np.array(
        [np.flatnonzero(target[doc])[pick] for doc, pick in zip(uniform, picked, strict=True)], dtype=np.int64
    )
    gain = np.where(target, against - bits, -np.inf)[usable]
    best = gain.argmax(axis=1)
    by_gain = np.argsort(-gain.max(axis=1), kind="stable")
    taken = set(zip(uniform.tolist(), uniform_cols.tolist(), strict=True))
    pairs = [pair for pair in zip(usable[by_gain].tolist(), best[by_gain].tolist(), strict=True) if pair not in taken]
    targeted = np.array(pairs[: max(1, rows - len(uniform))], dtype=np.int64).reshape(-1, 2)
    return Plan(
        docs=np.concatenate([uniform, targeted[:, 0]]),
        cols=np.concatenate([uniform_cols, targeted[:, 1]]),
        uniform=len(uniform),
        weights=counts.astype(np.float64),
        donors=donors,
    )


def rounds(positions: Plan, draw: Draw) -> Iterator[Ints]:
    """Indices into the plan, shuffled, in rounds: a document's longer prefix is asked in a later round."""
    shuffled = draw.order("proof", len(positions.docs))
    by_length = shuffled[np.argsort(positions.cols[shuffled], kind="stable")]
    seen: set[int] = set()
    later: set[int] = set()
    for index in by_length.tolist():
        doc = int(positions.docs[index])
        if doc in seen:
            later.add(index)
        seen.add(doc)
    for members in (set(range(len(shuffled))) - later, later):
        if members:
            yield np.array([index for index in shuffled.tolist() if index in members], dtype=np.int64)


def replaced(tokens: Ints, positions: Plan, draw: Draw) -> Ints:
    """One row per position: its document before the position, a donor's text from there on."""
    width = tokens.shape[1] - 1
    kept = tokens[positions.docs, :width]
    donors = positions.donors[draw.below("donors", np.full(len(positions.docs), len(positions.donors)))]
    behind = np.arange(width)[None, :] >= positions.cols[:, None]
    return np.where(behind, tokens[donors, :width], kept)


def compare(positions: Plan, scored: Bits, proved: Bits) -> tuple[Proof, float, bool]:
    """The proof, the standard error of its uniform mean, and whether the answers depend on what they should not.

    Noise is taken to be symmetric, and a leak only makes gaps positive, so the negative gaps measure the noise: the
    spread of a sparse leak must not excuse it. The two largest gaps of a half are spared: one odd answer is no alarm.

    A model may answer worse on purpose where it can foresee that it will be asked, which is in the targeted half alone.
    So what it does there neither counts as noise nor pays for what it looked up elsewhere in that half.

    The order of the checks matters. A broad look-ahead shows in the uniform half. Answers that scatter to both sides
    there (dropout left on, normalisation over the batch) would make the targeted half lie, since it is chosen for lucky
    scores; they are no leak but no prediction either. Only then the targeted half is believed. Where it shows no leak
    but scatters itself, although it was chosen for lucky scores, the answers are no prediction, either.
    """
    gaps = proved - scored
    uniform, targeted = gaps[: positions.uniform], gaps[positions.uniform :]
    noise = _noise(uniform, targeted)
    mean, error = _weighted(uniform, positions.weights)
    lost = _without_credit(targeted)
    targeted_mean = float(lost.mean()) if len(lost) else 0.0
    looks_ahead = _leaks(uniform, noise, UNIFORM_TOLERANCE)
    agrees = not (looks_ahead or _leaks(lost, noise, TARGETED_TOLERANCE))
    scattered = not looks_ahead and (_scatters(uniform) or (agrees and _scatters(targeted)))
    proof = Proof(
        positions=len(gaps),
        mean_gap_bits=mean,
        gap_z=mean * math.sqrt(len(uniform)) / noise,
        targeted_gap_bits=targeted_mean,
        targeted_z=targeted_mean * math.sqrt(len(lost)) / noise,
        agrees=agrees,
    )
    return proof, error, scattered


def _noise(uniform: Bits, targeted: Bits) -> float:
    """Bits per position, from the half that nobody can foresee."""
    return max(NOISE_FLOOR, math.sqrt(2.0 * float((np.minimum(uniform, 0.0) ** 2).mean())))


def _without_credit(targeted: Bits) -> Bits:
    return np.maximum(targeted, 0.0)


def _scatters(gaps: Bits) -> bool:
    """Whether answers came out better the second time, which no look-ahead explains."""
    return len(gaps) > 0 and float(np.maximum(-gaps, 0.0).mean()) > SCATTER_TOLERANCE


def _leaks(gaps: Bits, noise: float, tolerance: float) -> bool:
    """Whether the mean gap, without the spared ones, is above the tolerance by more than noise explains."""
    kept = np.sort(gaps)[:-SPARED]
    if len(kept) == 0:
        return False
    return float(kept.mean()) - LEAK_Z * noise / math.sqrt(len(kept)) > tolerance


def _weighted(values: Bits, weights: Bits) -> tuple[float, float]:
    """The weighted mean and its standard error (ratio estimator)."""
    n = len(values)
    mean = float((values * weights).sum() / weights.sum())
    spread = float((((values - mean) * weights) ** 2).sum())
    return mean, math.sqrt(spread * n / max(1, n - 1)) / float(weights.sum())


def host_bits(tokens: Ints, target: NDArray[np.bool_], vocab: int) -> Bits:
    """What every target costs a plain model made here: contexts of up to four tokens, counted on these documents.

    Each count leaves out the position itself. It knows spelling and habits; what it pays for, nobody gets for nothing.
    """
    padded = np.pad(tokens, ((0, 0), (HOST_ORDER, 0)), constant_values=vocab)  # a token that stands for "before"
    rows, cols = np.nonzero(target)
    found = tokens[rows, cols]
    chance = np.full(len(found), 1.0 / vocab)
    context = np.zeros(len(found), dtype=np.int64)
    for order in range(HOST_ORDER + 1):
        if order:
            context = context * (vocab + 1) + padded[rows, cols + HOST_ORDER - order]  # may wrap: a harmless collision
        here, both = _others(context), _others(context * (vocab + 1) + found)
        chance = (both + chance) / (here + 1.0)
    bits = np.zeros(tokens.shape)
    bits[rows, cols] = -np.log2(chance)
    return bits


def _others(keys: Ints) -> Ints:
    """For each entry, how many others equal it."""
    _, inverse, counts = np.unique(keys, return_inverse=True, return_counts=True)
    others: Ints = counts[inverse] - 1
    return others


def batches(indices: Ints, size: int) -> Sequence[Ints]:
    """`indices` in calls of at most `size`, as even as possible."""
    return np.array_split(indices, max(1, math.ceil(len(indices) / size)))
