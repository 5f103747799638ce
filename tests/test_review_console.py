"""The question at a terminal: answered there, or closed when somebody decides elsewhere."""

from __future__ import annotations

import os
import pty
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import small_world
from small_world import Tuner, opened

from bellglass.commands.review_console import TerminalReviewer
from bellglass.loop import run_loop
from bellglass.review import Answer, Evidence
from bellglass.store.ledger import Ledger

EVIDENCE = Evidence("1a2b", 1, "p" * 40, "s" * 40, ("data",), (), "", None, None, (), "")


@pytest.fixture
def keyboard(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Types at the terminal that this process asks at."""
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "r") as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        yield lambda text: (os.write(ours, text.encode()), None)[1]
    os.close(ours)


def test_a_person_at_the_terminal_answers(keyboard: Callable[[str], None]) -> None:
    keyboard("trainer\nlooked at it\n")
    answer = TerminalReviewer(lambda: None).ask(EVIDENCE, lambda: False)
    assert answer is not None
    assert (answer.decision, answer.reason) == ("trainer", "looked at it")


@pytest.mark.parametrize("typed", ["\n", "yes\n", "approve\n\n", "\x04"])
def test_anything_but_a_decision_with_a_reason_is_none(keyboard: Callable[[str], None], typed: str) -> None:
    keyboard(typed)
    assert TerminalReviewer(lambda: None).ask(EVIDENCE, lambda: False) is None


@pytest.mark.parametrize("typed", ["", "approve\n"])
def test_a_decision_made_elsewhere_closes_the_question(
    keyboard: Callable[[str], None], typed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    keyboard(typed)
    looks: list[float] = []

    def decided() -> bool:
        looks.append(time.monotonic())
        return len(looks) == 3

    assert TerminalReviewer(lambda: None).ask(EVIDENCE, decided) is None
    assert len(looks) == 3
    assert "somebody has decided elsewhere" in capsys.readouterr().err


def test_a_loop_goes_on_with_what_was_decided_while_its_terminal_asked(
    keyboard: Callable[[str], None], home: Path
) -> None:
    folder = small_world.create(home, generations=1, review="every")

    class Elsewhere(TerminalReviewer):
        """Somebody decides by another process as soon as the terminal asks."""

        def ask(self, evidence: Evidence, decided: Callable[[], bool]) -> Answer | None:
            body = {"generation": 1, "decision": "reject", "reason": "no", "who": "me", "evidence_hash": evidence.hash}

            def post() -> None:
                with Ledger.open(folder) as ledger:
                    ledger.post("review", body)

            threading.Timer(0.5, post).start()
            return super().ask(evidence, decided)

    with opened(folder, Tuner()) as crew:
        object.__setattr__(crew, "reviewer", Elsewhere(lambda: None))
        state = run_loop(crew)
    assert state.generations[1].review["decision"] == "reject"
    assert state.ended["why"] == "finished"
