"""The boot examiner: what it asks of a scaffold, and when it lets one pass."""

from __future__ import annotations

import pytest
from improver_desk import ToyDesk, starter
from improver_desk import session as improve_session

from bellglass.doors.process_glass import ProcessGlass
from bellglass.records import ChatMessage, ChatRequest, ToolCall, ToolSpec
from bellglass.steps.examiner import MARK, ExamFacts, Examiner, passed

TEXT = "import json\nimport json\nimport glass\n\n\ndef main():\n    glass.submit()\n"


def spec(name: str, **properties: str) -> ToolSpec:
    schema = {key: {"type": kind} for key, kind in properties.items()}
    return ToolSpec(name, "", {"type": "object", "properties": schema, "required": list(properties)})


def examine(tools: list[ToolSpec], results: dict[str, str], most: int = 10) -> list[ToolCall]:
    """The examiner's calls, each answered with the result given for its tool."""
    messages, calls = [ChatMessage("user", "begin")], []
    for _ in range(most):
        reply = Examiner().chat(ChatRequest("main", tuple(messages), tuple(tools)))
        messages.append(ChatMessage("assistant", reply.text, reply.calls))
        for call in reply.calls:
            calls.append(call)
            messages.append(ChatMessage("tool", results.get(call.name, "ok"), call_id=call.id))
        if not reply.calls:
            break
    return calls


def test_it_reads_then_edits_then_tries_then_submits() -> None:
    tools = [spec("submit", note="string"), spec("trial", note="string"), spec("read_file", path="string")]
    calls = examine([*tools, spec("write_file", path="string", text="string")], {})
    assert [call.name for call in calls] == ["read_file", "write_file", "trial", "submit"]
    assert MARK in calls[1].args["text"]


def test_a_scaffold_that_can_only_replace_is_given_a_passage_that_stands_there_once() -> None:
    tools = [spec("read_file", path="string"), spec("replace", path="string", old="string", new="string")]
    edit = examine(tools, {"read_file": TEXT})[1]
    assert TEXT.count(edit.args["old"]) == 1
    compile(TEXT.replace(edit.args["old"], edit.args["new"]), "edited", "exec")
    assert MARK in edit.args["new"]


def test_tools_of_other_names_and_parameters_are_found_and_filled_in() -> None:
    tools = [
        spec("view_lines", filename="string", count="integer"),
        spec("file_write", file="string", content="string"),
    ]
    calls = examine([*tools, spec("try_it", why="string"), spec("submit_all")], {})
    assert [call.name for call in calls] == ["view_lines", "file_write", "try_it", "submit_all"]
    assert calls[0].args == {"filename": "scaffold/improve.py", "count": 1}
    assert MARK in calls[1].args["content"]
    assert set(calls[2].args) == {"why"}


def test_it_stops_when_a_tool_is_missing() -> None:
    assert [call.name for call in examine([spec("read_file", path="string")], {})] == ["read_file"]


def test_it_answers_a_chat_without_tools_in_words() -> None:
    reply = Examiner().chat(ChatRequest("main", (ChatMessage("user", "plan?"),)))
    assert reply.text
    assert not reply.calls


GOOD = {"chats": 5, "trials": 1, "submission": {"scaffold/x.md": f"a {MARK} b".encode()}, "fault": None}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, None),
        ({"fault": "timeout"}, "timeout"),
        ({"chats": 0}, "never asked"),
        ({"submission": None}, "submitted nothing"),
        ({"submission": {"scaffold/x.md": b"no mark"}}, "edit is not"),
        ({"trials": 0}, "never ran"),
    ],
)
def test_a_pass_needs_a_chat_an_edit_a_trial_and_a_submission(change: dict[str, object], reason: str | None) -> None:
    why = passed(ExamFacts(**{**GOOD, **change}))  # type: ignore[arg-type]
    assert why is None if reason is None else reason in str(why)


def boot(bundle: dict[str, bytes]) -> str | None:
    desk = ToyDesk(Examiner(), lambda files, fraction: 1.0, trials_left=1.0)
    glass = ProcessGlass(warm=False)
    try:
        end = improve_session(glass, bundle, desk, name="boot")
    finally:
        glass.close()
    files = None if end.submission is None else end.submission.files
    return passed(ExamFacts(desk.chats, len(desk.runs), files, end.fault))


def test_the_starter_scaffold_passes_its_boot_check() -> None:
    assert boot(starter()) is None


def test_the_starter_scaffold_passes_with_replace_alone() -> None:
    bundle = starter()
    del bundle["scaffold/tools/write_file.py"]
    assert boot(bundle) is None


@pytest.mark.parametrize(
    ("path", "old", "new"),
    [
        ("scaffold/tools/trial.py", b"return glass.trial(", b"return str("),
        ("scaffold/tools/write_file.py", b"desk.write(args['path'], args['text'])", b"0"),
        ("scaffold/tools/submit.py", b"glass.submit(args", b"print(args"),
        ("scaffold/improve.py", b"reply = glass.chat(", b"reply = print("),
        ("scaffold/scaffold.toml", b"turns = 40", b"turns = 3"),
    ],
)
def test_a_scaffold_with_a_broken_part_fails_its_boot_check(path: str, old: bytes, new: bytes) -> None:
    bundle = starter()
    assert bundle[path].count(old) == 1
    bundle[path] = bundle[path].replace(old, new)
    assert boot(bundle) is not None
