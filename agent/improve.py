"""One session of an improver: a model is shown the task and offered tools, and edits work/ until it submits.

The model sees the brief, the charter, the current code and a digest of the ledger; never the conversations of earlier
sessions. Every file in tools/ is a tool, so one that a successor adds is there in the next generation. A mistake of the
model's (an unknown tool, broken arguments, a failing tool) comes back to it as the call's result.

Nothing in here is privileged: what counts is what the host at the other end of `glass` allows.
"""

from __future__ import annotations

import importlib.util
import json
from types import ModuleType

import desk  # it lies beside this file
import glass

WARN_AT = 4  # turns before the end
KEEP_RESULTS = 6  # the latest results are never elided


def load_tools() -> tuple[dict[str, ModuleType], list[str]]:
    """Every file in tools/ that loads, by the name in its SPEC; and what is wrong with the others."""
    tools, problems = {}, []
    for path in sorted((desk.SCAFFOLD / "tools").glob("*.py")):
        try:
            spec = importlib.util.spec_from_file_location(f"tool_{path.stem}", path)
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            tools[module.SPEC["name"]] = module
        except Exception as error:  # a broken tool must not end the session that could repair it
            problems.append(f"The tool {path.name} does not load: {type(error).__name__}: {error}")
    return tools, problems


def call_tool(tools: dict[str, ModuleType], call: dict, cap: int) -> tuple[str, bool]:
    """The result as text, and whether the session is over."""
    tool, args = tools.get(call["name"]), call["args"]
    if tool is None:
        return f"error: no tool {call['name']!r}; there are: {', '.join(tools)}", False
    if not isinstance(args, dict):
        return f"error: the arguments are not a JSON object: {str(args)[:200]!r}", False
    missing = [name for name in tool.SPEC["parameters"].get("required", []) if name not in args]
    if missing:
        return f"error: missing: {', '.join(missing)}", False
    try:
        result = tool.run(args)
    except (desk.ToolError, glass.Refused) as error:
        return f"error: {error}"[:cap], False
    except Exception as error:  # a tool's mistake is news for the model, not the end
        return f"error: {type(error).__name__}: {error}"[:cap], False
    text = result if isinstance(result, str) else json.dumps(result)
    return desk.clip(text, cap), getattr(tool, "ENDS", False)


def opening(settings: dict, problems: list[str]) -> list[dict]:
    """The system message and the task."""
    args, trainer, scaffold = glass.args, desk.WORK / "trainer", desk.WORK / "scaffold"
    code = "\n".join(f"## trainer/{path.name}\n\n```python\n{path.read_text()}```\n" for path in desk.files(trainer))
    listing = "\n".join(f"{path.relative_to(desk.WORK)}  {path.stat().st_size} bytes" for path in desk.files(scaffold))
    words = {
        "charter": (desk.SCAFFOLD / "charter.md").read_text(),
        "brief": glass.brief(),
        "seed": args["seed"],
        "generation": args["generation"],
        "may_edit": ", ".join(args["may_edit"]),
        "limits": json.dumps(args["limits"]),
        "turns": settings["turns"],
        "budget": json.dumps(glass.budget()),
        "problems": "\n".join(problems),
        "digest": desk.clip(digest(glass.history()), settings["digest_chars"]),
        "code": desk.clip(code, settings["code_chars"]),
        "files": desk.clip(listing, settings["digest_chars"]),
    }
    return [{"role": "system", "text": prompt("system", words)}, {"role": "user", "text": prompt("task", words)}]


def prompt(name: str, words: dict) -> str:
    """A template of prompts/ with its `{{words}}` filled in, in one pass: what is filled in is not searched again."""
    pieces = (desk.SCAFFOLD / "prompts" / f"{name}.md").read_text().split("{{")
    text = pieces[0]
    for piece in pieces[1:]:
        word, closing, rest = piece.partition("}}")
        text += f"{words[word]}{rest}" if closing and word in words else "{{" + piece
    return text


def digest(history: dict) -> str:
    """The host's digest as lines; the notes in it are an improver's own words."""
    lines = [f"Noise of a score over seeds: {history.get('noise') or 'not measured yet'}"]
    for title, key in (("The best so far", "best"), ("The last ones", "last")):
        entries = history.get(key) or []
        lines.append(f"\n{title}:" if entries else f"\n{title}: none yet")
        for entry in entries:
            facts = {name: value for name, value in entry.items() if name not in ("what", "generation")}
            lines.append(f"- generation {entry.get('generation')}: {entry.get('what')} {json.dumps(facts)}")
    return "\n".join(lines)


def bounded(messages: list[dict], cap: int) -> list[dict]:
    """The conversation within `cap` characters: old tool results are elided first, then whole old rounds go."""
    if size(messages) <= cap:
        return messages
    goal = cap * 3 // 4  # go well below, so that a provider's cache of the beginning serves more than one turn
    old = [message for message in messages if message["role"] == "tool"][:-KEEP_RESULTS]
    for message in old:
        if size(messages) <= goal:
            return messages
        if len(message["text"]) > 200:
            message["text"] = f"[elided: {len(message['text'])} characters; call the tool again if you need them]"
    while size(messages) > goal:
        rounds = [index for index, message in enumerate(messages) if message["role"] == "assistant"]
        if len(rounds) < 3:
            break
        del messages[rounds[0] : rounds[1]]
    return messages


def size(messages: list[dict]) -> int:
    return sum(len(json.dumps(message)) for message in messages)


def converse(settings: dict, tools: dict[str, ModuleType], messages: list[dict]) -> str:
    """Chat and tool calls, until the session ends; returns why it did."""
    specs = [tool.SPEC for tool in tools.values()]
    idle = 0
    for turn in range(settings["turns"]):
        messages = bounded(messages, settings["context_chars"])
        reply = glass.chat(messages, specs, max_tokens=settings["max_tokens"])
        calls = reply["calls"]
        messages.append({"role": "assistant", "text": reply["text"], "calls": calls, "opaque": reply["opaque"]})
        for call in calls:
            text, over = call_tool(tools, call, settings["tool_output_chars"])
            if over:
                return "submitted"
            messages.append({"role": "tool", "text": text, "call_id": call["id"]})
        idle = 0 if calls else idle + 1
        if idle == 2:
            return "the model stopped calling tools"
        if idle:
            messages.append({"role": "user", "text": prompt("nudge", {})})
        elif turn == settings["turns"] - 1 - WARN_AT:
            messages.append({"role": "user", "text": f"{WARN_AT} turns are left: submit what you have, or stop."})
    return "the turn limit was reached; nothing was submitted"


def main() -> None:
    settings = desk.settings()
    settings["turns"] = min(settings["turns"], glass.args["limits"].get("calls") or settings["turns"])
    tools, problems = load_tools()
    print(converse(settings, tools, opening(settings, problems)))


if __name__ == "__main__":
    main()
