"""The offline improver: deterministic, undoes what it does, judges by measured scores, uses what it built."""

from __future__ import annotations

import ast
import json
import sys
import types
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from improver_desk import ToyDesk, parses, session, starter, trainer_texts

from bellglass.doors.offline_model import IMPROVERS, OfflineModel, gifts, talk
from bellglass.doors.offline_model.desk import MOST_SAID
from bellglass.doors.offline_model.menu import MENU, Edit
from bellglass.doors.process_glass import ProcessGlass
from bellglass.errors import UsageError
from bellglass.records import ChatMessage, ChatReply, ChatRequest, ToolSpec

BASE = trainer_texts(starter())
TOOLS = ("read_file", "write_file", "replace", "trial", "submit")
MODEL_EDITS = [edit for edit in MENU if (edit.apply(BASE) or BASE)["trainer/model.py"] != BASE["trainer/model.py"]]
Judge = Callable[[Mapping[str, str], float], "float | str"]


def opening(seed: int = 1, generation: int = 1, trials: float = 3.0, turns: int = 40, more: str = "") -> str:
    return f'seed: {seed}, generation: {generation}\nLimits: {{"trials": {trials}}}; turns: {turns}\n{more}'


class Bench:
    """A scaffold's tools over files in memory, without a guest: quick enough to try many conversations."""

    def __init__(self, judge: Judge, trials: float = 3.0, tools: tuple[str, ...] = TOOLS) -> None:
        bundle = starter()
        self.files = {path: data.decode() for path, data in bundle.items()}
        self.judge, self.left, self.tools = judge, trials, tools
        self.tried: list[str] = []
        self.submitted: str | None = None
        self.refused = 0

    def answer(self, name: str, args: Mapping[str, object]) -> str:
        if name == "trial":
            return self._trial(str(args["note"]), float(str(args["fraction"])))
        path = str(args.get("path", ""))
        if name == "read_file":
            return self.files.get(path, "error: no such file")
        if name == "write_file":
            self.files[path] = str(args["text"])
        elif name == "replace":
            if self.files[path].count(str(args["old"])) != 1:
                return "error: not once"
            self.files[path] = self.files[path].replace(str(args["old"]), str(args["new"]))
        else:
            self.submitted = str(args["note"])
        return "done"

    def _trial(self, note: str, fraction: float) -> str:
        if fraction > self.left + 1e-9:
            self.refused += 1
            return "error: refused: none left"
        self.left -= fraction
        self.tried.append(note)
        score = self.judge(trainer_texts({path: text.encode() for path, text in self.files.items()}), fraction)
        fault = score if isinstance(score, str) else None
        left = {"trials": round(self.left, 4)}
        shown = None if fault else score
        return json.dumps({"ok": not fault, "score": shown, "fault": fault, "fraction": fraction, "left": left})

    def converse(self, name: str = "offline", first: str | None = None, most: int = 60) -> list[ChatReply]:
        messages = [ChatMessage("user", first or opening(trials=self.left))]
        specs = tuple(ToolSpec(tool, "", {}) for tool in self.tools)
        replies = []
        while self.submitted is None and len(replies) < most:
            reply = OfflineModel(name).chat(ChatRequest("main", tuple(messages), specs))
            replies.append(reply)
            if not reply.calls:
                break
            messages.append(ChatMessage("assistant", "", reply.calls))
            for call in reply.calls:
                messages += [ChatMessage("tool", self.answer(call.name, call.args), call_id=call.id)]
        return replies


def likes(*names: str) -> Judge:
    """A judge to whom each of these edits is worth half a bit, and every other one costs a little."""
    worth = {edit.name: edit.apply(BASE) for edit in MENU}

    def judge(files: Mapping[str, str], fraction: float) -> float | str:
        if not parses(files):
            return "crashed"
        score = 3.0
        for name, after in worth.items():
            assert after is not None
            marks = [line for path in after for line in _new_lines(BASE[path], after[path])]
            if marks and all(any(mark in text for text in files.values()) for mark in marks):
                score += -0.5 if name in names else 0.1
        return score

    return judge


def _new_lines(before: str, after: str) -> list[str]:
    old = before.splitlines()
    return [line for line in after.splitlines() if line.strip() and line not in old]


# The menu


@pytest.mark.parametrize("edit", MENU, ids=lambda edit: edit.name)
def test_every_edit_fits_the_starter_and_parses(edit: Edit) -> None:
    after = edit.apply(BASE)
    assert after is not None
    assert set(after) == set(BASE)
    assert after != BASE
    for text in after.values():
        ast.parse(text)
        assert max(map(len, text.splitlines())) <= 120


@pytest.mark.parametrize("edit", MENU, ids=lambda edit: edit.name)
def test_every_edit_is_made_and_undone_exactly_by_passages(edit: Edit) -> None:
    after = edit.apply(BASE)
    assert after is not None
    bench = Bench(lambda files, fraction: 1.0)
    for before, wanted in ((BASE, after), (after, BASE)):
        moves = talk.edit_moves(before, wanted, frozenset(TOOLS))
        assert {move.tool for move in moves} == {"replace"}
        for move in moves:
            assert not talk.failed(bench.answer(move.tool, move.args))
        assert {path: bench.files[path] for path in BASE} == wanted


@pytest.mark.parametrize("edit", MENU, ids=lambda edit: edit.name)
def test_no_edit_applies_to_sources_it_does_not_know(edit: Edit) -> None:
    assert edit.apply(dict.fromkeys(BASE, "x = 1\n")) is None
    assert edit.apply({}) is None


def test_most_edits_can_be_stacked() -> None:
    files, names = dict(BASE), []
    for edit in MENU:
        after = edit.apply(files)
        if after is not None:
            assert parses(after)
            files, names = after, [*names, edit.name]
    assert len(names) >= len(MENU) - 5


def test_an_edit_that_is_in_place_does_not_apply_again() -> None:
    again = {"rate-up", "small-batch", "fewer-layers", "narrower", "wider", "large-batch", "rate-down"}
    for edit in MENU:
        after = edit.apply(BASE)
        assert after is not None
        assert (edit.apply(after) is not None) == (edit.name in again), edit.name


def model_of(files: Mapping[str, str]) -> Any:
    module = types.ModuleType("edited_model")
    sys.modules["edited_model"] = module  # its dataclasses look their module up there
    try:
        exec(files["trainer/model.py"], vars(module))
        return vars(module)["GPT"](vars(module)["Shape"](vocab=300, context=16)).eval()
    finally:
        del sys.modules["edited_model"]


@pytest.mark.slow
@pytest.mark.parametrize("edit", MODEL_EDITS, ids=lambda edit: edit.name)
def test_no_edited_model_sees_what_it_is_to_predict(edit: Edit) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed (locks/torch-cpu.txt)")
    after = edit.apply(BASE)
    assert after is not None
    torch.manual_seed(0)
    model = model_of(after)
    tokens = torch.randint(300, (2, 16))
    other = tokens.clone()
    other[:, 9:] = (other[:, 9:] + 1) % 300
    with torch.inference_mode():
        one, two = model(tokens), model(other)
    assert one.shape == (2, 16, 300)
    assert torch.equal(one[:, :9], two[:, :9])
    assert not torch.equal(one[:, 9:], two[:, 9:])


@pytest.mark.slow
def test_a_model_that_is_made_narrower_again_and_again_still_runs_with_rotary_places() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed (locks/torch-cpu.txt)")
    edits = {edit.name: edit for edit in MENU}
    files = edits["rotary"].apply(BASE)
    for name in ("wider", "narrower", "narrower", "narrower"):
        assert files is not None
        model = model_of(files)
        assert torch.isfinite(model(torch.randint(300, (2, 16)))).all()
        files = edits[name].apply(files)


def test_passages_are_unique_in_their_turn() -> None:
    old = "a\nb\n" * 20
    new = old + "c\n"
    pairs = talk.replacements(old, new)
    if pairs is not None:
        for was, becomes in pairs:
            assert old.count(was) == 1
            old = old.replace(was, becomes)
        assert old == new
    assert talk.replacements("", "new\n") is None


# The session, over files in memory


def test_the_same_conversation_gets_the_same_answer_and_other_seeds_explore_otherwise() -> None:
    def tried(seed: int) -> list[str]:
        bench = Bench(likes())
        bench.converse(first=opening(seed))
        return bench.tried

    assert tried(1) == tried(1)
    assert len({tuple(tried(seed)) for seed in range(6)}) >= 4


def test_what_the_judge_favours_is_kept_and_the_rest_is_put_back() -> None:
    kept = 0
    for seed in range(8):
        bench = Bench(likes("rate-up", "muon"))
        bench.converse(first=opening(seed))
        assert bench.submitted is not None
        good = [name for name in ("rate-up", "muon") if name in bench.tried]
        wanted = dict(BASE)
        for name in bench.tried:
            if name in good:
                changed = next(edit for edit in MENU if edit.name == name).apply(wanted)
                wanted = changed if changed is not None else wanted
        assert {path: bench.files[path] for path in BASE} == wanted
        listed = bench.submitted.partition("kept: ")[2].partition(".")[0]
        assert sorted(listed.split(", ")) == sorted(good or ["nothing"])
        kept += bool(good)
    assert kept >= 4


def test_a_gain_within_a_hair_is_not_kept() -> None:
    bench = Bench(lambda files, fraction: 3.0 if files == BASE else 2.999)
    bench.converse()
    assert {path: bench.files[path] for path in BASE} == BASE


def test_edits_that_crash_are_put_back_and_said_so() -> None:
    bench = Bench(lambda files, fraction: 3.0 if files == BASE else "crashed")
    bench.converse()
    assert {path: bench.files[path] for path in BASE} == BASE
    assert bench.submitted is not None
    assert ": crashed" in bench.submitted


@pytest.mark.parametrize("trials", [0.0, 0.15, 0.5, 1.0, 3.0, 12.0])
@pytest.mark.parametrize("turns", [12, 40])
def test_it_submits_within_its_turns_and_never_overdraws(trials: float, turns: int) -> None:
    bench = Bench(likes("muon"), trials=trials)
    replies = bench.converse(first=opening(trials=trials, turns=turns))
    assert bench.submitted is not None
    assert len(replies) <= turns
    assert not bench.refused
    assert bench.left < max(0.5, 0.2 * trials) or turns == 12


def test_a_step_that_helped_is_taken_again_until_it_helps_no_more() -> None:
    def judge(files: Mapping[str, str], fraction: float) -> float:
        rate = float(files["trainer/train.py"].partition("LEARNING_RATE = ")[2].split()[0])
        return 3.0 + 100 * abs(0.003 - rate)  # one step up from 0.001; the second goes too far

    bench = Bench(judge, trials=12.0)
    bench.converse()
    assert "LEARNING_RATE = 0.0025\n" in bench.files["trainer/train.py"]
    assert bench.tried.count("rate-up") == 2
    assert bench.submitted is not None
    assert "kept: rate-up." in bench.submitted
    assert "rate-up" not in bench.submitted.partition("dropped: ")[2].partition(".")[0].split(", ")


def test_what_did_not_help_gets_one_second_chance_after_others_were_kept() -> None:
    muon, relu = "class Muon", "F.relu(self.up(x)).square()"

    def judge(files: Mapping[str, str], fraction: float) -> float:
        text = "".join(files.values())
        return 3.0 - (relu in text) + (0.5 if muon in text and relu not in text else -0.5 if muon in text else 0.0)

    bench = Bench(judge, trials=12.0)
    bench.converse()
    assert bench.tried.count("muon") == 2
    assert bench.tried.index("muon") < bench.tried.index("relu-squared")
    assert muon in bench.files["trainer/train.py"]
    hopeless = Bench(likes("relu-squared"), trials=12.0)
    hopeless.converse()
    assert max(map(hopeless.tried.count, hopeless.tried)) == 2


def test_a_long_session_spends_its_turns_on_trials_and_stays_short_enough_to_be_remembered() -> None:
    bench = Bench(likes("rotary", "muon"), trials=20.0)
    replies = bench.converse()
    assert bench.submitted is not None
    assert len(bench.tried) >= 28
    assert len(replies) <= 40
    assert sum(len(json.dumps(call.args)) for reply in replies for call in reply.calls) < MOST_SAID


def test_the_note_says_that_it_is_a_positive_control() -> None:
    bench = Bench(likes())
    bench.converse()
    assert "positive control: people wrote its tricks" in str(bench.submitted)


def test_what_earlier_sessions_dropped_comes_last() -> None:
    bench = Bench(likes())
    names = [edit.name for edit in MENU if edit.tier == 0]
    bench.converse(first=opening(more=f"- generation 1: kept: nothing. dropped: {', '.join(names)}."))
    assert not set(bench.tried) & set(names)


def test_without_replace_it_writes_whole_files() -> None:
    bench = Bench(likes("rate-up", "muon", "small-batch"), tools=("read_file", "write_file", "trial", "submit"))
    bench.converse()
    assert bench.submitted is not None
    assert parses(trainer_texts({path: text.encode() for path, text in bench.files.items()}))


def test_it_stops_when_the_beginning_of_its_own_story_is_hidden() -> None:
    bench = Bench(likes())
    specs = tuple(ToolSpec(tool, "", {}) for tool in TOOLS)
    late = (ChatMessage("user", opening()), ChatMessage("tool", "x", call_id="off-3-0"))
    reply = OfflineModel().chat(ChatRequest("main", late, specs))
    assert not reply.calls
    assert bench.submitted is None


def test_a_model_of_an_unknown_variant_is_refused() -> None:
    with pytest.raises(UsageError):
        OfflineModel("offline:clever")
    assert [OfflineModel(name).name for name in IMPROVERS] == list(IMPROVERS)


def test_its_calls_cost_nothing_and_are_known_to_cost_nothing() -> None:
    request = ChatRequest("main", (ChatMessage("user", opening()),))
    for cost in (OfflineModel().forecast(request), OfflineModel().chat(request).cost):
        assert cost.usd == 0.0
        assert cost.calls == 1


# The scaffold's generations, in real guests


def generations(count: int, judge: Judge, name: str = "offline", trials: float = 3.0, seed: int = 1) -> list[ToyDesk]:
    """Each generation's scaffold and trainer become the next one's, whatever the score."""
    glass, bundle, desks = ProcessGlass(warm=False), starter(), []
    try:
        for number in range(1, count + 1):
            desk = ToyDesk(OfflineModel(name), judge, trials_left=trials)
            end = session(glass, bundle, desk, seed=seed, generation=number)
            assert end.submission is not None, (number, end.fault, end.log.decode())
            bundle = dict(end.submission.files)
            desk.notes.append(end.submission.note)
            desk.bundle = bundle
            desks.append(desk)
    finally:
        glass.close()
    return desks


def test_it_builds_a_race_uses_it_then_builds_more() -> None:
    first, second, third = generations(3, likes("relu-squared", "zero-out", "clip"))
    assert gifts.RACE_PATH in first.bundle
    assert not any(note.startswith("race:") for note, _, _ in first.runs)
    raced = [(note, fraction) for note, fraction, _ in second.runs if note.startswith("race:")]
    assert raced[0][0] == "race: unchanged"
    assert len(raced) >= 5
    assert len(second.runs) > len(first.runs), "shorter trials: more of them for the same budget"
    assert gifts.TRY_PATH in second.bundle
    assert gifts.LESSONS in third.bundle[gifts.TASK_PATH].decode()
    assert second.trials_left >= 0


def test_the_race_keeps_winners_together_when_they_are_better_together() -> None:
    everything = [edit.name for edit in MENU]
    _, second = generations(2, likes(*everything))
    assert second.notes[-1].partition("kept: ")[2].partition(".")[0].count(",") >= 1
    assert parses(trainer_texts(second.bundle))


def test_the_race_leaves_the_files_alone_when_nothing_wins() -> None:
    first, second = generations(2, lambda files, fraction: 3.0)
    assert trainer_texts(second.bundle) == trainer_texts(first.bundle) == BASE


def test_what_a_race_keeps_by_its_short_trials_is_looked_at_longer() -> None:
    def judge(files: Mapping[str, str], fraction: float) -> float:
        return 3.0 - (files != BASE) * 0.1

    _, second = generations(2, judge, trials=6.0)
    assert {fraction for note, fraction, _ in second.runs if note.startswith("race:")} == {0.25}
    assert any(note == "the trainer as it is" and fraction > 0.25 for note, fraction, _ in second.runs)


def test_lessons_stay_few() -> None:
    text = "# Task\n"
    for number in range(40):
        text = gifts.with_lessons(text, [f"generation {number} dropped: a"])
    assert text.count("\n- ") == gifts.MOST_LESSONS
    assert text.startswith("# Task\n")
    assert "generation 39" in text


def test_the_inert_control_changes_bytes_and_no_behaviour() -> None:
    desk = generations(1, likes(), "offline:inert")[0]
    before, after = starter()["scaffold/improve.py"], desk.bundle["scaffold/improve.py"]
    assert before != after
    assert ast.dump(ast.parse(before)) == ast.dump(ast.parse(after))


def test_the_harmful_control_does_three_harms_by_turns() -> None:
    harmed = set()
    for generation in (1, 2, 3):
        bench = Bench(likes())
        bench.converse("offline:harmful", first=opening(generation=generation))
        original = {path: data.decode() for path, data in starter().items()}
        changed = [path for path in original if path.startswith("scaffold/") and bench.files[path] != original[path]]
        assert len(changed) == 1
        harmed.add(changed[0])
    assert len(harmed) == 3
