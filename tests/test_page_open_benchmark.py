"""benchmarks/page_open.py: its page says when the machine was too busy to believe it."""

from __future__ import annotations

import pytest
from benchmark_scripts import load

bench = load("page_open")


@pytest.mark.parametrize(("busy", "said"), [(0.9, False), (3.9, True)])
def test_the_load_is_told_where_other_work_ran_beside(busy: float, said: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench.os, "getloadavg", lambda: (0.0, busy, 0.0))
    text = bench.text([bench.Figures(10, 298, 0.01, 0.004, 0.15, [0.4], [0.3], 1042)], 7)
    told = "what is new. The machine's load was 3.9: other work ran beside, so these are too slow.\n"
    assert ("load" in text, told in text) == (said, said)
