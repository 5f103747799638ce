"""The config: one file, one object, one clear error for each thing that is wrong with it."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from bellglass import tasks
from bellglass.bounds import Bounds
from bellglass.config import LoopConfig, load, restore
from bellglass.errors import UsageError
from bellglass.records import Json, Kind


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "loop.toml"
    path.write_text(text)
    return path


def test_nothing_said_gives_the_built_in_loop() -> None:
    config = load(None)
    assert config.models == {"main": "offline"}
    assert (config.task, config.generations, config.may_edit) == ("stories", 5, tuple(Kind))


def test_a_file_says_everything_and_the_command_line_more(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        """
task = "digits"
preset = "tiny"
model = "anthropic/one"
generations = 3
train_seconds = 90
alpha = 0.1
may_edit = ["architecture", "scaffold"]
budget_usd = 2.5
[models]
cheap = "openai/small"
""",
    )
    config = load(path, {"generations": 7, "model": "openai/two", "seed": None})
    assert config.models == {"cheap": "openai/small", "main": "openai/two"}
    assert config.may_edit == (Kind.ARCHITECTURE, Kind.SCAFFOLD)
    assert config.bounds == Bounds(train_seconds=90.0, wall_seconds=None, calls=None, tokens=None, usd=2.5)


def test_a_hosted_model_is_reviewed_unless_the_person_says_otherwise() -> None:
    assert load(None, {"model": "anthropic/one"}).review == "every"
    assert load(None, {"model": "offline"}).review == "tripwire"
    assert load(None, {"models": {"main": "offline", "cheap": "ollama/x"}}).review == "every"
    assert load(None, {"model": "anthropic/one", "review": "never"}).review == "never"
    assert LoopConfig().review == "every"


def test_what_the_ledger_keeps_gives_the_same_config_back() -> None:
    config = load(None, {"model": "ollama/x", "free_models": ["ollama/x"], "seed": 3, "may_edit": ["data"]})
    recorded = config.model_dump(mode="json")
    assert restore(recorded) == config
    assert restore(recorded, {"generations": 9, "calls": None}).generations == 9
    with pytest.raises(UsageError, match="generations = 0"):
        restore(recorded, {"generations": 0})


def test_what_the_page_says_of_free_models_is_so() -> None:
    page = (Path(__file__).parent.parent / "docs" / "config.md").read_text("utf-8")
    line = next(line for line in page.splitlines() if "`free_models` repeats" in line)
    named = re.findall(r'`\["(\w+/[\w-]+)"\]`', line)
    assert named
    for name in named:
        assert load(None, {"model": name, "free_models": [name]}).free_models == (name,)
        with pytest.raises(UsageError):  # the provider alone is none of them
            load(None, {"model": name, "free_models": [name.partition("/")[0]]})


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        load(None).generations = 9  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "found", "needed"),
    [
        ("genrations = 3", "unknown key 'genrations'", "'generations'"),
        ("budget = 3", "unknown key 'budget'", "'budget_usd'"),
        ("zzz = 3", "unknown key 'zzz'", "one of model, task"),
        ("zzz = 3\npairs = 0", "unknown key 'zzz' (and 1 more)", "one of"),
        ("max_pairs = '3'", "max_pairs = '3'", "integer"),
        ("max_pairs = true", "max_pairs = True", "integer"),
        ("max_pairs = 2", "max_pairs = 2", "3"),
        ("generations = 2.0", "generations = 2.0", "integer"),
        ("preset = 'big'", "preset = 'big'", "'tiny', 'cpu' or 'gpu'"),
        ("alpha = nan", "alpha = nan", "0.5"),
        ("alpha = 1e-16", "alpha = 1e-16", "0.000001"),
        ("alpha = 0.5", "alpha = 0.5", "less than 0.5"),
        ("generations = 100001", "generations = 100001", "equal to 100000"),
        ("tokens = 1000000000001", "tokens = 1000000000001", "equal to 1000000000000"),
        ("train_seconds = inf", "train_seconds = inf", "finite"),
        ("train_seconds = 1979-05-27", "train_seconds = '1979-05-27'", "number"),
        ("budget_usd = 0", "budget_usd = 0", "greater than 0"),
        ("may_edit = ['weights']", "may_edit.0 = 'weights'", "'objective'"),
        ("may_edit = []", "may_edit = []", "at least one"),
        ("may_edit = ['data', 'data']", "may_edit = ['data', 'data']", "none twice"),
        ("device = 'gpu'", "device = 'gpu'", "cpu, cuda"),
        ("review = 'always'", "review = 'always'", "'every'"),
        ("scaffold_rule = 'assay'", "scaffold_rule = 'assay'", "'ride'"),
        ("virtual_clock = 1", "virtual_clock = 1", "boolean"),
        ("seed = -1", "seed = -1", "0"),
        ("model = 3", "models.main = 3", "string"),
        ("models = 3", "models = 3", "object"),
        ("[models]\ncheap = 'x'", "models names no main", ""),
        ("model = 'a'\n[models]\nmain = 'b'", "both model and models.main", "one of them"),
        ("free_models = ['ollama/x']", "free_models names 'ollama/x'", ""),
        ("task = ", "Invalid value", "valid TOML"),
    ],
)
def test_each_mistake_in_a_file_is_one_clear_error(tmp_path: Path, text: str, found: str, needed: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(UsageError) as caught:
        load(path)
    assert str(path) in caught.value.thing
    assert found in caught.value.found
    assert needed in caught.value.needed
    assert caught.value.next_command
    assert "\n" not in str(caught.value)


NUMBERS = [key for key, field in LoopConfig.model_fields.items() if re.search("int|float", str(field.annotation))]


@pytest.mark.parametrize("key", NUMBERS)
@pytest.mark.parametrize("sign", ["", "-"])
def test_a_number_beyond_all_bounds_is_one_short_error(tmp_path: Path, key: str, sign: str) -> None:
    path = written(tmp_path, f"{key} = {sign}1{'0' * 400}")
    with pytest.raises(UsageError, match=rf"found: {key} = .{{3,80}}; needed: ."):
        load(path)


def test_a_file_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    for path, found in ((tmp_path / "missing.toml", "no such file"), (tmp_path, "directory")):
        with pytest.raises(UsageError, match=found):
            load(path)
    (tmp_path / "bytes.toml").write_bytes(b"task = '\xff'")
    with pytest.raises(UsageError, match="TOML"):
        load(tmp_path / "bytes.toml")


KEYS = st.sampled_from(["model", "zzz", *LoopConfig.model_fields])
VALUES: st.SearchStrategy[Json] = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)


@settings(max_examples=200)
@given(st.dictionaries(KEYS, VALUES | st.lists(VALUES, max_size=2) | st.dictionaries(st.text(), VALUES, max_size=2)))
def test_any_rubbish_is_a_config_or_a_usage_error(said: dict[str, Json]) -> None:
    with contextlib.suppress(UsageError):
        assert isinstance(load(None, said), LoopConfig)


def test_a_virtual_clock_counts_the_preset_in_steps() -> None:
    task = tasks.load("stories")
    preset = task.presets["tiny"]
    assert load(None, {"preset": "tiny"}).preset_of(task) == preset
    virtual = load(None, {"preset": "tiny", "virtual_clock": True}).preset_of(task)
    assert (virtual.budget.kind, virtual.budget.amount) == ("steps", preset.steps)
    assert virtual.budget.wall_seconds == preset.budget.wall_seconds


def test_gpu_seconds_need_a_gpu() -> None:
    task = tasks.load("stories")
    with pytest.raises(UsageError, match="device is cpu"):
        load(None, {"preset": "gpu"}).preset_of(task)
    assert load(None, {"preset": "gpu", "device": "cuda"}).preset_of(task).budget.kind == "gpu_seconds"


def test_a_gpus_time_is_not_counted_in_cpu_seconds() -> None:
    task = tasks.load("stories")
    with pytest.raises(UsageError, match="device is cuda:1"):
        load(None, {"preset": "cpu", "device": "cuda:1"}).preset_of(task)
    assert load(None, {"device": "cuda", "virtual_clock": True}).preset_of(task).budget.kind == "steps"
