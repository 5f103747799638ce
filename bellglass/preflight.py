"""What is said, and asked, before the first paid call: the forecast, and whether the model is fit for tools.

Not covered: what the model will do then.
"""

from __future__ import annotations

from collections.abc import Mapping

from bellglass import tasks
from bellglass.config import LoopConfig
from bellglass.contradictions import refuse_contradictions
from bellglass.errors import SetupError
from bellglass.forecast import Plan, Price, forecast
from bellglass.ports import Model
from bellglass.probe import BookedModel, probe
from bellglass.store.books import Books
from bellglass.wiring import open_model, require_server, side_by_side

EXPECTED_CALLS, EXPECTED_TOKENS_IN, EXPECTED_TOKENS_OUT = 40, 12_000, 600  # of one session


def forecast_lines(config: LoopConfig) -> list[str]:
    """What the loop is about to use; money only where a model costs some."""
    task = tasks.load(config.task)
    refuse_contradictions(config, task)
    preset = config.preset_of(task)
    model = open_model(config.models["main"], config)
    plan = Plan(
        generations=config.generations,
        trials_per_session=config.trials_per_generation,
        gate_trainings=2 * config.max_pairs + config.panel,
        final_trainings=3 * config.panel,  # the calibration's among them
        seconds_per_training=preset.budget.amount,
        side_by_side=side_by_side(config),
        calls_per_session=EXPECTED_CALLS,
        tokens_in_per_call=EXPECTED_TOKENS_IN,
        tokens_out_per_call=EXPECTED_TOKENS_OUT,
        review_every=config.review == "every",
        max_calls=config.calls,
        max_tokens=config.tokens,
        max_usd=config.budget_usd,
    )
    lines = forecast(plan, getattr(model, "price", Price(0.0, 0.0))).lines()
    return lines if model.hosted else [line for line in lines if line.startswith("trainings")]


def probe_lines(models: Mapping[str, Model], books: Books) -> list[str]:
    """Ask each hosted model once whether it sees a whole prompt and calls tools. Raises when it does not.

    Nothing is spent outside the books: the probe's calls are reserved under the loop's bounds like any other.
    """
    lines = []
    for provider, model in {model.name: model for model in models.values() if model.hosted}.items():
        require_server(model)
        report = probe(BookedModel(model, books, first=len(books.state.calls)))
        if not report.ok:
            raise SetupError(
                f"model {provider}",
                "; ".join(report.advice),
                "a whole prompt and tool calls",
                "bellglass resume",
                code="model_unfit",
            )
        lines.append(f"probe      {provider} sees a long prompt whole and calls tools")
    return lines
