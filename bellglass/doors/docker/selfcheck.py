"""Does this daemon deserve the word "sealed"? Asked from inside, because a daemon may accept a limit and not hold it.

Three containers with the profile of real guests (a minute's life, a probe instead of the guest's program): what a
guest can see and do; whether its memory ends where it should; whether it ends when our end of the pipe closes.

Not covered: escapes by a kernel or runtime bug. Under gVisor the filter of system calls is gVisor's own kernel, so
those probes ask only whether the call does harm.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import TypeAlias

from bellglass.doors.docker import image
from bellglass.doors.docker.engine import Engine, Gone, NotRunning
from bellglass.doors.docker.pipe import AttachedPipe
from bellglass.doors.docker.profile import (
    MAPPED_UIDS,
    PYTHON,
    Profile,
    compact,
    create_body,
    differences,
    profile_for,
    seccomp_file,
)
from bellglass.doors.docker.reaper import labels_of
from bellglass.errors import BellglassError, SetupError
from bellglass.paths import content_root
from bellglass.ports import GuestSpec
from bellglass.records import Json, Role

Check: TypeAlias = tuple[str, bool | None, str]  # name, ok (None: nothing was there to be tried), found
PROBE_SECONDS = 15.0
LAST_WORDS_SECONDS = 3.0

# Runs inside. Prints one JSON object; what fails is told as text, and judged outside.
LOOK = """
import ctypes, errno, json, os, socket
libc = ctypes.CDLL(None, use_errno=True)
def call(*numbers):
    libc.syscall.restype = ctypes.c_long
    done = libc.syscall(*[ctypes.c_long(n) for n in numbers])
    return "done" if done >= 0 else errno.errorcode.get(ctypes.get_errno(), "?")
def tried(act):
    try:
        act()
    except OSError as error:
        return errno.errorcode.get(error.errno, "?")
    return "done"
def fill(path, size):
    with open(path, "wb") as file:
        for _ in range(size):
            file.write(bytes(1 << 20))
def forks():
    count = 0
    try:
        while count < int(os.environ["FORKS"]):
            if os.fork() == 0:
                os.read(end, 1)
                os._exit(0)
            count += 1
    except OSError:
        pass
    return count
def words(path):
    with open(path) as file:
        return file.read(100)
end, other = os.pipe()
x86 = os.uname().machine == "x86_64"
numbers = {"unshare": 272, "ptrace": 101, "keyctl": 250, "bpf": 321, "mount": 165, "personality": 135} if x86 else {
    "unshare": 97, "ptrace": 117, "keyctl": 219, "bpf": 280, "mount": 40, "personality": 92}
numbers |= {"io_uring_setup": 425, "clone3": 435}
wanted = ("Seccomp", "NoNewPrivs", "CapEff", "CapBnd")
status = dict(line.split(":", 1) for line in open("/proc/self/status") if ":" in line)
sizes = {}
for path in json.loads(os.environ["PLACES"]):
    facts = os.statvfs(path)
    sizes[path] = [facts.f_blocks * facts.f_frsize, facts.f_files, bool(facts.f_flag & os.ST_NOEXEC)]
said = {
    "uid": [os.getuid(), os.getgid()], "status": {name: status.get(name, "?").strip() for name in wanted},
    "interfaces": [line.split(":")[0].strip() for line in open("/proc/net/dev") if ":" in line],
    "inet": tried(lambda: socket.create_connection(("192.0.2.1", 9), 1)),
    "calls": {name: call(number, 0x10000000, 0, 0, 0, 0) for name, number in numbers.items() if name != "clone3"},
    "clone3": call(numbers["clone3"], 0, 0), "root": tried(lambda: open("/opt/x", "w")), "sizes": sizes,
    "fill": tried(lambda: fill("/tmp/x", 64)), "forks": forks(),
    "counters": [path for path in ("/proc/meminfo", "/proc/stat", "/proc/loadavg", "/proc/vmstat") if words(path)],
}
os.close(other)
print(json.dumps(said), flush=True)
"""
# Whether a child can be bound further than its container, as glass_child.py does it.
BIND = """
import json, os, socket, sys
sys.path.insert(0, "/opt/bellglass")
import glass_filter, glass_landlock
asks, asked = socket.socketpair()
def tried(act):
    if os.fork() == 0:
        try:
            act()
        except OSError as error:
            print(error, file=sys.stderr)
            os._exit(1)
        os._exit(0)
    return os.wait()[1] == 0
print(json.dumps({"landlock": tried(glass_landlock.restrict), "version": glass_landlock.version(),
    "filter": tried(lambda: glass_filter.confine(1, asked.detach()))}))
"""
EAT = "x = []\nwhile True: x.append(bytearray(b'x' * (8 << 20)))"
WAIT = "import sys; print('here', flush=True); sys.stdin.buffer.read()"


def check(engine: Engine | None = None, *, runtime: str = "") -> list[Check]:
    """Every check with what was found, for people. A daemon that fails one is no sealed glass."""
    engine = engine or Engine.connect()
    bare = why_bare(engine, runtime)
    alone = f"{bare}: a guest that proves a score answers alone"
    return [*_sealed(engine, runtime), ("bundle code", True, alone if bare else "confined once more")]


def _sealed(engine: Engine, runtime: str) -> list[Check]:
    profile = _profile(engine, runtime)
    return [*_inside(engine, profile), *_memory(engine, profile), *_end_of_file(engine, profile)]


def why_bare(engine: Engine, runtime: str = "") -> str:
    """Why bundle code can't be kept from /proc, or a `predict` guest to a list of its own; empty where both work."""
    wanted = (content_root() / "sandbox" / "seccomp_predict.json").read_text("utf-8")
    profile = replace(_with_code(_profile(engine, runtime), BIND), seccomp=compact(wanted))
    with running(engine, profile) as (_, pipe):
        text = _words(pipe)
    try:
        said = json.loads(text)
    except ValueError:
        return f"confining bundle code failed: {(text or pipe.stderr)[-200:].decode('utf-8', 'replace')!r}"
    lacking = [word for word, name in (("no Landlock", "landlock"), ("no filter", "filter")) if not said.get(name)]
    return f"the kernel has {' and '.join(lacking)} for bundle code" if lacking else ""


def require_sealed(engine: Engine, *, runtime: str = "") -> None:
    failed = [f"{name}: {found}" for name, ok, found in _sealed(engine, runtime) if not ok]
    if failed:
        found = f"not sealed: {'; '.join(failed)}"
        raise SetupError(
            f"the Docker engine at {engine.url}", found, "limits that hold", "bellglass doctor", code="not_sealed"
        )


def _profile(engine: Engine, runtime: str) -> Profile:
    spec = GuestSpec(Role.IMPROVE, {"purpose": "selfcheck"}, memory_mb=128, deadline_seconds=60.0)
    found = image.find(engine, Role.IMPROVE)
    seccomp = (content_root() / "sandbox" / seccomp_file(spec)).read_text("utf-8")
    labels = labels_of(spec)
    return profile_for(
        spec,
        uid=secrets.choice(MAPPED_UIDS),
        image=found.id,
        image_env=found.env,
        labels=labels,
        seccomp=seccomp,
        runtime=runtime,
    )


def _inside(engine: Engine, profile: Profile) -> Iterator[Check]:
    places = json.dumps([each.path for each in profile.tmpfs])
    asking = replace(_with_code(profile, LOOK), env={**profile.env, "PLACES": places, "FORKS": str(profile.pids + 20)})
    with running(engine, asking) as (container, pipe):
        wrong = differences(engine.inspect(container) or {}, asking)
        yield "profile", not wrong, "; ".join(wrong) or "the running container is as asked for"
        text = _words(pipe)
    try:
        said = json.loads(text)
    except ValueError:
        yield "probe", False, f"it did not answer: {(text or pipe.stderr)[-200:].decode('utf-8', 'replace')!r}"
        return
    yield from _judge_look(said, profile)


def _judge_look(said: Json, profile: Profile) -> Iterator[Check]:
    gvisor = profile.runtime.startswith("runsc")
    status, calls = said["status"], said["calls"]
    yield "user", said["uid"] == [profile.uid, profile.uid], f"uid and gid {said['uid']}"
    no_caps = set(status["CapEff"]) | set(status["CapBnd"]) == {"0"}
    yield "capabilities", no_caps, f"effective {status['CapEff']}, bounding {status['CapBnd']}"
    yield "no new privileges", gvisor or status["NoNewPrivs"] == "1", status["NoNewPrivs"]
    alone = set(said["interfaces"]) <= {"lo"} and said["inet"] != "done"
    yield "no network", alone, f"interfaces {said['interfaces']}, connecting: {said['inet']}"
    refused = all(answer != "done" for answer in calls.values())
    ours = set(calls.values()) == {"EPERM"} and said["clone3"] == "ENOSYS" and status["Seccomp"] == "2"
    found = ", ".join(f"{name} {answer}" for name, answer in {**calls, "clone3": said["clone3"]}.items())
    yield "system calls", refused if gvisor else ours, found
    yield "read-only root", said["root"] == "EROFS", f"writing: {said['root']}"
    hidden = gvisor or not said["counters"]
    yield "the machine's counters", hidden, f"readable: {', '.join(said['counters']) or 'none'}"
    sizes = {each.path: [each.size_mb << 20, each.inodes, not each.executable] for each in profile.tmpfs}
    held = said["sizes"] == sizes or (gvisor and set(said["sizes"]) == set(sizes))
    yield "tmpfs", held and said["fill"] in ("ENOSPC", "ENOMEM"), f"overfilling /tmp: {said['fill']}; {said['sizes']}"
    yield "processes", 0 < said["forks"] < profile.pids, f"{said['forks']} forks under a limit of {profile.pids}"


def _memory(engine: Engine, profile: Profile) -> Iterator[Check]:
    with running(engine, _with_code(profile, EAT)) as (container, pipe):
        began = time.monotonic()
        state = _ended(engine, container, PROBE_SECONDS)
        pipe.close()
    killed = state.get("OOMKilled") is True or state.get("ExitCode") == 137
    found = f"{'ended' if state else 'still running'} after {time.monotonic() - began:.1f} s of eating"
    yield "memory", bool(state) and killed, f"{found}, out of memory: {state.get('OOMKilled')}"


def _end_of_file(engine: Engine, profile: Profile) -> Iterator[Check]:
    """The guest's life line: what a reader of stdin sees when the driver is gone."""
    with running(engine, _with_code(profile, WAIT)) as (container, pipe):
        ready = pipe.read_into(memoryview(bytearray(16))) > 0
        began = time.monotonic()
        pipe.close()
        state = _ended(engine, container, LAST_WORDS_SECONDS)
    seconds = time.monotonic() - began
    found = f"{'ended' if state else 'still running'} {seconds:.2f} s after our end closed"
    yield "end of file", ready and bool(state), found


def _with_code(profile: Profile, code: str) -> Profile:
    return replace(profile, command=(PYTHON, "-I", "-c", code))


@contextlib.contextmanager
def running(engine: Engine, profile: Profile, seconds: float = PROBE_SECONDS) -> Iterator[tuple[str, AttachedPipe]]:
    """A container that is gone afterwards, and its pipe, on which a read may take that long."""
    name = f"bellglass-selfcheck-{secrets.token_hex(6)}"
    pipe: AttachedPipe | None = None
    try:
        container = engine.create(name, create_body(profile))
        pipe = AttachedPipe(engine.attach(container), timeout=seconds)
        engine.start(container)
        yield container, pipe
    except (Gone, NotRunning) as fault:
        found, needed = f"it vanished: {fault}", "a daemon that keeps it"
        raise SetupError(
            "a container of the self-check", found, needed, "bellglass doctor", code="container_vanished"
        ) from fault
    finally:
        if pipe is not None:
            pipe.close()
            pipe.dispose()
        with contextlib.suppress(BellglassError):
            engine.remove(name)


def _words(pipe: AttachedPipe) -> bytes:
    """All that it says until it ends, within the pipe's time-out."""
    said, space = b"", memoryview(bytearray(64 * 1024))
    with contextlib.suppress(OSError):
        while (count := pipe.read_into(space)) > 0 and len(said) < 1 << 20:
            said += space[:count]
    return said


def _ended(engine: Engine, container: str, seconds: float) -> dict[str, Json]:
    """Its state once it has ended; {} when it has not within the time."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        state = dict((engine.inspect(container) or {}).get("State") or {})
        if state and not state.get("Running"):
            return state
        time.sleep(0.02)
    return {}
