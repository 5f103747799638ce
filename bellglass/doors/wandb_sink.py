"""Where runs go: Weights & Biases, online or into an offline folder. The only importer of wandb: late, and silenced.

It asks nobody anything, and keeps all that wandb writes (runs, staged files, cache) below one folder. wandb's settings
are those given here: a file of them in that folder may be somebody else's, and name a proxy for the key. What an
earlier export of the same loop left there is removed when the first new run has started, so a loop is in the folder
once. Nothing about the machine, its packages or its git repository is told.

Not covered: a run that somebody deleted on the server; W&B gives its id to nobody again. And a server that never
answers: `finish` then waits as wandb does, so whoever must not wait runs this in another process.
"""

from __future__ import annotations

import configparser
import contextlib
import fcntl
import functools
import importlib.metadata
import math
import netrc
import os
import re
import shutil
import tempfile
import urllib.parse
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from bellglass.errors import BellglassError, SetupError, UsageError
from bellglass.paths import install_command
from bellglass.ports import Artifact, Opening, Row, Table
from bellglass.records import Json

PROJECT = "bellglass"
SERVER = "https://api.wandb.ai"
MODES = {"online": "online", "run": "online", "shared": "online", "offline": "offline", "dryrun": "offline"}
MODES |= {"disabled": "disabled"}
FOLDER, LOCK = "wandb", "bellglass.lock"
# What wandb sees of the environment. A run of the person's own, a sweep or a launch may have left anything else there.
HONOURED = (
    "WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_BASE_URL", "WANDB_TAGS", "WANDB_USERNAME", "WANDB_USER_EMAIL",
    "WANDB_INIT_TIMEOUT", "WANDB_FINISH_TIMEOUT", "WANDB_HTTP_TIMEOUT",
)  # fmt: skip
UPLOAD_SECONDS = 600.0  # of one run's end; WANDB_FINISH_TIMEOUT says otherwise
NO_PART_OF_A_NAME = "/\\#?%:"  # wandb refuses them in a project, and takes them in an entity, which no server has
NAME_CHARS = 128
LOG_HEADER, LOG_BLOCK = 7, 2**15  # of a run's log, in LevelDB's format; each part of a record has a header as long


def check_installed() -> None:
    """Without importing it, which takes seconds."""
    try:
        importlib.metadata.version("wandb")
    except importlib.metadata.PackageNotFoundError:
        raise SetupError(
            "Weights & Biases",
            "wandb is not installed",
            "the extra `wandb`",
            install_command("wandb"),
            code="library_missing",
        ) from None


def mode_from(asked: str | None, environ: Mapping[str, str]) -> str:
    """online, offline or disabled: as asked, else as WANDB_MODE says, else online where there is a key. What else wandb
    takes from the environment is checked, too."""
    wanted = asked or environ.get("WANDB_MODE", "").strip().lower()
    if wanted and wanted not in MODES:
        raise UsageError(
            "WANDB_MODE",
            repr(wanted),
            "online, offline or disabled",
            "bellglass export wandb --help",
            code="option_invalid",
        )
    if wanted and MODES[wanted] == "disabled":
        return "disabled"
    seconds_from(environ)
    key = server_and_key(environ)[1]
    if not wanted:
        return "online" if key else "offline"
    if MODES[wanted] == "online" and not key:
        needed = "a key: WANDB_API_KEY, or what `wandb login` stored"
        raise SetupError(
            "Weights & Biases online", "no key", needed, "bellglass export wandb --offline", code="key_missing"
        )
    return MODES[wanted]


def names_from(project: str | None, entity: str | None, environ: Mapping[str, str]) -> tuple[str, str | None]:
    """Project and entity: as typed, else from the environment. A name that W&B refuses is said before anything else."""
    return _name("project", project, environ) or PROJECT, _name("entity", entity, environ)


def _name(word: str, typed: str | None, environ: Mapping[str, str]) -> str | None:
    option, variable = f"--{word}", f"WANDB_{word.upper()}"
    name = typed or environ.get(variable) or None
    if name is None or (len(name) <= NAME_CHARS and name.isprintable() and not set(NO_PART_OF_A_NAME) & set(name)):
        return name
    needed = f"at most {NAME_CHARS} characters that can be printed, none of {' '.join(NO_PART_OF_A_NAME)}"
    if word == "project" and "/" in name:
        needed += "; a team is --entity"
    how = f"bellglass export wandb {option} NAME" if typed else f"export {variable}=NAME"
    raise UsageError(option if typed else variable, repr(name), needed, how, code="option_invalid")


def seconds_from(environ: Mapping[str, str]) -> float:
    """How long the end of a run may take; the other times are checked, too."""
    found: dict[str, float] = {}
    for name in ("WANDB_INIT_TIMEOUT", "WANDB_HTTP_TIMEOUT", "WANDB_FINISH_TIMEOUT"):
        text = environ.get(name) or str(UPLOAD_SECONDS)
        try:
            found[name] = float(text)
        except ValueError:
            found[name] = math.nan
        if not 0.0 <= found[name] < math.inf:
            raise UsageError(name, repr(text), "a number of seconds", f"export {name}=60", code="option_invalid")
    return found["WANDB_FINISH_TIMEOUT"]


def server_and_key(environ: Mapping[str, str]) -> tuple[str, str | None]:
    """As wandb finds them: environment, .netrc, its settings file. A key is found here and said nowhere."""
    settings = _settings_file(environ)
    server = environ.get("WANDB_BASE_URL") or settings.get("base_url") or SERVER
    if not _is_address(server):
        thing = "WANDB_BASE_URL" if environ.get("WANDB_BASE_URL") else "base_url in W&B's settings file"
        raise UsageError(
            thing, repr(server), "a server's address", f"export WANDB_BASE_URL={SERVER}", code="option_invalid"
        )
    key = environ.get("WANDB_API_KEY") or environ.get("WANDB_IDENTITY_TOKEN_FILE")
    return server, key or _netrc_key(environ, server) or settings.get("api_key")


def _is_address(server: str) -> bool:
    try:
        parts = urllib.parse.urlsplit(server)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # of brackets or a port
        return False


def _settings_file(environ: Mapping[str, str]) -> Mapping[str, str]:
    home = environ.get("WANDB_CONFIG_DIR") or Path(environ.get("HOME", "/nonexistent"), ".config", "wandb")
    found = configparser.ConfigParser(interpolation=None)
    try:
        found.read(Path(home) / "settings", "utf-8")
    except (OSError, configparser.Error, UnicodeDecodeError):
        return {}
    return dict(found["default"]) if found.has_section("default") else {}


def _netrc_key(environ: Mapping[str, str], server: str) -> str | None:
    home = Path(environ.get("HOME", "/nonexistent"))
    files = [Path(environ["NETRC"])] if environ.get("NETRC") else [home / ".netrc", home / "_netrc"]
    host = urllib.parse.urlsplit(server).netloc
    for file in files:
        try:
            found = netrc.netrc(str(file)).authenticators(host)
        except (OSError, netrc.NetrcParseError, UnicodeDecodeError):
            continue
        if found and found[2]:
            return found[2]
    return None


@functools.cache
def _load() -> Any:
    check_installed()
    with _translated("importing wandb", False):
        import wandb
    return wandb


class Sink:
    """One loop's runs; made by `opened`. `earlier`: folders that go once the first run has started."""

    def __init__(
        self, root: Path, private: Path, online: bool, settings: Mapping[str, Json], earlier: Iterable[Path]
    ) -> None:
        self._wandb, self.root, self._private, self.online, self._settings = _load(), root, private, online, settings
        self._earlier = list(earlier)
        self.address = ""  # of the loop's run, where there is a server
        self.missing: list[str] = []
        self._logs: list[Path] = []

    def run(self, opening: Opening) -> Run:
        with _translated("starting a run", self.online), contextlib.chdir(self._private):
            quiet = self._wandb.Settings(**self._settings)
            run = self._wandb.init(
                mode="online" if self.online else "offline",
                dir=str(self.root),
                id=opening.id,
                name=opening.name,
                group=opening.group,
                job_type=opening.job_type,
                config=opening.config,
                notes=opening.notes,
                resume="allow" if self.online else None,  # offline each is a fresh one, in a folder of its own
                reinit="create_new",
                settings=quiet,
            )
            run.config.update(opening.config, allow_val_change=True)  # over what the server had of it
            for step in dict.fromkeys(step for _, step in opening.steps):
                run.define_metric(step)
            for metric, step in opening.steps:
                run.define_metric(metric, step_metric=step)
            while self._earlier:
                shutil.rmtree(self._earlier.pop())
        self._logs.append(Path(run.settings.sync_file))
        self.address = self.address or str(run.url or "")
        return Run(self._wandb, run, self)

    def close(self) -> None:
        """wandb's helper process keeps the folders that it began with. Offline, it says nothing of a full disk."""
        try:
            self._wandb.teardown()
        except SystemExit as stopped:
            raise RuntimeError(f"its helper process ended with {stopped.code}") from stopped
        for log in () if self.online else self._logs:
            record = self._wandb.proto.wandb_internal_pb2.Record()
            record.ParseFromString(last_record(log.read_bytes()))
            if record.WhichOneof("record_type") != "exit":
                raise SetupError(
                    str(log),
                    "a log without its end",
                    "free disk space",
                    "bellglass export wandb -o FOLDER",
                    code="disk_full",
                )


def last_record(log: bytes) -> bytes:
    """The last that is whole; of a log that a full disk cut within one, none."""
    place, parts, whole = LOG_HEADER, b"", False
    while place < len(log):
        if (room := LOG_BLOCK - place % LOG_BLOCK) < LOG_HEADER:  # padding of a block
            place += room
            continue
        length, kind = int.from_bytes(log[place + 4 : place + 6], "little"), log[place + 6 : place + 7]
        start, place = place + LOG_HEADER, place + LOG_HEADER + length
        if place > len(log) or kind not in (b"\1", b"\2", b"\3", b"\4"):  # all of it, its first part, middle, last
            return b""
        parts, whole = (b"" if kind < b"\3" else parts) + log[start:place], kind in (b"\1", b"\4")
    return parts if whole else b""


class Run:
    def __init__(self, wandb: Any, run: Any, sink: Sink) -> None:
        self._wandb, self._run, self._sink = wandb, run, sink

    def log(self, row: Row, place: int, time: float | None) -> None:
        """W&B changes no row that it has: those that the server counts as told are not told again."""
        if place < self._run.starting_step:
            return
        stamp = {} if time is None else {"_timestamp": time}
        with _translated("telling W&B a row", self._sink.online):
            self._run.log({**row, **stamp}, step=place, commit=True)

    def artifact(self, artifact: Artifact) -> None:
        with _translated("storing an artifact", self._sink.online):
            made = self._wandb.Artifact(artifact.name, type=artifact.type, metadata=dict(artifact.metadata))
            for path, content in artifact.files.items():
                if isinstance(content, Path):  # of the loop's folder, where nothing changes: it need not be copied
                    made.add_file(str(content.absolute()), name=path, policy="immutable", skip_cache=True)
                else:
                    with made.new_file(path, mode="wb") as file:
                        file.write(content)
            self._run.log_artifact(made, aliases=list(artifact.aliases))

    def uses(self, name: str, alias: str) -> None:
        """Offline there is nobody to ask, and wandb raises. That an edge is missing costs no figure."""
        if not self._sink.online:
            return
        try:
            with _translated(f"the edge from {name}:{alias}", True):
                self._run.use_artifact(f"{name}:{alias}")
        except BellglassError as error:
            self._sink.missing.append(error.one_line())

    def configure(self, config: Row) -> None:
        with _translated("telling W&B a setting", self._sink.online):
            self._run.config.update(config, allow_val_change=True)

    def finish(self, summary: Row, tables: Mapping[str, Table], exit_code: int = 0) -> None:
        """Tables are part of the summary, which may change; rows may not. By its exit code W&B says "failed"."""
        with _translated("ending a run", self._sink.online):
            made = {
                name: self._wandb.Table(columns=columns, data=rows, allow_mixed_types=True)
                for name, (columns, rows) in tables.items()
            }
            self._run.summary.update({**summary, **made})
            self._run.finish(exit_code)


@contextlib.contextmanager
def opened(
    root: Path, loop: str, mode: str, *, project: str | None = None, entity: str | None = None
) -> Iterator[Sink]:
    """`root`/wandb is the folder; `loop` begins the ids of all runs that will be told."""
    project, entity = names_from(project, entity, os.environ)
    check_installed()
    online, folder = mode == "online", root.absolute() / FOLDER
    server, key = server_and_key(os.environ)
    settings: dict[str, Json] = {
        "base_url": server, "project": project, "entity": entity,
        "console": "off", "silent": True, "host": "", "disable_git": True, "disable_code": True,
        "disable_job_creation": True, "finish_timeout_raises": True,
        "finish_timeout": seconds_from(os.environ),
        "x_disable_meta": True, "x_disable_stats": True, "x_disable_machine_info": True, "x_save_requirements": False,
    }  # fmt: skip
    if online and key and not {"WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE"} & set(os.environ):
        settings["api_key"] = key
    _refuse_links(folder, loop)
    with (
        _locked(folder),
        _translated("Weights & Biases", online),
        _private() as private,
        _environment(folder, private, loop, mode),
    ):
        sink = Sink(folder.parent, private, online, settings, _earlier(folder, loop))
        yield sink
        sink.close()


@contextlib.contextmanager
def _private() -> Iterator[Path]:
    """A folder that only this export knows: for what wandb keeps apart from runs, and the current one while it starts
    a run, because it believes a `wandb/settings` and a `config-defaults.yaml` there. Nothing else in this process opens
    a file then."""
    with tempfile.TemporaryDirectory(prefix="bellglass-wandb-", ignore_cleanup_errors=True) as made:
        yield Path(made)


def _refuse_links(folder: Path, loop: str) -> None:
    """What wandb writes, and what an earlier export's removal takes, shall be below `folder`."""
    ways = [folder, folder / LOCK, folder / "data", folder / "data" / loop, folder / "cache"]
    for top in ways[3:]:
        for place, folders, files in os.walk(top):
            ways += [Path(place, name) for name in (*folders, *files)]
    for way in ways:
        if way.is_symlink():
            found, needed = f"a link to {os.readlink(way)}", "no link: files there are written and removed"
            raise UsageError(str(way), found, needed, "bellglass export wandb -o FOLDER", code="link_refused")


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        needed = "a folder this user may write"
        raise SetupError(
            f"folder {folder}", error.strerror or str(error), needed, "-o FOLDER", code="folder_unwritable"
        ) from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        found = "another export is writing there"
        raise UsageError(
            f"folder {folder}", found, "that one to end, or another folder", "-o FOLDER", code="export_under_way"
        ) from None
    else:
        yield
    finally:
        os.close(handle)


@contextlib.contextmanager
def _environment(folder: Path, private: Path, loop: str, mode: str) -> Iterator[None]:
    """wandb takes its folders from the environment alone. All is put back, because a notebook has runs of its own."""
    before = dict(os.environ)
    try:
        for name in before:
            if name.startswith("WANDB_") and name not in HONOURED:
                del os.environ[name]
        if token := os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
            os.environ["WANDB_IDENTITY_TOKEN_FILE"] = os.path.abspath(token)
        homes = {"DATA_DIR": folder / "data" / loop, "CACHE_DIR": folder / "cache", "CONFIG_DIR": private}
        for name, home in homes.items():
            os.environ[f"WANDB_{name}"] = str(home)
            home.mkdir(parents=True, exist_ok=True)
        os.environ |= {
            "WANDB_DIR": str(folder.parent),
            "WANDB_USE_DOT_WANDB": "false",  # even where there is a `.wandb`
            "WANDB_ERROR_REPORTING": "false",
            "WANDB_SAGEMAKER_DISABLE": "true",
            "WANDB_SILENT": "true",
            "WANDB_MODE": mode,
        }
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _earlier(folder: Path, loop: str) -> list[Path]:
    """What an earlier export of this loop left: two folders of one run would both be synced."""
    own = re.compile(rf"(offline-)?run-\d{{8}}_\d{{6}}-{re.escape(loop)}-(loop|gen-\d+|trial-.*)")
    found = [path for path in folder.iterdir() if own.fullmatch(path.name)]
    found.append(folder / "data" / loop / "artifacts")
    return [path for path in found if path.is_dir() and not path.is_symlink()]


@contextlib.contextmanager
def _translated(doing: str, online: bool) -> Iterator[None]:
    try:
        yield
    except BellglassError:
        raise
    except Exception as error:  # boundary: wandb raises its own errors, those of its libraries and plain Python ones
        said = " ".join(str(error).split())[:300] or type(error).__name__
        raise SetupError(f"Weights & Biases: {doing}", said, *_remedy(error, online), code="wandb_failed") from error


def _remedy(error: Exception, online: bool) -> tuple[str, str]:
    """What is needed, and the next command."""
    if type(error).__name__ == "ValidationError":  # pydantic's, of wandb's settings: no server was asked yet
        return "WANDB_ variables that wandb takes", "bellglass export wandb --help"
    if online:
        return "a server that answers and takes the key; offline needs neither", "bellglass export wandb --offline"
    return "a wandb that runs, and a folder that it may write", "bellglass export wandb -o FOLDER"
