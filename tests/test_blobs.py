"""Blobs: what was stored comes back, or is said to be damaged."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bellglass.errors import LoopFault, SetupError
from bellglass.store.blobs import Blobs


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    return Blobs(tmp_path / "blobs")


def test_bytes_come_back_under_their_sha256(blobs: Blobs) -> None:
    sha = blobs.put(b"weights")
    assert sha == hashlib.sha256(b"weights").hexdigest() == blobs.put(memoryview(b"weights"))
    assert blobs.get(sha) == b"weights"
    assert sha in blobs
    assert hashlib.sha256(b"").hexdigest() not in blobs
    assert [path.relative_to(blobs.folder).as_posix() for path in blobs.folder.rglob("*") if path.is_file()] == [
        f"{sha[:2]}/{sha}"
    ]


@settings(max_examples=25)
@given(st.binary(max_size=3000))
def test_any_bytes_come_back(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    blobs = Blobs(tmp_path_factory.getbasetemp() / "any")
    assert blobs.get(blobs.put(data)) == data


def test_an_altered_blob_is_refused_and_storing_it_again_repairs_it(blobs: Blobs) -> None:
    sha = blobs.put(b"weights")
    path = blobs.folder / sha[:2] / sha
    path.chmod(0o644)
    path.write_bytes(b"Weights")
    with pytest.raises(LoopFault, match="does not match"):
        blobs.get(sha)
    blobs.put(b"weights")
    assert blobs.get(sha) == b"weights"


def test_a_missing_blob_is_named(blobs: Blobs) -> None:
    sha = hashlib.sha256(b"x").hexdigest()
    with pytest.raises(LoopFault, match=sha[:12]):
        blobs.get(sha)


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "A" * 64, "0" * 63, "0" * 64 + "\n"])
def test_a_name_that_is_no_sha256_reaches_no_file(blobs: Blobs, name: str) -> None:
    with pytest.raises(LoopFault, match="no sha256"):
        blobs.get(name)


def test_threads_may_store_the_same_bytes_at_once(blobs: Blobs) -> None:
    data = os.urandom(200_000)
    shas: list[str] = []
    threads = [threading.Thread(target=lambda: shas.append(blobs.put(data))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(shas) == 8
    assert blobs.get(shas[0]) == data
    assert blobs.sweep() == 0


def test_what_a_dead_writer_left_is_swept_and_nothing_else(blobs: Blobs) -> None:
    sha = blobs.put(b"weights")
    (blobs.folder / sha[:2] / ".new-dead").write_bytes(b"half")
    assert blobs.sweep() == 1
    assert blobs.get(sha) == b"weights"


def test_a_folder_that_cannot_be_made_is_a_setup_error_with_a_command_to_look_at_it(tmp_path: Path) -> None:
    (tmp_path / "my blobs").write_bytes(b"a file")
    with pytest.raises(SetupError) as caught:
        Blobs(tmp_path / "my blobs").put(b"x")
    assert caught.value.next_command == f"ls -ld '{tmp_path}/my blobs'"


def test_a_full_disk_is_a_setup_error_and_leaves_no_half_blob(tmp_path: Path) -> None:
    code = """
import resource, sys
from pathlib import Path
from bellglass.store.blobs import Blobs
from bellglass.errors import SetupError
blobs = Blobs(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, -1))
try:
    blobs.put(b"x" * 200_000)
except SetupError as error:
    print(error.found)
print(len([path for path in blobs.folder.rglob("*") if path.is_file()]))
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    command = [sys.executable, "-c", code, str(tmp_path / "blobs")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=30, check=False)
    assert (done.stdout + done.stderr).splitlines() == ["the disk is full", "0"]
