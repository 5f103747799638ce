"""The report: one file that holds the page and its data, fetches nothing, stays small, and runs nothing foreign."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shlex
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import made_loop
import pytest
from typer.testing import CliRunner
from whose import another_user

from bellglass.cli import app
from bellglass.show import compare, report, report_text, showing
from bellglass.store.ledger import Ledger

HOSTILE = (
    "</script><script>window.owned=1</script><img src=x onerror=window.owned=1>\"><svg onload='window.owned=1'>"
    "\u202eevil\u2066 \u0000 <!-- ]]> &lt; " + "long" * 400
)


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_loop.write(tmp_path_factory.mktemp("made"), 5, texts=True, seed=3)


@pytest.fixture(scope="module")
def gathered(loop: Path) -> report.Report:
    return report.gather(showing.open_loop(loop))


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_loop.write(tmp_path_factory.mktemp("made"), 4, texts=True, seed=6, note=HOSTILE, waits=True)


class Seen(HTMLParser):
    """What a browser would make of a file: its elements, and the text of its scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.inside: dict[str, list[str]] = {"script": [], "style": []}
        self._in = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag in self.inside:
            self._in = tag
            self.inside[tag].append("")

    def handle_endtag(self, tag: str) -> None:
        self._in = ""

    def handle_data(self, data: str) -> None:
        if self._in:
            self.inside[self._in][-1] += data


def payload(text: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    return json.loads(found.group(1))


def test_the_file_holds_the_document_of_the_loop_and_its_texts(loop: Path, gathered: report.Report) -> None:
    found = payload(report.html(gathered))
    assert found["document"] == json.loads(json.dumps(showing.open_loop(loop).document()))
    assert set(found["diffs"]) == {"1", "2", "3", "4"}
    assert set(found["sessions"]) == {"1", "2", "3", "4", "5"}
    assert found["dropped"] == {"sessions": [], "diffs": []}


def test_nothing_in_it_is_fetched(gathered: report.Report) -> None:
    seen = Seen(report.html(gathered))
    for tag, attributes in seen.elements:
        assert (
            tag not in ("link", "img", "iframe", "object", "embed", "base", "form")
            or attributes.get("href") == "data:,"
        )
        assert "src" not in attributes
    assert "@import" not in seen.inside["style"][0]
    assert "url(" not in seen.inside["style"][0]


def test_only_its_own_script_and_style_may_run(gathered: report.Report) -> None:
    seen = Seen(report.html(gathered))
    (policy,) = [a["content"] for t, a in seen.elements if a.get("http-equiv") == "Content-Security-Policy"]
    data, script = seen.inside["script"]
    for kind, text in (("script", script), ("style", seen.inside["style"][0])):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'; ")
    assert json.loads(data)["document"]["format"] == 1


def test_hostile_text_adds_no_element_and_ends_no_script(gathered: report.Report, hostile: Path) -> None:
    text = report.html(report.gather(showing.open_loop(hostile)))
    tame = [(tag, sorted(attributes)) for tag, attributes in Seen(report.html(gathered)).elements]
    assert [(tag, sorted(attributes)) for tag, attributes in Seen(text).elements] == tame
    assert payload(text)["document"]["generations"][0]["note"] == HOSTILE[:2000]
    assert text.isascii() or "\u202e" not in text


def test_no_script_of_the_page_can_make_markup_of_a_text() -> None:
    for path in report.STATIC.glob("*.js"):
        text = path.read_text()
        for way in (
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "new Function",
            "DOMParser",
        ):
            assert way not in text, f"{path.name}: {way}"


def test_the_checks_of_the_loop_are_in_it(gathered: report.Report) -> None:
    found = {finding["what"]: finding["ok"] for finding in gathered.payload()["report"]["findings"]}
    checks = "ledger standing events bundles blobs secret seeds budgets gates adoptions final tripwires"
    assert found == dict.fromkeys(checks.split(), True)


def test_a_loop_that_does_not_fit_its_record_concludes_nothing(loop: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(loop, tmp_path / "copy"))
    blob = next((copy / "blobs").glob("*/*"))
    blob.chmod(0o644)
    blob.write_bytes(b"other")
    found = report.gather(showing.open_loop(copy)).document
    assert found["conclusions"]["may"] == []
    assert "(blobs)" in found["said"][0]


def luminance(colour: str) -> float:
    channels = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_every_colour_of_text_can_be_read_on_every_ground_it_stands_on() -> None:
    """Contrast of at least 4.5 to 1, in each theme of the page."""
    themes = re.split(r"\scolor-scheme: \w+;", (report.STATIC / "page.css").read_text("utf-8"))[1:]
    assert len(themes) == 3  # light, dark by the machine's setting, dark by choice
    for theme in themes:
        colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})[;\s]", theme))
        for text in ("ink", "soft", "key", "string", "remark"):
            for ground in ("page", "card", "faint", "added", "removed"):
                dark, light = sorted(luminance(colours[name]) for name in (text, ground))
                assert (light + 0.05) / (dark + 0.05) >= 4.5, f"{text} on {ground}"


def test_commands_to_copy_hold_nothing_that_a_shell_runs(loop: Path) -> None:
    shown = showing.open_loop(loop)
    shown.state.created["task"] = "stories; touch gone"
    shown.state.config["models"]["main"] = "offline$(touch gone)"
    shown.state.loop_id = "`touch gone`"
    for command in report.reproduce(shown)["commands"]:
        words = shlex.split(command, comments=True)
        assert shlex.join(words) == command.partition("   #")[0]


def test_it_says_how_to_check_and_repeat_the_loop(gathered: report.Report) -> None:
    again = gathered.reproduce
    assert any(
        "verify" in command and gathered.document["loop"]["head"][:12] in command for command in again["commands"]
    )
    facts = dict(again["facts"])
    assert facts["secret commitment"] == gathered.document["loop"]["secret_commitment"]
    assert facts["models"] == "main: offline"


def test_a_damaged_loop_is_reported_with_what_is_wrong(loop: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(loop, tmp_path / "copy"))
    shutil.rmtree(copy / "lineage.git")
    found = report.gather(showing.open_loop(copy))
    assert not all(finding.ok for finding in found.findings)
    assert "no git repository" in found.diffs[1]["missing"]


def test_a_file_that_grows_too_large_drops_sessions_first_then_rejected_diffs(gathered: report.Report) -> None:
    whole = len(report.html(gathered))
    less = report.within(gathered, whole - 100)
    assert (less.sessions, less.diffs) == ({}, gathered.diffs)
    assert "sessions" in less.left_out[0]
    without = len(report.html(less))
    least = report.within(gathered, without - 50)
    adopted = {gen["n"] for gen in gathered.document["generations"] if gen["trainer"] == "adopted"}
    assert set(least.diffs) == adopted & set(gathered.diffs)
    nothing = report.within(gathered, 10)
    assert nothing.document["trials"] == {**gathered.document["trials"], "rows": [], "dropped": True}
    assert len(nothing.left_out) == 4


@pytest.mark.slow
def test_a_thousand_generations_stay_below_the_cap(tmp_path: Path) -> None:
    shown = showing.open_loop(made_loop.write(tmp_path, 1000))
    assert len(report.html(report.gather(shown)).encode()) <= report.MOST_BYTES


def test_the_text_holds_what_the_page_shows(gathered: report.Report) -> None:
    text = report_text.markdown(gathered)
    for gen in gathered.document["generations"]:
        assert f"| {gen['n']} | {gen['trainer']} |" in text
        if gen["raw"]:
            assert f"{gen['raw']['mean']:.3f}" in text
    assert "## May not be concluded" in text
    assert "positive control" in text


def test_the_text_says_who_reviewed_as_the_page_does(gathered: report.Report) -> None:
    assert "- reviews: asked for: only after a tripwire. 0 decisions\n" in report_text.markdown(gathered)
    watched = {**gathered.document["oversight"], "decided": 1, "decisions": {"approve": 1}, "people": ["a_person"]}
    decided = replace(gathered, document={**gathered.document, "oversight": watched})
    assert "only after a tripwire. 1 decision by a\\_person (approve 1)\n" in report_text.markdown(decided)


def test_the_text_escapes_markup_and_keeps_one_line(hostile: Path) -> None:
    text = report_text.markdown(report.gather(showing.open_loop(hostile)))
    assert "<script" not in text.replace("\\<", "")
    assert "\u202e" not in text
    assert "\u0000" not in text


@pytest.mark.parametrize(("kind", "begins"), [("html", "<!doctype html>"), ("md", "# stories"), ("svg", "<svg ")])
def test_the_command_writes_each_format(loop: Path, tmp_path: Path, kind: str, begins: str) -> None:
    ran = CliRunner().invoke(app, ["report", str(loop), "--format", kind, "-o", str(tmp_path / "file")])
    assert ran.exit_code == 0, ran.output
    assert (tmp_path / "file").read_text().startswith(begins)


def test_no_word_of_a_forged_ledger_becomes_markup(gathered: report.Report) -> None:
    evil = "<img src=x>\n# head | `b`"
    first, *others = gathered.document["generations"]
    forged = {**first, "trainer": evil, "scaffold": evil, "kinds": [evil]}
    watched = {**gathered.document["oversight"], "decisions": {evil: 1}}
    document = {**gathered.document, "generations": [forged, *others], "oversight": watched}
    text = report_text.markdown(
        replace(gathered, document=document, reproduce={"commands": [evil], "facts": [[evil, evil]]})
    )
    shown = [line for line in text.splitlines() if "img" in line and not line.startswith("    ")]
    assert len(shown) == 3
    assert all("\\<img src=x\\>" in line or "`<img" in line for line in shown)
    assert not any(line.startswith("# head") for line in text.splitlines())


def test_loops_of_one_kind_have_a_mean(loop: Path, hostile: Path) -> None:
    opened = [showing.open_loop(folder) for folder in (loop, loop, hostile)]
    rows = [compare.row(shown) for shown in opened]
    (mean,) = compare.means(rows)
    assert (mean.loops, mean.gain.n) == (3, 2)
    assert mean.gain.mean == pytest.approx(opened[0].state.final["gain"]["mean"], abs=1e-4)


def test_loops_of_different_kinds_have_none_and_are_told_apart(loop: Path) -> None:
    row = compare.row(showing.open_loop(loop))
    other = {**row, "preset": "tiny", "secret_commitment": "other"}
    assert [mean.gain for mean in compare.means([row, other])] == [None, None]
    assert len(compare.cautions([], [row, other])) == 2


def test_a_loop_that_cannot_be_shown_is_left_out_of_a_comparison_and_said(loop: Path, tmp_path: Path) -> None:
    strange = tmp_path / "strange-1"
    with Ledger.create(strange) as ledger:
        ledger.append("generation.started", {"generation": "x", "parent": 3})
    ran = CliRunner().invoke(app, ["compare", str(loop), str(strange), "--json"])
    assert ran.exit_code == 0, ran.output
    assert "left out" in ran.stderr
    assert [row["loop"] for row in json.loads(ran.stdout)["loops"]] == [loop.name]


@pytest.mark.parametrize("defended", [True, False])
def test_a_loop_with_the_id_of_another_does_not_take_its_place_in_a_comparison(
    loop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, defended: bool
) -> None:
    with another_user():
        posing = made_loop.write(tmp_path, 1, seed=3)
        assert showing.open_loop(posing).state.loop_id == showing.open_loop(loop).state.loop_id
    if not defended:
        monkeypatch.setattr(compare, "require_same", lambda one, other: None)
    ran = CliRunner().invoke(app, ["compare", str(posing), str(loop), "--json"])
    if defended:
        assert ran.exception.code == "loops_of_one_id"
        assert str(posing) in ran.exception.found
    else:
        (row,) = json.loads(ran.stdout)["loops"]
        assert row["generations"] == 1, "the stranger's, and ours is not told of"


def test_the_comparison_is_printed_and_given_as_json(loop: Path) -> None:
    ran = CliRunner().invoke(app, ["compare", str(loop)])
    assert ran.exit_code == 0, ran.output
    assert "positive control" in ran.output
    ran = CliRunner().invoke(app, ["compare", str(loop), str(loop), "--json"])
    (row,) = json.loads(ran.output)["loops"]  # named twice, it counts once
    assert (row["loop"], row["unit"]) == (loop.name, "bits per byte")
