"""The driver's end of a nursery: one process per role that has imported torch, and forks a guest whenever asked.

Starting a guest costs two CPU-seconds of imports, forking one some milliseconds. A trial needs three, so that on two
cores most of a loop's time would go into imports. A guest that is a fork is as fresh as one that was started: the
nursery never holds bundle code, and each fork serves once.

A nursery that fails in any way is given up, and the glass starts its guests one by one again.

Not covered: a guest that kills or changes the nursery. It may do as much to the driver itself: this is no sandbox.
"""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import threading
from collections.abc import Mapping
from typing import Final

from bellglass.paths import content_root
from bellglass.records import Json, Role

PRELOAD_SECONDS: Final = 120.0
ANSWER_SECONDS: Final = 10.0
MOST_BYTES: Final = 64 * 1024
ENV: Final = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"} | {
    f"{name}_NUM_THREADS": "1"
    for name in ("OMP", "MKL", "OPENBLAS", "NUMEXPR")  # read once, when torch is imported
}


class Child:
    """What a guest needs of subprocess.Popen, for a process whose parent is the nursery."""

    def __init__(self, nursery: Nursery, pid: int) -> None:
        self._nursery, self.pid = nursery, pid

    def wait(self, timeout: float) -> int | None:
        """Its exit code; None when nobody can tell any more. Until then its pid is not used again."""
        try:
            code = self._nursery.ask({"reap": self.pid, "seconds": timeout}, timeout + ANSWER_SECONDS)["code"]
        except (OSError, ValueError, KeyError):
            return None
        if code is None:
            raise subprocess.TimeoutExpired("a forked guest", timeout)
        return int(code)


class Nursery:
    def __init__(self, python: str, role: Role, env: Mapping[str, str], *, warm: bool) -> None:
        """Returns at once; the imports go on in the background. OSError when it doesn't even start."""
        self._asking = threading.Lock()
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        script = content_root() / "sandbox" / "nursery.py"
        words = [str(role), str(theirs.fileno()), "warm" if warm else "cold"]
        try:
            self._process = subprocess.Popen(
                [python, "-I", "-B", str(script), *words],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={**env, **ENV},
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        except OSError:
            self._ours.close()
            raise
        finally:
            theirs.close()
        self._ready = False

    @property
    def pid(self) -> int:
        return self._process.pid

    def fork(self, arguments: list[str], work: str, end: socket.socket) -> Child:
        """A guest with these arguments of guest.py, whose pipe is `end`. OSError or ValueError when there is none."""
        answer = self.ask({"arguments": arguments, "work": work}, ANSWER_SECONDS, end)
        return Child(self, int(answer["pid"]))

    def ask(self, message: dict[str, Json], seconds: float, end: socket.socket | None = None) -> dict[str, Json]:
        """One question, one answer. After a failure every later one fails too: an answer may still be under way."""
        with self._asking:
            try:
                self._await_ready()
                self._ours.settimeout(seconds)
                socket.send_fds(self._ours, [json.dumps(message).encode()], [] if end is None else [end.fileno()])
                return self._answer()
            except (OSError, ValueError):
                self._ours.close()
                raise

    def close(self) -> None:
        """Its guests are not ended by this: they end with their own pipes."""
        with self._asking:
            self._ours.close()
        self._process.kill()
        self._process.wait()

    def _await_ready(self) -> None:
        if not self._ready:
            self._ours.settimeout(PRELOAD_SECONDS)
            self._ready = bool(self._answer()["ready"])

    def _answer(self) -> dict[str, Json]:
        data = self._ours.recv(MOST_BYTES)
        if not data:
            raise ConnectionError("the nursery is gone")
        with contextlib.suppress(RecursionError):
            answer = json.loads(data)
            if isinstance(answer, dict):
                return answer
        raise ValueError("no answer of a nursery")
