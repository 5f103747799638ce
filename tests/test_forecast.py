"""The forecast adds up, respects the bounds, and never turns an unknown price into a number."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bellglass.forecast import LONG_PROMPT, Plan, Price, forecast

PLAN = Plan(
    generations=5,
    trials_per_session=6,
    gate_trainings=8,
    final_trainings=2,
    seconds_per_training=20.0,
    side_by_side=2,
    calls_per_session=40,
    tokens_in_per_call=10_000,
    tokens_out_per_call=1_000,
    review_every=True,
)
PRICE = Price(3.0, 15.0)


def test_the_sums_are_those_of_the_plan() -> None:
    said = forecast(PLAN, PRICE)
    assert said.trainings == 5 * (6 + 8) + 2
    assert said.train_seconds == 72 * 20
    assert said.wall_seconds == 72 * 20 / 2
    assert (said.calls, said.tokens_in, said.tokens_out) == (200, 2_000_000, 200_000)
    assert said.usd == pytest.approx(2 * 3.0 + 0.2 * 15.0)
    assert said.decisions == 5
    assert said.lines()[0] == "trainings  at most 72 of full length, 1440 s in all: up to 12 min on idle cores"


def test_an_unknown_price_is_said_and_is_not_zero() -> None:
    said = forecast(PLAN, None)
    assert said.usd is None
    text = "\n".join(said.lines())
    assert "unknown price" in text
    assert "$0" not in text


def test_a_money_bound_without_a_price_is_said_to_stop_every_call() -> None:
    assert "no call will be made" in "\n".join(forecast(replace(PLAN, max_usd=2.0), None).lines())


def test_bounds_cap_what_is_forecast() -> None:
    assert forecast(replace(PLAN, max_usd=2.0), PRICE).usd == 2.0
    assert forecast(replace(PLAN, max_calls=7), PRICE).calls == 7
    assert forecast(replace(PLAN, max_tokens=33_000), PRICE).calls == 3


def test_a_bound_that_pays_for_fewer_generations_says_for_how_many() -> None:
    said = forecast(replace(PLAN, max_usd=2.0), PRICE)
    assert said.calls == int(200 * 2.0 / 9.0)
    assert "enough for about 1 of 5 generations" in "\n".join(said.lines())
    assert "enough for about 0 of 5" in "\n".join(forecast(replace(PLAN, max_calls=7), PRICE).lines())
    for whole in (PLAN, replace(PLAN, max_usd=9.0), replace(PLAN, calls_per_session=0)):
        assert "enough for" not in "\n".join(forecast(whole, PRICE).lines())


def test_a_free_model_is_zero_and_a_loop_without_review_asks_nobody() -> None:
    said = forecast(replace(PLAN, review_every=False), Price(0.0, 0.0))
    assert (said.usd, said.decisions) == (0.0, 0)
    assert "none asked" in "\n".join(said.lines())


def test_long_prompts_and_cached_ones_have_their_own_rates() -> None:
    price = Price(1.0, 2.0, usd_cached_in=0.1, usd_long_in=5.0, usd_long_out=7.0)
    assert price.of(1_000_000, 0) == pytest.approx(5.0)
    assert price.of(LONG_PROMPT, 0) == pytest.approx(LONG_PROMPT / 1e6)
    assert price.of(LONG_PROMPT + 1, 1_000_000) == pytest.approx((LONG_PROMPT + 1) * 5e-6 + 7.0)
    assert price.of(100_000, 0, cached_in=50_000) == pytest.approx(0.05 + 0.005)
    assert Price(1.0, 2.0).of(1_000_000, 1_000_000) == pytest.approx(3.0)
