"""What trials are called, and what a name says. Pure.

    cal-2x3, cal-2x2-comment         the starter, or a null edit of it: third initialisation, fourth data order
    g4-explore-7-1a2b3c4d            an improver's eighth trial in generation 4, of that commit
    g4-pair-0-parent, g4-pair-0-child    the first pair at its gate; g4-recheck-0-…: trained again, outside the ledger
    g4-panel-1                       its new champion, on the second of new seeds
    final-pair-2-starter, final-pair-2-champion

Seeds and documents follow from these names (steps/trial.py): another spelling is another loop.
"""

from __future__ import annotations

import re
from typing import Final

GATE_SIDES: Final = ("parent", "child")
FINAL_SIDES: Final = ("starter", "champion")
_BEFORE: Final = {"child": "parent", "champion": "starter"}
_CALIBRATION: Final = re.compile(r"cal-(\d+)x(\d+)")
_GENERATION: Final = re.compile(r"g([1-9][0-9]{0,17})-")


def calibration(initialisation: int, order: int, edit: str = "") -> str:
    return f"cal-{initialisation}x{order}" + (f"-{edit}" if edit else "")


def explore(generation: int, index: int, commit: str) -> str:
    """The commit is part of it: a restarted session that goes another way gets other trials."""
    return f"g{generation}-explore-{index}-{commit[:8]}"


def pair(generation: int, index: int, side: str) -> str:
    return f"g{generation}-pair-{index}-{side}"


def recheck(generation: int, index: int, side: str) -> str:
    return f"g{generation}-recheck-{index}-{side}"


def panel(generation: int, index: int) -> str:
    return f"g{generation}-panel-{index}"


def final(index: int, side: str) -> str:
    return f"final-pair-{index}-{side}"


# What a name says


def generation_of(name: str) -> int:
    """Of a trial's id or a call's key: g12-pair-0-child -> 12; 0 for what belongs to no generation."""
    found = _GENERATION.match(name)
    return int(found[1]) if found else 0


def place(trial_id: str) -> tuple[int, int] | None:
    """Initialisation and data order of the starter's own trial in a calibration."""
    found = _CALIBRATION.fullmatch(trial_id)
    return (int(found[1]), int(found[2])) if found else None


def side_of(trial_id: str) -> str:
    """In a pair: parent, child, starter or champion; empty for all others."""
    side = trial_id.rpartition("-")[2]
    return side if side in GATE_SIDES + FINAL_SIDES else ""


def partner(trial_id: str) -> str:
    """Whom a child, or a champion on `final`, is compared with; empty for all others."""
    before = _BEFORE.get(side_of(trial_id))
    return f"{trial_id.rpartition('-')[0]}-{before}" if before else ""


def pair_of(trial_id: str) -> str:
    """What both sides of a pair have in common; empty for all others."""
    return shared(trial_id) if side_of(trial_id) else ""


def is_final(trial_id: str) -> bool:
    return trial_id.startswith("final-")


def shared(trial_id: str) -> str:
    """The part that both sides of a pair have: one set of seeds. All explorations of a session have one, too."""
    return "-".join(trial_id.split("-")[: 2 if "-explore-" in trial_id else 3])


def seeds_apart(trial_id: str) -> tuple[str, str] | None:
    """In a calibration initialisation and data order have seeds of their own, so that the two can be told apart."""
    found = _CALIBRATION.match(trial_id)
    return (f"cal-{found[1]}", f"cal-{found[2]}") if found else None


def documents_of(trial_id: str) -> str:
    """What a gate's, recheck's or panel's own documents are drawn by; both sides of a pair have the same."""
    generation, kind, index = [*trial_id.split("-"), "", ""][:3]
    return f"panel-{generation}-{index}" if kind == "panel" else f"{generation}-{index}"
