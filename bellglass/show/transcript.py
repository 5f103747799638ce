"""What is large of a generation, one by one: what its successor changed, what its improver's session said, its curves.

All of it came from a model or a bundle: whoever shows it shows it as text. A session is told call by call, each with
only what its request added to the one before, because a request repeats the whole conversation.

Not covered: what a session did between its calls; that is inside the glass.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict

from bellglass import curves, review
from bellglass.errors import BellglassError
from bellglass.records import Json, kind_of
from bellglass.store.blobs import Blobs
from bellglass.store.lineage import Lineage, patches
from bellglass.store.live_curves import LiveCurves
from bellglass.store.state import Call, State

TEXT_CHARS = 20_000  # of one message; the blob has all of it
PATH = re.compile(r"diff --git a/(.+?) b/\1$", re.MULTILINE)
MOST_SERIES, MOST_POINTS = 48, 128  # of curves, for one picture
REASONING = ("thinking", "text", "reasoning_content", "summary")  # where providers put words in an opaque block


def diff_of(state: State, lineage: Lineage, number: int) -> Json:
    """Where to look first, and all that changed, by file, the trainer's first.

    `evidence` is what an answer is bound to, of a successor that waits for one: its hash as this reader makes it.
    """
    gen = state.generations.get(number)
    if gen is None or gen.successor is None:
        return no_diff(number, f"generation {number} has no successor")
    try:
        compared = lineage.compare(gen.parent, gen.successor)
        flags = [asdict(flag) for flag in review.flags_of(state, gen, compared)]
        evidence = review.gather(state, number, lineage).hash if number == review.pending(state) else None
    except BellglassError as error:
        return no_diff(number, error.one_line())
    counts = {one.path: (one.added, one.removed) for one in compared.files}
    text = compared.text()
    files = sorted(_files(text, counts), key=lambda file: (not file["path"].startswith("trainer/"), file["path"]))
    note = patches(text)[0].strip().strip("[]")
    between = {"parent": gen.parent, "successor": gen.successor}
    told = {"flags": flags, "evidence": evidence, "note": note, "files": files, "missing": ""}
    return {"generation": number, **between, **told}


def no_diff(number: int, why: str) -> Json:
    """The same where there is none to show."""
    return {"generation": number, "flags": [], "evidence": None, "note": "", "files": [], "missing": why}


def _files(text: str, counts: dict[str, tuple[int, int]]) -> Iterator[Json]:
    for patch in patches(text)[1]:
        found = PATH.match(patch)
        if found is None:
            continue
        path = found.group(1)
        added, removed = counts.get(path, (0, 0))
        kind = kind_of(path)
        body = patch[at:] if (at := patch.find("\n@@") + 1) else ""
        name = None if kind is None else str(kind)
        yield {"path": path, "kind": name, "added": added, "removed": removed, "patch": body}


def session_of(state: State, blobs: Blobs, number: int) -> Json:
    """Every model call of a generation, in order, and the end of what its guest printed."""
    missing: list[str] = []
    calls: list[Json] = []
    before: dict[str, list[Json]] = {}
    for key, call in sorted(state.calls_in(number), key=lambda item: _index(item[0])):
        session = key.rpartition("-")[0]
        request = _stored(blobs, call.request_sha, key, missing) or {"messages": []}
        reply = None if call.reply_sha is None else _stored(blobs, call.reply_sha, key, missing)
        fresh = _fresh(before.get(session, []), request["messages"])
        before[session] = [*request["messages"], *([_as_message(reply)] if reply else [])]
        calls.append(_told(key, call, fresh, reply))
    gen = state.generations.get(number)
    logs = [] if gen is None else [_log(blobs, sha, missing) for sha in gen.logs]
    return {"generation": number, "calls": calls, "printed": [log for log in logs if log], "missing": missing}


def curves_of(state: State, blobs: Blobs, number: int) -> Json:
    """What the trainers of a generation reported while they trained, evenly thinned: claims."""
    series: list[Json] = []
    missing: list[str] = []
    for trial in state.trials_in(number):
        if trial.curves is None or len(series) >= MOST_SERIES:
            continue
        try:
            found = curves.read(blobs.get(trial.curves))
        except (BellglassError, ValueError) as error:
            missing.append(f"{trial.trial_id}: {error.one_line() if isinstance(error, BellglassError) else error}")
            continue
        series += _series(trial.trial_id, found)
    return {"generation": number, "series": series[:MOST_SERIES], "missing": missing}


def live_curves_of(state: State, live: LiveCurves) -> Json:
    """The same of the trainings under way, as far as they have come."""
    found = live.read(state.open_trials)
    return {"series": [line for trial_id, lines in found.items() for line in _series(trial_id, lines)][:MOST_SERIES]}


def _series(trial_id: str, found: curves.Lines) -> Iterator[Json]:
    for name, points in found.items():
        thin = points[:: len(points) // MOST_POINTS + 1]
        yield {"trial": trial_id, "name": name, "points": [[step, value] for step, _, value in thin]}


def _index(key: str) -> tuple[str, int]:
    session, _, index = key.rpartition("-")
    return session, int(index) if index.isdecimal() else 0


def _told(key: str, call: Call, fresh: list[Json], reply: Json) -> Json:
    facts = call.facts
    return {
        "key": key,
        "model": call.model,
        "provider": facts.get("provider_model") or facts.get("provider", ""),
        "outcome": facts.get("outcome", ""),
        "cost": asdict(call.cost),
        "heard": [_message(message) for message in fresh],
        "reply": None
        if reply is None
        else {**_message({"role": "assistant", **reply}), "reasoning": _reasoning(reply)},
    }


def _message(message: Json) -> Json:
    text = message.get("text", "")
    calls = [{"name": call["name"], "args": _args(call["args"])} for call in message.get("calls", [])]
    return {"role": message["role"], "text": text[:TEXT_CHARS], "cut": len(text) > TEXT_CHARS, "calls": calls}


def _args(args: Json) -> Json:
    """Strings stay strings, so that an edit reads as lines; whatever is longer than a message is cut."""
    if not isinstance(args, dict):
        return {"": str(args)[:TEXT_CHARS]}
    return {
        str(key): (value if isinstance(value, str) else json.dumps(value))[:TEXT_CHARS] for key, value in args.items()
    }


def _reasoning(reply: Json) -> list[str]:
    blocks = [block for block in reply.get("opaque", []) if isinstance(block, dict)]
    words = [block[key] for block in blocks for key in REASONING if isinstance(block.get(key), str) and block[key]]
    return [word[:TEXT_CHARS] for word in words]


def _as_message(reply: Json) -> Json:
    return {"role": "assistant", "text": reply["text"], "calls": reply["calls"]}


def _fresh(old: list[Json], new: list[Json]) -> list[Json]:
    """What of a conversation comes after its beginning that was heard before."""
    same = 0
    for was, is_ in zip(old, new, strict=False):
        if any(was.get(part) != is_.get(part) for part in ("role", "text", "calls")):
            break
        same += 1
    return new[same:]


def _stored(blobs: Blobs, sha: str, key: str, missing: list[str]) -> Json:
    try:
        return json.loads(blobs.get(sha))
    except (BellglassError, ValueError) as error:
        found = error.one_line() if isinstance(error, BellglassError) else str(error)
        missing.append(f"{key}: {found}")
        return None


def _log(blobs: Blobs, sha: str, missing: list[str]) -> str:
    try:
        return blobs.get(sha).decode("utf-8", "replace")[-TEXT_CHARS:]
    except BellglassError as error:
        missing.append(f"what a session printed: {error.one_line()}")
        return ""
