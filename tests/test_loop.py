"""Whole loops of the small world: what a generation does with good and with bad improvers and trainers."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path

import pytest
import small_world
from small_world import Tuner

from bellglass import wiring
from bellglass.commands.console import final_line
from bellglass.doors.process_glass import ProcessGlass
from bellglass.errors import BoundReached, Interrupted, LoopFault, ReviewPending, SetupError, TripwireFired, UsageError
from bellglass.loop import run_loop
from bellglass.ports import Model
from bellglass.records import ChatReply, ChatRequest, ToolCall
from bellglass.review import Answer, Evidence
from bellglass.show import view
from bellglass.show.conclusions import conclusions
from bellglass.show.splits import fitted, looks
from bellglass.show.summary import as_json
from bellglass.steps.trial import seeds_of
from bellglass.store.ledger import Event, Ledger
from bellglass.store.state import State, state_of
from bellglass.tripwires import place
from bellglass.verify import verify


class Scripted(Tuner):
    """A tuner whose steps a test chooses: (tool, arguments) one after another, then silence."""

    def __init__(self, *steps: tuple[str, object]) -> None:
        self.steps = steps

    def chat(self, request: ChatRequest) -> ChatReply:
        at = sum(len(message.calls) for message in request.messages)
        cost = self.forecast(request)
        if at >= len(self.steps):
            return ChatReply("I have nothing more to do.", (), "end", cost=cost)
        return ChatReply("", (ToolCall(f"call-{at}", *self.steps[at]),), "calls", cost=cost)


def write(path: str, text: str) -> tuple[str, object]:
    return "write_file", {"path": path, "text": text}


SUBMIT = ("submit", {"note": "done"})


@contextmanager
def opened(folder: Path, model: Model, surface: wiring.Surface | None = None, **overrides: object):
    with wiring.open_loop(
        folder,
        surface or small_world.quiet(),
        overrides,
        models={"main": model},
        glass=ProcessGlass(warm=False, forks=True, home=folder.parent.parent / "guests"),
    ) as crew:
        yield crew
    with Ledger.open(folder) as ledger:  # whatever happened to it, it was honest
        assert [finding for finding in verify(folder, ledger) if not finding.ok] == []


def run(home: Path, model: Model, **chosen: object) -> State:
    chosen = {"generations": 1, **chosen}
    with opened(small_world.create(home / "loops", **chosen), model) as crew:
        return run_loop(crew)


def test_a_better_trainer_is_adopted_and_its_scaffold_inherited(tmp_path: Path) -> None:
    state = run(tmp_path, Tuner())
    result = state.generations[1].result
    assert (result["trainer"], result["scaffold"]) == ("adopted", "inherited")
    assert state.champion == result["champion"] != state.starter
    assert state.final["gain"]["low"] > 0
    assert state.ended["why"] == "finished"
    gate = state.trials_of(1, "gate")
    assert all(trial.verdict.select_score is not None and trial.predicted_seconds > 0 for trial in gate)
    assert fitted(gate).n == len(gate) // 2


@pytest.mark.slow
def test_final_is_opened_once_for_starter_and_champion_however_often_the_loop_is_resumed(tmp_path: Path) -> None:
    events: list[Event] = []
    surface = wiring.Surface(events.append, lambda trial, phase: None, None, lambda: None)
    folder = small_world.create(tmp_path / "loops", generations=1)

    def interrupt(event: Event) -> None:
        events.append(event)
        if event.kind == "trial.settled" and event.body["trial_id"] == "final-pair-0-champion":
            raise KeyboardInterrupt

    with (
        pytest.raises(KeyboardInterrupt),
        opened(folder, Tuner(), wiring.Surface(interrupt, surface.progress, None, surface.interrupted)) as crew,
    ):
        run_loop(crew)
    with pytest.raises(UsageError, match="no other number of generations"), opened(folder, Tuner(), generations=3):
        pass  # a later champion would be credited with this one's trials
    for _ in range(2):
        with opened(folder, Tuner(), surface) as crew:
            state = run_loop(crew)
    opened_at = [event.seq for event in events if event.kind == "final.opened"]
    judged = [event for event in events if event.kind == "trial.settled" and event.body["purpose"] == "final"]
    assert len(opened_at) == 1
    assert len({event.body["trial_id"] for event in judged}) == len(judged) == 2 * crew.config.panel
    assert {event.body["bundle"] for event in judged} == {state.starter, state.champion}
    last = max(event.seq for event in events if event.kind == "generation.ended")
    assert last < min(event.seq for event in judged)
    assert looks(state)["final"] == len(judged)


def test_an_alarm_on_final_halts_the_loop_and_nobody_is_shown_its_gain(tmp_path: Path) -> None:
    """The trainer claims too much, and only where nobody could know before: under the seeds of `final`."""
    twin = small_world.create(tmp_path / "twin", generations=1)  # the same seed, so the same secret
    when = seeds_of((twin / "secret").read_bytes(), "final-pair-0-champion").data_seed
    bundle, honest = small_world.starter(), b'glass.metric("claim_bits", float(bits))'
    lying = b'glass.metric("claim_bits", float(bits) - (glass.args["data_seed"] == %d))' % when
    bundle = {**bundle, "trainer/train.py": bundle["trainer/train.py"].replace(honest, lying)}
    folder = wiring.create(small_world.config(generations=1), tmp_path / "twin", bundle)
    with opened(folder, Tuner()) as crew, pytest.raises(TripwireFired, match="claim_mismatch"):
        run_loop(crew)
    state = state_of(folder)
    assert state.generations[1].result["trainer"] == "adopted"
    assert state.ended["why"] == "tripwire"
    assert state.final["gain"]["low"] > 0  # it would look good
    assert final_line(state).startswith("final: not believed, for a tripwire fired: claim_mismatch")
    assert view.document(state)["final"]["gain"] is None
    assert not any("better than the starter" in line for line in conclusions(state)["may"])
    assert (as_json(state)["final"]["gain"], place(state.tripwires[0])) == (None, "on final")
    with pytest.raises(UsageError, match="no other number of generations"), opened(folder, Tuner(), generations=2):
        pass
    with Ledger.open(folder) as ledger:  # as where an ending owner held the lock still
        ledger.post("rearm", {"name": "claim_mismatch", "who": "me", "reason": "I have looked"})
    with opened(folder, Tuner(), wall_seconds=500.0) as crew:
        assert run_loop(crew).ended["why"] == "finished"
    assert "not believed" in final_line(state_of(folder))


@pytest.mark.slow
def test_a_finished_loop_is_never_opened_again(tmp_path: Path) -> None:
    folder = small_world.create(tmp_path / "loops", generations=1)
    with opened(folder, Tuner()) as crew:
        run_loop(crew)
        events = crew.place.books.ledger.last_seq
    with opened(folder, Tuner()) as crew:
        run_loop(crew)
        assert crew.place.books.ledger.last_seq == events
    with pytest.raises(UsageError, match="secret is revealed"), opened(folder, Tuner(), generations=5):
        pass


def test_a_worse_trainer_is_rejected_and_so_is_its_scaffold(tmp_path: Path) -> None:
    worse = write("trainer/objective.py", "SMOOTHING = 1e9\n")
    state = run(tmp_path, Scripted(worse, write("scaffold/marks.md", "mine"), SUBMIT))
    assert state.generations[1].result["trainer"] == "rejected"
    assert state.generations[1].result["scaffold"] == "not inherited"
    assert state.champion == state.starter


@pytest.mark.parametrize(
    ("objective", "pairs", "why"),
    [
        ("SMOOTHING = 100001.0\n", 5, "no difference over"),
        pytest.param("SMOOTHING = 100000.0  # as it was\n", 3, "all 3 pairs are bit-equal", marks=pytest.mark.slow),
    ],
)
def test_neutral_lets_a_scaffold_through_beside_an_equal_trainer_which_stays_behind(
    tmp_path: Path, objective: str, pairs: int, why: str
) -> None:
    edits = write("trainer/objective.py", objective), write("scaffold/marks.md", "mine")
    folder = small_world.create(tmp_path / "loops", generations=1, scaffold_rule="neutral", panel=3, max_pairs=5)
    with opened(folder, Scripted(*edits, SUBMIT)) as crew:
        state = run_loop(crew)
        parent, champion = (crew.place.lineage.read(commit) for commit in (state.starter, state.champion))
    gen = state.generations[1]
    assert (gen.gate["decision"], len(gen.gate["parent_scores"])) == ("equal", pairs)
    assert why in gen.gate["why"]
    assert (gen.result["trainer"], gen.result["scaffold"]) == ("rejected", "inherited")
    assert champion == {**parent, "scaffold/marks.md": b"mine"}


@pytest.mark.slow
def test_neutral_lets_no_scaffold_through_beside_a_trainer_that_is_not_equal(tmp_path: Path) -> None:
    edits = write("trainer/objective.py", "SMOOTHING = 300000.0\n"), write("scaffold/marks.md", "mine")
    state = run(tmp_path, Scripted(*edits, SUBMIT), scaffold_rule="neutral", panel=3, max_pairs=5)
    gen = state.generations[1]
    assert gen.gate["decision"] == "reject"
    assert (gen.result["trainer"], gen.result["scaffold"]) == ("rejected", "not inherited")
    assert state.champion == state.starter


@pytest.mark.slow
def test_a_scaffold_that_no_longer_works_stays_behind_when_its_trainer_is_adopted(tmp_path: Path) -> None:
    better = write("trainer/objective.py", "SMOOTHING = 10.0\n")
    state = run(tmp_path, Scripted(better, write("scaffold/improve.py", "raise SystemExit(0)\n"), SUBMIT))
    assert state.generations[1].result["trainer"] == "adopted"
    assert state.generations[1].result["scaffold"] == "failed boot check"


LIBRARY_BYPASSED = """
import glass
link = glass._link
def send(names):
    for name, data in names.items():
        link.send_file(name, data)
    link.ask("submit", {"note": "mine"})
read = lambda path: open(path, "rb").read()
whole = {f"submit/trainer/{n}.py": read(f"work/trainer/{n}.py") for n in ("data", "objective", "model", "train")}
whole["submit/scaffold/improve.py"] = read("work/scaffold/improve.py")
"""


@pytest.mark.parametrize(
    ("improve", "fault"),
    [
        ("print('nothing to do')", "no_submit"),
        ("raise RuntimeError('boom')", "crashed"),
        ("import os; os._exit(0)", "no_submit"),
        ("import glass; glass.submit('the same again')", "empty_submit"),
        (LIBRARY_BYPASSED + "whole['submit/trainer/objective.py'] = b'SMOOTHING = 1.0'; send(whole)", "bad_submit"),
        (LIBRARY_BYPASSED + "whole['submit/scaffold/.git/config'] = b'x'; send(whole)", "crashed"),
        (LIBRARY_BYPASSED + "whole['submit/scaffold/../../x'] = b'x'; send(whole)", "crashed"),
        (LIBRARY_BYPASSED + "del whole['submit/trainer/model.py']; send(whole)", "bad_submit"),
        (LIBRARY_BYPASSED + "whole['submit/scaffold/big'] = bytes(300_000); send(whole)", "bad_submit"),
    ],
)
def test_a_bad_improver_is_an_event_and_the_loop_goes_on(tmp_path: Path, improve: str, fault: str) -> None:
    folder = small_world.create(tmp_path / "loops", improve, generations=1, may_edit=["scaffold", "data"])
    with opened(folder, Tuner()) as crew:
        state = run_loop(crew)
    assert state.generations[1].proposal_fault == fault
    assert state.generations[1].result["trainer"] == "failed"
    assert state.ended["why"] == "finished"


@pytest.mark.parametrize(
    ("train", "fault"),
    [
        ("raise RuntimeError('boom')\n", "crashed"),
        ("import glass\nglass.data()\n", "no_weights"),
        ("import glass\nglass.data()\nopen('out/weights.safetensors', 'wb').write(b'\\x80\\x04.')\n", "bad_weights"),
        ("import glass\nglass.data()\nwhile True: glass.time_left()\n", "overran"),
    ],
)
def test_a_trainer_that_fails_is_rejected_with_its_reason(tmp_path: Path, train: str, fault: str) -> None:
    state = run(tmp_path, Scripted(write("trainer/train.py", train), SUBMIT))
    child = state.trials["g1-pair-0-child"]
    assert (child.fault, child.verdict) == (fault, None)
    assert state.generations[1].result["trainer"] == "rejected"
    assert fault in state.generations[1].result["why"]


@pytest.mark.slow
def test_a_claim_far_better_than_the_verdict_trips_and_only_a_person_goes_on(tmp_path: Path) -> None:
    boast = small_world.TRAINER["trainer/train.py"].replace("float(bits)", "0.5")
    folder = small_world.create(tmp_path / "loops", generations=1)
    with opened(folder, Scripted(write("trainer/train.py", boast), SUBMIT)) as crew, pytest.raises(TripwireFired):
        run_loop(crew)
    with opened(folder, Tuner()) as crew:
        with pytest.raises(TripwireFired):
            run_loop(crew)
        assert [wire["name"] for wire in crew.state.tripwires] == ["claim_mismatch"]
        crew.place.books.record("tripwire.rearmed", name="claim_mismatch", who="me", reason="looked")
        assert run_loop(crew).ended["why"] == "finished"


def test_a_parent_that_fails_at_the_gate_halts_the_loop_and_only_a_person_goes_on(tmp_path: Path) -> None:
    twin = small_world.create(tmp_path / "twin", generations=1)  # the same seed, so the same secret
    when = seeds_of((twin / "secret").read_bytes(), "g1-pair-1-parent").data_seed
    gives_up = f"if SMOOTHING == 1e5 and glass.args['data_seed'] == {when}:\n    raise SystemExit(1)\n"
    bundle = small_world.starter()
    bundle = {**bundle, "trainer/train.py": bundle["trainer/train.py"] + gives_up.encode()}
    folder = wiring.create(small_world.config(generations=1), tmp_path / "twin", bundle)
    with opened(folder, Tuner()) as crew, pytest.raises(TripwireFired, match="g1-pair-1-parent failed"):
        run_loop(crew)
    with opened(folder, Tuner()) as crew:
        crew.place.books.record("tripwire.rearmed", name="parent_failed", who="me", reason="looked")
        state = run_loop(crew)
    assert (state.generations[1].result["trainer"], state.ended["why"]) == ("rejected", "finished")
    with Ledger.open(folder) as ledger:
        assert all(finding.ok for finding in verify(folder, ledger))


@pytest.mark.slow
def test_a_bound_ends_the_loop_resumably_and_raising_it_goes_on(tmp_path: Path) -> None:
    folder = small_world.create(tmp_path / "loops", generations=1, trials_per_generation=1, train_seconds=57.0)
    with opened(folder, Tuner()) as crew:
        with pytest.raises(BoundReached):
            run_loop(crew)
        assert crew.state.ended["why"] == "bound"
        assert crew.state.spent.train_seconds <= 57.0
    with opened(folder, Tuner(), train_seconds=200.0) as crew:
        state = run_loop(crew)
    assert state.ended["why"] == "finished"
    assert state.burnt.train_seconds == 0


def test_money_is_reserved_before_a_call_and_the_call_that_does_not_fit_is_not_made(tmp_path: Path) -> None:
    state = run(tmp_path, Tuner(), budget_usd=0.0125)  # each reserves 0.01 and costs 0.001: the fourth does not fit
    assert len(state.calls) == 3
    assert state.spent.usd == pytest.approx(0.003)


def test_without_a_person_nothing_is_adopted_under_review(tmp_path: Path) -> None:
    folder = small_world.create(tmp_path / "loops", generations=1, review="every")
    with opened(folder, Tuner()) as crew:
        with pytest.raises(ReviewPending):
            run_loop(crew)
        assert crew.state.champion == crew.state.starter
        assert crew.state.ended["why"] == "waiting"


class Person:
    def __init__(self, decision: str) -> None:
        self.decision, self.shown = decision, list[Evidence]()

    def ask(self, evidence: Evidence) -> Answer:
        self.shown.append(evidence)
        return Answer(self.decision, "a reason", "somebody")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("decision", "trainer", "scaffold"),
    [
        ("approve", "adopted", "inherited"),
        ("trainer", "adopted", "not inherited"),
        ("reject", "rejected", "not inherited"),
    ],
)
def test_a_persons_decision_is_what_happens(tmp_path: Path, decision: str, trainer: str, scaffold: str) -> None:
    person = Person(decision)
    surface = wiring.Surface(None, lambda trial, phase: None, person, lambda: None)
    folder = small_world.create(tmp_path / "loops", generations=1, review="every")
    with opened(folder, Tuner(), surface) as crew:
        state = run_loop(crew)
    result = state.generations[1].result
    assert (result["trainer"], result["scaffold"]) == (trainer, scaffold)
    assert "SMOOTHING" in person.shown[0].diff
    assert state.generations[1].review["evidence_hash"] == person.shown[0].hash


@pytest.mark.slow
def test_a_stop_in_the_inbox_ends_the_loop_and_resume_finishes_it(tmp_path: Path) -> None:
    folder = small_world.create(tmp_path / "loops", generations=1)
    with opened(folder, Tuner()) as crew:
        crew.place.books.ledger.post("stop", {"who": "me", "reason": "enough"})
        with pytest.raises(Interrupted):
            run_loop(crew)
        assert crew.state.ended["why"] == "stopped"
    with opened(folder, Tuner()) as crew:
        assert run_loop(crew).ended["why"] == "finished"


@pytest.mark.slow
def test_an_improver_never_learns_a_confirm_score(tmp_path: Path) -> None:
    class Listener(Tuner):
        heard = ""

        def chat(self, request: ChatRequest) -> ChatReply:
            self.heard += "".join(message.text for message in request.messages)
            return super().chat(request)

    model = Listener()
    state = run(tmp_path, model, generations=2)
    secrets = [t.verdict for t in state.trials.values() if t.purpose != "explore" and t.verdict is not None]
    assert secrets
    assert model.heard
    for verdict in secrets:
        assert f"{verdict.score:.4f}" not in model.heard
        assert f"{verdict.raw_bits:.4f}" not in model.heard
        assert f"{verdict.select_score or 0.1234567:.4f}" not in model.heard


@pytest.mark.slow
def test_the_same_seed_gives_the_same_champion(tmp_path: Path) -> None:
    one, other = run(tmp_path / "one", Tuner()), run(tmp_path / "other", Tuner())
    assert one.champion == other.champion
    assert one.final == other.final


@pytest.mark.parametrize(
    "body", ["b'[' * 400_000", "b'[{}' + b',{}' * 40 + b']'", "b'[{\"fraction\": NaN}]'", "b'{}'", "b'[1]'"]
)
def test_candidates_that_no_parser_likes_are_refused_and_the_improver_goes_on(tmp_path: Path, body: str) -> None:
    improve = f"""
import glass
try:
    glass._link.ask("trials", {{}}, {body})
except glass.Refused as refused:
    glass.note(refused.code)
"""
    folder = small_world.create(tmp_path / "loops", improve, generations=1)
    with opened(folder, Tuner()) as crew:
        state = run_loop(crew)
        notes = [event.body["text"] for event in crew.place.books.ledger.events() if event.kind == "session.note"]
    assert "refused" in notes
    assert state.generations[1].proposal_fault == "no_submit"


LOUD = "import sys\nprint(chr(0x1f600) * 4000, flush=True)\nraise RuntimeError('boom')\n"


@pytest.mark.slow
def test_the_logs_of_many_failed_candidates_fit_into_one_reply(tmp_path: Path) -> None:
    improve = f"""
import glass
found = glass.trials([{{"files": {{"trainer/train.py": {LOUD!r} + "#" * i}}, "fraction": 0.1}} for i in range(12)])
glass.note(repr([(one["fault"], len(one["log"]) > 100) for one in found]))
"""
    folder = small_world.create(tmp_path / "loops", improve, generations=1)
    with opened(folder, Tuner()) as crew:
        run_loop(crew)
        notes = [event.body["text"] for event in crew.place.books.ledger.events() if event.kind == "session.note"]
    assert repr([("crashed", True)] * 12) in notes


def test_a_refused_list_of_candidates_leaves_nothing_in_the_lineage(tmp_path: Path) -> None:
    improve = """
import glass
good = {"files": {"trainer/objective.py": "SMOOTHING = 3.0"}}
try:
    glass._link.ask("trials", {}, __import__("json").dumps([good, {"files": {"trainer/extra.py": ""}}]).encode(),
        {f"trial/trainer/{n}": c for n, c in glass._trainer().items()})
except glass.Refused as refused:
    glass.note(refused.code)
"""
    folder = small_world.create(tmp_path / "loops", improve, generations=1)
    with opened(folder, Tuner()) as crew:
        run_loop(crew)
        notes = [event.body["text"] for event in crew.place.books.ledger.events() if event.kind == "session.note"]
    assert "bad_submit" in notes
    assert len(list((folder / "lineage.git" / "refs" / "bundles").iterdir())) == 1  # the starter


def test_a_hosted_model_never_plays_on_documents_that_a_seed_tells(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the seed"):
        small_world.create(tmp_path / "loops", model="ollama/any", glass="auto", seed=7, virtual_clock=False)
    assert list((tmp_path / "loops").iterdir()) == []


@pytest.mark.parametrize("spoil", [Path.unlink, lambda secret: secret.write_bytes(bytes(32))])
def test_a_loop_without_its_own_secret_does_not_go_on(tmp_path: Path, spoil: object) -> None:
    folder = small_world.create(tmp_path / "loops")
    spoil(folder / "secret")
    with pytest.raises(LoopFault, match="secret"), opened(folder, Tuner()):
        pass


def test_a_loops_folder_that_is_a_file_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "loops").write_text("a file")
    with pytest.raises(SetupError, match="a folder this user may write"):
        wiring.create(small_world.config(), tmp_path / "loops")


@pytest.mark.slow
def test_noise_is_measured_first_and_a_new_champion_is_trained_again(tmp_path: Path) -> None:
    state = run(tmp_path, Tuner())
    assert state.calibration["measured"]
    assert {t.trial_id for t in state.trials.values() if t.purpose == "calibrate"} == {"cal-0x0", "cal-1x1"}
    again = state.trials_of(1, "panel")
    assert [trial.bundle for trial in again] == [state.generations[1].successor] * 2  # the same trainer
    gate_seeds = {trial.seeds for trial in state.trials_of(1, "gate")}
    assert not gate_seeds & {trial.seeds for trial in again}


@pytest.mark.slow
def test_a_loop_under_the_same_conditions_uses_the_stored_calibration(tmp_path: Path) -> None:
    run(tmp_path, Tuner())
    state = run(tmp_path, Tuner())
    assert not state.calibration["measured"]
    assert not [trial for trial in state.trials.values() if trial.purpose == "calibrate"]


def test_a_bound_that_could_decide_nothing_is_refused_before_anything_is_spent(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"3 pairs .*; next: the same with --train-seconds \d"):
        small_world.create(tmp_path / "loops", train_seconds=30)
    assert not list((tmp_path / "loops").iterdir())


class Gone(ProcessGlass):
    """A process glass whose machine loses what it needs."""

    def open(self, spec):  # type: ignore[no-untyped-def]
        raise SetupError("the engine", "no answer", "a running one", "start it", code="docker_silent")


@pytest.mark.slow
def test_an_engine_that_goes_away_is_recorded_and_the_loop_resumes(tmp_path: Path) -> None:
    folder = small_world.create(tmp_path / "loops", generations=1)
    gone = Gone(warm=False, home=tmp_path / "guests")
    with wiring.open_loop(folder, small_world.quiet(), models={"main": Tuner()}, glass=gone) as crew:
        with pytest.raises(SetupError, match="the engine"):
            run_loop(crew)
        assert (crew.state.ended["why"], crew.state.ended["code"]) == ("failed", "docker_silent")
    with opened(folder, Tuner()) as crew:
        assert run_loop(crew).ended["why"] == "finished"
