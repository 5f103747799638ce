"""A trial: train, check the weights, judge, store. The `Lab` runs several side by side and books each of them.

A settled trial is never run again: asked for a second time (after a crash, say), the lab answers from the books.
A trial that fell through no fault of its bundle (blame.py) is not settled. It is booked as disturbed and run again
under its id and seeds, with nothing beside it, until it has been tried often enough: then this machine can't do it.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace

import numpy as np

from bellglass import tasks, trial_ids, weights
from bellglass.blame import Owner, Seen, blame
from bellglass.errors import GuestFault, LoopFault, SetupError
from bellglass.ports import Glass
from bellglass.records import Budget, Bundle, Cost, GuestExit, Json, Seeds, Trial
from bellglass.steps.judge import Judgement, judge
from bellglass.steps.train import OVERRUN_FACTOR, OVERRUN_SECONDS, Training, train
from bellglass.store.books import Books
from bellglass.store.driver_log import LOG
from bellglass.store.lineage import Lineage
from bellglass.store.live_curves import LiveCurves
from bellglass.store.state import to_json
from bellglass.tasks import Documents, Preset, Split, Task
from bellglass.weights import WEIGHTS_FILE

DOCUMENTS_KEPT = 16  # sets; each pair of a gate has its own
PROVED = ("gate", "panel", "final")  # trials that decide something; the others only steer an improver
TRIES: dict[Owner, int] = {"machine": 3, "unknown": 2}  # until the loop halts
PASSING = ("docker_silent", "docker_failed", "keeper_ended", "folder_unwritable")  # what a machine may get over
WAIT_SECONDS = 120.0  # for a machine that is too busy, or an engine that is away
DECIDING = (*PROVED, "calibrate")  # a noise that was made small would make decisions, too


@dataclass(frozen=True, slots=True)
class Order:
    """What to run. The id and the purpose say the rest: which seeds, and on which documents it is judged."""

    trial_id: str
    bundle: str
    purpose: str
    generation: int
    budget: Budget
    note: str = ""  # what its improver said that it tries: testimony


@dataclass(frozen=True, slots=True)
class Disturbed:
    """A trial that fell, and says nothing about its bundle."""

    order: Order
    owner: Owner
    sentence: str
    seen: Json  # what the host measured


@dataclass(frozen=True, slots=True)
class Workbench:
    """What every trial of a loop shares."""

    task: Task
    preset: Preset
    secret: bytes
    device: str
    side_by_side: int


Progress = Callable[[str, str], None]  # (trial id, phase); for the console only


class Lab:
    def __init__(
        self,
        books: Books,
        lineage: Lineage,
        glass: Glass,
        bench: Workbench,
        live: LiveCurves,
        *,
        progress: Progress,
        check: Callable[[], None],
    ) -> None:
        self._books, self._lineage, self._glass, self.bench, self._live = books, lineage, glass, bench, live
        self._progress, self._check = progress, check
        self._cancel = threading.Event()
        self._docs: dict[tuple[Split, str], Documents] = {}
        self._docs_lock = threading.Lock()

    def run(self, orders: Sequence[Order]) -> list[Trial]:
        """All of them, at most `side_by_side` at once, in the order asked for. Books intents before effects."""
        waiting = [order for order in orders if not self._settled(order)]
        if waiting:
            self._books.begin_trials(
                {order.trial_id: worst_case(order.budget) for order in waiting},
                {order.trial_id: _intent(order) for order in waiting},
            )
        disturbed = self._run_together(waiting, self.bench.side_by_side)
        tries: Counter[str] = Counter()
        while disturbed:
            self._refuse_tried_enough(disturbed, tries)
            LOG.info("waits until this machine is free, to run again: %d trial(s)", len(disturbed))
            why_not = self._glass.wait_until_free(WAIT_SECONDS, self._check)
            if why_not:
                raise _too_much(disturbed[0].order.trial_id, why_not)
            disturbed = self._run_together([one.order for one in disturbed], 1)
        return [self._books.state.trials[order.trial_id] for order in orders]

    def _run_together(self, orders: Sequence[Order], count: int) -> list[Disturbed]:
        with ThreadPoolExecutor(max_workers=count, thread_name_prefix="trial") as pool:
            return self._await([pool.submit(self._run, order) for order in orders])

    def _refuse_tried_enough(self, disturbed: Sequence[Disturbed], tries: Counter[str]) -> None:
        """All are booked before the loop halts for one: else the side that is booked first would seem the worse."""
        tries.update(one.order.trial_id for one in disturbed)
        last = [one for one in disturbed if tries[one.order.trial_id] >= TRIES[one.owner]]
        for one in disturbed:
            self._books.disturb_trial(
                one.order.trial_id, generation=one.order.generation, owner=one.owner, why=one.sentence, seen=one.seen,
                last=one in last,
            )  # fmt: skip
        if last:
            raise _too_much(last[0].order.trial_id, last[0].sentence)

    def _settled(self, order: Order) -> bool:
        found = self._books.settled_trial(order.trial_id)
        if found is not None and found.bundle != order.bundle:
            raise LoopFault(
                f"trial {order.trial_id}",
                "settled for another bundle",
                "its own",
                "bellglass verify",
                code="ledger_contradicts",
            )
        return found is not None

    def _await(self, futures: list[Future[Trial | Disturbed]]) -> list[Disturbed]:
        """Book each trial as it ends; those that have to be run again. A stop cancels those under way; `resume` runs
        them again from their intents."""
        waiting, disturbed = set(futures), []
        try:
            while waiting:
                done, waiting = wait(waiting, timeout=0.25, return_when=FIRST_COMPLETED)
                for future in done:
                    ended = future.result()
                    if isinstance(ended, Disturbed):
                        disturbed.append(ended)
                    else:
                        self._books.end_trial(ended)
                self._check()
        except BaseException:
            self._cancel.set()
            raise
        return disturbed

    def log_tail(self, trial: Trial) -> str:
        return "" if trial.log is None else self._books.blobs.get(trial.log).decode(errors="replace")

    def documents(self, split: Split, salt: str = "") -> Documents:
        with self._docs_lock:
            made = self._docs.pop((split, salt), None) or make_documents(self.bench, split, salt)
            while len(self._docs) >= DOCUMENTS_KEPT:
                del self._docs[next(iter(self._docs))]  # the one that was not asked for the longest
            self._docs[split, salt] = made
            return made

    def _run(self, order: Order) -> Trial | Disturbed:
        began = time.monotonic()
        try:
            return self._tried(order)
        except SetupError as error:
            if error.code not in PASSING:
                raise
            return self._disturbed(order, Seen("lost", engine=error.found or error.thing), began)
        finally:
            self._live.drop(order.trial_id)

    def _disturbed(self, order: Order, seen: Seen, since: float) -> Disturbed:
        strain = self._glass.strain(since)
        seen = replace(seen, share=strain.share, late=strain.late, full=strain.full)
        return Disturbed(order, *blame(seen), to_json(seen))

    def _tried(self, order: Order) -> Trial | Disturbed:
        bundle = self._lineage.read(order.bundle)
        seeds = seeds_of(self.bench.secret, order.trial_id)
        self._progress(order.trial_id, "training")
        begun = time.monotonic()
        training = self._train(order, bundle, seeds)
        self._progress(order.trial_id, "judging")
        fault, judged, stored = training.fault, None, None
        seen = _seen_training(training)
        began = time.monotonic()
        if fault is None:
            try:
                stored = self._store_weights(training)
                judged = self._judge(order, bundle, training)
            except GuestFault as error:
                fault, training = error.code, replace(training, log=training.log + b"\n" + error.detail.encode())
                seen = _seen(error.code, error.exit, ready=error.ready)
        if fault is not None:
            disturbed = self._disturbed(order, seen, began if training.fault is None else begun)
            if disturbed.owner != "bundle":
                self._progress(order.trial_id, "disturbed")
                return disturbed
        self._progress(order.trial_id, "failed" if fault else "done")
        return Trial(
            trial_id=order.trial_id,
            bundle=order.bundle,
            purpose=order.purpose,
            seeds=seeds,
            budget=order.budget,
            claim=training.claim,
            verdict=None if judged is None else judged.verdict,
            fault=fault,
            weights=stored,
            train_seconds=training.train_seconds,
            wall_seconds=training.wall_seconds,
            judge_seconds=round(time.monotonic() - began, 4),
            predicted_seconds=0.0 if judged is None else judged.predicted_seconds,
            log=self._books.blobs.put(training.log) if training.log else None,
            curves=self._books.blobs.put(training.curves) if training.curves else None,
            clock=self._store_clock(order, training),
        )

    def _labels(self, order: Order) -> dict[str, str]:
        return {"loop": self._books.state.loop_id, "generation": str(order.generation), "trial": order.trial_id}

    def _train(self, order: Order, bundle: Bundle, seeds: Seeds) -> Training:
        docs = tasks.train_order(self.documents("train"), seeds.data_seed)
        return train(
            self._glass,
            bundle,
            docs,
            task=self.bench.task,
            seeds=seeds,
            budget=order.budget,
            labels=self._labels(order),
            device=self.bench.device,
            cancelled=self._cancel.is_set,
            watch=lambda curves: self._live.put(order.trial_id, curves),
        )

    def _store_weights(self, training: Training) -> str:
        data = training.files[WEIGHTS_FILE]
        weights.check(data, max_bytes=int(self.bench.preset.weights_mb * 1e6))
        return self._books.blobs.put(data)

    def _store_clock(self, order: Order, training: Training) -> str | None:
        """What a trial that decides was answered, so that it can be run again exactly."""
        if order.purpose not in PROVED or order.budget.kind == "steps" or not training.answers:
            return None
        return self._books.blobs.put(np.asarray(training.answers, dtype="<f8").tobytes())

    def _judge(self, order: Order, bundle: Bundle, training: Training) -> Judgement:
        split, salt = split_of(order.trial_id, order.purpose)
        docs = self.documents(split, salt)
        select = self.documents("select") if order.purpose == "gate" else None  # beside: what did the improver fit?
        data, labels = training.files[WEIGHTS_FILE], self._labels(order)
        return judge_weights(
            self._glass,
            bundle,
            data,
            order.trial_id,
            order.purpose,
            docs,
            self.bench,
            labels,
            select,
            self._cancel.is_set,
        )


def _seen_training(training: Training) -> Seen:
    seen = _seen(training.fault or "", training.exit, ready=training.exit is not None)
    return replace(seen, used=training.train_seconds, needed=training.needed, wall=training.wall_seconds)


def _seen(fault: str, ended: GuestExit | None, *, ready: bool) -> Seen:
    if ended is None:
        return Seen(fault, ready)
    return Seen(
        fault,
        ready,
        signal=ended.signal,
        meddled=ended.meddled,
        engine=ended.engine,
        machine_memory=ended.machine_memory,
    )


def _too_much(trial_id: str, why: str) -> SetupError:
    """What a loop halts with; nothing of what it has done is lost."""
    return SetupError(
        f"trial {trial_id}", why, "a machine that lets it run", "bellglass resume", code="machine_too_busy"
    )


def judge_weights(
    glass: Glass,
    bundle: Bundle,
    data: bytes,
    trial_id: str,
    purpose: str,
    docs: Documents,
    bench: Workbench,
    labels: Mapping[str, str],
    select: Documents | None = None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Judgement:
    """Judge weights as the trial `trial_id` does: the same documents, the same questions to the proof."""
    return judge(
        glass,
        bundle,
        data,
        bench.task,
        docs,
        preset=bench.preset,
        labels=labels,
        prove=purpose in PROVED,
        proof_key=derive_key(bench.secret, f"proof-{trial_id}"),
        select=select,
        device=bench.device,
        cancelled=cancelled,
    )


def split_of(trial_id: str, purpose: str) -> tuple[Split, str]:
    """Which documents a trial is judged on.

    `confirm` is drawn afresh for each pair of a gate, so that its interval is over seeds and documents alike: what one
    set of documents happens to favour would else be in every pair, and look like a gain. Panels likewise.
    """
    if purpose in ("gate", "panel"):
        return "confirm", trial_ids.documents_of(trial_id)
    return ("final" if purpose == "final" else "select"), ""


def make_documents(bench: Workbench, split: Split, salt: str) -> Documents:
    preset = bench.preset
    count = {
        "train": preset.train_docs,
        "select": preset.select_docs,
        "confirm": preset.confirm_docs,
        "final": preset.final_docs,
    }[split]
    return tasks.make(bench.task, split, bench.secret, count, salt)


def seeds_of(secret: bytes, trial_id: str) -> Seeds:
    """Parent and child of a pair share their seeds, and so do all explorations of a session: so they compare."""
    if apart := trial_ids.seeds_apart(trial_id):
        init, data = (derive_seeds(secret, name) for name in apart)
        return Seeds(init.init_seed, data.data_seed)
    return derive_seeds(secret, trial_ids.shared(trial_id))


def _intent(order: Order) -> dict[str, Json]:
    return {
        "bundle": order.bundle,
        "purpose": order.purpose,
        "generation": order.generation,
        "budget": to_json(order.budget),
        **({"note": order.note} if order.note else {}),
    }


def worst_case(budget: Budget) -> Cost:
    """What a trial may use before the host ends it: this is what is reserved."""
    return Cost(train_seconds=round(budget.amount * OVERRUN_FACTOR + OVERRUN_SECONDS, 4))


def derive_key(secret: bytes, label: str) -> bytes:
    return hashlib.blake2b(label.encode(), key=secret, digest_size=32, person=b"bellglass").digest()


def derive_seeds(secret: bytes, label: str) -> Seeds:
    raw = derive_key(secret, f"seeds-{label}")
    return Seeds(int.from_bytes(raw[:4], "big") >> 1, int.from_bytes(raw[4:8], "big") >> 1)
