"""One generation, stage by stage: propose, boot check, gate, tripwires, review, adopt and train the champion again.

Every stage first looks whether the ledger already holds its outcome, so a resumed loop goes on where it was. Reading
`run_generation` from top to bottom is reading what recursive improvement means here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bellglass import review, trial_ids, tripwires
from bellglass.calibration import Conditions, Shelf
from bellglass.config import LoopConfig
from bellglass.errors import ReviewPending, SetupError, TripwireFired
from bellglass.ports import Model
from bellglass.records import GateDecision, Trial
from bellglass.steps import adopt, gate, panel
from bellglass.steps.boot import boot_check
from bellglass.steps.pairs import Side, train_pair
from bellglass.steps.propose import Workplace, propose
from bellglass.store.state import Generation, State, to_json


@dataclass(frozen=True, slots=True)
class Crew:
    """What a generation works with."""

    place: Workplace
    config: LoopConfig
    brief: str
    reviewer: review.Reviewer | None
    seed: int
    models: Mapping[str, Model]
    conditions: Conditions  # of this loop's calibration
    shelf: Shelf

    @property
    def state(self) -> State:
        return self.place.books.state


def run_generation(crew: Crew, number: int) -> None:
    gen = _start(crew, number)
    if gen.result is not None:
        return
    _propose(crew, gen)
    if gen.successor is None:
        _watch(crew, gen)
        _end(crew, gen, adopt.Adoption("failed", "unchanged", f"no successor: {gen.proposal_fault}"), gen.parent)
        return
    _boot(crew, gen)
    _gate(crew, gen)
    _watch(crew, gen)
    _review(crew, gen)
    _adopt(crew, gen)


def _start(crew: Crew, number: int) -> Generation:
    if number not in crew.state.generations:
        crew.place.books.record("generation.started", generation=number, parent=crew.state.champion)
    return crew.state.generation(number)


def _propose(crew: Crew, gen: Generation) -> None:
    if gen.proposed:
        return
    crew.place.books.record("session.started", generation=gen.number, left=to_json(crew.place.books.left()))
    proposal = propose(crew.place, gen.number, gen.parent, brief=crew.brief, seed=crew.seed)
    crew.place.books.record("proposal.made", generation=gen.number, **to_json(proposal))


def _boot(crew: Crew, gen: Generation) -> None:
    """Only a changed scaffold has to prove that it still works."""
    if gen.boot is not None or "scaffold" not in gen.kinds:
        return
    assert gen.successor is not None
    outcome = boot_check(crew.place, gen.number, gen.successor, brief=crew.brief, seed=crew.seed)
    crew.place.books.record("boot.checked", generation=gen.number, **to_json(outcome))


def _gate(crew: Crew, gen: Generation) -> None:
    """Parent and child train on paired, unseen seeds and are judged on fresh documents."""
    if gen.gate is not None or not adopt.trainer_changed(gen):
        return
    assert gen.successor is not None
    pairs: list[tuple[float, float]] = []
    rules = panel.rules_of(crew.state, gen.number)
    decision = gate.decide(pairs, rules)
    while decision.decision == "more":
        ids = [trial_ids.pair(gen.number, len(pairs), side) for side in trial_ids.GATE_SIDES]
        sides = list(zip(ids, (gen.parent, gen.successor), strict=True))
        parent, child = _trained(crew, gen, len(pairs), sides)
        if parent.verdict is None or child.verdict is None:
            decision = _failure(parent, child, pairs)
        else:
            pairs.append((parent.verdict.score, child.verdict.score))
            decision = gate.decide(pairs, rules)
    crew.place.books.record("gate.decided", generation=gen.number, gate=to_json(decision))


def _trained(crew: Crew, gen: Generation, index: int, sides: Sequence[Side]) -> tuple[Trial, Trial]:
    """One pair. What this machine could not run is no decision: the loop halts, and `resume` comes back here."""
    try:
        return train_pair(crew.place.lab, "gate", gen.number, index, sides)
    except SetupError:
        disturbed = crew.state.disturbed_by(gen.number)
        alarm = tripwires.disturbed_often(tripwires.Watched(gen.number, (), "unknown", disturbed=disturbed))
        if alarm is None:
            raise
        crew.place.books.record("tripwire.fired", generation=gen.number, **to_json(alarm))
        refuse_if_tripped(crew.state)
        raise


def _failure(parent: Trial, child: Trial, pairs: list[tuple[float, float]]) -> GateDecision:
    """A failed child is rejected. So is a child whose parent failed: a failure is never a number, on either side."""
    name, trial = ("successor", child) if child.verdict is None else ("parent", parent)
    return gate.failed(f"the {name}'s trial {trial.trial_id} failed: {trial.fault}", pairs)


def _watch(crew: Crew, gen: Generation) -> None:
    """Tripwires latch: an alarm stays until a person re-arms it, and the loop stops here."""
    if gen.watched:
        return
    faults = [gen.proposal_fault] if gen.proposal_fault else []
    faults += [gen.boot["fault"]] if gen.boot and gen.boot["fault"] else []
    alarms = _look(crew, gen, tuple(faults))
    crew.place.books.record("generation.watched", generation=gen.number, alarms=alarms)
    refuse_if_tripped(crew.state)


def _look(crew: Crew, gen: Generation, faults: tuple[str, ...] = ()) -> int:
    """Record every alarm that this generation's trials set off; how many there were."""
    trials = tuple(crew.state.trials_in(gen.number))
    disturbed = crew.state.disturbed_by(gen.number)
    floor = crew.place.lab.bench.task.floor
    found = tripwires.look(tripwires.Watched(gen.number, trials, floor, faults, disturbed))
    for alarm in found:
        crew.place.books.record("tripwire.fired", generation=gen.number, **to_json(alarm))
    return len(found)


def refuse_if_tripped(state: State) -> None:
    if state.tripwires:
        first = state.tripwires[0]
        raise TripwireFired(
            f"tripwire {first['name']} {tripwires.place(first)}",
            first["sentence"],
            "a person who looks and re-arms it",
            f"bellglass review {state.loop_id} --rearm {first['name']} --reason '...'",
        )


def _review(crew: Crew, gen: Generation) -> None:
    if _answered(gen) or not review.needed(crew.config.review, gen.alarms):
        return
    assert gen.successor is not None
    evidence = review.gather(crew.state, gen.number, crew.place.lineage)
    if gen.review_hash != evidence.hash:
        crew.place.books.record("review.requested", generation=gen.number, evidence_hash=evidence.hash)

    def decided() -> bool:
        crew.place.check()  # an answer may lie in the inbox
        return _answered(gen)

    answer = None if decided() or crew.reviewer is None else crew.reviewer.ask(evidence, decided)
    if _answered(gen):
        return
    if answer is None:
        raise ReviewPending(
            f"generation {gen.number}",
            "nobody decided",
            "a person's decision; until then nothing is adopted",
            f"bellglass review {crew.state.loop_id}",
        )
    body = review.decision_event(crew.state, gen.number, answer, evidence.hash)
    crew.place.books.record("review.decided", **body)


def _answered(gen: Generation) -> bool:
    return gen.review is not None


def _adopt(crew: Crew, gen: Generation) -> None:
    assert gen.successor is not None
    adoption = adopt.decide_adoption(adopt.facts_of(gen, crew.config.scaffold_rule))
    if adoption.trainer == "adopted" and (fault := _retrain(crew, gen, gen.successor)):
        adoption = adopt.withdrawn(fault)
    _end(crew, gen, adoption, _champion(crew, gen, adoption))


def _champion(crew: Crew, gen: Generation, adoption: adopt.Adoption) -> str:
    """The commit of what the next generation starts from."""
    assert gen.successor is not None
    lineage = crew.place.lineage
    parent = lineage.read(gen.parent)
    bundle = adopt.next_bundle(adoption, parent, lineage.read(gen.successor))
    if bundle == parent:
        return gen.parent
    return lineage.commit(bundle, gen.successor, f"generation {gen.number}: champion")


def _retrain(crew: Crew, gen: Generation, successor: str) -> str:
    """On new seeds and fresh documents: scores that decided were lucky by being chosen. Returns what failed.

    The successor's trainer is the champion's. Which scaffold stands beside it, a review after an alarm may yet change.
    """
    trials = panel.retrain(crew.place.lab, gen.number, successor, seeds=crew.config.panel)
    if not gen.panelled:
        crew.place.books.record("champion.retrained", generation=gen.number, alarms=_look(crew, gen))
    refuse_if_tripped(crew.state)
    return panel.faults(trials)


def _end(crew: Crew, gen: Generation, adoption: adopt.Adoption, champion: str) -> None:
    crew.place.books.record("generation.ended", generation=gen.number, champion=champion, **to_json(adoption))
