"""The mother of the process glass's guests: imports what a role needs once, then forks a guest per request. Linux.

    nursery.py ROLE FD warm|cold

FD is a socket of whole messages (JSON) to the driver. It says {"ready": true}; then the driver asks:
    {"arguments": [of guest.py], "work": folder}, with the guest's end of its pipe attached   -> {"pid": n}
    {"reap": pid, "seconds": s}                                                                -> {"code": n or null}
A guest that has ended stays a zombie until it is reaped, so that its account of CPU time can be read. When the driver's
end closes, this process ends; its guests have pipes of their own, and end by these.

The images don't have this file: in a container each guest is started by itself.

Not covered: anything that a fork inherits and a started process would not: the place of libraries in memory, and the
seed of Python's hashes.
"""

import contextlib
import ctypes
import gc
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from types import SimpleNamespace

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)  # `-I` leaves the script's folder out

import glass_child  # noqa: E402
import guest  # noqa: E402

HIGHEST_FD = 4096
_PR_SET_DUMPABLE = 4


def preload(role, warm):
    """The imports of glass_child.preload, and no step backwards: its threads would not survive a fork."""
    with contextlib.suppress(ImportError):
        import numpy  # noqa: F401 cheap, so it comes to cold guests too
    if not warm:
        return
    import torch

    torch.set_num_threads(1)
    if role == "train":
        sys.modules["torchmetrics"] = None
        import lightning_fabric  # noqa: F401

        del sys.modules["torchmetrics"]
        weight = torch.nn.Parameter(torch.zeros(2))
        weight.grad = torch.zeros(2)
        torch.optim.AdamW([weight], lr=1e-3).step()


class Forked:
    """What the supervisor uses of subprocess.Popen: the same descriptors and environment, and no new program."""

    def __init__(self, command, *, stdin, stdout, stderr, cwd, env, pass_fds, process_group):
        pipes = [os.pipe(), os.pipe()] if stdout == subprocess.PIPE else []
        self.pid = os.fork()
        if not self.pid:
            _be(lambda: _child(command, [end for _, end in pipes], cwd, env, pass_fds[0]))
        for _, end in pipes:
            os.close(end)
        self.stdout, self.stderr = [open(end, "rb", 0) for end, _ in pipes] or [None, None]  # noqa: SIM115


def _child(command, outputs, cwd, env, fd):
    os.setpgid(0, 0)
    null = os.open(os.devnull, os.O_RDWR)
    for number, end in enumerate([null, *(outputs or [null, null])]):
        os.dup2(end, number)
    os.closerange(3, fd)
    os.closerange(fd + 1, HIGHEST_FD)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    # What a program begins with. Python's own `random` is seeded anew at every fork; numpy's is not.
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)
    tempfile.tempdir = None
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()
    sys.path[:] = [folder for folder in sys.path if folder != HERE]
    sys.argv = command[command.index(glass_child.__file__) :]
    glass_child.main()


def _supervisor(arguments, work, pipe):
    os.setsid()
    os.dup2(pipe, 0)
    os.dup2(pipe, 1)
    os.closerange(3, HIGHEST_FD)
    os.chdir(work)
    sys.argv = ["guest.py", *arguments]
    guest.subprocess = SimpleNamespace(Popen=Forked, PIPE=subprocess.PIPE, DEVNULL=subprocess.DEVNULL)
    guest.main()


def _be(somebody):
    """Never returns: what is a fork must not go on as the nursery."""
    try:
        somebody()
    finally:
        os._exit(1)


def answer(message, pipes):
    if "reap" in message:
        return {"code": reap(message["reap"], time.monotonic() + message["seconds"])}
    pid = os.fork()
    if not pid:
        _be(lambda: _supervisor(message["arguments"], message["work"], pipes[0]))
    return {"pid": pid}


def reap(pid, until):
    while True:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found or time.monotonic() > until:
            return os.waitstatus_to_exitcode(status) if found else None
        time.sleep(0.005)


def main():
    role, driver, warm = sys.argv[1], socket.socket(fileno=int(sys.argv[2])), sys.argv[3] == "warm"
    preload(role, warm)
    gc.collect()
    gc.freeze()  # a collection in a fork would else write to every page, and so copy it
    driver.send(b'{"ready": true}')
    while True:
        data, pipes, _, _ = socket.recv_fds(driver, 64 * 1024, 1)
        if not data:
            return
        driver.send(json.dumps(answer(json.loads(data), pipes)).encode())
        for pipe in pipes:
            os.close(pipe)


if __name__ == "__main__":
    main()
