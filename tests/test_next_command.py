"""What an error says last: the command to type next, which names the loop wherever it lies, and a stable code."""

from __future__ import annotations

from pathlib import Path

import pytest

from bellglass.cli import explain
from bellglass.commands.start import naming
from bellglass.errors import BellglassError, BoundReached, GuestFault, Interrupted, ModelFault, SetupError
from bellglass.paths import typed


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("bellglass resume", "bellglass resume /far/stories-1a2b"),
        ("bellglass resume 1a2b", "bellglass resume /far/stories-1a2b"),
        ("bellglass resume with a higher --calls", "bellglass resume /far/stories-1a2b with a higher --calls"),
        ("bellglass review 1a2b --rearm x", "bellglass review /far/stories-1a2b --rearm x"),
        ("bellglass doctor", "bellglass doctor"),
        ("", ""),
    ],
)
def test_the_next_command_names_this_loop(said: str, told: str) -> None:
    assert naming(said, "1a2b", "/far/stories-1a2b") == told


def test_a_loop_in_the_usual_place_goes_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BELLGLASS_HOME", str(tmp_path))
    assert typed(tmp_path / "stories-1a2b") == "stories-1a2b"
    assert typed(tmp_path / "else" / "stories-1a2b") == str(tmp_path / "else" / "stories-1a2b")
    assert typed(tmp_path / "my loops" / "stories-1a2b") == f"'{tmp_path / 'my loops' / 'stories-1a2b'}'"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (SetupError("git", "not found", code="machine_unfit"), "machine_unfit"),
        (BoundReached("bound on calls"), "bound_reached"),
        (Interrupted("the loop", "a request to stop"), "interrupted"),
        (GuestFault("flood", "its log"), "flood"),
        (ModelFault("server"), "server"),
    ],
)
def test_an_error_ends_with_its_code(error: BellglassError, code: str) -> None:
    assert error.code == code
    assert explain(error).splitlines()[-1] == f"  code:   {code}"
