"""tasks.py: files are checked, keys are derived, orders come from seeds."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bellglass import data_file, tasks
from bellglass.errors import BellglassError, SetupError, UsageError
from bellglass.paths import CONTENT, content_root, install_command
from bellglass.records import Budget

SECRET = bytes(range(32))


def changed(folder: Path, before: str, after: str) -> Path:
    """A copy of the stories task with one change in its task.toml."""
    copy = folder / "stories"
    shutil.copytree(content_root() / "tasks" / "stories", copy)
    text = (copy / "task.toml").read_text()
    assert text.count(before) >= 1
    (copy / "task.toml").write_text(text.replace(before, after, 1))
    return copy


def test_every_shipped_task_loads_with_all_presets() -> None:
    assert set(tasks.names()) == {"digits", "source", "stories", "sums", "tinystories"}
    for name in tasks.names():
        task = tasks.load(name)
        assert set(task.presets) == set(tasks.PRESETS)
        assert len(task.brief()) > 200
    tiny = tasks.load("stories").presets["tiny"]
    assert tiny.budget == Budget("cpu_seconds", 3.0, tiny.budget.wall_seconds)


def test_an_unknown_task_names_those_that_exist() -> None:
    with pytest.raises(UsageError, match=r"digits, .*stories, .*or ./FOLDER; next: bellglass tasks"):
        tasks.load("storys")


def test_a_path_without_a_task_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nothing/task\.toml; found: No such file"):
        tasks.load(str(tmp_path / "nothing"))
    with pytest.raises(UsageError, match="a name that a task can't have"):
        tasks.load(str(tmp_path / "a b"))


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ('title = "', "title = ", "broken TOML"),
        ("vocab = 60", 'vocab = "60"', "vocab; found: '60'; needed: a whole number"),
        ("context = 256", "context = true", "context; found: True"),
        ("vocab = 60", "vocab = 1", "needed: 2 to"),
        ("vocab = 60\n", "", "vocab; found: nothing"),
        ('floor = "exact"', 'floor = "about"', "one of exact, unknown"),
        ("separable = false", 'separable = "no"', "true or false"),
        ("vocab = 60", "vocab = 60\nvocabulary = 60", "vocabulary; found: an unknown key"),
        ("skills = [", "skills = [7, ", "a list of at least one string"),
        ("amount = 3.0", "amount = -3.0", "a positive number"),
        ("amount = 3.0", "amount = inf", "a positive number"),
        ("amount = 3.0", "amount = 3.0, colour = 1", "colour; found: an unknown key"),
        ('kind = "cpu_seconds"', 'kind = "hours"', "one of cpu_seconds, gpu_seconds, steps"),
        ("[presets.gpu]", "[presets.gpus]", "gpu; found: nothing"),
        ("train_docs = ", "train_docs = 0.5 # ", "train_docs; found: 0.5"),
    ],
)
def test_a_broken_task_file_is_one_clear_error(tmp_path: Path, before: str, after: str, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        tasks.read(changed(tmp_path, before, after))
    assert says in str(caught.value)
    assert "task.toml" in str(caught.value)
    assert "next: bellglass tasks" in str(caught.value)


def test_a_missing_task_file_or_brief_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        tasks.read(tmp_path)
    copy = changed(tmp_path, "vocab", "vocab")
    (copy / "brief.md").unlink()
    with pytest.raises(UsageError, match=r"brief\.md"):
        tasks.read(copy).brief()


def test_documents_derive_from_secret_split_and_salt() -> None:
    task = tasks.load("stories")

    def made(split: tasks.Split, secret: bytes = SECRET, salt: str = "") -> bytes:
        return tasks.make(task, split, secret, 2, salt).tokens.tobytes()

    ours = made("confirm")
    assert ours == made("confirm")
    others = [made("select"), made("confirm", salt="gen-3"), made("confirm", secret=bytes(32))]
    assert len({ours, *others}) == 4


def test_splits_and_salts_share_one_lexicon() -> None:
    task = tasks.load("stories")
    module = data_file.load(task.folder)
    words = module.lexicon(tasks._derive(SECRET, "world"))
    for split, salt in (("train", ""), ("confirm", "gen-1")):
        text = module.decode(tasks.make(task, split, SECRET, 1, salt).tokens[0])
        assert text[1:].split(" ", 1)[0] in words.names


def test_the_train_order_comes_from_the_data_seed_and_leaves_a_tenth_out() -> None:
    docs = tasks.make(tasks.load("stories"), "train", SECRET, 100)
    one, again, two = (tasks.train_order(docs, seed) for seed in (1, 1, 2))
    assert len(one) == len(two) == 90
    assert np.array_equal(one.tokens, again.tokens)
    assert not np.array_equal(one.tokens, two.tokens)
    rows = {row.tobytes() for row in docs.tokens}
    assert len({row.tobytes() for row in one.tokens}) == 90
    assert {row.tobytes() for row in one.tokens} < rows


def test_the_arrays_of_a_document_stay_together_in_the_train_order() -> None:
    docs = tasks.make(tasks.load("stories"), "train", SECRET, 40)
    ours = tasks.train_order(docs, 5)
    rows = {row.tobytes(): index for index, row in enumerate(docs.tokens)}
    for index, row in enumerate(ours.tokens):
        origin = rows[row.tobytes()]
        assert np.array_equal(ours.floor_bits[index], docs.floor_bits[origin])
        assert np.array_equal(ours.skill[index], docs.skill[origin])
        assert np.array_equal(ours.target[index], docs.target[origin])


@pytest.mark.parametrize(
    "breaks",
    [
        lambda made: made | {"tokens": made["tokens"].astype(np.int32)},
        lambda made: made | {"tokens": made["tokens"][:, :-1]},
        lambda made: made | {"tokens": made["tokens"] + np.uint16(1)},
        lambda made: made | {"target": np.ones_like(made["target"])},
    ],
)
def test_documents_that_break_the_task_s_own_contract_are_refused(breaks: Callable[[dict], dict]) -> None:
    task = tasks.load("stories")
    made = data_file.load(task.folder).make("train", SECRET, 30, SECRET)
    tasks._check(task, tasks.Documents(**made), 30)
    with pytest.raises(BellglassError, match="documents of task 'stories'"):
        tasks._check(task, tasks.Documents(**breaks(made)), 30)


def test_meta_tells_a_trainer_which_tokens_are_judged() -> None:
    assert tasks.meta(tasks.load("stories")) == {"context": 256, "vocab": 60, "pad": 0, "targets": "all"}
    assert tasks.meta(tasks.load("digits"))["targets"] == "last"


def test_the_splits_of_digits_share_no_image() -> None:
    pytest.importorskip("sklearn", reason="scikit-learn is not installed (extra: digits)")
    task = tasks.load("digits")
    sizes: dict[tasks.Split, int] = {"train": 1100, "select": 200, "confirm": 150, "final": 247}
    made = {split: tasks.make(task, split, SECRET, docs) for split, docs in sizes.items()}
    images = [row.tobytes() for docs in made.values() for row in docs.tokens]
    assert len(set(images)) == len(images)  # holds for this data set at five grey levels
    for docs in made.values():
        assert docs.target.sum() == len(docs)
        assert docs.target[:, -1].all()
        assert docs.tokens.min() >= 1
        assert docs.tokens[:, -1].min() >= 6 > docs.tokens[:, :-1].max()


def test_digits_asked_for_more_than_there_are_says_how_many() -> None:
    pytest.importorskip("sklearn", reason="scikit-learn is not installed (extra: digits)")
    with pytest.raises(UsageError, match="250 documents for confirm; 251 were asked for"):
        tasks.make(tasks.load("digits"), "confirm", SECRET, 251)


def test_digits_without_scikit_learn_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    task = tasks.load("digits")
    data_file.load(task.folder)._images.cache_clear()
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(SetupError, match="scikit-learn") as refused:
        tasks.make(task, "select", SECRET, 1)
    assert refused.value.next_command == install_command("digits")


def test_loading_tasks_imports_neither_torch_nor_scikit_learn() -> None:
    code = (
        "import sys; from bellglass import tasks; t = tasks.load('stories'); tasks.make(t, 'train', bytes(32), 1); "
        "[tasks.load(n) for n in tasks.names()]; sys.exit(bool({'torch', 'sklearn'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=content_root(), check=False).returncode == 0


def test_figures_of_other_loops_are_no_part_of_what_a_loop_is_made_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A benchmark rewrites them: else a recheck warns for nothing, and an interrupted calibration begins anew."""
    for part in CONTENT:
        (tmp_path / part).mkdir()
    shutil.copytree(content_root() / "tasks" / "stories", tmp_path / "tasks" / "stories")
    own = changed(tmp_path / "own", "vocab", "vocab")
    monkeypatch.setattr(tasks, "content_root", lambda: tmp_path)

    def differs(folder: Path, name: str) -> set[str]:
        before = tasks.contents(tasks.read(own))
        (folder / name).write_text("{}\n")
        after = tasks.contents(tasks.read(own))
        return {part for part in after if after[part] != before[part]}

    assert differs(tmp_path / "tasks" / "stories", "baselines.json") == set()
    assert differs(tmp_path / "tasks" / "stories", "brief.md") == {"tasks"}
    assert differs(tmp_path / "agent", "baselines.json") == {"agent"}
    assert differs(own, "baselines.json") == {tasks.OWN}, "loops made before must still be resumed"


def test_the_documents_of_shipped_tasks_are_hashed_as_ever() -> None:
    """benchmarks/ keeps trainings of days by these hashes: another way to hash the same documents would lose them."""
    for name in ("digits", "source", "stories", "sums"):
        task = tasks.load(name)
        for preset in task.presets.values():
            counts = f"(({preset.train_docs}, {preset.select_docs}), [])".encode()
            made_from = (task.folder / "data.py").read_bytes() + counts
            assert tasks.documents_hash(task, preset) == hashlib.sha256(made_from).hexdigest()


@pytest.mark.parametrize("name", ["stories", "source", "sums"])
def test_what_a_guest_may_leave_behind_is_worth_less_than_a_hundredth_of_a_bit_a_target(name: str) -> None:
    task = tasks.load(name)
    for preset in task.presets.values():
        targets = int(tasks.make(task, "confirm", bytes(32), preset.confirm_docs).target.sum())
        assert 32 / targets < 0.01
