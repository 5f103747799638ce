"""What bundle code can see and reach. Most of this only a sealed glass gives; the process glass says so."""

from __future__ import annotations

import os
import socket

import pytest
from guests import begin, listen

from bellglass.records import Role

KEYS = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "AWS_SECRET_ACCESS_KEY", "WANDB_API_KEY", "BELLGLASS_TEST_KEY")


def told(opened, code, role=Role.TRAIN, **options):
    guest = opened(role)
    begin(guest, code, role=role)
    seen = listen(guest, **options)
    assert seen.err == b""
    return seen.out.decode().strip()


def test_keys_in_the_hosts_environment_are_not_inside(opened, monkeypatch):
    for key in KEYS:
        monkeypatch.setenv(key, "sk-hidden-treasure")
    found = told(
        opened,
        "import glob, os\nfor path in ['/proc/self/environ', f'/proc/{os.getppid()}/environ']:\n"
        "    try: print(open(path, 'rb').read())\n    except OSError: pass\nprint(dict(os.environ))",
    )
    assert "hidden-treasure" not in found
    assert "OMP_NUM_THREADS" in found


def test_bundle_code_runs_with_one_thread_per_library_by_default(opened):
    assert told(opened, "import os; print(os.environ['OMP_NUM_THREADS'], os.environ['MKL_NUM_THREADS'])") == "1 1"


OPEN = """
import os
def is_open(fd):
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True
"""


def test_no_descriptor_of_the_host_or_the_supervisor_is_inherited(opened):
    code = OPEN + "import glass; print([fd == glass._link.fd for fd in range(3, 4096) if is_open(fd)])"
    # One more is the file that is being run.
    assert told(opened, code) in ("[True]", "[True, False]", "[False, True]")


def test_what_bundle_code_starts_does_not_inherit_its_socket(opened):
    code = f"{OPEN}print([fd for fd in range(3, 1024) if is_open(fd)])"
    assert (
        told(opened, f"import subprocess, sys; subprocess.run([sys.executable, '-c', {code!r}], close_fds=False)")
        == "[]"
    )


def test_there_is_no_input_to_read(opened):
    assert told(opened, "import sys; print(repr(sys.stdin.read()))") == "''"


def test_the_workspace_is_private(opened):
    assert told(opened, "import os; open('x', 'w'); print(oct(os.stat('x').st_mode & 0o077))") == "0o0"


REACH_FOR_PARENT = """
import ctypes, os
parent = os.getppid()
got = []
for path in (f'/proc/{parent}/mem', f'/proc/{parent}/environ'):
    try:
        open(path, 'rb').close()
        got.append(path)
    except OSError:
        pass
for fd in range(64):
    try:
        os.close(os.open(f'/proc/{parent}/fd/{fd}', os.O_RDWR))
        got.append(fd)
    except OSError:
        pass
libc = ctypes.CDLL(None, use_errno=True)
if libc.ptrace(16, parent, 0, 0) == 0:  # attach
    got.append('ptrace')
if libc.process_vm_readv(parent, 0, 0, 0, 0, 0) == 0:
    got.append('process_vm_readv')
if libc.syscall(438, libc.syscall(434, parent, 0), 0, 0) >= 0:  # pidfd_getfd
    got.append('pidfd_getfd')
print(got)
"""


@pytest.mark.behaviour("supervisor_untouchable", safe=False)  # a supervisor that is traced stands still
def test_a_child_of_the_same_user_cannot_reach_into_its_supervisor(opened):
    assert told(opened, REACH_FOR_PARENT, seconds=4) == "[]"


@pytest.mark.behaviour("no_network")
def test_there_is_no_network_not_even_to_this_host(opened):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        reach = f"socket.create_connection(('127.0.0.1', {port}), 2); print('reached')"
        code = f"import socket\ntry: {reach}\nexcept OSError: print('no')"
        assert told(opened, code) == "no"


@pytest.mark.behaviour("no_network")
def test_there_is_no_interface_but_loopback(opened):
    # From a file: where even asking takes a socket, none is to be had. A glass that shows no such file shows none.
    lines = "[line.split(':')[0].strip() for line in open('/proc/net/dev') if ':' in line]"
    code = f"try: print({lines})\nexcept PermissionError: print(['lo'])"
    assert told(opened, code) == "['lo']"


@pytest.mark.behaviour("no_host_files")
def test_files_of_the_host_cannot_be_read(opened, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("treasure")
    assert told(opened, f"import os; print(os.path.exists({str(secret)!r}))") == "False"


@pytest.mark.behaviour("read_only_root")
def test_what_runs_the_guest_cannot_be_changed(opened):
    code = (
        "import glass, os, sys\n"
        "paths = (os.path.dirname(glass.__file__), sys.prefix, '/', '/etc', '/usr')\n"
        "print([path for path in paths if os.access(path, os.W_OK)])"
    )
    assert told(opened, code) == "[]"


@pytest.mark.behaviour("unprivileged")
def test_bundle_code_is_no_root_and_has_no_capability(opened):
    code = (
        "import ctypes, os, struct\nlibc, sets = ctypes.CDLL(None), ctypes.create_string_buffer(24)\n"
        "assert libc.capget(struct.pack('Ii', 0x20080522, 0), sets) == 0\n"
        "print(os.getuid() != 0, any(sets.raw), libc.prctl(39, 0, 0, 0, 0))\n"  # 39: has it no new privileges?
    )
    assert told(opened, code) == "True False 1"


@pytest.mark.behaviour("unprivileged")
def test_device_files_cannot_be_made(opened):
    make = "os.mknod('dev', stat.S_IFBLK | 0o600, os.makedev(8, 0)); print('made')"
    code = f"import os, stat\ntry: {make}\nexcept OSError: print('no')"
    assert told(opened, code) == "no"


@pytest.mark.behaviour("no_host_files")
def test_processes_of_the_host_cannot_be_seen(opened):
    assert told(opened, f"import os; print(os.path.exists('/proc/{os.getpid()}/cmdline'))") in ("False",)


def test_no_core_file_is_left(opened):
    guest = opened()
    begin(guest, "import os, resource; print(resource.getrlimit(resource.RLIMIT_CORE), flush=True); os.abort()")
    seen = listen(guest)
    assert seen.out == b"(0, 0)\n"
    assert seen.why == "crashed"


def test_two_guests_do_not_share_a_workspace(opened):
    one, other = opened(), opened()
    begin(one, "open('mark', 'w'); import os; print(os.getcwd())")
    assert listen(one).why == "ok"
    begin(other, "import os; print(os.path.exists('mark'))")
    assert listen(other).out == b"False\n"


def test_the_glass_reports_exactly_the_behaviours_that_the_suite_knows(any_glass, request):
    known = {mark.args[0] for item in request.session.items for mark in item.iter_markers("behaviour")} | {
        "no_network",
        "no_host_files",
        "read_only_root",
        "unprivileged",
        "supervisor_untouchable",
    }
    fails = getattr(any_glass, "fails", frozenset())
    assert any_glass.sealed == (not fails)  # a glass that fails any of them may not call itself sealed
    if len(request.session.items) > 50:  # the whole suite was collected
        assert fails <= known
