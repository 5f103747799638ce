"""What the offline improver does to the scaffold: real improvements, and two kinds of controls.

An improvement is a tool or a prompt that a later generation finds and uses. `inert` makes edits that change nothing
a model or a host would notice; `harmful` makes ones that break or cripple the session, for checks that should
notice.

The tools below run inside a guest, beside the starter's own; they are text here because nothing on the host runs
them.
"""

from __future__ import annotations

from bellglass.doors.offline_model.talk import Files, Talk

RACE_PATH, TRY_PATH, TASK_PATH = "scaffold/tools/race.py", "scaffold/tools/try_edit.py", "scaffold/prompts/task.md"
LESSONS = "# What earlier sessions learnt\n"
MOST_LESSONS = 12

RACE = '''"""Race candidate edits in rounds: some side by side, each on a short training, on top of what won before."""

import desk
import glass

SPEC = {
    "name": "race",
    "description": "Try many candidate edits of work/trainer on short trials, `lanes` of them at a time. The best of a "
    "round stays in work/trainer when it beats all before, and the next round is run on top of it; what won beside it "
    "runs again there. A candidate: a name and passages.",
    "parameters": {
        "type": "object",
        "properties": {
            "candidates": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {
                        "name": {"type": "string"},
                        "edits": {
                            "type": "array",
                            "items": {
                                "type": "object",
                                "properties": {
                                    "path": {"type": "string"},
                                    "old": {"type": "string"},
                                    "new": {"type": "string"},
                                },
                            },
                        },
                    },
                },
            },
            "short": {"type": "number", "description": "share of a trial for each candidate"},
            "lanes": {"type": "integer", "description": "candidates in a round"},
        },
        "required": ["candidates", "short", "lanes"],
    },
}


def edited(edits):
    """The files that these edits change; None when one does not fit."""
    files = {}
    for edit in edits:
        text = files.get(edit["path"]) or desk.read(edit["path"])
        if text.count(edit["old"]) != 1:
            return None
        files[edit["path"]] = text.replace(edit["old"], edit["new"])
    return files


def run(args):
    waiting = [(candidate["name"], candidate["edits"]) for candidate in args["candidates"]]
    scores, faults, unfit, kept = {}, {}, [], []

    def heat(entrants):
        """Scores by name; a failed training has none."""
        more = {"fraction": args["short"]}
        asked = [{"files": files, "note": f"race: {name}", **more} for name, files in entrants.items()]
        found = {}
        for name, result in zip(entrants, glass.trials(asked)):
            if result["ok"]:
                found[name] = result["score"]
            else:
                faults[name] = result["fault"]
        scores.update(found)
        return found

    best = heat({"unchanged": {}}).get("unchanged", float("inf"))
    while waiting:
        entrants, texts = {}, {}
        while waiting and len(entrants) < args["lanes"]:
            name, edits = waiting.pop(0)
            files = edited(edits)
            if files is None:
                unfit.append(name)
            else:
                entrants[name], texts[name] = edits, files
        if not entrants or glass.budget()["trials"] < len(entrants) * args["short"]:
            waiting = [*entrants.items(), *waiting]
            break
        found = heat(texts)
        better = sorted((name for name in found if found[name] < best), key=found.get)
        if better:
            winner, *others = better
            best = found[winner]
            kept.append(winner)
            for path, text in texts[winner].items():
                desk.write(path, text)
            waiting[:0] = [(name, entrants[name]) for name in others]
    untried = [name for name, _ in waiting]
    told = {"scores": scores, "best": best, "kept": kept, "faults": faults, "unfit": unfit, "untried": untried}
    return {**told, "left": glass.budget()}
'''

TRY = '''"""Apply an edit, try it, and keep it only if it helps: one call instead of three."""

import desk
import glass

SPEC = {
    "name": "try_edit",
    "description": "Replace passages of work/trainer, run a trial, undo it unless it scores below `to_beat`.",
    "parameters": {
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "edits": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {
                        "path": {"type": "string"},
                        "old": {"type": "string"},
                        "new": {"type": "string"},
                    },
                },
            },
            "fraction": {"type": "number"},
            "to_beat": {"type": "number"},
        },
        "required": ["name", "edits", "fraction", "to_beat"],
    },
}


def run(args):
    before = {edit["path"]: desk.read(edit["path"]) for edit in args["edits"]}
    after = dict(before)
    for edit in args["edits"]:
        if after[edit["path"]].count(edit["old"]) != 1:
            raise desk.ToolError(f"{edit['path']}: `old` does not stand there exactly once; nothing was changed")
        after[edit["path"]] = after[edit["path"]].replace(edit["old"], edit["new"])
    kept = False
    try:
        for path, text in after.items():
            desk.write(path, text)
        result = glass.trial(note=f"try: {args['name']}", fraction=args["fraction"])
        kept = bool(result["ok"]) and result["score"] < args["to_beat"]
    finally:
        if not kept:
            for path, text in before.items():
                desk.write(path, text)
    return {**result, "kept": kept}
'''


def next_gift(talk: Talk, scaffold: Files, lessons: list[str]) -> tuple[str, dict[str, str]]:
    """The next real improvement that this scaffold lacks: what it is, and the files it writes."""
    if "race" not in talk.tools:
        return "added a tool, race, that tries several edits side by side on short trainings", {RACE_PATH: RACE}
    if "try_edit" not in talk.tools:
        return "added a tool, try_edit, that applies, tries and keeps or undoes an edit in one call", {TRY_PATH: TRY}
    task = scaffold.get(TASK_PATH)
    if task is None or not lessons:
        return "", {}
    return "wrote what was learnt into the task's prompt", {TASK_PATH: with_lessons(task, lessons)}


def with_lessons(task: str, lessons: list[str]) -> str:
    """The prompt with the latest lessons at its end; only so many, so that it stays bounded."""
    head, _, old = task.partition(LESSONS)
    lines = [line for line in old.splitlines() if line.strip()] + [f"- {lesson}" for lesson in lessons]
    return head.rstrip("\n") + "\n\n" + LESSONS + "\n" + "\n".join(lines[-MOST_LESSONS:]) + "\n"


def inert_edit(talk: Talk, scaffold: Files) -> tuple[str, dict[str, str]]:
    """A comment: the scaffold's bytes change, its behaviour does not."""
    path = "scaffold/improve.py"
    if path not in scaffold:
        return "", {}
    return "tidied a comment", {path: scaffold[path] + f"# generation {talk.generation}: read again\n"}


def harmful_edit(talk: Talk, scaffold: Files) -> tuple[str, dict[str, str]]:
    """One of three harms by turns: a tool that fails, one that lies about what it did, a session cut short."""
    harms = {
        "scaffold/tools/trial.py": ("    return glass.trial(", '    raise RuntimeError("no")\n    return glass.trial('),
        "scaffold/tools/write_file.py": ("{desk.write(args['path'], args['text'])}", "{len(args['text'])}"),
        "scaffold/scaffold.toml": ("turns = 40", "turns = 6"),
    }
    turn = (talk.seed + talk.generation) % len(harms)
    for path in [*harms][turn:] + [*harms][:turn]:
        old, new = harms[path]
        if scaffold.get(path, "").count(old) == 1:
            return f"changed {path.removeprefix('scaffold/')}", {path: scaffold[path].replace(old, new)}
    return "", {}
