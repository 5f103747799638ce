"""A whole improver session over real HTTP: guest, wire, gateway, litellm, a server with the offline improver."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from improver_desk import ToyDesk, session, starter
from litellm_bench import needs_litellm

from bellglass.doors.litellm_model import LitellmModel
from bellglass.doors.model_server import ModelServer
from bellglass.doors.offline_model import OfflineModel
from bellglass.doors.process_glass import ProcessGlass
from bellglass.ports import Model

pytestmark = needs_litellm


def shorter_is_better(files: Mapping[str, str], fraction: float) -> float:
    return sum(map(len, files.values())) / 10_000


def run(glass: ProcessGlass, model: Model) -> tuple[ToyDesk, Mapping[str, bytes]]:
    desk = ToyDesk(model, shorter_is_better)
    end = session(glass, starter(), desk, seed=1)
    assert end.submission is not None, (end.fault, end.log.decode())
    return desk, end.submission.files


@pytest.mark.slow
def test_a_session_over_http_ends_as_the_same_session_without_it() -> None:
    glass = ProcessGlass(warm=False)
    try:
        direct, expected = run(glass, OfflineModel())
        with ModelServer(OfflineModel()) as server:
            model = LitellmModel("openai/offline", free=True, environ={"OPENAI_BASE_URL": server.openai_base})
            through_http, got = run(glass, model)
            assert len(server.asked) == through_http.chats
            assert not server.faults
        assert got == expected
        assert through_http.runs == direct.runs
        assert direct.runs
    finally:
        glass.close()
