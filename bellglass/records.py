"""The vocabulary: frozen records with units in their names. Pure; no I/O.

A `Claim` is what the inside of a glass reported; a `Verdict` is what the host measured. They are different
types on purpose, and only verdicts reach the gate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, TypeAlias

Json: TypeAlias = Any  # what json.loads returns
Bundle: TypeAlias = Mapping[str, bytes]  # "trainer/model.py" -> its bytes; the host never imports or executes one

# Why a guest (and so a trial or a session) failed. Fixed words: they may reach an improver; a guest's own text may not.
GUEST_FAULTS = (
    "malformed",  # broke the wire's grammar
    "refused",  # a frame type, operation or file name its role may not send
    "flood",  # exceeded a cap on bytes, frames, logs or metrics
    "stalled",  # did not read or write for the stall time-out
    "crashed",  # its code ended with an error
    "overran",  # used more than its budget
    "timeout",  # reached its wall cap
    "memory",  # killed for memory
    "lost",  # ended without a word
    "no_weights",  # ended well, but wrote no weights
    "bad_weights",  # weights that are not safetensors, too large, or not finite
    "bad_output",  # predictions of the wrong shape, dtype or not finite
    "no_submit",  # a session ended without a submission
    "bad_submit",  # a submission with links, forbidden names, too many or too large files, or edits outside may_edit
    "empty_submit",  # a submission that changes nothing
)


class Role(StrEnum):
    IMPROVE = "improve"
    TRAIN = "train"
    PREDICT = "predict"


class Kind(StrEnum):
    """What an edit touches; decided by path alone."""

    DATA = "data"
    OBJECTIVE = "objective"
    ARCHITECTURE = "architecture"
    OPTIMISER = "optimiser"
    SCAFFOLD = "scaffold"


KIND_OF_PATH = {
    "trainer/data.py": Kind.DATA,
    "trainer/objective.py": Kind.OBJECTIVE,
    "trainer/model.py": Kind.ARCHITECTURE,
    "trainer/train.py": Kind.OPTIMISER,
}


def kind_of(path: str) -> Kind | None:
    """The kind of edit that a path belongs to; None for a path that is no part of a bundle."""
    if path.startswith("scaffold/"):
        return Kind.SCAFFOLD
    return KIND_OF_PATH.get(path)


@dataclass(frozen=True, slots=True)
class Budget:
    """What one trial may use. `steps` makes time virtual: each `time_left` call advances it by one step."""

    kind: Literal["cpu_seconds", "gpu_seconds", "steps"]
    amount: float
    wall_seconds: float  # the cap, whatever the kind

    @property
    def text(self) -> str:
        """What a training gets, without the cap: two that say the same were trained equally long."""
        return f"{self.kind} {self.amount:g}"


@dataclass(frozen=True, slots=True)
class Cost:
    """What something used. `usd` None means unknown, which is never 0."""

    train_seconds: float = 0.0
    tokens_in: int = 0
    tokens_out: int = 0
    calls: int = 0
    usd: float | None = 0.0

    def __add__(self, other: Cost) -> Cost:
        usd = None if self.usd is None or other.usd is None else self.usd + other.usd
        return Cost(
            self.train_seconds + other.train_seconds,
            self.tokens_in + other.tokens_in,
            self.tokens_out + other.tokens_out,
            self.calls + other.calls,
            usd,
        )


@dataclass(frozen=True, slots=True)
class Seeds:
    init_seed: int
    data_seed: int


@dataclass(frozen=True, slots=True)
class Claim:
    """What a trainer said about itself. Shown beside the verdict, never used to decide."""

    bits: float | None  # its own last `claim_bits` metric: bits per target, raw
    steps: int  # how often it asked for the time left
    metrics: int  # how many metric frames it sent


@dataclass(frozen=True, slots=True)
class Proof:
    """A second, fresh guest answered the same questions with the text behind them replaced."""

    positions: int
    mean_gap_bits: float  # uniform half: proof minus score; positive means that the score looked ahead
    gap_z: float  # of the uniform half's signed mean
    targeted_gap_bits: float  # the half where the child gained most; a negative gap counts as none
    targeted_z: float
    agrees: bool


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the host measured. `score` is bits per target above the floor: lower is better, 0 is the source itself."""

    score: float
    raw_bits: float
    floor_bits: float
    by_skill: Mapping[str, float]  # raw bits per target of each skill, minus its floor where one is known
    sampling_se: float  # over documents
    targets: int
    proof: Proof | None  # None: not proved (explore, calibrate)
    select_score: float | None = None  # of the same weights on `select`, unproved; None where it was not measured

    @property
    def disproved(self) -> bool:
        """Answered better where the text behind the question could be seen."""
        return self.proof is not None and not self.proof.agrees


@dataclass(frozen=True, slots=True)
class Trial:
    """One training of one bundle with one pair of seeds under one budget, then judged."""

    trial_id: str
    bundle: str  # commit in the lineage
    purpose: str  # "calibrate", "explore", "gate", "panel", "final"
    seeds: Seeds
    budget: Budget
    claim: Claim
    verdict: Verdict | None  # None exactly when `fault` is set
    fault: str | None  # one of GUEST_FAULTS
    weights: str | None  # sha256 of the stored weights
    train_seconds: float
    wall_seconds: float
    judge_seconds: float
    predicted_seconds: float = 0.0  # the most that one guest of the judge used to load and answer; 0: not measured
    log: str | None = None  # sha256 of the end of what its trainer printed
    curves: str | None = None  # sha256 of what it reported while it trained: claims, for people
    clock: str | None = None  # sha256 of the answers to its `time_left`, where they don't follow from the budget


@dataclass(frozen=True, slots=True)
class GuestExit:
    """What the engine says about an ended guest, not what the guest said."""

    code: int | None
    out_of_memory: bool  # the kernel killed in it, under its own limit
    signal: int = 0  # that ended its first process although nobody here had sent one
    meddled: str = ""  # what another client of the engine did to it
    engine: str = ""  # why the engine did not answer
    machine_memory: bool = False  # the kernel killed in it, because the machine ran out


@dataclass(frozen=True, slots=True)
class Strain:
    """How busy a machine was, as the host measured it on processes of its own."""

    share: float | None  # of a core, that one of ours got while it wanted one; None: not measured
    late: float  # seconds: the longest that this driver stood still
    full: bool = False  # the disk that guests work on


@dataclass(frozen=True, slots=True)
class Interval:
    mean: float
    low: float
    high: float
    n: int

    def text(self, sign: str = "") -> str:
        return f"{self.mean:{sign}.3f} [{self.low:{sign}.3f}, {self.high:{sign}.3f}]"


@dataclass(frozen=True, slots=True)
class Noise:
    """How far the scores of one bundle spread over seeds, and on how many degrees of freedom that rests."""

    sd: float
    df: int


GateWord: TypeAlias = Literal["adopt", "reject", "equal", "more"]


@dataclass(frozen=True, slots=True)
class GateDecision:
    """`gain` is parent minus child in score (positive: the child is better), over the pairs."""

    decision: GateWord
    why: str
    gain: Interval | None
    parent_scores: tuple[float, ...] = ()
    child_scores: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class ToolCall:
    id: str
    name: str
    args: Json  # a dict when the model wrote valid JSON; else the raw string, which the scaffold must cope with


@dataclass(frozen=True, slots=True)
class ChatMessage:
    role: Literal["system", "user", "assistant", "tool"]
    text: str = ""
    calls: tuple[ToolCall, ...] = ()
    call_id: str = ""  # for role "tool": the call it answers
    opaque: tuple[Json, ...] = ()  # reasoning blocks, carried through unchanged


@dataclass(frozen=True, slots=True)
class ToolSpec:
    name: str
    description: str
    parameters: Json  # a JSON schema object


@dataclass(frozen=True, slots=True)
class ChatRequest:
    model: str  # a name of the loop's list ("main"), never a provider's
    messages: tuple[ChatMessage, ...]
    tools: tuple[ToolSpec, ...] = ()
    max_tokens: int = 4096


@dataclass(frozen=True, slots=True)
class ChatReply:
    text: str
    calls: tuple[ToolCall, ...]
    stop: Literal["end", "calls", "length"]
    opaque: tuple[Json, ...] = ()
    cost: Cost = field(default_factory=Cost)
    provider_model: str = ""  # the id that the provider says it ran
    sampling: Mapping[str, Json] = field(default_factory=dict)  # the parameters that were sent, for the record


@dataclass(frozen=True, slots=True)
class CallKey:
    """Names one model call of one improver session, so that a restarted session finds its recorded answers."""

    generation: int
    session: str  # "improve", "boot" or "probe"
    index: int


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check of a loop found, in words for people."""

    what: str
    ok: bool
    found: str
    unproved: bool = False  # nothing could be checked

    @property
    def mark(self) -> str:
        return "FAIL" if not self.ok else "--" if self.unproved else "ok"
