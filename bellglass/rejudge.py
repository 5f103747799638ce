"""Rejudge: make the documents again from the revealed secret, and judge the stored weights anew.

Documents are made by the task's data.py, here and with the rights of who asks. A ledger names any folder, and vouches
for it with a hash of its own; so of a task that is not shipped a person names the folder (received.py).

Not covered: whether these weights came from the training that the ledger tells of; that takes training again (recheck).
"""

from __future__ import annotations

from pathlib import Path

from bellglass import trial_ids
from bellglass.config import restore
from bellglass.errors import GuestFault
from bellglass.paths import typed
from bellglass.ports import Glass
from bellglass.received import on_this_machine, require_fit, trusted_task
from bellglass.records import Finding, Trial
from bellglass.steps.trial import DECIDING, Workbench, judge_weights, make_documents, split_of
from bellglass.store.blobs import Blobs
from bellglass.store.ledger import Ledger
from bellglass.store.lineage import Lineage
from bellglass.store.state import fold
from bellglass.verify import secret_of

SCORE_TOLERANCE = 1e-4  # bits: other hardware rounds otherwise


def rejudge(
    folder: Path, ledger: Ledger, glass: Glass, named: Path | None = None, device: str | None = None
) -> list[Finding]:
    """Judge the stored weights of every deciding trial again, and of the calibration's. Slow: up to two guests each."""
    state = fold(ledger.events())
    task = trusted_task(state, named, again_for(folder))
    require_fit(glass, ledger.standing())
    secret = secret_of(folder, state)
    if secret is None:
        return [Finding("rejudge", False, "the secret is not revealed")]
    config = on_this_machine(restore(state.config), ledger.standing(), device)
    bench = Workbench(task, config.preset_of(task), secret, config.device, side_by_side=1)
    lineage, blobs = Lineage.open(folder / "lineage.git"), Blobs(folder / "blobs")
    deciding = [t for t in state.trials.values() if t.purpose in DECIDING and t.verdict is not None]
    return [_rejudge_one(glass, lineage, blobs, bench, trial) for trial in deciding]


def again_for(folder: Path) -> str:
    return f"bellglass verify {typed(folder)} --rejudge"


def _rejudge_one(glass: Glass, lineage: Lineage, blobs: Blobs, bench: Workbench, trial: Trial) -> Finding:
    assert trial.verdict is not None
    if trial.weights is None:
        return Finding(f"rejudge {trial.trial_id}", False, "a verdict, and no weights")
    docs = make_documents(bench, *split_of(trial.trial_id, trial.purpose))
    labels = {"loop": "rejudge", "generation": str(trial_ids.generation_of(trial.trial_id)), "trial": trial.trial_id}
    bundle, data = lineage.read(trial.bundle), blobs.get(trial.weights)
    was = trial.verdict
    select = None if was.select_score is None else make_documents(bench, "select", "")
    try:
        judged = judge_weights(glass, bundle, data, trial.trial_id, trial.purpose, docs, bench, labels, select)
    except GuestFault as fault:
        return Finding(f"rejudge {trial.trial_id}", False, fault.one_line())
    again = judged.verdict
    above = " above the floor" if bench.task.floor == "exact" else ""
    ok = abs(again.score - was.score) <= SCORE_TOLERANCE
    found = f"{again.score:.5f} again, {was.score:.5f} recorded{above}"
    if again.select_score is not None and was.select_score is not None:
        found += f"; on select {again.select_score:.5f} and {was.select_score:.5f}"
        ok = ok and abs(again.select_score - was.select_score) <= SCORE_TOLERANCE
    if again.disproved and not was.disproved:  # where it pays at few positions it moves no score
        found, ok = f"{found}; its proof disagrees now, and the ledger does not say so", False
    return Finding(f"rejudge {trial.trial_id}", ok, found)
