"""The tasks beside stories and digits: source, sums, tinystories."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import re
import runpy
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import small_world
from source_tree import ROOT
from typer.testing import CliRunner

from bellglass import data_file, tasks
from bellglass.cli import app
from bellglass.errors import LoopFault, SetupError, UsageError
from bellglass.records import Budget, Seeds, Trial
from bellglass.steps.judge import _verdict
from bellglass.tripwires import Watched, below_floor

SECRET = bytes(range(32))


@pytest.fixture(scope="module")
def source() -> tasks.Task:
    return tasks.load("source")


def module(task: tasks.Task) -> ModuleType:
    return data_file.load(task.folder)


def runs(task: tasks.Task, made: dict[str, np.ndarray]) -> np.ndarray:
    """A number for each run of 64 characters inside a document."""
    width = made["tokens"].shape[1]
    found: np.ndarray = module(task).hashes(made["tokens"].ravel())
    return found[np.arange(len(found)) % width <= width - 64]


# source


def test_the_pins_of_source_are_those_of_the_lock(source: tasks.Task) -> None:
    lock = (ROOT / "locks" / "base.txt").read_text()
    assert {name: version for name, (version, _, _) in module(source).FILES.items()} == {
        name: version for name, version in re.findall(r"(?m)^([\w-]+)==(\S+)", lock) if name in module(source).FILES
    }


def test_no_image_is_given_what_source_is_made_of(source: tasks.Task) -> None:
    inside = "".join((ROOT / "locks" / f"{name}.txt").read_text() for name in ("torch-cpu", "torch-cuda", "trainer"))
    assert set(re.findall(r"(?m)^([\w-]+)==", inside)) & set(module(source).FILES) == set()


@pytest.mark.slow
def test_the_splits_of_source_hardly_repeat_each_other(source: tasks.Task) -> None:
    """Of the 64-character runs of the judging splits, at most 1 in 10,000 stands in train. (Measured: 1 in 100,000.)"""
    windows = module(source)._dealt(SECRET)
    found = {split: runs(source, module(source).make(split, b"", len(windows[split]), SECRET)) for split in windows}
    judging = np.concatenate([found["select"], found["confirm"], found["final"]])
    assert len(judging) > 500_000
    assert np.isin(judging, found["train"]).mean() <= 1e-4


def test_source_deals_whole_files(source: tasks.Task) -> None:
    dealt = module(source)._dealt(tasks._derive(SECRET, "world"))
    files = {split: {name for name, _ in windows} for split, windows in dealt.items()}
    assert all(files.values())
    assert sum(map(len, files.values())) == len(set.union(*files.values()))
    other = module(source)._dealt(tasks._derive(bytes(32), "world"))
    assert {name for name, _ in other["confirm"]} != files["confirm"]


def test_a_fixed_corpus_gives_each_decision_a_slice_of_its_own_and_then_the_first_again(source: tasks.Task) -> None:
    turns = [f"{panel}g{generation}" for generation in range(1, 9) for panel in ("", "panel-")]
    slices = [tasks.make(source, "confirm", SECRET, 90, salt) for salt in turns]
    seen = [{row.tobytes() for row in docs.tokens} for docs in slices]
    assert all(len(some) == 90 for some in seen)
    assert len(set.union(*seen)) == 16 * 90
    again = {row.tobytes() for row in tasks.make(source, "confirm", SECRET, 110, "g9").tokens}
    assert not again & set.union(*seen[1:])
    assert len(again & seen[0]) > 50
    assert np.array_equal(tasks.make(source, "confirm", SECRET, 90, "g2").tokens, slices[2].tokens)


@pytest.mark.parametrize(
    ("salt", "turn"), [("", 0), ("g1", 0), ("panel-g1", 1), ("g2", 2), ("panel-g17", 33), ("g3-again", 4), ("x", 0)]
)
def test_the_number_in_a_salt_is_its_turn(salt: str, turn: int) -> None:
    assert tasks._turn(salt) == turn


def test_loops_see_other_windows_of_source(source: tasks.Task) -> None:
    """Another world begins elsewhere in nearly every file; another key takes other ones of the same windows."""
    ours, theirs = ({w for some in module(source)._dealt(key).values() for w in some} for key in (SECRET, bytes(32)))
    assert len(ours & theirs) < 0.02 * len(ours)
    one, two = (module(source).make("train", key, 500, SECRET)["tokens"] for key in (b"one", b"two"))
    assert len({row.tobytes() for row in one} & {row.tobytes() for row in two}) < 100


def test_the_presets_of_source_fit_any_loop(source: tasks.Task) -> None:
    for number in range(40):
        dealt = module(source)._dealt(number.to_bytes(32, "big"))
        for preset in source.presets.values():
            assert len(dealt["train"]) >= preset.train_docs
            assert len(dealt["select"]) >= preset.select_docs
            assert len(dealt["confirm"]) // source.confirm_slices >= preset.confirm_docs
            assert len(dealt["final"]) >= preset.final_docs


def test_source_asked_for_too_much_says_how_many_there_are(source: tasks.Task) -> None:
    with pytest.raises(UsageError, match=r"windows for final in this loop; 9999 were asked for"):
        tasks.make(source, "final", SECRET, 9999)


def test_text_becomes_tokens_and_skills_and_comes_back(source: tasks.Task) -> None:
    data = module(source)
    text = "if x1 == 0.5:  # half\n    return f\"a {b}\" '''c\n\"d'''\n\n\té"
    tokens, skills = data.encode(text), data._skills(text)
    assert data.decode(tokens) == text.replace("\t", "\ufffd").replace("é", "\ufffd")
    letters = "".join("ikn0scp"[skill] for skill in skills)
    assert letters == "kknnnppp0000pcccccccciiiiikkkkkkssssssssssssssssssssiiin"


@pytest.mark.parametrize(
    ("pinned", "says"),
    [
        (("7.1.0", "", ()), r"found: docker 7\.2\.0; needed: docker 7\.1\.0.*next: pip install --require-hashes"),
        (("7.2.0", "0" * 64, ()), r"docker 7\.2\.0 with other files \([0-9a-f]{64}\)"),
    ],
)
def test_another_version_or_content_than_pinned_is_one_clear_error(
    source: tasks.Task, monkeypatch: pytest.MonkeyPatch, pinned: tuple, says: str
) -> None:
    monkeypatch.setitem(module(source).FILES, "docker", pinned)
    module(source)._corpus.cache_clear()
    module(source)._dealt.cache_clear()
    with pytest.raises(SetupError, match=says):
        tasks.make(source, "train", SECRET, 1)


def test_a_missing_library_of_source_is_one_clear_error(
    source: tasks.Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(module(source).FILES, "no-such-library", ("1", "", ()))
    module(source)._corpus.cache_clear()
    module(source)._dealt.cache_clear()
    with pytest.raises(SetupError, match=r"found: no no-such-library.*locks/base\.txt"):
        small_world.create(tmp_path / "loops", task="source")


@pytest.mark.slow
def test_what_the_images_hold_does_not_tell_source(source: tasks.Task) -> None:
    """Standard library, torch, the trainer's lock, what pip carries along. (Measured: 0.35% of the runs.)"""

    def sample(text: str | np.ndarray) -> np.ndarray:
        tokens = module(source).encode(text) if isinstance(text, str) else text
        found: np.ndarray = module(source).hashes(tokens)
        return found[found % 16 == 0]

    inside = [*re.findall(r"(?m)^([\w-]+)==", (ROOT / "locks" / "trainer.txt").read_text()), "torch", "pip"]
    library = Path(os.__file__).parent
    files = [path for path in library.rglob("*.py") if "site-packages" not in path.parts]
    for name in inside:
        files += [Path(str(file.locate())) for file in importlib.metadata.files(name) or () if file.suffix == ".py"]
    known = [sample(path.read_text("utf-8", "replace")) for path in files]
    for wheel in library.glob("ensurepip/_bundled/*.whl"):
        with zipfile.ZipFile(wheel) as bundle:
            texts = [bundle.read(name).decode("utf-8", "replace") for name in bundle.namelist() if name.endswith(".py")]
            known += [sample(text) for text in texts]
    ours = np.concatenate([sample(tokens) for tokens, _ in module(source)._corpus().values()])
    assert len(known) > 3000
    assert len(ours) > 100_000
    rate = np.isin(ours, np.concatenate(known)).mean()
    assert rate < 0.01


# sums


def test_sums_are_right_and_their_skills_say_how_hard_each_digit_is() -> None:
    task = tasks.load("sums")
    docs = tasks.make(task, "select", SECRET, 60)
    problem = re.compile(r"([01]{4})\+([01]{4})=([01]{5});")
    for row, skills in zip(docs.tokens, docs.skill, strict=True):
        text = module(task).decode(row)
        assert re.fullmatch(rf";({problem.pattern}){{2}}", text)
        for found in problem.finditer(text):
            assert int(found[1], 2) + int(found[2], 2) == int(found[3][::-1], 2)
            assert "".join(str(skill) for skill in skills[found.start(3) : found.end(3)]) == hard(found[1], found[2])


def hard(left: str, right: str) -> str:
    """1 for the last digit; then 2 without a carry, 3 with one from the neighbour, 4 with one from further away."""
    found, carried, far = "1", False, False
    for a, b in zip(left[::-1], right[::-1], strict=True):
        ones = int(a) + int(b)
        far = carried and ones == 1
        carried = ones + carried > 1
        found += "4" if carried and far else "3" if carried else "2"
    return found


def test_the_floor_of_sums_is_the_coins_that_were_thrown() -> None:
    task = tasks.load("sums")
    docs = tasks.make(task, "train", SECRET, 400)
    assert set(docs.floor_bits[docs.skill != 0]) == {0.0}
    assert np.allclose(docs.floor_bits.sum(axis=1), 16.0)
    numbers = docs.tokens[docs.floor_bits > 0] - 1
    assert abs(numbers.mean() - 0.5) < 5 * 0.5 / len(numbers) ** 0.5
    assert len({row.tobytes() for row in docs.tokens}) > 390


def test_a_larger_split_of_sums_begins_with_the_smaller() -> None:
    task = tasks.load("sums")
    assert np.array_equal(
        tasks.make(task, "train", SECRET, 3000).tokens[:5], tasks.make(task, "train", SECRET, 5).tokens
    )


@pytest.mark.parametrize("name", [name for name in tasks.names() if tasks.load(name).floor == "exact"])
def test_a_model_below_an_exact_floor_trips(name: str) -> None:
    """The source itself stays at its floor; whoever knows the drawn characters, too, sets the wire off."""
    task = tasks.load(name)
    docs = tasks.make(task, "confirm", SECRET, 48, "g1")
    for told, trips in ((0.0, False), (0.2, True)):
        bits = docs.floor_bits * (1.0 - told)
        verdict = _verdict(task, docs, np.where(docs.target, bits, 0.0).astype(np.float64), None)
        trial = Trial(
            "g1-c0", "b" * 40, "gate", Seeds(1, 2), Budget("steps", 1, 1.0), None, verdict, None, None, 1, 1, 1
        )
        assert (below_floor(Watched(1, (trial,), task.floor)) is not None) == trips


# tinystories, on a text of our own: the real one was never downloaded here


@pytest.fixture
def stories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tasks.Task:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    task = tasks.load("tinystories")
    task.cache.mkdir(parents=True)
    for name, tales in (("train", 900), ("valid", 600)):
        told = [
            f"Once there was a {name} cat {n}.\nIt said \u201chi {n * 7919}\u201d.\n<|endoftext|>\n"
            for n in range(tales)
        ]
        path = task.cache / f"TinyStories-{name}.txt"
        path.write_text("".join(told), "utf-8")
        path.with_name(path.name + ".sha256").write_text(hashlib.sha256(path.read_bytes()).hexdigest())
    return task


def test_without_its_text_tinystories_says_which_command_fetches_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(SetupError, match=r"https://huggingface\.co/.*next: bellglass tasks --fetch tinystories"):
        small_world.create(tmp_path / "loops", task="tinystories")


def test_windows_of_tinystories_are_pieces_of_the_right_file_and_never_overlap(stories: tasks.Task) -> None:
    text = {name: (stories.cache / f"TinyStories-{name}.txt").read_bytes() for name in ("train", "valid")}
    places: dict[str, list[int]] = {}
    for split, docs in (("train", 150), ("select", 20), ("final", 30), ("confirm", 2)):
        made = tasks.make(stories, split, SECRET, docs, "g1")
        name = "train" if split == "train" else "valid"
        source = module(stories).encode(np.frombuffer(text[name], dtype=np.uint8)).astype("<u2").tobytes()
        found = [source.find(row.astype("<u2").tobytes()) // 2 for row in made.tokens]
        assert min(found) >= 0
        places.setdefault(name, []).extend(found)
    for starts in places.values():
        assert np.diff(sorted(starts)).min() >= 257
    assert stories.floor == "unknown"
    assert stories.measured == {}


def test_skills_of_tinystories_tell_letters_apart(stories: tasks.Task) -> None:
    codes = np.frombuffer(b"A cat, 2 c\xc3\xa9s", dtype=np.uint8)[None]
    assert "".join("sr."[skill] for skill in module(stories)._skills(codes)[0]) == "s.srr....s..s"


def test_a_loop_knows_which_text_it_began_with_and_a_calibration_which_it_is_for(stories: tasks.Task) -> None:
    before, documents = tasks.contents(stories), tasks.documents_hash(stories, stories.presets["tiny"])
    assert tasks.reopen("tinystories", before).name == "tinystories"
    path = stories.cache / "TinyStories-valid.txt"
    path.with_name(path.name + ".sha256").write_text("0" * 64)
    with pytest.raises(LoopFault, match=r"TinyStories-valid\.txt: not what the loop began with"):
        tasks.reopen("tinystories", before)
    assert tasks.documents_hash(stories, stories.presets["tiny"]) != documents


# The commands


@pytest.mark.parametrize("page", ["tasks.md", "labs/lucky-runs.md", "benchmarks.md"])
def test_the_measuring_commands_of_the_pages_are_understood(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = re.findall(r"python benchmarks/tasks\.py ?([^`\n]*)", (ROOT / "docs" / page).read_text())
    monkeypatch.setattr(sys, "path", list(sys.path))  # it adds folders
    words = runpy.run_path(str(ROOT / "benchmarks" / "tasks.py"))["words"]
    for typed in found:
        asked = words().parse_args(typed.split())
        assert asked.write_only or set(asked.presets.split(",")) <= set(tasks.PRESETS)
    assert found


def listed(*words: str) -> str:
    done = CliRunner().invoke(app, ["tasks", *words], catch_exceptions=False)
    assert done.exit_code == 0
    return done.output


def test_the_list_says_what_is_measured_and_what_is_not() -> None:
    everything = listed()
    assert all(f"{name}: " in everything for name in tasks.names())
    assert re.search(r"tinystories: .*\n    unmeasured", everything)
    assert "preset cpu: 15 cpu_seconds a trial, starter" in listed("source")
    assert "16 slices of confirm" in listed("source")


def test_fetching_needs_a_task_that_has_something_to_fetch() -> None:
    assert "nothing to download" in listed("--fetch", "stories")
    with pytest.raises(UsageError, match="found: no task"):
        listed("--fetch")
