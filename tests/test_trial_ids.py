"""What trials are called: every name says what it was made of, and these spellings stay."""

from __future__ import annotations

import pytest

from bellglass import trial_ids

SPELLED = {
    trial_ids.calibration(2, 3): "cal-2x3",
    trial_ids.calibration(2, 2, "comment"): "cal-2x2-comment",
    trial_ids.explore(4, 7, "1a2b3c4d5e6f"): "g4-explore-7-1a2b3c4d",
    trial_ids.pair(4, 0, "child"): "g4-pair-0-child",
    trial_ids.recheck(12, 3, "parent"): "g12-recheck-3-parent",
    trial_ids.panel(4, 1): "g4-panel-1",
    trial_ids.final(2, "champion"): "final-pair-2-champion",
}


def test_the_spelling_stays_because_seeds_and_documents_follow_from_it() -> None:
    assert [*SPELLED] == [*SPELLED.values()]


@pytest.mark.parametrize(
    ("trial_id", "generation", "side", "partner", "shared"),
    [
        ("cal-2x3", 0, "", "", "cal-2x3"),
        ("g4-explore-7-1a2b3c4d", 4, "", "", "g4-explore"),
        ("g12-pair-0-child", 12, "child", "g12-pair-0-parent", "g12-pair-0"),
        ("g12-pair-0-parent", 12, "parent", "", "g12-pair-0"),
        ("g4-panel-1", 4, "", "", "g4-panel-1"),
        ("final-pair-2-champion", 0, "champion", "final-pair-2-starter", "final-pair-2"),
    ],
)
def test_what_a_name_says(trial_id: str, generation: int, side: str, partner: str, shared: str) -> None:
    assert trial_ids.generation_of(trial_id) == generation
    assert trial_ids.side_of(trial_id) == side
    assert trial_ids.partner(trial_id) == partner
    assert trial_ids.shared(trial_id) == shared


def test_a_calibrations_trial_has_a_place_and_its_edits_have_none() -> None:
    assert trial_ids.place("cal-2x13") == (2, 13)
    assert trial_ids.place("cal-2x2-comment") is None
    assert trial_ids.place("g1-panel-0") is None


def test_an_edit_of_the_starter_has_its_seeds() -> None:
    assert trial_ids.seeds_apart("cal-2x3-comment") == trial_ids.seeds_apart("cal-2x3") == ("cal-2", "cal-3")
    assert trial_ids.seeds_apart("g1-pair-0-child") is None


def test_pairs_and_panels_never_share_documents() -> None:
    assert trial_ids.documents_of("g4-recheck-0-child") == "g4-0"  # it is compared with that pair
    assert trial_ids.documents_of("g4") == "g4-"  # in a damaged ledger; a page shows it all the same
    drawn = [
        trial_ids.documents_of(name) for name in ("g4-pair-0-parent", "g4-pair-0-child", "g4-panel-0", "g40-pair-0")
    ]
    assert drawn == ["g4-0", "g4-0", "panel-g4-0", "g40-0"]


def test_a_generations_names_are_its_own_alone() -> None:
    names = [
        "g4-pair-0-child",
        "g40-pair-0-child",
        "cal-0x0",
        "final-pair-0-starter",
        "g4",
        "g04-panel-0",
        "g٤-panel-0",
    ]
    assert [trial_ids.generation_of(name) for name in names] == [4, 40, 0, 0, 0, 0, 0]
    assert [trial_ids.is_final(name) for name in names] == [False, False, False, True, False, False, False]
