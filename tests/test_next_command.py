"""What a person is told to type next names the loop they were running, wherever it lies."""

from __future__ import annotations

from pathlib import Path

import pytest

from bellglass.commands.start import naming
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
