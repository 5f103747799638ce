"""What a container may be: the frozen profile of each role as data, and the check of a running one against it. Pure.

`create_body` is the whole request that makes a container; `differences` reads what the engine says about a running one
and names every field that is not as the profile wants it. DockerGlass asks it at every start; a test mutates every
field once. The two are written apart, so that a slip in one shows in the other.

Not covered: what the engine does not report (the engine could lie; selfcheck.py looks from inside), and a kernel,
runtime or GPU-driver exploit. A GPU guest gets the driver's files and devices from NVIDIA's hook: those are mounts,
made by the hook and not by us, and the widest hole in this profile.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bellglass.gpus import card
from bellglass.ports import GuestSpec
from bellglass.records import Json, Role

# No two living guests share a uid or a gid: the kernel counts queued signals, pipe pages, watches and descriptors in
# flight per uid, exactly. Drawn from numbers that no account has; a daemon that maps ids has fewer to give.
UIDS, MAPPED_UIDS = range(1 << 20, 1 << 30), range(10_000, 60_000)
PYTHON, SCRIPT, WORK = "/opt/glass/bin/python", "/opt/bellglass/guest.py", "/work"
ENV = {
    "PATH": "/opt/glass/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": WORK,
    "LOGNAME": "glass",  # its uid has no name
    "LANG": "C.UTF-8",
    "PYTHONDONTWRITEBYTECODE": "1",
}
LABEL = "bellglass."
# Of 1000, added to what a process holds: when the machine runs out of memory, the kernel ends guests, then their
# keeper, which holds far more than one, and the driver last.
GUEST_OOM_SCORE, KEEPER_OOM_SCORE = 500, 100
CPU_PERIOD = 100_000


@dataclass(frozen=True, slots=True)
class Tmpfs:
    path: str
    size_mb: int
    inodes: int
    executable: bool = False
    mode: str = "0700"

    def options(self, uid: int) -> str:
        run = "exec" if self.executable else "noexec"
        return (
            f"rw,nosuid,nodev,{run},size={self.size_mb << 20},nr_inodes={self.inodes},"
            f"mode={self.mode},uid={uid},gid={uid}"
        )


@dataclass(frozen=True, slots=True)
class Profile:
    """Everything about one container: a guest's, or a keeper's (keeper.py), which is none.

    `memory_mb` is the working set: the tmpfs come on top of it.
    """

    uid: int
    image: str  # an id, never a name that may move
    image_env: tuple[str, ...]
    labels: Mapping[str, str]
    seccomp: str  # the filter's JSON text; empty for the engine's own
    tmpfs: tuple[Tmpfs, ...]
    memory_mb: int
    pids: int
    cpus: float
    runtime: str  # "" is the engine's default
    gpu: str | None = None  # the card's name
    nofile: int = 1024
    oom_score: int = GUEST_OOM_SCORE
    capabilities: tuple[str, ...] = ()
    command: tuple[str, ...] = (PYTHON, "-I", SCRIPT, WORK)
    env: Mapping[str, str] = field(default_factory=lambda: dict(ENV))

    @property
    def memory_bytes(self) -> int:
        return (self.memory_mb + sum(each.size_mb for each in self.tmpfs)) << 20

    @property
    def file_bytes(self) -> int:
        return max((each.size_mb for each in self.tmpfs), default=0) << 20

    @property
    def masked(self) -> tuple[str, ...]:
        return MASKED + (_MASKED_CPU if self.gpu is None else _MASKED_GPU)

    @property
    def user(self) -> str:
        return f"{self.uid}:{self.uid}"

    def mounts(self) -> dict[str, str]:
        """What the engine is asked for, by place."""
        return {each.path: each.options(self.uid) for each in self.tmpfs}


# Where a guest may write. /work is where it works; the rest exists because programs expect it, and is small.
# Only an improver's shell, and on a GPU a compiler's cache, need to run files they made.
_WORK_MB = {Role.IMPROVE: 64, Role.TRAIN: 512, Role.PREDICT: 320}
_WORK_INODES = {Role.IMPROVE: 16_384, Role.TRAIN: 4_096, Role.PREDICT: 1_024}
_PIDS = {Role.IMPROVE: 128, Role.TRAIN: 128, Role.PREDICT: 64}
# One thread of work, and room for the supervisor beside it.
_CPUS = {Role.IMPROVE: 1.0, Role.TRAIN: 1.25, Role.PREDICT: 1.25}
_GPU_PIDS, _GPU_CPUS = 512, 4.0
# Empty for a guest: what engines hide anyway, and every counter of the whole machine, by which guests could hear each
# other. Of /proc only cpuinfo is left beside the own processes: torch crashes when it finds neither that nor /sys. The
# engine leaves out what a kernel doesn't have.
MASKED = (
    "/proc/acpi", "/proc/asound", "/proc/buddyinfo", "/proc/bus", "/proc/cgroups", "/proc/cmdline", "/proc/config.gz",
    "/proc/consoles", "/proc/crypto", "/proc/diskstats", "/proc/dma", "/proc/dynamic_debug", "/proc/execdomains",
    "/proc/fb", "/proc/filesystems", "/proc/fs", "/proc/interrupts", "/proc/iomem", "/proc/ioports", "/proc/irq",
    "/proc/kallsyms", "/proc/kcore", "/proc/key-users", "/proc/keys", "/proc/kmsg", "/proc/kpagecgroup",
    "/proc/kpagecount", "/proc/kpageflags", "/proc/latency_stats", "/proc/loadavg", "/proc/locks", "/proc/meminfo",
    "/proc/misc", "/proc/mtrr", "/proc/pagetypeinfo", "/proc/partitions", "/proc/pressure", "/proc/sched_debug",
    "/proc/schedstat", "/proc/scsi", "/proc/slabinfo", "/proc/softirqs", "/proc/stat", "/proc/swaps", "/proc/sys",
    "/proc/sysrq-trigger", "/proc/sysvipc", "/proc/timer_list", "/proc/timer_stats", "/proc/tty", "/proc/uptime",
    "/proc/version", "/proc/vmallocinfo", "/proc/vmstat", "/proc/zoneinfo",
)  # fmt: skip
# CUDA looks its card up here, so a GPU guest keeps them, but for what is known to count.
_MASKED_CPU = ("/sys", "/proc/devices", "/proc/driver", "/proc/modules")
_MASKED_GPU = ("/sys/firmware", "/sys/devices/virtual/powercap", "/sys/block", "/sys/devices/system/node", "/sys/fs")


def profile_for(
    spec: GuestSpec,
    *,
    uid: int,
    image: str,
    image_env: tuple[str, ...],
    labels: Mapping[str, str],
    seccomp: str,
    runtime: str = "",
) -> Profile:
    role = spec.role
    on_gpu = spec.gpu is not None
    may_run = role is Role.IMPROVE or on_gpu
    return Profile(
        uid=uid,
        image=image,
        image_env=image_env,
        labels=labels,
        seccomp=compact(seccomp),
        tmpfs=(
            Tmpfs(WORK, _WORK_MB[role], _WORK_INODES[role], executable=may_run),
            Tmpfs("/tmp", 16, 1_024),
            Tmpfs("/dev/shm", 16, 256),
            Tmpfs("/dev/mqueue", 1, 16),
        ),
        memory_mb=spec.memory_mb,
        pids=_GPU_PIDS if on_gpu else _PIDS[role],
        cpus=_GPU_CPUS if on_gpu else _CPUS[role],
        runtime=runtime,
        gpu=None if spec.gpu is None else card(spec.gpu),
    )


def seccomp_file(spec: GuestSpec, *, bare: bool = False) -> str:
    """The list of system calls for this guest, by its name in sandbox/."""
    if spec.gpu is not None:
        return "seccomp_gpu.json"
    return "seccomp_predict.json" if spec.role is Role.PREDICT and not bare else "seccomp.json"


def compact(text: str) -> str:
    """JSON in one spelling, so that texts can be compared."""
    return json.dumps(json.loads(text), separators=(",", ":"), sort_keys=True)


def create_body(profile: Profile) -> dict[str, Json]:
    """The engine's own request format, so that no library fills in defaults (such as proxies from a config file)."""
    host: dict[str, Json] = {
        "NetworkMode": "none",
        "Binds": [],
        "Mounts": [],
        "Tmpfs": profile.mounts(),
        "CapDrop": ["ALL"],
        "CapAdd": list(profile.capabilities),
        "SecurityOpt": ["no-new-privileges", *([f"seccomp={profile.seccomp}"] if profile.seccomp else [])],
        "Privileged": False,
        "ReadonlyRootfs": True,
        "Memory": profile.memory_bytes,
        "MemorySwap": profile.memory_bytes,
        "OomKillDisable": False,
        "OomScoreAdj": profile.oom_score,
        "PidsLimit": profile.pids,
        "CpuPeriod": CPU_PERIOD,
        "CpuQuota": int(CPU_PERIOD * profile.cpus),
        "Ulimits": [
            {"Name": name, "Soft": value, "Hard": value}
            for name, value in (("core", 0), ("fsize", profile.file_bytes), ("nofile", profile.nofile))
        ],
        "LogConfig": {"Type": "none", "Config": {}},
        "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
        "AutoRemove": False,  # would destroy the evidence of a kill for memory
        "IpcMode": "none",
        "CgroupnsMode": "private",
        "Init": False,
        "MaskedPaths": list(profile.masked),
    }
    if profile.runtime:
        host["Runtime"] = profile.runtime
    if profile.gpu is not None:
        host["DeviceRequests"] = [
            {"Driver": "nvidia", "DeviceIDs": [profile.gpu], "Capabilities": [["gpu", "compute"]]}
        ]
    return {
        "Image": profile.image,
        "Entrypoint": [profile.command[0]],
        "Cmd": list(profile.command[1:]),
        "Env": [f"{name}={value}" for name, value in profile.env.items()],
        "User": profile.user,
        "WorkingDir": WORK,
        "Hostname": "glass",
        "Labels": dict(profile.labels),
        "Tty": False,
        "OpenStdin": True,
        "StdinOnce": True,  # when our end closes, the guest's stdin ends
        "AttachStdin": True,
        "AttachStdout": True,
        "AttachStderr": True,
        "Healthcheck": {"Test": ["NONE"]},
        "StopSignal": "SIGKILL",
        "HostConfig": host,
    }


def differences(inspected: Mapping[str, Any], profile: Profile) -> list[str]:
    """Every way in which a running container is not what the profile says; empty when it is."""
    found: list[str] = []
    for path, wanted in _exact(profile).items():
        actual = _look(inspected, path)
        if actual != wanted:
            found.append(f"{path}: found {_brief(actual)}, wanted {_brief(wanted)}")
    for path, is_right, words in _judged(profile):
        actual = _look(inspected, path)
        if not is_right(actual):
            found.append(f"{path}: found {_brief(actual)}, wanted {words}")
    return found


def _exact(profile: Profile) -> dict[str, Json]:
    quota = round(profile.cpus * CPU_PERIOD)
    return {
        "Image": profile.image,
        "Path": profile.command[0],
        "Args": list(profile.command[1:]),
        "Mounts": [],
        "Config.User": profile.user,
        "Config.Tty": False,
        "Config.OpenStdin": True,
        "Config.StdinOnce": True,
        "Config.WorkingDir": WORK,
        "Config.Hostname": "glass",
        "HostConfig.NetworkMode": "none",
        "HostConfig.Tmpfs": profile.mounts() or None,
        "HostConfig.CapDrop": ["ALL"],
        "HostConfig.Privileged": False,
        "HostConfig.ReadonlyRootfs": True,
        "HostConfig.Memory": profile.memory_bytes,
        "HostConfig.MemorySwap": profile.memory_bytes,
        "HostConfig.OomScoreAdj": profile.oom_score,
        "HostConfig.PidsLimit": profile.pids,
        "HostConfig.CpuPeriod": CPU_PERIOD,
        "HostConfig.CpuQuota": quota,
        "HostConfig.LogConfig.Type": "none",
        "HostConfig.RestartPolicy.Name": "no",
        "HostConfig.AutoRemove": False,
        "HostConfig.IpcMode": "none",
        "HostConfig.CgroupnsMode": "private",
        "HostConfig.Init": False,
    }


# What must be empty: each could open a way out or in. Absent, null and empty are the same.
_EMPTY = (
    "HostConfig.Binds", "HostConfig.Mounts", "HostConfig.VolumesFrom", "HostConfig.Devices",
    "HostConfig.DeviceCgroupRules", "HostConfig.GroupAdd", "HostConfig.Links", "HostConfig.ExtraHosts",
    "HostConfig.PortBindings", "HostConfig.Sysctls", "HostConfig.CgroupParent", "HostConfig.Cgroup",
    "HostConfig.PidMode", "HostConfig.UTSMode", "HostConfig.UsernsMode", "HostConfig.OomKillDisable",
    "HostConfig.PublishAllPorts", "Config.Volumes",
)  # fmt: skip
Judge = Callable[[Any], bool]


def _judged(profile: Profile) -> list[tuple[str, Judge, str]]:
    """The fields that have more than one right spelling."""
    checks: list[tuple[str, Judge, str]] = [(path, lambda value: not value, "nothing") for path in _EMPTY]
    limits = [("core", 0, 0), ("fsize", profile.file_bytes, profile.file_bytes)]
    limits += [("nofile", profile.nofile, profile.nofile)]
    wanted_gpus = [] if profile.gpu is None else [profile.gpu]
    frozen = {"/proc/sys", "/proc/sysrq-trigger", "/proc/irq"}
    return [
        *checks,
        ("HostConfig.CapAdd", lambda value: _capabilities(value) == set(profile.capabilities), "no other"),
        ("HostConfig.SecurityOpt", lambda value: _options_right(value, profile.seccomp), "no-new-privileges + ours"),
        ("HostConfig.Ulimits", lambda value: _limits(value) == limits, str(limits)),
        ("HostConfig.Runtime", lambda value: not profile.runtime or value == profile.runtime, profile.runtime),
        ("HostConfig.DeviceRequests", lambda value: _gpus(value) == wanted_gpus, profile.gpu or "no GPU"),
        ("HostConfig.MaskedPaths", lambda value: set(profile.masked) <= set(value or ()), "at least ours"),
        ("HostConfig.ReadonlyPaths", lambda value: frozen <= set(value or ()), f"at least {sorted(frozen)}"),
        ("Config.Env", lambda value: _env_right(value, profile), "ours over the image's, no more"),
        ("Config.Labels", lambda value: profile.labels.items() <= (value or {}).items(), "our labels"),
        ("Config.Healthcheck", lambda value: not value or value.get("Test") == ["NONE"], "none"),
        ("AppArmorProfile", lambda value: value != "unconfined", "the engine's own, where the kernel has AppArmor"),
        ("NetworkSettings.Networks", lambda value: set(value or ()) <= {"none"}, "the network `none` alone"),
    ]


def _gpus(requests: list[dict[str, Any]] | None) -> list[str]:
    """The ids of those that were asked for; a request without ids asks for some number of any."""
    return [one for request in requests or () for one in request.get("DeviceIDs") or ["any"]]


def _options_right(options: list[str] | None, seccomp: str) -> bool:
    """Exactly the two that we ask for: a third could turn AppArmor or the filter off."""
    given = list(options or ())
    filters = [option.removeprefix("seccomp=") for option in given if option.startswith("seccomp=")]
    rest = {option.removesuffix(":true").removesuffix("=true") for option in given if not option.startswith("seccomp=")}
    wanted = [seccomp] if seccomp else []
    return rest == {"no-new-privileges"} and [_compact_or_raw(text) for text in filters] == wanted


def _capabilities(value: list[str] | None) -> set[str]:
    return {name.removeprefix("CAP_") for name in value or ()}


def _compact_or_raw(text: str) -> str:
    try:
        return compact(text)
    except ValueError:
        return text


def _limits(value: list[dict[str, Any]] | None) -> list[tuple[str, int, int]]:
    return sorted((each.get("Name", ""), each.get("Soft", -1), each.get("Hard", -1)) for each in value or ())


def _env_right(value: list[str] | None, profile: Profile) -> bool:
    given = dict(entry.partition("=")[::2] for entry in value or ())
    wanted = dict(entry.partition("=")[::2] for entry in profile.image_env) | dict(profile.env)
    return given == wanted


def _look(inspected: Mapping[str, Any], path: str) -> Any:
    value: Any = inspected
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 160 else text[:157] + "..."
