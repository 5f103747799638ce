"""Review: what a person is shown, and how their decision is bound to exactly that.

The evidence is made by the host from the ledger and the lineage; the improver's own words stand apart as testimony. An
approval names the hash of the evidence, red flags and what each choice does included. No answer is no: without a
decision the loop waits and adopts nothing.

Not covered: whether the person reads it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Literal, Protocol, get_args

from bellglass import red_flags
from bellglass.errors import LoopFault, UsageError
from bellglass.records import Json
from bellglass.red_flags import Flag
from bellglass.steps import adopt
from bellglass.steps.panel import noise_of
from bellglass.store.lineage import Comparison, Lineage, patches
from bellglass.store.state import Generation, State

SHORTEST_HASH = 12  # hex digits that a person has to give of an evidence's hash
Choice = Literal["approve", "trainer", "reject"]
DECISIONS: tuple[Choice, ...] = get_args(Choice)


@dataclass(frozen=True, slots=True)
class Evidence:
    loop_id: str
    generation: int
    parent: str
    successor: str
    kinds: tuple[str, ...]
    changed: tuple[str, ...]  # every path, with its lines added and removed
    diff: str
    gate: Json
    boot: Json
    verdicts: tuple[Json, ...]  # of the gate's trials: claim beside verdict
    testimony: str
    flags: tuple[Flag, ...] = ()
    choices: tuple[tuple[Choice, str], ...] = ()  # what each would do

    @property
    def hash(self) -> str:
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Answer:
    decision: Choice
    reason: str
    who: str


class Reviewer(Protocol):
    def ask(self, evidence: Evidence, decided: Callable[[], bool]) -> Answer | None:
        """None: nobody answered, which is no. `decided` is asked meanwhile: whether somebody has decided elsewhere."""


def needed(when: str, alarms: int) -> bool:
    """Under `tripwire`, re-arming says that the loop may go on; the successor that set it off is decided on apart."""
    return when == "every" or (when == "tripwire" and alarms > 0)


def gather(state: State, number: int, lineage: Lineage) -> Evidence:
    """What a person must see to decide: the whole diff, the trainer's part first, so that no padding pushes it out."""
    gen = state.generation(number)
    assert gen.successor is not None
    compared = lineage.compare(gen.parent, gen.successor)
    verdicts = [
        {
            "trial": trial.trial_id,
            "claim_bits": trial.claim.bits,
            "verdict_bits": trial.verdict.raw_bits if trial.verdict else None,
            "score": trial.verdict.score if trial.verdict else None,
            "fault": trial.fault,
        }
        for trial in state.trials_of(number, "gate")
    ]
    return Evidence(
        loop_id=state.loop_id,
        generation=number,
        parent=gen.parent,
        successor=gen.successor,
        kinds=gen.kinds,
        changed=tuple(f"{one.path} +{one.added} -{one.removed}" for one in compared.files),
        diff=trainer_first(compared.text()),
        gate=gen.gate,
        boot=gen.boot,
        verdicts=tuple(verdicts),
        testimony=gen.note,
        flags=flags_of(state, gen, compared),
        choices=choices_of(state, gen),
    )


def flags_of(state: State, gen: Generation, compared: Comparison) -> tuple[Flag, ...]:
    """From the ledger and both bundles alone, so that every reader of a loop sees the same."""
    try:
        noise_sd = noise_of(state, gen.number).sd
    except LoopFault:  # no calibration: then nothing was compared with it either
        noise_sd = None
    trials = state.trials_of(gen.number, "gate")
    return red_flags.look(red_flags.facts_of(compared, gen.boot, trials, noise_sd))


def choices_of(state: State, gen: Generation) -> tuple[tuple[Choice, str], ...]:
    """What each answer does to this successor, in one sentence: derived as the loop itself will decide."""
    facts = adopt.facts_of(gen, state.config["scaffold_rule"])
    adoptions = {word: adopt.decide_adoption(replace(facts, review=word)) for word in DECISIONS}
    last = gen.number >= state.config["generations"]
    again = f"it is trained on {state.config['panel']} new seeds first, and withdrawn if one of them fails"
    return tuple((word, _outcome(gen, facts, adopted, last, again)) for word, adopted in adoptions.items())


def _outcome(gen: Generation, facts: adopt.Facts, adopted: adopt.Adoption, last: bool, again: str) -> str:
    parent, successor = gen.parent[:8], str(gen.successor)[:8]
    trainer, scaffold = adopted.trainer == "adopted", adopted.scaffold == "inherited"
    if not trainer and not scaffold:
        return f"keep parent {parent}, trainer and scaffold{_why_not(facts)}; {successor} is not trained again"
    if trainer:
        parts = f"its trainer{' and scaffold' if scaffold else ' alone'}"
        does = f"adopt {successor} as champion of generation {gen.number}: {parts}"
    else:
        does = f"adopt the scaffold of {successor} alone; the trainer stays that of parent {parent}{_why_not(facts)}"
    whose = "its scaffold" if scaffold else f"the scaffold of parent {parent}"
    behind = ", for its own failed the boot check" if adopted.scaffold == "failed boot check" else ""
    session = "no session follows: this generation is the last" if last else f"{whose} runs the next session{behind}"
    return f"{does}; {session}{f'; {again}' if trainer else ''}"


def _why_not(facts: adopt.Facts) -> str:
    """What keeps a part of it out whatever a person decides, if something does."""
    if facts.trainer_changed and facts.gate != "adopt":
        return f" (the gate says {facts.gate or 'nothing'}, whatever you decide)"
    if facts.trainer_changed:
        return ""
    if not facts.boot_ok:
        return " (only its scaffold changed, and that failed the boot check)"
    return " (only its scaffold changed, and by `ride` one comes with a better trainer)" if facts.rule == "ride" else ""


def trainer_first(diff: str) -> str:
    """The same patch, the trainer's files in front."""
    note, files = patches(diff)
    return note + "".join(sorted(files, key=lambda file: not file.startswith("diff --git a/trainer/")))


def pending(state: State) -> int | None:
    """The generation that waits for a person, if one does."""
    for gen in state.generations.values():
        if gen.review_hash is not None and gen.review is None:
            return gen.number
    return None


def decision_event(state: State, number: int, answer: Answer, evidence_hash: str) -> Json:
    """The body of `review.decided`; refuses an answer to other evidence than what is waiting.

    The hash may be shortened to its beginning; the event always holds the whole one.
    """
    gen = state.generations.get(number)
    if gen is None or gen.review_hash is None or gen.review is not None:
        found, look = "nothing waits for a decision there", f"bellglass status {state.loop_id}"
        raise UsageError(f"review of generation {number}", found, "a pending review", look, code="nothing_waits")
    show = f"bellglass review {state.loop_id}"  # says the whole command that decides
    if len(evidence_hash) < SHORTEST_HASH or not gen.review_hash.startswith(evidence_hash):
        raise UsageError(
            f"review of generation {number}",
            f"a decision on evidence {evidence_hash[:SHORTEST_HASH]}",
            f"a decision on evidence {gen.review_hash[:SHORTEST_HASH]}, which is what waits",
            show,
            code="evidence_changed",
        )
    if answer.decision not in DECISIONS:
        raise UsageError("the decision", repr(answer.decision), " or ".join(DECISIONS), show, code="option_invalid")
    if not answer.reason.strip():
        raise UsageError("the decision", "no reason", "--reason with a few words", show, code="reason_missing")
    return {
        "generation": number,
        "decision": answer.decision,
        "reason": answer.reason.strip(),
        "who": answer.who,
        "evidence_hash": gen.review_hash,
    }
