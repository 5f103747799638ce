"""The only place that opens doors: it picks a glass and a model and hands the parts of a loop to each other.

Refuses here, before anything is spent, what must not come together: a hosted model outside a sealed glass, or an
unsealed glass for a lineage that was not made here by a built-in improver (received.py).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from bellglass import __version__, paths, processes, tasks, tripwires
from bellglass.bounds import Bounds
from bellglass.calibration import Conditions, Shelf, speed_reference
from bellglass.config import LoopConfig, restore, wants_hosted
from bellglass.contradictions import refuse_contradictions
from bellglass.errors import LoopFault, SetupError, UsageError
from bellglass.gpus import gpu_of, guest_device
from bellglass.halt import Killer
from bellglass.line.gateway import Gateway
from bellglass.line.warm import WarmGlass
from bellglass.loop import take_requests
from bellglass.ports import Board, Glass, Model
from bellglass.received import glass_name, on_this_machine, require_fit, trusted_task
from bellglass.records import Bundle, Json, Kind, Role
from bellglass.review import Reviewer
from bellglass.steps.generation import Crew
from bellglass.steps.propose import Limits, Workplace
from bellglass.steps.rehearsal import rehearse
from bellglass.steps.trial import Lab, Progress, Workbench
from bellglass.store import bundles, driver_log, ours
from bellglass.store.blobs import Blobs
from bellglass.store.books import Books, Listener
from bellglass.store.folder import SECRET_BYTES, read_plain
from bellglass.store.ledger import Ledger
from bellglass.store.lineage import Lineage
from bellglass.store.live_curves import LiveCurves
from bellglass.store.new_folder import begin_folder, end_folder
from bellglass.store.ours import Standing
from bellglass.store.state import State, fold
from bellglass.tasks import Preset, Task
from bellglass.verify import require_committed

CALIBRATIONS = "calibrations"  # a folder beside the loops
SESSION_SECONDS = {False: 600.0, True: 3600.0}  # wall time of one improver session: built-in, hosted
SESSION_CALLS = {False: 60, True: 120}


@dataclass(frozen=True, slots=True)
class Surface:
    """What the outside sees and says while a loop runs."""

    listener: Listener | None
    progress: Progress
    reviewer: Reviewer | None
    interrupted: Callable[[], None]  # raises Interrupted after Ctrl-C


def create(config: LoopConfig, home: Path, starter: Bundle | None = None, *, calibrates: int = 0) -> Path:
    """Make a new loop's folder, ready to run; checks everything that can be checked before.

    `starter` replaces the bundle of generation 0, for labs and tests. `calibrates`: it is no loop but a calibration on
    that many seeds.
    """
    task = tasks.load(config.task)
    refuse_contradictions(config, task)
    glass_name = choose_glass(config)
    paths.refuse_network_filesystem(home)
    paths.require_free_disk(home, 500_000_000, "a loop's folder")
    ours.ready()
    secret = secrets.token_bytes(SECRET_BYTES) if config.seed is None else seeded_secret(config.seed)
    rehearse(Workbench(task, config.preset_of(task), secret, config.device, side_by_side(config)))
    loop_id = secrets.token_hex(4)
    folder = home / paths.loop_name(task.name, loop_id)
    making = begin_folder(home, loop_id)
    _write_secret(making, secret)
    lineage = Lineage.create(making / "lineage.git")
    first = lineage.commit(bundles.starter() if starter is None else starter, None, "starter")
    with Ledger.create(making) as ledger:
        ledger.append(
            "loop.created",
            {
                "loop_id": loop_id,
                "version": __version__,
                "task": task.name,
                "config": config.model_dump(mode="json"),
                "starter": first,
                "secret_commitment": hashlib.sha256(secret).hexdigest(),
                "glass": glass_name,
                "sealed": glass_name == "docker",
                "content": tasks.contents(task),
                "confirm_slices": task.confirm_slices,
                "tripwires": tripwires.NAMES,
                **({"calibrates": calibrates} if calibrates else {}),
                **paths.user_host(),
            },
        )
    end_folder(making, folder)
    return folder


def seeded_secret(seed: int) -> bytes:
    """For demos and tests: everything that is drawn follows from the seed. Such a secret is none."""
    return hashlib.blake2b(f"bellglass seed {seed}".encode(), digest_size=32).digest()


@contextlib.contextmanager
def open_loop(
    folder: Path,
    surface: Surface,
    overrides: Mapping[str, object] | None = None,
    *,
    models: Mapping[str, Model] | None = None,
    glass: Glass | None = None,
    named: Path | None = None,
) -> Iterator[Crew]:
    """Own a loop: ledger lock, doors, parts. Settles first what an earlier owner left open.

    `named`: the folder of a task that came with a loop from elsewhere, once a person trusts it. `models` and `glass`
    replace the doors that the config names, for labs and tests.
    """
    with Ledger.open(folder, write=True) as ledger, driver_log.opened(folder):
        standing = ledger.standing()
        books = Books(ledger, Blobs(folder / "blobs"), Bounds(), driver_log.listening(surface.listener))
        config = restore(books.state.config, overrides)
        task = _task_of(folder, books.state, standing, named)
        books.bounds = config.bounds
        driver_log.LOG.info("left open by an earlier driver, now settled: %d", books.settle_orphans())
        books.blobs.sweep()
        finished = books.state.ended is not None and books.state.ended["why"] == "finished"
        if finished and overrides:
            found = "finished: `final` was opened and the secret is revealed"
            raise UsageError(f"loop {folder.name}", found, "a new loop", "bellglass run --help", code="loop_finished")
        if _final_begun(books.state) and config.generations != books.state.config["generations"]:
            found, go_on = "`final` was opened", f"bellglass resume {paths.typed(folder)}"
            raise UsageError(
                f"loop {folder.name}", found, "no other number of generations", go_on, code="loop_finished"
            )
        if ledger.last_seq > 1 and not finished:
            changed = _changed(books.state.created, task)
            books.record("loop.resumed", config=config.model_dump(mode="json"), **changed)
        if models is None:
            models = {name: open_model(provider, config) for name, provider in config.models.items()}
        if glass is None:
            name = glass_name(standing, books.state.created["glass"])
            glass = _open_glass(name, config, books.state.loop_id)
        try:
            require_fit(glass, standing, hosted=any(model.hosted for model in models.values()))
            glass.reap()
            if not finished:
                _say_what_is_opened(books, glass)
            yield _crew(folder, books, config, task, glass, models, surface)
        finally:
            glass.close()


def _task_of(folder: Path, state: State, standing: Standing, named: Path | None) -> Task:
    """The loop's task. Its data.py runs on the host: one that came from elsewhere, only where a person names it."""
    if standing.made_here and named is None:
        return tasks.reopen(state.config["task"], state.created["content"])
    return trusted_task(state, named, f"bellglass resume {paths.typed(folder)}")


def _say_what_is_opened(books: Books, glass: Glass) -> None:
    """Where the ledger does not say it yet. Noise is not measured again: all gates of a loop start from one."""
    state, why = books.state, glass.find_why_alone()
    if (glass.name, why) != (state.glasses[-1], state.why_alone):
        measured = state.calibration["conditions"]["glass"] if state.calibration else glass.name
        elsewhere = measured if measured != glass.name else None
        books.record("glass.opened", glass=glass.name, sealed=glass.sealed, why_alone=why, noise_from=elsewhere)


def _changed(created: Json, task: Task) -> Json:
    """For `loop.resumed`: the hashes of what is not what the loop began with, so that the ledger says it."""
    now = tasks.contents(task)
    content = {part: found for part, found in now.items() if created["content"].get(part) != found}
    return {"content": content} if content else {}


def _final_begun(state: State) -> bool:
    trials = [*(trial.purpose for trial in state.trials.values()), *(t["purpose"] for t in state.open_trials.values())]
    return state.final is not None or "final" in trials


def _crew(
    folder: Path,
    books: Books,
    config: LoopConfig,
    task: Task,
    glass: Glass,
    models: Mapping[str, Model],
    surface: Surface,
) -> Crew:
    lineage = Lineage.open(folder / "lineage.git")
    hosted = any(model.hosted for model in models.values())

    def check() -> None:
        surface.interrupted()
        take_requests(books)
        books.tick()

    preset = config.preset_of(task)
    secret = _read_secret(folder, books.state)
    bench = Workbench(task, preset, secret, config.device, side_by_side(config))
    live = LiveCurves(folder / "live")
    live.sweep()
    lab = Lab(books, lineage, glass, bench, live, progress=driver_log.following(surface.progress), check=check)
    place = Workplace(
        glass=glass,
        gateway=Gateway(models, books),
        books=books,
        lineage=lineage,
        lab=lab,
        may_edit=frozenset(Kind(kind) for kind in config.may_edit),
        limits=Limits(config.trials_per_generation, SESSION_CALLS[hosted], SESSION_SECONDS[hosted]),
        check=check,
    )
    seed = int.from_bytes(hashlib.sha256(bench.secret + b"improver").digest()[:4], "big")
    seed = seed if config.seed is None else config.seed
    conditions = _conditions(books, config, task, preset, glass)
    shelf = Shelf(folder.parent if books.state.created.get("calibrates") else folder.parent / CALIBRATIONS)
    return Crew(place, config, task.brief(), surface.reviewer, seed, models, conditions, shelf)


def _conditions(books: Books, config: LoopConfig, task: Task, preset: Preset, glass: Glass) -> Conditions:
    created = books.state.created
    return Conditions(
        task=config.task,
        preset=preset.name,
        budget=preset.budget.text,
        device=config.device,
        glass=glass.name,
        starter=books.state.starter,
        images=f"{created['content']['sandbox'][:16]}, {glass.content}",
        documents=tasks.documents_hash(task, preset),
        speed_ms=0.0 if config.virtual_clock else speed_reference(),
    )


def side_by_side(config: LoopConfig) -> int:
    """One trainer per core, each with one thread; one at a time on a GPU."""
    return processes.cores() if gpu_of(config.device) is None else 1


# Doors


def open_model(provider: str, config: LoopConfig) -> Model:
    from bellglass.doors.litellm_model.provider import PROVIDERS
    from bellglass.doors.offline_model import IMPROVERS, OfflineModel

    if provider in IMPROVERS:
        return OfflineModel(provider)
    family, _, name = provider.partition("/")
    if family not in PROVIDERS or not name:
        needed = ", ".join([*IMPROVERS, *(f"{known}/NAME" for known in PROVIDERS)])
        raise UsageError("the model", repr(provider), needed, "bellglass run --help", code="no_such_model")
    from bellglass.doors.litellm_model import LitellmModel

    return LitellmModel(provider, free=provider in config.free_models)


def choose_glass(config: LoopConfig) -> str:
    """`auto` is Docker where engine and images are there; a hosted model never gets less. It is opened, to be sure."""
    hosted = wants_hosted(config)
    if config.glass == "process" and hosted:
        raise SetupError(
            "the process glass", "a hosted model", "a sealed glass", "bellglass run --glass docker", code="not_sealed"
        )
    if config.glass != "process":
        try:
            _docker(config)
        except SetupError:
            if config.glass == "docker" or hosted:
                raise
        else:
            return "docker"
    _process(config)
    return "process"


def _docker(config: LoopConfig, loop: str = "") -> Glass:
    from bellglass.doors.docker.glass import DockerGlass

    return DockerGlass(runtime=config.runtime, device=guest_device(config.device), loop=loop)


def _process(config: LoopConfig) -> Glass:
    from bellglass.doors.process_glass import ProcessGlass, require_gpu

    gpu = gpu_of(config.device)
    if gpu is not None:
        require_gpu(gpu)
    return ProcessGlass()


def _open_glass(name: str, config: LoopConfig, loop: str) -> Glass:
    ready = side_by_side(config)
    glass = _docker(config, loop) if name == "docker" else _process(config)
    return WarmGlass(glass, {Role.TRAIN: ready, Role.PREDICT: ready})


def _read_secret(folder: Path, state: State) -> bytes:
    try:
        secret = read_plain(folder / "secret", SECRET_BYTES)
    except OSError as error:
        found = f"its secret file: {error.strerror}"
        raise LoopFault(
            f"loop {folder.name}", found, "a readable one", "restore the folder from a copy", code="secret_unreadable"
        ) from error
    return require_committed(folder, state, secret)


def _write_secret(folder: Path, secret: bytes) -> None:
    descriptor = os.open(folder / "secret", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(secret)
        file.flush()
        os.fsync(file.fileno())


def require_server(model: Model) -> None:
    """SetupError where nothing answers at its address: said before a prompt is sent."""
    from bellglass.doors.litellm_model import LitellmModel

    if isinstance(model, LitellmModel):
        model.reachable()


# Where runs are told to others


def wandb_mode(asked: str | None, project: str | None = None, entity: str | None = None) -> str:
    """online, offline or disabled; an error where that or the names cannot be, before anything is done."""
    from bellglass.doors import wandb_sink

    mode = wandb_sink.mode_from(asked, os.environ)
    if mode != "disabled":
        wandb_sink.check_installed()
        wandb_sink.names_from(project, entity, os.environ)
    return mode


@contextlib.contextmanager
def wandb_board(
    root: Path, loop: str, mode: str, project: str | None = None, entity: str | None = None
) -> Iterator[Board]:
    from bellglass.doors import wandb_sink

    with wandb_sink.opened(root, loop, mode, project=project, entity=entity) as sink:
        yield sink


# For the commands that decide and check


def killer(folder: Path) -> Killer:
    """Ends what is left of this loop's guests, whatever state its driver is in; returns how many resist."""

    def kill() -> int:
        created, standing = _beginning(folder)
        if glass_name(standing, str(created["glass"])) == "docker":
            from bellglass.doors.docker.reaper import kill_all

            return kill_all({"loop": str(created["loop_id"])})
        from bellglass.doors.process_glass import ProcessGlass

        ProcessGlass().reap()
        return 0

    return kill


@contextlib.contextmanager
def judging_glass(folder: Path, device: str | None = None) -> Iterator[Glass]:
    """A glass that this loop's bundles may run in, to judge its stored weights again, or to train again. `device`: a
    person's choice, in place of the loop's."""
    created, standing = _beginning(folder)
    config = on_this_machine(restore(created["config"]), standing, device)
    glass = _open_glass(glass_name(standing, str(created["glass"])), config, str(created["loop_id"]))
    try:
        require_fit(glass, standing, hosted=wants_hosted(config))
        yield glass
    finally:
        glass.close()


def _beginning(folder: Path) -> tuple[Json, Standing]:
    """What the loop's first event says, and whose it is."""
    with Ledger.open(folder) as ledger:
        state, standing = fold(ledger.events()), ledger.standing()
    if state.created is None:
        found, needed = "no event that says how the loop began", "a ledger with a beginning"
        again = f"bellglass verify {paths.typed(folder)}"
        raise LoopFault(f"ledger {folder}", found, needed, again, code="ledger_without_beginning")
    return state.created, standing


def docker_self_check() -> list[tuple[str, bool | None, str]]:
    from bellglass.doors.docker import channels, selfcheck

    return [*selfcheck.check(), *channels.check()]


def build_images(device: str, base: str | None, wheels: Path | None) -> Iterator[str]:
    from bellglass.doors.docker.image import build

    return build(device, base, wheels)
