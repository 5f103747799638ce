"""Makes the `source` splits: windows of the pinned source of four libraries that the host has and no guest image has.

Which: docker, markdown-it-py, pydantic and typer, as installed here. Not rich, pygments, requests, urllib3 or idna: pip
carries copies of these, and a wheel of pip lies in every image with a Python. Not pydantic/v1, an older copy of much of
the rest. Versions and contents are pinned below, as locks/base.txt pins them; with others nothing is made.

The corpus is fixed. The `world` key deals whole files to the splits and says where windows begin; windows never overlap
and stay in their file. The split's key picks which of them come, in which order. Lines that stand in an earlier file,
too (64 characters and more of them), are taken out first, so that hardly a line of a split is told by another.

`confirm` is cut into as many parts as task.toml says, used in turn, and after the last one comes the first one again.

Not covered: the text is public. A language model may know it by heart, and so could a bundle, as far as its size goes;
which files decide is secret.
"""

from __future__ import annotations

import hashlib
import keyword
import re
from functools import lru_cache
from importlib import metadata

import numpy as np

CONTEXT = 256
SKILLS = ("indentation", "keyword", "name", "number", "string", "comment", "punctuation")
KINDS = {name: index for index, name in enumerate(SKILLS)}
KEYWORD, NAME = KINDS["keyword"], KINDS["name"]
KEYWORDS = frozenset(keyword.kwlist)
FILES = {  # distribution: version, what its files must hash to, folders that don't count
    "docker": ("7.2.0", "744be726666596b143ddf94dde59506b99d123d903df7dc05001e7c481979811", ()),
    "markdown-it-py": ("4.3.0", "e29a38380c5d9336ebe1b2917089f96631485dd368d5a84381200357e9c38066", ()),
    "pydantic": ("2.14.3", "f5bae03b1428c206616e279ad7c881382a94aadbab0f4614c13d27a6470d158c", ("pydantic/v1/",)),
    "typer": ("0.29.2", "352739609eb67ad0b4abe6b47d10ed175d77bfb94f65c034d491172fb5953ff5", ()),
}
INSTALL = "pip install --require-hashes --no-deps -r locks/base.txt"
SHARES = {"train": 0.58, "select": 0.1, "confirm": 0.22, "final": 0.1}  # of the characters
REPEATED = 64  # characters that stand elsewhere, too, make a line a repeated one
OTHER = 97  # newline is token 1, the 95 printable ASCII characters are 2 to 96, anything else is this one
PARTS = re.compile(
    r"""[ \t]*(?:
    (?P<name>(?:(?![bfruBFRU]{1,2}["'])[^\W\d])\w*)
    |(?P<indentation>\n[ \t\n]*)
    |(?P<string>[bfruBFRU]{0,2}(?:\"{3}(?:\\.|[^\\])*?\"{3}|'{3}(?:\\.|[^\\])*?'{3}
        |\"(?:\\.|[^\\\"\n])*\"|'(?:\\.|[^\\'\n])*'))
    |(?P<comment>\#[^\n]*)
    |(?P<number>\.?\d[\w.]*)
    |(?P<punctuation>.)|\Z)""",
    re.VERBOSE | re.DOTALL,
)


def make(split: str, key: bytes, docs: int, world: bytes, part: tuple[int, int] = (0, 1)) -> dict[str, np.ndarray]:
    """`docs` different windows of that split; of `confirm` from that part of so many."""
    windows = _dealt(world)[split]
    which, parts = part
    windows = windows[len(windows) * which // parts : len(windows) * (which + 1) // parts]
    if docs > len(windows):
        raise ValueError(f"source has {len(windows)} windows for {split} in this loop; {docs} were asked for")
    tokens = np.zeros((docs, CONTEXT + 1), dtype=np.uint16)
    skill = np.zeros((docs, CONTEXT + 1), dtype=np.uint8)
    corpus = _corpus()
    for row, pick in enumerate(_order(key, "windows", len(windows))[:docs]):
        name, first = windows[pick]
        tokens[row], skill[row] = (array[first : first + CONTEXT + 1] for array in corpus[name])
    target = np.ones(tokens.shape, dtype=bool)
    target[:, 0] = False
    return {"tokens": tokens, "target": target, "skill": skill, "floor_bits": np.zeros(tokens.shape, dtype=np.float32)}


@lru_cache(maxsize=4)
def _dealt(world: bytes) -> dict[str, list[tuple[str, int]]]:
    """(file, where it begins) of every window of each split. A file goes to the split with most room left."""
    sizes = {name: len(tokens) for name, (tokens, _) in sorted(_corpus().items())}
    room = {split: share * sum(sizes.values()) for split, share in SHARES.items()}
    windows: dict[str, list[tuple[str, int]]] = {split: [] for split in SHARES}
    names = list(sizes)
    for index in _order(world, "files", len(names)):
        name = names[index]
        split = max(room, key=lambda split: room[split])
        room[split] -= sizes[name]
        first = int(_words(world, name, 1)[0] % (CONTEXT + 1))
        windows[split] += [(name, at) for at in range(first, sizes[name] - CONTEXT, CONTEXT + 1)]
    return windows


def _words(key: bytes, label: str, count: int) -> np.ndarray:
    seed = len(key).to_bytes(2, "little") + key + label.encode()
    return np.frombuffer(hashlib.shake_256(seed).digest(8 * count), dtype="<u8")


def _order(key: bytes, label: str, count: int) -> list[int]:
    return np.argsort(_words(key, label, count), kind="stable").tolist()


# The corpus


@lru_cache(maxsize=1)
def _corpus() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Tokens and skills of every file, without the lines that an earlier file has, too."""
    texts = dict(sorted(item for name in FILES for item in _installed(name).items()))
    encoded = {name: encode(text) for name, text in texts.items()}
    repeated = _repeated(list(encoded.values()))
    corpus = {}
    for (name, text), again in zip(texts.items(), repeated, strict=True):
        keep = ~_lines(again, encoded[name])
        corpus[name] = encoded[name][keep], _skills(text)[keep]
    return corpus


def _installed(name: str) -> dict[str, str]:
    """The distribution's Python files by name; ImportError, with what to do, where they aren't the pinned ones."""
    version, pinned, without = FILES[name]
    needed = f"{name} {version}, as locks/base.txt pins it: it is the text of this task"
    try:
        found = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        raise ImportError(f"no {name}", needed, INSTALL) from None
    if found.version != version:
        raise ImportError(f"{name} {found.version}", needed, INSTALL)
    texts, total = {}, hashlib.sha256()
    for file in sorted(found.files or (), key=str):
        path = file.as_posix()
        if path.endswith(".py") and not path.startswith(without):
            data = file.locate().read_bytes() if file.locate().is_file() else b""
            total.update(f"{path}:{len(data)}:".encode() + data)
            texts[path] = data.decode("utf-8", "replace").replace("\r\n", "\n")
    if total.hexdigest() != pinned:
        raise ImportError(f"{name} {version} with other files ({total.hexdigest()})", needed, INSTALL)
    return texts


def encode(text: str) -> np.ndarray:
    codes = np.frombuffer(text.encode("utf-32-le"), dtype="<u4")
    return np.where((codes >= 32) & (codes < 127), codes - 30, np.where(codes == 10, 1, OTHER)).astype(np.uint16)


def decode(tokens: np.ndarray) -> str:
    return "".join({1: "\n", OTHER: "\N{REPLACEMENT CHARACTER}"}.get(t, chr(t + 30)) for t in tokens.tolist())


def hashes(tokens: np.ndarray) -> np.ndarray:
    """One number for each run of REPEATED tokens: equal runs have equal numbers, others hardly ever."""
    found = tokens.astype(np.uint64) + np.uint64(1)
    for step in range(6):  # runs of 2, 4, … 64
        width = 1 << step
        found = found[: max(0, len(found) - width)] * np.uint64(0x9E3779B97F4A7C15 + 2 * step) + found[width:]
        found ^= found >> np.uint64(29)
    return found


def _repeated(files: list[np.ndarray]) -> list[np.ndarray]:
    """For each file, which of its characters are in a run that an earlier file has, too."""
    runs = [hashes(tokens) for tokens in files]
    owner = np.repeat(np.arange(len(files)), [len(some) for some in runs])
    _, first, inverse = np.unique(np.concatenate(runs), return_index=True, return_inverse=True)
    earlier = np.split(owner[first][inverse] < owner, np.cumsum([len(some) for some in runs])[:-1])
    found = []
    for tokens, again in zip(files, earlier, strict=True):
        begins = np.flatnonzero(again)
        edges = np.zeros(len(tokens) + 1, dtype=np.int64)
        edges[begins] += 1
        edges[begins + REPEATED] -= 1
        found.append(np.cumsum(edges[:-1]) > 0)
    return found


def _lines(marked: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """The characters of those lines of which at least half is marked."""
    line = np.cumsum(tokens == 1) - (tokens == 1)  # a newline ends its line
    share = np.bincount(line, marked) / np.maximum(1, np.bincount(line))
    return share[line] >= 0.5


def _skills(text: str) -> np.ndarray:
    """A skill for each character; a blank between two parts belongs to the part behind it.

    A lexer of our own, because Python's differs from version to version. What stands in an f-string is string.
    """
    kinds, lengths = [], []
    for match in PARTS.finditer(text):
        kind = KINDS[match.lastgroup or "indentation"]  # blanks at the very end of a file
        kinds.append(KEYWORD if kind == NAME and match["name"] in KEYWORDS else kind)
        lengths.append(match.end() - match.start())
    return np.repeat(np.array(kinds, dtype=np.uint8), lengths)
