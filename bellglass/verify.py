"""Verify: derive a finished or unfinished loop again from what it left on disk.

`verify` re-hashes: the chain, every blob and bundle that an event names, the secret against its commitment, the seeds
of every trial. Every outcome must be told once and in its turn (chronicle.py); what was decided is derived again
(rederive.py).

Not covered: whether the weights score as recorded (rejudge), and whether the trainings happened (recheck).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path

from bellglass import tasks
from bellglass.chronicle import chronicle_finding
from bellglass.config import restore
from bellglass.errors import BellglassError, LoopFault
from bellglass.paths import typed
from bellglass.records import Budget, Finding
from bellglass.rederive import adoptions_finding, alarms_finding, budgets_finding, final_finding, gates_finding
from bellglass.steps.adopt import Adoption, next_bundle
from bellglass.steps.trial import seeds_of
from bellglass.store.blobs import Blobs
from bellglass.store.chain import damaged
from bellglass.store.folder import SECRET_BYTES, read_plain
from bellglass.store.ledger import GENESIS, Event, Ledger
from bellglass.store.lineage import MANY, Lineage
from bellglass.store.state import State, fold

STANDING = "standing"
KEPT = 8  # bundles in memory: a champion is the parent of all generations until the next


def verify(folder: Path, ledger: Ledger, head: str | None = None) -> list[Finding]:
    """`head`: a hash that was noted elsewhere, or its beginning. Without one a cut or rewritten end is noticed
    only where the loop was made, because its head is noted there."""
    events: list[Event] = []

    def chain() -> str:
        events.extend(ledger.verified())
        return f"{len(events)} events, head {events[-1].hash[:12] if events else GENESIS[:12]}"

    findings = [_checked("ledger", chain)]
    if not findings[0].ok:
        return findings
    if head is not None:
        findings.append(_head_finding(events, head))
    whose = ledger.standing()
    findings.append(Finding(STANDING, not whose.counterfeit, f"{whose.word}: {whose.why}", not whose.ours))
    findings.append(chronicle_finding(events))
    if not findings[-1].ok:
        return findings
    state = fold(events)
    blobs = Blobs(folder / "blobs")
    findings.append(_checked("bundles", lambda: _bundles(state, Lineage.open(folder / "lineage.git", MANY))))
    findings.append(_checked("blobs", lambda: f"{_count(blobs.get(sha) for sha in _blobs(state))} read and re-hashed"))
    secret = secret_of(folder, state)
    findings.append(_secret_finding(state, secret, mine=whose.ours))
    if secret is not None:
        findings.append(_seeds_finding(state, secret))
    fired = [event.body for event in events if event.kind == "tripwire.fired"]
    findings += [budgets_finding(state, _preset(state)), gates_finding(state), adoptions_finding(state, fired)]
    findings += [final_finding(state), alarms_finding(state, fired)]
    return findings


def _head_finding(events: Sequence[Event], head: str) -> Finding:
    noted = next((event.seq for event in events if event.hash.startswith(head)), None)
    lacks = "of no event: another loop's, or this one was cut or rewritten since"
    return Finding("head", noted is not None, f"{head[:12]} is {lacks if noted is None else f'that of event {noted}'}")


def _preset(state: State) -> Budget | None:
    """The budget of the loop's preset, where the tasks that it was made with are those that are here."""
    name = state.config["task"]
    if not tasks.is_shipped(name):
        return None
    try:
        task = tasks.load(name)
        same = tasks.contents(task)["tasks"] == state.created["content"].get("tasks")
        return restore(state.config).preset_of(task).budget if same else None
    except BellglassError:  # a config of another version
        return None


def _bundles(state: State, lineage: Lineage) -> str:
    """All can be read, and each champion is made from the halves that its decisions name."""
    count = _count(lineage.read(commit) for commit in _commits(state))
    read = lru_cache(KEPT)(lineage.read)
    for gen in state.generations.values():
        if gen.result is None:
            continue
        parent = read(gen.parent)
        successor = parent if gen.successor is None else read(gen.successor)
        adoption = Adoption(gen.result["trainer"], gen.result["scaffold"], "")
        if read(gen.result["champion"]) != next_bundle(adoption, parent, successor):
            thing = f"the champion of generation {gen.number}"
            raise LoopFault(
                thing, "another bundle", "what its two decisions name", "bellglass log", code="ledger_contradicts"
            )
    return f"{count} read and re-hashed"


def _checked(what: str, check: Callable[[], str]) -> Finding:
    try:
        return Finding(what, True, check())
    except BellglassError as error:
        return Finding(what, False, error.said())  # what to type next may be this very command


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
        named |= {sha for sha in (call.request_sha, call.reply_sha) if sha is not None}
    return sorted(named)


def secret_of(folder: Path, state: State) -> bytes | None:
    """Revealed in the ledger when the loop has finished; before, only its owner can read it."""
    if state.ended is not None and state.ended.get("secret"):
        try:
            return bytes.fromhex(state.ended["secret"])
        except (TypeError, ValueError):  # a forged event
            raise damaged(folder, "a revealed secret that is no number") from None
    try:
        return read_plain(folder / "secret", SECRET_BYTES)
    except OSError:
        return None


def require_committed(folder: Path, state: State, secret: bytes) -> bytes:
    """With another secret the rest of a loop would be judged on another world, and nobody would notice."""
    if not _committed(state, secret):
        found, needed = "another secret than it began with", "the one that its first event commits to"
        raise LoopFault(f"loop {folder.name}", found, needed, f"bellglass verify {typed(folder)}", code="secret_wrong")
    return secret


def _committed(state: State, secret: bytes) -> bool:
    return bool(hashlib.sha256(secret).hexdigest() == state.created["secret_commitment"])


def _secret_finding(state: State, secret: bytes | None, *, mine: bool) -> Finding:
    if secret is None and mine:
        return Finding("secret", False, "its file is gone: no trial can be run, nor judged again, without it")
    if secret is None:
        return Finding("secret", True, "not revealed yet", True)
    ok = _committed(state, secret)
    return Finding("secret", ok, "fits its commitment" if ok else "does NOT fit the commitment made at the start")


def _seeds_finding(state: State, secret: bytes) -> Finding:
    wrong = [t.trial_id for t in state.trials.values() if seeds_of(secret, t.trial_id) != t.seeds]
    return Finding(
        "seeds", not wrong, "all follow from the secret" if not wrong else f"not from the secret: {wrong[0]}"
    )
