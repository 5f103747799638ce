"""The frozen profile: what is asked for, what runs, and that every field is looked at.

The recorded container was inspected on Docker 20.10; names of user and host are made up.
"""

from __future__ import annotations

import copy
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bellglass.doors.docker import profile as profiles
from bellglass.doors.docker.profile import Profile, create_body, differences, profile_for
from bellglass.paths import content_root
from bellglass.ports import GuestSpec
from bellglass.records import Role

RECORDED = json.loads((Path(__file__).parent / "recorded" / "inspect_improve.json").read_text())
LIE = "a wrong value"

# Every field that the check looks at, and a wrong value that could do harm.
WRONG: dict[str, Any] = {
    "Image": "sha256:" + "0" * 64,
    "Path": "/bin/sh",
    "Args": ["-c", "sleep 1"],
    "Mounts": [{"Type": "bind", "Source": "/home", "Destination": "/home"}],
    "AppArmorProfile": "unconfined",
    "Config.User": "0:0",
    "Config.Tty": True,
    "Config.OpenStdin": False,
    "Config.StdinOnce": False,
    "Config.WorkingDir": "/",
    "Config.Hostname": "bench",
    "Config.Env": ["PATH=/bin", "ANTHROPIC_API_KEY=secret"],
    "Config.Labels": {"bellglass.user": "eve"},
    "Config.Healthcheck": {"Test": ["CMD", "true"]},
    "Config.Volumes": {"/data": {}},
    "HostConfig.NetworkMode": "bridge",
    "HostConfig.Binds": ["/:/host"],
    "HostConfig.Mounts": [{"Type": "tmpfs", "Target": "/more"}],
    "HostConfig.VolumesFrom": ["other"],
    "HostConfig.Tmpfs": {"/work": "rw,exec"},
    "HostConfig.CapDrop": [],
    "HostConfig.CapAdd": ["SYS_PTRACE"],
    "HostConfig.SecurityOpt": ["no-new-privileges", "seccomp=unconfined"],
    "HostConfig.Privileged": True,
    "HostConfig.ReadonlyRootfs": False,
    "HostConfig.Memory": 0,
    "HostConfig.MemorySwap": -1,
    "HostConfig.OomKillDisable": True,
    "HostConfig.OomScoreAdj": -500,
    "HostConfig.PidsLimit": 0,
    "HostConfig.CpuPeriod": 0,
    "HostConfig.CpuQuota": 0,
    "HostConfig.Ulimits": [],
    "HostConfig.LogConfig.Type": "json-file",
    "HostConfig.RestartPolicy.Name": "always",
    "HostConfig.AutoRemove": True,
    "HostConfig.IpcMode": "host",
    "HostConfig.PidMode": "host",
    "HostConfig.UTSMode": "host",
    "HostConfig.UsernsMode": "host",
    "HostConfig.CgroupnsMode": "host",
    "HostConfig.CgroupParent": "/",
    "HostConfig.Cgroup": "container:other",
    "HostConfig.Init": True,
    "HostConfig.Runtime": "other",
    "HostConfig.Devices": [{"PathOnHost": "/dev/kvm"}],
    "HostConfig.DeviceCgroupRules": ["a *:* rwm"],
    "HostConfig.DeviceRequests": [{"Count": -1}],
    "HostConfig.GroupAdd": ["docker"],
    "HostConfig.Links": ["other:other"],
    "HostConfig.ExtraHosts": ["x:1.2.3.4"],
    "HostConfig.PortBindings": {"80/tcp": [{"HostPort": "80"}]},
    "HostConfig.PublishAllPorts": True,
    "HostConfig.Sysctls": {"kernel.msgmax": "1"},
    "HostConfig.MaskedPaths": [],
    "HostConfig.ReadonlyPaths": [],
    "NetworkSettings.Networks": {"bridge": {}},
}


def own_labels(inspected: dict[str, Any]) -> dict[str, str]:
    """Without those that come from the image."""
    of_image = ("bellglass.content", "bellglass.stage", "bellglass.device")
    return {name: value for name, value in inspected["Config"]["Labels"].items() if name not in of_image}


def recorded_profile() -> Profile:
    """The profile that the recorded container was made by."""
    options = RECORDED["HostConfig"]["SecurityOpt"]
    seccomp = next(text.removeprefix("seccomp=") for text in options if text.startswith("seccomp="))
    labels = own_labels(RECORDED)
    spec, taken = GuestSpec(Role.IMPROVE, {}, 256, 60.0), RECORDED["Image"]
    made = profile_for(spec, uid=47821, image=taken, image_env=(), labels=labels, seccomp=seccomp, runtime="runc")
    return replace(made, command=(*made.command, "--cold"))


def changed(path: str, value: Any) -> dict[str, Any]:
    lying = copy.deepcopy(RECORDED)
    *folders, last = path.split(".")
    place = lying
    for folder in folders:
        place = place[folder]
    place[last] = value
    return lying


def test_the_recorded_container_is_as_its_profile_says() -> None:
    assert differences(RECORDED, recorded_profile()) == []


@pytest.mark.parametrize("path", WRONG)
def test_each_field_of_the_profile_mutated_once_is_noticed(path: str) -> None:
    found = differences(changed(path, WRONG[path]), recorded_profile())
    assert len(found) == 1
    assert found[0].startswith(f"{path}: found ")


def test_every_field_that_is_checked_is_mutated_above() -> None:
    wanted = recorded_profile()
    checked = set(profiles._exact(wanted)) | {path for path, _, _ in profiles._judged(wanted)}
    assert checked == set(WRONG)


def test_every_field_that_is_asked_for_is_checked() -> None:
    host = create_body(replace(recorded_profile(), gpu="0"))["HostConfig"]
    assert {f"HostConfig.{name}" for name in host} <= {".".join(path.split(".")[:2]) for path in WRONG}


@pytest.mark.parametrize(
    "options",
    [
        ["no-new-privileges"],
        ["no-new-privileges:false", "seccomp={}"],
        ["seccomp={}"],
        ["no-new-privileges", "seccomp={}", "apparmor=unconfined"],
        ["no-new-privileges", "seccomp={}", "label=disable"],
        ["no-new-privileges", "seccomp={}", "systempaths=unconfined"],
        ["no-new-privileges", 'seccomp={"defaultAction":"SCMP_ACT_ALLOW"}'],
        ["no-new-privileges", "seccomp={}", "seccomp=unconfined"],
        None,
    ],
)
def test_security_options_with_a_hole_are_noticed(options: list[str] | None) -> None:
    wanted = replace(recorded_profile(), seccomp="{}")
    assert differences(changed("HostConfig.SecurityOpt", ["no-new-privileges:true", "seccomp={}"]), wanted) == []
    assert len(differences(changed("HostConfig.SecurityOpt", options), wanted)) == 1


@pytest.mark.parametrize("path", ["/proc/stat", "/proc/meminfo", "/proc/locks", "/proc/sys", "/proc/kcore", "/sys"])
def test_a_guest_can_read_no_counter_of_the_machine(path: str) -> None:
    asked = create_body(recorded_profile())["HostConfig"]["MaskedPaths"]
    assert path in asked
    left = [each for each in asked if each != path]
    assert len(differences(changed("HostConfig.MaskedPaths", left), recorded_profile())) == 1


def test_a_missing_answer_is_no_good_answer() -> None:
    assert len(differences({}, recorded_profile())) > 25


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("gpu", [None, 0])
def test_memory_is_the_working_set_and_all_that_tmpfs_can_hold(role: Role, gpu: int | None) -> None:
    made = some_profile(role, gpu=gpu)
    host = create_body(made)["HostConfig"]
    options = [option.partition("=") for text in host["Tmpfs"].values() for option in text.split(",")]
    sizes = [int(value) for name, _, value in options if name == "size"]
    assert len(sizes) == len(host["Tmpfs"]) == 4
    assert host["Memory"] == (700 << 20) + sum(sizes) == host["MemorySwap"]
    assert all("nr_inodes=" in text and "nosuid" in text and "nodev" in text for text in host["Tmpfs"].values())


def test_only_an_improver_and_a_gpu_guest_may_run_files_they_wrote() -> None:
    may = {
        (role, gpu): {place for place, text in create_body(some_profile(role, gpu=gpu))["HostConfig"]["Tmpfs"].items()
                      if ",exec," in text}
        for role in Role for gpu in (None, 0)
    }  # fmt: skip
    assert may == {key: {"/work"} if key[0] is Role.IMPROVE or key[1] is not None else set() for key in may}


def test_nothing_of_the_hosts_environment_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "secret")
    monkeypatch.setenv("HTTPS_PROXY", "http://user:secret@proxy")
    assert "secret" not in json.dumps(create_body(some_profile(Role.IMPROVE)))


def test_a_gpu_guest_gets_one_gpu_and_others_none() -> None:
    (request,) = create_body(some_profile(Role.TRAIN, gpu=1))["HostConfig"]["DeviceRequests"]
    assert request["DeviceIDs"] == ["1"]
    assert "Count" not in request
    assert "DeviceRequests" not in create_body(some_profile(Role.TRAIN))["HostConfig"]


def test_a_driver_that_may_see_some_gpus_asks_for_one_of_these(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-8f")
    assert [some_profile(Role.TRAIN, gpu=gpu).gpu for gpu in (0, 1, None)] == ["3", "GPU-8f", None]


@pytest.mark.parametrize(
    ("requests", "right"),
    [
        ([{"DeviceIDs": ["1"]}], True),
        ([{"DeviceIDs": ["0"]}], False),
        ([{"DeviceIDs": ["0", "1"]}], False),
        ([{"DeviceIDs": ["1"]}, {"Count": -1}], False),
        ([{"Count": 1, "DeviceIDs": []}], False),
        (None, False),
    ],
)
def test_another_gpu_than_the_one_asked_for_is_noticed(requests: list[Any] | None, right: bool) -> None:
    found = differences(changed("HostConfig.DeviceRequests", requests), replace(recorded_profile(), gpu="1"))
    found = [line for line in found if not line.startswith("HostConfig.MaskedPaths")]  # a CPU guest's, as recorded
    assert [line for line in found if "DeviceRequests" in line] == found
    assert (found == []) == right


def some_profile(role: Role, *, gpu: int | None = None) -> Profile:
    spec = GuestSpec(role, {"loop": "t"}, 700, 60.0, gpu=gpu)
    return profile_for(spec, uid=47821, image="sha256:0", image_env=(), labels={"bellglass.loop": "t"}, seccomp="{}")


# With an engine


def real_profile(engine: Any, role: Role, **more: Any) -> Profile:
    from bellglass.doors.docker import image

    found = image.find(engine, role)
    labels = {"bellglass.loop": "profile-test"}
    spec = GuestSpec(role, {}, 256, 60.0)
    seccomp = (content_root() / "sandbox" / profiles.seccomp_file(spec)).read_text()
    made = profile_for(spec, uid=47821, image=found.id, image_env=found.env, labels=labels, seccomp=seccomp)
    return replace(made, **more)


@pytest.mark.docker
@pytest.mark.parametrize("role", Role)
def test_a_running_guest_of_each_role_is_as_its_profile_says(engine: Any, role: Role) -> None:
    from bellglass.doors.docker.glass import DockerGlass

    glass = DockerGlass(engine, warm=False, prove=False, keep=False)
    guest = glass.open(GuestSpec(role, {"loop": "profile-test"}, 256, 60.0))
    try:
        facts = engine.inspect(guest.id)
        assert facts["State"]["Running"]
        labels = own_labels(facts)
        uid = int(labels["bellglass.uid"])
        wanted = real_profile(engine, role, labels=labels, uid=uid)
        assert uid >= 1 << 20
        assert differences(facts, replace(wanted, command=(*wanted.command, "--cold"))) == []
        needed = ("user", "host", "loop", "role", "owner_pid", "owner_start", "deadline")
        assert {f"bellglass.{word}" for word in needed} <= set(labels)
    finally:
        guest.end()


HARMFUL: dict[str, dict[str, Any]] = {
    "Privileged": {"Privileged": True},
    "NetworkMode": {"NetworkMode": "bridge"},
    "ReadonlyRootfs": {"ReadonlyRootfs": False},
    "Binds": {"Binds": ["/tmp:/host:ro"]},
    "CapDrop": {"CapDrop": []},
    "CapAdd": {"CapAdd": ["NET_ADMIN"]},
    "SecurityOpt": {"SecurityOpt": ["no-new-privileges", "seccomp=unconfined"]},
    "Memory": {"Memory": 1 << 30, "MemorySwap": 1 << 30},
    "MemorySwap": {"MemorySwap": -1},
    "PidsLimit": {"PidsLimit": -1},
    "CpuQuota": {"CpuQuota": 0},
    "Ulimits": {"Ulimits": []},
    "LogConfig": {"LogConfig": {"Type": "json-file", "Config": {}}},
    "AutoRemove": {"AutoRemove": True},
    "IpcMode": {"IpcMode": "host"},
    "PidMode": {"PidMode": "host"},
    "CgroupnsMode": {"CgroupnsMode": "host"},
    "Devices": {"Devices": [{"PathOnHost": "/dev/null", "PathInContainer": "/dev/x", "CgroupPermissions": "r"}]},
    "Tmpfs": {"Tmpfs": {"/work": "exec"}},
    "OomKillDisable": {"OomKillDisable": True},
    "Init": {"Init": True},
    "MaskedPaths": {"MaskedPaths": ["/proc/kcore", "/proc/keys", "/sys/firmware"]},
}


@pytest.mark.docker
@pytest.mark.parametrize("field", HARMFUL)
def test_a_container_made_with_a_hole_is_noticed(engine: Any, field: str) -> None:
    wanted = real_profile(engine, Role.IMPROVE)
    body = create_body(wanted)
    body["HostConfig"] |= HARMFUL[field]
    container = engine.create(f"bellglass-hole-{field}-{os.getpid()}", body)
    try:
        found = differences(engine.inspect(container), wanted)
        assert any(field in line for line in found), found
    finally:
        engine.remove(container)


@pytest.mark.docker
def test_this_daemon_passes_its_self_check(engine: Any) -> None:
    from bellglass.doors.docker import selfcheck

    results = selfcheck.check(engine)
    assert [(name, found) for name, ok, found in results if not ok] == []
    assert len(results) >= 10


@pytest.mark.docker
def test_the_self_check_notices_limits_that_do_not_hold(engine: Any) -> None:
    """The profile asks for one thing, the container is made as another: as a daemon that ignores its orders would."""
    from bellglass.doors.docker import selfcheck

    class Careless(type(engine)):  # type: ignore[misc]
        def create(self, name: str, body: Any) -> str:
            careless = copy.deepcopy(body)
            careless["HostConfig"] |= {"PidsLimit": 5000, "ReadonlyRootfs": False, "CapDrop": [], "NetworkMode": "host"}
            careless["HostConfig"]["SecurityOpt"] = ["seccomp=unconfined"]
            careless["User"] = "0:0"
            return str(super().create(name, careless))

    results = selfcheck.check(Careless(engine._api, engine.url))
    failed = {name for name, ok, _ in results if not ok}
    assert {"profile", "user", "capabilities", "no new privileges", "no network", "system calls"} <= failed
    assert {"read-only root", "processes"} <= failed
