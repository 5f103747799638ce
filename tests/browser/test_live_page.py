"""The page of real loops in a real browser: seen live, decided on, stopped, played back; closed to everybody else."""

from __future__ import annotations

import http.server
import re
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import made_loop
import pytest
import small_world
from pages import PATIENCE_MS, ROOT, Seen, driver, watching

from bellglass import wiring
from bellglass.curves import Curves
from bellglass.deciding import state_of
from bellglass.store.ledger import Ledger
from bellglass.store.live_curves import LiveCurves

pytestmark = [pytest.mark.browser, pytest.mark.slow]

SHIPPED = ROOT / "docs" / "recordings" / "stories-offline.bellglass"
HOSTILE = "<img src=x onerror='window.pwned=1'><script>window.pwned=1</script>\"'><svg onload=window.pwned=1> ‮evil"
UNLOADED = "Failed to load resource: the server responded with a status of "

NewPage = Callable[..., Any]


def expect(locator: Any) -> Any:
    from playwright.sync_api import expect as that

    that.set_options(timeout=PATIENCE_MS)
    return that(locator)


def decide(page: Any, choice: str, reason: str) -> None:
    page.check(f"#decide-{choice}")
    page.fill("#review textarea", reason)
    page.click("#review button[type=submit]")


def event_shown(page: Any) -> int:
    return int(re.search(r"Event ([\d,   ]+)", page.inner_text("#foot")).group(1).replace(",", ""))


def test_a_loop_is_seen_live_and_a_person_decides_on_its_successors(
    tmp_path: Path, new_page: NewPage, picture: Callable[..., None]
) -> None:
    folder = small_world.create(tmp_path / "loops", review="every")
    with watching(folder, "--port", "0") as url:
        page = new_page()
        page.goto(url)
        assert "token" not in page.url  # it stays in nobody's history
        expect(page.locator("h1")).to_have_text("stories")
        with driver(folder) as process:
            expect(page.locator("#review h2")).to_have_text("Generation 1 waits for a person")
            expect(page.locator("#review")).to_contain_text("SMOOTHING = 10000.0")
            assert process.wait(timeout=60) != 0  # nobody answered: it ended, and waits
        page.reload()
        expect(page.locator("#part-hero")).to_contain_text("Generation 1 waits for a person")
        assert "nobody decided" not in page.inner_text("#part-hero")
        page.set_viewport_size({"width": 1280, "height": 1440})
        picture(page, "review")
        decide(page, "approve", "less smoothing is what the diff says")
        expect(page.locator("#part-safety")).to_contain_text("1 decision")
        review = state_of(folder).generation(1).review
        assert (review["decision"], review["reason"]) == ("approve", "less smoothing is what the diff says")
        assert review["evidence_hash"] == state_of(folder).generation(1).review_hash
        expect(page.locator("#part-hero")).to_contain_text(f"Decided; bellglass resume {folder.name} goes on")
        with driver(folder):
            expect(page.locator("#review h2")).to_have_text("Generation 2 waits for a person")
            assert page.locator("#review input:checked").count() == 0
        decide(page, "reject", "enough for today")
        with driver(folder):
            expect(page.locator("#part-hero")).to_contain_text("Finished within its bounds")
        assert [gen.result["trainer"] for gen in state_of(folder).generations.values()] == ["adopted", "rejected"]


LOOP = "while glass.time_left()[0] > 0:\n"
SLOW = f"""
import time
step, held = 0, tokens[:40]
real = held[:, 1:] != 0
{LOOP}
    seen = (counts / counts.sum(1, keepdims=True))[held[:, :-1], held[:, 1:]][real]
    glass.metric("bits", float(-np.log2(seen).mean()), step)
    step += 1
    time.sleep(0.25)
"""


def test_the_curves_of_a_training_are_seen_while_it_trains(
    tmp_path: Path, new_page: NewPage, picture: Callable[..., None]
) -> None:
    bundle = dict(small_world.starter())
    bundle["trainer/train.py"] = bundle["trainer/train.py"].replace(LOOP.encode(), SLOW.encode())
    bundle["trainer/objective.py"] = b"SMOOTHING = 100.0\n"
    folder = wiring.create(small_world.config(generations=1, virtual_clock=False), tmp_path, bundle)
    with watching(folder, "--port", "0") as url:
        page = new_page()
        page.goto(url)
        expect(page.locator("#now")).to_contain_text("no training and no model call")
        with driver(folder):
            chart = page.locator("#growing-0-canvas")
            expect(chart).to_contain_text("cal-")
            expect(page.locator("#growing-0")).to_contain_text("claims")
            chart.focus()
            before = chart.locator("path").first.get_attribute("d")
            expect(chart.locator("path").first).not_to_have_attribute("d", before)  # it grows
            assert page.evaluate("document.activeElement.id") == "growing-0-canvas"  # and takes nobody's focus away
            expect(chart.locator("path").first).to_have_attribute("d", re.compile("(L[^L]+){20}"))
            assert not state_of(folder).trials, "the training has not ended yet"
            chart.blur()
            page.set_viewport_size({"width": 1280, "height": 1210})
            page.evaluate("window.scrollTo(0, 0)")
            page.wait_for_selector("#growing-0-canvas svg")
            picture(page, "live")
            page.click("#stop")
            page.click("#stop")
            expect(page.locator("#part-hero")).to_contain_text("Stopped by a person")
        expect(page.locator("#now")).to_have_count(0)


def test_the_last_curves_stay_as_such_until_another_training_has_reported(tmp_path: Path, new_page: NewPage) -> None:
    folder, events = tmp_path / "stories-00000003", iter(made_loop.Maker(1, seed=3).events())
    live, reported = LiveCurves(folder / "live"), Curves()
    for step in range(3):
        reported.take("loss", step, float(step), 3.0 - step)
    with closing(Ledger.create(folder)) as ledger:

        def begin_a_training() -> None:
            for event in events:
                ledger.append(*event)
                if event[0] == "trial.intended":
                    return

        begin_a_training()
        live.put("cal-0x0", reported)
        with watching(folder, "--port", "0") as url:
            page = new_page(viewport={"width": 1280, "height": 2400})  # all of it is in sight
            page.goto(url)
            now, chart = page.locator("#now .intro"), page.locator("#growing-0-canvas")
            expect(chart).to_contain_text("cal-0x0")
            expect(now).to_contain_text("Curves are what the trainers report")
            page.evaluate(WATCH_FOR_BLANKS)
            live.drop("cal-0x0")
            begin_a_training()
            expect(now).to_contain_text(
                "cal-1x1, which reported nothing yet. These are the curves of cal-0x0, which ended"
            )
            expect(chart).to_contain_text("cal-0x0")
            live.put("cal-1x1", reported)
            expect(chart).to_contain_text("cal-1x1")
            expect(now).not_to_contain_text("cal-0x0")
            expect(chart).not_to_contain_text("cal-0x0")
            assert page.evaluate("window.blank") == 0


WATCH_FOR_BLANKS = """() => {
    window.blank = 0;
    const looking = new MutationObserver(() => (window.blank += !document.querySelector("#growing-0-canvas svg")));
    looking.observe(document.getElementById("part-now"), { childList: true, subtree: true });
}"""


def test_the_page_says_what_is_under_way_at_every_moment(tmp_path: Path, new_page: NewPage) -> None:
    folder, events = tmp_path / "stories-00000003", iter(made_loop.Maker(2, seed=3).events())
    moments = (
        ("trial.intended", "calibrate", "calibration, how far seeds move the score"),
        ("trial.intended", "panel", "the new champion is trained again"),
        ("generation.ended", None, "final, starter against champion"),
    )
    with closing(Ledger.create(folder)) as ledger:

        def go_on_until(kind: str, purpose: str | None) -> None:
            for event in events:
                ledger.append(*event)
                if (event[0], event[1].get("purpose")) == (kind, purpose):
                    return

        go_on_until("loop.created", None)
        with watching(folder, "--port", "0") as url:
            page = new_page()
            page.goto(url)
            for kind, purpose, words in moments:
                go_on_until(kind, purpose)
                expect(page.locator("#part-hero")).to_contain_text(words)
                if purpose == "calibrate":
                    expect(page.locator("#part-chart")).to_contain_text("the calibration that is under way")
                    expect(page.locator("#part-notes")).not_to_contain_text("Missing")


def test_of_two_people_who_decide_at_once_the_second_is_told(tmp_path: Path, new_page: NewPage, seen: Seen) -> None:
    seen.expected = (UNLOADED + "409",)
    folder = made_loop.write(tmp_path, 2, texts=True, waits=True)
    with watching(folder, "--port", "0") as url:
        first, second = new_page(), new_page()
        for page in (first, second):
            page.goto(url)
            page.wait_for_selector("#review")
        second.route("**/api/document", lambda route: route.abort())  # it has not heard yet
        second.evaluate("window.bellglass.source.listen = () => {}")
        decide(first, "approve", "I looked first")
        expect(first.locator("#review")).to_have_count(0)
        decide(second, "reject", "I looked too")
        expect(second.locator("#review .answer").first).to_contain_text("nothing waits for a decision there")
    assert state_of(folder).generation(2).review["decision"] == "approve"
    seen.errors = [error for error in seen.errors if "ERR_FAILED" not in error]  # the aborted ones


def test_a_stop_on_the_page_stops_the_loop(tmp_path: Path, new_page: NewPage) -> None:
    folder = small_world.create(tmp_path / "loops", generations=40)
    with watching(folder, "--port", "0") as url, driver(folder) as process:
        page = new_page()
        page.goto(url)
        page.wait_for_selector("#generations .rowlink")
        page.click("#stop")
        expect(page.locator("#stop")).to_have_text("Stop it: are you sure?")
        page.click("text=Let it run")
        expect(page.locator("#stop")).to_have_text("Stop the loop")
        assert process.poll() is None
        page.click("#stop")
        page.keyboard.type("enough for today")  # the field for the reason has the focus
        page.click("#stop")
        expect(page.locator("#part-hero")).to_contain_text(
            f"Stopped by a person; bellglass resume {folder.name} goes on"
        )
        expect(page.locator("#part-hero")).to_contain_text("enough for today")
        assert process.wait(timeout=60) != 0
    state = state_of(folder)
    assert (state.ended["why"], state.stop_requested["reason"]) == ("stopped", "enough for today")


def test_a_page_left_open_over_a_restart_connects_again(tmp_path: Path, new_page: NewPage, seen: Seen) -> None:
    seen.expected = ("Failed to load resource: net::ERR_CONNECTION_REFUSED", "Failed to load resource: net::ERR_INC")
    folder = made_loop.write(tmp_path, 1, texts=True, waits=True)
    page = new_page()
    with watching(folder) as url:
        page.goto(url)
        page.wait_for_selector("#review")
        before = event_shown(page)
    expect(page.locator("#bar")).to_contain_text("connection lost")
    with closing(Ledger.open(folder, write=True)) as ledger:
        ledger.append("loop.clock", {"wall_seconds": 5.0})
    with watching(folder) as again:
        assert again == url
        expect(page.locator("#bar")).not_to_contain_text("connection lost")
        expect(page.locator("#foot")).to_contain_text(f"Event {before + 1}")
        page.reload()  # the tab knows its token still
        expect(page.locator("#foot")).to_contain_text(f"Event {before + 1}")


def test_a_recording_plays_pauses_and_goes_anywhere(new_page: NewPage, picture: Callable[..., None]) -> None:
    with watching(SHIPPED, "--port", "0", "--play", "60x") as url:
        page = new_page()
        page.goto(url)
        page.wait_for_selector("#play")
        expect(page.locator("#generations .rowlink").first).to_be_visible()  # the first generation has begun
        page.click("#play")
        expect(page.locator("#play")).to_contain_text("Play")
        paused = event_shown(page)
        page.wait_for_timeout(1500)
        assert event_shown(page) == paused > 1
        scrub = page.locator("input[type=range]")
        scrub.fill(scrub.get_attribute("max"))
        expect(page.locator("#part-hero")).to_contain_text("Finished within its bounds")
        expect(page.locator("#part-headline")).to_contain_text("clear of zero")
        assert page.locator("#review, #stop").count() == 0
        page.set_viewport_size({"width": 1280, "height": 1560})
        picture(page, "page")
        page.click("[aria-label='open generation 2']")
        expect(page.locator("#generation")).to_contain_text("trainer/")
        page.click("#tab-curves")
        expect(page.locator("#generation")).to_contain_text("claim_bits")
        page.click("#tab-session")
        expect(page.locator("#generation")).to_contain_text("submit")
        page.locator("#generation").scroll_into_view_if_needed()
        picture(page, "session")
        scrub.fill("1")
        expect(page.locator("#part-hero")).not_to_contain_text("Finished")


HIDDEN = """() => {
    const at = document.activeElement, box = at.getClientRects()[0];
    const inside = (x, y) => at.contains(document.elementFromPoint(x, y));
    const low = Math.min(box.bottom, box.top + 24) - 2;
    const places = [box.left + 2, (box.left + box.right) / 2, box.right - 2];
    const seen = at === document.body || places.every((x) => inside(x, low));
    return seen ? null : at.getAttribute("aria-label") || at.textContent;
}"""


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (390, 844)])
def test_what_has_the_focus_is_in_sight_while_a_recording_plays(new_page: NewPage, width: int, height: int) -> None:
    with watching(SHIPPED, "--port", "0") as url:
        page = new_page(viewport={"width": width, "height": height}, reduced_motion="reduce")
        page.goto(url)
        page.click("#play")
        scrub = page.locator("input[type=range]")
        scrub.fill(scrub.get_attribute("max"))
        expect(page.locator("#part-headline")).to_contain_text("clear of zero")
        page.focus("a.brand")
        hidden, steps = [], 0
        while page.evaluate("document.activeElement.id") != "play":
            page.keyboard.press("Tab")
            hidden.append(page.evaluate(HIDDEN))
            steps += 1
        assert steps > 40
        assert [name for name in hidden if name] == []
        page.evaluate("window.scrollTo(0, 700)")
        for _ in range(3):  # the bar's own buttons are in sight wherever the page is
            page.keyboard.press("Tab")
            assert page.evaluate("window.scrollY") == 700


def test_a_phone_shows_all_of_it_without_scrolling_sideways(new_page: NewPage, picture: Callable[..., None]) -> None:
    with watching(SHIPPED, "--port", "0") as url:
        page = new_page(viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True, color_scheme="dark")
        page.goto(url)
        page.wait_for_selector("#play")
        page.click("#play")
        scrub = page.locator("input[type=range]")
        scrub.fill(scrub.get_attribute("max"))
        expect(page.locator("#part-headline")).to_contain_text("clear of zero")
        picture(page, "phone")
        for width in (390, 320):
            page.set_viewport_size({"width": width, "height": 844})
            assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_hostile_loop_is_text_and_nothing_else(tmp_path: Path, new_page: NewPage, seen: Seen) -> None:
    folder = made_loop.write(tmp_path, 2, texts=True, waits=True, note=HOSTILE)
    with closing(Ledger.open(folder, write=True)) as ledger:
        wire = {"name": HOSTILE, "generation": 1, "level": "pause", "sentence": HOSTILE, "evidence": [HOSTILE]}
        ledger.append("tripwire.fired", wire)
        ledger.append(HOSTILE, {HOSTILE: HOSTILE})
    with watching(folder, "--port", "0") as url:
        page = new_page()
        page.goto(url)
        expect(page.locator("#tripwires")).to_contain_text("<script>window.pwned=1</script>")
        page.click("[aria-label='open generation 1']")
        expect(page.locator("#generation .testimony")).to_contain_text("<img src=x onerror=")
        page.click("#tab-session")
        expect(page.locator("#generation")).to_contain_text("I look at the rate.")
        scripts = "document.querySelectorAll('main script').length"
        assert page.evaluate(f"[window.pwned, document.images.length, {scripts}]") == [None, 0, 0]
        seen.expected = ("Executing inline script violates", "Refused to execute inline script")
        page.evaluate("document.body.append(Object.assign(document.createElement('script'), {text: 'pwned = 1'}))")
        assert page.evaluate("window.pwned") is None
        assert len(seen.errors) == 1


def test_without_the_right_token_the_page_tells_nothing(tmp_path: Path, new_page: NewPage, seen: Seen) -> None:
    seen.expected = (UNLOADED + "403",)
    folder = made_loop.write(tmp_path, 1)
    with watching(folder, "--port", "0") as url:
        for address in (url.partition("#")[0], url[:-4] + "AAAA"):
            page = new_page()
            page.goto(address)
            expect(page.locator("#main")).to_contain_text("no valid token")
            assert "00000001" not in page.content()


ATTACK = """<!doctype html><title>another site</title><iframe src="{url}"></iframe><script>
const tries = [
  () => fetch("{base}api/document").then((r) => r.text()),
  () => fetch("{base}api/document", {{ headers: {{ "X-Bellglass": "{token}" }} }}).then((r) => r.text()),
  () => fetch("{base}api/act/stop", {{ method: "POST", body: "{{}}" }}).then((r) => r.text()),
];
Promise.all(tries.map((one) => one().then(() => "in", () => "out"))).then((all) => (window.outcome = all));
</script>"""


def test_another_sites_page_gets_nothing_even_with_the_token(tmp_path: Path, new_page: NewPage, seen: Seen) -> None:
    folder = made_loop.write(tmp_path, 1, waits=True)
    with watching(folder, "--port", "0") as url, closing(serving_attack(url)) as other:
        page = new_page()
        page.goto(f"http://127.0.0.1:{other.port}/")
        page.wait_for_function("window.outcome")
        assert page.evaluate("window.outcome") == ["out", "out", "out"]
        assert "stories" not in page.frames[1].content()  # nobody may frame it
    assert state_of(folder).stop_requested is None
    seen.errors.clear()  # the attacker's own


class serving_attack:
    """Another server on this machine, whose page tries what it can."""

    def __init__(self, url: str) -> None:
        base, _, token = url.partition("#token=")
        body = ATTACK.format(url=url, base=base, token=token).encode()

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "text/html")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *words: object) -> None:
                """Quiet."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
