"""`random` and `tpe`: pure functions of the conversation, within bounds, over one menu, and no hand on the scaffold."""

from __future__ import annotations

import builtins
import json
import logging
import statistics
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from improver_desk import ToyDesk, parses, session, starter, trainer_texts
from source_tree import ROOT
from test_offline_model import BASE, TOOLS, Bench, opening

from bellglass import preflight, wiring
from bellglass.config import is_hosted, load
from bellglass.doors.offline_model import OfflineModel, samplers, tpe
from bellglass.doors.offline_model.configurations import changed_lines, choices, configured, taken
from bellglass.doors.offline_model.menu import MENU
from bellglass.doors.process_glass import ProcessGlass
from bellglass.errors import SetupError
from bellglass.paths import install_command
from bellglass.records import ChatMessage, ChatRequest, ToolSpec

BOTH = pytest.mark.parametrize("name", ["random", "tpe"])
SPACE = choices(BASE, MENU)


def counts(files: Mapping[str, str], fraction: float) -> float:
    """A judge that is no more than a number of the text, different for almost every configuration."""
    return 3.0 + sum(len(text) for text in files.values()) % 997 / 997


# Configurations


def test_edits_of_one_line_are_one_choice() -> None:
    names = {choice.name for choice in SPACE}
    assert {"rate-up|rate-down", "small-batch|large-batch", "narrower|wider", "no-dropout"} <= names
    assert sorted(edit.name for choice in SPACE for edit in choice.edits) == sorted(edit.name for edit in MENU)


def test_lines_that_are_only_put_between_others_change_none() -> None:
    assert changed_lines({"a": "1\n2\n"}, {"a": "1\nnew\n2\n"}) == set()
    assert changed_lines({"a": "1\n2\n"}, {"a": "1\nnew\n"}) == {("a", 1)}


def test_edits_that_do_not_fit_are_no_choice() -> None:
    assert choices({}, MENU) == ()
    after = next(edit for edit in MENU if edit.name == "rotary").apply(BASE)
    assert after is not None
    assert "rotary" not in {choice.name for choice in choices(after, MENU)}


def test_every_pick_alone_gives_its_edit_and_an_unknown_one_nothing() -> None:
    for choice in SPACE:
        for edit in choice.edits:
            assert configured(BASE, taken(SPACE, {choice.name: edit.name}, MENU)) == (edit.apply(BASE), (edit.name,))
        assert configured(BASE, taken(SPACE, {choice.name: tpe.NONE}, MENU)) == (BASE, ())


def test_uniform_draws_take_each_option_of_a_choice_about_equally_often() -> None:
    sampler = samplers.Uniform(SPACE, "seed")
    draws = [sampler.draw() for _ in range(600)]
    for choice in SPACE:
        options = ["", *(edit.name for edit in choice.edits)]
        for option in options:
            share = sum(draw[choice.name] == option for draw in draws) / len(draws)
            assert abs(share - 1 / len(options)) < 0.09, (choice.name, option)


# The sessions, over files in memory


@BOTH
def test_what_is_submitted_is_the_best_of_what_was_tried(name: str) -> None:
    tried: list[tuple[float, dict[str, str]]] = []

    def judge(files: Mapping[str, str], fraction: float) -> float:
        tried.append((counts(files, fraction), dict(files)))
        return tried[-1][0]

    bench = Bench(judge, trials=7.0)
    bench.converse(name, first=opening(trials=7.0))
    assert len(tried) == 7
    assert BASE not in [files for _, files in tried], "no trial is spent on the parent"
    assert {path: bench.files[path] for path in BASE} == min(tried, key=lambda item: item[0])[1]
    assert "the best of 7 configurations" in str(bench.submitted)


@BOTH
def test_no_configuration_is_tried_twice(name: str) -> None:
    tried = []

    def judge(files: Mapping[str, str], fraction: float) -> float:
        tried.append(json.dumps(files))
        return 3.0

    Bench(judge, trials=12.0).converse(name, first=opening(trials=12.0))
    assert len(tried) == len(set(tried)) == 12


@BOTH
def test_the_same_conversation_is_answered_the_same_and_another_seed_or_generation_otherwise(name: str) -> None:
    def tried(seed: int, generation: int) -> tuple[str, ...]:
        bench = Bench(counts)
        bench.converse(name, first=opening(seed, generation))
        return tuple(bench.tried)

    assert tried(1, 1) == tried(1, 1)
    assert len({tried(1, 1), tried(2, 1), tried(1, 2)}) == 3


@BOTH
def test_an_answer_needs_the_conversation_alone(name: str) -> None:
    bench = Bench(counts)
    replies = bench.converse(name)
    messages = [ChatMessage("user", opening(trials=3.0))]
    fresh = Bench(counts)
    specs = tuple(ToolSpec(tool, "", {}) for tool in TOOLS)
    for reply in replies:  # a new model for every turn, and the turns of another process are the same (see below)
        assert OfflineModel(name).chat(ChatRequest("main", tuple(messages), specs)) == reply
        messages.append(ChatMessage("assistant", "", reply.calls))
        messages += [ChatMessage("tool", fresh.answer(call.name, call.args), call_id=call.id) for call in reply.calls]


@BOTH
def test_another_process_draws_the_same(name: str) -> None:
    bench = Bench(counts)
    bench.converse(name)
    program = (
        "from test_offline_model import Bench; from test_baselines import counts\n"
        f"bench = Bench(counts); bench.converse({name!r}); print('\\n'.join(bench.tried))"
    )
    env = {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "PYTHONHASHSEED": "7"}
    ran = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, timeout=60)
    assert ran.stdout.split() == bench.tried, ran.stderr


@BOTH
@pytest.mark.parametrize("trials", [0.0, 0.15, 1.0, 6.0])
@pytest.mark.parametrize("turns", [12, 40])
def test_it_ends_within_its_turns_and_never_overdraws(name: str, trials: float, turns: int) -> None:
    bench = Bench(counts, trials=trials)
    replies = bench.converse(name, first=opening(trials=trials, turns=turns))
    assert (bench.submitted is not None) == (trials > 0.1)
    assert len(replies) <= turns
    assert not bench.refused
    assert max(len(reply.calls) for reply in replies) <= 32


def test_a_conversation_stays_short_enough_to_be_remembered_whole() -> None:
    bench = Bench(counts, trials=20.0)
    replies = bench.converse("random", first=opening(trials=20.0, turns=100), most=100)
    assert bench.submitted is not None
    assert sum(len(json.dumps(call.args)) for reply in replies for call in reply.calls) < 1.2 * samplers.MOST_SAID
    assert bench.left > 4


@BOTH
def test_the_scaffold_is_never_changed(name: str) -> None:
    bench = Bench(counts)
    bench.converse(name)
    original = {path: data.decode() for path, data in starter().items() if path.startswith("scaffold/")}
    assert {path: text for path, text in bench.files.items() if path.startswith("scaffold/")} == original


@BOTH
def test_only_what_the_loop_allows_is_edited(name: str) -> None:
    bench = Bench(counts, trials=7.0)
    bench.converse(name, first=opening(trials=7.0, more="You may edit: data, optimiser\n"))
    assert bench.submitted is not None
    assert {path for path in BASE if bench.files[path] != BASE[path]} <= {"trainer/data.py", "trainer/train.py"}


@BOTH
def test_with_nothing_left_to_draw_it_submits_the_best_it_has(name: str) -> None:
    bench = Bench(counts, trials=12.0)
    bench.converse(name, first=opening(trials=12.0, more="You may edit: objective\n"))
    assert bench.tried == ["label-smoothing"]
    assert bench.submitted is not None


@BOTH
def test_where_everything_crashes_or_nothing_fits_nothing_is_submitted(name: str) -> None:
    for judge, files in ((lambda files, fraction: "crashed", BASE), (counts, dict.fromkeys(BASE, "x = 1\n"))):
        bench = Bench(judge)
        bench.files |= files
        bench.converse(name)
        assert bench.submitted is None


@BOTH
def test_a_crash_is_never_the_best(name: str) -> None:
    bench = Bench(lambda files, fraction: "crashed" if "Muon" in files["trainer/train.py"] else counts(files, fraction))
    bench.converse(name, first=opening(seed=5))
    assert bench.submitted is not None
    assert ": crashed" in bench.submitted
    assert "Muon" not in bench.files["trainer/train.py"]


@BOTH
def test_the_note_says_that_it_is_a_baseline(name: str) -> None:
    bench = Bench(counts)
    bench.converse(name)
    assert str(bench.submitted).startswith(f"{name}: the best of 6 configurations, one trial each at 0.5: ")
    assert "a baseline that draws from a menu of edits that people wrote" in str(bench.submitted)


def test_tpe_learns_within_a_session() -> None:
    """From twelve draws of a sum that it doesn't know, it finds better ones than uniform draws do."""
    space = {choice.name: [edit.name for edit in choice.edits] for choice in SPACE}

    def best(sampler: samplers.Sampler, seed: int) -> float:
        worth = {edit.name: samplers.number_of(f"{seed} {edit.name}") % 1000 for edit in MENU}
        scores = []
        for _ in range(12):
            scores.append(-float(sum(worth.get(name, 0) - 450 for name in sampler.draw().values() if name in worth)))
            sampler.tell(scores[-1])
        return min(scores)

    seeds = range(30)
    learnt = [best(tpe.Sampler(space, seed), seed) for seed in seeds]
    drawn = [best(samplers.Uniform(SPACE, str(seed)), seed) for seed in seeds]
    assert statistics.mean(learnt) < statistics.mean(drawn) - 200


def test_only_tpe_listens_to_the_scores_and_not_before_its_two_uniform_draws() -> None:
    def tried(name: str, sign: float) -> list[str]:
        bench = Bench(lambda files, fraction: 3.0 + sign * counts(files, fraction))
        bench.converse(name)
        return bench.tried

    assert tried("random", 1.0) == tried("random", -1.0)
    for_low, for_high = tried("tpe", 1.0), tried("tpe", -1.0)
    assert for_low[:2] == for_high[:2]
    assert for_low != for_high


# Optuna


def test_without_optuna_one_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refuse(name: str, *rest: object, **more: object) -> object:
        if name.split(".")[0] == "optuna":
            raise ImportError("No module named 'optuna'")
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", refuse)
    tpe.load.cache_clear()
    with pytest.raises(SetupError, match=r"improver tpe.*No module named 'optuna'") as refused:
        preflight.forecast_lines(load(None, {"model": "tpe"}))
    assert refused.value.next_command == install_command("tpe")
    assert preflight.forecast_lines(load(None, {"model": "random"}))


def test_optuna_says_and_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd) -> None:
    monkeypatch.chdir(tmp_path)
    Bench(counts).converse("tpe")
    assert logging.getLogger("optuna").level == logging.WARNING
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


# Behind the port


@BOTH
def test_it_is_built_in_like_the_offline_improver(name: str) -> None:
    config = load(None, {"model": name, "glass": "process"})
    assert not is_hosted(name)
    assert config.review == "tripwire"
    assert wiring.choose_glass(config) == "process"
    assert wiring.open_model(name, config).name == name


@BOTH
def test_a_real_session_submits_a_trainer_that_parses_and_the_scaffold_as_it_was(name: str) -> None:
    glass, desk = ProcessGlass(warm=False), ToyDesk(OfflineModel(name), counts, trials_left=2.0)
    try:
        end = session(glass, starter(), desk)
    finally:
        glass.close()
    assert end.submission is not None, (end.fault, end.log.decode())
    changed = {path for path, data in starter().items() if end.submission.files[path] != data}
    assert changed
    assert all(path.startswith("trainer/") for path in changed)
    assert parses(trainer_texts(end.submission.files))
    assert len(desk.runs) == 6
