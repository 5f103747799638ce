"""The attacker's half: a program for a guest, which sends bits to another guest or receives them.

host.py puts it into containers, where each line on stdin is one order as JSON and each line on stdout its answer, or
gives it to real guests as their bundle. An answer is {"bits": "0110"}, or {"refused": "why"} where the glass didn't let
it. Two guests need no clock in common, since the host gives them turns: an attack that fails here fails for want of a
channel.

    clear, mark, send, read     undo what the last word did; remember what it looks like then; a word; what arrived
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

from bellglass.doors.docker.channels import counters, numbers, pages, timing
from bellglass.doors.docker.channels.kit import clear, image_files

SENDERS = pages.SENDERS | numbers.SENDERS | counters.SENDERS
READERS = pages.READERS | numbers.READERS


def obey(order: dict[str, Any]) -> dict[str, Any]:
    what = order["do"]
    try:
        if what == "files":
            return {"files": image_files()}
        if what == "look":
            return {"changed": counters.changed()}
        if what == "pulse":
            timing.pulse(order["how"], order["bits"], order["start"], order["slot"])
        elif what == "listen":
            return {"levels": timing.listen(order["how"], order["count"], order["start"], order["slot"])}
        elif what == "now":
            return {"now": time.monotonic()}
        elif what == "clear":
            clear()
        elif what == "mark":
            READERS[order["how"]][0](order["count"])
        elif what == "send":
            SENDERS[order["how"]](order["bits"])
        elif what == "read":
            return {"bits": READERS[order["how"]][1](order["count"])}
    except OSError as refused:
        return {"refused": f"{type(refused).__name__}: {refused}"}
    return {}


def by_lines() -> None:
    for line in sys.stdin:
        print(json.dumps(obey(json.loads(line))), flush=True)


def by_host(request: str) -> None:
    """As a trainer or scaffold: an order is the answer to a question that its role may ask."""
    glass: Any = sys.modules["glass"]  # what bundle code gets when it imports it
    while (order := glass._ask(request)[0])["do"] != "end":
        print(json.dumps(obey(order)), flush=True)


def load(folder: str) -> Callable[[Any], Any]:
    """As a model: an order comes as tokens, each a byte, and is answered in logits."""
    import numpy

    def predict(tokens: Any) -> Any:
        answer = obey(json.loads(bytes(tokens.ravel().tolist())))
        return numpy.array([list(json.dumps(answer).encode())], dtype="f4")

    return predict
