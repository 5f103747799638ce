"""An image's files stay in memory while its guests live; where they can't, a guest that proves is the only one."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from guests import begin, listen, spec, wait_until
from judging import HONEST, judged

from bellglass.doors.docker.engine import Facts
from bellglass.doors.process_glass import ProcessGlass
from bellglass.errors import Interrupted, SetupError
from bellglass.line.company import company
from bellglass.paths import content_root
from bellglass.ports import GuestSpec
from bellglass.records import Role

docker = pytest.mark.docker
COMING = """
import sys
from pathlib import Path
from bellglass.line.company import company

def waits():
    if words:
        print(words.pop(), flush=True)

words = ["waits"]
with company(Path(sys.argv[1]), alone=sys.argv[2] == "1", check=waits):
    print("in", flush=True)
"""
KEEPERS = {"bellglass.loop": "conformance", "bellglass.role": "keeper", "bellglass.owner_pid": str(os.getpid())}


@pytest.fixture
def glass(engine: Any) -> Iterator[Any]:
    from bellglass.doors.docker.glass import DockerGlass

    made = DockerGlass(engine, warm=False, prove=False, loop="conformance")
    yield made
    made.close()


def engine_facts(storage: str, default: str = "runc") -> Facts:
    return Facts("unix:///x", "20.10", "6.1", "1", False, False, storage, ("runc", "runsc"), default, {})


class Entered:
    """Threads that are in company, in the order in which they got there."""

    def __init__(self, folder: Path) -> None:
        self._folder, self.names, self._leave = folder, list[str](), dict[str, threading.Event]()
        self._threads: dict[str, threading.Thread] = {}

    def come(self, name: str, *, alone: bool = False) -> None:
        leave = self._leave[name] = threading.Event()

        def stay() -> None:
            with company(self._folder, alone=alone):
                self.names.append(name)
                leave.wait()

        self._threads[name] = threading.Thread(target=stay, daemon=True)
        self._threads[name].start()

    def inside(self, name: str) -> bool:
        return wait_until(lambda: name in self.names)

    def go(self, name: str) -> None:
        self._leave[name].set()
        self._threads[name].join()


def other_process(folder: Path, *, alone: bool) -> subprocess.Popen[bytes]:
    """One that has to wait; it has said so when this returns."""
    waiting = subprocess.Popen([sys.executable, "-c", COMING, str(folder), str(int(alone))], stdout=subprocess.PIPE)
    assert waiting.stdout is not None
    assert waiting.stdout.readline() == b"waits\n"
    return waiting


def test_whoever_wants_to_be_alone_waits_for_those_who_are_there_and_is_let_in_before_latecomers(
    tmp_path: Path,
) -> None:
    room = Entered(tmp_path)
    with company(tmp_path, alone=False):
        prover = other_process(tmp_path, alone=True)
        late = other_process(tmp_path, alone=False)
        room.come("second")  # of this process, which is there already
        assert room.inside("second")
    assert prover.poll() is None
    room.go("second")
    assert prover.communicate(timeout=60)[0] == b"in\n"
    assert late.communicate(timeout=60)[0] == b"in\n"


def test_nobody_is_let_in_while_one_is_alone(tmp_path: Path) -> None:
    with company(tmp_path, alone=True):
        others = [other_process(tmp_path, alone=alone) for alone in (False, True)]
        assert [other.poll() for other in others] == [None, None]
    for other in others:
        assert other.communicate(timeout=60)[0] == b"in\n"


def test_whoever_is_there_lets_their_own_process_in_without_a_turn(tmp_path: Path) -> None:
    """A session's trial must not queue behind a prover of another loop that waits for the session's guest to end."""
    with company(tmp_path, alone=False):
        prover = other_process(tmp_path, alone=True)
        room = Entered(tmp_path)
        room.come("a trial of the session")
        assert room.inside("a trial of the session")
        room.go("a trial of the session")
        assert prover.poll() is None
    assert prover.communicate(timeout=60)[0] == b"in\n"


def test_waiting_ends_when_the_loop_is_stopped(tmp_path: Path) -> None:
    def check() -> None:
        raise Interrupted("the loop", "interrupted", "nothing")

    with company(tmp_path, alone=True), pytest.raises(Interrupted), company(tmp_path, alone=True, check=check):
        pass
    with company(tmp_path, alone=True, check=check):  # nothing is left of who gave up
        pass


@docker
def test_a_keeper_holds_every_file_of_its_image_and_gives_it_up_with_its_driver(engine: Any, glass: Any) -> None:
    guest = glass.open(spec())
    (keeper,) = engine.containers(KEEPERS)
    held = glass.keeper(Role.TRAIN).held
    assert held.missed == 0
    assert held.resident == held.bytes > 100 << 20
    assert glass.find_why_alone() == ""
    guest.end()
    glass.close()
    assert engine.inspect(keeper.id) is None


@docker
def test_a_keeper_that_is_killed_takes_its_guests_along_and_that_is_the_machines_fault(engine: Any, glass: Any) -> None:
    guest = glass.open(spec())
    begin(guest, "import time\ntime.sleep(60)")
    (keeper,) = engine.containers(KEEPERS)
    engine.kill(keeper.id)
    with pytest.raises(SetupError) as fault:
        listen(guest, seconds=20.0)
    assert fault.value.code == "keeper_ended"
    assert wait_until(lambda: not (engine.inspect(guest.id) or {"State": {"Running": False}})["State"]["Running"])


def oom_score(engine: Any, container: str) -> int:
    """As the kernel counts it: whoever has most is ended first when the machine runs out of memory."""
    return int(Path(f"/proc/{engine.inspect(container)['State']['Pid']}/oom_score").read_text())


@docker
@pytest.mark.parametrize("before", ["guests", "its keeper"])
def test_a_machine_without_memory_ends_a_guest_before_its_keeper(
    engine: Any, glass: Any, before: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bellglass.doors.docker import keeper, profile

    if before == "its keeper":
        monkeypatch.setattr(keeper, "KEEPER_OOM_SCORE", profile.GUEST_OOM_SCORE)
    guest = glass.open(spec())
    (holds,) = engine.containers(KEEPERS)
    assert (oom_score(engine, holds.id) < oom_score(engine, guest.id)) == (before == "guests")


@docker
@pytest.mark.parametrize("asked", [True, False])
def test_a_keeper_that_fell_behind_the_last_guest_is_noticed_at_the_end(
    engine: Any, glass: Any, asked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not asked:
        monkeypatch.setattr(type(glass._keepers), "require", lambda _: None)
    with pytest.raises(SetupError) if asked else contextlib.nullcontext() as fault, glass.company():
        guest = glass.open(spec())
        (keeper,) = engine.containers(KEEPERS)
        engine.kill(keeper.id)
        guest.end()
        assert wait_until(glass._keepers.fallen)
    if asked:
        assert fault.value.code == "keeper_ended"


def test_whoever_waits_for_a_keeper_hears_of_an_error_that_nobody_foresaw() -> None:
    from bellglass.doors.docker.image import Image
    from bellglass.doors.docker.keeper import Keepers

    started, go_on = threading.Event(), threading.Event()

    class Broken:
        def create(self, name: str, body: Any) -> str:
            started.set()
            go_on.wait()
            raise ArithmeticError(name)

        def remove(self, name: str) -> None: ...

    keepers, heard = Keepers(Broken()), list[str]()  # type: ignore[arg-type]

    def ask() -> None:
        try:
            keepers.of(Image("sha256:0", (), 0), {})
        except ArithmeticError as error:
            heard.append(str(error))

    askers = [threading.Thread(target=ask, daemon=True) for _ in range(2)]
    for asker in askers:
        asker.start()
        assert started.wait(30)
    go_on.set()
    for asker in askers:
        asker.join(30)
    assert len(heard) == 2
    assert not keepers.fallen()
    keepers.close()


@docker
def test_where_a_keeper_can_not_be_had_guests_prove_alone(
    engine: Any, glass: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bellglass.doors.docker import keeper

    monkeypatch.setattr(keeper, "MARGIN_MB", 2 - (glass._images[Role.PREDICT].bytes >> 20))  # no engine takes so little
    assert "memory" in glass.find_why_alone()


def test_another_storage_driver_or_runtime_is_not_trusted_before_doctor_has_tried_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bellglass.doors.docker.keeper import remember_trusted, why_not_trusted

    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    usual = engine_facts("overlay2 on extfs")
    assert why_not_trusted(usual, "") == ""
    assert why_not_trusted(usual, "runc") == ""
    assert "runsc" in why_not_trusted(usual, "runsc")
    own_default = engine_facts("overlay2 on extfs", default="runsc")
    assert "runsc" in why_not_trusted(own_default, "")
    assert why_not_trusted(own_default, "runc") == ""
    other = engine_facts("overlay2 on xfs")
    assert "overlay2 on xfs" in why_not_trusted(other, "")
    remember_trusted(other, "")
    assert why_not_trusted(other, "") == ""
    assert why_not_trusted(other, "runsc")
    assert why_not_trusted(dataclasses.replace(other, kernel="another"), "")
    remember_trusted(own_default, "")
    assert why_not_trusted(own_default, "") == why_not_trusted(usual, "runsc") == ""


def overcommits(limit: str) -> str:
    """What a keeper says of a machine; a limit on addresses fails the call as vm.overcommit_memory = 2 does."""
    say = f"import runpy; print(runpy.run_path({str(content_root() / 'sandbox' / 'keeper.py')!r})['overcommits']())"
    shell = ["sh", "-c", f'ulimit -v {limit}; exec "$0" -I -c "$1"', sys.executable, say]
    return subprocess.run(shell, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.skipif(sys.platform != "linux", reason="a keeper runs on Linux")
def test_a_keeper_notices_where_the_kernel_counts_all_memory_together() -> None:
    machine = Path("/proc/sys/vm/overcommit_memory").read_text().strip()
    assert overcommits("unlimited") == str(machine != "2")
    assert overcommits("1000000") == "False"


@docker
@pytest.mark.parametrize("noticed", [True, False])
def test_where_the_kernel_counts_all_memory_together_guests_prove_alone(glass: Any, noticed: bool) -> None:
    keeper = glass.keeper(Role.PREDICT)
    if noticed:
        keeper.held = dataclasses.replace(keeper.held, overcommits=False)
    assert bool(glass.find_why_alone()) == noticed
    assert keeper.lacking == ""  # the image can be read again before the guest that is alone


@docker
def test_a_glass_that_keeps_nothing_says_so_and_lets_guests_prove_alone(
    engine: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bellglass.doors.docker.glass import DockerGlass

    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    without = DockerGlass(engine, warm=False, prove=False, keep=False)
    try:
        assert without.find_why_alone()
        with without.company(alone=True):
            late = Entered(tmp_path / "bellglass" / "company")
            late.come("late")
            assert not wait_until(lambda: "late" in late.names, 0.3)
        assert late.inside("late")
        late.go("late")
    finally:
        without.close()


@docker
def test_no_two_guests_have_a_uid_in_common(engine: Any, glass: Any) -> None:
    one, other = glass.open(spec()), glass.open(spec())
    users = {engine.inspect(guest.id)["Config"]["User"] for guest in (one, other)}
    assert len(users) == 2
    assert all(user.split(":")[0] == user.split(":")[1] for user in users)


class Overheard(ProcessGlass):
    """A glass whose guests can hear each other, which writes down when they come and go."""

    def __init__(self, home: Path) -> None:
        super().__init__(warm=False, home=home)
        self.said: list[str] = []

    def find_why_alone(self) -> str:
        return "for this test"

    @contextlib.contextmanager
    def company(self, *, alone: bool = False, check: Any = None) -> Iterator[None]:
        self.said.append("alone" if alone else "beside others")
        yield
        self.said.append("left")

    def open(self, spec: GuestSpec) -> Any:
        self.said.append(spec.labels["purpose"])
        return super().open(spec)


def test_where_guests_hear_each_other_each_is_opened_when_its_turn_comes_and_the_second_is_alone(
    tmp_path: Path,
) -> None:
    with contextlib.closing(Overheard(tmp_path)) as glass:
        judgement = judged(glass, HONEST)
    assert judgement.verdict.proof is not None
    assert glass.said == ["beside others", "score", "left", "alone", "proof", "left"]


def test_where_guests_cannot_hear_each_other_the_second_is_opened_while_the_first_answers(tmp_path: Path) -> None:
    class Deaf(Overheard):
        def find_why_alone(self) -> str:
            return ""

    with contextlib.closing(Deaf(tmp_path)) as glass:
        judged(glass, HONEST)
    assert glass.said.index("proof") < glass.said.index("left")
