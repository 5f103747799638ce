"""The hard limits of a loop, as pure arithmetic: nothing may start that could end beyond them.

Everything is admitted before it is spent: what is spent, plus what is reserved for effects under way, plus what is
asked must fit. An unknown price never fits under a money bound; the door of a model that a person declared free says 0.

Not covered: a provider that bills more than it was asked for; that shows as spent beyond the bound, and then nothing
more is admitted. Who keeps the sums, and under which lock, is the books' affair.
"""

from __future__ import annotations

from dataclasses import dataclass

from bellglass.errors import BoundReached
from bellglass.records import Cost

LABEL = {
    "train_seconds": ("training time", " s", "--train-seconds"),
    "wall_seconds": ("wall time", " s", "--wall-seconds"),
    "calls": ("model calls", "", "--calls"),
    "tokens": ("model tokens", "", "--tokens"),
    "usd": ("money", " USD", "--budget-usd"),
}


@dataclass(frozen=True, slots=True)
class Bounds:
    """None is no bound of that kind. Generations and trials are counted where they are made: by loop and propose."""

    train_seconds: float | None = None
    wall_seconds: float | None = None
    calls: int | None = None
    tokens: int | None = None
    usd: float | None = None


@dataclass(frozen=True, slots=True)
class Left:
    """What may still be asked for; None is no bound of that kind."""

    train_seconds: float | None
    calls: int | None
    tokens: int | None
    usd: float | None


def admit(bounds: Bounds, spent: Cost, reserved: Cost, ask: Cost) -> None:
    """Raises BoundReached when `ask` could end beyond a bound."""
    if ask.train_seconds < 0 or ask.calls < 0 or _tokens(ask) < 0 or (ask.usd is not None and ask.usd < 0):
        raise ValueError(f"a negative ask would make room for others: {ask}")
    _fit("train_seconds", bounds.train_seconds, spent.train_seconds, reserved.train_seconds, ask.train_seconds)
    _fit("calls", bounds.calls, spent.calls, reserved.calls, ask.calls)
    _fit("tokens", bounds.tokens, _tokens(spent), _tokens(reserved), _tokens(ask))
    if bounds.usd is not None:
        _fit_money(bounds.usd, spent.usd, reserved.usd, ask.usd)


def admit_wall(bounds: Bounds, passed: float) -> None:
    """The same for wall time, which passes without being asked for."""
    _fit("wall_seconds", bounds.wall_seconds, passed, 0, 0)


def left(bounds: Bounds, spent: Cost, reserved: Cost) -> Left:
    usd: float | None = None
    if bounds.usd is not None:
        known = spent.usd is not None and reserved.usd is not None
        usd = max(0.0, bounds.usd - ((spent.usd or 0.0) + (reserved.usd or 0.0))) if known else 0.0
    calls, tokens = spent.calls + reserved.calls, _tokens(spent) + _tokens(reserved)
    seconds = spent.train_seconds + reserved.train_seconds
    return Left(
        train_seconds=None if bounds.train_seconds is None else max(0.0, bounds.train_seconds - seconds),
        calls=None if bounds.calls is None else max(0, bounds.calls - calls),
        tokens=None if bounds.tokens is None else max(0, bounds.tokens - tokens),
        usd=usd,
    )


def less(start: Left, used: Cost) -> Left:
    """What of `start` is left after `used`, whatever else was spent meanwhile."""
    usd = None if start.usd is None else 0.0 if used.usd is None else max(0.0, start.usd - used.usd)
    return Left(
        train_seconds=None if start.train_seconds is None else max(0.0, start.train_seconds - used.train_seconds),
        calls=None if start.calls is None else max(0, start.calls - used.calls),
        tokens=None if start.tokens is None else max(0, start.tokens - _tokens(used)),
        usd=usd,
    )


def _tokens(cost: Cost) -> int:
    return cost.tokens_in + cost.tokens_out


def _fit(what: str, bound: float | None, spent: float, reserved: float, ask: float) -> None:
    # Asked this way round because every comparison with NaN is false: a NaN is refused, not admitted.
    if bound is None or spent + reserved + ask <= bound:
        return
    label, unit, flag = LABEL[what]
    under_way = f" and {_number(reserved)} reserved" if reserved else ""
    raise BoundReached(
        f"bound on {label}",
        f"{_number(spent)}{unit} used{under_way}, {_number(ask)} more asked",
        f"at most {_number(bound)}{unit}",
        f"bellglass resume with a higher {flag}",
    )


def _fit_money(bound: float, spent: float | None, reserved: float | None, ask: float | None) -> None:
    unknown = [name for name, usd in (("spent", spent), ("reserved", reserved), ("asked", ask)) if usd is None]
    if spent is None or reserved is None or ask is None:
        raise BoundReached(
            "bound on money",
            f"the price of what is {' and '.join(unknown)} is unknown",
            f"known prices under a bound of {_number(bound)} USD",
            "declare a local model free with free_models in the config, or drop --budget-usd",
        )
    _fit("usd", bound, spent, reserved, ask)


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}" if value < 1000 else f"{value:,.0f}"
