"""Makes the `tinystories` splits: windows of the public TinyStories text, which a person downloads (see task.toml).

`train` comes from the training file, the other splits from three parts of the validation file, cut between stories.
Windows never overlap; the `world` key says where they begin, and the split's key picks which of them come. `confirm` is
cut into as many slices as task.toml says, used in turn, and after the last one comes the first one again.

Not covered: the text is public, so a model or a bundle may know some of it by heart; and stories of the two files may
be near copies of each other, which nobody here has measured.
"""

from __future__ import annotations

import hashlib
import mmap
from pathlib import Path

import numpy as np

CONTEXT = 256
SKILLS = ("word start", "word rest", "between")
WORD_START, WORD_REST, BETWEEN = range(len(SKILLS))
TRAIN, VALID = "TinyStories-train.txt", "TinyStories-valid.txt"
MARK = b"<|endoftext|>"  # between stories; its characters are text like any other
PARTS = {"select": (0.0, 0.2), "confirm": (0.2, 0.7), "final": (0.7, 1.0)}  # of the validation file
OTHER = 97  # newline is token 1, printable ASCII 2 to 96; each byte of anything else is this one


def make(
    split: str, key: bytes, docs: int, world: bytes, part: tuple[int, int], files: dict[str, Path]
) -> dict[str, np.ndarray]:
    """`docs` different windows of that split; of `confirm` from that slice of so many."""
    with (
        files[TRAIN if split == "train" else VALID].open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text,  # gigabytes, of which some windows are read
    ):
        first, end = (_between_stories(text, share) for share in PARTS.get(split, (0.0, 1.0)))
        first += int(_words(world, 0)[0] % (CONTEXT + 1))
        count = (end - first) // (CONTEXT + 1)
        low, high = (count * turn // part[1] for turn in (part[0], part[0] + 1))
        starts = first + (low + _different(key, docs, high - low)) * (CONTEXT + 1)
        raw = b"".join(text[at : at + CONTEXT + 1] for at in starts.tolist())
    codes = np.frombuffer(raw, dtype=np.uint8).reshape(docs, CONTEXT + 1)
    target = np.ones(codes.shape, dtype=bool)
    target[:, 0] = False
    return {
        "tokens": encode(codes),
        "target": target,
        "skill": _skills(codes),
        "floor_bits": np.zeros(codes.shape, dtype=np.float32),
    }


def encode(codes: np.ndarray) -> np.ndarray:
    printable = (codes >= 32) & (codes < 127)
    return np.where(printable, codes.astype(np.uint16) - 30, np.where(codes == 10, 1, OTHER)).astype(np.uint16)


def _between_stories(text: mmap.mmap, share: float) -> int:
    """The first place after that share of the text where a story has ended."""
    if share in (0.0, 1.0):
        return int(share * len(text))
    found = text.find(MARK, int(share * len(text)))
    return found + len(MARK) if found >= 0 else len(text)


def _words(key: bytes, block: int) -> np.ndarray:
    raw = hashlib.shake_256(b"tinystories" + key + block.to_bytes(8, "little")).digest(1 << 14)
    return np.frombuffer(raw, dtype="<u8")


def _different(key: bytes, docs: int, count: int) -> np.ndarray:
    """`docs` different numbers below `count`; there may be millions, so they are drawn, not shuffled."""
    if docs > count:
        raise ValueError(f"the text has {max(0, count)} windows for it; {docs} were asked for")
    found: dict[int, None] = {}
    block = 0
    while len(found) < docs:
        found.update(dict.fromkeys((_words(key, block) % count).tolist()))
        block += 1
    return np.array(list(found)[:docs], dtype=np.int64)


def _skills(codes: np.ndarray) -> np.ndarray:
    lower = codes | 32
    letter = (lower >= ord("a")) & (lower <= ord("z"))
    inside = np.zeros(codes.shape, dtype=bool)
    inside[:, 1:] = letter[:, :-1]
    return np.where(letter, np.where(inside, WORD_REST, WORD_START), BETWEEN).astype(np.uint8)
