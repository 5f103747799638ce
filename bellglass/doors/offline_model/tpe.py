"""What `tpe` draws with: Optuna's tree-structured Parzen estimator. The only importer of optuna: late, and silenced.

The study lives in memory. Its seed and everything it is told come from the conversation, so that the same conversation
draws the same configurations; nothing is written and nothing is kept between calls.

Not covered: another release of optuna may draw otherwise from the same seed. The lock pins one.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from bellglass.errors import SetupError
from bellglass.paths import install_command

RANDOM_DRAWS = 2  # before it learns; optuna's own default, ten, is all that most sessions have
NONE = "none of them"  # no edit has a name with spaces


@functools.cache
def load() -> Any:
    """The module, quiet. SetupError where it is missing."""
    try:
        import optuna
    except ImportError as error:
        needed = "optuna (the extra `tpe`)"
        raise SetupError(
            "the improver tpe", str(error), needed, install_command("tpe"), code="library_missing"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # it tells every trial otherwise
    return optuna


class Sampler:
    """Implements samplers.Sampler."""

    def __init__(self, space: Mapping[str, Sequence[str]], seed: int) -> None:
        self._optuna = load()
        estimator = self._optuna.samplers.TPESampler(seed=seed, n_startup_trials=RANDOM_DRAWS)
        self._study = self._optuna.create_study(sampler=estimator)
        categorical = self._optuna.distributions.CategoricalDistribution
        self._space = {name: categorical([NONE, *edits]) for name, edits in space.items()}
        self._open: Any = None

    def draw(self) -> dict[str, str]:
        self._open = self._study.ask(self._space)
        return {name: str(value) for name, value in self._open.params.items()}

    def tell(self, score: float | None) -> None:
        """How the last draw scored. One that failed counts as worse than every score."""
        if score is None:
            self._study.tell(self._open, state=self._optuna.trial.TrialState.PRUNED)
        else:
            self._study.tell(self._open, score)
