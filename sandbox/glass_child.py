"""The child of the supervisor: imports what its role needs, waits for `start`, then runs bundle code. Stdlib only,
but for torch and numpy, which it imports when the role needs them.

    glass_child.py ROLE WORK FD warm|cold bare|FD-TO-THE-BROKER

Not covered: anything. From `start` on this process belongs to the bundle; nothing it says is believed.
"""

import contextlib
import ctypes
import gc
import os
import runpy
import signal
import sys
import tempfile
import traceback

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

import glass  # noqa: E402
import glass_filter  # noqa: E402
import glass_frames as frames  # noqa: E402
import glass_landlock  # noqa: E402

sys.path.remove(HERE)

EXIT_NO_TORCH, EXIT_NOT_CONFINED, EXIT_STOPPED = 3, 4, 130
MAX_WEIGHTS = 256 << 20
MAX_JSON = 64 * 1024
MAX_JSONS = 8
_PR_SET_PDEATHSIG = 1


def preload(role):
    """Import what takes seconds, before any bundle code is here, so that a warm guest starts in milliseconds."""
    if role == "improve":
        return
    import torch

    torch.set_num_threads(1)
    torch.nn.functional.layer_norm(torch.zeros(1, 2), (2,))  # the first of these reads /proc/cpuinfo: now, while it may
    if role == "predict":
        import numpy  # noqa: F401

        return
    # Fabric imports all of torchmetrics (and SciPy, where there is one) only to read its version: kept out meanwhile.
    sys.modules["torchmetrics"] = None
    import lightning_fabric  # noqa: F401 the same code as lightning.fabric, without the Trainer on top

    del sys.modules["torchmetrics"]

    # The first optimiser step imports torch._dynamo, which alone takes a second or more.
    weight = torch.nn.Parameter(torch.zeros(2))
    optimiser = torch.optim.AdamW([weight], lr=1e-3)
    weight.sum().backward()
    optimiser.step()


def train(link):
    folder = os.path.join(link.work, "trainer")
    sys.path.insert(0, folder)
    runpy.run_path(os.path.join(folder, "train.py"), run_name="__main__")


def send_results(link):
    """What a trainer may leave behind: weights and a few small JSON files."""
    out = os.path.join(link.work, "out")
    names = sorted(name for name in os.listdir(out) if name.endswith(".json"))[:MAX_JSONS]
    largest = {"weights.safetensors": MAX_WEIGHTS} | dict.fromkeys(names, MAX_JSON)
    for name, most in largest.items():
        if os.path.lexists(os.path.join(out, name)):
            link.send_file(f"out/{name}", glass.read_regular(os.path.join(out, name), most))


def improve(link):
    folder = os.path.join(link.work, "scaffold")
    sys.path.insert(0, folder)
    runpy.run_path(os.path.join(folder, "improve.py"), run_name="__main__")


def predict(link):
    import numpy

    sys.path.insert(0, os.path.join(link.work, "trainer"))
    import model

    answer, answers = model.load(os.path.join(link.work, "out")), None
    while True:
        if answers is not None:
            link.send_file("logits", answers)
        value, body = link.ask("next", {})
        if value is None:
            return
        tokens = numpy.frombuffer(body, dtype="<i8").reshape(value["shape"])
        answers = numpy.ascontiguousarray(answer(tokens.copy()), dtype="<f4")


def settle(role, work, fd):
    """Make this process an ordinary child: nothing inherited by what it starts, dies with the supervisor."""
    os.set_inheritable(fd, False)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    os.chdir(work)
    sys.argv = [role]
    sys.stdout.reconfigure(line_buffering=True)  # whole lines in the log, and what was said before a kill
    # Bundle code says `import glass` and must get this very module.
    sys.modules["glass"] = glass


def run(role, link):
    """The exit code of the role's entry."""
    try:
        {"train": train, "improve": improve, "predict": predict}[role](link)
        if role == "train":
            send_results(link)
        return 0
    except SystemExit as end:
        if end.code is None or end.code == 0:
            if role == "train":
                send_results(link)
            return 0
        return end.code if isinstance(end.code, int) else 1
    except KeyboardInterrupt:
        return EXIT_STOPPED


def main():
    role, work, fd, warm, ask = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4] == "warm", sys.argv[5]
    settle(role, work, fd)
    if ask != "bare":
        try:
            glass_landlock.restrict()  # the first thing: threads from before would stay free
        except OSError:
            traceback.print_exc()
            os._exit(EXIT_NOT_CONFINED)
    if warm:
        gc.disable()  # imports leave hardly any garbage, and looking for it takes a fifth of their time
        try:
            preload(role)
        except ImportError:
            traceback.print_exc()
            os._exit(EXIT_NO_TORCH)
        gc.freeze()
        gc.enable()
    glass._link = link = glass.Link(fd, work)
    link.send("ready", v=frames.VERSION)
    link.started.wait()
    code = 1
    try:
        if role == "predict" and ask != "bare":
            tempfile.tempdir = os.path.join(work, "tmp")  # looking for one would mean to write
            glass_filter.confine(fd, int(ask))
        code = run(role, link)
    except BaseException:  # the boundary: whatever bundle code raised becomes a traceback in the log, and a code
        traceback.print_exc()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # bundle code may have replaced or closed it
            stream.flush()
    os._exit(code & 255)  # threads that the bundle left behind don't get to delay the end


if __name__ == "__main__":
    main()
