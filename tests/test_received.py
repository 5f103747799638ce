"""A loop from elsewhere: its bundles run in a sealed glass alone, whatever its ledger says, and no code that the ledger
names is run here before a person names it."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import made_loop
import pytest
import small_world
from typer.testing import CliRunner
from whose import VARIABLE, another_user

from bellglass import wiring
from bellglass.cli import app
from bellglass.commands.console import line_for
from bellglass.commands.watch import Recheck
from bellglass.config import LoopConfig
from bellglass.doors.process_glass import ProcessGlass
from bellglass.errors import BellglassError, LoopFault, SetupError, UsageError
from bellglass.holds import Asked
from bellglass.loop import run_loop
from bellglass.paths import content_hash, content_root
from bellglass.ports import Glass
from bellglass.received import take_over
from bellglass.recheck import prepare, recheck
from bellglass.records import Bundle, Json
from bellglass.rejudge import rejudge
from bellglass.show.conclusions import conclusions
from bellglass.steps import panel
from bellglass.steps.trial import make_documents
from bellglass.store.blobs import Blobs
from bellglass.store.ledger import Ledger
from bellglass.store.lineage import Lineage
from bellglass.store.state import fold

STORIES = content_root() / "tasks" / "stories"


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One's own for each test: loops of one id are made here and elsewhere."""
    monkeypatch.setenv(VARIABLE, str(tmp_path / "state"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_loop.write(tmp_path_factory.mktemp("made"), 2, texts=True, seed=4)


def received(made: Path, home: Path, told: str = "") -> Path:
    """The same with a task in the loop's own folder, as any ledger can say, and the hash of it."""
    folder = home / made.name
    shutil.copytree(made, folder, ignore=shutil.ignore_patterns("loop.*"))
    task = folder / "task"
    shutil.copytree(STORIES, task, ignore=shutil.ignore_patterns("__pycache__"))
    with (task / "data.py").open("a") as file:
        file.write(f"\nopen({str(home / 'ran')!r}, 'w').close()\n")
    blobs = Blobs(folder / "blobs")
    with closing(Ledger.open(made)) as ledger, closing(Ledger.create(folder)) as fresh:
        for event in ledger.events():
            if event.kind == "loop.created":
                event.body["config"]["task"] = told or str(task)
                event.body["content"]["task"] = content_hash(task)
            if event.kind == "trial.settled":
                event.body["weights"] = blobs.put(event.body["trial_id"].encode())
            fresh.append(event.kind, event.body)
    return folder


def both(folder: Path, match: str, kind: type[BellglassError], task: Path | None = None) -> None:
    with closing(Ledger.open(folder)) as ledger:
        with pytest.raises(kind, match=match):
            prepare(folder, ledger, Asked(1, task=task))
        with pytest.raises(kind, match=match):
            rejudge(folder, ledger, None, task)


@pytest.mark.parametrize("told", ["", f"./stories-{4:08x}/task"])
def test_a_task_that_is_not_shipped_is_not_run_before_a_person_names_it(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    both(received(made, tmp_path, told), "would run here with your rights", UsageError)
    assert not (tmp_path / "ran").exists()


def test_the_error_is_the_command_with_the_folder_to_name(made: Path, tmp_path: Path) -> None:
    folder = received(made, tmp_path / "with space")
    name, task = shlex.quote(str(folder)), shlex.quote(str(folder / "task"))
    asked = {
        f"recheck {name} 1 --exact": ["recheck", str(folder), "1", "--exact"],
        f"verify {name} --rejudge": ["verify", str(folder), "--rejudge"],
    }
    for command, words in asked.items():
        error = CliRunner().invoke(app, words).exception
        assert isinstance(error, UsageError)
        assert error.next_command == f"bellglass {command} --task {task}"


def test_the_page_says_so(made: Path, tmp_path: Path) -> None:
    folder = received(made, tmp_path)
    assert f"--task {folder / 'task'}" in Recheck(folder, lambda: False)({"generation": 1})


def test_the_folder_that_a_person_names_must_be_what_the_loop_began_with(made: Path, tmp_path: Path) -> None:
    folder = received(made, tmp_path)
    copy = shutil.copytree(folder / "task", tmp_path / "copy")
    with closing(Ledger.open(folder)) as ledger:
        bench = prepare(folder, ledger, Asked(1, task=copy)).bench
    assert (bench.task.folder, (tmp_path / "ran").exists()) == (copy, False)
    make_documents(bench, "select", "")  # as whatever judges with it does
    assert (tmp_path / "ran").exists()
    (copy / "data.py").write_text("")
    for other in (copy, STORIES):
        both(folder, "not what the loop began with", LoopFault, other)


def test_a_shipped_task_needs_no_name_and_takes_none(made: Path, tmp_path: Path) -> None:
    for told in ("stories", str(STORIES)):
        folder = received(made, tmp_path / told.replace("/", "_"), told)
        with closing(Ledger.open(folder)) as ledger:
            assert prepare(folder, ledger, Asked(1)).bench.task.folder == STORIES
        both(folder, "is the shipped", UsageError, folder / "task")


@dataclass
class Planting(made_loop.Maker):
    """Each trainer and each model touches a file of the host's, and the ledger says that all was sealed."""

    canary: Path = Path()
    here: dict[str, str] = field(default_factory=wiring.paths.user_host)

    def _created(self) -> Json:
        return {**super()._created(), "glass": "process", "sealed": True, **self.here}

    def _commit(self, bundle: Bundle, parent: str | None) -> str:
        code = f"open({str(self.canary)!r}, 'a').close()\n".encode()
        return super()._commit({**bundle, "trainer/train.py": code, "trainer/model.py": code}, parent)


@pytest.fixture
def planted(tmp_path: Path) -> tuple[Path, Path]:
    """A loop from elsewhere that says it was made here by this very user, and the file that its bundles touch."""
    with another_user():
        folder = tmp_path / "stories-00000004"
        maker = Planting(1, seed=4, canary=tmp_path / "canary")
        with closing(Ledger.create(folder)) as ledger:
            maker.lineage, maker.blobs = Lineage.create(folder / "lineage.git"), Blobs(folder / "blobs")
            weights = maker.blobs.put(b"weights")
            for kind, body in maker.events():
                if kind == "loop.created":
                    body["config"] |= {"preset": "tiny", "glass": "process"}
                if kind == "trial.settled":
                    body["weights"] = weights
                ledger.append(kind, body)
    return folder, tmp_path / "canary"


class Lying(ProcessGlass):
    """The same, with the defence off: it passes for sealed."""

    sealed = True


def train_again(folder: Path, glass: Glass) -> None:
    with closing(Ledger.open(folder)) as ledger:
        case = prepare(folder, ledger, Asked(1, seeds=3))
    recheck(case, glass, side_by_side=1, say=lambda again: None)


def judge_again(folder: Path, glass: Glass) -> None:
    with closing(Ledger.open(folder)) as ledger:
        rejudge(folder, ledger, glass)


def go_on(folder: Path, glass: Glass) -> None:
    with wiring.open_loop(folder, small_world.quiet(), models={}, glass=glass) as crew:
        run_loop(crew)


@pytest.mark.parametrize("act", [train_again, judge_again])
def test_what_a_stranger_wrote_runs_as_a_plain_process_only_with_the_defence_off(
    planted: tuple[Path, Path], tmp_path: Path, act: Callable[[Path, Glass], None]
) -> None:
    folder, canary = planted
    with pytest.raises(SetupError) as refused:
        act(folder, ProcessGlass(warm=False, home=tmp_path / "guests"))
    assert refused.value.code == "not_sealed"
    assert not canary.exists()
    act(folder, Lying(warm=False, home=tmp_path / "guests"))
    assert canary.exists()


def test_what_was_taken_over_does_not_run_as_a_plain_process_either(planted: tuple[Path, Path], tmp_path: Path) -> None:
    folder, canary = planted
    take_over(folder)
    for act in (train_again, judge_again, go_on):
        with pytest.raises(SetupError) as refused:
            act(folder, ProcessGlass(warm=False, home=tmp_path / "guests"))
        assert refused.value.code == "not_sealed"
    assert not canary.exists()


def test_the_glass_of_a_received_loop_is_docker_whatever_its_ledger_says(
    planted: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = planted
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere")
    with pytest.raises(SetupError) as refused, wiring.judging_glass(folder):
        pass
    assert "docker" in refused.value.code


class Reached(Exception):
    """A glass would have been opened now."""


def choosing(made: Path, home: Path) -> Path:
    """The same loop, whose ledger names a device and a container runtime."""
    folder = home / made.name
    shutil.copytree(made, folder, ignore=shutil.ignore_patterns("loop.*"))
    with closing(Ledger.open(made)) as ledger, closing(Ledger.create(folder)) as fresh:
        for event in ledger.events():
            if event.kind == "loop.created":
                event.body["config"] |= {"preset": "gpu", "device": "cuda:1", "runtime": "weaker"}
            fresh.append(event.kind, event.body)
    return folder


@pytest.mark.parametrize("defended", [True, False])
def test_device_and_runtime_of_a_received_loop_are_the_receivers_choice(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, defended: bool
) -> None:
    opened: list[tuple[str, str | None]] = []

    def docker(config: LoopConfig, loop: str = "") -> Glass:
        opened.append((config.device, config.runtime))
        raise Reached

    def believing(config: LoopConfig, standing: object, device: str | None = None) -> LoopConfig:
        return config

    with another_user():
        folder = choosing(made, tmp_path)
    monkeypatch.setattr(wiring, "_docker", docker)
    if not defended:
        monkeypatch.setattr(wiring, "on_this_machine", believing)
    for device in (None, "cuda"):
        with pytest.raises(Reached), wiring.judging_glass(folder, device):
            pass
    assert opened == ([("cpu", None), ("cuda", None)] if defended else [("cuda:1", "weaker")] * 2)


def test_what_a_received_loop_trained_on_a_gpu_is_trained_there_again_only_where_one_is_named(
    made: Path, tmp_path: Path
) -> None:
    with another_user():
        folder = choosing(made, tmp_path)
        with closing(Ledger.open(folder)) as ledger:
            assert prepare(folder, ledger, Asked(1)).bench.device == "cuda:1", "it is theirs"
    with closing(Ledger.open(folder)) as ledger:
        for act in (lambda: prepare(folder, ledger, Asked(1)), lambda: rejudge(folder, ledger, Lying(warm=False))):
            with pytest.raises(UsageError) as refused:
                act()
            assert refused.value.code == "preset_device_mismatch"
            assert "--device cuda" in refused.value.next_command
        assert prepare(folder, ledger, Asked(1, device="cuda")).bench.device == "cuda"


def test_resume_runs_no_task_of_the_sender_before_a_person_names_it(made: Path, tmp_path: Path) -> None:
    with another_user():
        folder = received(made, tmp_path)
    take_over(folder)
    glass = Lying(warm=False, home=tmp_path / "guests")
    opened = wiring.open_loop(folder, small_world.quiet(), models={}, glass=glass)
    with pytest.raises(UsageError) as refused, opened:
        pass
    assert (refused.value.code, (tmp_path / "ran").exists()) == ("task_not_trusted", False)
    assert refused.value.next_command == f"bellglass resume {folder} --task {folder / 'task'}"


class Docker(Lying):
    name = "docker"


def test_after_a_takeover_ledger_and_terminal_name_the_glass_that_is_opened_and_where_the_noise_is_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guests = tmp_path / "guests"
    with another_user():
        folder = small_world.create(tmp_path / "loops")
        models, glass = {"main": small_world.Tuner()}, ProcessGlass(warm=False, forks=True, home=guests)
        with wiring.open_loop(folder, small_world.quiet(), models=models, glass=glass) as crew:
            found = panel.calibrate(crew.place.lab, crew.state, crew.conditions, crew.shelf, seeds=2)
            crew.place.books.record("loop.calibrated", smallest_gain=1.0, **found)
    take_over(folder)
    monkeypatch.setattr(wiring, "_open_glass", lambda name, config, loop: Docker(warm=False, home=guests))
    monkeypatch.setattr("bellglass.loop.run_loop", lambda crew, before: None)
    told = CliRunner().invoke(app, ["resume", str(folder)])
    with closing(Ledger.open(folder)) as ledger:
        events = ledger.events()
    assert events[-1].kind == "glass.opened"
    assert events[-1].body == {"glass": "docker", "sealed": True, "why_alone": "", "noise_from": "process"}
    assert "measured in glass process" in line_for(events[-1])
    assert fold(events).glasses == ["process", "docker"]
    assert "glass docker (sealed)" in told.stderr
    assert "UNSEALED" not in told.stderr
    assert "process, then docker glass, unsealed" in told.stdout
    assert any("process, then docker" in line for line in conclusions(fold(events))["may_not"])
