"""The supervisor inside a glass: PID 1 of a container. It never runs bundle code. Stdlib only.

    guest.py WORK [--cold] [--bare] [--pids N] [--memory-mb N] [--file-mb N]

It owns the pipe to the host (descriptors 0 and 1 at the start) and relays checked frames between it and one child,
which runs the bundle and can reach the host by no other way. It ends, with everything below it, when the stream
ends, when the host has been silent for the lease, at the deadline, when the child ends, and when either side stalls.

Not covered: a child of the same user on an unsealed machine can kill this process (then the host sees `lost`);
in a container it is PID 1, not dumpable, and neither signals nor /proc reach it.
"""

import argparse
import contextlib
import os
import queue
import socket
import subprocess
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)  # `-I` leaves the script's folder out

import glass_broker as broker  # noqa: E402
import glass_frames as frames  # noqa: E402
import glass_procs as procs  # noqa: E402

STALL_SECONDS = 15.0
BEAT_SECONDS = 2.0
STOP_GRACE_SECONDS = 2.0
HELLO_SECONDS = 60.0
QUEUE_FRAMES = 16
LOG_BYTES = 4 << 20  # per life; what comes after is thrown away here
LOG_CHUNK = 64 * 1024
LOG_PAUSE_SECONDS = 0.02  # between two log frames of one stream, so that a chatty child can't fill the pipe
MAY_SEND = {
    "improve": {"ready", "request", "file"},
    "train": {"ready", "request", "file", "metric"},
    "predict": {"ready", "request", "file"},
}
KEPT_ENV = (
    "LD_LIBRARY_PATH",
    "CUDA_VISIBLE_DEVICES",
    "CUDA_DEVICE_ORDER",
    "NVIDIA_VISIBLE_DEVICES",
    "NVIDIA_DRIVER_CAPABILITIES",
)
PATH = "/usr/local/bin:/usr/bin:/bin"
EXIT_NO_TORCH, EXIT_NOT_CONFINED, EXIT_STOPPED = 3, 4, 130  # the child's codes with a meaning


class Supervisor:
    def __init__(self, fd_in, fd_out, options):
        self.fd_out, self.options = fd_out, options
        self.host = frames.FrameReader(fd_in, frames.FROM_HOST)
        self.to_host, self.to_child = queue.Queue(QUEUE_FRAMES), queue.Queue(QUEUE_FRAMES)
        self.wake, self.child_ended = threading.Event(), threading.Event()
        self.verdict = None  # a fixed word, once a thread has seen the end
        self.heard = self.beat_at = time.monotonic()
        self.writing_since = self.stop_at = None
        self.relaying = self.ready = self.flushed = False
        self.log_left = LOG_BYTES
        self.lock = threading.Lock()

    def run(self):
        # A host that never speaks gets no time limit from `hello`, so one is set by hand.
        impatience = threading.Timer(HELLO_SECONDS, os._exit, (1,))
        impatience.daemon = True
        impatience.start()
        hello = self.host.next()
        if hello is None or hello[0] != "hello" or hello[1]["role"] not in MAY_SEND:
            os._exit(1)
        impatience.cancel()
        self.role = hello[1]["role"]
        self.lease, self.deadline = hello[1]["lease_s"], time.monotonic() + hello[1]["deadline_s"]
        self.spawn()
        threads = [(self.read_host,), (self.write_child,), (self.write_host,), (self.read_child,)]
        if self.role != "predict":
            threads += [(self.pump, "out", self.child.stdout), (self.pump, "err", self.child.stderr)]
        self.draining = len(threads) - 3  # what must still be read when the child has ended
        for target, *rest in threads:
            threading.Thread(target=target, args=rest, daemon=True).start()
        why, code = self.watch()
        self.finish(why, code)

    def spawn(self):
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        work = self.options.work
        os.makedirs(os.path.join(work, "tmp"), exist_ok=True)
        os.makedirs(os.path.join(work, "out"), exist_ok=True)
        env = {name: os.environ[name] for name in KEPT_ENV if name in os.environ}
        env |= {"PATH": PATH, "HOME": work, "TMPDIR": os.path.join(work, "tmp"), "LANG": "C.UTF-8"}
        env |= {"PYTHONDONTWRITEBYTECODE": "1", "USER": "glass", "LOGNAME": "glass"}  # its uid is in no list
        env |= {f"{name}_NUM_THREADS": "1" for name in ("OMP", "MKL", "OPENBLAS", "NUMEXPR")}
        output = subprocess.DEVNULL if self.role == "predict" else subprocess.PIPE
        command = [sys.executable, "-I", "-B", os.path.join(HERE, "glass_child.py")]
        command += [self.role, work, str(theirs.fileno()), "cold" if self.options.cold else "warm"]
        passed = [theirs.fileno()]
        if self.role == "predict" and not self.options.bare:
            asks, asked = socket.socketpair()
            passed.append(asked.fileno())
        command.append("bare" if self.options.bare else str(passed[-1]))
        self.child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=work,
            env=env,
            pass_fds=passed,
            process_group=0,
        )
        theirs.close()
        if len(passed) > 1:
            asked.close()
            threading.Thread(target=self.look_up, args=[asks.detach()], daemon=True).start()
        self.child_fd = ours.detach()

    # Each of these is one thread. A thread that sees the end says so by `conclude`.

    def conclude(self, why):
        self.verdict = self.verdict or why
        self.wake.set()

    def read_host(self):
        try:
            while (frame := self.host.next()) is not None:
                self.heard = time.monotonic()
                kind, _, line, body = frame
                if kind == "stop":
                    self.stop_at = self.heard + STOP_GRACE_SECONDS
                if kind in ("file", "start", "reply", "stop"):
                    self.relaying = True
                    self.to_child.put((line, body), timeout=STALL_SECONDS)
                    self.heard, self.relaying = time.monotonic(), False
            self.conclude("lost")
        except queue.Full:
            self.conclude("stalled")
        except (OSError, frames.BadFrame):
            self.conclude("lost")

    def write_child(self):
        with contextlib.suppress(OSError):  # the child has ended: `watch` sees that
            while True:
                frames.write_all(self.child_fd, *self.to_child.get())

    def read_child(self):
        reader = frames.FrameReader(self.child_fd, frames.FROM_CHILD)
        try:
            while (frame := reader.next()) is not None:
                kind, _, line, body = frame
                if kind not in MAY_SEND[self.role] or (kind == "ready") == self.ready:
                    raise frames.BadFrame(kind)
                self.ready = True
                self.to_host.put((line, body))
        except frames.BadFrame:
            self.conclude("malformed")
        except OSError:
            pass  # reset by a dying child
        self.drained()

    def look_up(self, asks):
        try:
            broker.Broker(asks, self.child.pid, self.options.work, [sys.prefix, sys.base_prefix]).serve()
        except OSError:  # else the child would wait for ever
            self.conclude("lost")

    def drained(self):
        with self.lock:
            self.draining -= 1
        self.wake.set()

    def pump(self, stream, pipe):
        while chunk := os.read(pipe.fileno(), LOG_CHUNK):
            kept = chunk[: max(0, self.log_left)]
            self.log_left -= len(chunk)
            if kept:
                self.to_host.put((frames.encode("log", {"stream": stream}, len(kept)), kept))
                self.child_ended.wait(LOG_PAUSE_SECONDS)
        self.drained()

    def write_host(self):
        try:
            while True:
                now = time.monotonic()
                if now >= self.beat_at:
                    self.beat_at = now + BEAT_SECONDS
                    self.write(frames.encode("beat", {"cpu_s": round(procs.cpu_seconds(), 3)}))
                try:
                    item = self.to_host.get(timeout=max(0.01, self.beat_at - now))
                except queue.Empty:
                    continue
                if item is None:
                    break
                self.write(*item)
        except OSError:
            self.conclude("lost")
        self.flushed = True
        self.wake.set()

    def write(self, line, body=b""):
        self.writing_since = time.monotonic()
        frames.write_all(self.fd_out, line, body)
        self.writing_since = None

    # The main thread.

    def watch(self):
        """Wait for the end; returns (why, code)."""
        code, ended_at, total = None, None, self.draining
        while True:
            # Once the child's socket or output has ended, its exit is a matter of milliseconds.
            self.wake.wait(0.25 if self.draining == total or code is not None else 0.005)
            self.wake.clear()
            if why := self.verdict or self.expired():
                return why, 1
            if code is None:
                code = procs.reap(self.child.pid)
                if code is not None:
                    procs.kill_below(self.child.pid)
                    self.child_ended.set()
                    ended_at = time.monotonic()
            if code is not None and (not self.draining or time.monotonic() > ended_at + STALL_SECONDS):
                return self.word_for(code), code & 255

    def expired(self):
        now, since = time.monotonic(), self.writing_since
        if now > self.deadline:
            return "timeout"
        if self.stop_at is not None and now > self.stop_at:
            return "stopped"
        if since is not None and now - since > STALL_SECONDS:
            return "stalled"
        if now - self.heard > self.lease and not self.relaying:
            return "lost"
        if self.options.pids and len(procs.descendants()) > self.options.pids:
            return "flood"
        return None

    def word_for(self, code):
        if code == 0:
            return "ok"
        if code == EXIT_NOT_CONFINED and not self.ready:
            os.write(2, b"the child could not be confined: no Landlock, or no filter\n")
        if code == EXIT_NO_TORCH and not self.ready:
            return "no_torch"
        return "stopped" if code == EXIT_STOPPED and self.stop_at is not None else "crashed"

    def finish(self, why, code):
        procs.kill_below(self.child.pid)
        if why != "lost":
            until = time.monotonic() + (5.0 if why != "ok" else STALL_SECONDS)
            with contextlib.suppress(queue.Full):
                self.to_host.put((frames.encode("done", {"code": code, "why": why}), b""), timeout=5.0)
                self.to_host.put(None, timeout=5.0)
            while not self.flushed and time.monotonic() < until:
                self.wake.wait(0.1)
                self.wake.clear()
        os._exit(0 if why == "ok" else 1)


def private_pipe():
    """Move the pipe away from 0 and 1, where a child would inherit it, and put nothing in its place."""
    fd_in, fd_out = os.dup(0), os.dup(1)  # dup'ed descriptors are close-on-exec
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1):
        os.dup2(null, fd)
    os.close(null)
    return fd_in, fd_out


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("work")
    parser.add_argument("--cold", action="store_true", help="don't import what the role needs ahead")
    parser.add_argument("--bare", action="store_true", help="the child keeps /proc, and `predict` every system call")
    parser.add_argument("--pids", type=int, default=0, help="end when there are more processes (0: the engine limits)")
    parser.add_argument("--memory-mb", type=int, default=0)
    parser.add_argument("--file-mb", type=int, default=0)
    options = parser.parse_args()
    options.work = os.path.abspath(options.work)
    os.umask(0o077)
    fd_in, fd_out = private_pipe()
    procs.protect()
    procs.limit("RLIMIT_DATA", options.memory_mb << 20)
    procs.limit("RLIMIT_FSIZE", options.file_mb << 20)
    procs.limit("RLIMIT_NOFILE", 1024)
    Supervisor(fd_in, fd_out, options).run()


if __name__ == "__main__":
    main()
