"""Makes the checkout's environment, `.venv`, from the hash-locked files: `python3 -I bellglass/bootstrap.py`.

It checks the machine first (one clear error each), says what it will download, then works through a few steps and
writes each finished one into a stamp, so that an interrupted run goes on where it was and an up-to-date one ends at
once.

Standard library only, and it must parse on Pythons that are too old, down to 3.6, to be able to say so: no new
syntax, and annotations in quotes.

Not covered: removing packages that a newer lock no longer lists; delete `.venv` for that.
"""

import argparse
import hashlib
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
import sysconfig

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
VENV = os.path.join(ROOT, ".venv")
STAMP = os.path.join(VENV, "bellglass-stamp.json")
TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
LAYERS = ("litellm", "digits", "tpe", "wandb", "dev")
# lock -> (download, installed) in MB, measured on Linux x86-64 with Python 3.11, the CUDA one estimated; rounded up.
SIZES_MB = {
    "torch-cpu": (200, 800),
    "torch-cuda": (2700, 6500),
    "base": (46, 233),
    "litellm": (80, 280),
    "digits": (65, 240),
    "tpe": (30, 120),
    "wandb": (30, 95),
    "dev": (255, 910),
}


class SetupProblem(Exception):
    """The thing, what was found, what was needed, the next command; as in errors.py, which old Pythons can't import."""

    def __init__(self, thing: str, found: str, needed: str, next_command: str) -> None:
        super().__init__("{}; found: {}; needed: {}; next: {}".format(thing, found, needed, next_command))


def check_python() -> None:
    found = "{} {}".format(platform.python_implementation(), platform.python_version())
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        found += " (free-threaded)"
    good = sys.version_info[:2] in ((3, 11), (3, 12), (3, 13)) and found.startswith("CPython") and "(" not in found
    if not good:
        here = [name for name in ("python3.13", "python3.12", "python3.11") if shutil.which(name)]
        next_command = "make demo PYTHON={}".format(here[0] if here else "/path/to/python3.12")
        raise SetupProblem("Python", found, "CPython 3.11, 3.12 or 3.13", next_command)


def check_platform() -> None:
    system, machine = sys.platform, platform.machine()
    found = "{} on {}".format(platform.system(), machine)
    needed = "Linux (x86-64 or aarch64, glibc), macOS on Apple silicon, or Windows through WSL2"
    if system == "win32":
        raise SetupProblem("platform", found, needed, "wsl --install")
    if system == "darwin" and machine != "arm64":
        raise SetupProblem("platform", found, needed, "an arm64 Python, if this is an Apple-silicon Mac")
    if system.startswith("linux") and machine in ("x86_64", "aarch64"):
        if platform.libc_ver()[0] != "glibc":
            raise SetupProblem("C library", found + " without glibc", needed, "use a glibc distribution, e.g. Debian")
    elif system != "darwin":
        raise SetupProblem("platform", found, needed, "use one of these")


def check_venv_module() -> None:
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError as missing:
        package = "python{}.{}-venv".format(*sys.version_info[:2])
        found = "{} without the module {}".format(sys.executable, missing.name)
        raise SetupProblem("Python's venv", found, "venv and ensurepip", "sudo apt install " + package) from None


def check_disk(needed_mb: int) -> None:
    free_mb = shutil.disk_usage(ROOT).free // 10**6
    if free_mb < needed_mb:
        found = "{} MB free under {}".format(free_mb, ROOT)
        raise SetupProblem("disk space", found, "{} MB".format(needed_mb), "free some space, then the same command")


def digest_of(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def read_stamp() -> "dict[str, str]":
    """Finished steps and the digest of what each was made from. Empty where the venv belongs to another Python."""
    try:
        with open(STAMP) as file:
            stamp = json.load(file)
    except (OSError, ValueError):
        return {}
    usable = isinstance(stamp, dict) and os.access(venv_python(), os.X_OK)
    return stamp if usable and stamp.get("venv") == python_version() else {}


def write_stamp(stamp: "dict[str, str]") -> None:
    with open(STAMP + ".tmp", "w") as file:
        json.dump(stamp, file, indent=1)
    os.replace(STAMP + ".tmp", STAMP)


def python_version() -> str:
    return "{}.{}".format(*sys.version_info[:2])


def venv_python() -> str:
    return os.path.join(VENV, "bin", "python")


def wanted_steps(device: str, layers: "list[str]") -> "dict[str, str]":
    """Step -> digest of what it is made from, in order."""
    steps = {"venv": python_version()}
    for lock in ["torch-" + device, "base", *layers]:
        steps[lock] = digest_of(os.path.join(ROOT, "locks", lock + ".txt"))
    steps["package"] = digest_of(os.path.join(ROOT, "pyproject.toml"))
    return steps


def run(what: str, command: "list[str]", *, may_fail: bool = False) -> bool:
    """True when the command succeeded. With `may_fail` its output is dropped and failing is an answer."""
    drop = subprocess.DEVNULL if may_fail else None
    code = subprocess.call(command, cwd=ROOT, stdout=drop, stderr=drop)
    if code != 0 and not may_fail:
        shown = " ".join(shlex.quote(word) for word in command)
        raise SetupProblem(what, "exit code {} of: {}".format(code, shown), "it to succeed", "the same command again")
    return code == 0


def make_venv() -> None:
    other = ["--clear"] if os.path.exists(VENV) and not inside_venv() and not same_python() else []
    run("making .venv", [sys.executable, "-m", "venv", *other, VENV])


def inside_venv() -> bool:
    return os.path.realpath(sys.prefix) == os.path.realpath(VENV)


def same_python() -> bool:
    try:
        with open(os.path.join(VENV, "pyvenv.cfg")) as file:
            return "version = {}.".format(python_version()) in file.read()
    except OSError:
        return False


def pip_install(*arguments: str) -> "list[str]":
    quiet = [] if sys.stderr.isatty() else ["--quiet"]
    return [venv_python(), "-m", "pip", "--disable-pip-version-check", "install", "--no-deps", *quiet, *arguments]


def install_lock(lock: str, *more: str) -> None:
    path = os.path.join("locks", lock + ".txt")
    command = pip_install("--only-binary", ":all:", "--require-hashes", "-r", path, *more)
    if lock == "torch-cpu" and sys.platform != "darwin":
        # PyPI's Linux wheels need gigabytes of CUDA libraries; the CPU ones are on PyTorch's own index.
        # A wheel that lies in pip's configured `find-links` is taken first (machines without that index).
        if not run(lock, [*command, "--no-index"], may_fail=True):
            try:
                run("installing torch for CPU", [*command, "--index-url", TORCH_INDEX])
            except SetupProblem as problem:
                hint = "if only PyPI can be reached: the same command with DEVICE=cuda (about 2.7 GB)"
                raise SetupProblem(str(problem), "no CPU wheel", TORCH_INDEX, hint) from None
    else:
        run("installing locks/{}.txt".format(lock), command)


def install(device: str, layers: "list[str]", stamp: "dict[str, str]") -> None:
    steps = wanted_steps(device, layers)
    todo = [step for step in steps if stamp.get(step) != steps[step]]
    locks = [step for step in todo if step in SIZES_MB]
    download, disk = (sum(SIZES_MB[lock][i] for lock in locks) for i in (0, 1))
    check_venv_module()
    check_disk(download + disk if "venv" in todo else download)
    say("environment .venv, Python {}: {}".format(platform.python_version(), ", ".join(todo)))
    if locks:
        say("downloads at most {} MB (less what pip has kept), takes {} MB on disk".format(download, disk))
    for step in todo:
        say("  " + step)
        if step == "venv":
            make_venv()
        elif step == "package":
            run("installing bellglass", pip_install("--no-build-isolation", "--editable", "."))
        else:
            # `torch==2.13.0` is satisfied by a torch for the other device: replace it.
            other = {"torch-cpu": "torch-cuda", "torch-cuda": "torch-cpu"}.get(step, "")
            swap = ["--force-reinstall"] if stamp.pop(other, None) else []
            install_lock(step, *swap)
        stamp[step] = steps[step]
        write_stamp(stamp)


def say(text: str) -> None:
    print("bootstrap: " + text, file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="bootstrap", description="Make or update the checkout's .venv.")
    parser.add_argument("--device", choices=["cpu", "cuda"], help="default: what .venv has, else cpu")
    parser.add_argument("--with", dest="layers", action="append", choices=LAYERS, default=[], help="may be repeated")
    asked = parser.parse_args()
    try:
        check_python()
        check_platform()
        import fcntl  # not on Windows

        fcntl.flock(os.open(ROOT, os.O_RDONLY), fcntl.LOCK_EX)  # two `make` at once take turns
        stamp = read_stamp()
        device = asked.device or ("cuda" if "torch-cuda" in stamp else "cpu")
        layers = [layer for layer in LAYERS if layer in asked.layers or layer in stamp]
        if any(stamp.get(step) != digest for step, digest in wanted_steps(device, layers).items()):
            install(device, layers, stamp)
    except SetupProblem as problem:
        print("error: {}".format(problem), file=sys.stderr)
        return 3
    except KeyboardInterrupt:
        say("interrupted; the same command goes on from here")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
