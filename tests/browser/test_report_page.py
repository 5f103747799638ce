"""The report in a real browser: nothing foreign runs, nothing is asked for, and every part is there and can be used."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import made_loop
import pytest
import small_world
from pages import driver
from test_final import CHAMPION, NONE, STARTER, failing
from test_report import HOSTILE

from bellglass.show import report, showing

pytestmark = [pytest.mark.browser, pytest.mark.slow]
PARTS = ("overview", "lineage", "generations", "skills", "gaps", "bounds", "safety", "conclusions", "reproduce")


class Page:
    """A report that is open, with what the browser complained about and what it asked for."""

    def __init__(self, tab: Any, file: Path) -> None:
        self.tab, self.said, self.asked = tab, [], []
        tab.on("console", lambda message: self.said.append(message.text))
        tab.on("pageerror", lambda error: self.said.append(str(error)))
        tab.on("request", lambda request: self.asked.append(request.url))
        tab.goto(file.as_uri())
        tab.wait_for_function("window.bellglassReady === true")

    def text(self) -> str:
        return str(self.tab.inner_text("body"))


def written(home: Path, **chosen: Any) -> Path:
    folder = made_loop.write(home, 6, texts=True, **chosen)
    file = home / "report.html"
    file.write_text(report.html(report.gather(showing.open_loop(folder))), "utf-8")
    return file


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("made"), seed=3)


@pytest.fixture
def page(chromium: Any, file: Path) -> Iterator[Page]:
    tab = chromium.new_page(viewport={"width": 1280, "height": 900})
    yield Page(tab, file)
    tab.close()


def test_every_part_is_drawn_and_the_browser_has_nothing_to_complain_of(page: Page, file: Path) -> None:
    for part in PARTS:
        assert page.tab.locator(f"#{part} h2").inner_text(), part
    assert page.said == []
    assert page.asked == [file.as_uri()]


def test_a_real_loop_s_report_says_what_may_be_concluded_and_how_to_check_it(
    chromium: Any, tmp_path: Path, picture: Callable[..., None]
) -> None:
    folder = small_world.create(tmp_path / "loops", generations=2)
    with driver(folder) as process:
        assert process.wait(timeout=120) == 0
    file = tmp_path / "report.html"
    file.write_text(report.html(report.gather(showing.open_loop(folder))), "utf-8")
    tab = chromium.new_page(viewport={"width": 1280, "height": 1200})
    page = Page(tab, file)
    said = tab.inner_text("#conclusions")
    assert "better than the starter on stories (tiny)" in said
    assert f"bellglass verify {folder.name}" in tab.inner_text("#reproduce")
    tab.evaluate("document.querySelector('#safety').scrollIntoView()")
    picture(tab, "report")
    assert page.said == []
    tab.close()


@pytest.mark.parametrize(
    ("failed", "event", "told"), [(CHAMPION, {"gain": None, "lacks": NONE}, NONE), (STARTER, {"lacks": ""}, "+")]
)
def test_what_failed_on_final_stands_beside_its_gain(
    chromium: Any, tmp_path: Path, failed: str, event: dict[str, Any], told: str
) -> None:
    folder, _ = failing(
        made_loop.write(tmp_path / "honest", 6, texts=True, seed=4), tmp_path, failed, "crashed", **event
    )
    file = tmp_path / "report.html"
    file.write_text(report.html(report.gather(showing.open_loop(folder))), "utf-8")
    tab = chromium.new_page(viewport={"width": 1280, "height": 900})
    page, tile = Page(tab, file), tab.locator(".tiles .tile").first.inner_text()
    assert told in tile
    assert f"1 of 4 pairs failed, first {failed}: crashed" in tile
    assert page.said == []
    tab.close()


def test_hostile_notes_stay_text(chromium: Any, tmp_path: Path) -> None:
    hostile = written(tmp_path, seed=6, note=HOSTILE)
    tab = chromium.new_page(viewport={"width": 390, "height": 800})
    page = Page(tab, hostile)
    for number in range(1, 5):
        tab.evaluate(f"bellglass.pick({number})")
        for name in ("session", "trials", "changes"):
            tab.click(f"#tab-{name}")
            tab.wait_for_selector("[role=tabpanel] [aria-busy]", state="detached")
    tab.evaluate("document.querySelectorAll('details').forEach((one) => (one.open = true))")
    tab.wait_for_timeout(200)
    assert tab.evaluate("window.owned") is None
    assert "<img src=x onerror=window.owned=1>" in page.text()
    assert "⟨202e⟩evil" in page.text()
    assert tab.locator("main img, main script, main iframe").count() == 0
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.said == []
    assert page.asked == [hostile.as_uri()]


def test_a_script_in_the_data_would_not_run_even_as_markup(page: Page) -> None:
    page.tab.evaluate(
        """() => {
            const holder = document.createElement("div");
            holder.innerHTML = "<img src=x onerror='window.owned=1'>";
            document.body.append(holder);
            const script = document.createElement("script");
            script.textContent = "window.owned=2";
            document.body.append(script);
        }"""
    )
    page.tab.wait_for_timeout(300)
    assert page.tab.evaluate("window.owned") is None
    assert any("Content Security Policy" in line for line in page.said)


DRAWN = "() => [...document.querySelectorAll('figure.chart .canvas')].every((one) => one.firstChild)"
CUT = """[...document.querySelectorAll("figure.chart .canvas")].flatMap((canvas) => {
    const whole = canvas.getBoundingClientRect();
    if (canvas.scrollWidth > canvas.clientWidth) return [];
    return [...canvas.querySelectorAll("text")].filter((text) => {
        const box = text.getBoundingClientRect();
        return box.left < whole.left || box.right > whole.right;
    }).map((text) => text.textContent);
})"""


@pytest.mark.parametrize("width", [390, 1280, 1920])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_fits_from_phone_to_projector(chromium: Any, file: Path, width: int, theme: str) -> None:
    tab = chromium.new_page(viewport={"width": width, "height": 900}, color_scheme=theme)
    page = Page(tab, file)
    tab.evaluate("bellglass.pick(2)")
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    tab.wait_for_function(DRAWN)
    assert tab.evaluate(CUT) == []
    dark = tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 26)"
    assert dark == (theme == "dark")
    assert page.said == []
    tab.close()


def test_every_chart_has_its_table(page: Page) -> None:
    figures = page.tab.locator("main figure.chart:has(.canvas)")
    assert figures.count() >= 3
    for index in range(figures.count()):
        figure = figures.nth(index)
        figure.get_by_role("button", name="as a table").click()
        assert figure.locator("tbody tr").count() > 0


def test_arrow_keys_read_a_chart_aloud_and_enter_opens_a_generation(page: Page) -> None:
    page.tab.focus("#verdicts .canvas")
    for key in ("ArrowRight", "ArrowRight", "ArrowRight"):
        page.tab.keyboard.press(key)
    assert page.tab.inner_text("#aloud").startswith("Generation 2.")
    page.tab.keyboard.press("Enter")
    assert page.tab.locator("#generation h3").first.inner_text() == "Generation 2"


def test_the_focus_goes_with_an_opened_generation_and_comes_back(page: Page) -> None:
    def focused() -> str:
        return str(page.tab.evaluate("document.activeElement.id"))

    page.tab.focus("#open-2")
    page.tab.keyboard.press("Enter")
    assert focused() == "generation"
    page.tab.focus("#later")
    page.tab.keyboard.press("Enter")
    assert (page.tab.inner_text("#generation h3 >> nth=0"), focused()) == ("Generation 3", "later")
    page.tab.focus("#close")
    page.tab.keyboard.press("Enter")
    assert focused() == "open-3"


def test_one_huge_interval_leaves_the_other_bars_readable_and_is_marked(page: Page) -> None:
    usual = "Array.from({ length: 24 }, (_, k) => ({ mean: 0.01 * k, low: 0.01 * k - 0.1, high: 0.01 * k + 0.1 }))"
    page.tab.evaluate(f"window.gains = [...{usual}, {{ mean: 2, low: -90, high: 94 }}]")
    assert 0.33 <= page.tab.evaluate("bellglass.reach(gains)") < 1.5
    assert page.tab.evaluate("gains.map((gain) => bellglass.cut(gain, bellglass.reach(gains)))") == [False] * 24 + [
        True
    ]
    assert page.tab.evaluate("gains.map((gain) => bellglass.bar(gain, 1).querySelectorAll('path').length)")[-2:] == [
        0,
        2,
    ]
    assert page.tab.evaluate("[bellglass.reach([]), bellglass.reach([gains[24]])]") == [0.01, 94]


def test_a_curve_that_is_lost_is_said(page: Page) -> None:
    lost = "{ series: [], missing: ['g1-pair-0-child: its blob is gone'] }"
    page.tab.evaluate(f"bellglass.source.curves = async () => ({lost})")
    page.tab.evaluate("bellglass.source.can = (deed) => deed === 'curves'")
    page.tab.evaluate("bellglass.pick(1)")
    page.tab.click("#tab-curves")
    page.tab.wait_for_selector("[role=tabpanel] .note")
    assert "Missing: g1-pair-0-child: its blob is gone" in page.tab.inner_text("[role=tabpanel]")


def test_a_word_is_explained_where_the_focus_rests(page: Page) -> None:
    page.tab.focus("#lineage [data-word=scaffold]")
    assert "control code" in page.tab.inner_text("#tip")
    page.tab.keyboard.press("Escape")
    assert not page.tab.is_visible("#tip")


def test_the_words_over_the_columns_are_explained(page: Page) -> None:
    page.tab.evaluate("bellglass.pick(2)")
    page.tab.click("#tab-trials")
    words = "[...document.querySelectorAll('{} .term')].map((node) => node.dataset.word)"
    assert {"verdict", "claim", "fitted"} <= set(page.tab.evaluate(words.format("#generations .rows")))
    assert {"verdict", "proof", "select"} <= set(page.tab.evaluate(words.format("#generation [role=tabpanel] th")))
    assert page.tab.evaluate(words.format("main") + ".filter((word) => !bellglass.meanings[word])") == []
    rows = page.tab.locator("#generation [role=tabpanel] tbody tr")
    cells = rows.filter(has_text="explore").first.locator("td").all_inner_texts()
    assert cells[4] == cells[5] != "–"


def test_a_person_may_choose_the_colours(page: Page) -> None:
    for expected in ("light", "dark"):
        page.tab.click("#theme")
        assert page.tab.evaluate("document.documentElement.dataset.theme") == expected
