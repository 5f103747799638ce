"""What only Docker has: images by content, labels, the reaper, killing from outside, the watchdog, the kernel's limits.

Behaviours that every glass shares are in tests/conformance.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from guests import begin, listen, spec, wait_until

from bellglass.errors import GuestFault, SetupError
from bellglass.processes import Process, named
from bellglass.records import Role

pytestmark = pytest.mark.docker
HERE = Path(__file__).resolve().parent


@pytest.fixture
def glass(engine: Any) -> Iterator[Any]:
    from bellglass.doors.docker.glass import DockerGlass

    made = DockerGlass(engine, warm=False, prove=False, keep=False)  # guests of several loops: a keeper is of one
    yield made
    made.close()


def labelled(loop: str, **more: Any) -> Any:
    return dataclasses.replace(spec(**more), labels={"loop": loop})


def running(engine: Any, loop: str) -> list[str]:
    return [each.id for each in engine.containers({"bellglass.loop": loop}) if each.state == "running"]


def dead_process() -> Process:
    """A process that was, with its start time."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    was = named(child.pid)
    child.communicate(b"\n")
    return was


# Images


def test_an_image_made_from_other_files_is_stale(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from bellglass.doors.docker import image

    assert image.find(engine, Role.TRAIN).id.startswith("sha256:")
    monkeypatch.setattr(image.Recipe, "content", lambda recipe, device: "of other files")
    with pytest.raises(SetupError, match=r"stale.*bellglass image build"):
        image.find(engine, Role.TRAIN)


def test_an_image_that_was_never_built_is_missing(engine: Any) -> None:
    from bellglass.doors.docker import image

    with pytest.raises(SetupError, match=r"no bellglass-trainer:mars.*--device mars"):
        image.find(engine, Role.TRAIN, "mars")


def test_an_unknown_runtime_is_said_before_anything_starts(engine: Any) -> None:
    from bellglass.doors.docker.glass import DockerGlass

    with pytest.raises(SetupError, match="no-such-runtime"):
        DockerGlass(engine, runtime="no-such-runtime")


# The end of a guest


def test_an_ended_guest_leaves_no_container_and_may_be_ended_again_by_anyone(glass: Any, engine: Any) -> None:
    guest = glass.open(spec())
    threads = [threading.Thread(target=guest.end) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not ((engine.inspect(guest.id) or {}).get("State") or {}).get("Running")
    assert wait_until(lambda: engine.inspect(guest.id) is None)
    assert guest.end() == guest.end()


def test_removing_what_has_ended_is_waited_for_by_the_close_alone(engine: Any) -> None:
    from bellglass.doors.docker.glass import DockerGlass

    class Slow(type(engine)):  # type: ignore[misc]
        def remove(self, container: str) -> None:
            time.sleep(1.0)
            super().remove(container)

    glass = DockerGlass(Slow(engine._api, engine.url), warm=False, prove=False, keep=False)
    guest, late = glass.open(spec()), glass.open(spec())
    guest.end()
    assert engine.inspect(guest.id)["State"]["Running"] is False
    glass.close()
    assert engine.inspect(guest.id) is None
    assert engine.inspect(late.id) is None


def test_closing_the_glass_ends_every_guest(glass: Any, engine: Any) -> None:
    loop = secrets.token_hex(6)
    for _ in range(3):
        glass.open(labelled(loop))
    assert len(running(engine, loop)) == 3
    glass.close()
    assert engine.containers({"bellglass.loop": loop}) == []


def test_the_watchdog_ends_a_guest_at_its_deadline(glass: Any, engine: Any) -> None:
    """The guest's own deadline is far away, as if its supervisor had lost its clock."""
    guest = glass.open(spec(deadline=600.0))
    guest.deadline = time.monotonic() - 60.0
    with pytest.raises(GuestFault) as caught:
        guest.recv(5.0)
    assert caught.value.code == "timeout"
    assert wait_until(lambda: not engine.inspect(guest.id)["State"]["Running"])


def test_a_guest_that_eats_memory_is_told_from_one_that_crashes(glass: Any) -> None:
    guest = glass.open(spec(memory_mb=96))
    begin(guest, "x = []\nwhile True: x.append(bytearray(b'x' * (4 << 20)))")
    listen(guest)
    assert guest.end().out_of_memory
    other = glass.open(spec(memory_mb=96))
    begin(other, "raise SystemExit(9)")
    listen(other)
    assert not other.end().out_of_memory


def test_a_guest_that_fills_its_tmpfs_hits_its_size_first(glass: Any) -> None:
    guest = glass.open(spec(memory_mb=256))
    begin(
        guest, "for i in range(8):\n  with open(f'f{i}', 'wb') as f:\n    for _ in range(100): f.write(bytes(1 << 20))"
    )
    seen = listen(guest)
    assert b"No space left on device" in seen.err
    assert not guest.end().out_of_memory


def test_cpu_seconds_are_measured_by_the_host(glass: Any, engine: Any) -> None:
    guest = glass.open(spec())
    before = guest.cpu_seconds()
    begin(guest, "import time, os\nwhile time.process_time() < 1.0: pass\nos.write(1, b'burnt')\ntime.sleep(60)")
    listen(guest, until=lambda seen: b"burnt" in seen.out)
    used = guest.cpu_seconds() - before
    assert 0.9 < used < 2.5
    assert engine.cpu_seconds(guest.id) == pytest.approx(guest.cpu_seconds(), abs=0.5)
    last = guest.cpu_seconds()
    guest.end()
    assert guest.cpu_seconds() >= last


def test_a_guest_that_cannot_start_says_why(engine: Any) -> None:
    from bellglass.doors.docker.glass import DockerGlass

    broken = DockerGlass(engine, warm=False, prove=False, keep=False)
    broken._extra = ("--no-such-option",)
    with pytest.raises(SetupError, match="unrecognized arguments: --no-such-option"):
        broken.open(spec())
    broken.close()


def test_a_container_unlike_its_profile_gets_nothing_and_is_ended(engine: Any) -> None:
    from bellglass.doors.docker.engine import Engine
    from bellglass.doors.docker.glass import DockerGlass

    class Careless(Engine):
        def create(self, name: str, body: Any) -> str:
            return super().create(name, body | {"HostConfig": body["HostConfig"] | {"ReadonlyRootfs": False}})

    loop = secrets.token_hex(6)
    glass = DockerGlass(Careless(engine._api, engine.url), warm=False, prove=False, keep=False)
    with pytest.raises(SetupError, match="ReadonlyRootfs"):
        glass.open(labelled(loop))
    glass.close()
    assert engine.containers({"bellglass.loop": loop}) == []
    glass.close()


def test_a_daemon_that_fails_the_self_check_opens_no_guest(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from bellglass.doors.docker import selfcheck
    from bellglass.doors.docker.glass import DockerGlass

    monkeypatch.setattr(selfcheck, "_sealed", lambda *_: [("memory", False, "still running")])
    glass = DockerGlass(engine, keep=False)
    with pytest.raises(SetupError, match="not sealed: memory: still running"):
        glass.open(spec())
    glass.close()


# From outside


def test_kill_all_ends_a_loops_guests_and_no_others(glass: Any, engine: Any) -> None:
    from bellglass.doors.docker.reaper import kill_all

    mine, other = secrets.token_hex(6), secrets.token_hex(6)
    guests = [glass.open(labelled(mine)), glass.open(labelled(mine)), glass.open(labelled(other))]
    assert kill_all({"loop": mine}, engine) == 0
    assert engine.containers({"bellglass.loop": mine}) == []
    assert running(engine, other) == [guests[2].id]
    with pytest.raises(GuestFault):
        guests[0].recv(5.0)


def test_reaping_takes_only_what_dead_drivers_of_this_user_left(glass: Any, engine: Any) -> None:
    from bellglass.doors.docker.reaper import labels_of

    loop, dead = secrets.token_hex(6), dead_process()
    own = labels_of(labelled(loop))
    left = own | {"bellglass.owner_pid": str(dead.pid), "bellglass.owner_start": dead.start}
    found = glass._images[Role.TRAIN].id
    create = {
        "created": left,
        "alive": own,
        "stranger": left | {"bellglass.user": "someone-else"},
        "elsewhere": left | {"bellglass.host": "another-host"},
        "reused": own | {"bellglass.owner_start": "another-time"},
    }
    made = {
        name: engine.create(f"bellglass-{loop}-{name}", {"Image": found, "Labels": create[name]}) for name in create
    }
    try:
        assert glass.reap() >= 2
        remaining = {each.id for each in engine.containers({"bellglass.loop": loop})}
        assert remaining == {made["alive"], made["stranger"], made["elsewhere"]}
    finally:
        for container in made.values():
            engine.remove(container)


def test_a_frozen_driver_with_a_flooding_guest_hangs_no_call_for_long(engine: Any, tmp_path: Path) -> None:
    from bellglass.doors.docker.engine import CALL_SECONDS
    from bellglass.doors.docker.reaper import kill_all

    loop = secrets.token_hex(8)
    env = os.environ | {"PYTHONPATH": f"{HERE}:{HERE.parent}"}
    command = [sys.executable, str(HERE / "guest_driver.py"), "docker", str(tmp_path), loop, "flooding"]
    driver = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env)
    assert driver.stdout is not None
    try:
        assert any(line.strip() == "flooding" for line in driver.stdout)
        driver.send_signal(signal.SIGSTOP)
        time.sleep(0.3)
        (guest,) = running(engine, loop)
        for call in (engine.kill, engine.inspect, engine.remove):
            began = time.monotonic()
            with contextlib.suppress(SetupError):  # "no answer within 5 s" is what we expect of most
                call(guest)
            assert time.monotonic() - began < CALL_SECONDS + 20.0, "without the time-out it would wait for ever"
        driver.kill()  # what `bellglass stop` does first: it closes the driver's end
        began = time.monotonic()
        assert kill_all({"loop": loop}, engine) == 0
        assert time.monotonic() - began < 60.0
        assert engine.containers({"bellglass.loop": loop}) == []
    finally:
        driver.kill()
        driver.stdout.close()
        driver.wait()
        kill_all({"loop": loop}, engine)


# Under the filter


TRAINS = """
import glass, json, threading
import torch, lightning, numpy
from lightning.fabric import Fabric
from safetensors.torch import save_file
assert threading.active_count() >= 1
fabric = Fabric(accelerator="cpu", devices=1)
fabric.launch()
model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.GELU(), torch.nn.Linear(64, 8))
model, optimiser = fabric.setup(model, torch.optim.AdamW(model.parameters(), lr=1e-2))
losses = []
for step in range(30):
    x = torch.randn(32, 64)
    loss = torch.nn.functional.mse_loss(model(x), x[:, :8])
    fabric.backward(loss)
    optimiser.step()
    optimiser.zero_grad()
    losses.append(float(loss.detach()))
q = torch.randn(1, 4, 16, 32)
torch.nn.functional.scaled_dot_product_attention(q, q, q, is_causal=True)
torch.linalg.svd(torch.randn(32, 32)); torch.fft.fft(torch.randn(64))
loader = torch.utils.data.DataLoader(torch.arange(100), batch_size=10, num_workers=0)
assert sum(len(batch) for batch in loader) == 100
save_file({k: v.contiguous() for k, v in model.state_dict().items()}, "out/weights.safetensors")
open("out/losses.json", "w").write(json.dumps(losses))
"""


def test_torch_and_lightning_train_under_the_filter(engine: Any) -> None:
    from bellglass.doors.docker.glass import DockerGlass

    glass = DockerGlass(engine, prove=False, keep=False)
    try:
        guest = glass.open(spec(memory_mb=700, deadline=120.0))
        begin(guest, TRAINS)
        seen = listen(guest, seconds=60.0)
        assert seen.err == b""
        losses = json.loads(seen.files["out/losses.json"])
        assert losses[-1] < losses[0]
        assert len(seen.files["out/weights.safetensors"]) > 64 * 64 * 4
        assert guest.cpu_seconds() > 0.5
    finally:
        glass.close()
