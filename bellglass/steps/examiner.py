"""The examiner: a scripted model that puts a scaffold through its paces in the boot check.

It knows no scaffold by heart. It finds, among the tools offered, one that reads, one that edits, one that runs a
trial and one that submits (by name), fills their arguments in (by parameter name), and calls them in that order.
What it writes is a mark that the host then looks for in the submission: a scaffold passes by what reached the host,
not by what it says. Pure: the answer depends on the conversation alone.

Not covered: whether the scaffold is any good; a scaffold that recognises the examination and behaves differently
outside it (later sessions are judged by what they yield); one that hides earlier calls from its model (it fails).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bellglass.records import ChatMessage, ChatReply, ChatRequest, Cost, Json, ToolCall, ToolSpec

MARK = "examined: the boot check edited this"
NOTE = "boot check"
READ_PATH = "scaffold/improve.py"  # the entry: every scaffold has it
NEW_PATH = "scaffold/examined.md"

STEPS = ("read", "edit", "trial", "submit")
NAMES = {  # in order of preference; a tool whose name contains the word will do
    "read": ("read_file", "read", "open", "view"),
    "edit": ("write_file", "write", "replace", "edit"),
    "trial": ("trial", "try", "race"),
    "submit": ("submit",),
}


@dataclass(frozen=True, slots=True)
class ExamFacts:
    """What the host saw of an examination."""

    chats: int
    trials: int
    submission: Mapping[str, bytes] | None
    fault: str | None  # one of GUEST_FAULTS


class Examiner:
    """Implements ports.Model."""

    name = "examiner"
    hosted = False

    def forecast(self, request: ChatRequest) -> Cost:
        return Cost(calls=1)

    def chat(self, request: ChatRequest) -> ChatReply:
        if not request.tools:
            return _say("This is an examination; offer the tools, please.")
        step = _next_step(request.messages)
        if step is None:
            return _say("The examination is over.")
        tool = _find(step, request.tools)
        if tool is None:
            return _say(f"No tool to {step} is offered.")
        args = _arguments(tool, _values(step, tool, request.messages))
        call = ToolCall(id=f"exam-{step}", name=tool.name, args=args)
        return ChatReply(text="", calls=(call,), stop="calls", cost=Cost(calls=1))


def passed(facts: ExamFacts) -> str | None:
    """None for a pass; else the first thing that was missing, in words of ours."""
    if facts.fault is not None:
        return f"the session ended with {facts.fault!r}"
    if facts.chats == 0:
        return "it never asked the model"
    if facts.submission is None:
        return "it submitted nothing"
    if not any(MARK.encode() in data for data in facts.submission.values()):
        return "the examiner's edit is not in what it submitted"
    if facts.trials == 0:
        return "it never ran the trial that the examiner called for"
    return None


def _say(text: str) -> ChatReply:
    return ChatReply(text=text, calls=(), stop="end", cost=Cost(calls=1))


def _next_step(messages: Sequence[ChatMessage]) -> str | None:
    """The first step that has not been called yet; calls are known by their ids."""
    called = {call.id for message in messages for call in message.calls}
    return next((step for step in STEPS if f"exam-{step}" not in called), None)


def _find(step: str, tools: Sequence[ToolSpec]) -> ToolSpec | None:
    for word in NAMES[step]:
        exact = next((tool for tool in tools if tool.name == word), None)
        close = next((tool for tool in tools if word in tool.name.lower()), None)
        if exact or close:
            return exact or close
    return None


def _values(step: str, tool: ToolSpec, messages: Sequence[ChatMessage]) -> dict[str, str]:
    """What to fill in, by a word in the parameter's name."""
    if step == "read":
        return {"path": READ_PATH, "file": READ_PATH}
    if step == "edit" and "old" in " ".join(_properties(tool)):
        old = _anchor(_result_of("exam-read", messages))
        return {"path": READ_PATH, "file": READ_PATH, "old": old, "new": f"# {MARK}\n{old}"}
    if step == "edit":
        return {"path": NEW_PATH, "file": NEW_PATH, "text": MARK, "content": MARK}
    return {"note": NOTE}


def _result_of(call_id: str, messages: Sequence[ChatMessage]) -> str:
    return next((message.text for message in messages if message.call_id == call_id), "")


def _anchor(text: str) -> str:
    """A line that stands alone at the left margin and occurs once: a comment before it changes nothing."""
    for line in text.splitlines():
        if re.match(r"(def|class|import|from) \w", line) and text.count(line) == 1 and "__future__" not in line:
            return line
    return next((line for line in text.splitlines() if line.strip() and text.count(line) == 1), "import glass")


def _properties(tool: ToolSpec) -> dict[str, Json]:
    parameters = tool.parameters if isinstance(tool.parameters, dict) else {}
    properties = parameters.get("properties", {})
    return properties if isinstance(properties, dict) else {}


def _arguments(tool: ToolSpec, values: Mapping[str, str]) -> dict[str, Json]:
    """Every required parameter gets a value: a known one, or the plainest of its type."""
    properties = _properties(tool)
    required = tool.parameters.get("required", []) if isinstance(tool.parameters, dict) else []
    args: dict[str, Json] = {}
    for name, schema in properties.items():
        known = next((value for word, value in values.items() if word in name.lower()), None)
        if known is not None and _type(schema) == "string":
            args[name] = known
        elif name in required:
            args[name] = _plainest(schema)
    return args


def _type(schema: Json) -> str:
    kind = schema.get("type", "string") if isinstance(schema, dict) else "string"
    return kind if isinstance(kind, str) else "string"


def _plainest(schema: Json) -> Json:
    if isinstance(schema, dict) and isinstance(schema.get("enum"), list) and schema["enum"]:
        return schema["enum"][0]
    plain: dict[str, Json] = {"string": NOTE, "number": 1.0, "integer": 1, "boolean": False, "array": [], "object": {}}
    return plain.get(_type(schema), NOTE)
