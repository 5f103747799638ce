"""What a loop is about to use, said before its first paid call: time, money, calls, a person's decisions.

Pure arithmetic over the config's numbers. Money is a range: the expected number of calls at the expected size, and the
most that the bounds let through. An unknown price stays unknown.

Not covered: prices that change, discounts for cached prompts, and how many calls an improver really makes: the bounds
hold those, not this page.
"""

from __future__ import annotations

from dataclasses import dataclass

LONG_PROMPT = 128_000  # tokens; some providers charge more per token beyond about this size


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars per million tokens. `long_*` holds for prompts over LONG_PROMPT where a provider has such a step."""

    usd_in: float
    usd_out: float
    usd_cached_in: float | None = None
    usd_long_in: float | None = None
    usd_long_out: float | None = None

    def of(self, tokens_in: int, tokens_out: int, cached_in: int = 0) -> float:
        is_long = tokens_in > LONG_PROMPT
        rate_in = self.usd_long_in if is_long and self.usd_long_in is not None else self.usd_in
        rate_out = self.usd_long_out if is_long and self.usd_long_out is not None else self.usd_out
        rate_cached = rate_in if self.usd_cached_in is None or is_long else self.usd_cached_in
        return ((tokens_in - cached_in) * rate_in + cached_in * rate_cached + tokens_out * rate_out) / 1e6


@dataclass(frozen=True, slots=True)
class Plan:
    """The numbers of a loop that cost something. Trials are counted in trainings of one budget each."""

    generations: int
    trials_per_session: int  # explored by the improver
    gate_trainings: int  # per generation, parent and child together
    final_trainings: int
    seconds_per_training: float  # the budget's amount; for `steps`, an estimate
    side_by_side: int
    calls_per_session: int  # expected
    tokens_in_per_call: int
    tokens_out_per_call: int
    review_every: bool  # a person decides after each successor
    max_calls: int | None = None  # the loop's bounds
    max_tokens: int | None = None
    max_usd: float | None = None


@dataclass(frozen=True, slots=True)
class Forecast:
    trainings: int
    train_seconds: float
    wall_seconds: float  # training alone, side by side; a model's thinking comes on top
    calls: int
    tokens_in: int
    tokens_out: int
    usd: float | None  # None: unknown price
    max_usd: float | None  # the bound, None: none
    decisions: int
    generations: int
    sessions_paid: int  # by the bounds on calls, tokens and money

    def lines(self) -> list[str]:
        """For a terminal."""
        money = "unknown price" if self.usd is None else f"about ${self.usd:.2f}"
        bound = "no money bound" if self.max_usd is None else f"never over ${self.max_usd:.2f}"
        if self.usd is None and self.max_usd is not None:
            bound = f"the bound of ${self.max_usd:.2f} cannot be held without a price: no call will be made"
        wall = duration(self.wall_seconds)
        few = self.sessions_paid < self.generations
        paid = f": enough for about {self.sessions_paid} of {self.generations} generations" if few else ""
        lasts = f"{self.train_seconds:.0f} s in all: up to {wall} on idle cores"
        return [
            f"trainings  at most {self.trainings} of full length, {lasts}",
            f"calls      about {self.calls}, {self.tokens_in:,} tokens in, {self.tokens_out:,} out{paid}",
            f"money      {money}; {bound}",
            f"decisions  at most {self.decisions} by a person"
            if self.decisions
            else "decisions  none asked of a person",
        ]


def forecast(plan: Plan, price: Price | None) -> Forecast:
    """`price` None means unknown. A free local model has Price(0, 0)."""
    trainings = plan.final_trainings + plan.generations * (plan.trials_per_session + plan.gate_trainings)
    train_seconds = trainings * plan.seconds_per_training
    calls = _at_most(plan.generations * plan.calls_per_session, plan.max_calls)
    per_call = plan.tokens_in_per_call + plan.tokens_out_per_call
    if plan.max_tokens is not None and per_call:
        calls = min(calls, plan.max_tokens // per_call)
    usd = None
    if price is not None:
        usd = calls * price.of(plan.tokens_in_per_call, plan.tokens_out_per_call)
        if plan.max_usd is not None and usd > plan.max_usd:
            calls, usd = int(calls * plan.max_usd / usd), plan.max_usd
    return Forecast(
        trainings=trainings,
        train_seconds=train_seconds,
        wall_seconds=train_seconds / max(1, plan.side_by_side),
        calls=calls,
        tokens_in=calls * plan.tokens_in_per_call,
        tokens_out=calls * plan.tokens_out_per_call,
        usd=usd,
        max_usd=plan.max_usd,
        decisions=plan.generations if plan.review_every else 0,
        generations=plan.generations,
        sessions_paid=calls // plan.calls_per_session if plan.calls_per_session else plan.generations,
    )


def _at_most(value: int, bound: int | None) -> int:
    return value if bound is None else min(value, bound)


def duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
