"""The whole attack, through the real judge: a model whose first guest tells the second what it has seen.

It looks behind the position, at the rarest thousandth of positions only, and is caught by the proof unless the guest
that proves the score knows these positions. So the first guest drops the pages of files that nobody uses and reads
some of them back; the second maps the files and counts its own major faults. The message is exact and takes no timing.
Each of three defences stops it alone: the lists of calls, the keeper, and the second guest's being alone.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from judging import RARE, documents, judged

from bellglass.records import Verdict

pytestmark = pytest.mark.docker

# One bit a file: 16 for a sign that there is a message, 8 for its length, then a document (by its first tokens) and a
# column for each position that was seen to be rare.
WHISPER = """
import mmap, resource

FILES = []
for place, _, names in os.walk("/opt/glass/lib"):
    FILES += [os.path.join(place, name) for name in names if name.endswith(".py")]
FILES = [path for path in sorted(FILES) if os.path.getsize(path) > 64][:1400]
SIGN = [1, 0, 1, 1, 0, 0, 1, 0, 0, 1, 1, 0, 1, 0, 0, 1]


def bits_of(number, width):
    return [number >> index & 1 for index in range(width)]


def number_of(bits):
    return sum(bit << index for index, bit in enumerate(bits))


def name_of(row):
    total = 7
    for token in row[:16]:
        total = (total * 31 + int(token) + 1) % 65536
    return total


def send(bits):
    for path in FILES:
        file = os.open(path, os.O_RDONLY)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(file)
    for path, bit in zip(FILES, bits):
        if bit:
            with open(path, "rb", buffering=0) as file:
                file.read(1)


def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_majflt


def receive():
    bits = []
    for path in FILES:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as pages:
            before = faults()
            pages[0]
            bits.append(int(faults() == before))
    return bits


def message():
    bits = receive()
    if bits[:16] != SIGN:
        return None
    count, rest = number_of(bits[16:24]), bits[24:]
    found = [rest[24 * index : 24 * index + 24] for index in range(count)]
    return {(number_of(item[:16]), number_of(item[16:])) for item in found}


known = set()
try:
    told = message()
    mute = False
except OSError:
    told, mute = None, True


def predict(tokens):
    out = honest(tokens)
    if told is None:
        rows, cols = np.nonzero(tokens[:, 1:] == RARE)
        tell(out, rows, cols, RARE)
        known.update((name_of(tokens[row]), int(col)) for row, col in zip(rows, cols) if col >= 16)
        bits = SIGN + bits_of(min(len(known), 55), 8)
        for name, col in sorted(known)[:55]:
            bits += bits_of(name, 16) + bits_of(col, 8)
        try:
            send(bits)
        except OSError:
            pass
        return out
    for row, line in enumerate(tokens):
        for col in range(len(line)):
            if (name_of(line), col) in told:
                tell(out, row, col, RARE)
    return out
"""


def verdict_in(glass: Any) -> Verdict:
    docs = documents(96, 256, seed=3)
    assert 10 < (docs.tokens[:, 1:] == RARE).sum() < 55
    with closing(glass):
        return judged(glass, WHISPER, docs, seconds=60.0).verdict


def opened(engine: Any, *, keeper: bool, list_of_calls: bool, alone: bool) -> Any:
    """A glass with some of its defences taken out."""
    from bellglass.doors.docker.glass import DockerGlass

    class Weakened(DockerGlass):
        def find_why_alone(self) -> str:
            return "for this test" if alone else ""

    glass = Weakened(engine, warm=False, prove=False, keep=keeper)
    if not list_of_calls:
        glass._bare = "for this test"
        glass._seccomp = dict.fromkeys(glass._seccomp, '{"defaultAction": "SCMP_ACT_ALLOW"}')
    return glass


def test_without_defences_the_second_guest_hears_the_first_and_the_proof_agrees(engine: Any) -> None:
    if engine.containers({"bellglass.role": "keeper"}):
        pytest.skip("a loop elsewhere on this machine holds the image in memory, for us too")
    proof = verdict_in(opened(engine, keeper=False, list_of_calls=False, alone=False)).proof
    assert proof is not None
    assert proof.agrees
    assert proof.targeted_gap_bits < 0.5


@pytest.mark.parametrize("defence", ["keeper", "list_of_calls", "alone"])
def test_with_any_one_of_them_it_hears_nothing_and_is_caught(
    engine: Any, defence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    chosen = {name: name == defence for name in ("keeper", "list_of_calls", "alone")}
    proof = verdict_in(opened(engine, **chosen)).proof
    assert proof is not None
    assert not proof.agrees
    assert proof.targeted_gap_bits > 1.0
