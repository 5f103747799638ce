"""What a loop's folder, the current folder and the environment may do to an export to Weights & Biases."""

from __future__ import annotations

import importlib.util
import os
import re
from contextlib import nullcontext
from pathlib import Path

import pytest
import wandb_bench
import wandb_server
from wandb_bench import export, inspect

from bellglass.doors import wandb_sink
from bellglass.errors import SetupError, UsageError
from bellglass.ports import Opening

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


@starts_wandb[0]
@starts_wandb[1]
def test_no_other_run_sweep_or_launch_of_the_person_has_a_part_in_the_export(small: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    for name in ("config-defaults", "sweep", "paths"):
        (home / f"{name}.yaml").write_text(f"left_by_{name}: {{value: 1}}\ngeneration: {{value: 77}}\n")
    (small / ".wandb").mkdir()
    left = {"WANDB_LAUNCH": "true", "WANDB_CONFIG": '{"left_by_launch": 1}', "WANDB_SWEEP_PARAM_PATH": "sweep.yaml"}
    left |= {"WANDB_CONFIG_PATHS": '["paths.yaml"]', "WANDB_X_SYNC_DIR_SUFFIX": "left", "WANDB_USE_DOT_WANDB": "true"}
    for _ in range(2):
        ran = export(small, home, **left)
        assert ran.returncode == 0, ran.stderr
    assert list((small / ".wandb").iterdir()) == []
    found = inspect(small / "wandb", home)  # which refuses a run that is there twice, and another name of a folder
    assert set(found) == {"00000001-loop", "00000001-gen-000", "00000001-gen-001"}
    assert {key for told in found.values() for key in told.config if key.startswith("left")} == set()
    assert {run_id: told.config.get("generation") for run_id, told in found.items() if "gen" in run_id} == {
        "00000001-gen-000": 0,
        "00000001-gen-001": 1,
    }


def test_the_page_names_every_variable_that_wandb_gets() -> None:
    page = (wandb_bench.ROOT / "docs" / "wandb.md").read_text()
    table = page[page.index("| variable | |") :]
    named = {name for row in table.splitlines() if row[:1] == "|" for name in re.findall(r"`(WANDB_\w+)`", row)}
    ours = {"WANDB_MODE", "WANDB_PROJECT", "WANDB_ENTITY"}
    folders = {f"WANDB_{name}" for name in ("DIR", "DATA_DIR", "CACHE_DIR", "CONFIG_DIR")}
    assert named - ours - folders == set(wandb_sink.HONOURED)


@pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="wandb is not installed (locks/wandb.txt)")
def test_the_environment_and_the_current_folder_are_as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_LAUNCH", "true")
    before, here = dict(os.environ), Path.cwd()
    with wandb_sink.opened(tmp_path, "00000001", "offline"):
        assert "WANDB_LAUNCH" not in os.environ
        private = Path(os.environ["WANDB_CONFIG_DIR"])
        assert not private.is_relative_to(tmp_path / "wandb")
        assert list(private.iterdir()) == []
    assert (dict(os.environ), Path.cwd()) == (before, here)
    assert not private.exists()


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


@pytest.mark.parametrize("asked", ["offline", "online", None])
@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("WANDB_FINISH_TIMEOUT", "abc"), ("WANDB_INIT_TIMEOUT", "nan"), ("WANDB_HTTP_TIMEOUT", "-1"),
        ("WANDB_BASE_URL", "http://[::1"), ("WANDB_BASE_URL", "http://host:port"), ("WANDB_BASE_URL", "wandb.example"),
    ],
)  # fmt: skip
def test_a_variable_that_wandb_cannot_read_is_one_error_before_anything_is_done(
    variable: str, value: str, asked: str | None
) -> None:
    with pytest.raises(UsageError) as raised:
        wandb_sink.mode_from(asked, {variable: value, "WANDB_API_KEY": KEY})
    assert (raised.value.thing, raised.value.found) == (variable, repr(value))
    assert raised.value.needed
    assert raised.value.next_command.startswith(f"export {variable}=")


def test_a_server_in_wandbs_settings_file_that_is_no_address_is_named(tmp_path: Path) -> None:
    (tmp_path / "settings").write_text("[default]\nbase_url = http://[::1\n")
    with pytest.raises(UsageError, match="base_url in W&B's settings file"):
        wandb_sink.mode_from("offline", {"WANDB_CONFIG_DIR": str(tmp_path)})


def test_what_nobody_told_wandb_is_not_checked() -> None:
    assert wandb_sink.mode_from(None, {"WANDB_MODE": "disabled", "WANDB_FINISH_TIMEOUT": "abc"}) == "disabled"
    assert wandb_sink.seconds_from({}) == wandb_sink.UPLOAD_SECONDS
    assert wandb_sink.seconds_from({"WANDB_FINISH_TIMEOUT": "2.5"}) == 2.5
    assert wandb_sink.server_and_key({"WANDB_BASE_URL": "http://[::1]:8080"})[0] == "http://[::1]:8080"


@starts_wandb[0]
@starts_wandb[1]
@pytest.mark.parametrize("chars", [10, 100_000])  # a record within a block of the log, and one over several
@pytest.mark.parametrize("lost", [0, 1, 60])
def test_an_offline_run_whose_log_has_no_end_is_no_success(tmp_path: Path, lost: int, chars: int) -> None:
    """As a full disk leaves it: wandb itself then says nothing."""
    wandb = pytest.importorskip("wandb")
    with (
        nullcontext() if lost == 0 else pytest.raises(SetupError, match=r"\.wandb; .*; needed: free disk space"),
        wandb_sink.opened(tmp_path, "00000001", "offline") as sink,
    ):
        opening = Opening("00000001-loop", "loop", "group", "loop", {"long": "x" * chars}, ())
        sink.run(opening).finish({"longer": "y" * chars}, {})
        wandb.teardown()  # it writes to the end
        (log,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
        os.truncate(log, log.stat().st_size - lost)


def test_only_the_last_whole_record_of_a_log_counts() -> None:
    def part(kind: int, content: bytes) -> bytes:
        return bytes(4) + len(content).to_bytes(2, "little") + bytes([kind]) + content

    log = bytes(7) + part(1, b"one") + part(2, b"tw") + part(3, b"") + part(4, b"o")
    assert wandb_sink.last_record(log) == b"two"
    assert [wandb_sink.last_record(log[:-cut]) for cut in range(1, 8)] == [b""] * 7
    full = bytes(7) + part(1, b"x" * (2**15 - 7 - 7 - 6))  # six bytes are left of the block: too few for a header
    assert wandb_sink.last_record(full + bytes(6) + part(1, b"next")) == b"next"
    assert wandb_sink.last_record(log + bytes(30)) == wandb_sink.last_record(b"") == b""
