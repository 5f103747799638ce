"""Where a person decides on the page: each thing decided has a form of its own, and what was typed stays in it."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import made_loop
import pytest
from pages import PATIENCE_MS, Seen, watching

from bellglass.deciding import state_of
from bellglass.review import choices_of
from bellglass.store.ledger import Ledger
from bellglass.visible import visible

pytestmark = [pytest.mark.browser, pytest.mark.slow]

NewPage = Callable[..., Any]
WIRE = {"name": "canary", "generation": 2, "level": "pause", "sentence": "it sang", "evidence": ["g2-pair-0-child"]}


def expect(locator: Any) -> Any:
    from playwright.sync_api import expect as that

    that.set_options(timeout=PATIENCE_MS)
    return that(locator)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A loop whose second generation waits for a person; the gate did not adopt it."""
    return made_loop.write(tmp_path, 2, texts=True, waits=True, seed=2)


@pytest.fixture
def page(folder: Path, new_page: NewPage) -> Iterator[Any]:
    with watching(folder, "--port", "0") as url:
        page = new_page()
        page.goto(url)
        page.wait_for_selector("#review form")
        yield page
        page.close()  # before its server


def append(folder: Path, *events: tuple[str, dict[str, Any]]) -> None:
    with closing(Ledger.open(folder, write=True)) as ledger:
        for kind, body in events:
            ledger.append(kind, body)


def test_the_next_successor_is_decided_on_with_an_empty_form(page: Any, folder: Path) -> None:
    page.check("#decide-approve")
    page.fill("#review textarea", "I looked at the second")
    page.click("#review button[type=submit]")
    expect(page.locator("#review")).to_have_count(0)
    second = state_of(folder).generation(2)
    ended = {"generation": 2, "champion": second.parent, "trainer": "rejected", "scaffold": "unchanged", "why": "-"}
    made = {"generation": 3, "successor": second.successor, "fault": None, "note": "again", "kinds": ["data"]}
    append(
        folder,
        ("generation.ended", ended),
        ("generation.started", {"generation": 3, "parent": second.parent}),
        ("proposal.made", made),
        ("review.requested", {"generation": 3, "evidence_hash": "cd" * 32}),
    )
    expect(page.locator("#review h2")).to_have_text("Generation 3 waits for a person")
    assert page.locator("#review input:checked").count() == 0
    assert page.input_value("#review textarea") == ""
    assert page.inner_text("#review .answer") == ""


def test_what_is_hashed_is_shown_and_a_gate_that_did_not_adopt_is_said(page: Any, folder: Path) -> None:
    state = state_of(folder)
    second = state.generation(2)
    page.click('#review summary:has-text("The gate\'s")')
    said = page.inner_text("#review")
    gate = state.trials_of(2, "gate")
    assert {second.parent, second.successor, *(trial.trial_id for trial in gate)} <= set(said.split())
    assert f"{gate[0].claim.bits:.4f}" in said
    assert f"{gate[0].verdict.raw_bits:.4f}" in said
    assert f"{second.gate['gain']['low']:.4f}".replace("-", "−") in said
    assert second.gate["decision"] == "reject"
    assert "whatever you decide, its trainer is not adopted" in said


def test_of_two_open_panels_each_keeps_its_words_its_answer_and_the_focus(page: Any, folder: Path) -> None:
    append(folder, ("tripwire.fired", WIRE))
    page.wait_for_selector("#tripwires textarea")
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map((node) => node.id)")
    assert len(ids) == len(set(ids))
    page.fill("#review textarea", "of the review")
    page.click("#review button[type=submit]")  # without a decision: it says so
    page.focus("#tripwires textarea")
    page.keyboard.type("of the ")
    append(folder, ("tripwire.fired", {**WIRE, "name": "weights"}))
    expect(page.locator("#tripwires li")).to_have_count(2)
    page.keyboard.type("wire")  # the focus is where it was
    words = "[...document.querySelectorAll('.decide textarea')].map((field) => field.value)"
    assert sorted(page.evaluate(words)) == ["", "of the review", "of the wire"]
    assert page.inner_text("main").count("A decision and a reason are both needed.") == 1
    page.click("#tripwires button:has-text('canary')")
    expect(page.locator("#tripwires li")).to_have_count(1)
    assert page.input_value("#review textarea") == "of the review"
    with closing(Ledger.open(folder)) as ledger:
        (rearmed,) = [event.body for event in ledger.events() if event.kind == "tripwire.rearmed"]
    assert (rearmed["name"], rearmed["reason"]) == ("canary", "of the wire")


def test_a_generation_of_before_can_be_rechecked_and_the_waiting_one_in_its_own_panel_alone(page: Any) -> None:
    page.click("[aria-label='open generation 1']")
    expect(page.locator("#generation #recheck-1")).to_be_visible()
    page.click("#later")
    expect(page.locator("#generation h3").first).to_have_text("Generation 2")
    expect(page.locator("#review #recheck-2")).to_be_visible()
    assert page.locator("#recheck-1, #generation #recheck-2").count() == 0


def test_a_recheck_keeps_the_typed_reason_and_is_told_line_by_line(page: Any) -> None:
    said = json.dumps({"message": "g2-pair-0-parent recorded 1.2 again 1.2\ngeneration 2 holds: it does"})
    page.route("**/api/act/recheck", lambda route: route.fulfill(body=said, content_type="application/json"))
    page.fill("#review textarea", "half a reason")
    page.click("#review button:has-text('recheck')")
    expect(page.locator("#review .answer li")).to_have_count(2)
    assert page.input_value("#review textarea") == "half a reason"


HIDDEN = "e => [e.scrollHeight - e.clientHeight, e.scrollWidth - e.clientWidth]"


def test_nothing_of_a_trainers_diff_is_out_of_sight_and_what_is_folded_is_counted(
    tmp_path: Path, new_page: NewPage
) -> None:
    long = "".join(f"line_{n} = {n}  # {'x' * 200}\n" for n in range(700))
    folder = made_loop.third(tmp_path, {"trainer/model.py": long, "scaffold/notes.md": "padding\n" * 450})
    with watching(folder, "--port", "0") as url:
        page = new_page()
        page.goto(url)
        page.wait_for_selector("#review .file.whole")
        folded = page.locator("#review .folded")
        expect(folded).to_contain_text("in 1 folded file")
        assert "450" in folded.inner_text()
        assert folded.bounding_box()["height"] > 10, "and a person sees it"
        trainer = page.locator('#review div.file.whole:has-text("model.py") pre')
        assert trainer.count() == 1
        assert trainer.evaluate(HIDDEN) == [0, 0], "neither below nor beside an edge"
        assert trainer.locator(".row.add").count() == 700
        page.click("#review details.file summary")
        expect(folded).to_have_text("")
        page.close()


SWALLOW = "try:\n    work()\nexcept Exception:\n    pass\n"
FLAGGED = {
    "trainer/model.py": "RATE = 1.0\n" + "".join(f"line_{n} = {n}\n" for n in range(120)) + "import socket\n",
    "scaffold/improve.py": "".join(f"f({n})\n" for n in range(1700)) + SWALLOW,
}
NARROW = {"width": 390, "height": 844}


@pytest.mark.parametrize(("name", "size"), [("desktop", {"width": 1280, "height": 900}), ("narrow", NARROW)])
def test_red_flags_come_first_and_each_link_leads_to_its_lines_folded_or_not(
    tmp_path: Path, new_page: NewPage, picture: Callable[..., None], name: str, size: dict[str, int]
) -> None:
    folder = made_loop.third(tmp_path, FLAGGED)
    with watching(folder, "--port", "0") as url:
        page = new_page(viewport=size)
        page.goto(url)
        flags = page.locator("#review .flags li")
        expect(flags).to_have_count(3)
        codes = flags.evaluate_all("them => them.map((one) => one.dataset.flag)")
        assert codes == ["boot_failed", "exception_swallowed", "new_import"]
        first = page.locator("#review .flags").bounding_box()
        assert first["y"] < page.locator("#review .facts").bounding_box()["y"]
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
        if name == "desktop":
            picture(page, "flags")
        leads_to(page, "new_import", "trainer/model.py:122", "+import socket")
        assert page.locator("#review details.file[open]").count() == 0
        swallowed = "scaffold/improve.py:1703–1704"
        leads_to(page, "exception_swallowed", swallowed, "+except Exception:\n+    pass")
        assert page.locator("#review details.file[open]").count() == 1
        assert page.locator("#review .row.jumped").count() == 2, "the lines of the last link alone"
        said = page.inner_text("#review fieldset")
        for choice, outcome in choices_of(state_of(folder), state_of(folder).generation(3)):
            assert page.locator(f"label[for=decide-{choice}]").inner_text().endswith(outcome), said
        page.close()


def leads_to(page: Any, code: str, link: str, text: str) -> None:
    page.click(f'[data-flag={code}] a:has-text("{link}")')
    rows = page.locator("#review .row.jumped")
    assert "\n".join(rows.all_inner_texts()) == text
    expect(rows.first).to_be_in_viewport()
    expect(rows.first).to_be_focused()


def test_an_answer_is_bound_to_what_the_page_shows(tmp_path: Path, new_page: NewPage, seen: Seen) -> None:
    """Another version of bellglass asked, and hashed something else."""
    seen.expected = ("Failed to load resource: the server responded with a status of 409",)
    folder = made_loop.third(tmp_path, FLAGGED, asked=False)
    with watching(folder, "--port", "0") as url:
        page = new_page()
        page.goto(url)
        expect(page.locator("#review .first .note.alarm")).to_contain_text("resume")
        page.check("#decide-approve")
        page.fill("#review textarea", "looks good")
        page.click("#review button[type=submit]")
        expect(page.locator("#review .answer").first).to_contain_text("which is what waits")
        assert state_of(folder).generation(3).review is None
        page.close()


def test_the_page_spells_out_what_visible_does(page: Any) -> None:
    """What the host has not spelled out already, such as a name in the document."""
    every = map(chr, (*range(0x20, 0xD800), *range(0xE000, 0x11000), *range(0xE0000, 0xE0200)))
    hidden = [c for c in every if visible(c) != c and unicodedata.category(c) != "Cn"]
    shown = page.evaluate("them => them.filter((c) => bellglass.clean(c) === c)", hidden)
    assert [hex(ord(c)) for c in shown] == []
    plain = "naïve Zürich — 你好 ελληνικά µ ≤ ✓\n\t"
    assert page.evaluate("text => bellglass.clean(text)", plain) == plain
