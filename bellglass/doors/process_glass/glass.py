"""A glass that is only a process: for demos, tests and classes where no engine is at hand. It is no sandbox.

A guest is a subprocess in a session of its own, with resource limits, a scrubbed environment and a temporary folder
that is removed at the end. The pipe, the roles, the caps and the deadlines are those of every glass.

Not covered, and so `sealed` is False and every record made through it says so: the guest has the network; it reads
what this user can read (loop folders, keys on disk, other guests) and writes where this user may write; it may
signal, trace or take over any process of this user, the driver and its own supervisor included; memory is limited
per process, not in sum; disk use in sum is not limited; a guest that kills its supervisor and leaves its session
outlives its end. `FAILS` names these; tests/conformance checks that nobody assumes otherwise. Admission by
provenance (only bundles made here, by built-in improvers) is what makes it acceptable, and is the caller's duty.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Final

from bellglass import gpus, processes
from bellglass.doors.process_glass.nursery import Child, Nursery
from bellglass.errors import SetupError
from bellglass.line.canary import Beside, Pulse, is_full, wait_until_free
from bellglass.line.intake import POLICIES, Event
from bellglass.line.wire import Line, greet
from bellglass.paths import content_root
from bellglass.ports import GuestSpec
from bellglass.records import GuestExit, Json, Role, Strain

# Behaviours of tests/conformance that this glass does not have.
FAILS: Final = frozenset(
    {
        "no_network",
        "read_only_root",
        "no_host_files",
        "supervisor_untouchable",
        "supervisor_unkillable",
        "processes_limited",
        "memory_limited_in_sum",
        "disk_limited_in_sum",
        "escapees_end",
        "unprivileged",
    }
)

LIBRARIES: Final = ("torch", "lightning", "numpy")
READY_SECONDS: Final = 120.0
MAX_PROCESSES: Final = 128
MAX_FILE_MB: Final = 512
KEPT_ENV: Final = ("LD_LIBRARY_PATH",)
MARKER: Final = "owner.json"


class SocketStream:
    """ports.Stream over a socket pair. `close` unblocks both sides at once; `dispose` gives the descriptor back."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)

    def read_into(self, into: memoryview) -> int:
        return self._end.recv_into(into)

    def write(self, data: bytes | memoryview) -> None:
        self._end.sendall(data)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._end.shutdown(socket.SHUT_RDWR)

    def dispose(self) -> None:
        self._end.close()


class ProcessGuest:
    """ports.Guest over a subprocess."""

    def __init__(
        self, process: subprocess.Popen[bytes] | Child, stream: SocketStream, line: Line, folder: Path
    ) -> None:
        self._process, self._stream, self._folder = process, stream, folder
        self.line = line
        self._ending = threading.Lock()
        self._exit: GuestExit | None = None
        self._cpu_seconds = 0.0

    @property
    def id(self) -> str:
        return self._folder.name

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def ended(self) -> bool:
        return self._exit is not None

    def send(self, frame_type: str, body: bytes | memoryview = b"", **fields: Json) -> None:
        self.line.send(frame_type, body, **fields)

    def send_file(self, name: str, data: bytes | memoryview) -> None:
        self.line.send_file(name, data)

    def recv(self, timeout: float) -> Event | None:
        return self.line.recv(timeout)

    def cpu_seconds(self) -> float:
        """Of everything in the guest. Measured on Linux; elsewhere the supervisor's word."""
        if self._exit is None:
            # The process is reaped only in `end`, so that its account can be read until then. Time of the dead may
            # be counted a moment late, never twice.
            now = processes.cpu_seconds_below(self.pid) if processes.LINUX else self.line.beat_cpu_seconds
            self._cpu_seconds = max(self._cpu_seconds, now)
        return self._cpu_seconds

    def end(self) -> GuestExit:
        with self._ending:
            if self._exit is None:
                self.cpu_seconds()
                self.line.close()  # before the kill: a guest that floods would else keep the pipe full
                processes.kill_family(self.pid)
                code: int | None = None
                with contextlib.suppress(subprocess.TimeoutExpired):
                    code = self._process.wait(timeout=5.0)
                self._stream.dispose()
                remove_tree(self._folder)
                self._exit = GuestExit(code, out_of_memory=False)
            return self._exit


def _installed(library: str) -> str:
    try:
        return f"{library} {metadata.version(library)}"
    except metadata.PackageNotFoundError:
        return f"no {library}"


def require_gpu(gpu: int) -> None:
    """SetupError where no guest could train on that one, as far as it is seen without importing torch."""
    thing = f"the device cuda:{gpu}"
    try:
        with_cuda = not metadata.version("torch").endswith("+cpu")
    except metadata.PackageNotFoundError:
        with_cuda = False
    if not with_cuda:
        raise SetupError(thing, _installed("torch"), "torch with CUDA", "make venv DEVICE=cuda", code="gpu_missing")
    if shutil.which("nvidia-smi") is None:
        needed = "an NVIDIA GPU and its driver"
        raise SetupError(
            thing, "no nvidia-smi, so no driver", needed, "the same with --device cpu --preset cpu", code="gpu_missing"
        )
    gpus.card(gpu)


class ProcessGlass:
    name = "process"
    sealed = False
    fails = FAILS

    def __init__(
        self,
        python: str = sys.executable,
        *,
        warm: bool = True,
        home: Path | None = None,
        forks: bool | None = None,
        bare: bool = True,
    ) -> None:
        """`warm=False` starts guests without importing torch (tests); `home` is where workspaces are made.

        `forks`: guests that need torch are forks of one process that has imported it. Only on Linux: elsewhere
        libraries don't survive a fork. By default for warm guests. `bare=False` binds bundle code further, as sealed
        glasses do, where the kernel can (Landlock, a filter): for tests, since it makes no sandbox of this.
        """
        self._python, self._warm = python, warm
        self.content = f"Python {platform.python_version()}, {', '.join(map(_installed, LIBRARIES))}"
        self._forks = processes.LINUX and (warm if forks is None else forks)
        self._bare = ("--bare",) if bare else ()
        self._nurseries: dict[Role, Nursery | None] = {}  # None: it failed
        self._home = home or Path(tempfile.gettempdir()) / f"bellglass-{os.getuid()}"
        self._guests: list[ProcessGuest] = []
        self._lock = threading.Lock()
        self._canary = Beside()
        self._pulse: Pulse | None = None

    def find_why_alone(self) -> str:
        return ""  # everything here hears everything, alone or not: that is what `unsealed` says

    def company(
        self, *, alone: bool = False, check: Callable[[], None] = lambda: None
    ) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def open(self, spec: GuestSpec) -> ProcessGuest:
        env = _environment(spec.gpu)
        self._pulse = self._pulse or Pulse(self._home)
        self._canary.start()
        folder = self._make_folder(spec)
        try:
            guest = self._start(spec, folder, env)
        except OSError as error:
            remove_tree(folder)
            found = f"it does not start: {error}"
            raise SetupError(
                "a guest process", found, f"a runnable {self._python}", "bellglass doctor", code="guest_does_not_start"
            ) from None
        with self._lock:
            self._guests = [each for each in self._guests if not each.ended] + [guest]
        try:
            greet(guest.line, spec, READY_SECONDS)
        except BaseException:  # an interrupt from the keyboard too
            guest.end()
            raise
        return guest

    def strain(self, since: float) -> Strain:
        if self._pulse is None:
            return Strain(self._canary.share(since), 0.0)
        return Strain(self._canary.share(since), self._pulse.late(since), self._pulse.was_full(since))

    def wait_until_free(self, seconds: float, check: Callable[[], None]) -> str:
        until = time.monotonic() + seconds
        while is_full(self._home):
            if time.monotonic() > until:
                return f"the disk of {self._home} is full"
            check()
            time.sleep(0.25)
        return wait_until_free([self._canary], seconds, check)

    def close(self) -> None:
        if self._pulse is not None:
            self._pulse.close()
        self._canary.close()
        with self._lock:
            guests, self._guests = self._guests, []
        for guest in guests:
            guest.end()
        with self._lock:
            nurseries, self._nurseries = self._nurseries, {}
        for nursery in nurseries.values():
            if nursery is not None:
                nursery.close()

    def reap(self) -> int:
        """Ends and removes the guests of drivers that are gone. Other drivers of this user keep theirs."""
        count = 0
        for folder in self._home.glob("new-*"):  # its driver died before it had marked the folder as a guest's
            driver = folder.name.split("-")[1]
            if not driver.isdigit() or processes.start_time(int(driver)) is None:
                remove_tree(folder)
        for folder in sorted(self._home.glob("guest-*")):
            try:
                owner = json.loads((folder / MARKER).read_text())
                if processes.is_running(processes.Process(owner["pid"], owner["start"])):
                    continue
            except (OSError, ValueError, KeyError, TypeError):
                pass  # a driver died between making the folder and marking it
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                guest = json.loads((folder / "guest.json").read_text())
                if processes.start_time(guest["pid"]) == guest["start"]:
                    processes.kill_family(guest["pid"])
            remove_tree(folder)
            count += 1
        return count

    def _make_folder(self, spec: GuestSpec) -> Path:
        try:
            self._home.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self._home.is_symlink() or self._home.stat().st_uid != os.getuid():
                raise OSError("it belongs to someone else")
            hidden = self._home / f"new-{os.getpid()}-{secrets.token_hex(6)}"
            (hidden / "work").mkdir(mode=0o700, parents=True)
            owner = {"pid": os.getpid(), "start": processes.start_time(os.getpid()), "labels": dict(spec.labels)}
            (hidden / MARKER).write_text(json.dumps(owner | {"role": spec.role}))
            return hidden.rename(self._home / hidden.name.replace("new-", "guest-"))  # a guest folder has its marker
        except OSError as error:
            needed = "a writable temporary folder"
            raise SetupError(
                f"the folder {self._home}", str(error), needed, "df -h /tmp", code="folder_unwritable"
            ) from None

    def _start(self, spec: GuestSpec, folder: Path, env: dict[str, str]) -> ProcessGuest:
        work = str(folder / "work")
        arguments = [work, *self._bare, "--memory-mb", str(spec.memory_mb), "--file-mb", str(MAX_FILE_MB)]
        if processes.LINUX:
            arguments += ["--pids", str(MAX_PROCESSES)]
        if not self._warm:
            arguments.append("--cold")
        ours, theirs = socket.socketpair()
        try:
            process = self._fork(spec, arguments, work, theirs) or self._spawn(arguments, work, theirs, env)
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        (folder / "guest.json").write_text(json.dumps({"pid": process.pid, "start": processes.start_time(process.pid)}))
        stream = SocketStream(ours)
        return ProcessGuest(process, stream, Line(stream, POLICIES[spec.role]), folder)

    def _spawn(
        self, arguments: list[str], work: str, end: socket.socket, env: dict[str, str]
    ) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [self._python, "-I", "-B", str(content_root() / "sandbox" / "guest.py"), *arguments],
            stdin=end.fileno(),
            stdout=end.fileno(),
            stderr=subprocess.DEVNULL,
            env=env,
            cwd=work,
            start_new_session=True,
            close_fds=True,
        )

    def _fork(self, spec: GuestSpec, arguments: list[str], work: str, end: socket.socket) -> Child | None:
        """None where a guest has to be started: nothing to import, a GPU (its driver bears no fork), no nursery."""
        if not self._forks or spec.role is Role.IMPROVE or spec.gpu is not None:
            return None
        try:
            with self._lock:
                if spec.role not in self._nurseries:
                    made = Nursery(self._python, spec.role, _environment(None), warm=self._warm)
                    self._nurseries[spec.role] = made
                nursery = self._nurseries[spec.role]
            return None if nursery is None else nursery.fork(arguments, work, end)
        except (OSError, ValueError, KeyError):
            self._give_up(spec.role)
            return None

    def _give_up(self, role: Role) -> None:
        with self._lock:
            nursery, self._nurseries[role] = self._nurseries.get(role), None
        if nursery is not None:
            nursery.close()


def _environment(gpu: int | None) -> dict[str, str]:
    return {name: os.environ[name] for name in KEPT_ENV if name in os.environ} | gpus.environment(gpu)


def remove_tree(folder: Path) -> None:
    """Remove a workspace whatever the guest made of its permissions. Links are removed, not followed."""
    shutil.rmtree(folder, ignore_errors=True)
    if not folder.exists():
        return
    for path, folders, _ in os.walk(folder):
        for name in (".", *folders):
            inner = os.path.join(path, name)
            if not os.path.islink(inner):
                with contextlib.suppress(OSError):
                    os.chmod(inner, 0o700)
    shutil.rmtree(folder, ignore_errors=True)
