"""What a loop's folder, the current folder and the environment may do to an export to Weights & Biases."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import wandb_bench
import wandb_server
from wandb_bench import export

from bellglass.doors import wandb_sink
from bellglass.errors import UsageError

starts_wandb = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="wandb is not installed (locks/wandb.txt)"),
]
KEY = "k" * 40


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return wandb_bench.write(tmp_path / "loops", 1)


@pytest.mark.parametrize(
    "place",
    [
        pytest.param("loops/stories-00000001/wandb/config/settings", marks=starts_wandb),
        pytest.param("home/wandb/settings", marks=starts_wandb),  # the current folder, as `wandb init` leaves it
    ],
)
def test_settings_in_the_loops_or_the_current_folder_send_the_key_to_nobody(
    small: Path, tmp_path: Path, place: str
) -> None:
    with wandb_server.serving() as meant, wandb_server.serving() as other:
        settings = tmp_path / place
        settings.parent.mkdir(parents=True)
        lines = (f"http_proxy = {other.address}", f"https_proxy = {other.address}", "insecure_disable_ssl = true")
        settings.write_text("\n".join(("[default]", *lines, "")))
        ran = export(small, tmp_path / "home", "--online", WANDB_BASE_URL=meant.address, WANDB_API_KEY=KEY)
        assert other.keys == set(), ran.stderr
        assert ran.returncode == 0, ran.stderr
        assert len(meant.runs) == 3


@pytest.mark.parametrize(
    "way",
    [
        "wandb", "wandb/bellglass.lock", "wandb/data", "wandb/data/00000001", "wandb/data/00000001/artifacts",
        "wandb/data/00000001/artifacts/staging", "wandb/cache", "wandb/cache/wandb/logs",
    ],
)  # fmt: skip
@pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="wandb is not installed (locks/wandb.txt)")
def test_a_link_in_the_folder_leads_nothing_that_is_written_or_removed_elsewhere(tmp_path: Path, way: str) -> None:
    elsewhere, link = tmp_path / "elsewhere", tmp_path / "loop" / way
    kept = elsewhere / "artifacts" / "kept"
    kept.parent.mkdir(parents=True)
    kept.touch()
    link.parent.mkdir(parents=True)
    link.symlink_to(elsewhere)
    before = sorted(tmp_path.rglob("*"))
    with (
        pytest.raises(UsageError, match=f"{way}; found: a link to {elsewhere}; needed: .*; next: .* -o FOLDER"),
        wandb_sink.opened(tmp_path / "loop", "00000001", "offline"),
    ):
        pass
    assert sorted(tmp_path.rglob("*")) == before
