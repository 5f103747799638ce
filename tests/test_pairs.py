"""Pairs: who trains first, where two sides don't fit beside each other."""

from __future__ import annotations

from pathlib import Path

import pytest
import small_world

from bellglass import processes, trial_ids
from bellglass.steps.pairs import turns


def test_where_two_do_not_fit_beside_each_other_they_take_turns_at_going_first(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "cores", lambda: 1)
    state = small_world.run(home, small_world.Tuner())
    for purpose in ("gate", "final"):
        ran = [trial.trial_id for trial in state.trials.values() if trial.purpose == purpose]
        sides = [(trial_ids.shared(name), trial_ids.side_of(name)) for name in ran]
        first = tuple(side for _, side in sides[:2])
        assert set(first) == ({"parent", "child"} if purpose == "gate" else {"starter", "champion"})
        in_turn = [first, first[::-1]] * len(ran)
        assert [side for _, side in sides] == [side for pair in in_turn for side in pair][: len(ran)]
        assert [pair for pair, _ in sides[::2]] == [pair for pair, _ in sides[1::2]]
        assert len(ran) >= 4
    assert state.final["gain"]["low"] > 0, "scores are still on their own sides"


def test_who_begins_is_drawn_and_then_they_alternate() -> None:
    begins = [turns(bytes(32), f"gate-{number}")("ab", 0) for number in range(40)]
    assert 10 < begins.count("ab") < 30
    in_turn = turns(bytes(32), "gate-1")
    assert [in_turn("ab", index) for index in range(4)] in (["ab", "ba"] * 2, ["ba", "ab"] * 2)
    assert [in_turn(in_turn("ab", index), index) for index in range(4)] == ["ab"] * 4
