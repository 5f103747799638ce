"""Weights & Biases, for real and offline: what the export wrote, read back with wandb's own reader."""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import os
import pty
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import wandb_bench
import wandb_server
from wandb_bench import Told, environment, export, inspect

from bellglass.commands import to_wandb
from bellglass.errors import TripwireFired
from bellglass.show import showing, wandb_rows
from bellglass.store.ledger import Ledger

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="wandb is not installed (locks/wandb.txt)"),
]
GENERATIONS = 6  # the fifth fails
IDS = {"00000001-loop", *(f"00000001-gen-{n:03d}" for n in range(GENERATIONS + 1))}
SMALL = {"00000001-loop", "00000001-gen-000", "00000001-gen-001"}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, home: Path) -> Path:
    """A loop, exported once."""
    made = wandb_bench.write(tmp_path_factory.mktemp("loops"), GENERATIONS)
    ran = export(made, home)
    assert ran.returncode == 0, ran.stderr
    assert "8 runs" in ran.stdout
    assert f"wandb sync {made}/wandb" in ran.stdout
    return made


@pytest.fixture(scope="module")
def runs(folder: Path, home: Path) -> dict[str, Told]:
    return inspect(folder / "wandb", home)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return wandb_bench.write(tmp_path, 1)


def test_one_run_for_the_loop_and_one_per_generation_in_one_group(folder: Path, runs: dict[str, Told]) -> None:
    assert set(runs) == IDS
    assert {told.run["run_group"] for told in runs.values()} == {folder.name}
    assert {run_id: told.run["job_type"] for run_id, told in runs.items()} == {
        run_id: "loop" if run_id.endswith("loop") else "generation" for run_id in IDS
    }
    head = showing.open_loop(folder).about.head
    assert {told.config["head"] for told in runs.values()} == {head}
    assert head in runs["00000001-loop"].run["notes"]


def test_numbers_are_those_of_the_page(folder: Path, runs: dict[str, Told]) -> None:
    document = showing.open_loop(folder).document()
    rows = {
        row["generation"]: row
        for row in runs["00000001-loop"].history
        if "decision/trainer" in row or row["generation"] == 0
    }
    assert sorted(rows) == list(range(GENERATIONS + 1))
    for gen in document["generations"]:
        row, own = rows[gen["n"]], runs[f"00000001-gen-{gen['n']:03d}"]
        for key, interval in (
            ("verdict/bits_per_byte", gen["raw"]), ("verdict/above_floor", gen["score"]),
            ("verdict/gain", gen["gain"]), ("gap/select_confirm", gen["fitted"]),
        ):  # fmt: skip
            for end, suffix in (("mean", ""), ("low", "_low"), ("high", "_high")):
                assert row.get(key + suffix) == (None if interval is None else interval[end]), (gen["n"], key)
        assert row.get("claimed/bits_per_byte") == gen["claim"]
        assert row.get("gap/claim_verdict") == gen["claim_gap"]
        assert {key[6:]: value for key, value in row.items() if key.startswith("skill/")} == gen["skills"]
        assert {key[5:]: value for key, value in row.items() if key.startswith("cost/")} == gen["cost"]
        assert (row["decision/trainer"], row["decision/scaffold"]) == (gen["trainer"], gen["scaffold"])
        assert {key: own.summary[key] for key in row} == row
        assert own.config["parent"] == gen["parent"]
    summary = runs["00000001-loop"].summary
    final = document["final"]["gain"]
    assert [summary[f"final/gain{end}"] for end in ("", "_low", "_high")] == [final[e] for e in ("mean", "low", "high")]
    assert {key: summary[f"spent/{key}"] for key in document["spent"]} == document["spent"]


def test_tables_hold_every_generation_and_every_trial(folder: Path, runs: dict[str, Told]) -> None:
    document = showing.open_loop(folder).document()
    loop = runs["00000001-loop"]
    generations, candidates = loop.table("generations"), loop.table("candidates")
    assert [row[0] for row in generations["data"]] == [gen["n"] for gen in document["generations"]]
    place = generations["columns"].index("score_mean")
    assert [row[place] for row in generations["data"]] == [
        (gen["score"] or {}).get("mean") for gen in document["generations"]
    ]
    columns = document["trials"]["columns"]
    wanted = [[row[columns.index(c)] for c in wandb_rows.CANDIDATE_COLUMNS] for row in document["trials"]["rows"]]
    assert candidates["data"] == wanted


def test_curves_are_claims_beside_the_verdict(runs: dict[str, Told]) -> None:
    told = runs["00000001-gen-001"]
    assert [row["trainer/step"] for row in told.history] == [0, 10, 20, 30]
    assert [row["claim/loss"] for row in told.history] == [3.0, 2.9, 2.8, 2.7]
    assert [row["trainer/seconds"] for row in told.history] == [0.0, 0.5, 1.0, 1.5]
    assert ["claim/claim_bits" in row for row in told.history] == [False, False, False, True]
    assert "verdict/bits_per_byte" in told.history[-1]
    assert told.config["curves_of"].startswith("g1-")
    steps = {metric["glob_name"]: metric["step_metric"] for metric in told.of("metric") if "glob_name" in metric}
    assert steps["claim/*"] == steps["claimed/*"] == steps["verdict/*"] == "trainer/step"
    steps = {m["glob_name"]: m["step_metric"] for m in runs["00000001-loop"].of("metric") if "glob_name" in m}
    assert steps == {"*": "generation"}


def test_bundles_and_weights_are_artifacts_with_the_generations_name(folder: Path, runs: dict[str, Told]) -> None:
    document = showing.open_loop(folder).document()
    champions = 0
    for number in range(GENERATIONS + 1):
        found = {a["name"]: a for a in runs[f"00000001-gen-{number:03d}"].of("artifact")}
        if number == 5:  # it made no successor
            assert not any("gen-005" in a["aliases"] for n, a in found.items() if n.startswith("bundle"))
            continue
        bundle, weights = found["bundle-00000001"], found.get("weights-00000001")
        assert bundle["type"] == "code"
        assert f"gen-{number:03d}" in bundle["aliases"]
        champions += "champion" in bundle["aliases"]
        paths = {entry["path"] for entry in bundle["manifest"]["contents"]}
        assert {"trainer/train.py", "scaffold/improve.py"} <= paths
        if number and document["generations"][number - 1]["measured_by"] is None:
            assert weights is None, "an explored try is not the successor"
            continue
        assert weights is not None
        assert (weights["type"], f"gen-{number:03d}" in weights["aliases"]) == ("model", True)
        (entry,) = weights["manifest"]["contents"]
        assert Path(entry["local_path"]).read_bytes().startswith(b"weights ")
    assert champions == 1
    assert document["loop"]["champion"] != document["loop"]["starter"]


def test_a_second_export_tells_the_same_under_the_same_ids(folder: Path, home: Path, runs: dict[str, Told]) -> None:
    again = export(folder, home)
    assert again.returncode == 0, again.stderr
    second = inspect(folder / "wandb", home)  # which refuses a run that is there twice
    assert set(second) == set(runs)
    for run_id, told in second.items():
        assert comparable(told) == comparable(runs[run_id])


def comparable(told: Told) -> tuple[object, ...]:
    """All but W&B's own random ids and clocks."""
    times = [item["item"]["_timestamp"] for item in told.of("history")]
    digests = [(a["name"], a["digest"], sorted(a["aliases"])) for a in told.of("artifact")]
    return told.config, told.history, times, digests


def test_a_moved_loop_still_exports_and_nothing_lands_elsewhere(small: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    assert export(small, home).returncode == 0
    moved = tmp_path / "elsewhere" / small.name
    moved.parent.mkdir()
    shutil.move(small, moved)
    ran = export(moved, home)
    assert ran.returncode == 0, ran.stderr
    found = inspect(moved / "wandb", home)
    assert set(found) == SMALL
    for told in found.values():
        for artifact in told.of("artifact"):
            for entry in artifact["manifest"]["contents"]:
                assert Path(entry["local_path"]).is_relative_to(moved)
    assert [path for path in home.rglob("*") if path.is_file()] == []


def test_without_a_key_nobody_is_asked_even_at_a_terminal(small: Path, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "bellglass", "export", "wandb", str(small)]
    env = environment(tmp_path / "home", TERM="xterm")
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=env, close_fds=True) as process:
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # how a pty says that its other end is closed
            while data := os.read(ours, 4096):
                shown += data
        assert process.wait(wandb_bench.PATIENCE_SECONDS) == 0
    os.close(ours)
    assert shown.decode().split()[:2] == ["3", "runs"], shown
    refused = export(small, tmp_path / "home", "--online")
    assert refused.returncode == 3
    assert "no key" in refused.stderr


def test_disabled_writes_nothing(small: Path, tmp_path: Path) -> None:
    ran = export(small, tmp_path / "home", WANDB_MODE="disabled")
    assert (ran.returncode, ran.stdout) == (0, "")
    assert "WANDB_MODE" in ran.stderr
    assert not (small / "wandb").exists()


def test_project_and_entity_come_from_the_environment_and_other_runs_words_do_not(small: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    left = {"WANDB_RUN_ID": "other", "WANDB_RESUME": "must", "WANDB_NAME": "other", "WANDB_RUN_GROUP": "other"}
    left |= {"WANDB_SWEEP_ID": "other", "WANDB_FORK_FROM": "other?_step=1"}
    ran = export(small, home, WANDB_PROJECT="own", WANDB_ENTITY="team", WANDB_TAGS="lab", **left)
    assert ran.returncode == 0, ran.stderr
    found = inspect(small / "wandb", home)
    assert set(found) == SMALL
    assert {(t.run["project"], t.run["entity"], *t.run["tags"]) for t in found.values()} == {("own", "team", "lab")}
    assert {(t.run["run_group"], t.run.get("sweep_id", "")) for t in found.values()} == {(small.name, "")}
    ran = export(small, home, "--project", "typed", "-o", tmp_path / "out", WANDB_PROJECT="own")
    assert ran.returncode == 0, ran.stderr
    assert {t.run["project"] for t in inspect(tmp_path / "out" / "wandb", home).values()} == {"typed"}


def test_an_export_that_fails_leaves_the_earlier_one_and_blames_no_server(small: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    assert export(small, home).returncode == 0
    earlier = inspect(small / "wandb", home)
    for words, variables, code, said in (
        (("--project", "a/b"), {}, 2, "--project"),
        ((), {"WANDB_ENTITY": "a/b"}, 2, "WANDB_ENTITY"),
        ((), {"WANDB_TAGS": "x" * 100}, 3, "WANDB_ variables"),
        ((), {"WANDB_FINISH_TIMEOUT": "soon"}, 2, "WANDB_FINISH_TIMEOUT"),
    ):
        ran = export(small, home, "--offline", *words, **variables)
        assert ran.returncode == code, ran.stderr
        assert said in ran.stderr
        assert "server" not in ran.stderr
        left = inspect(small / "wandb", home)
        assert {run_id: told.folder for run_id, told in left.items()} == {
            run_id: told.folder for run_id, told in earlier.items()
        }
        for told in left.values():
            for artifact in told.of("artifact"):
                assert all(Path(entry["local_path"]).exists() for entry in artifact["manifest"]["contents"])
    ran = export(small, home, "--project", "own", WANDB_PROJECT="a/b")  # which --project wins over
    assert ran.returncode == 0, ran.stderr
    assert {told.run["project"] for told in inspect(small / "wandb", home).values()} == {"own"}


def test_hostile_names_and_notes_stay_words(tmp_path: Path) -> None:
    names = ("../../x", "_step", "generation", "bits_per_byte", "a.b", "\u202e<i>", "\ud800")
    folder = wandb_bench.write(tmp_path / "loops", 1, names, note="<script>\u202e[x](javascript:1)\ud800" + "y" * 9000)
    home = tmp_path / "home"
    ran = export(folder, home, "--trials")
    assert ran.returncode == 0, ran.stderr
    runs = inspect(folder / "wandb", home)
    trials = {run_id for run_id, told in runs.items() if told.run["job_type"] == "trial"}
    assert trials == {f"00000001-trial-{name}" for name in showing.open_loop(folder).state.trials}
    told = runs["00000001-gen-001"]
    claims = {key for row in told.history for key in row if key.startswith("claim/")}
    assert len(claims) == len(names)
    assert [row["claimed/bits_per_byte"] for row in told.history if "claimed/bits_per_byte" in row] == [
        showing.open_loop(folder).document()["generations"][0]["claim"]
    ]
    assert {row["generation"] for row in told.history if "generation" in row} == {1}
    words = runs["00000001-loop"].table("generations")["data"][0][-1]
    assert words.startswith("<script>\\u{202e}[x](javascript:1)\\u{d800}")
    assert len(words) <= wandb_rows.TEXT_CHARS + 20


def test_a_forged_loop_id_leads_out_of_no_folder(tmp_path: Path) -> None:
    folder, home = tmp_path / "loops" / "stories-00000001", tmp_path / "home"
    with Ledger.create(folder) as ledger:
        for kind, body in wandb_bench.events(folder, 1, ("loss",)):
            ledger.append(kind, {**body, "loop_id": "../../../out"} if kind == "loop.created" else body)
    ran = export(folder, home)
    assert ran.returncode == 0, ran.stderr
    assert len(inspect(folder / "wandb", home)) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "loops"]


def test_what_is_gone_from_the_folder_is_said_and_the_rest_exported(small: Path, tmp_path: Path) -> None:
    shutil.rmtree(small / "lineage.git")
    shutil.rmtree(small / "blobs")
    ran = export(small, tmp_path / "home")
    assert ran.returncode == 0, ran.stderr
    assert "missing: bundle" in ran.stderr
    assert "missing: weights" in ran.stderr
    assert "missing: curves" in ran.stderr
    assert set(inspect(small / "wandb", tmp_path / "home")) == SMALL


def test_what_a_damaged_ledger_loses_is_said(small: Path, tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(small / "loop.db")) as db, db:
        db.execute("UPDATE events SET body = body || ' ' WHERE seq = 30")
    ran = export(small, tmp_path / "home")
    assert ran.returncode == 0, ran.stderr
    assert "missing: the ledger is damaged behind event 29" in ran.stderr


def test_two_exports_into_one_folder_do_not_mix(small: Path, tmp_path: Path) -> None:
    (small / "wandb").mkdir()
    with (small / "wandb" / "bellglass.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        ran = export(small, tmp_path / "home")
    assert ran.returncode == 2
    assert "another export" in ran.stderr


def test_online_twice_there_is_one_of_everything_and_successors_hang_on_their_parents(tmp_path: Path) -> None:
    folder, home, key = wandb_bench.write(tmp_path / "loops", 3), tmp_path / "home", "k" * 40
    document = showing.open_loop(folder).document()
    with wandb_server.serving() as server:
        words = {"WANDB_BASE_URL": server.address, "WANDB_API_KEY": key}
        ran = export(folder, home, **words)
        assert ran.returncode == 0, ran.stderr
        assert f"{server.address}/me/bellglass/runs/00000001-loop" in ran.stdout
        first = snapshot(server)
        again = export(folder, home, **words)
        assert again.returncode == 0, again.stderr
        assert snapshot(server) == first
    assert set(server.runs) == {"00000001-loop", *(f"00000001-gen-{n:03d}" for n in range(4))}
    assert server.exits == dict.fromkeys(server.runs, 0)
    for gen in document["generations"]:
        parent = server.named(f"bundle-00000001:gen-{gen['from']:03d}")
        assert (f"00000001-gen-{gen['n']:03d}", parent) in server.edges
    rows = [row for row in server.histories["00000001-loop"].values() if "decision/trainer" in row]
    scores = [(gen["score"] or {}).get("mean") for gen in document["generations"]]
    assert [row.get("verdict/above_floor") for row in rows] == scores
    assert key not in ran.stdout + ran.stderr
    assert not any(key.encode() in path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_a_loop_that_a_tripwire_halted_is_no_success(tmp_path: Path) -> None:
    folder = wandb_bench.write(tmp_path / "loops", 2, waits=True)
    with Ledger.open(folder, write=True) as ledger:
        ledger.append("tripwire.fired", {"name": "leak", "generation": 2, "sentence": "x", "evidence": []})
        ledger.append("loop.ended", {"why": "tripwire", "code": "tripwire_fired", "detail": "x"})
    with wandb_server.serving() as server:
        words = {"WANDB_BASE_URL": server.address, "WANDB_API_KEY": "k" * 40}
        assert export(folder, tmp_path / "home", **words).returncode == 0
    assert server.exits == {"00000001-loop": TripwireFired.exit_code, "00000001-gen-000": 0, "00000001-gen-001": 0}


def test_a_loop_that_grew_is_told_further_where_it_was_left(tmp_path: Path) -> None:
    folder, home = tmp_path / "stories-00000001", tmp_path / "home"
    with wandb_server.serving() as whole, wandb_server.serving() as growing:
        with Ledger.create(folder) as ledger:
            for kind, body in wandb_bench.events(folder, 2, ("loss",)):
                ledger.append(kind, body)
                if kind == "gate.decided" and body["generation"] == 2:
                    words = {"WANDB_BASE_URL": growing.address, "WANDB_API_KEY": "k" * 40}
                    assert export(folder, home, **words).returncode == 0
                    assert set(growing.runs) == SMALL  # what has not ended may still change
        for server in (whole, growing):
            ran = export(folder, home, WANDB_BASE_URL=server.address, WANDB_API_KEY="k" * 40)
            assert ran.returncode == 0, ran.stderr
    assert snapshot(growing)[0] == snapshot(whole)[0]
    assert snapshot(growing)[2] == snapshot(whole)[2]


def snapshot(server: wandb_server.Server) -> tuple[object, object, object]:
    rows = {
        run: [
            {k: v for k, v in row.items() if k[0] != "_" and not isinstance(v, dict)}
            for _, row in sorted(history.items())
        ]
        for run, history in server.histories.items()
    }
    versions = [(asked["artifactCollectionName"], asked["digest"]) for asked in server.versions.values()]
    edges = {(run, server.versions[number]["digest"]) for run, number in server.edges}
    return rows, sorted(versions), edges


def test_wandbs_own_commands_in_the_walk_through_exist(tmp_path: Path) -> None:
    page = (wandb_bench.ROOT / "docs" / "wandb.md").read_text()
    typed = {match[0].split()[1] for match in re.finditer(r"(?m)(?:^|`)wandb [a-z]+[^`\n]*", page)}
    assert {"leet", "login", "sync"} <= typed
    for command in typed:
        asked = [sys.executable, "-m", "wandb", command, "--help"]
        assert subprocess.run(asked, env=environment(tmp_path), capture_output=True).returncode == 0, command


# Beside a loop


@pytest.fixture
def own_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    for name, value in environment(tmp_path / "home").items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def black_hole(own_environment: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A server that takes connections and never answers."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(64)
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
        yield


@pytest.mark.usefixtures("own_environment")
def test_beside_a_loop_each_generation_is_told_as_it_ends(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, home = tmp_path / "stories-00000001", tmp_path / "home"
    first = folder / "wandb"
    with Ledger.create(folder) as ledger, to_wandb.follower(folder, "offline"):
        for kind, body in wandb_bench.events(folder, 2, ("loss",)):
            ledger.append(kind, body)
            if kind == "generation.ended" and body["generation"] == 1:
                until(lambda: any(first.glob("offline-run-*-gen-001")))
                assert not any(first.glob("offline-run-*-gen-002"))
    assert "4 runs" in capsys.readouterr().err
    live = inspect(first, home)
    assert export(folder, home, "-o", tmp_path / "again").returncode == 0
    after = inspect(tmp_path / "again" / "wandb", home)
    assert set(live) == set(after)
    for run_id, told in live.items():
        assert told.summary.keys() == after[run_id].summary.keys()
        assert comparable(told)[1] == comparable(after[run_id])[1]
    assert live["00000001-loop"].config == after["00000001-loop"].config


def until(true: object, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():  # type: ignore[operator]
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.1)


@pytest.mark.usefixtures("black_hole")
def test_a_server_that_never_answers_costs_a_loop_a_few_seconds_at_its_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = wandb_bench.write(tmp_path, 1)
    began = time.monotonic()
    with to_wandb.follower(folder, "online") as follower:
        assert time.monotonic() - began < 30.0
        time.sleep(3.0)
        ended = time.monotonic()
    assert time.monotonic() - ended < to_wandb.PATIENCE_SECONDS + 30.0, "wandb's own patience is 90"
    assert f"bellglass export wandb {folder}" in capsys.readouterr().err
    assert follower is not None
    follower.kill()
    follower.wait()


@pytest.mark.usefixtures("black_hole")
def test_a_follower_does_not_outlive_its_loop_for_long(tmp_path: Path) -> None:
    folder = wandb_bench.write(tmp_path, 1)
    command = [sys.executable, "-m", "bellglass", "export", "wandb", str(folder), "--online", "--attached", "1"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as follower:
        said, _ = follower.communicate(timeout=60.0)
    assert follower.returncode == 1
    assert "gave up" in said


@pytest.mark.usefixtures("own_environment")
def test_a_follower_that_fails_is_named_at_the_end_and_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "too short")
    folder = wandb_bench.write(tmp_path, 1)
    with to_wandb.follower(folder, "online"):
        until(lambda: "error" in (folder / "wandb" / to_wandb.FOLLOWER_LOG).read_text())
    said = capsys.readouterr().err
    assert "not up to date" in said
    assert f"bellglass export wandb {folder}" in said
