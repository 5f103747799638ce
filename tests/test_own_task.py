"""A task in a folder of one's own: the example of docs/tasks.md, and what its author may get wrong."""

from __future__ import annotations

import os
import py_compile
import re
import shutil
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
import small_world
from source_tree import ROOT
from typer.testing import CliRunner

from bellglass import data_file, tasks, wiring
from bellglass.cli import app
from bellglass.config import load
from bellglass.errors import BellglassError, LoopFault, SetupError, UsageError
from bellglass.loop import run_loop
from bellglass.show import report, showing
from bellglass.steps.generation import Crew
from bellglass.steps.judge import check_documents

SECRET = bytes(range(32))


UNKEYED = "target[:, 1:] = np.random.random((docs, 12)) < 0.5\n    target[:, 0] = False"
ENOUGH = "if split == {split!r} and docs > {there}: raise ValueError('{there} words')\n    raw = "


@pytest.fixture
def echo(tmp_path: Path) -> Path:
    """The example of docs/tasks.md, typed as the page says."""
    page = (ROOT / "docs" / "tasks.md").read_text()
    files = re.findall(r"(?ms)^`echo/([\w.]+)`.*?^```\w+\n(.*?)^```", page)
    assert [name for name, _ in files] == ["task.toml", "data.py", "brief.md"]
    assert sum(text.count("\n") for _, text in files) <= 60
    folder = tmp_path / "echo"
    folder.mkdir()
    for name, text in files:
        (folder / name).write_text(text)
    return folder


def edit(file: Path, before: str, after: str) -> None:
    text = file.read_text()
    assert before in text
    file.write_text(text.replace(before, after, 1))


def test_the_example_of_the_guide_is_a_task(echo: Path) -> None:
    task = tasks.load(str(echo))
    assert task.brief().startswith("# echo")
    made = {split: tasks.make(task, split, SECRET, 64, "g1") for split in tasks.SPLITS}
    for docs in made.values():
        check_documents(task, docs, True)
        assert np.array_equal(docs.tokens[:, :6], docs.tokens[:, :6:-1])
        assert set(docs.skill[:, 7:].ravel()) == {1}
    assert len({row.tobytes() for docs in made.values() for row in docs.tokens}) > 250
    assert all(len(line) <= 120 for line in (echo / "data.py").read_text().splitlines())


def test_a_library_that_is_missing_is_named_as_the_import_has_it(echo: Path) -> None:
    edit(echo / "data.py", "import numpy as np", "import numpy as np\nimport no_such_library")
    with pytest.raises(SetupError, match="install a no_such_library that has it"):
        tasks.make(tasks.load(str(echo)), "select", SECRET, 64)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("import helper", "No module named 'helper'.*next: move what is needed of helper.py into data.py"),
        ("from numpy import nothing_here", "cannot import name 'nothing_here'.*next: install a numpy that has it"),
        ("raise ImportError('no corpus', 'one', 'fetch it')", "found: no corpus; needed: one; next: fetch it"),
    ],
)
def test_an_import_that_fails_says_what_helps(echo: Path, line: str, says: str) -> None:
    (echo / "helper.py").write_text("")
    edit(echo / "data.py", "import numpy as np", f"import numpy as np\n{line}")
    with pytest.raises(SetupError, match=says):
        tasks.make(tasks.load(str(echo)), "select", SECRET, 64)


def test_what_runs_is_the_source_that_the_folders_hash_covers(echo: Path, tmp_path: Path) -> None:
    """A folder that was received may bring a compiled data.py that says something else, or a link to one elsewhere."""
    file, honest = echo / "data.py", (echo / "data.py").read_text()
    edit(file, "SIGN = 8, 6, 9", "SIGN = 8, 6, 7")
    py_compile.compile(str(file), doraise=True)
    then = file.stat()
    file.write_text(honest)
    os.utime(file, ns=(then.st_atime_ns, then.st_mtime_ns))
    assert set(tasks.make(tasks.load(str(echo)), "select", SECRET, 8).tokens[:, 6]) == {9}
    linked = tmp_path / "linked"
    shutil.copytree(echo, linked)
    (linked / "data.py").unlink()
    (linked / "data.py").symlink_to(file)
    with pytest.raises(UsageError, match="no file"):
        tasks.make(tasks.load(str(linked)), "select", SECRET, 8)


def test_a_task_folder_is_listed_by_its_path(echo: Path) -> None:
    done = CliRunner().invoke(app, ["tasks", str(echo)], catch_exceptions=False)
    assert done.exit_code == 0
    assert "echo: say a word backwards" in done.output


def test_a_task_folder_is_found_from_anywhere(echo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(echo.parent)
    assert tasks.full_name("./echo") == tasks.full_name("../" + echo.parent.name + "/echo") == str(echo)
    assert tasks.full_name("stories") == "stories"
    assert load(None, {"task": "./echo"}).task == str(echo)


def test_a_loop_whose_task_folder_changed_is_refused(echo: Path) -> None:
    before = tasks.contents(tasks.load(str(echo)))
    assert tasks.reopen(str(echo), before).name == "echo"
    (echo / "data.py").write_text((echo / "data.py").read_text().replace("LENGTH, SIGN = 8", "LENGTH, SIGN = 7"))
    with pytest.raises(LoopFault, match=r"task 'echo'.*not what the loop began with"):
        tasks.reopen(str(echo), before)
    assert tasks.OWN not in tasks.contents(tasks.load("stories"))


@pytest.mark.parametrize(
    ("file", "before", "after"),
    [
        ("task.toml", "separable = false", "separable = true"),
        ("corpus.txt", "", "once"),
        ("data.py", "SIGN = 8", "SIGN = 7"),
    ],
)
def test_a_calibration_is_not_used_for_other_documents_than_its_own(
    echo: Path, file: str, before: str, after: str
) -> None:
    def documents() -> str:
        task = tasks.load(str(echo))
        return tasks.documents_hash(task, task.presets["tiny"])

    found = documents()
    assert documents() == found
    (echo / file).touch()
    edit(echo / file, before, after)
    assert documents() != found


def test_a_loop_on_a_task_folder_is_shown_in_its_unit_and_names_the_folder_to_run_it_again(
    echo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = small_world.create(tmp_path / "loops", task=str(echo), generations=1)
    monkeypatch.chdir(tmp_path / "loops")
    shown = showing.open_loop(folder)
    loop = shown.document()["loop"]
    assert (loop["title"], loop["unit"]) == ("say a word backwards", "bits per character")
    assert "bits per character" in CliRunner().invoke(app, ["status", str(folder)]).output
    assert any(line.startswith(f"bellglass run {echo} ") for line in report.reproduce(shown)["commands"])


@pytest.mark.slow
def test_a_whole_loop_runs_on_a_task_folder(echo: Path, tmp_path: Path) -> None:
    folder = small_world.create(tmp_path / "loops", task=str(echo), generations=1)
    assert folder.name.startswith("echo-")

    def opened() -> AbstractContextManager[Crew]:
        return small_world.opened(folder, small_world.Tuner())

    with opened() as crew:
        state = run_loop(crew)
    assert state.created["task"] == "echo"
    assert any(trial.verdict is not None for trial in state.trials.values())
    (echo / "brief.md").write_text("something else")
    with pytest.raises(LoopFault) as told, opened():
        pass
    assert told.value.code == "task_changed"


@pytest.mark.parametrize(
    ("file", "before", "after", "says"),
    [
        ("task.toml", "vocab = 10 ", "vocab = 9 ", "token 9; needed: tokens below the vocab of task.toml, 9"),
        ("task.toml", '"letter", "echo"', '"letter"', "skill 1; needed: an index into the 1 skills"),
        ("task.toml", "cpu = {", "gpus = {", r"\[presets\]: cpu; found: nothing;"),
        ("task.toml", "train_docs = 2000, ", "", "train_docs; found: nothing;"),
        ("task.toml", "vocab = 10 ", "vocabb = 10 ", "vocab; found: nothing, but 'vocabb'"),
        ("task.toml", "weights_mb = 16", "weight_mb = 16", "weights_mb; found: nothing, but 'weight_mb'"),
        ("task.toml", "[presets] ", '[downloads."../x"]\nurl = "https://example.org"\n[presets] ', "downloads"),
        ("task.toml", 'skills = ["letter", "echo"]', 'skills = ["a", "b"]\nconfirm_slices = 0', "confirm_slices"),
        ("data.py", "target[:, 0] = False", "target[:, 1] = False", "a target in column 0, with nothing before it"),
        ("data.py", "target = np.ones", "target = np.zeros", "select documents .*no target; needed: targets from"),
        ("data.py", "(key + split.encode())", "(split.encode())", "confirm.*the same ones under another key"),
        ("data.py", "(key + split.encode())", "(np.random.bytes(9))", "select.*others when made again"),
        ("data.py", "target[:, 0] = False", UNKEYED, "select.*others when made again"),
    ],
)
def test_a_task_folder_that_breaks_the_contract_is_one_clear_error_before_a_loop_is_made(
    echo: Path, tmp_path: Path, file: str, before: str, after: str, says: str
) -> None:
    edit(echo / file, before, after)
    with pytest.raises(UsageError, match=f"{says}.*; next: bellglass tasks /.*echo"):
        small_world.create(tmp_path / "loops", task=str(echo))
    assert not (tmp_path / "loops").exists() or not list((tmp_path / "loops").iterdir())


def test_one_set_of_documents_in_another_order_is_not_fresh(echo: Path, tmp_path: Path) -> None:
    shuffled = "word = word[np.argsort(np.frombuffer(hashlib.shake_256(key).digest(docs), 'u1'))]\n    tokens = "
    edit(echo / "data.py", "tokens = ", shuffled)
    small_world.create(tmp_path / "loops", task=str(echo))
    data_file.load.cache_clear()
    edit(echo / "data.py", "(key + split.encode())", "(split.encode())")
    with pytest.raises(UsageError, match=r"confirm.*the same ones under another key"):
        small_world.create(tmp_path / "loops", task=str(echo))


def test_a_task_without_a_brief_is_no_task(echo: Path) -> None:
    (echo / "brief.md").unlink()
    with pytest.raises(UsageError, match=r"needed: a readable brief\.md"):
        tasks.load(str(echo))


def test_a_folder_that_is_listed_is_tried_in_all_its_presets(echo: Path) -> None:
    done = CliRunner().invoke(app, ["tasks", str(echo)])
    assert (done.exit_code, "documents of all presets can be judged on" in done.stderr) == (0, True)


@pytest.mark.parametrize(("split", "there"), [("final", 1000), ("train", 39_999)])
def test_the_largest_preset_too(echo: Path, split: str, there: int) -> None:
    edit(echo / "data.py", "raw = ", ENOUGH.format(split=split, there=there))
    done = CliRunner().invoke(app, ["tasks", str(echo)])
    assert f"{split} documents of task 'echo'; found: {there} words; needed: another {split}_docs" in str(
        done.exception
    )


@pytest.mark.parametrize(
    ("file", "before", "after", "says"),
    [
        ("task.toml", "confirm_docs = 64", "confirm_docs = 3", "3 with a target, to prove; needed: at least 4"),
        ("task.toml", "final_docs = 128", "final_docs = 3", "3 with a target, to prove; needed: at least 4"),
        ("task.toml", "separable = false", "separable = true", "not one target per document"),
        ("data.py", "raw = ", ENOUGH.format(split="select", there=50), "50 words; needed: another select_docs"),
        ("data.py", "raw = ", ENOUGH.format(split="confirm", there=50), "50 words; needed: another confirm_docs"),
        ("data.py", "raw = ", ENOUGH.format(split="final", there=100), "100 words; needed: another final_docs"),
    ],
)
def test_documents_that_no_trial_could_be_judged_on_are_told_before_a_loop_is_made(
    echo: Path, tmp_path: Path, file: str, before: str, after: str, says: str
) -> None:
    edit(echo / file, before, after)
    with pytest.raises(BellglassError, match=says):
        small_world.create(tmp_path / "loops", task=str(echo))
    assert list((tmp_path / "loops").iterdir()) == []


def test_a_loop_s_own_secret_deals_the_documents_that_are_tried(echo: Path, tmp_path: Path) -> None:
    """Of a fixed text the world's key says how many windows a split has."""
    edit(echo / "data.py", "raw = ", "if world == SEEN: raise ValueError('this very world')\n    raw = ")
    world = tasks._derive(wiring.seeded_secret(7), "world")
    (echo / "data.py").write_text((echo / "data.py").read_text() + f"\n\nSEEN = {world!r}\n")
    with pytest.raises(UsageError, match="this very world"):
        small_world.create(tmp_path / "loops", task=str(echo))
    assert small_world.create(tmp_path / "loops", task=str(echo), seed=8).is_dir()


MAKE = "def make(split: str, key: bytes, docs: int, world: bytes)"


@pytest.mark.parametrize(
    ("before", "after", "line", "says"),
    [
        ("def make(", "def made(", 0, r"no make\(\)"),
        (MAKE, "def make(split, key)", 0, r"TypeError: make\(\) takes 2 positional arguments"),
        ("tokens = np.concatenate([", "tokens = np.concatenate((", 13, "SyntaxError: "),
        ("SIGN = 8, 6, 9", "SIGN = 8, 6", 7, "ValueError: not enough values to unpack"),
        ("word = np.frombuffer(raw", "word = np.frombuffer(rwa", 12, "NameError: name 'rwa' is not defined"),
        ("target[:, 0] = False", "target = target + np.ones(3)", 15, "ValueError: operands could not be broadcast"),
        ("target[:, 0] = False", "np.pad(target, -1)", 15, "ValueError: "),
        ("target[:, 0] = False", "open('corpus.txt').read()", 15, "FileNotFoundError: .*corpus.txt"),
        ("target[:, 0] = False", "b'\\xff'.decode()", 15, "UnicodeDecodeError: "),
        ('"skill": skill, ', "", 0, r"returned tokens, target, floor_bits; needed: a dict of tokens, target, skill"),
        ('"skill": skill', '"skills": skill', 0, "returned tokens, target, skills, floor_bits; needed: a dict of"),
        ("return {", "return None and {", 0, "returned NoneType; needed: a dict of tokens"),
        ('"skill": skill', '"skill": skill.tolist()', 0, "returned skill as list; needed: numpy arrays"),
        ("np.log2(LETTERS)", "np.log(-1.0 * word)", 0, "negative, infinite or no number"),
        ("np.log2(LETTERS)", "np.inf", 0, "negative, infinite or no number"),
        ("np.log2(LETTERS)", "-np.log2(LETTERS)", 0, "negative, infinite or no number"),
        ("np.log2(LETTERS)", "np.log2(LETTERS, dtype=bool)", 19, "TypeError: "),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value encountered in log:RuntimeWarning")
def test_a_mistake_in_data_py_is_one_clear_error_with_its_line(
    echo: Path, tmp_path: Path, before: str, after: str, line: int, says: str
) -> None:
    edit(echo / "data.py", before, after)
    with pytest.raises(UsageError, match=rf"{says}.*; next: bellglass tasks /.*echo") as told:
        small_world.create(tmp_path / "loops", task=str(echo))
    assert str(echo / "data.py") in told.value.thing
    assert re.findall(r", line (\d+)$", told.value.thing) == ([str(line)] if line else [])
    assert told.value.needed
    assert "_docs" not in told.value.needed
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ('floor = "exact"', 'floor = "unknown"', "floor_bits that are not 0, and an unknown floor"),
        ('targets = "all"', 'targets = "last"', "a target before a document's last token"),
    ],
)
def test_what_task_toml_denies_is_no_strange_score(
    echo: Path, tmp_path: Path, before: str, after: str, says: str
) -> None:
    edit(echo / "task.toml", before, after)
    with pytest.raises(UsageError, match=f"{says}; needed: .*; next: bellglass tasks /.*echo"):
        small_world.create(tmp_path / "loops", task=str(echo))


def test_the_last_token_stands_before_a_document_s_padding() -> None:
    tokens = np.array([[3, 1, 2], [3, 1, 0], [3, 0, 0], [3, 0, 2]], dtype=np.uint16)
    last = [[False, False, True], [False, True, False], [True, False, False], [False, False, True]]
    assert tasks._last(tokens).tolist() == last


def test_a_raise_of_one_s_own_tells_of_counts_wherever_in_data_py_it_stands(echo: Path, tmp_path: Path) -> None:
    several = """def _enough(docs):
    if docs > 60: raise ValueError(
        f"60 words; {docs} asked for"
    )


def make("""
    edit(echo / "data.py", "def make(", several)
    edit(echo / "data.py", "    target = ", "    _enough(docs)\n    target = ")
    with pytest.raises(UsageError, match=r"60 words; 64 asked for; needed: another select_docs in task\.toml"):
        small_world.create(tmp_path / "loops", task=str(echo))
