"""From the gate's, the boot check's and a person's decisions to the next champion."""

from __future__ import annotations

import pytest

from bellglass.steps.adopt import Facts, decide_adoption, next_bundle

GOOD = {
    "trainer_changed": True,
    "scaffold_changed": True,
    "gate": "adopt",
    "gate_why": "gain +0.1",
    "rule": "ride",
    "boot_ok": True,
    "boot_why": "it works",
    "review": "not needed",
}
PARENT = {"trainer/train.py": b"old", "scaffold/improve.py": b"old"}
CHILD = {"trainer/train.py": b"new", "scaffold/improve.py": b"new", "scaffold/tools/more.py": b"new"}


@pytest.mark.parametrize(
    ("change", "trainer", "scaffold"),
    [
        ({}, "adopted", "inherited"),
        ({"scaffold_changed": False}, "adopted", "unchanged"),
        ({"boot_ok": False}, "adopted", "failed boot check"),
        ({"gate": "reject"}, "rejected", "not inherited"),
        ({"trainer_changed": False, "gate": None}, "unchanged", "not inherited"),
        ({"gate": "equal"}, "rejected", "not inherited"),
        ({"gate": "equal", "rule": "neutral"}, "rejected", "inherited"),
        ({"gate": "reject", "rule": "neutral"}, "rejected", "not inherited"),
        ({"trainer_changed": False, "gate": None, "rule": "neutral"}, "unchanged", "inherited"),
        ({"gate": "equal", "rule": "neutral", "boot_ok": False}, "rejected", "failed boot check"),
        ({"gate": "equal", "rule": "neutral", "review": "trainer"}, "rejected", "not inherited"),
        ({"gate": "equal", "rule": "neutral", "review": "reject"}, "rejected", "not inherited"),
        ({"review": "approve"}, "adopted", "inherited"),
        ({"review": "trainer"}, "adopted", "not inherited"),
        ({"review": "reject"}, "rejected", "not inherited"),
        ({"review": "approve", "gate": "reject"}, "rejected", "not inherited"),
    ],
)
def test_trainer_and_scaffold_each_have_their_decision(change: dict, trainer: str, scaffold: str) -> None:
    adoption = decide_adoption(Facts(**{**GOOD, **change}))
    assert (adoption.trainer, adoption.scaffold) == (trainer, scaffold)
    bundle = next_bundle(adoption, PARENT, CHILD)
    assert bundle["trainer/train.py"] == (b"new" if trainer == "adopted" else b"old")
    assert ("scaffold/tools/more.py" in bundle) == (scaffold == "inherited")


def test_the_reason_names_what_the_boot_check_missed() -> None:
    adoption = decide_adoption(Facts(**{**GOOD, "boot_ok": False, "boot_why": "it never asked the model"}))
    assert adoption.why == "gain +0.1; its scaffold failed the boot check: it never asked the model"
