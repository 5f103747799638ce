"""Verify: derive a finished or unfinished loop again from what it left on disk.

`verify` re-hashes: the chain, every blob and bundle that an event names, the secret against its commitment, the seeds
of every trial. `rejudge` makes the documents again from the revealed secret and judges the stored weights anew.

Not covered: whether the trainings happened as recorded; that takes training again (recheck).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bellglass import tasks
from bellglass.blobs import Blobs
from bellglass.config import restore
from bellglass.errors import BellglassError, GuestFault
from bellglass.ledger import Ledger
from bellglass.lineage import Lineage
from bellglass.ports import Glass
from bellglass.records import Trial, Word
from bellglass.state import State, fold
from bellglass.steps import gate
from bellglass.steps.panel import rules_of, spread
from bellglass.steps.trial import PROVED, Workbench, judge_weights, make_documents, seeds_of, split_of

SCORE_TOLERANCE = 1e-4  # bits: other hardware rounds otherwise


@dataclass(frozen=True, slots=True)
class Finding:
    what: str
    ok: bool
    found: str


def verify(folder: Path, ledger: Ledger, head: str | None = None) -> list[Finding]:
    """`head`: a hash that was noted elsewhere, or its beginning. Only with one is a cut or rewritten end noticed."""
    findings = [_checked("ledger", lambda: _ledger(ledger, head))]
    if not findings[0].ok:
        return findings
    state = fold(ledger.events())
    lineage, blobs = Lineage.open(folder / "lineage.git"), Blobs(folder / "blobs")
    findings.append(
        _checked("bundles", lambda: f"{_count(lineage.read(c) for c in _commits(state))} read and re-hashed")
    )
    findings.append(_checked("blobs", lambda: f"{_count(blobs.get(sha) for sha in _blobs(state))} read and re-hashed"))
    secret = secret_of(folder, state)
    findings.append(_secret_finding(state, secret))
    if secret is not None:
        findings.append(_seeds_finding(state, secret))
    findings.append(_gates_finding(state))
    return findings


def _ledger(ledger: Ledger, head: str | None) -> str:
    found = f"{ledger.verify(head)} events, head {ledger.head[:12]}"
    if head is None:
        return found
    noted = next((event.seq for event in ledger.events() if event.hash.startswith(head)), 0)
    return f"{found}; {head[:12]} is event {noted}"


def _gates_finding(state: State) -> Finding:
    """Decide again from the recorded verdicts: an adoption that they don't bear out was written by someone else."""
    decided = 0
    calibration = state.calibration
    if calibration is not None and calibration["measured"]:
        found = spread([trial for trial in state.trials.values() if trial.purpose == "calibrate"])
        if abs(found.sd - calibration["noise"]["sd"]) > 1e-12 or found.df != calibration["noise"]["df"]:
            return Finding("gates", False, "the recorded noise is not that of the calibration's trials")
    for gen in state.generations.values():
        if gen.gate is None:
            continue
        decided += 1
        again = decided_again(state, gen.number)
        adopted = bool(gen.result) and gen.result["trainer"] == "adopted"
        if again != gen.gate["decision"] or (adopted and again != "adopt"):
            return Finding("gates", False, f"generation {gen.number}: {gen.gate['decision']} recorded, {again} derived")
    return Finding("gates", True, f"{decided} derived again from their verdicts")


def decided_again(state: State, number: int) -> Word:
    """What a generation's recorded verdicts give; where a trial of the gate failed, the successor was rejected."""
    pairs, whole = gate_pairs(state, number)
    return gate.decide(pairs, rules_of(state, number)).decision if whole else "reject"


def gate_pairs(state: State, number: int) -> tuple[list[tuple[float, float]], bool]:
    """Parent's and child's recorded scores at a gate, and whether every trial has one."""
    trials = {trial.trial_id: trial for trial in state.trials_of(number, "gate")}
    verdicts = [
        (trials[f"g{number}-pair-{k}-parent"].verdict, trials[f"g{number}-pair-{k}-child"].verdict)
        for k in range(len(trials) // 2)
    ]
    pairs = [(parent.score, child.score) for parent, child in verdicts if parent and child]
    return pairs, len(pairs) == len(verdicts)


def _checked(what: str, check: Callable[[], str]) -> Finding:
    try:
        return Finding(what, True, check())
    except BellglassError as error:
        return Finding(what, False, error.one_line())


def _count(items: Iterator[object]) -> int:
    return sum(1 for _ in items)


def _commits(state: State) -> list[str]:
    named = {state.starter, state.champion}
    for gen in state.generations.values():
        named |= {gen.parent, gen.successor or gen.parent}
    return sorted(named | {trial.bundle for trial in state.trials.values()})


def _blobs(state: State) -> list[str]:
    named: set[str] = set()
    for trial in state.trials.values():
        named |= {sha for sha in (trial.weights, trial.log, trial.curves, trial.clock) if sha is not None}
    for gen in state.generations.values():
        named |= set(gen.logs)
    for call in state.calls.values():
        named |= {sha for sha in (call["request_sha"], call["reply_sha"]) if sha is not None}
    return sorted(named)


def secret_of(folder: Path, state: State) -> bytes | None:
    """Revealed in the ledger when the loop has finished; before, only its owner can read it."""
    if state.ended is not None and state.ended.get("secret"):
        return bytes.fromhex(state.ended["secret"])
    try:
        return (folder / "secret").read_bytes()
    except OSError:
        return None


def _secret_finding(state: State, secret: bytes | None) -> Finding:
    if secret is None:
        return Finding("secret", True, "not revealed yet")
    ok = hashlib.sha256(secret).hexdigest() == state.created["secret_commitment"]
    return Finding("secret", ok, "fits its commitment" if ok else "does NOT fit the commitment made at the start")


def _seeds_finding(state: State, secret: bytes) -> Finding:
    wrong = [t.trial_id for t in state.trials.values() if seeds_of(secret, t.trial_id) != t.seeds]
    return Finding(
        "seeds", not wrong, "all follow from the secret" if not wrong else f"not from the secret: {wrong[0]}"
    )


def rejudge(folder: Path, ledger: Ledger, glass: Glass) -> list[Finding]:
    """Judge the stored weights of every deciding trial again. Slow: two guests each."""
    state = fold(ledger.events())
    secret = secret_of(folder, state)
    if secret is None:
        return [Finding("rejudge", False, "the secret is not revealed")]
    config = restore(state.config)
    task = tasks.reopen(config.task, state.created["content"])
    bench = Workbench(task, config.preset_of(task), secret, config.device, side_by_side=1)
    lineage, blobs = Lineage.open(folder / "lineage.git"), Blobs(folder / "blobs")
    deciding = [t for t in state.trials.values() if t.purpose in PROVED and t.verdict is not None]
    return [_rejudge_one(glass, lineage, blobs, bench, trial) for trial in deciding]


def _rejudge_one(glass: Glass, lineage: Lineage, blobs: Blobs, bench: Workbench, trial: Trial) -> Finding:
    assert trial.weights is not None
    assert trial.verdict is not None
    number = 0 if trial.purpose == "final" else int(trial.trial_id[1 : trial.trial_id.index("-")])
    docs = make_documents(bench, *split_of(trial.trial_id, trial.purpose))
    labels = {"loop": "rejudge", "generation": str(number), "trial": trial.trial_id}
    bundle, data = lineage.read(trial.bundle), blobs.get(trial.weights)
    was = trial.verdict
    select = None if was.select_score is None else make_documents(bench, "select", "")
    try:
        judged = judge_weights(glass, bundle, data, trial.trial_id, trial.purpose, docs, bench, labels, select)
    except GuestFault as fault:
        return Finding(f"rejudge {trial.trial_id}", False, fault.one_line())
    again = judged.verdict
    found, ok = f"{again.score:.5f} again, {was.score:.5f} recorded", abs(again.score - was.score) <= SCORE_TOLERANCE
    if again.select_score is not None and was.select_score is not None:
        found += f"; on select {again.select_score:.5f} and {was.select_score:.5f}"
        ok = ok and abs(again.select_score - was.select_score) <= SCORE_TOLERANCE
    return Finding(f"rejudge {trial.trial_id}", ok, found)
