"""Run a shell command in this sandbox."""

import contextlib
import os
import selectors
import signal
import subprocess
import time

import desk

SPEC = {
    "name": "shell",
    "description": "Run a shell command in work/ (no network, no torch). Output and errors come back together.",
    "parameters": {"type": "object", "properties": {"command": {"type": "string"}}, "required": ["command"]},
}
MOST_BYTES = 1_000_000  # a flood is cut off rather than kept


def run(args: dict) -> str:
    limit = float(desk.settings()["shell_seconds"])
    process = subprocess.Popen(
        ["/bin/sh", "-c", args["command"]],
        cwd=desk.WORK,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        output, why = _collect(process, time.monotonic() + limit)
    finally:
        _end(process)
    why = why or f"[exit status {process.returncode}]"
    return f"{output.decode(errors='replace')}\n{why}"


def _collect(process: subprocess.Popen, deadline: float) -> tuple[bytes, str]:
    output = bytearray()
    with selectors.DefaultSelector() as ready:
        ready.register(process.stdout, selectors.EVENT_READ)
        while len(output) <= MOST_BYTES:
            left = deadline - time.monotonic()
            if left <= 0:
                return bytes(output), "[ended: it ran past the time limit]"
            if not ready.select(left):
                continue
            chunk = os.read(process.stdout.fileno(), 65536)
            if not chunk:
                return bytes(output), _wait(process, deadline)
            output += chunk
    return bytes(output), "[ended: too much output]"


def _wait(process: subprocess.Popen, deadline: float) -> str:
    """Its output is closed, but it may go on."""
    try:
        process.wait(max(0.1, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        return "[ended: it ran past the time limit]"
    return ""


def _end(process: subprocess.Popen) -> None:
    """The whole process group, so that nothing it left in the background stays."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.stdout.close()
    process.wait()
