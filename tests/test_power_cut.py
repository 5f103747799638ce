"""A power cut at any moment leaves whole loops, that are still one's own, or none."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import time
from pathlib import Path

import power_cut
import pytest

CUTS = int(os.environ.get("BELLGLASS_POWER_CUTS", "10"))
LACKING = [name for name in power_cut.NEEDED if shutil.which(name) is None]


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a disk")
@pytest.mark.skipif(bool(LACKING), reason=f"not installed: {', '.join(LACKING)}")
def test_no_power_cut_breaks_a_loop(tmp_path: Path) -> None:
    try:
        with power_cut.pool(tmp_path):
            pass
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no disk can be mounted here: {error.stderr.decode(errors='replace').strip()[:200]}")
    rng, seen, broken = random.Random(1), 0, []
    with (
        power_cut.pool(tmp_path) as pool,
        power_cut.disk(pool, tmp_path / "disk") as image,
        power_cut.writer(tmp_path / "disk", tmp_path),
    ):
        for cut in range(CUTS):
            time.sleep(rng.uniform(0.05, 0.8))
            count, lines = power_cut.after_cut(image, tmp_path)
            seen += count
            broken += [f"cut {cut}: {line}" for line in lines]
    assert broken == []
    assert seen, "no cut found a loop"
