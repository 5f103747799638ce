"""What a person chose for a loop: one TOML file, one frozen object.

The words of the file are the fields of `LoopConfig`; `model = "…"` is short for `main` in the table `[models]`. What
is wrong with a file is said in one UsageError that names the file, the key, what stands there and what may.

The only file that imports pydantic. That takes a tenth of a second, so commands that only read import this one late.
"""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator, model_validator

from bellglass.bounds import Bounds
from bellglass.errors import UsageError
from bellglass.records import Json, Kind
from bellglass.tasks import Preset, Task, full_name

Count: TypeAlias = Annotated[int, Field(ge=1, le=10**12)]
Device: TypeAlias = Annotated[str, Field(pattern=r"^(cpu|cuda(:[0-9]+)?)$", description="cpu, cuda or cuda:1")]
Amount: TypeAlias = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Name: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,30}$")]
Provider: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[!-~]{1,200}$")]

HELP = "bellglass run --help"
MOST_SHOWN = 60  # characters of a wrong value


class LoopConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str = "stories"  # `bellglass tasks` lists them; or the path of a folder of your own
    preset: Literal["tiny", "cpu", "gpu"] = "cpu"  # how much data, and how long a training
    models: dict[Name, Provider] = Field(default_factory=lambda: {"main": "offline"})  # what a scaffold may ask for
    free_models: tuple[Provider, ...] = ()  # those of `models` that cost nothing: you serve them

    generations: Annotated[int, Field(ge=1, le=100_000)] = 5  # a bound; `resume` can raise bounds
    trials_per_generation: Count = 12  # of an improver, in full trainings
    train_seconds: Amount | None = None  # a bound: of all trainings together
    wall_seconds: Amount | None = None  # a bound: while the loop runs
    calls: Count | None = None  # a bound: of models
    tokens: Count | None = None  # a bound: in and out
    budget_usd: Amount | None = None  # a bound: a call that could go over it is not made

    panel: Annotated[int, Field(ge=2, le=50)] = 4  # seeds to calibrate on, for a new champion, and for `final`
    max_pairs: Annotated[int, Field(ge=3, le=50)] = 8  # the gate stops earlier when it can
    alpha: Annotated[float, Field(ge=1e-6, lt=0.5)] = 0.05  # chance of any false adoption in the loop; 1e-6 or more
    may_edit: tuple[Kind, ...] = tuple(Kind)  # kinds of files; the host refuses the rest
    scaffold_rule: Literal["ride", "neutral"] = "ride"  # inherited with a better trainer; neutral: or an equal one
    review: Literal["every", "tripwire", "never"] = "every"  # when a person decides; `every` where a model is hosted

    glass: Literal["auto", "docker", "process"] = "auto"  # auto: docker where it and the images are there
    runtime: Name | None = None  # Docker's, for example runsc
    device: Device = "cpu"  # where trainers train
    virtual_clock: bool = False  # budgets in steps: the same on every machine
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None  # None: fresh data nobody has seen

    @field_validator("task")
    @classmethod
    def _found_from_anywhere(cls, task: str) -> str:
        return full_name(task)

    @field_validator("may_edit")
    @classmethod
    def _some_kind_once(cls, kinds: tuple[Kind, ...]) -> tuple[Kind, ...]:
        if not kinds or len(set(kinds)) != len(kinds):
            raise ValueError("at least one kind, none twice")
        return kinds

    @model_validator(mode="after")
    def _models_fit(self) -> LoopConfig:
        if "main" not in self.models:
            raise ValueError("models names no main")
        strangers = [name for name in self.free_models if name not in self.models.values()]
        if strangers:
            raise ValueError(f"free_models names {strangers[0]!r}, which is no model of this loop")
        return self

    @property
    def bounds(self) -> Bounds:
        return Bounds(
            train_seconds=self.train_seconds,
            wall_seconds=self.wall_seconds,
            calls=self.calls,
            tokens=self.tokens,
            usd=self.budget_usd,
        )

    def preset_of(self, task: Task) -> Preset:
        """The preset with the budget that a trial of this loop has."""
        preset = task.presets[self.preset]
        if self.virtual_clock:
            return replace(preset, budget=replace(preset.budget, kind="steps", amount=float(preset.steps)))
        if preset.budget.kind == "gpu_seconds" and self.device == "cpu":
            found = f"{preset.name!r} of {task.name} counts GPU seconds, and the device is cpu"
            raise UsageError(
                "preset",
                found,
                'device = "cuda", or another preset',
                "the same with --device cuda",
                code="preset_device_mismatch",
            )
        if preset.budget.kind == "cpu_seconds" and self.device != "cpu":
            found = f"{preset.name!r} of {task.name} counts CPU seconds, and the device is {self.device}"
            raise UsageError(
                "preset",
                found,
                "one that counts GPU seconds",
                "the same with --preset gpu",
                code="preset_device_mismatch",
            )
        return preset


def load(file: Path | None, overrides: Mapping[str, Json] | None = None) -> LoopConfig:
    """The config of a file with the options of the command line over it; None there means not given."""
    from_file = _read(file) if file is not None else {}
    if "model" in from_file and "main" in (from_file.get("models") or {}):
        raise UsageError(f"config {file}", "both model and models.main", "one of them", HELP, code="config_invalid")
    over = {key: value for key, value in (overrides or {}).items() if value is not None}
    return _checked(_complete({**from_file, **over}), f"config {file}" if file is not None else "the options")


def restore(recorded: Mapping[str, Json], overrides: Mapping[str, Json] | None = None) -> LoopConfig:
    """The config that a ledger holds, with what `resume` was told over it."""
    over = {key: value for key, value in (overrides or {}).items() if value is not None}
    return _checked({**recorded, **over}, "the options" if over else "the config in the ledger")


def is_hosted(provider: str) -> bool:
    """Built-in improvers have plain names; whatever another party serves has a slash."""
    return "/" in provider


def wants_hosted(config: LoopConfig) -> bool:
    return any(is_hosted(provider) for provider in config.models.values())


def _read(file: Path) -> dict[str, Json]:
    try:
        return tomllib.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        raise UsageError(f"config {file}", "no such file", "a TOML file", HELP, code="config_unreadable") from None
    except OSError as error:
        raise UsageError(
            f"config {file}", str(error.strerror), "a readable TOML file", HELP, code="config_unreadable"
        ) from None
    except ValueError as error:  # TOML's and UTF-8's both
        raise UsageError(f"config {file}", str(error), "valid TOML", HELP, code="config_invalid") from None


def _complete(given: dict[str, Json]) -> dict[str, Json]:
    """Write out the short form, and the default that depends on who improves."""
    if "model" in given and isinstance(given.get("models", {}), dict):
        given = {**given, "models": {**given.get("models", {}), "main": given["model"]}}
        del given["model"]
    models = given.get("models", {})
    hosted = isinstance(models, dict) and any(is_hosted(str(provider)) for provider in models.values())
    return {"review": "every" if hosted else "tripwire", **given}


def _checked(data: Mapping[str, Json], thing: str) -> LoopConfig:
    try:
        # By way of JSON, because only there strict types still take a list for a tuple and a word for an enum.
        return LoopConfig.model_validate_json(json.dumps(data, default=str), strict=True)
    except ValidationError as error:
        raise _usage(error, thing) from None


def _usage(error: ValidationError, thing: str) -> UsageError:
    problems = error.errors(include_url=False)
    first = min(problems, key=lambda problem: problem["type"] != "extra_forbidden")
    key = ".".join(str(part) for part in first["loc"] if part != "[key]")
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    if first["type"] == "extra_forbidden":
        known = ["model", *LoopConfig.model_fields]
        near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
        needed = f"perhaps {near[0]!r}" if near else f"one of {', '.join(known)}"
        return UsageError(thing, f"unknown key {key!r}{more}", needed, HELP, code="config_invalid")
    says = first["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    if not key:
        return UsageError(thing, f"{says}{more}", "words that fit together", HELP, code="config_invalid")
    field = LoopConfig.model_fields[str(first["loc"][0])]
    value = repr(first["input"])
    value = value if len(value) <= MOST_SHOWN else f"{value[:MOST_SHOWN]}…"
    return UsageError(thing, f"{key} = {value}{more}", field.description or says, HELP, code="config_invalid")
