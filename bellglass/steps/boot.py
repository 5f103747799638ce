"""Boot check: a successor's scaffold proves in a fresh guest that it can still chat, edit, run a trial and submit.

A scripted examiner plays the model and the host answers the trial with a fixed result, so the check costs no training
and no money. A scaffold that fails is not inherited; its trainer may be.

Not covered: whether the scaffold works *better*. That is the scaffold's own decision (`scaffold_rule`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from bellglass.line.gateway import Gateway, NoBook
from bellglass.ports import MEMORY_MB, GuestSpec
from bellglass.records import CallKey, Json, Role
from bellglass.steps.examiner import ExamFacts, Examiner, passed
from bellglass.steps.propose import Workplace
from bellglass.steps.session import SessionEnd, serve

WALL_SECONDS = 30.0
CALLS = 20
EXAM_RESULT = {
    "ok": True,
    "score": 1.0,
    "by_skill": {},
    "claim": None,
    "fault": None,
    "log": "",
    "seconds": 0.0,
    "fraction": 1.0,
    "left": {"trials": 1.0},
}


@dataclass(frozen=True, slots=True)
class Boot:
    ok: bool
    why: str
    fault: str | None


class ExamDesk:
    """Answers like the real desk, from nothing. Counts what the scaffold did."""

    def __init__(self, check: Callable[[], None]) -> None:
        self._gateway = Gateway({"main": Examiner()}, NoBook())
        self._check = check
        self.chats = 0
        self.trials_run = 0

    def tick(self) -> None:
        self._check()

    def chat(self, body: bytes) -> bytes:
        self.chats += 1
        return self._gateway.chat(body, CallKey(0, "boot", self.chats))

    def trial(self, files: Mapping[str, bytes], args: Json) -> Json:
        self.trials_run += 1
        return EXAM_RESULT

    def trials(self, files: Mapping[str, bytes], candidates: list[Json]) -> Json:
        self.trials_run += len(candidates)
        return [EXAM_RESULT] * len(candidates)

    def history(self) -> Json:
        return {"generation": 0, "best": [], "last": [], "noise": None}

    def budget(self) -> Json:
        return {"trials": 1.0, "train_seconds": None, "calls": CALLS - self.chats, "tokens": None, "usd": None}

    def note(self, text: str) -> None:
        pass


def boot_check(place: Workplace, generation: int, successor: str, *, brief: str, seed: int) -> Boot:
    bundle = place.lineage.read(successor)
    labels = {"loop": place.books.state.loop_id, "generation": str(generation), "trial": "boot"}
    args = {
        "may_edit": sorted(place.may_edit),
        "limits": {"trials": 1.0, "calls": CALLS},
        "generation": generation,
        "seed": seed,
        "session": "boot",
    }
    desk = ExamDesk(place.check)
    spec = GuestSpec(Role.IMPROVE, labels, MEMORY_MB[Role.IMPROVE], WALL_SECONDS + 30.0)
    end = serve(place.glass, spec, bundle, brief, args, desk, wall_seconds=WALL_SECONDS)
    why = _why_not(desk, end)
    return Boot(ok=why is None, why=why or "it chatted, edited, ran a trial and submitted", fault=end.fault)


def _why_not(desk: ExamDesk, end: SessionEnd) -> str | None:
    files = None if end.submission is None else end.submission.files
    return passed(ExamFacts(chats=desk.chats, trials=desk.trials_run, submission=files, fault=end.fault))
