"""What a ledger says was decided, derived again from its own trials: gates, adoptions, alarms, the gain on `final`.

Pure, and from the ledger alone: what does not follow from the recorded verdicts was written by someone else.

Not covered: whether the verdicts are true. A noise that an earlier calibration stored has no trials in this ledger;
`gates` says so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

from bellglass import review, trial_ids, tripwires
from bellglass.records import Budget, Finding, GateWord, Interval, Json, Trial
from bellglass.steps import gate
from bellglass.steps.adopt import Adoption, decide_adoption, facts_of, trainer_changed, withdrawn
from bellglass.steps.final import recorded_gain
from bellglass.steps.panel import faults, rules_of, spread
from bellglass.steps.trial import DECIDING, PROVED
from bellglass.store.state import Generation, State

GAIN_TOLERANCE = 1e-9  # of the same arithmetic, on another machine


def gates_finding(state: State) -> Finding:
    """Decide again from the recorded verdicts: an adoption that they don't bear out was written by someone else."""
    decided = 0
    calibration = state.calibration
    if calibration is not None and calibration["measured"]:
        if _calibration_ids(state) != _calibration_wanted(state):
            return Finding("gates", False, "the calibration's trials are not those that it takes")
        found = spread([trial for trial in state.trials.values() if trial.purpose == "calibrate"])
        if abs(found.sd - calibration["noise"]["sd"]) > 1e-12 or found.df != calibration["noise"]["df"]:
            return Finding("gates", False, "the recorded noise is not that of the calibration's trials")
    champion = state.starter
    for gen in state.generations.values():
        decided += gen.gate is not None
        wrong = _gate_fault(state, gen) if gen.parent == champion else "it did not begin with the champion"
        if wrong:
            return Finding("gates", False, f"generation {gen.number}: {wrong}")
        champion = champion if gen.result is None else gen.result["champion"]
    stored = calibration is not None and not calibration["measured"]
    noise = ", under a noise that an earlier calibration stored: believed" if stored else ""
    return Finding("gates", True, f"{decided} derived again from their verdicts{noise}")


def _gate_fault(state: State, gen: Generation) -> str:
    """What the record of a gate says and its trials don't, or nothing."""
    if gen.gate is None:
        return "it ended without a gate" if gen.result and gen.successor and trainer_changed(gen) else ""
    sides = {"parent": gen.parent, "child": gen.successor}
    for trial in state.trials_of(gen.number, "gate"):
        if trial.bundle != sides.get(trial_ids.side_of(trial.trial_id)):
            return f"{trial.trial_id} trained another bundle"
    pairs, whole = gate_pairs(state, gen.number)
    rules = rules_of(state, gen.number)
    again = gate.decide(pairs, rules) if whole else gate.failed("", pairs)
    if again.decision != gen.gate["decision"]:
        return f"{gen.gate['decision']} recorded, {again.decision} derived"
    if went_on(pairs, rules) or (not whole and gate.decide(pairs, rules).decision != "more"):
        return "it went on after its pairs had decided"
    recorded = list(zip(gen.gate["parent_scores"], gen.gate["child_scores"], strict=False))
    same = recorded == pairs and _same_gain(gen.gate["gain"], again.gain)
    return "" if same else "its recorded scores and gain are not those of its trials"


def adoptions_finding(state: State, fired: Sequence[Json]) -> Finding:
    """Adopt again: what became of trainer and scaffold follows from gate, boot check, review and champion's panel."""
    ended = [gen for gen in state.generations.values() if gen.result is not None]
    alarmed = {wire["generation"] for wire in fired if tripwires.place(wire) != "on final"}
    for gen in ended:
        alarms = gen.alarms or int(gen.number in alarmed)
        asks = gen.successor is not None and review.needed(state.config["review"], alarms)
        unasked = "nobody was asked for the review that its config wants" if asks and gen.review is None else ""
        wrong = unasked or _adoption_fault(state, gen)
        if wrong:
            return Finding("adoptions", False, f"generation {gen.number}: {wrong}")
    return Finding("adoptions", True, f"{len(ended)} derived again from gate, boot check, review and panel")


def _adoption_fault(state: State, gen: Generation) -> str:
    again = Adoption("failed", "unchanged", "")
    if gen.successor is not None:
        again = decide_adoption(facts_of(gen, state.config["scaffold_rule"]))
    if again.trainer == "adopted":
        trials = state.trials_of(gen.number, "panel")
        wanted = {trial_ids.panel(gen.number, k) for k in range(state.config["panel"])}
        if {trial.trial_id for trial in trials} != wanted:
            return f"its champion was trained again {len(trials)} times, not {len(wanted)}"
        again = withdrawn(faults(trials)) if faults(trials) else again
        own = (gen.successor, gen.result["champion"])  # of one trainer; earlier versions trained the second
        stranger = next((trial.trial_id for trial in trials if trial.bundle not in own), None)
        if stranger is not None and again.trainer == "adopted":
            return f"{stranger} trained another bundle"
    recorded = (gen.result["trainer"], gen.result["scaffold"])
    derived = (again.trainer, again.scaffold)
    return "" if recorded == derived else f"{' and '.join(recorded)} recorded, {' and '.join(derived)} derived"


def budgets_finding(state: State, preset: Budget | None) -> Finding:
    """All that decides, and the noise it starts from, was trained equally long; an exploration no longer than that.

    `preset`: what it should be; None where nobody here knows, because the loop was made with other tasks.
    """
    deciding = [trial for trial in state.trials.values() if trial.purpose in DECIDING]
    if not deciding:
        return Finding("budgets", True, "no training that decides yet")
    first, whole = deciding[0], deciding[0].budget
    longer = [t for t in state.trials.values() if t.budget.kind != whole.kind or t.budget.amount > whole.amount]
    noise = (state.calibration or {}).get("conditions", {}).get("budget", whole.text)
    wrong = unequal(deciding) or unequal([first, *longer])
    if not wrong and noise != whole.text:
        wrong = f"the noise is that of trainings of {noise}, and {first.trial_id} had {whole.text}"
    if not wrong and preset is not None and preset.text != whole.text:
        wrong = f"its preset is {preset.text}, and {first.trial_id} had {whole.text}"
    return Finding("budgets", not wrong, wrong or f"{len(deciding)} trainings that decide had {whole.text} each")


def unequal(trials: Sequence[Trial]) -> str:
    """Which of them was given another budget than the first, or nothing; the cap in wall time may differ by version."""
    for trial in trials[1:]:
        given, first = trial.budget.text, trials[0].budget.text
        if given != first:
            return f"{trial.trial_id} was given {given}, and {trials[0].trial_id} {first}"
    return ""


def alarms_finding(state: State, fired: Sequence[Json]) -> Finding:
    """Look again at what the tripwires saw: an alarm that the ledger does not have was left out by someone.

    Not covered: what a known floor alone shows, where the floor is nought; the ledger does not say that it is known.
    """
    known = {(wire["name"], tripwires.place(wire)) for wire in fired}
    known |= {(line.partition(":")[0], "on final") for line in (state.final or {}).get("alarms", ())}
    judged = [trial.verdict for trial in state.trials.values() if trial.verdict is not None]
    unproved = [t.trial_id for t in state.trials.values() if t.verdict and not t.verdict.proof and t.purpose in PROVED]
    if unproved:
        return Finding("tripwires", False, f"{unproved[0]} has a verdict, and no proof")
    floor: Literal["exact", "unknown"] = "exact" if any(v.floor_bits > 0 for v in judged) else "unknown"
    finals, by_generation = _watched(state)
    looked = [
        tripwires.Watched(
            gen.number,
            tuple(by_generation.get(gen.number, ())),
            floor,
            _session_faults(gen),
            state.disturbed_by(gen.number),
        )
        for gen in state.generations.values()
        if gen.watched
    ]
    if state.final is not None:
        looked.append(tripwires.Watched(state.config["generations"], tuple(finals), floor, (), tuple(state.disturbed)))
    for seen in looked:
        for alarm in tripwires.look(seen):
            place = tripwires.place({"evidence": alarm.evidence, "generation": seen.generation})
            if alarm.name in tripwires.owed(state.created) and (alarm.name, place) not in known:
                return Finding("tripwires", False, f"{alarm.name} {place} is not in the ledger: {alarm.sentence}")
    return Finding("tripwires", True, f"{len(looked)} looked at again; {len(fired)} fired")


def _watched(state: State) -> tuple[list[Trial], dict[int, list[Trial]]]:
    """Those of `final`, and by generation those that its tripwires saw; in one pass over the loop."""
    finals: list[Trial] = []
    by_generation: dict[int, list[Trial]] = {}
    for trial in state.trials.values():
        number = trial_ids.generation_of(trial.trial_id)
        if trial.purpose == "final":
            finals.append(trial)
        elif trial.purpose != "panel" or (number in state.generations and state.generations[number].panelled):
            by_generation.setdefault(number, []).append(trial)
    return finals, by_generation


def _session_faults(gen: Generation) -> tuple[str, ...]:
    return tuple(fault for fault in (gen.proposal_fault, (gen.boot or {}).get("fault")) if fault)


def _calibration_ids(state: State) -> set[str]:
    """Of the starter's own; null edits of it are other bundles."""
    own = [t for t in state.trials.values() if t.purpose == "calibrate" and t.bundle == state.starter]
    return {trial.trial_id for trial in own}


def _calibration_wanted(state: State) -> set[str]:
    grid = state.created.get("calibrates")
    if grid:
        return {trial_ids.calibration(i, j) for i in range(grid) for j in range(grid)}
    return {trial_ids.calibration(k, k) for k in range(state.created["config"]["panel"])}


def went_on(pairs: gate.Pairs, rules: gate.Rules) -> bool:
    """Whether fewer of them had decided already: more were asked for until they pleased."""
    return len(gate.played(pairs, rules).parent_scores) < len(pairs)


def _same_gain(recorded: Json, again: Interval | None) -> bool:
    if recorded is None or again is None:
        return recorded is again
    ends = ("mean", "low", "high", "n")
    return all(math.isclose(recorded[end], getattr(again, end), abs_tol=GAIN_TOLERANCE) for end in ends)


def final_finding(state: State) -> Finding:
    """The gain on `final` again, from the trials of that look."""
    final = state.final
    if final is None:
        return Finding("final", True, "not opened")
    trials = [trial for trial in state.trials.values() if trial.purpose == "final"]
    sides = {"starter": state.starter, "champion": state.champion}
    others = [trial.trial_id for trial in trials if trial.bundle != sides.get(trial_ids.side_of(trial.trial_id))]
    if others or {side: final[side] for side in sides} != sides:
        return Finding("final", False, f"{others[0] if others else 'it'} is not of the loop's starter and champion")
    panel = range(state.config["panel"] if state.champion != state.starter else 0)
    if {t.trial_id for t in trials} != {trial_ids.final(k, side) for k in panel for side in sides}:
        return Finding("final", False, f"{len(trials)} trainings, and it takes {2 * len(panel)}")
    pairs, _ = _paired(trials, trial_ids.final, trial_ids.FINAL_SIDES)
    again = recorded_gain(final, pairs, trials)
    if [tuple(pair) for pair in final.get("pairs", pairs)] != pairs or not _same_gain(final["gain"], again):
        return Finding("final", False, "the recorded gain is not that of its trials")
    return Finding("final", True, f"derived again from {len(pairs)} pairs")


def decided_again(state: State, number: int) -> GateWord:
    """What a generation's recorded verdicts give; where a trial of the gate failed, the successor was rejected."""
    pairs, whole = gate_pairs(state, number)
    return gate.decide(pairs, rules_of(state, number)).decision if whole else "reject"


def gate_pairs(state: State, number: int) -> tuple[list[tuple[float, float]], bool]:
    """Parent's and child's recorded scores at a gate, and whether every trial has one."""
    return _paired(state.trials_of(number, "gate"), partial(trial_ids.pair, number), trial_ids.GATE_SIDES)


def _paired(
    trials: Sequence[Trial], name: Callable[[int, str], str], sides: tuple[str, str]
) -> tuple[list[tuple[float, float]], bool]:
    verdicts = {trial.trial_id: trial.verdict for trial in trials}
    rows = [[verdicts.get(name(k, side)) for side in sides] for k in range((len(trials) + 1) // 2)]
    pairs = [(first.score, second.score) for first, second in rows if first and second]
    return pairs, len(pairs) == len(rows)
