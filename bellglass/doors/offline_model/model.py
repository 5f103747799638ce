"""The built-in improvers, behind the same port as a language model: `offline`, `random` and `tpe`, over one menu.

A reply is a pure function of the conversation that is shown: nothing is kept between calls, nothing is known of the
task's data, and the answers are tool calls like any other model's.

`offline` (session.py) is the demo, the class mode and a test double in one. It is a *positive control* of the
apparatus. People wrote its tricks (menu.py) and its scaffold improvements (gifts.py), so nothing it achieves is
evidence about recursive self-improvement; its notes say so too. `random` and `tpe` (samplers.py) are what it, and
every other improver, must beat under the same bounds.

How: a session is written as one straight story, a generator that yields tool calls and receives their results.
Each call of `chat` tells the story from the beginning, feeding it the results that the conversation holds, up to
the first tool calls that are not answered yet. Those are the reply.

Not covered: a scaffold that hides old results from its model. The story cannot be retold then, and it stops.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from bellglass.doors.offline_model import tpe
from bellglass.doors.offline_model.samplers import random_search, tpe_search
from bellglass.doors.offline_model.session import improve
from bellglass.doors.offline_model.talk import Move, Script, Talk
from bellglass.errors import UsageError
from bellglass.records import ChatReply, ChatRequest, Cost, ToolCall

MOST_CALLS = 64  # in one reply; a gateway takes no more

IMPROVERS: Mapping[str, Callable[[Talk], Script]] = {
    "offline": partial(improve, variant="works"),  # the variants differ in what they do to the scaffold
    "offline:inert": partial(improve, variant="inert"),
    "offline:harmful": partial(improve, variant="harmful"),
    "random": random_search,
    "tpe": tpe_search,
}


class OfflineModel:
    """Implements ports.Model, and needs no network. The name picks the story that it tells."""

    hosted = False

    def __init__(self, name: str = "offline") -> None:
        if name not in IMPROVERS:
            raise UsageError(
                "the built-in improver",
                repr(name),
                " or ".join(IMPROVERS),
                "bellglass run --help",
                code="no_such_model",
            )
        if name == "tpe":
            tpe.load()  # what is missing is said before anything is spent
        self.name = name

    def forecast(self, request: ChatRequest) -> Cost:
        return Cost(calls=1)

    def chat(self, request: ChatRequest) -> ChatReply:
        results = {message.call_id: message.text for message in request.messages if message.role == "tool"}
        calls = _retell(IMPROVERS[self.name](Talk.of(request)), results)
        if calls is None:
            return self._reply("I stop here.", ())
        return self._reply("", calls)

    def _reply(self, text: str, calls: tuple[ToolCall, ...]) -> ChatReply:
        return ChatReply(
            text=text, calls=calls, stop="calls" if calls else "end", cost=Cost(calls=1), provider_model=self.name
        )


def _retell(script: Script, results: Mapping[str, str]) -> tuple[ToolCall, ...] | None:
    """The first calls of the story that have no results yet; None at its end, or when its thread is lost."""
    told = 0
    try:
        moves = next(script)
        while True:
            calls = tuple(_call(told, index, move) for index, move in enumerate(moves))
            if not all(call.id in results for call in calls):
                later = {call_id for call_id in results if call_id.startswith("off-")} - {
                    f"off-{turn}-{index}" for turn in range(told) for index in range(MOST_CALLS)
                }
                return None if later else calls
            moves = script.send([results[call.id] for call in calls])
            told += 1
    except StopIteration:
        return None


def _call(turn: int, index: int, move: Move) -> ToolCall:
    return ToolCall(id=f"off-{turn}-{index}", name=move.tool, args=dict(move.args))
