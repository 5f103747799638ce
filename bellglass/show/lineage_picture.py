"""A loop's lineage picture: from the ledger's state to the nodes that `picture` draws."""

from __future__ import annotations

from typing import Literal

from bellglass.records import Interval
from bellglass.show.picture import Node, lineage_svg
from bellglass.show.summary import Row, rows, starter_trials, title_and_unit, verdict_interval
from bellglass.store.state import State

Decision = Literal["starter", "adopt", "reject", "failed"]
DECISION: dict[str, Decision] = {"adopted": "adopt", "rejected": "reject", "unchanged": "reject", "failed": "failed"}


def picture_of(state: State) -> str:
    title = f"{state.created['task']}: claim beside verdict, generation by generation"
    return lineage_svg(nodes_of(state), title=title, unit=title_and_unit(state)[1])


def nodes_of(state: State) -> list[Node]:
    champion_since = {state.starter: 0}  # which generation made the bundle that is a parent later
    nodes = [_starter(state)]
    for row, gen in zip(rows(state), state.generations.values(), strict=True):
        if gen.result is None:
            continue
        nodes.append(_node(row, champion_since.get(gen.parent, 0)))
        champion_since.setdefault(gen.result["champion"], gen.number)
    return nodes


def _starter(state: State) -> Node:
    trials = starter_trials(state)
    verdict = verdict_interval(trials)
    claims = [trial.claim.bits for trial in trials if trial.claim.bits is not None]
    claim = sum(claims) / len(claims) if claims else None
    mean, low, high = _bits(verdict)
    return Node(0, None, claim, mean, low, high, "starter")


def _node(row: Row, parent: int) -> Node:
    mean, low, high = _bits(row.verdict_bits)
    decision: Decision = "failed" if row.verdict_bits is None else DECISION[row.trainer]
    return Node(row.generation, parent, row.claim_bits, mean, low, high, decision, row.kinds, row.scaffold)


def _bits(verdict: Interval | None) -> tuple[float | None, float | None, float | None]:
    return (None, None, None) if verdict is None else (verdict.mean, verdict.low, verdict.high)
