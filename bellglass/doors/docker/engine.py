"""One local Docker daemon, with a time-out on every call. The only importer of the Docker SDK.

Every exception of docker, requests, urllib3 and the socket below them leaves here as a SetupError that names the
thing, what was found, what was needed and the next command. Calls that end a container take "is gone" for success.

Local unix sockets only: a guest's life hangs on this process's end of a socket, and a remote machine's daemon may
keep that alive. Rootless with cgroup v1 is refused, because there no limit holds.

Not covered: a daemon that lies. Who may talk to it is root on this machine.
"""

from __future__ import annotations

import contextlib
import io
import os
import secrets
import socket
import tarfile
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from bellglass.errors import SetupError
from bellglass.records import Json

CALL_SECONDS = 5.0
LONGEST_SILENCE_OF_A_BUILD = 1800.0  # pip says nothing while it unpacks torch


class Gone(Exception):
    """The container or image does not exist (any more). Never leaves the package."""


class NotRunning(Exception):
    """The container is not running, or is being removed. Never leaves the package."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What the daemon says about itself."""

    url: str
    version: str
    kernel: str
    cgroup_version: str
    rootless: bool
    maps_ids: bool  # users of a container are others outside, from a range of some 65,000
    storage: str  # the driver and the file system below it, such as "overlay2 on extfs"
    runtimes: tuple[str, ...]
    default_runtime: str
    limits: Mapping[str, bool]  # MemoryLimit, SwapLimit, PidsLimit, CpuCfsQuota


@dataclass(frozen=True, slots=True)
class Listed:
    id: str
    labels: Mapping[str, str]
    state: str


class Engine:
    """Threads may share one. `Engine.connect()` finds the daemon and says why there is none."""

    def __init__(self, api: Any, url: str) -> None:
        self._api = api
        self.url = url
        self._facts: Facts | None = None

    @classmethod
    def connect(cls, url: str | None = None) -> Engine:
        found = [url] if url else socket_urls()
        refused: SetupError | None = None
        for candidate in found:
            try:
                with _translated("the Docker engine", candidate):
                    _knock(candidate)
                    api = _docker().APIClient(base_url=candidate, version="auto", timeout=CALL_SECONDS)
                return cls(api, candidate)._fit()
            except SetupError as fault:
                refused = refused or fault
        raise refused or SetupError(
            "the Docker engine",
            "no socket found",
            "Docker on this machine",
            "see https://docs.docker.com/engine/install/",
            code="docker_silent",
        )

    def _fit(self) -> Engine:
        try:
            self.refuse_unfit()
        except SetupError:
            self.close()
            raise
        return self

    def close(self) -> None:
        """Only the idle connections: the pipes of guests belong to the guests."""
        self._api.close()

    def facts(self) -> Facts:
        if self._facts is None:
            with self._translated("the Docker engine"):
                info, version = self._api.info(), self._api.version()
            options = " ".join(info.get("SecurityOptions") or ())
            limits = ("MemoryLimit", "SwapLimit", "PidsLimit", "CpuCfsQuota")
            self._facts = Facts(
                url=self.url,
                version=str(version.get("Version", "?")),
                kernel=str(info.get("KernelVersion") or "?"),
                cgroup_version=str(info.get("CgroupVersion") or "1"),
                rootless="name=rootless" in options,
                maps_ids="name=rootless" in options or "name=userns" in options,
                storage=_storage(info),
                runtimes=tuple(sorted(info.get("Runtimes") or ())),
                default_runtime=str(info.get("DefaultRuntime") or "?"),
                limits={name: bool(info.get(name)) for name in limits},
            )
        return self._facts

    def refuse_unfit(self) -> None:
        facts = self.facts()
        if facts.rootless and facts.cgroup_version == "1":
            raise SetupError(
                f"the Docker engine at {self.url}",
                "rootless with cgroup v1, where no limit on a container holds",
                "cgroup v2, or a daemon with root",
                "boot with systemd.unified_cgroup_hierarchy=1",
                code="docker_without_limits",
            )
        missing = [name for name in ("MemoryLimit", "PidsLimit", "CpuCfsQuota") if not facts.limits[name]]
        if missing:
            raise SetupError(
                f"the Docker engine at {self.url}",
                f"no {', '.join(missing)}",
                "limits that hold",
                "docker info, and turn those cgroup controllers on",
                code="docker_without_limits",
            )

    # Containers

    def create(self, name: str, body: Json) -> str:
        with self._translated("a new container"):
            return str(self._api.create_container_from_config(body, name)["Id"])

    def attach(self, container: str) -> socket.socket:
        """The duplex stream of a container that has not started. It belongs to the caller alone."""
        params = {"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1}
        with self._translated("a container's pipe"):
            wrapped = self._api.attach_socket(container, params=params)
            # A descriptor of our own, and the SDK's response closed, so that neither its pool nor garbage collection
            # can touch the pipe. Nothing is lost in its buffers: the container has not started.
            pipe: socket.socket = wrapped._sock.dup()
            wrapped._response.close()
            pipe.settimeout(None)
            return pipe

    def start(self, container: str) -> None:
        with self._translated("starting a container"):
            self._api.start(container)

    def inspect(self, container: str) -> dict[str, Any] | None:
        try:
            with self._translated("a container's state"):
                return dict(self._api.inspect_container(container))
        except Gone:
            return None

    def kill(self, container: str) -> None:
        with contextlib.suppress(Gone, NotRunning), self._translated("killing a container"):
            self._api.kill(container, "SIGKILL")

    def remove(self, container: str) -> None:
        with contextlib.suppress(Gone, NotRunning), self._translated("removing a container"):
            self._api.remove_container(container, v=True, force=True)

    def containers(self, labels: Mapping[str, str]) -> list[Listed]:
        """All that carry the labels, in every state, "created" ones included."""
        with self._translated("the list of containers"):
            rows = self._api.containers(all=True, filters={"label": [f"{k}={v}" for k, v in labels.items()]})
        return [Listed(row["Id"], row.get("Labels") or {}, row.get("State", "")) for row in rows]

    def events(self, labels: Mapping[str, str]) -> tuple[Iterator[tuple[str, str]], Callable[[], None]]:
        """(container, action) of those with the labels from now on, and what ends the listening."""
        wanted = {"type": "container", "label": [f"{k}={v}" for k, v in labels.items()]}
        with self._translated("the events of containers"):
            stream = self._api.events(decode=True, filters=wanted)
        return self._listen(stream), stream.close

    def _listen(self, stream: Iterator[Json]) -> Iterator[tuple[str, str]]:
        with self._translated("the events of containers"):
            for event in stream:
                yield str(event.get("id", "")), str(event.get("Action", ""))

    def ping(self) -> None:
        with self._translated("the Docker engine"):
            self._api.ping()

    def cpu_seconds(self, container: str) -> float | None:
        """One reading of the daemon's own statistics: slower than the cgroup's file, but reaches into a VM."""
        try:
            with self._translated("a container's CPU time"):
                usage = self._api.stats(container, stream=False, one_shot=True)
        except (Gone, NotRunning):
            return None
        return float(usage.get("cpu_stats", {}).get("cpu_usage", {}).get("total_usage", 0)) / 1e9

    # Images

    def images(self, labels: Mapping[str, str]) -> list[Listed]:
        """Newest first, also those that others were built on and that have no name. No value stands for any."""
        with self._translated("the list of images"):
            rows = self._api.images(all=True, filters={"label": [f"{k}={v}" if v else k for k, v in labels.items()]})
        rows.sort(key=lambda row: -row.get("Created", 0))
        return [Listed(row["Id"], row.get("Labels") or {}, "") for row in rows]

    def image(self, name: str) -> dict[str, Any] | None:
        try:
            with self._translated("an image"):
                return dict(self._api.inspect_image(name))
        except Gone:
            return None

    def remove_image(self, image: str) -> None:
        """It alone: what it was built on may be another guest's, even where it has no name."""
        with contextlib.suppress(Gone, NotRunning), self._translated("removing an image"):
            self._api.remove_image(image, noprune=True)

    def files_of(self, image: str, labels: Mapping[str, str]) -> Iterator[tarfile.TarInfo]:
        """Everything in it, one by one and never all at once, through a container that never starts."""
        container = self.create(f"bellglass-look-{secrets.token_hex(6)}", {"Image": image, "Labels": dict(labels)})
        try:
            with self._translated("reading an image"):
                api = _docker().APIClient(base_url=self.url, version="auto", timeout=LONGEST_SILENCE_OF_A_BUILD)
                with contextlib.closing(api), tarfile.open(fileobj=_Stream(api.export(container)), mode="r|") as tar:
                    yield from tar
        finally:
            with contextlib.suppress(SetupError):  # a daemon that is still busy with it; else it is the reaper's
                self.remove(container)

    def build(
        self,
        context: IO[bytes],
        *,
        target: str,
        tag: str,
        args: Mapping[str, str],
        labels: Mapping[str, str],
        offline: bool,
    ) -> Generator[str, None, str]:
        """Runs the build; gives a line for each step, and the image's id in the end. SetupError when one fails."""
        thing = f"building image {tag}"
        with self._translated(thing):
            api = _docker().APIClient(base_url=self.url, version="auto", timeout=LONGEST_SILENCE_OF_A_BUILD)
            parts = api.build(
                fileobj=context,
                custom_context=True,
                encoding=None,
                dockerfile="Dockerfile",
                target=target,
                tag=tag,
                buildargs=dict(args),
                labels=dict(labels),
                rm=True,
                forcerm=True,
                decode=True,
                network_mode="none" if offline else None,
            )
            last = image = ""
            for part in parts:
                if "error" in part:
                    raise _build_failed(thing, f"{part['error']}; last words: {last[-300:]}")
                image = str((part.get("aux") or {}).get("ID") or image)
                if (text := str(part.get("stream", "")).rstrip()).startswith("Step "):
                    last = ""
                    yield f"  {text.splitlines()[0]:.100}"
                elif text:
                    last = f"{last} {text}"
        return image

    def _translated(self, thing: str) -> contextlib.AbstractContextManager[None]:
        return _translated(thing, self.url)


class _Stream(io.RawIOBase):
    """Chunks as a file to read from."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks, self._rest = chunks, memoryview(b"")

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return b""
            self._rest = memoryview(chunk)
        taken, self._rest = self._rest[:size], self._rest[size:]
        return bytes(taken)


def socket_urls() -> list[str]:
    """Where the daemon may be: DOCKER_HOST alone; else the current docker context alone; else the usual sockets."""
    chosen, where = os.environ.get("DOCKER_HOST", ""), "DOCKER_HOST"
    if not chosen:
        chosen, where = _context_url(), "the docker context"
    if chosen:
        if not chosen.startswith("unix://"):
            raise SetupError(
                f"the Docker engine of {where}",
                f"{chosen}, which is not on this machine",
                "a local unix socket, because guests must end when this process does",
                "unset DOCKER_HOST, or docker context use default",
                code="docker_remote",
            )
        return [chosen]
    home, runtime = Path.home(), os.environ.get("XDG_RUNTIME_DIR", "")
    usual = [Path("/var/run/docker.sock"), home / ".docker/run/docker.sock", home / ".docker/desktop/docker.sock"]
    usual += [home / ".colima/default/docker.sock", home / ".orbstack/run/docker.sock"]
    usual += [Path(runtime) / "docker.sock"] if runtime else []
    return [f"unix://{path}" for path in usual if path.exists()] or ["unix:///var/run/docker.sock"]


def _storage(info: Mapping[str, Any]) -> str:
    below = dict(row for row in info.get("DriverStatus") or () if len(row) == 2).get("Backing Filesystem", "?")
    return f"{info.get('Driver') or '?'} on {below}"


def _knock(url: str) -> None:
    """Whether someone listens: asked here, because the SDK leaks a socket where nobody does."""
    with socket.socket(socket.AF_UNIX) as door:
        door.settimeout(CALL_SECONDS)
        door.connect(url.removeprefix("unix://"))


def _context_url() -> str:
    """The endpoint of the context in use; "" for the default one."""
    name = os.environ.get("DOCKER_CONTEXT")
    try:
        _docker()
        from docker.context import ContextAPI

        context = ContextAPI.get_context(name) if name else ContextAPI.get_current_context()
    except SetupError:
        raise
    except Exception as broken:  # a boundary: the SDK raises what its JSON reading happens to raise
        raise SetupError(
            "the docker context",
            f"{type(broken).__name__}: {broken}",
            "a readable ~/.docker",
            "docker context ls",
            code="docker_context_broken",
        ) from broken
    if name and context is None:
        found = f"DOCKER_CONTEXT={name}, unknown"
        raise SetupError(
            "the docker context", found, "one that exists", "docker context ls", code="docker_context_broken"
        )
    if context is None or context.Name == "default":
        return ""
    return str(context.Host or "")


def _docker() -> Any:
    try:
        import docker
    except ImportError as missing:
        raise SetupError(
            "the Docker door",
            "the Python package `docker` is not installed",
            "docker>=7.1,<8",
            "make venv in a checkout, else pip install 'bellglass[docker]'",
            code="library_missing",
        ) from missing
    return docker


@contextlib.contextmanager
def _translated(thing: str, url: str) -> Iterator[None]:
    """The boundary: whatever the SDK and the libraries below it raise becomes one of ours."""
    try:
        yield
    except (SetupError, Gone, NotRunning, GeneratorExit):
        raise
    except Exception as fault:  # docker, requests, urllib3, http.client, json and socket: no common base
        raise _ours(thing, url, fault) from fault


def _ours(thing: str, url: str, fault: Exception) -> Exception:
    status = getattr(fault, "status_code", None)
    text = str(getattr(fault, "explanation", None) or fault)
    lower = text.lower()
    # What the daemon answered.
    for code, words, found, needed, next_command in _ANSWERS:
        if any(word in lower for word in words):
            return SetupError(thing, f"{found} ({_short(text)})", needed, next_command, code=code)
    if status == 404:
        return Gone(text)
    if status in (304, 409):
        return NotRunning(text)
    if status is not None:
        found = f"the daemon's error {status}: {_short(text)}"
        return SetupError(thing, found, "a call that succeeds", "bellglass doctor", code="docker_failed")
    # There was no answer.
    causes = list(_causes(fault))
    names = {type(cause).__name__ for cause in causes}
    if any(isinstance(cause, PermissionError) for cause in causes):
        return SetupError(
            f"the Docker engine at {url}",
            "no permission",
            "membership of the group `docker`, or root",
            "sudo usermod -aG docker $USER, then log in again",
            code="docker_forbidden",
        )
    if names & {"FileNotFoundError", "ConnectionRefusedError"}:
        return SetupError(
            f"the Docker engine at {url}",
            "nothing answers there",
            "a running daemon",
            "sudo systemctl start docker (or start Docker Desktop)",
            code="docker_silent",
        )
    if any("timeout" in name.lower() for name in names) or "timed out" in lower:
        return SetupError(
            thing,
            f"no answer from {url} within {CALL_SECONDS:.0f} s",
            "a daemon that answers",
            "docker ps",
            code="docker_silent",
        )
    return SetupError(
        thing,
        f"{type(fault).__name__}: {_short(text)}",
        f"an answer from {url}",
        "bellglass doctor",
        code="docker_failed",
    )


# The error's code, words in the daemon's answer, what they mean, what is needed, what to do.
_ANSWERS = (
    (
        "disk_full", ("no space left on device",), "its disk is full", "free space where Docker keeps its data",
        "docker system df",
    ),
    (
        "image_missing", ("no such image",), "the image is missing", "the images that guests run in",
        "bellglass image build",
    ),
    (
        "runtime_missing", ("unknown or invalid runtime name", "unknown runtime"), "the daemon lacks this runtime",
        "gVisor registered with Docker (for --runtime runsc)", "runsc install && systemctl reload docker",
    ),
    (
        "gpu_missing", ("could not select device driver", "nvidia-container-cli"), "no GPU for containers",
        "the NVIDIA container toolkit", "nvidia-ctk runtime configure --runtime=docker, then restart Docker",
    ),
    (
        "seccomp_missing", ("seccomp is not enabled", "seccomp profiles are not supported"),
        "no seccomp in this kernel or daemon", "a kernel with seccomp filters",
        "docker info --format '{{.SecurityOptions}}'",
    ),
)  # fmt: skip


def _build_failed(thing: str, text: str) -> Exception:
    if "no space left" in text.lower():
        return _ours(thing, "", RuntimeError(text))
    return SetupError(
        thing,
        " ".join(text.split())[-600:],
        "a base image that can be had (--base) and wheels that can be reached (--wheels)",
        "bellglass image build --help",
        code="image_build_failed",
    )


def _causes(fault: BaseException) -> Iterator[BaseException]:
    """The fault and everything it wraps: requests keeps causes in `args`, too."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [fault]
    while waiting:
        cause = waiting.pop()
        if cause is None or id(cause) in seen:
            continue
        seen.add(id(cause))
        yield cause
        waiting += [cause.__cause__, cause.__context__, getattr(cause, "reason", None)]
        waiting += [argument for argument in cause.args if isinstance(argument, BaseException)]


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 240 else line[:237] + "..."
