"""What Weights & Biases would be told, without wandb: names nobody can misuse, the page's numbers, the mode."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import made_loop
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bellglass.commands import to_wandb
from bellglass.doors import wandb_sink
from bellglass.errors import SetupError, UsageError
from bellglass.paths import install_command
from bellglass.records import Json
from bellglass.show import showing, wandb_rows

KEY = "k" * 40


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> Json:
    return showing.open_loop(made_loop.write(tmp_path_factory.mktemp("made"), 8)).document()


def row(document: Json, number: int) -> dict[str, Json]:
    (gen,) = (gen for gen in document["generations"] if gen["n"] == number)
    return wandb_rows.row_of(gen, document["loop"]["unit"], {})


@given(st.lists(st.text(max_size=200), unique=True, max_size=16))
def test_every_metric_of_a_guest_has_a_key_of_its_own_below_claim(names: list[str]) -> None:
    keys = wandb_rows.claim_keys(names)
    assert set(keys) == set(names)
    assert len(set(keys.values())) == len(names)
    for key in keys.values():
        assert key.startswith("claim/")
        assert key.removeprefix("claim/").replace("-", "_").replace("_", "a").isalnum()


@given(st.text(max_size=300))
def test_no_name_leaves_the_folder_or_breaks_an_id(name: str) -> None:
    safe = wandb_rows.safe(name)
    assert 0 < len(safe) <= 100
    assert safe.isascii()
    assert safe.replace("-", "a").replace("_", "a").isalnum()


def test_texts_are_spelled_out_and_cut() -> None:
    hostile = {"a\u202eb": ["\x1b[31mred", "\ud800", "x" * 5000], "n": 1.5, "none": None}
    told = wandb_rows.plain(hostile)
    assert list(told) == ["a\\u{202e}b", "n", "none"]
    assert told["a\\u{202e}b"][:2] == ["\\u{1b}[31mred", "\\u{d800}"]
    assert len(told["a\\u{202e}b"][2]) == wandb_rows.TEXT_CHARS
    assert (told["n"], told["none"]) == (1.5, None)


def test_what_nobody_measured_has_no_key(document: Json) -> None:
    failed = row(document, 5)  # no successor
    assert failed["decision/trainer"] == "failed"
    assert not any(key.startswith(("verdict/", "claim/", "claimed/", "gap/")) for key in failed)
    assert None not in failed.values()


def test_a_row_holds_the_pages_numbers(document: Json) -> None:
    gen = next(gen for gen in document["generations"] if gen["fitted"] and gen["gain"])
    told = row(document, gen["n"])
    for key, interval in {
        "verdict/bits_per_byte": gen["raw"], "verdict/above_floor": gen["score"], "verdict/gain": gen["gain"],
        "gap/select_confirm": gen["fitted"],
    }.items():  # fmt: skip
        assert [told[key], told[f"{key}_low"], told[f"{key}_high"]] == [interval[e] for e in ("mean", "low", "high")]
    assert told["claimed/bits_per_byte"] == gen["claim"]
    assert told["gap/claim_verdict"] == gen["claim_gap"]
    assert {key: told[f"skill/{key}"] for key in gen["skills"]} == gen["skills"]
    assert {key: told[f"cost/{key}"] for key in ("train_seconds", "usd")} == {
        key: gen["cost"][key] for key in ("train_seconds", "usd")
    }
    assert told["decision/adopted"] == (gen["trainer"] == "adopted")


def test_below_claim_are_the_trainers_own_names_alone(document: Json) -> None:
    columns, trials = document["trials"]["columns"], document["trials"]["rows"]
    unit = document["loop"]["unit"]
    told = [wandb_rows.row_of(gen, unit, {}) for gen in document["generations"]]
    told += [wandb_rows.row_of_starter(document, {})]
    told += [wandb_rows.verdict_of_trial(trial, columns, unit) for trial in trials]
    assert not [key for found in told for key in found if key.startswith("claim/")]
    assert sum("claimed/bits_per_byte" in found for found in told) > len(trials)


def test_money_that_nobody_knows_is_not_nought(document: Json) -> None:
    gen = {**document["generations"][0], "cost": {**document["generations"][0]["cost"], "usd": None}}
    assert "cost/usd" not in wandb_rows.row_of(gen, "bits per byte", {})


def test_every_run_says_what_a_positive_control_is(document: Json) -> None:
    assert "positive control" in wandb_rows.notes(document)
    assert "positive control" in " ".join(wandb_rows.about_loop(document)["said"])
    assert wandb_rows.about_loop(document)["head"] == document["loop"]["head"]
    assert len(document["loop"]["head"]) == 64


@pytest.mark.parametrize(
    ("why", "code"), [("tripwire", 6), ("failed", 3), ("finished", 0), ("bound", 0), ("waiting", 0), ("stopped", 0)]
)
def test_only_a_loop_that_was_halted_has_an_exit_code(document: Json, why: str, code: int) -> None:
    assert wandb_rows.exit_code({**document, "ended": {"why": why}}) == code
    assert wandb_rows.exit_code({**document, "ended": None}) == 0


def test_the_revealed_secret_is_told_to_nobody(document: Json) -> None:
    secret = made_loop.Maker(8).secret.hex()
    assert document["secret_revealed"]
    told = [wandb_rows.about_loop(document), wandb_rows.end_of(document), wandb_rows.generations_table(document)]
    assert secret not in repr(told)


def test_curves_end_beside_the_verdict() -> None:
    points = {"loss": [(0, 0.0, 3.0), (10, 1.0, 2.0)], "claim_bits": [(10, 1.0, 2.5)]}
    rows = wandb_rows.training(points, {"verdict/bits_per_byte": 2.6})
    assert rows == [
        {"trainer/step": 0, "trainer/seconds": 0.0, "claim/loss": 3.0},
        {
            "trainer/step": 10, "trainer/seconds": 1.0, "claim/claim_bits": 2.5, "claim/loss": 2.0,
            "verdict/bits_per_byte": 2.6,
        },
    ]  # fmt: skip
    assert wandb_rows.training({}, {"verdict/above_floor": 1.0}) == [{"trainer/step": 0, "verdict/above_floor": 1.0}]


def test_a_value_reported_once_stands_at_the_end_and_moves_no_clock() -> None:
    """As the starter's trainer does: it claims after the last step, and names no step."""
    points = {"loss": [(0, 0.1, 3.0), (10, 1.0, 2.0)], "claim_bits": [(0, 1.2, 2.5)]}
    rows = wandb_rows.training(points, {})
    assert rows == [
        {"trainer/step": 0, "trainer/seconds": 0.1, "claim/loss": 3.0},
        {"trainer/step": 10, "trainer/seconds": 1.0, "claim/loss": 2.0, "claim/claim_bits": 2.5},
    ]
    assert rows == wandb_rows.training(dict(reversed(points.items())), {})


def test_of_a_claim_that_names_no_step_the_last_one_counts() -> None:
    points = {"loss": [(0, 0.1, 3.0), (10, 1.0, 2.0)], "claim_bits": [(0, 0.5, 2.9), (0, 1.2, 2.5)]}
    first, last = wandb_rows.training(points, {})
    assert "claim/claim_bits" not in first
    assert last["claim/claim_bits"] == 2.5


def test_a_training_without_a_second_step_is_one_row() -> None:
    points = {"loss": [(0, 0.1, 3.0)], "claim_bits": [(0, 1.2, 2.5)]}
    assert wandb_rows.training(points, {}) == [
        {"trainer/step": 0, "trainer/seconds": 1.2, "claim/loss": 3.0, "claim/claim_bits": 2.5}
    ]


def test_metrics_that_share_a_step_share_the_time_of_the_first() -> None:
    points = {"loss": [(0, 0.1, 3.0), (10, 1.0, 2.0)], "held_out": [(0, 0.3, 3.1), (10, 1.4, 2.1)]}
    assert [row["trainer/seconds"] for row in wandb_rows.training(points, {})] == [0.1, 1.0]


@pytest.mark.parametrize(
    ("asked", "environ", "mode"),
    [
        (None, {}, "offline"),
        (None, {"WANDB_API_KEY": KEY}, "online"),
        (None, {"WANDB_API_KEY": KEY, "WANDB_MODE": "offline"}, "offline"),
        (None, {"WANDB_API_KEY": KEY, "WANDB_MODE": "disabled"}, "disabled"),
        (None, {"WANDB_MODE": "dryrun"}, "offline"),
        (None, {"WANDB_API_KEY": KEY, "WANDB_MODE": "run"}, "online"),
        ("offline", {"WANDB_API_KEY": KEY, "WANDB_MODE": "online"}, "offline"),
        ("online", {"WANDB_API_KEY": KEY, "WANDB_MODE": "offline"}, "online"),
    ],
)
def test_offline_without_a_key_and_the_environment_is_honoured(
    asked: str | None, environ: Mapping[str, str], mode: str
) -> None:
    assert wandb_sink.mode_from(asked, environ) == mode


def test_online_without_a_key_is_said_and_asks_nobody() -> None:
    for asked, environ in (("online", {}), (None, {"WANDB_MODE": "online"})):
        with pytest.raises(SetupError, match=r"no key.*WANDB_API_KEY.*--offline"):
            wandb_sink.mode_from(asked, environ)
    with pytest.raises(UsageError, match="WANDB_MODE"):
        wandb_sink.mode_from(None, {"WANDB_MODE": "sometimes"})


@pytest.mark.parametrize(
    ("typed", "environ", "said"),
    [
        (("a/b", None), {}, r"--project; found: 'a/b'; .*--entity; next: bellglass export wandb --project NAME"),
        ((None, None), {"WANDB_PROJECT": "a#b"}, r"WANDB_PROJECT; found: 'a#b'; .*next: export WANDB_PROJECT=NAME"),
        ((None, None), {"WANDB_PROJECT": "p" * 129}, "at most 128"),
        ((None, "a/b"), {}, "--entity; found: 'a/b'"),
        (("own", None), {"WANDB_ENTITY": "a\x1bb"}, "WANDB_ENTITY"),
    ],
)
def test_a_name_that_wandb_refuses_is_said_first_and_where_it_is_from(
    typed: tuple[str | None, str | None], environ: Mapping[str, str], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        wandb_sink.names_from(*typed, environ)


def test_a_typed_name_wins_over_one_that_wandb_refuses() -> None:
    environ = {"WANDB_PROJECT": "a/b", "WANDB_ENTITY": "c/d"}
    assert wandb_sink.names_from("own", "team", environ) == ("own", "team")
    assert wandb_sink.names_from(None, None, {}) == ("bellglass", None)


def test_a_name_that_wandb_refuses_is_said_before_a_loop_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="wandb is not installed (locks/wandb.txt)")
    monkeypatch.setenv("WANDB_PROJECT", "a/b")
    with pytest.raises(UsageError, match="WANDB_PROJECT"):
        to_wandb.check("offline")


def test_a_key_is_found_where_wandb_login_stores_it(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path)}
    assert wandb_sink.server_and_key(environ) == ("https://api.wandb.ai", None)
    (tmp_path / ".netrc").write_text(f"machine wandb.example login user password {KEY}\n")
    assert wandb_sink.server_and_key(environ)[1] is None
    settings = tmp_path / ".config" / "wandb" / "settings"
    settings.parent.mkdir(parents=True)
    settings.write_text("[default]\nbase_url = https://wandb.example\n")
    assert wandb_sink.server_and_key(environ) == ("https://wandb.example", KEY)
    (tmp_path / ".netrc").write_text("machine\n")  # damaged
    assert wandb_sink.server_and_key(environ)[1] is None


def test_without_wandb_the_one_error_names_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(SetupError, match="not installed") as refused:
        wandb_sink.check_installed()
    assert refused.value.next_command == install_command("wandb")


def test_another_word_for_wandb_is_refused_before_anything_is_spent() -> None:
    with pytest.raises(UsageError, match="online, offline or off"):
        to_wandb.check("sometimes")
    to_wandb.check("off")
