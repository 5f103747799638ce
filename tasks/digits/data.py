"""Makes the `digits` splits: scikit-learn's 8 x 8 handwritten digits as 64 pixel tokens and one label token.

There are 1797 images and no more. The `world` key shuffles and cuts them into four disjoint splits; the split's key
picks which of its images come, in which order, so another salt gives other confirm images of the same share.

Separable: the label is the last token, and no guest that predicts it ever sees it. The images themselves are public,
so a bundle could know them by heart; this is a smoke task and no claim rests on it.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

import numpy as np

SKILLS = ("digit",)
LEVELS = 5  # grey levels 0..16 become tokens 1..5; labels 0..9 become tokens 6..15; 0 is padding
SHARES = {"train": (0, 1100), "select": (1100, 1300), "confirm": (1300, 1550), "final": (1550, 1797)}


def make(split: str, key: bytes, docs: int, world: bytes) -> dict[str, np.ndarray]:
    """`docs` different images of that split."""
    first, end = SHARES[split]
    if docs > end - first:
        raise ValueError(f"digits has {end - first} documents for {split}; {docs} were asked for")
    pixels, labels = _images()
    mine = _shuffled(world, len(labels))[first:end]
    rows = mine[_shuffled(key, len(mine))[:docs]]
    tokens = np.zeros((docs, pixels.shape[1] + 1), dtype=np.uint16)
    tokens[:, :-1] = 1 + np.minimum(pixels[rows] * LEVELS // 17, LEVELS - 1)
    tokens[:, -1] = 1 + LEVELS + labels[rows]
    target = np.zeros(tokens.shape, dtype=bool)
    target[:, -1] = True
    return {
        "tokens": tokens,
        "target": target,
        "skill": np.zeros(tokens.shape, dtype=np.uint8),
        "floor_bits": np.zeros(tokens.shape, dtype=np.float32),
    }


def _shuffled(key: bytes, n: int) -> np.ndarray:
    words = np.frombuffer(hashlib.shake_256(b"digits" + key).digest(8 * n), dtype="<u8")
    return np.argsort(words, kind="stable")


@lru_cache(maxsize=1)
def _images() -> tuple[np.ndarray, np.ndarray]:
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise ModuleNotFoundError("scikit-learn, which has the images, is not installed") from None
    found = load_digits()
    return found.data.astype(np.int64), found.target.astype(np.int64)
