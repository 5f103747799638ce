"""The starter scaffold, driven in real guests (process glass) by scripted models."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
from improver_desk import Scripted, ToyDesk, session, starter

from bellglass.doors.process_glass import ProcessGlass
from bellglass.steps.session import SessionEnd


@pytest.fixture(scope="module")
def glass() -> Iterator[ProcessGlass]:
    glass = ProcessGlass(warm=False)
    yield glass
    glass.close()


def play(
    glass: ProcessGlass, *turns: object, bundle: dict[str, bytes] | None = None, **options: object
) -> tuple[Scripted, ToyDesk, SessionEnd]:
    model = Scripted(*turns)  # type: ignore[arg-type]
    desk = ToyDesk(model, lambda files, fraction: 2.0)
    return model, desk, session(glass, bundle or starter(), desk, **options)  # type: ignore[arg-type]


WRITE = ("write_file", {"path": "scaffold/idea.md", "text": "an idea\n"})
SUBMIT = ("submit", {"note": "an idea, untested"})


def test_a_session_reads_edits_tries_and_submits(glass: ProcessGlass) -> None:
    model, desk, end = play(
        glass,
        [("read_file", {"path": "trainer/train.py"}), ("read_file", {"path": "trainer"})],
        [("replace", {"path": "trainer/train.py", "old": "REPORT_EVERY = 10", "new": "REPORT_EVERY = 20"})],
        [("trial", {"note": "report less", "fraction": 0.5}), ("note", {"text": "hm"}), ("history", {})],
        [SUBMIT],
    )
    assert end.fault is None, end.log.decode()
    assert end.submission is not None
    assert end.submission.note == "an idea, untested"
    assert b"REPORT_EVERY = 20" in end.submission.files["trainer/train.py"]
    assert model.result(0) == starter()["trainer/train.py"].decode()
    assert "trainer/model.py" in model.result(0, 1)
    assert json.loads(model.result(2))["score"] == 2.0
    assert desk.runs == [("report less", 0.5, 2.0)]
    assert desk.notes == ["hm"]
    assert json.loads(model.result(2, 2))["left"]["trials"] == 2.5


def test_the_prompt_holds_brief_charter_code_digest_and_seed(glass: ProcessGlass) -> None:
    model = Scripted()
    desk = ToyDesk(model, lambda files, fraction: 2.0)
    desk.past["last"] = [{"generation": 6, "what": "tried a thing {{brief}}", "decision": "rejected"}]
    session(glass, starter(), desk, seed=5, generation=7, brief="Tales of old.")
    system, task = (message.text for message in model.requests[0].messages)
    assert starter()["scaffold/charter.md"].decode() in system
    for part in ("Tales of old.", "seed: 5, generation: 7", "tried a thing {{brief}}", "rejected", "LEARNING_RATE"):
        assert part in task
    assert "scaffold/improve.py" in task
    left_over = re.findall(r"\{\{\w+\}\}", system + task)
    assert left_over == ["{{brief}}"], "only the one that stood in the history"


MISTAKES = [
    (("fly", {}), "no tool 'fly'; there are: history"),
    (("read_file", "{broken"), "not a JSON object"),
    (("write_file", {"path": "a"}), "missing: text"),
    (("read_file", {"path": "../scaffold/improve.py"}), "outside work/"),
    (("read_file", {"path": "/etc/passwd"}), "outside work/"),
    (("write_file", {"path": "../trainer/model.py", "text": ""}), "outside work/"),
    (("write_file", {"path": "trainer", "text": ""}), "a folder"),
    (("read_file", {"path": "trainer/none.py"}), "no such file"),
    (("replace", {"path": "trainer/train.py", "old": "import", "new": "x"}), "times, not once"),
    (("replace", {"path": "trainer/train.py", "old": "", "new": "x"}), "0 times"),
    (("trial", {"note": "", "fraction": 9}), "refused: asked for 9 trials"),
    (("trial", {"note": "", "fraction": "much"}), "ValueError"),
    (("submit", {"note": ""}), "nothing is changed"),
]


@pytest.fixture(scope="module")
def mistakes(glass: ProcessGlass) -> tuple[Scripted, SessionEnd]:
    """All of them in one session, one a turn."""
    model, _, end = play(glass, *[[call] for call, _ in MISTAKES], "I give up.")
    return model, end


@pytest.mark.parametrize(("turn", "answer"), [(turn, answer) for turn, (_, answer) in enumerate(MISTAKES)])
def test_a_mistaken_call_comes_back_as_an_error(mistakes: tuple[Scripted, SessionEnd], turn: int, answer: str) -> None:
    model, end = mistakes
    assert model.result(turn).startswith("error: ")
    assert answer in model.result(turn)
    assert end.fault == "no_submit"


def test_a_model_that_stops_calling_tools_twice_ends_the_session_without_a_submission(glass: ProcessGlass) -> None:
    model, _, end = play(
        glass, [WRITE], "Hm.", [("read_file", {"path": "scaffold/idea.md"})], "Done?", "Done.", [SUBMIT]
    )
    assert len(model.requests) == 5
    assert "called no tool" in model.requests[2].messages[-1].text
    assert end.fault == "no_submit"


def test_at_the_turn_limit_nothing_is_submitted(glass: ProcessGlass) -> None:
    model, _, end = play(glass, *[[("read_file", {"path": "trainer/data.py"})]] * 50)
    assert len(model.requests) == 40
    assert "4 turns are left" in model.requests[36].messages[-1].text
    assert end.fault == "no_submit"
    assert b"turn limit" in end.log


def test_a_tool_that_a_successor_added_is_offered_and_works(glass: ProcessGlass) -> None:
    tool = 'SPEC = {"name": "hello", "description": "", "parameters": {"type": "object"}}\nrun = lambda args: "hi"\n'
    model, _, _ = play(glass, [("hello", {})], bundle={**starter(), "scaffold/tools/hello.py": tool.encode()})
    assert "hello" in [spec.name for spec in model.requests[0].tools]
    assert model.result(0) == "hi"


def test_a_tool_that_does_not_load_is_reported_and_the_others_work(glass: ProcessGlass) -> None:
    bundle = {**starter(), "scaffold/tools/note.py": b"SPEC = run = nothing\n"}
    model, _, end = play(glass, [WRITE], [SUBMIT], bundle=bundle)
    assert "note.py does not load" in model.requests[0].messages[1].text
    assert end.submission is not None


def test_the_shell_runs_in_work_and_is_cut_off(glass: ProcessGlass) -> None:
    model, _, _ = play(glass, [("shell", {"command": "ls; echo oops >&2; exit 3"})])
    assert "scaffold\ntrainer\noops" in model.result(0)
    assert "exit status 3" in model.result(0)
    patient = starter()["scaffold/scaffold.toml"]
    quick = {"scaffold/scaffold.toml": patient.replace(b"shell_seconds = 60", b"shell_seconds = 2")}
    model, _, _ = play(
        glass,
        [("shell", {"command": "sleep 30 & sleep 30"})],
        [("shell", {"command": "yes"})],
        [("shell", {"command": "sleep 20 & echo started"})],
        bundle={**starter(), **quick},
    )
    assert "past the time limit" in model.result(0)
    assert "too much output" in model.result(1) or "past the time limit" in model.result(1)
    assert len(model.result(1)) <= 16_000
    assert "started" in model.result(2)


def test_a_long_tool_result_keeps_its_head_and_tail(glass: ProcessGlass) -> None:
    text = "begin" + "x" * 100_000 + "end"
    model, _, _ = play(
        glass,
        [("write_file", {"path": "scaffold/long.md", "text": text})],
        [("read_file", {"path": "scaffold/long.md"}), ("read_file", {"path": "scaffold/long.md", "last": 1})],
    )
    result = model.result(1)
    assert result.startswith("begin")
    assert result.endswith("end")
    assert "characters cut" in result
    assert len(result) <= 16_000


def test_the_conversation_stays_bounded_and_the_newest_results_stay_whole(glass: ProcessGlass) -> None:
    big = starter()["trainer/model.py"].decode()
    small = starter()["scaffold/scaffold.toml"].replace(b"context_chars = 160000", b"context_chars = 60000")
    model, _, _ = play(
        glass,
        *[[("read_file", {"path": "trainer/model.py"})]] * 38,
        bundle={**starter(), "scaffold/scaffold.toml": small},
    )
    sizes = [sum(len(message.text) for message in request.messages) for request in model.requests]
    assert max(sizes) <= 60_000
    last = model.requests[30].messages
    assert last[-1].text == big
    assert any(message.text.startswith("[elided") for message in last)
    assert "seed: 0" in last[1].text, "the task is never elided"
    called = {call.id for message in last for call in message.calls}
    assert {message.call_id for message in last if message.role == "tool"} <= called


def test_whole_rounds_go_when_eliding_results_is_not_enough(glass: ProcessGlass) -> None:
    small = starter()["scaffold/scaffold.toml"].replace(b"context_chars = 160000", b"context_chars = 60000")
    text = "y" * 5000
    model, _, _ = play(
        glass,
        *[[("write_file", {"path": "scaffold/y.md", "text": text})]] * 30,
        bundle={**starter(), "scaffold/scaffold.toml": small},
    )
    last = model.requests[29].messages
    assert sum(len(str(message)) for message in last) <= 75_000
    assert last[2].role == "assistant"
    assert last[-1].role == "tool"


@pytest.mark.parametrize(
    ("edit", "note", "problem"),
    [
        (("write_file", {"path": "trainer/model.py", "text": "def ("}), "x", "does not parse"),
        (("write_file", {"path": "scaffold/tools/new.py", "text": "x = 1\n"}), "x", "a tool needs SPEC"),
        (("write_file", {"path": "scaffold/charter.md", "text": "Anything goes.\n"}), "a new idea", "does not say so"),
        (("shell", {"command": "rm trainer/data.py"}), "x", "trainer/data.py: missing"),
        (("shell", {"command": "ln -s /etc/hosts scaffold/link.md"}), "x", "a link"),
        (("write_file", {"path": "trainer/more.py", "text": ""}), "x", "may not be changed"),
    ],
)
def test_the_self_check_holds_a_submission_back(
    glass: ProcessGlass, edit: tuple[str, object], note: str, problem: str
) -> None:
    model, _, end = play(glass, [edit], [("submit", {"note": note})])
    assert problem in model.result(1)
    assert end.submission is None


def test_the_self_check_knows_what_this_loop_lets_be_edited(glass: ProcessGlass) -> None:
    model, _, end = play(glass, [WRITE], [SUBMIT], may_edit=["optimiser"])
    assert "scaffold/idea.md: may not be changed in this loop" in model.result(1)
    assert end.submission is None


def test_a_changed_charter_can_be_submitted_when_the_note_says_so(glass: ProcessGlass) -> None:
    edit = ("write_file", {"path": "scaffold/charter.md", "text": "Be kind.\n"})
    _, _, end = play(glass, [edit], [("submit", {"note": "A shorter charter."})])
    assert end.submission is not None


def test_what_python_leaves_behind_is_not_submitted(glass: ProcessGlass) -> None:
    command = "for half in trainer scaffold; do mkdir $half/__pycache__; touch $half/__pycache__/a.pyc; done"
    _, _, end = play(glass, [("shell", {"command": command})], [WRITE], [SUBMIT])
    assert end.submission is not None
    assert not [path for path in end.submission.files if "pycache" in path]
