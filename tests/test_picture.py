"""The picture: well-formed, escaped, every generation in it, and no outlier that hides the rest."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import get_args
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bellglass.show import picture
from bellglass.show.picture import Node, lineage_svg
from bellglass.steps.adopt import Scaffold

STARTER = Node(0, None, 2.31, 2.35, 2.30, 2.40, "starter")
ADOPTED = Node(1, 0, 2.10, 2.12, 2.07, 2.17, "adopt", ("optimiser", "scaffold"), "inherited")
REJECTED = Node(2, 1, 1.70, 2.16, 2.10, 2.22, "reject", ("data", "scaffold"), "not inherited")
FAILED = Node(3, 1, None, None, None, None, "failed", ("architecture",), "unchanged")
SVG = "{http://www.w3.org/2000/svg}"


def drawn(*nodes: Node, title: str = "stories") -> ElementTree.Element:
    return ElementTree.fromstring(lineage_svg(nodes, title=title, unit="bits per byte"))


def tips(root: ElementTree.Element) -> list[str]:
    return [str(title.text) for title in root.iter(f"{SVG}title")][1:]


def words(root: ElementTree.Element) -> list[str]:
    return [str(text.text) for text in root.iter(f"{SVG}text")]


def test_every_generation_shows_claim_beside_verdict_and_its_fate() -> None:
    root = drawn(STARTER, ADOPTED, REJECTED, FAILED)
    assert tips(root) == [
        "generation 0, starter: verdict 2.350 [2.300, 2.400], claim 2.310 bits per byte",
        "generation 1, adopt: verdict 2.120 [2.070, 2.170], claim 2.100 bits per byte; changed optimiser, scaffold",
        "generation 2, reject: verdict 2.160 [2.100, 2.220], claim 1.700 bits per byte; changed data, scaffold",
        "generation 3, failed: no verdict, no claim bits per byte; changed architecture",
        "generation 1, scaffold inherited",
        "generation 2, scaffold not inherited",
        "generation 3, scaffold unchanged",
    ]
    assert {"starter", "1 adopted", "2 rejected", "3 failed", "optimiser", "scaffold", "architecture"} <= set(
        words(root)
    )


def test_better_stands_lower() -> None:
    circles = [float(circle.attrib["cy"]) for circle in drawn(STARTER, ADOPTED).iter(f"{SVG}circle")][1:]
    assert circles[1] > circles[0]


def test_fates_differ_in_shape_and_not_only_in_colour() -> None:
    def shapes(node: Node) -> set[str]:
        marked = drawn(STARTER, replace(node, scaffold="")).findall(f"{SVG}g")[-1]
        return {child.tag.removeprefix(SVG) for child in marked} - {"title", "path"}

    assert shapes(ADOPTED) == {"circle"}
    assert shapes(REJECTED) == {"rect"}
    assert shapes(FAILED) == set()  # a cross is a path


def test_each_decision_on_a_scaffold_has_a_mark_of_its_own_below_all_trainers() -> None:
    decided = [Node(n, 0, 2.0, 2.1, 2.0, 2.2, "adopt", (), word) for n, word in enumerate(get_args(Scaffold), start=1)]
    root = drawn(STARTER, *decided, Node(9, 0, 2.0, 2.1, 2.0, 2.2, "adopt", (), "a word of nobody"))
    rows = [g for g in root.findall(f"{SVG}g") if any("scaffold" in str(t.text) for t in g.findall(f"{SVG}title"))]
    marks = {tuple((path.attrib["d"], path.attrib.get("fill")) for path in g.findall(f"{SVG}path")) for g in rows}
    assert len(rows) == len(marks) == len(decided)
    below = {float(re.findall(r"[\d.]+", g.attrib["transform"])[1]) for g in rows}
    assert min(below) > max(float(circle.attrib["cy"]) for circle in root.iter(f"{SVG}circle"))
    assert set(get_args(Scaffold)) <= set(words(root)), "the legend"


def test_an_adopted_branch_is_solid_and_a_rejected_one_dashed() -> None:
    text = lineage_svg([STARTER, ADOPTED, REJECTED], title="t")
    branches = [line for line in text.splitlines() if line.startswith("<line") and picture.VERDICT in line]
    assert ["dasharray" in line for line in branches] == [False, True]


def test_text_from_outside_is_escaped() -> None:
    evil = "</text><script>alert('x')</script>&\x00\x1b[31m\"'"
    text = lineage_svg([STARTER, Node(1, 0, 1.0, 1.0, 0.9, 1.1, "adopt", (evil,))], title=evil, unit=evil)
    root = ElementTree.fromstring(text)
    assert not list(root.iter(f"{SVG}script"))
    assert "<script" not in text
    assert not re.search(r"[\x00-\x09\x0b-\x1f]", text)


def test_it_loads_nothing_and_paints_no_background() -> None:
    text = lineage_svg([STARTER, ADOPTED], title="t")
    assert not re.search(r"href|url\(|@import|<image|<style|on\w+=", text)
    assert not re.search(r"#(?:fff|000)\b|white|black", text, re.IGNORECASE)


def luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("page", ["#ffffff", "#0d1117"])
@pytest.mark.parametrize("ink", [picture.TEXT, picture.VERDICT, picture.CLAIM, picture.SCAFFOLD])
def test_every_ink_is_seen_on_light_and_dark_pages(ink: str, page: str) -> None:
    light, dark = sorted((luminance(ink), luminance(page)), reverse=True)
    assert (light + 0.05) / (dark + 0.05) >= 3.0


def test_an_absurd_claim_does_not_hide_what_was_measured() -> None:
    liar = Node(2, 1, -1e9, 2.1, 2.0, 2.2, "reject")
    circles = [float(circle.attrib["cy"]) for circle in drawn(STARTER, ADOPTED, liar).iter(f"{SVG}circle")][1:]
    assert circles[1] - circles[0] > 50


def test_a_hundred_generations_still_fit() -> None:
    nodes = [STARTER] + [Node(g, g - 1, 2.0, 2.0 - g / 100, None, None, "adopt", ("data",)) for g in range(1, 101)]
    root = drawn(*nodes)
    assert float(root.attrib["width"]) < 2500
    assert len(tips(root)) == 101


claims = st.none() | st.floats(allow_nan=True, allow_infinity=True)  # the guest's word
ends = st.none() | st.floats(-1e6, 1e6) | st.sampled_from([math.inf, -math.inf, math.nan])


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(claims, st.none() | st.floats(-1e6, 1e6), ends, ends, st.sampled_from(["adopt", "reject"])),
        max_size=8,
    ),
    st.text(max_size=20),
)
def test_whatever_the_rows_hold_it_is_valid_xml_within_its_frame(rows: list[tuple], title: str) -> None:
    nodes = [STARTER] + [Node(g, g - 1, *row) for g, row in enumerate(rows, start=1)]
    root = drawn(*nodes, title=title)
    height = float(root.attrib["height"])
    for circle in root.iter(f"{SVG}circle"):
        assert 0 <= float(circle.attrib["cy"]) <= height
    assert not any("nan" in v or "inf" in v for e in root.iter() for v in e.attrib.values() if e.tag != f"{SVG}svg")
    assert math.isfinite(height)


def test_an_empty_lineage_is_a_picture_too() -> None:
    assert drawn().attrib["role"] == "img"
