"""The commands that look, typed as a person types them: what they say of a loop that goes on, and of a damaged one."""

from __future__ import annotations

import threading
from pathlib import Path

import made_loop
import pytest

from bellglass.commands import look
from bellglass.store.ledger import Ledger


def test_a_resumed_loop_is_followed_until_its_own_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(look, "FOLLOW_SECONDS", 0.01)
    folder = made_loop.write(tmp_path, 2, waits=True)
    with Ledger.open(folder, write=True) as ledger:
        ledger.append("loop.ended", {"why": "stopped", "detail": "asked to"})
        ledger.append("loop.resumed", {"config": None})
        follower = threading.Thread(target=look.log, args=(str(folder),), kwargs={"follow": True}, daemon=True)
        follower.start()
        follower.join(0.5)
        assert follower.is_alive(), "it took an earlier end for the loop's"
        ledger.append("loop.ended", {"why": "bound", "detail": "no calls left"})
        follower.join(30)
    assert not follower.is_alive()
    assert "no calls left" in capsys.readouterr().out.splitlines()[-1]
