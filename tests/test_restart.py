"""A session that was cut off under bounds starts over, hears the same, and pays for nothing twice."""

from __future__ import annotations

from pathlib import Path

import pytest
import small_world
from small_world import Tuner, opened

from bellglass.errors import Interrupted
from bellglass.loop import run_loop
from bellglass.records import ChatReply, ChatRequest


class Counting(Tuner):
    """A tuner that counts what it is asked, and is interrupted when it is asked once too often."""

    def __init__(self, most: int) -> None:
        self.most, self.asked = most, 0

    def chat(self, request: ChatRequest) -> ChatReply:
        self.asked += 1
        if self.asked > self.most:
            raise Interrupted("the loop", "interrupted", "nothing")
        return super().chat(request)


@pytest.mark.slow
def test_a_restarted_session_under_bounds_gets_its_recorded_answers(home: Path) -> None:
    bounds = {"train_seconds": 500.0, "budget_usd": 1.0, "tokens": 10_000, "calls": 50}
    folder = small_world.create(home, generations=1, **bounds)
    with opened(folder, Counting(3)) as crew, pytest.raises(Interrupted):  # after its trial
        run_loop(crew)
    again = Counting(100)
    with opened(folder, again) as crew:
        run_loop(crew)
        assert again.asked == 2  # what was not answered yet: the edit of the scaffold and the submission
        assert crew.state.generations[1].result["trainer"] == "adopted"
        assert crew.state.spent.calls == 5
