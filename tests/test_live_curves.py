"""Curves of trainings under way: seen while they grow, gone when they end, and nowhere else than in their folder."""

from __future__ import annotations

import json
import os
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import made_loop
import pytest

from bellglass.curves import Curves
from bellglass.show.following import Following
from bellglass.show.showing import open_loop
from bellglass.store import live_curves
from bellglass.store.ledger import Ledger
from bellglass.store.live_curves import LiveCurves

POINTS = {"loss": [(0, 0.0, 3.0), (10, 0.5, 2.5)]}


def curves(points: int = 2) -> Curves:
    made = Curves()
    for step, seconds, value in POINTS["loss"][:points]:
        made.take("loss", step, seconds, value)
    return made


@pytest.fixture
def live(tmp_path: Path) -> LiveCurves:
    return LiveCurves(tmp_path / "live")


def test_what_was_reported_is_read_until_the_training_ends(live: LiveCurves) -> None:
    assert live.read(["g1-explore-0"]) == {}
    live.put("g1-explore-0", curves())
    assert live.read(["g1-explore-0", "g1-explore-1"]) == {"g1-explore-0": POINTS}
    live.drop("g1-explore-0")
    assert live.read(["g1-explore-0"]) == {}


def test_a_chatty_trainer_is_written_once_a_second(live: LiveCurves, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(live_curves, "time", SimpleNamespace(monotonic=lambda: now[0]))
    for passed, points in ((0.0, 1), (0.9, 1), (0.2, 2)):
        now[0] += passed
        live.put("cal-0x0", curves(1 if passed == 0.0 else 2))
        assert len(live.read(["cal-0x0"])["cal-0x0"]["loss"]) == points


def test_every_change_has_another_stamp(live: LiveCurves) -> None:
    stamps = [live.stamp()]
    for change in (lambda: live.put("cal-0x0", curves()), lambda: live.drop("cal-0x0")):
        change()
        stamps.append(live.stamp())
    assert stamps[0] != stamps[1] != stamps[2]


def test_what_a_crash_left_is_swept(live: LiveCurves, tmp_path: Path) -> None:
    live.put("cal-0x0", curves())
    (tmp_path / "live" / ".cal-0x1.77").write_text("half")
    live.sweep()
    assert list((tmp_path / "live").iterdir()) == []


@pytest.mark.parametrize("name", ["../loop", "/etc/passwd", "", "a" * 99, "a.b", "\0"])
def test_an_id_that_leads_elsewhere_is_no_trial(live: LiveCurves, tmp_path: Path, name: str) -> None:
    (tmp_path / "loop.json").write_text(json.dumps(POINTS))
    live.put("cal-0x0", curves())
    assert live.read([name]) == {}


def test_nothing_is_read_through_a_link(live: LiveCurves, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "cal-0x1.json").write_text(json.dumps(POINTS))
    (tmp_path / "live").mkdir()
    (tmp_path / "live" / "cal-0x1.json").symlink_to(other / "cal-0x1.json")
    assert live.read(["cal-0x1"]) == {}


@pytest.mark.parametrize(
    "text", ["", "[]", '{"loss": 3}', '{"loss": [[0, 0]]}', '{"loss": [[0, 0, "x"]]}', '{"loss": [[0, 0, NaN]]}', "{"]
)
def test_what_is_no_curve_is_nothing(live: LiveCurves, tmp_path: Path, text: str) -> None:
    live.put("cal-0x0", curves())
    (tmp_path / "live" / "cal-0x0.json").write_text(text)
    (tmp_path / "live" / "cal-0x1.json").mkdir()
    files = len(os.listdir("/dev/fd"))
    assert live.read(["cal-0x0", "cal-0x1"]) == {}
    assert len(os.listdir("/dev/fd")) == files


def test_a_page_is_told_of_the_trainings_under_way_and_of_no_other(tmp_path: Path) -> None:
    folder = made_loop.write(tmp_path, 1, waits=True)
    live = open_loop(folder).live
    ask = {"calls": 0, "tokens_in": 0, "tokens_out": 0, "train_seconds": 16.0, "usd": 0.0}
    with closing(Ledger.open(folder, write=True)) as ledger, closing(Following(folder)) as followed:
        order = {"trial_id": "g2-explore-0", "bundle": "0" * 40, "purpose": "explore", "generation": 2}
        budget = {"kind": "cpu_seconds", "amount": 15.0, "wall_seconds": 180.0}
        ledger.append("trial.intended", {**order, "budget": budget, "ask": ask})
        before = followed.news()
        assert followed.live_curves() == {"series": []}
        for name in ("g2-explore-0", "g2-explore-1"):
            live.put(name, curves())
        assert followed.news() != before
        (line,) = followed.live_curves()["series"]
        assert line == {"trial": "g2-explore-0", "name": "loss", "points": [[0, 3.0], [10, 2.5]]}
