"""What an improver may send and hear, whatever it is made of; a bad one ends its session, never the loop."""

from __future__ import annotations

from pathlib import Path

import pytest
import small_world
from small_world import Tuner, opened, run, session

from bellglass.loop import run_loop
from bellglass.records import ChatReply, ChatRequest
from bellglass.show import view
from bellglass.store.state import state_of

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
def test_a_bad_improver_is_a_word_and_no_successor(tmp_path: Path, improve: str, fault: str) -> None:
    folder = small_world.create(tmp_path / "loops", improve, may_edit=["scaffold", "data"])
    proposal, _ = session(folder, Tuner())
    assert (proposal.successor, proposal.fault) == (None, fault)


def test_the_loop_goes_on_after_a_bad_improver(tmp_path: Path) -> None:
    folder = small_world.create(tmp_path / "loops", "raise RuntimeError('boom')", generations=1)
    with opened(folder, Tuner()) as crew:
        state = run_loop(crew)
    assert state.generations[1].proposal_fault == "crashed"
    assert (state.generations[1].result["trainer"], state.ended["why"]) == ("failed", "finished")


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
    proposal, notes = session(small_world.create(tmp_path / "loops", improve), Tuner())
    assert (notes, proposal.fault) == (["refused"], "no_submit")


LOUD = "import sys\nprint(chr(0x1f600) * 4000, flush=True)\nraise RuntimeError('boom')\n"


@pytest.mark.slow
def test_the_logs_of_many_failed_candidates_fit_into_one_reply(tmp_path: Path) -> None:
    improve = f"""
import glass
found = glass.trials([{{"files": {{"trainer/train.py": {LOUD!r} + "#" * i}}, "fraction": 0.1}} for i in range(12)])
glass.note(repr([(one["fault"], len(one["log"]) > 100) for one in found]))
"""
    _, notes = session(small_world.create(tmp_path / "loops", improve), Tuner())
    assert notes == [repr([("crashed", True)] * 12)]


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
    folder = small_world.create(tmp_path / "loops", improve)
    _, notes = session(folder, Tuner())
    assert notes == ["bad_submit"]
    assert len(list((folder / "lineage.git" / "refs" / "bundles").iterdir())) == 1  # the starter


def test_money_is_reserved_before_a_call_and_the_call_that_does_not_fit_is_not_made(home: Path) -> None:
    state = run(home, Tuner(), budget_usd=0.0125)  # each reserves 0.01 and costs 0.001: the fourth does not fit
    assert len(state.calls) == 3
    assert state.spent.usd == pytest.approx(0.003)


@pytest.mark.slow
def test_an_improver_never_learns_a_confirm_score(home: Path) -> None:
    class Listener(Tuner):
        heard = ""

        def chat(self, request: ChatRequest) -> ChatReply:
            self.heard += "".join(message.text for message in request.messages)
            return super().chat(request)

    model = Listener()
    state = run(home, model, generations=2)
    secrets = [t.verdict for t in state.trials.values() if t.purpose != "explore" and t.verdict is not None]
    assert secrets
    assert model.heard
    for verdict in secrets:
        assert f"{verdict.score:.4f}" not in model.heard
        assert f"{verdict.raw_bits:.4f}" not in model.heard
        assert f"{verdict.select_score or 0.1234567:.4f}" not in model.heard


def test_what_an_improver_says_that_a_trial_tries_is_kept_with_the_trial(tmp_path: Path) -> None:
    improve = """
import glass
glass.trial(note="less\\nsmoothing\\u200b")
glass.trials([{"files": {"trainer/objective.py": "SMOOTHING = 10.0\\n"}, "note": "ten", "fraction": 0.5}])
"""
    folder = small_world.create(tmp_path / "loops", improve, generations=1)
    session(folder, Tuner())
    state = state_of(folder)
    assert [state.notes[trial.trial_id] for trial in state.trials_of(1, "explore")] == [
        "less smoothing\\u{200b}",
        "ten",
    ]
    document = view.document(state)
    at = document["trials"]["columns"].index("note")
    assert [row[at] for row in document["trials"]["rows"] if row[at]] == ["less smoothing\\u{200b}", "ten"]
