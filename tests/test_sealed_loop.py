"""A whole loop as a hosted model would drive it: litellm, real HTTP to a server in this process, guests in Docker."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import small_world

from bellglass import wiring
from bellglass.doors.docker.glass import DockerGlass
from bellglass.doors.docker.reaper import kill_all
from bellglass.doors.model_server import ModelServer
from bellglass.errors import SetupError, UsageError
from bellglass.loop import run_loop


def hosted(monkeypatch: pytest.MonkeyPatch, server: ModelServer, **chosen: object) -> dict[str, object]:
    monkeypatch.setenv("OPENAI_BASE_URL", server.openai_base)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-a-key-of-no-worth")
    name = "openai/tuner"
    return {"model": name, "free_models": [name], "generations": 3, "seed": None, "virtual_clock": False, **chosen}


@pytest.mark.docker
@pytest.mark.slow
def test_a_sealed_loop_over_http_completes_three_generations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if importlib.util.find_spec("litellm") is None:  # not importorskip: importing is the door's, with its safe settings
        pytest.skip("litellm is not installed")
    with ModelServer(small_world.Tuner()) as server:
        folder = small_world.create(tmp_path, **hosted(monkeypatch, server, glass="docker"))
        # The small trainer needs no torch, so the guests don't import it ahead; all else is as `bellglass run` does it.
        with wiring.open_loop(folder, small_world.quiet(), glass=DockerGlass(warm=False)) as crew:
            state = run_loop(crew)
    assert state.created["sealed"]
    results = [(gen.result["trainer"], gen.result["why"], gen.note) for gen in state.generations.values()]
    assert [result[0] for result in results].count("adopted") >= 2, results
    assert len(state.generations) == 3
    assert state.ended["why"] == "finished"
    assert state.spent.calls == len(state.calls) >= 15
    assert kill_all({"loop": state.loop_id}) == 0
    assert b"sk-a-key-of-no-worth" not in (folder / "loop.db").read_bytes()


def test_a_hosted_model_never_gets_the_virtual_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ModelServer(small_world.Tuner()) as server:
        chosen = {**hosted(monkeypatch, server), "virtual_clock": True}
        with pytest.raises(UsageError, match="virtual clock"):
            small_world.create(tmp_path, **chosen)


def test_a_hosted_model_never_gets_the_process_glass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ModelServer(small_world.Tuner()) as server:
        chosen = hosted(monkeypatch, server, glass="process")
        with pytest.raises(SetupError, match="sealed glass"):
            small_world.create(tmp_path, **chosen)
    assert list(tmp_path.iterdir()) == []
