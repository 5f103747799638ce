"""Adopt: from the gate's, the boot check's and the person's decisions to the next champion. Pure.

Trainer and scaffold have a decision each. Under `ride` a scaffold is inherited together with a better trainer and is
labelled so: nobody measured that it improves better. Under `neutral` it is inherited with an equal one, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bellglass.records import Bundle, GateWord
from bellglass.store.state import Generation

Trainer = Literal["adopted", "rejected", "unchanged", "failed"]
Scaffold = Literal["inherited", "not inherited", "unchanged", "failed boot check"]
Rule = Literal["ride", "neutral"]


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a successor when it is decided on."""

    trainer_changed: bool
    scaffold_changed: bool
    gate: GateWord | None  # None: nothing was measured
    gate_why: str
    rule: Rule
    boot_ok: bool
    boot_why: str
    review: Literal["approve", "trainer", "reject", "not needed"]
    review_reason: str = ""


@dataclass(frozen=True, slots=True)
class Adoption:
    trainer: Trainer
    scaffold: Scaffold
    why: str


def trainer_changed(gen: Generation) -> bool:
    return any(kind != "scaffold" for kind in gen.kinds)


def facts_of(gen: Generation, rule: Rule) -> Facts:
    """From the record alone, so that anybody can decide again."""
    scaffold_changed = "scaffold" in gen.kinds
    return Facts(
        trainer_changed=trainer_changed(gen),
        scaffold_changed=scaffold_changed,
        gate=None if gen.gate is None else gen.gate["decision"],
        gate_why="" if gen.gate is None else gen.gate["why"],
        rule=rule,
        boot_ok=not scaffold_changed or bool(gen.boot and gen.boot["ok"]),
        boot_why=gen.boot["why"] if gen.boot else "",
        review=gen.review["decision"] if gen.review else "not needed",
        review_reason=gen.review["reason"] if gen.review else "",
    )


def decide_adoption(facts: Facts) -> Adoption:
    trainer, why = _trainer(facts)
    scaffold = _scaffold(facts, trainer)
    if scaffold == "failed boot check":
        why += f"; its scaffold failed the boot check: {facts.boot_why}"
    return Adoption(trainer, scaffold, why)


def withdrawn(fault: str) -> Adoption:
    """A champion must train again on new seeds; one that fails there is none."""
    return Adoption("rejected", "not inherited", f"passed the gate, but trained again on new seeds it failed: {fault}")


def _trainer(facts: Facts) -> tuple[Trainer, str]:
    if not facts.trainer_changed:
        return "unchanged", "the trainer is the parent's, so there was nothing to measure"
    if facts.gate != "adopt":
        return "rejected", facts.gate_why
    if facts.review == "reject":
        return "rejected", f"a person rejected it: {facts.review_reason}"
    return "adopted", facts.gate_why


def _scaffold(facts: Facts, trainer: Trainer) -> Scaffold:
    if not facts.scaffold_changed:
        return "unchanged"
    if not facts.boot_ok:
        return "failed boot check"
    carried = trainer == "adopted" or (facts.rule == "neutral" and (trainer == "unchanged" or facts.gate == "equal"))
    return "inherited" if carried and facts.review not in ("trainer", "reject") else "not inherited"


def next_bundle(adoption: Adoption, parent: Bundle, successor: Bundle) -> Bundle:
    """Each half comes from where its own decision says."""
    trainer = successor if adoption.trainer == "adopted" else parent
    scaffold = successor if adoption.scaffold == "inherited" else parent
    return {
        **{path: data for path, data in trainer.items() if path.startswith("trainer/")},
        **{path: data for path, data in scaffold.items() if path.startswith("scaffold/")},
    }
