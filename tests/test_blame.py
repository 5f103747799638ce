"""Whose fault a fault is: the whole table, from what the host measured."""

from __future__ import annotations

import pytest

from bellglass.blame import BY_ANYBODY, blame
from bellglass.blame import Seen as S
from bellglass.records import GUEST_FAULTS

FREE, BUSY = 0.9, 0.04  # of a core, that a process of ours got


@pytest.mark.parametrize(
    ("seen", "owner"),
    [
        (S("timeout", used=2.4, needed=3.0, wall=60.0, share=BUSY), "machine"),
        (S("timeout", used=2.4, needed=3.0, wall=60.0, share=FREE), "bundle"),  # it slept
        (S("timeout", used=2.4, needed=15.0, wall=60.0, share=0.3), "machine"),  # 18 s were to be had: not enough
        (S("timeout", share=FREE), "bundle"),  # it never asked for data
        (S("timeout", share=BUSY), "machine"),
        (S("timeout"), "unknown"),
        (S("stalled", share=FREE), "bundle"),
        (S("stalled", share=BUSY), "machine"),
        (S("stalled", share=FREE, late=20.0), "machine"),  # the driver was frozen, so the guest's lease ran out
        (S("lost", share=FREE), "unknown"),
        (S("lost", share=BUSY), "machine"),
        (S("lost", signal=9, share=FREE), "machine"),
        (S("lost", meddled="pause", share=FREE), "machine"),
        (S("lost", engine="no answer"), "machine"),
        (S("crashed", share=BUSY, late=20.0), "bundle"),  # its code ended, whatever the machine did
        (S("crashed", meddled="kill"), "machine"),
        (S("crashed", machine_memory=True), "machine"),
        (S("crashed", full=True), "machine"),
        (S("memory", ready=False), "machine"),  # no bundle was there yet
        (S("lost", ready=False), "machine"),
    ],
)
def test_what_was_measured_says_whose_fault_it_is(seen: S, owner: str) -> None:
    assert blame(seen)[0] == owner


@pytest.mark.parametrize("fault", [fault for fault in GUEST_FAULTS if fault not in BY_ANYBODY])
def test_what_only_a_bundle_can_do_is_its_own_on_any_machine(fault: str) -> None:
    assert blame(S(fault, share=BUSY, late=60.0, engine="silent", meddled="pause", signal=9)) == ("bundle", fault)


def test_the_sentence_says_what_was_short() -> None:
    _, sentence = blame(S("timeout", used=2.4, needed=3.0, wall=60.0, share=BUSY))
    assert sentence == "this machine is too busy: the guest got 2.4 of its 3 CPU-seconds in 60 s"
