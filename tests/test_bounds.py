"""Bounds: nothing is admitted that could end beyond them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bellglass.bounds import Bounds, Left, admit, admit_wall, left, less
from bellglass.errors import BoundReached
from bellglass.records import Cost

NOTHING = Cost()
BOUNDS = Bounds(train_seconds=100.0, calls=10, tokens=1000, usd=1.0)

AMOUNT = st.floats(min_value=0, max_value=60, allow_nan=False)
COSTS = st.builds(
    Cost,
    train_seconds=AMOUNT,
    tokens_in=st.integers(0, 400),
    tokens_out=st.integers(0, 400),
    calls=st.integers(0, 4),
    usd=st.floats(min_value=0, max_value=0.6, allow_nan=False),
)
# Each step asks for something, then perhaps settles one reservation at a share of what was reserved.
STEPS = st.lists(st.tuples(COSTS, st.booleans(), st.integers(0, 9), st.floats(min_value=0, max_value=1)), max_size=30)


def share(cost: Cost, part: float) -> Cost:
    usd = None if cost.usd is None else cost.usd * part
    seconds, tokens = cost.train_seconds * part, (int(cost.tokens_in * part), int(cost.tokens_out * part))
    return Cost(seconds, *tokens, int(cost.calls * part), usd)


@settings(max_examples=150)
@given(STEPS)
def test_spent_and_reserved_never_exceed_the_bounds(steps: list[tuple[Cost, bool, int, float]]) -> None:
    spent, open_ = NOTHING, list[Cost]()
    for ask, settle, which, part in steps:
        try:
            admit(BOUNDS, spent, sum(open_, NOTHING), ask)
            open_.append(ask)
        except BoundReached:
            pass
        if settle and open_:
            spent = spent + share(open_.pop(which % len(open_)), part)
        total = spent + sum(open_, NOTHING)
        assert total.usd is not None
        # One part in 10^12: the order of a sum of floats may move its last digit.
        assert total.train_seconds <= 100.0 * (1 + 1e-12)
        assert total.usd <= 1.0 * (1 + 1e-12)
        assert total.calls <= 10
        assert total.tokens_in + total.tokens_out <= 1000


@settings(max_examples=100)
@given(COSTS, COSTS, COSTS)
def test_what_is_left_is_what_is_admitted(spent: Cost, reserved: Cost, ask: Cost) -> None:
    rest = left(BOUNDS, spent, reserved)
    assert rest.calls is not None
    assert rest.tokens is not None
    fits = ask.calls <= rest.calls and ask.tokens_in + ask.tokens_out <= rest.tokens
    just = Cost(calls=ask.calls, tokens_in=ask.tokens_in, tokens_out=ask.tokens_out)
    counted = Bounds(calls=10, tokens=1000)
    if fits and spent.calls + reserved.calls <= 10:
        admit(counted, spent, reserved, just)
    elif not fits:
        with pytest.raises(BoundReached):
            admit(counted, spent, reserved, just)


@pytest.mark.parametrize(
    "ask",
    [Cost(train_seconds=100.1), Cost(calls=11), Cost(tokens_in=600, tokens_out=401), Cost(usd=1.01)],
    ids=["seconds", "calls", "tokens", "usd"],
)
def test_each_bound_holds_by_itself(ask: Cost) -> None:
    with pytest.raises(BoundReached) as caught:
        admit(BOUNDS, NOTHING, NOTHING, ask)
    assert caught.value.exit_code == 4
    assert caught.value.found
    assert caught.value.needed
    assert "--" in caught.value.next_command
    admit(Bounds(), NOTHING, NOTHING, ask)


def test_exactly_the_bound_is_admitted() -> None:
    admit(BOUNDS, Cost(calls=4), Cost(calls=5), Cost(calls=1))
    with pytest.raises(BoundReached, match="4 used and 6 reserved, 1 more asked"):
        admit(BOUNDS, Cost(calls=4), Cost(calls=6), Cost(calls=1))


@pytest.mark.parametrize("place", range(3))
def test_an_unknown_price_never_fits_under_a_money_bound(place: int) -> None:
    costs = [NOTHING, NOTHING, NOTHING]
    costs[place] = Cost(usd=None)
    with pytest.raises(BoundReached, match="unknown"):
        admit(BOUNDS, *costs)
    admit(Bounds(calls=10), *costs)


def test_a_nan_is_refused_not_admitted() -> None:
    for ask in (Cost(train_seconds=math.nan), Cost(usd=math.nan), Cost(train_seconds=math.inf)):
        with pytest.raises(BoundReached):
            admit(BOUNDS, NOTHING, NOTHING, ask)


def test_a_negative_ask_cannot_make_room() -> None:
    for ask in (Cost(train_seconds=-1), Cost(calls=-1), Cost(tokens_in=-1), Cost(usd=-0.1)):
        with pytest.raises(ValueError, match="negative"):
            admit(BOUNDS, NOTHING, NOTHING, ask)


def test_spending_beyond_a_bound_leaves_nothing_and_admits_nothing() -> None:
    overbilled = Cost(usd=1.5)
    assert left(BOUNDS, overbilled, NOTHING).usd == 0.0
    with pytest.raises(BoundReached):
        admit(BOUNDS, overbilled, NOTHING, Cost(calls=1))
    assert left(BOUNDS, Cost(usd=None), NOTHING).usd == 0.0


def test_wall_time_that_has_passed_has_a_bound_too() -> None:
    bounds = Bounds(wall_seconds=60.0)
    admit_wall(bounds, 60.0)
    with pytest.raises(BoundReached):
        admit_wall(bounds, 60.5)
    admit_wall(Bounds(), 10.0**9)


def test_what_a_session_is_told_depends_on_its_own_use_alone() -> None:
    start = left(Bounds(train_seconds=10.0, calls=5, tokens=100, usd=1.0), NOTHING, NOTHING)
    rest = less(start, Cost(train_seconds=4.0, calls=2, tokens_in=30, tokens_out=30, usd=0.25))
    assert rest == Left(train_seconds=6.0, calls=3, tokens=40, usd=0.75)
    assert less(start, Cost(train_seconds=11.0, calls=6, tokens_in=101, usd=None)) == Left(0.0, 0, 0, 0.0)
    assert less(left(Bounds(), NOTHING, NOTHING), Cost(usd=None)) == Left(None, None, None, None)
