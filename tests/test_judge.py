"""The judge, with real guests: honest models, cheats, and everything a model may do instead of answering.

Guests run in the process glass without torch; a model is a string of numpy code. The data is a rule with rare
exceptions, so that honest code lengths are known and cheating pays.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from judging import (
    CAUTIOUS,
    COMMON,
    CONSTANT,
    HONEST,
    PEEKING,
    RARE,
    REMEMBERING,
    SPARSE,
    VOCAB,
    documents,
    judged,
    task,
)

from bellglass.doors.process_glass import ProcessGlass
from bellglass.errors import BellglassError, GuestFault
from bellglass.records import Budget, Verdict
from bellglass.steps import proof as proofs
from bellglass.steps.judge import _Proved, _verdict, code_lengths, rival
from bellglass.tasks import Documents


@pytest.fixture
def glass(tmp_path: Path) -> Iterator[ProcessGlass]:
    with closing(ProcessGlass(warm=False, forks=True, home=tmp_path / "glass")) as made:
        yield made


def ask(glass: ProcessGlass, model: str, docs: Documents | None = None, **options: object) -> Verdict:
    return judged(glass, model, docs, **options).verdict  # type: ignore[arg-type]


def fault_of(glass: ProcessGlass, model: str, **options: object) -> GuestFault:
    with pytest.raises(GuestFault) as caught:
        judged(glass, model, **options)  # type: ignore[arg-type]
    assert list(glass._home.glob("guest-*")) == [], "a guest is left behind"
    return caught.value


def proven(verdict: Verdict) -> tuple[Verdict, proofs.Proof]:
    assert verdict.proof is not None
    return verdict, verdict.proof


def honest_bits(docs: Documents) -> np.ndarray:
    space: dict[str, np.ndarray] = {}
    exec(COMMON, space)
    before, after = docs.tokens[:, :-1].astype(np.int64), docs.tokens[:, 1:].astype(np.int64)
    chosen = np.take_along_axis(space["P"][before], after[..., None], axis=2)[..., 0]
    return -np.log2(chosen / space["P"][before].sum(axis=-1))


def test_an_honest_model_gets_its_code_length_and_a_proof_that_agrees(glass: ProcessGlass) -> None:
    docs = documents()
    verdict, proof = proven(ask(glass, HONEST, docs))
    expected = honest_bits(docs)
    assert verdict.score == pytest.approx(expected.mean(), abs=1e-5)
    assert (verdict.raw_bits, verdict.targets) == (verdict.score + verdict.floor_bits, docs.target.sum())
    assert verdict.sampling_se == pytest.approx(expected.mean(axis=1).std(ddof=1) / math.sqrt(len(docs)), rel=1e-3)
    assert proof.agrees
    assert proof.mean_gap_bits == pytest.approx(0.0, abs=1e-5)
    assert proof.positions == pytest.approx(len(docs), abs=2)
    assert not list(glass._home.glob("guest-*")), "a guest is left behind"


def test_select_is_scored_in_the_same_guest_and_last_so_that_it_changes_nothing(
    glass: ProcessGlass, tmp_path: Path
) -> None:
    docs, select = documents(), documents(32, seed=9)
    select.floor_bits[:, 1:] = 0.25
    seen = tmp_path / "seen"
    seen.mkdir()
    model = f"""
def predict(tokens):
    np.save(os.path.join({str(seen)!r}, f"{{os.getpid()}}-{{len(os.listdir({str(seen)!r}))}}.npy"), tokens)
    return honest(tokens)
"""
    beside = ask(glass, model, docs, select=select)
    calls = sorted(seen.iterdir(), key=lambda path: int(path.stem.split("-")[1]))
    asked = [(path.stem.split("-")[0], {row.tobytes() for row in np.load(path)}) for path in calls]
    known = {row.tobytes() for row in select.tokens[:, :-1].astype(np.int64)}
    found = [(pid == asked[0][0], bool(rows & known)) for pid, rows in asked]  # (first guest, select)
    assert found[:2] == [(True, False), (True, True)]
    assert set(found[2:]) == {(False, False)}
    alone = ask(glass, HONEST, docs)
    assert beside == replace(alone, select_score=beside.select_score)
    assert alone.select_score is None
    assert beside.select_score == pytest.approx(honest_bits(select).mean() - 0.25, abs=1e-5)


BURNING = """
import time
def load(folder):
    until = time.process_time() + SECONDS
    while time.process_time() < until: sum(range(1000))
    return predict
"""


def test_a_model_that_trains_on_while_it_loads_is_ended_by_a_trainings_own_clock(glass: ProcessGlass) -> None:
    budget = Budget("cpu_seconds", 2.0, 60.0)
    slow = HONEST + BURNING.replace("SECONDS", "30")
    assert fault_of(glass, slow, budget=budget, prove=False, seconds=60.0).code == "overran"
    some = HONEST + BURNING.replace("SECONDS", "0.8")
    plain, seen = (judged(glass, model, budget=budget, seconds=60.0) for model in (HONEST, some))
    assert seen.predicted_seconds - plain.predicted_seconds > 0.4  # CPU seconds: half of what it burnt is no noise
    assert seen.verdict == plain.verdict


def test_on_a_gpu_the_time_that_is_waited_for_counts(glass: ProcessGlass) -> None:
    slow = "import time\ndef predict(tokens):\n time.sleep(0.4)\n return honest(tokens)"
    found = judged(glass, slow, prove=False, budget=Budget("gpu_seconds", 50.0, 60.0))
    assert 0.4 < found.predicted_seconds < 50.0


def test_under_the_virtual_clock_nobody_counts_seconds(glass: ProcessGlass) -> None:
    ask(glass, HONEST + BURNING.replace("SECONDS", "1.5"), prove=False)


def test_the_proof_is_aimed_half_by_the_source_where_that_is_known() -> None:
    docs = documents()
    docs.floor_bits[:, 1:] = 3.0
    own = rival(replace(task(), floor="unknown"), docs)
    aimed = rival(task(), docs)
    assert aimed[:, 1:] == pytest.approx(0.5 * own[:, 1:] + 1.5)
    assert len(np.unique(own[:, 1:])) > 2, "the host's model tells positions apart"


def test_a_model_that_fails_on_select_alone_fails_the_trial(glass: ProcessGlass) -> None:
    model = """
calls = 0
def predict(tokens):
    global calls
    calls += 1
    return honest(tokens) if calls == 1 else honest(tokens)[:-1]
"""
    with pytest.raises(GuestFault, match="bytes of logits"):
        ask(glass, model, prove=False, select=documents(32, seed=9))


def test_verdicts_are_given_per_skill_and_above_the_floor(glass: ProcessGlass) -> None:
    docs = documents()
    docs.floor_bits[:, 1:] = 0.5
    verdict = ask(glass, HONEST, docs, prove=False)
    bits, exception = honest_bits(docs), docs.skill[:, 1:] == 1
    assert verdict.proof is None
    assert verdict.floor_bits == pytest.approx(0.5)
    assert verdict.score == pytest.approx(bits.mean() - 0.5, abs=1e-5)
    assert verdict.by_skill["rule"] == pytest.approx(bits[~exception].mean() - 0.5, abs=1e-5)
    assert verdict.by_skill["exception"] == pytest.approx(bits[exception].mean() - 0.5, abs=1e-5)


@pytest.mark.parametrize("model", [PEEKING, REMEMBERING, CAUTIOUS], ids=["peeking", "remembering", "cautious"])
def test_a_model_that_looks_behind_the_position_is_caught_and_gains_nothing(glass: ProcessGlass, model: str) -> None:
    docs = documents()
    verdict, proof = proven(ask(glass, model, docs))
    honest = honest_bits(docs).mean()
    assert not proof.agrees
    assert proof.mean_gap_bits > 0.5
    assert proof.gap_z > 3.0
    looked_up = ask(glass, model, docs, prove=False).raw_bits
    assert looked_up < 0.5 * honest
    assert verdict.raw_bits == pytest.approx(looked_up + proof.mean_gap_bits, abs=1e-5)
    assert verdict.score > honest - 0.2, "what it looked up is taken off again"
    assert verdict.sampling_se > 0.05, "and the correction's own error is counted"


def test_a_leak_at_the_worst_position_in_a_thousand_is_caught(glass: ProcessGlass) -> None:
    docs = documents(96, 256, seed=3)
    leaking = (docs.tokens[:, 1:] == RARE).mean()
    assert 0.0005 < leaking < 0.0015
    _, proof = proven(ask(glass, SPARSE, docs))
    assert not proof.agrees
    assert proof.targeted_gap_bits > 1.0
    _, twin = proven(ask(glass, HONEST, docs))
    assert twin.agrees


def test_rounding_noise_sets_off_nothing(glass: ProcessGlass) -> None:
    noise = "def predict(tokens): return honest(tokens) + np.random.normal(0, 1e-3, (*tokens.shape, V)).astype('f4')"
    _, proof = proven(ask(glass, noise))
    assert proof.agrees
    assert proof.mean_gap_bits != 0.0


BATCH_NORM = """
def predict(tokens):
    out = honest(tokens)
    return out - out.mean(axis=(0, 1), keepdims=True) * (tokens == 3).mean() * 40
"""
DROPOUT = """
def predict(tokens):
    return honest(tokens) * np.random.binomial(1, 0.8, (*tokens.shape, 1)).astype('f4')
"""
DRIFTING = """
calls = 0
def predict(tokens):
    global calls
    calls += len(tokens)
    return honest(tokens) * np.float32(1 + np.sin(tokens[:, :1, None] + calls))
"""


@pytest.mark.parametrize("model", [BATCH_NORM, DROPOUT, DRIFTING], ids=["batch norm", "dropout", "drifting"])
def test_answers_that_depend_on_company_or_chance_fail_the_trial(glass: ProcessGlass, model: str) -> None:
    fault = fault_of(glass, model)
    assert fault.code == "bad_output"
    assert fault.detail.startswith("batch-dependent")


BAD_OUTPUTS = {
    "too few columns": "def predict(tokens): return honest(tokens)[:, :-1]",
    "too few rows": "def predict(tokens): return honest(tokens)[:-1]",
    "vocabulary too large": "def predict(tokens): return np.zeros((*tokens.shape, V + 1), 'f4')",
    "nothing": "def predict(tokens): return np.zeros((0,), 'f4')",
    "nan": "def predict(tokens):\n out = honest(tokens)\n out[-1, -1, -1] = np.nan\n return out",
    "infinite": "def predict(tokens):\n out = honest(tokens)\n out[0, 0, 0] = -np.inf\n return out",
    "huge": "def predict(tokens): return honest(tokens) * np.float32(1e30)",
    "float64 beyond float32": "def predict(tokens): return np.where(honest(tokens) > -1, 1e300, 0.0)",
}


@pytest.mark.filterwarnings("ignore:overflow")
@pytest.mark.parametrize("model", BAD_OUTPUTS.values(), ids=BAD_OUTPUTS.keys())
def test_logits_of_the_wrong_shape_or_not_finite_are_refused(glass: ProcessGlass, model: str) -> None:
    assert fault_of(glass, model, prove=False).code == "bad_output"


def test_float64_logits_count_as_the_float32_they_are_sent_as(glass: ProcessGlass) -> None:
    docs = documents()
    verdict = ask(glass, "def predict(tokens): return honest(tokens).astype('f8')", docs, prove=False)
    assert verdict.score == pytest.approx(honest_bits(docs).mean(), abs=1e-5)


def test_one_value_for_all_is_an_answer_and_scores_as_one(glass: ProcessGlass) -> None:
    verdict, proof = proven(ask(glass, CONSTANT))
    assert verdict.score == pytest.approx(math.log2(VOCAB))
    assert proof.agrees


FAULTS = {
    "crashes when loaded": ("raise ValueError('secret words')", "crashed"),
    "crashes when asked": ("def predict(tokens): raise ValueError('secret words')", "crashed"),
    "returns text": ("def predict(tokens): return 'secret words'", "crashed"),
    "leaves": ("def predict(tokens): os._exit(0)", "crashed"),
    "hangs": ("def predict(tokens):\n import time\n time.sleep(60)", "timeout"),
    "hangs when loaded": ("import time\ntime.sleep(60)", "timeout"),
    "sends a metric": ("import glass\ndef predict(tokens):\n glass.metric('secret words', 1.0)", "malformed"),
    "sends a file": ("import glass\ndef predict(tokens):\n glass._link.send_file('secret words', b'x')", "refused"),
    "sends two answers": (
        "import glass\ndef predict(tokens):\n glass._link.send_file('logits', b'x')\n return honest(tokens)",
        "bad_output",
    ),
}


@pytest.mark.parametrize(("model", "code"), FAULTS.values(), ids=FAULTS.keys())
def test_a_model_that_does_something_else_is_ended_with_a_fixed_word(
    glass: ProcessGlass, model: str, code: str
) -> None:
    fault = fault_of(glass, model, prove=False, seconds=2.0 if code == "timeout" else 10.0)
    assert fault.code == code
    assert "secret" not in fault.detail


def test_what_a_model_prints_goes_nowhere(glass: ProcessGlass) -> None:
    chatty = "def predict(tokens):\n print('secret words' * 1000)\n return honest(tokens)"
    assert ask(glass, chatty, prove=False).score > 0


def test_a_proof_guest_that_fails_fails_the_trial(glass: ProcessGlass, tmp_path: Path) -> None:
    turns = tmp_path / "turns"
    turns.mkdir()
    # Guests of an unsealed glass see each other's files, so this model can tell that it is the second to be asked.
    model = f"""
def predict(tokens):
    open(os.path.join({str(turns)!r}, str(os.getpid())), "a").close()
    if len(os.listdir({str(turns)!r})) > 1: raise ValueError
    return honest(tokens)
"""
    assert fault_of(glass, model).code == "crashed"
    assert len(list(turns.iterdir())) == 2


def test_the_second_guest_runs_the_bundle_only_when_the_first_has_ended(glass: ProcessGlass, tmp_path: Path) -> None:
    # Else the first, which sees the whole text, could signal to the second by how it loads the machine.
    seen = tmp_path / "seen"
    seen.mkdir()
    model = f"""
others = os.listdir({str(seen)!r})
if others and os.path.exists("/proc/" + others[0]) and ") Z " not in open("/proc/" + others[0] + "/stat").read():
    raise ValueError("the other one still runs")
open(os.path.join({str(seen)!r}, str(os.getpid())), "a").close()
def predict(tokens):
    return honest(tokens)
"""
    assert proven(ask(glass, model))[1].agrees
    assert len(list(seen.iterdir())) == 2


def separable_documents(count: int = 40) -> Documents:
    """A question of 4 or 7 tokens below 8, its label (8 to 14) as the target, padding behind."""
    rng = np.random.default_rng(2)
    tokens = np.zeros((count, 10), dtype=np.uint16)
    target = np.zeros(tokens.shape, dtype=bool)
    for doc in range(count):
        width = (4, 7)[doc % 2]
        tokens[doc, :width] = rng.integers(1, 8, width)
        tokens[doc, width] = rng.integers(8, 15)
        target[doc, width] = True
    return Documents(tokens, target, np.zeros(tokens.shape, np.uint8), np.zeros(tokens.shape, np.float32))


def test_the_targets_of_a_separable_task_never_enter_the_glass(glass: ProcessGlass, tmp_path: Path) -> None:
    model = f"""
def predict(tokens):
    name = "saw-%d-%d.npy" % (os.getpid(), tokens.shape[1])
    np.save(os.path.join({str(tmp_path)!r}, name), tokens)
    out = np.zeros((*tokens.shape, V), 'f4')
    for row in range(len(tokens)):
        for label in tokens[row][tokens[row] >= 8]:
            out[row, :, label] = 20.0
    return out
"""
    verdict, proof = proven(ask(glass, model, separable_documents(), separable=True))
    saw = [np.load(path) for path in tmp_path.glob("saw-*.npy")]
    assert len(saw) == 4  # two lengths, two guests
    assert {array.shape[1] for array in saw} == {4, 7}
    assert all(array.min() > 0 and array.max() < 8 for array in saw)
    assert verdict.score == pytest.approx(math.log2(VOCAB))
    assert verdict.targets == 40
    assert proof.agrees


def test_a_separable_model_that_answers_by_chance_fails_the_trial(glass: ProcessGlass) -> None:
    chance = "def predict(tokens): return np.random.normal(0, 3, (*tokens.shape, V)).astype('f4')"
    assert fault_of(glass, chance, docs=separable_documents(), separable=True).detail.startswith("batch-dependent")


def test_documents_that_cannot_be_judged_are_refused_before_any_guest(glass: ProcessGlass) -> None:
    two, none, first = separable_documents(), separable_documents(), separable_documents()
    two.target[0, 2] = True
    none.target[:] = False
    first.target[0, 0] = True
    for docs, separable in ((two, True), (none, True), (first, False), (documents(3), False)):
        with pytest.raises(BellglassError, match=r"documents of task 'rule' \(data\.py\); .*; needed: .*; next: "):
            ask(glass, HONEST, docs, separable=separable)
    assert not glass._home.exists()


def test_code_lengths_are_those_of_the_softmax() -> None:
    logits = np.array([[0.0, 0.0], [0.0, -3e8], [1000.0, 0.0]], dtype=np.float32)
    bits = code_lengths(logits, np.array([0, 0, 1]))
    np.testing.assert_allclose(bits, [1.0, 0.0, 1000.0 / math.log(2)], rtol=1e-12)


def test_the_hosts_own_model_knows_habits_and_pays_for_surprises() -> None:
    docs = documents(48, 128)
    bits = proofs.host_bits(docs.tokens.astype(np.int64), docs.target, VOCAB)
    expected = honest_bits(docs)
    assert expected.mean() < bits[:, 1:].mean() < expected.mean() + 0.6
    assert bits[docs.tokens == RARE].mean() > 5.0
    assert not bits[:, 0].any()


def test_a_score_that_the_proof_finds_too_bad_is_not_improved_by_it() -> None:
    docs = documents(8)
    bits = np.where(docs.target, 2.0, 0.0)
    better = _Proved(proofs.Proof(8, -0.01, -1.0, 0.0, 0.0, agrees=True), gap_se=0.5)
    verdict = _verdict(task(), docs, bits, better)
    assert verdict.raw_bits == pytest.approx(2.0)
    assert verdict.sampling_se == pytest.approx(0.5)
