"""Judge: turn one trained bundle into a verdict, by asking fresh `predict` guests and scoring here, on the host.

A guest gets inputs and returns raw logits; this file holds the targets, normalises in float64 and adds up. Where
targets can be separated from inputs (`task.separable`), only what stands before the target is sent. Where the text is
its own target, whole windows are sent, and a second guest proves the score on rows whose text behind the position is
replaced (proof.py). Both guests are opened at the same time, so that warming the second overlaps with asking the first;
but the second gets bundle code only when the first has ended. Where a glass can't keep living guests from hearing each
other (`find_why_alone`), each is opened when its turn comes, and the second answers while nobody else has a bundle.

The first guest may be asked about other documents, too (`select`, which an improver has been scored on), so that both
scores come from one set of weights. They are asked last: no answer that decides can depend on them.

The words in a GuestFault raised here are the host's own; nothing that a guest says but its numbers gets out.

Not covered: what the numbers themselves could carry. They end here: an improver sees the verdict's few figures, and of
`confirm` and `final` not even these. The score on `select` is not proved; a model that looks ahead does so there, too.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import chain, islice

import numpy as np
from numpy.typing import NDArray

from bellglass.data_file import check_command
from bellglass.errors import BellglassError, GuestFault, UsageError
from bellglass.gpus import gpu_of, guest_device
from bellglass.line.intake import Done, FileReceived, Request
from bellglass.ports import Glass, Guest, GuestSpec, memory_mb
from bellglass.records import GUEST_FAULTS, Budget, Bundle, Proof, Role, Verdict
from bellglass.steps import proof as proofs
from bellglass.steps.proof import Bits, Draw, Ints, Question
from bellglass.steps.train import refuse_stopped
from bellglass.tasks import Documents, Preset, Task
from bellglass.weights import WEIGHTS_FILE

MAX_QUESTION_BYTES = 1 << 20  # one reply's body
MAX_ANSWER_BYTES = 16 << 20  # bounds the memory of guest and host alike
MAX_ROWS = 64
LARGEST_LOGIT = 1e9  # beyond, differences of logits lose their meaning
# A guest may leave at most some 32 bits behind for the next one (docs/decisions/001). Over this many targets they are
# worth 0.06 bits each, and over the thousands of a shipped task less than a tenth of that.
MIN_TARGETS = 512
GRACE_SECONDS = 60.0  # the guest's own deadline, for when the host is gone


@dataclass(frozen=True, slots=True)
class Judgement:
    """`predicted_seconds`: the most that one guest used to load and answer; of CPU, or waited for on a GPU."""

    verdict: Verdict
    predicted_seconds: float


def judge(
    glass: Glass,
    bundle: Bundle,
    weights: bytes,
    task: Task,
    docs: Documents,
    *,
    preset: Preset,
    labels: Mapping[str, str],
    prove: bool,
    proof_key: bytes,
    select: Documents | None = None,
    device: str = "cpu",
    cancelled: Callable[[], bool] = lambda: False,
) -> Judgement:
    """Raises GuestFault for whatever the bundle does. `weights` were checked before (weights.py).

    What loads and predicts is the bundle's code and could go on training, from documents that its weights carry. So
    no guest may use more seconds here than a training has, and what it used is told beside (tripwires.py).

    `select`: documents to score the same weights on beside, without proof; the guest gets the more time for it.
    One position per document is proved, so that the proof costs as much as the score.
    """
    check_documents(task, docs, prove)
    draw = Draw(proof_key)
    extra = 0.0 if select is None else len(select) / len(docs)
    guests = _Guests(glass, bundle, weights, task, preset, dict(labels), device, extra, cancelled)
    with guests:
        if not glass.find_why_alone():
            guests.open("score")
            if prove:
                guests.open("proof")
        bits, select_bits = _score(guests, task, docs, select, draw)
        found: _Proved | None = None
        if prove:
            found = _prove(guests, task, docs, bits, draw)
    verdict = _verdict(task, docs, bits, found)
    if select is not None and select_bits is not None:
        verdict = replace(verdict, select_score=_verdict(task, select, select_bits, None).score)
    return Judgement(verdict, round(guests.used(), 4))


def code_lengths(logits: NDArray[np.float32], targets: Ints) -> Bits:
    """Bits per target from raw logits [K, V], normalised in float64."""
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(axis=1, keepdims=True)
    chosen = np.take_along_axis(shifted, targets[:, None], axis=1)[:, 0]
    lengths: Bits = (np.log(np.exp(shifted).sum(axis=1)) - chosen) / math.log(2.0)
    return lengths


@dataclass(frozen=True, slots=True)
class _Proved:
    proof: Proof
    gap_se: float


class _Guests:
    """The guests of one judgement. Leaving it ends them all."""

    def __init__(
        self,
        glass: Glass,
        bundle: Bundle,
        weights: bytes,
        task: Task,
        preset: Preset,
        labels: dict[str, str],
        device: str,
        extra: float,
        cancelled: Callable[[], bool],
    ) -> None:
        self._cancelled = cancelled
        self._glass, self._labels, self._device = glass, labels, device
        self._files = {path: data for path, data in sorted(bundle.items()) if path.startswith("trainer/")}
        self._files[WEIGHTS_FILE] = weights
        self._vocab = task.vocab
        self._seconds = {"score": preset.predict_seconds * (1.0 + extra), "proof": preset.predict_seconds}
        self._budget = preset.budget
        self._talks: list[_Conversation] = []
        self._pool = ThreadPoolExecutor(max_workers=2, thread_name_prefix="judge")
        self._opening: dict[str, Future[Guest]] = {}
        self._current: Guest | None = None  # the only guest of this judgement that holds bundle code
        self._company = ExitStack()

    def __enter__(self) -> _Guests:
        return self

    def __exit__(self, *exc: object) -> None:
        list(self._pool.map(self._end, self._opening.values()))
        self._pool.shutdown()
        self._company.close()

    def open(self, name: str) -> None:
        """Start a guest, in the background and still without bundle code; a failure is raised by whoever asks it."""
        self._opening[name] = self._pool.submit(self._start, name)

    def used(self) -> float:
        """Seconds of the guest that took most."""
        return max(talk.used() for talk in self._talks)

    def ask(self, name: str, questions: Iterable[Question]) -> Iterator[tuple[Question, NDArray[np.float32]]]:
        """Each question with its checked logits. The guest works on the next while the caller looks at an answer."""
        if self._current is not None:
            self._current.end()  # two guests with bundle code at once could signal to each other by the machine's load
        self._company.close()
        company = self._glass.company(alone=name == "proof", check=lambda: refuse_stopped(self._cancelled))
        self._company.enter_context(company)
        if name not in self._opening:
            self.open(name)
        try:
            guest = self._current = self._opening[name].result()
        except GuestFault as fault:
            fault.ready = False
            raise
        for path, data in self._files.items():
            guest.send_file(path, data)
        talk = _Conversation(guest, self._vocab, self._seconds[name], self._budget)
        self._talks.append(talk)
        guest.send("start", args={"device": guest_device(self._device), "threads": 1})
        try:
            yield from talk.ask(questions)
        except GuestFault as fault:
            fault.exit = guest.end()
            if fault.exit.out_of_memory:
                raise GuestFault("memory", "while predicting", fault.exit) from None
            raise

    def _start(self, name: str) -> Guest:
        spec = GuestSpec(
            role=Role.PREDICT,
            labels={**self._labels, "purpose": name},
            memory_mb=memory_mb(Role.PREDICT, self._device),
            deadline_seconds=sum(self._seconds.values()) + GRACE_SECONDS,
            gpu=gpu_of(self._device),
        )
        return self._glass.open(spec)

    def _end(self, opening: Future[Guest]) -> None:
        with contextlib.suppress(BellglassError):  # then there is no guest, and the one who asked was told
            opening.result().end()


class _Conversation:
    """Questions and answers with one guest; only the time it is waited for counts against its limit."""

    def __init__(self, guest: Guest, vocab: int, seconds: float, budget: Budget) -> None:
        self._guest, self._vocab, self._seconds, self._budget = guest, vocab, seconds, budget
        self._waited, self._before = 0.0, guest.cpu_seconds()

    def used(self) -> float:
        """Seconds since the guest has the bundle, as a trainer's are counted."""
        return self._waited if self._budget.kind == "gpu_seconds" else self._guest.cpu_seconds() - self._before

    def _enforce(self) -> None:
        if self._budget.kind != "steps" and self.used() > self._budget.amount:
            raise GuestFault("overran", f"more than {self._budget.amount:g} {self._budget.kind} to predict")

    def ask(self, questions: Iterable[Question]) -> Iterator[tuple[Question, NDArray[np.float32]]]:
        request, early = self._next_request()
        if early is not None:
            raise GuestFault("bad_output", "an answer before the first question")
        answered: tuple[Question, NDArray[np.float32]] | None = None
        for question in questions:
            tokens = np.ascontiguousarray(question.tokens, dtype="<i8")
            body = tokens.tobytes()
            self._guest.send("reply", body, id=request.id, ok=True, value={"shape": list(tokens.shape)})
            if answered is not None:
                yield answered
            request, data = self._next_request()
            answered = question, self._logits(tokens.shape, data)
        if answered is not None:
            yield answered

    def _next_request(self) -> tuple[Request, bytes | None]:
        """Wait until the guest asks for the next question; with it comes the answer to the last one."""
        data: bytes | None = None
        began = time.monotonic()
        while True:
            left = self._seconds - self._waited - (time.monotonic() - began)
            if left <= 0.0:
                raise GuestFault("timeout", f"more than {self._seconds:g} s to predict")
            event = self._guest.recv(min(left, 1.0))
            self._enforce()
            if isinstance(event, Request):
                self._waited += time.monotonic() - began
                return event, data
            if isinstance(event, FileReceived):
                if data is not None:
                    raise GuestFault("bad_output", "two answers to one question")
                data = event.data
            elif isinstance(event, Done):
                code = event.why if event.why in GUEST_FAULTS else "crashed"  # it left by itself
                raise GuestFault(code, "ended before all was answered")

    def _logits(self, shape: tuple[int, ...], data: bytes | None) -> NDArray[np.float32]:
        if data is None:
            raise GuestFault("bad_output", "no answer to a question")
        expected = 4 * math.prod(shape) * self._vocab
        if len(data) != expected:
            raise GuestFault("bad_output", f"{len(data)} bytes of logits, needed are {expected} of float32")
        logits = np.frombuffer(data, dtype="<f4").reshape(*shape, self._vocab)
        low, high = logits.min(), logits.max()  # NaN anywhere makes both NaN, and the comparison false
        if not (low > -LARGEST_LOGIT and high < LARGEST_LOGIT):
            raise GuestFault("bad_output", "logits that are not finite")
        return logits


def check_documents(task: Task, docs: Documents, prove: bool, which: str = "documents") -> None:
    """Mistakes of a task's author, found before they become wrong scores."""

    def wrong(found: str, needed: str) -> UsageError:
        thing = f"{which} of task {task.name!r} ({task.folder / 'data.py'})"
        return UsageError(thing, found, needed, check_command(task.folder), code="task_documents_unfit")

    per_doc = docs.target.sum(axis=1)
    with_target = int((per_doc > 0).sum())
    if not with_target:
        raise wrong("no target", "targets from column 1 on")
    if docs.target[:, 0].any():
        raise wrong("a target in column 0, with nothing before it", "targets from column 1 on")
    if task.separable and (per_doc != 1).any():
        raise wrong("separable, but not one target per document", "exactly one, or separable = false in task.toml")
    if prove and with_target < proofs.MIN_DOCS:
        raise wrong(f"{with_target} with a target, to prove", f"at least {proofs.MIN_DOCS}")
    if prove and not task.separable and per_doc.sum() < MIN_TARGETS:
        raise wrong(f"{per_doc.sum()} targets, to prove", f"at least {MIN_TARGETS}")


def _batch_rows(width: int, vocab: int) -> int:
    return max(1, min(MAX_ROWS, MAX_QUESTION_BYTES // (8 * width), MAX_ANSWER_BYTES // (4 * width * vocab)))


def _score_questions(task: Task, docs: Documents, draw: Draw, label: str) -> Iterator[Question]:
    order = draw.order(label, len(docs.tokens))
    order = order[docs.target[order].any(axis=1)]
    if task.separable:
        yield from _prefix_questions(task, docs, order, docs.target.argmax(axis=1)[order])
        return
    width = docs.tokens.shape[1] - 1
    for members in proofs.batches(order, _batch_rows(width, task.vocab)):
        rows, cols = np.nonzero(docs.target[members])
        yield Question(docs.tokens[members, :width].astype(np.int64), rows, members[rows], cols)


def _prefix_questions(task: Task, docs: Documents, members: Ints, cols: Ints) -> Iterator[Question]:
    """What stands before each target and nothing more, in calls of equal length."""
    for width in np.unique(cols).tolist():
        for some in proofs.batches(members[cols == width], _batch_rows(width, task.vocab)):
            tokens = docs.tokens[some, :width].astype(np.int64)
            yield Question(tokens, np.arange(len(some)), some, np.full(len(some), width))


def _proof_questions(task: Task, docs: Documents, plan: proofs.Plan, draw: Draw) -> Iterator[Question]:
    if task.separable:
        order = draw.order("proof", len(plan.docs))
        yield from _prefix_questions(task, docs, plan.docs[order], plan.cols[order])
        return
    tokens = proofs.replaced(docs.tokens.astype(np.int64), plan, draw)
    for members in proofs.rounds(plan, draw):
        for some in proofs.batches(members, _batch_rows(tokens.shape[1], task.vocab)):
            yield Question(tokens[some], np.arange(len(some)), plan.docs[some], plan.cols[some])


def _score(
    guests: _Guests, task: Task, docs: Documents, select: Documents | None, draw: Draw
) -> tuple[Bits, Bits | None]:
    """Bits of both, in one conversation; `select` comes last."""
    first = list(_score_questions(task, docs, draw, "score"))
    then = () if select is None else _score_questions(task, select, draw, "select")
    answers = guests.ask("score", chain(first, then))
    bits = _bits(islice(answers, len(first)), docs)
    return bits, None if select is None else _bits(answers, select)


def _bits(answers: Iterable[tuple[Question, NDArray[np.float32]]], docs: Documents) -> Bits:
    """Bits [N, L] of every position that was asked about, 0 elsewhere."""
    bits = np.zeros(docs.tokens.shape, dtype=np.float64)
    for question, logits in answers:
        targets = docs.tokens[question.docs, question.cols].astype(np.int64)
        bits[question.docs, question.cols] = code_lengths(logits[question.rows, question.cols - 1], targets)
    return bits


def _prove(guests: _Guests, task: Task, docs: Documents, bits: Bits, draw: Draw) -> _Proved:
    plan = proofs.plan(bits, docs.target, rival(task, docs), draw, rows=len(docs), separable=task.separable)
    again = _bits(guests.ask("proof", _proof_questions(task, docs, plan, draw)), docs)
    at = plan.docs, plan.cols
    found, gap_se, scattered = proofs.compare(plan, bits[at], again[at])
    if scattered:
        raise GuestFault("bad_output", "batch-dependent: the same question got another answer in other company")
    return _Proved(found, gap_se)


def _verdict(task: Task, docs: Documents, bits: Bits, proved: _Proved | None) -> Verdict:
    """The score holds the proof's correction where it makes it worse; the per-skill figures do not."""
    target, floor = docs.target, np.where(docs.target, docs.floor_bits, 0.0).astype(np.float64)
    targets = int(target.sum())
    raw, floor_mean = float(bits[target].sum()) / targets, float(floor.sum()) / targets
    error = _sampling_error((bits - floor).sum(axis=1), target.sum(axis=1))
    if proved is not None:
        # A negative gap is clamped: else a model could answer the score badly on purpose and be paid for its luck.
        raw += max(0.0, proved.proof.mean_gap_bits)
        error = math.hypot(error, proved.gap_se)
    above = bits - floor
    by_skill = {
        name: float(above[chosen].sum()) / int(chosen.sum())
        for index, name in enumerate(task.skills)
        if (chosen := target & (docs.skill == index)).any()
    }
    return Verdict(
        score=raw - floor_mean,
        raw_bits=raw,
        floor_bits=floor_mean,
        by_skill=by_skill,
        sampling_se=error,
        targets=targets,
        proof=None if proved is None else proved.proof,
    )


def _sampling_error(sums: Bits, counts: NDArray[np.integer]) -> float:
    """Standard error of the mean over targets when documents are what was drawn."""
    used = counts > 0
    n = int(used.sum())
    if n < 2:
        return 0.0
    weights = counts[used].astype(np.float64)
    spread = sums[used] - weights * (sums[used].sum() / weights.sum())
    return float(np.sqrt((spread**2).sum() * n / (n - 1)) / weights.sum())


def rival(task: Task, docs: Documents) -> Bits:
    """What the proof is aimed by, in bits per position [N, L]: a model's largest gains over this are looked at.

    The host's own model, half of it the source where that is known: where both pay, a low answer is suspicious. The
    source alone would aim badly: its bits lie evenly on the letters of a word, so at no letter they are large.
    """
    own = proofs.host_bits(docs.tokens.astype(np.int64), docs.target, task.vocab)
    return own if task.floor == "unknown" else 0.5 * (own + docs.floor_bits)
