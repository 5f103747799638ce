"""What bundle code sees as `import glass`: its only way to the host. Stdlib only.

Trainers:  args, data(), time_left(), metric(name, value, step).
Scaffolds: args, brief(), chat(...), trial(...), trials(...), history(), budget(), note(text), submit(note).

Nothing here protects the host, which checks everything again. The checks here only make mistakes cheap to see.
"""

import json
import os
import queue
import signal
import stat
import threading

import glass_frames as frames

TRAINER_FILES = ("data.py", "objective.py", "model.py", "train.py")
MAX_FILE = 256 * 1024
MAX_SCAFFOLD_FILES = 200
MAX_BUNDLE = 2 << 20
MAX_METRICS = 40_000  # more are dropped, but for claims; the host would end a guest that floods
MAX_OUTSTANDING = 8

args = {}  # what `start` said; filled before bundle code runs


class Refused(Exception):
    """The host, or a check made here, said no. `code` is a fixed word."""

    def __init__(self, code, detail=""):
        super().__init__(f"{code}: {detail}" if detail else code)
        self.code, self.detail = code, detail


# --- for trainers ---


def data():
    """Ask for the training data, which starts the clock. Returns the folder with tokens.npy and meta.json."""
    _ask("data")
    return os.path.join(_link.work, "data")


def time_left():
    """(left, total) of the budget, in its own units."""
    answer = _ask("time_left")[0]
    return answer["left"], answer["total"]


def metric(name, value, step=0):
    """Report a number. `claim_bits` is the trainer's claim about its own quality: bits per held-out target."""
    _link.metrics += 1
    if _link.metrics <= MAX_METRICS or (name == "claim_bits" and _link.metrics < MAX_METRICS + 5000):
        value = float(value)
        if value - value == 0.0 and abs(value) < 1e300:  # the wire carries finite numbers only
            _link.send("metric", name=str(name)[:100], value=value, step=int(step))


# --- for scaffolds ---


def brief():
    with open(os.path.join(_link.work, "brief.md"), encoding="utf-8") as file:
        return file.read()


def chat(messages, tools=(), model="main", max_tokens=4096):
    """One model call: {"text", "calls", "opaque", "stop"}. Raises Refused when the host won't or can't."""
    body = {"model": model, "messages": list(messages), "tools": list(tools), "max_tokens": max_tokens}
    return json.loads(_ask("chat", body=json.dumps(body).encode())[1])


def trial(note="", fraction=1.0):
    """Train and judge what is now under work/trainer, with that share of the budget."""
    files = {f"trial/trainer/{name}": content for name, content in _trainer().items()}
    return _ask("trial", {"note": str(note)[:2000], "fraction": float(fraction)}, files=files)[0]


def trials(candidates):
    """Several trials side by side. A candidate is {"files": {"trainer/x.py": text}, "note", "fraction"}."""
    told = []
    for candidate in candidates:
        overlay = dict(candidate.get("files", {}))
        if unknown := set(overlay) - {f"trainer/{name}" for name in TRAINER_FILES}:
            raise Refused("bad_submit", f"{sorted(unknown)[0]!r} is no trainer file")
        note, fraction = str(candidate.get("note", ""))[:2000], float(candidate.get("fraction", 1.0))
        told.append({"files": overlay, "note": note, "fraction": fraction})
    files = {f"trial/trainer/{name}": content for name, content in _trainer().items()}
    return _ask("trials", body=json.dumps(told).encode(), files=files)[0]


def history():
    return _ask("history")[0]


def budget():
    return _ask("budget")[0]


def note(text):
    _ask("note", {"text": str(text)[:8000]})


def submit(note=""):
    """Hand in work/ as the successor. Ends the session, so nothing after this runs."""
    files = {f"submit/trainer/{name}": content for name, content in _trainer().items()}
    files |= {f"submit/scaffold/{name}": content for name, content in _folder("scaffold", MAX_SCAFFOLD_FILES).items()}
    if sum(map(len, files.values())) > MAX_BUNDLE:
        raise Refused("bad_submit", f"the bundle is over {MAX_BUNDLE} bytes")
    _ask("submit", {"note": str(note)[:8000]}, files=files)
    raise SystemExit(0)


# --- inside ---


def read_regular(path, largest):
    """The content of a regular file; never follows a link, never waits for a FIFO."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise Refused("bad_submit", f"{path}: {error.strerror} (links are not followed)") from None
    with open(fd, "rb") as file:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise Refused("bad_submit", f"{path} is not a regular file")
        if status.st_size > largest:
            raise Refused("bad_submit", f"{path} has {status.st_size} bytes; at most {largest} may leave")
        return file.read(largest)


def _trainer():
    found = _folder("trainer", len(TRAINER_FILES))
    if set(found) != set(TRAINER_FILES):
        raise Refused("bad_submit", f"work/trainer holds {sorted(found)}; needed: exactly {sorted(TRAINER_FILES)}")
    return found


def _folder(half, most):
    """Every file under work/<half>, by its name inside it. Caches are skipped; links and devices are refused."""
    root, found = os.path.join(_link.work, "work", half), {}
    for folder, folders, names in os.walk(root):
        for name in folders:
            if os.path.islink(os.path.join(folder, name)):
                raise Refused("bad_submit", f"{os.path.join(folder, name)} is a link")
        folders[:] = sorted(name for name in folders if name != "__pycache__")
        for name in sorted(names):
            path = os.path.join(folder, name)
            inner = os.path.relpath(path, root)
            if name.endswith(".pyc"):
                continue
            if not frames.good_name(inner):
                raise Refused("bad_submit", f"the name {inner!r} may not leave")
            if len(found) == most:
                raise Refused("bad_submit", f"more than {most} files under work/{half}")
            found[inner] = read_regular(path, MAX_FILE)
    return found


def _ask(op, arguments=None, body=b"", files=None):
    return _link.ask(op, arguments or {}, body, files or {})


class Link:
    """The child's end of its socket to the supervisor."""

    def __init__(self, fd, work):
        self.fd, self.work, self.metrics = fd, work, 0
        self.started = threading.Event()
        self._writing = threading.Lock()  # a request's files and the request itself go out in one piece
        self._slots = threading.Semaphore(MAX_OUTSTANDING)
        self._waiting, self._last_id = {}, 0
        threading.Thread(target=self._read, name="glass-reader", daemon=True).start()

    def send(self, kind, body=b"", **fields):
        with self._writing:
            self._send(kind, body, fields)

    def _send(self, kind, body, fields):
        frames.write_all(self.fd, frames.encode(kind, fields, len(body)), body)

    def send_file(self, name, content):
        with self._writing:
            self._send_file(name, content)

    def _send_file(self, name, content):
        view = memoryview(content).cast("B") if len(content) else memoryview(b"")
        for start in range(0, max(1, len(view)), frames.MAX_BODY):
            part = view[start : start + frames.MAX_BODY]
            self._send("file", part, {"name": name, "last": start + len(part) >= len(view)})

    def ask(self, op, arguments, body=b"", files=()):
        """(value, body) of the host's reply, or Refused."""
        with self._slots:
            answer = queue.SimpleQueue()
            with self._writing:
                for name in files:
                    self._send_file(name, files[name])
                self._last_id += 1
                self._waiting[self._last_id] = answer
                self._send("request", body, {"id": self._last_id, "op": op, "args": arguments})
            fields, reply = answer.get()
        if not fields["ok"]:
            value = fields["value"] if isinstance(fields["value"], dict) else {}
            raise Refused(str(value.get("code", "refused")), str(value.get("detail", "")))
        return fields["value"], reply

    def _read(self):
        reader, file = frames.FrameReader(self.fd, frames.FROM_HOST), None
        while (frame := reader.next()) is not None:
            kind, fields, _, body = frame
            if kind == "file":
                if file is None:
                    path = os.path.join(self.work, fields["name"])
                    os.makedirs(os.path.dirname(path), exist_ok=True)
                    file = open(path, "wb")  # noqa: SIM115 (open across frames)
                file.write(body)
                if fields["last"]:
                    file.close()
                    file = None
            elif kind == "start":
                args.update(fields["args"])
                self.started.set()
            elif kind == "reply":
                self._waiting.pop(fields["id"]).put((fields, body))
            elif kind == "stop":  # polite: main gets KeyboardInterrupt, and the supervisor kills after its grace
                signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        os._exit(1)


_link = None  # set by glass_child before bundle code runs
