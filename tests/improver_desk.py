"""A desk with a synthetic judge: real sessions (wire, guest, scaffold, gateway) whose trials cost no training.

Documented double, used by the scaffold's, the examiner's and the offline improver's tests. `score` maps a candidate's
trainer files and its share of the budget to a score, or to a fault word. Trials are charged as the real desk charges.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from support import MemoryBook

from bellglass.doors.process_glass import ProcessGlass
from bellglass.errors import GuestFault
from bellglass.line.gateway import Gateway
from bellglass.ports import GuestSpec, Model
from bellglass.records import Bundle, CallKey, ChatReply, ChatRequest, Cost, Json, Role, ToolCall
from bellglass.steps.session import SessionEnd, serve

ROOT = Path(__file__).resolve().parent.parent
Score = Callable[[Mapping[str, str], float], "float | str"]


def starter() -> dict[str, bytes]:
    """The starter bundle as it lies in the checkout."""
    files = {}
    for half, folder in (("scaffold", "agent"), ("trainer", "trainer_seed")):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                files[f"{half}/{path.relative_to(ROOT / folder).as_posix()}"] = path.read_bytes()
    return files


def trainer_texts(bundle: Bundle) -> dict[str, str]:
    return {path: data.decode() for path, data in bundle.items() if path.startswith("trainer/")}


def parses(files: Mapping[str, str]) -> bool:
    try:
        for text in files.values():
            ast.parse(text)
    except SyntaxError:
        return False
    return True


class Scripted:
    """A Model that says the given turns one after the other, then nothing. A turn: text, or (tool, args) pairs."""

    name = "scripted"
    hosted = False

    def __init__(self, *turns: str | Sequence[tuple[str, Json]]) -> None:
        self.turns = list(turns)
        self.requests: list[ChatRequest] = []

    def forecast(self, request: ChatRequest) -> Cost:
        return Cost(calls=1)

    def chat(self, request: ChatRequest) -> ChatReply:
        self.requests.append(request)
        index = len(self.requests) - 1
        turn = self.turns[index] if index < len(self.turns) else "I have nothing more to say."
        if isinstance(turn, str):
            return ChatReply(turn, (), "end", cost=Cost(calls=1))
        calls = tuple(ToolCall(f"c{index}-{i}", name, args) for i, (name, args) in enumerate(turn))
        return ChatReply("", calls, "calls", cost=Cost(calls=1))

    def result(self, turn: int, call: int = 0) -> str:
        """What came back for a call of that turn."""
        wanted = f"c{turn}-{call}"
        return next(m.text for m in self.requests[-1].messages if m.role == "tool" and m.call_id == wanted)


@dataclass
class ToyDesk:
    model: Model
    score: Score
    trials_left: float = 3.0
    past: Json = field(default_factory=lambda: {"generation": 1, "best": [], "last": [], "noise": None})
    runs: list[tuple[str, float, float | str]] = field(default_factory=list)  # note, fraction, score
    notes: list[str] = field(default_factory=list)
    chats: int = 0
    bundle: dict[str, bytes] = field(default_factory=dict)  # what the session submitted, where a test keeps it

    def __post_init__(self) -> None:
        self._gateway = Gateway({"main": self.model}, MemoryBook())

    def tick(self) -> None:
        pass

    def chat(self, body: bytes) -> bytes:
        self.chats += 1
        return self._gateway.chat(body, CallKey(1, "improve", self.chats))

    def trial(self, files: Mapping[str, bytes], args: Json) -> Json:
        return self._all([(files, args)])[0]

    def trials(self, files: Mapping[str, bytes], candidates: list[Json]) -> Json:
        wanted = []
        for candidate in candidates:
            overlay = {path: text.encode() for path, text in candidate.get("files", {}).items()}
            wanted.append(({**files, **overlay}, candidate))
        return self._all(wanted)

    def _all(self, wanted: Sequence[tuple[Mapping[str, bytes], Json]]) -> list[Json]:
        asked = sum(args["fraction"] for _, args in wanted)
        if asked > self.trials_left + 1e-9:
            raise GuestFault("refused", f"asked for {asked:g} trials, {self.trials_left:g} are left")
        self.trials_left = round(self.trials_left - asked, 4)
        return [self._run(files, args) for files, args in wanted]

    def _run(self, files: Mapping[str, bytes], args: Json) -> Json:
        score = self.score({path: data.decode() for path, data in files.items()}, args["fraction"])
        self.runs.append((args.get("note", ""), args["fraction"], score))
        fault = score if isinstance(score, str) else None
        return {
            "ok": fault is None,
            "score": None if fault else score,
            "by_skill": {},
            "claim": None,
            "fault": fault,
            "log": "",
            "seconds": args["fraction"],
            "fraction": args["fraction"],
            "left": {"trials": self.trials_left},
        }

    def history(self) -> Json:
        return self.past

    def budget(self) -> Json:
        return {"trials": self.trials_left, "train_seconds": None, "calls": 60, "tokens": None, "usd": None}

    def note(self, text: str) -> None:
        self.notes.append(text)


def session(
    glass: ProcessGlass,
    bundle: Bundle,
    desk: ToyDesk,
    *,
    seed: int = 0,
    generation: int = 1,
    may_edit: Sequence[str] = ("architecture", "data", "objective", "optimiser", "scaffold"),
    brief: str = "Make it better.",
    name: str = "improve",
) -> SessionEnd:
    """One real improve session in the process glass."""
    args = {
        "may_edit": list(may_edit),
        "limits": {"trials": desk.trials_left, "calls": 60},
        "generation": generation,
        "seed": seed,
        "session": name,
    }
    spec = GuestSpec(Role.IMPROVE, {"test": "session"}, 512, 120.0)
    return serve(glass, spec, bundle, brief, args, desk, wall_seconds=90.0)
