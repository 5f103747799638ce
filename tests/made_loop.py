"""Loops that nobody ran: a ledger of any length, its lineage and its model calls, all through the real classes.

For what shows loops: it needs their records, not their trainings. Scores are drawn from a seed; decisions are made by
the real gate, so that what is shown agrees with itself.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bellglass.records import Bundle, Json, Noise
from bellglass.review import gather
from bellglass.stats import CONFIDENCE, paired_interval, sample_sd
from bellglass.steps import gate
from bellglass.steps.gate import Rules
from bellglass.steps.trial import seeds_of
from bellglass.store.blobs import Blobs
from bellglass.store.ledger import Ledger
from bellglass.store.lineage import Lineage
from bellglass.store.state import fold, state_of
from bellglass.tripwires import NAMES
from bellglass.variance import pooled

SKILLS = ("grammar", "spelling", "copying", "agreement", "number", "holder", "place", "sum")
FLOOR, NOISE, PANEL = 0.31, 0.04, 4
SETTINGS = {
    "task": "stories", "preset": "cpu", "models": {"main": "offline"}, "free_models": [], "trials_per_generation": 6,
    "train_seconds": 40000.0, "wall_seconds": None, "calls": None, "tokens": None, "budget_usd": None, "panel": PANEL,
    "max_pairs": 8, "alpha": 0.05, "may_edit": ["data", "objective", "architecture", "optimiser", "scaffold"],
    "scaffold_rule": "ride", "review": "tripwire", "glass": "docker", "runtime": None, "device": "cpu",
    "virtual_clock": False, "seed": None,
}  # fmt: skip
KINDS = (["optimiser"], ["architecture", "scaffold"], ["data", "optimiser"], ["objective"], ["scaffold"])


@dataclass
class Maker:
    """Events of a loop, one generation after the other."""

    generations: int
    seed: int = 1
    note: str = "warmer start, longer decay; two other edits did not help"
    waits: bool = False  # its last generation waits for a review
    draw: random.Random = field(init=False)
    secret: bytes = b""
    panels: list[Noise] = field(default_factory=list)  # what the gate knows about noise
    skill: float = 2.1  # the champion's true score
    blobs: Blobs | None = None
    lineage: Lineage | None = None
    champion: str = ""
    bundle: dict[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.draw = random.Random(self.seed)
        self.secret = hashlib.sha256(b"secret %d" % self.seed).digest()

    def events(self) -> Iterator[tuple[str, Json]]:
        yield "loop.created", self._created()
        starter = self.champion
        scores = yield from self._panel("cal-{0}x{0}", "calibrate", starter, PANEL)
        yield "loop.calibrated", self._calibration(starter, scores)
        for number in range(1, self.generations + 1):
            yield from self._generation(number)
        if self.waits:
            return
        pairs = [
            (2.1 + self._noise(), self.skill + self._noise()) for _ in range(PANEL if self.champion != starter else 0)
        ]
        for index, (old, new) in enumerate(pairs):
            yield from self._trial(f"final-pair-{index}-starter", "final", starter, old, exact=True)
            yield from self._trial(f"final-pair-{index}-champion", "final", self.champion, new, exact=True)
        gain = asdict(paired_interval(pairs, CONFIDENCE)) if pairs else None
        body = {"alarms": [], "faults": [], "pairs": pairs, "starter": starter, "champion": self.champion}
        yield "final.opened", {**body, "gain": gain, "lacks": ""}
        yield "loop.ended", {"why": "finished", "detail": "within its bounds", "secret": self.secret.hex()}

    def _created(self) -> Json:
        self.bundle = {f"trainer/{n}.py": b"RATE = 1.0\n" for n in ("data", "objective", "model", "train")}
        self.bundle["scaffold/improve.py"] = b"print('improve')\n"
        self.champion = self._commit(self.bundle, None)
        content = {name: hashlib.sha256(name.encode()).hexdigest() for name in ("agent", "sandbox", "trainer_seed")}
        return {
            "loop_id": f"{self.seed:08x}", "task": "stories", "glass": "docker", "sealed": True, "host": "lab",
            "user": "someone", "version": "0.1.0", "content": content, "starter": self.champion,
            "tripwires": NAMES, "config": {**SETTINGS, "generations": self.generations}, "confirm_slices": 1,
            "secret_commitment": hashlib.sha256(self.secret).hexdigest(),
        }  # fmt: skip

    def _calibration(self, starter: str, scores: list[float]) -> Json:
        conditions = {"task": "stories", "preset": "cpu", "budget": "cpu_seconds 15", "device": "cpu", "speed_ms": 2.8}
        conditions |= {"glass": "docker", "starter": starter, "images": "0" * 64}
        return {
            "conditions": conditions, "measured": True, "why": "none is stored", "document_se": 0.012, "parts": {},
            "noise": {"sd": sample_sd(scores), "df": 3}, "scores": scores, "smallest_gain": 0.09,
            "trial_seconds": 17.2,
        }  # fmt: skip

    def _generation(self, number: int) -> Iterator[tuple[str, Json]]:
        parent, kinds = self.champion, self.draw.choice(KINDS)
        yield "generation.started", {"generation": number, "parent": parent}
        yield "session.started", {"generation": number, "left": None}
        yield from self._session(number)
        child = self.skill - self.draw.choice((0.0, 0.0, -0.05, 0.25 * self.skill))
        yield from self._explored(number, parent, child)
        if number % 17 == 5:
            fault = {"successor": None, "fault": "no_submit", "note": self.note, "kinds": []}
            yield "proposal.made", {"generation": number, **fault}
            yield "generation.watched", {"generation": number, "alarms": 0}
            yield "generation.ended", self._ended(number, parent, "failed", "unchanged", "no successor: no_submit")
            return
        changed = self.bundle | {"trainer/train.py": f"RATE = {1.0 + number}\n".encode()}
        successor = self._commit(changed, parent)
        made = {"successor": successor, "fault": None, "note": self.note, "kinds": kinds}
        yield "proposal.made", {"generation": number, **made}
        if "scaffold" in kinds:
            why = "it chatted, edited, ran a trial and submitted"
            yield "boot.checked", {"generation": number, "ok": True, "why": why, "fault": None}
        word, why = "equal", "only its scaffold changed"
        if kinds != ["scaffold"]:
            decision = yield from self._gate(number, parent, successor, child)
            word, why = decision.decision, decision.why
            yield "gate.decided", {"generation": number, "gate": asdict(decision)}
        yield "generation.watched", {"generation": number, "alarms": 0}
        if self.waits and number == self.generations:
            yield "review.requested", {"generation": number, "evidence_hash": "ab" * 32}
            return
        if word != "adopt":
            trainer = "unchanged" if kinds == ["scaffold"] else "rejected"
            scaffold = "not inherited" if "scaffold" in kinds else "unchanged"
            yield "generation.ended", self._ended(number, parent, trainer, scaffold, why)
            return
        # A champion is a commit of its own, as in steps/generation.py, even where its files are the successor's.
        self.champion, self.skill, self.bundle = self._commit(changed, successor), child, changed
        yield from self._panel(f"g{number}-panel-{{}}", "panel", self.champion, PANEL)
        yield "champion.retrained", {"generation": number, "alarms": 0}
        scaffold = "inherited" if "scaffold" in kinds else "unchanged"
        yield "generation.ended", self._ended(number, self.champion, "adopted", scaffold, why)

    def _explored(self, number: int, parent: str, child: float) -> Iterator[tuple[str, Json]]:
        for index in range(3):
            yield from self._trial(f"g{number}-try-{index}", "explore", parent, child + 0.3)

    def _gate(self, number: int, parent: str, successor: str, child: float) -> Iterator[tuple[str, Json]]:
        rules = Rules(gate.spend(0.05, number), pooled(self.panels), 8)
        pairs: list[tuple[float, float]] = []
        decision = gate.decide(pairs, rules)
        while decision.decision == "more":
            old, new = self.skill + self._noise(), child + self._noise()
            yield from self._trial(f"g{number}-pair-{len(pairs)}-parent", "gate", parent, old, exact=True)
            yield from self._trial(f"g{number}-pair-{len(pairs)}-child", "gate", successor, new, exact=True)
            pairs.append((old, new))
            decision = gate.decide(pairs, rules)
        return decision  # type: ignore[return-value]

    def _panel(self, name: str, purpose: str, bundle: str, seeds: int) -> Iterator[tuple[str, Json]]:
        scores = [self.skill + self._noise() for _ in range(seeds)]
        for index, score in enumerate(scores):
            yield from self._trial(name.format(index), purpose, bundle, score, exact=True)
        self.panels.append(Noise(sample_sd(scores), seeds - 1))
        return scores  # type: ignore[return-value]

    def _ended(self, number: int, champion: str, trainer: str, scaffold: str, why: str) -> Json:
        words = {"trainer": trainer, "scaffold": scaffold, "why": why}
        return {"generation": number, "champion": champion, **words}

    def _trial(
        self, trial_id: str, purpose: str, bundle: str, score: float, *, exact: bool = False
    ) -> Iterator[tuple[str, Json]]:
        budget = {"kind": "cpu_seconds", "amount": 15.0, "wall_seconds": 180.0}
        order = {"trial_id": trial_id, "bundle": bundle, "purpose": purpose, "budget": budget}
        ask = {"calls": 0, "tokens_in": 0, "tokens_out": 0, "train_seconds": 16.0, "usd": 0.0}
        yield "trial.intended", {**order, "ask": ask, "generation": 0}
        score = score if exact else score + self._noise()
        proof = {"positions": 400, "mean_gap_bits": 0.0, "gap_z": 0.1, "targeted_gap_bits": 0.0, "targeted_z": 0.2}
        verdict = {
            "score": score, "raw_bits": score + FLOOR, "floor_bits": FLOOR, "sampling_se": 0.012, "targets": 21000,
            "by_skill": {s: score * (0.4 + 0.15 * k) for k, s in enumerate(SKILLS)},
            "proof": None if purpose in ("explore", "calibrate") else {**proof, "agrees": True},
            "select_score": score - 0.01 + self._noise() / 4 if purpose == "gate" else None,
        }  # fmt: skip
        yield "trial.settled", {
            **order, "seeds": asdict(seeds_of(self.secret, trial_id)), "verdict": verdict, "fault": None,
            "weights": None, "claim": {"bits": score + FLOOR - 0.02, "steps": 160, "metrics": 12},
            "train_seconds": 15.1, "wall_seconds": 16.0, "judge_seconds": 0.4, "log": None, "clock": None,
        }  # fmt: skip

    def _session(self, number: int) -> Iterator[tuple[str, Json]]:
        told = {"role": "user", "text": f"# Session\n\ngeneration: {number}", "calls": [], "call_id": "", "opaque": []}
        call = {"id": "c0", "name": "read_file", "args": {"path": "trainer/train.py"}}
        heard = {"role": "assistant", "text": "I look at the rate.", "calls": [call], "call_id": "", "opaque": []}
        answer = {"role": "tool", "text": "RATE = 1.0", "calls": [], "call_id": "c0", "opaque": []}
        replies = [
            {"text": "I look at the rate.", "calls": [call], "opaque": [{"type": "thinking", "thinking": "hmm"}]},
            {"text": self.note, "calls": [{"id": "c1", "name": "submit", "args": {"note": self.note}}], "opaque": []},
        ]
        for index, (messages, reply) in enumerate(zip(([told], [told, heard, answer]), replies, strict=True)):
            key, stop = f"g{number}-improve-{index}", "calls"
            ask = {"calls": 1, "tokens_in": 900, "tokens_out": 200, "train_seconds": 0.0, "usd": 0.002}
            request = self._blob({"model": "main", "messages": messages, "tools": [], "max_tokens": 4096})
            yield "call.reserved", {"key": key, "model": "main", "ask": ask, "request_sha": request}
            facts = {"outcome": "ok", "provider": "offline", "provider_model": "offline", "sampling": {}, "stop": stop}
            answered = self._blob({**reply, "stop": stop})
            yield "call.settled", {"key": key, "cost": ask, "facts": facts, "reply_sha": answered}

    def _noise(self) -> float:
        return self.draw.gauss(0.0, NOISE)

    def _blob(self, body: Json) -> str:
        data = json.dumps(body).encode()
        return hashlib.sha256(data).hexdigest() if self.blobs is None else self.blobs.put(data)

    def _commit(self, bundle: Bundle, parent: str | None) -> str:
        if self.lineage is not None:
            return self.lineage.commit(bundle, parent, "made")
        return hashlib.sha1(repr((sorted(bundle.items()), parent)).encode()).hexdigest()


def write(home: Path, generations: int, *, texts: bool = False, **chosen: Json) -> Path:
    """A loop's folder. `texts`: with lineage and model calls, which take time."""
    maker = Maker(generations, **chosen)
    folder = home / f"stories-{maker.seed:08x}"
    with closing(Ledger.create(folder)) as ledger:
        if texts:
            maker.lineage, maker.blobs = Lineage.create(folder / "lineage.git"), Blobs(folder / "blobs")
        for kind, body in maker.events():
            if kind == "review.requested" and maker.lineage is not None:
                body["evidence_hash"] = gather(fold(ledger.events()), body["generation"], maker.lineage).hash
            ledger.append(kind, body)
    return folder


def third(home: Path, edits: dict[str, str], *, asked: bool = True) -> Path:
    """A loop whose third generation waits, with these files in its successor: a better trainer, and a scaffold whose
    boot check failed.

    `asked`: about what is shown; else another version of bellglass hashed something else.
    """
    folder = write(home, 2, texts=True, waits=True, seed=2)
    second = state_of(folder).generation(2)
    lineage = Lineage.open(folder / "lineage.git")
    bundle = lineage.read(second.parent) | {path: text.encode() for path, text in edits.items()}
    successor = lineage.commit(bundle, second.parent, "third")
    made = {"generation": 3, "successor": successor, "fault": None, "note": "", "kinds": ["architecture", "scaffold"]}
    boot = {"generation": 3, "ok": False, "why": "it submitted nothing", "fault": None}
    gain = {"mean": 0.2, "low": 0.1, "high": 0.3, "n": 3}
    gated = {"decision": "adopt", "why": "clear", "gain": gain, "parent_scores": [], "child_scores": []}
    decided = {"generation": 2, "decision": "reject", "reason": "-", "who": "-", "evidence_hash": second.review_hash}
    ended = {"generation": 2, "champion": second.parent, "trainer": "rejected", "scaffold": "unchanged", "why": "-"}
    with closing(Ledger.open(folder, write=True)) as ledger:
        ledger.append("review.decided", decided)
        ledger.append("generation.ended", ended)
        ledger.append("generation.started", {"generation": 3, "parent": second.parent})
        ledger.append("proposal.made", made)
        ledger.append("boot.checked", boot)
        ledger.append("gate.decided", {"generation": 3, "gate": gated})
        evidence = gather(fold(ledger.events()), 3, lineage).hash if asked else "cd" * 32
        ledger.append("review.requested", {"generation": 3, "evidence_hash": evidence})
    return folder
