"""Copies what one kind of guest needs, and nothing else, from the root it runs in into an empty one. Stdlib only.

    /opt/glass/bin/python slim.py KIND TO

Runs while an image is built; no guest has it. Every file of an image costs its keeper a mapping and memory, and what a
guest can't read can't be abused. So what is copied is listed here, and what isn't listed stays behind: the package
manager, perl, setuid programs, locales, documentation, torch's test programs and headers.

Everything ends up root's, readable by everyone and writable by no one else: a guest's uid is drawn, and in no list.

Not covered: what the copied files do. The wheels are pinned by hash; the base image is whatever was chosen.
"""

import importlib.metadata
import os
import re
import shutil
import stat
import struct
import subprocess
import sys
import sysconfig

VENV = "/opt/glass"
DISTRIBUTIONS = {
    "agent": (),
    "trainer": ("torch", "numpy", "safetensors", "pytorch-lightning", "lightning"),
    "predictor": ("torch", "numpy", "safetensors"),
}
# What a shell is expected to have. Perl is left out, and so is whatever needs a terminal, a network or privileges.
TOOLS = {
    "agent": """
        sh bash [ arch awk mawk b2sum base32 base64 basename cat chmod cksum cmp comm cp csplit cut date dd df
        diff diff3 dir dirname du echo egrep env expand expr factor false fgrep find fmt fold getopt grep
        groups gunzip gzip head id install join kill link ln logname ls md5sum mkdir mkfifo mktemp more mv
        nice nl nohup nproc numfmt od paste pathchk pr printenv printf pwd readlink realpath rev rm rmdir
        sdiff sed seq setsid sha1sum sha224sum sha256sum sha384sum sha512sum shred shuf sleep sort split stat
        stdbuf stty sum sync tac tail tar tee test timeout touch tr true truncate tsort tty uname unexpand
        uniq unlink users vdir wc which whoami xargs yes zcat
        """,
    "trainer": "sh cat cp env ls mkdir mv nproc rm sleep timeout uname",
    "predictor": "",
}
# Of the standard library: tests, installers, graphics, and what compiles or documents.
NOT_OF_PYTHON = re.compile(
    r"(test|tests|idlelib|lib2to3|tkinter|turtledemo|turtle\.py|ensurepip|venv|pydoc_data|distutils|dist-packages"
    r"|site-packages|config-[^/]*|lib-dynload/(_test|_ctypes_test|_tkinter|_xxtest|xxlimited)[^/]*)(/|$)"
    r"|.*/(test|tests|idle_test)(/|$)"
)
# Of the libraries: tests, what a compiler would need, second copies, and records of the installer.
NOT_OF_LIBRARIES = re.compile(
    r"torch/(bin/(?!torch_shm_manager$)|test/|include/|share/|lib/libshm_windows/|lib/lib[^/]*test[^/]*\.so"
    r"|lib/lib(aoti_custom_ops|backend_with_compiler)\.so)"
    r"|torch/utils/bottleneck/|sympy/parsing/(autolev|latex)/|numpy/(distutils|f2py)/|pytorch_lightning/"
    r"|(.*/)?(tests|include|licenses|benchmarks)/"
    r"|[^/]*\.dist-info/(?!METADATA$|entry_points\.txt$|top_level\.txt$)"
    r"|\.\./"
)
LEFT_BEHIND = (".pyi", ".h", ".hpp", ".cuh", ".cu", ".cpp", ".cc", ".c", ".a", ".cmake", ".pxd", ".pyx", ".f", ".f90",
               ".md", ".rst", ".lib", ".dll", ".exe", ".typed", ".opt-1.pyc", ".opt-2.pyc", ".pth")  # fmt: skip
UNNEEDED = {"setuptools"}  # torch names it for extensions, which need a compiler, and there is none here
ETC = {
    "passwd": "root:x:0:0:root:/:/sbin/nologin\nnobody:x:65534:65534:nobody:/:/sbin/nologin\n",
    "group": "root:x:0:\nnogroup:x:65534:\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
}
FOLDERS = ("dev", "etc", "opt/bellglass", "proc", "sys", "tmp", "work")


class Root:
    """The new root. What is put into it keeps its place; a link brings what it leads to."""

    def __init__(self, to):
        self.to = to
        self.programs = []

    def add(self, path):
        """One file, at its place; a link, and what it leads to."""
        path = os.path.normpath(path)
        parent = os.path.dirname(path)
        if (real := os.path.realpath(parent)) != parent:
            self.add(os.path.join(real, os.path.basename(path)))
            return
        target = self.to + path
        if os.path.lexists(target):
            return
        os.makedirs(os.path.dirname(target), exist_ok=True)
        if os.path.islink(path):
            os.symlink(os.readlink(path), target)
            self.add(os.path.join(parent, os.readlink(path)))
            return
        shutil.copy2(path, target)
        executable = os.stat(path).st_mode & 0o111
        os.chmod(target, 0o755 if executable else 0o644)
        if executable or ".so" in os.path.basename(path):
            self.programs.append(path)

    def add_folder(self, folder, unwanted):
        for at, folders, names in os.walk(folder):
            inner = os.path.relpath(at, folder)
            folders[:] = [name for name in folders if not unwanted.match(os.path.normpath(f"{inner}/{name}") + "/")]
            for name in names:
                if not unwanted.match(os.path.normpath(f"{inner}/{name}")) and not junk(os.path.join(at, name)):
                    self.add(os.path.join(at, name))

    def add_shared_libraries(self):
        """What the loader would load for everything that is here, until nothing new comes."""
        seen = set()
        while fresh := [path for path in self.programs if path not in seen]:
            seen.update(fresh)
            for start in range(0, len(fresh), 100):
                listing = subprocess.run(["ldd", *fresh[start : start + 100]], capture_output=True, text=True).stdout
                for path in set(re.findall(r"(?:=> |^\s+)(/\S+) \(0x", listing, re.MULTILINE)):
                    self.add(path)
                    # Opened by the C library when a thread is cancelled, and so in nobody's list.
                    if os.path.basename(path) == "libc.so.6":
                        self.add(os.path.join(os.path.dirname(path), "libgcc_s.so.1"))


def trim(path):
    """Cut off what no program loads: tables of names for debuggers, a fifth of torch's largest file."""
    with open(path, "r+b") as file:
        head = file.read(64)
        if head[:6] != b"\x7fELF\2\1":  # 64 bits, low byte first
            return
        (at,), (size, count) = struct.unpack_from("<Q", head, 32), struct.unpack_from("<HH", head, 54)
        file.seek(at)
        table = file.read(size * count)
        # Of each segment: where it lies in the file, and how long it is there.
        parts = [
            (struct.unpack_from("<Q", table, size * n + 8), struct.unpack_from("<Q", table, size * n + 32))
            for n in range(count)
        ]
        end = max(64, at + size * count, *(offset + length for (offset,), (length,) in parts))
        (sections,) = struct.unpack_from("<Q", head, 40)
        if sections >= end:
            file.seek(40)
            file.write(bytes(8))
            file.seek(60)
            file.write(bytes(4))
            file.truncate(end)


def junk(path):
    if path.endswith(LEFT_BEHIND):
        return True
    folder, name = os.path.split(path)
    if os.path.basename(folder) != "__pycache__":
        return False
    # Of another Python, or compiled from a file that is not there.
    source = os.path.join(os.path.dirname(folder), name.split(".")[0] + ".py")
    return f".{sys.implementation.cache_tag}." not in name or not os.path.exists(source)


def with_requirements(names):
    """The distributions, and all that they require and that is installed. Extras are nobody's requirement."""
    found, waiting = {}, list(names)
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in found or name in UNNEEDED:
            continue
        try:
            found[name] = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            if name in names:
                raise
            continue  # for another system
        needed = [line for line in found[name].requires or () if "extra ==" not in line]
        waiting += [re.match(r"[\w.-]+", line)[0] for line in needed]
    return found


def build(kind, to):
    root = Root(to)
    for folder in FOLDERS:
        os.makedirs(os.path.join(to, folder), exist_ok=True)
    for name in os.listdir("/"):  # such as /bin, which is usr/bin
        if os.path.islink(f"/{name}"):
            os.symlink(os.readlink(f"/{name}"), f"{to}/{name}")
    for name, text in ETC.items():
        with open(os.path.join(to, "etc", name), "w", encoding="utf-8") as file:
            file.write(text)
    for name in ("python", "python3", os.path.basename(os.path.realpath(sys.executable))):
        if os.path.lexists(path := f"{VENV}/bin/{name}"):
            root.add(path)
    root.add(f"{VENV}/pyvenv.cfg")
    root.add_folder(sysconfig.get_path("stdlib"), NOT_OF_PYTHON)
    site = sysconfig.get_path("purelib")
    os.makedirs(to + site, exist_ok=True)
    for distribution in with_requirements(DISTRIBUTIONS[kind]).values():
        for file in distribution.files or ():
            path = os.path.join(site, file)
            if not NOT_OF_LIBRARIES.match(str(file)) and not junk(path) and os.path.exists(path):
                root.add(path)
    for tool in TOOLS[kind].split():
        if path := shutil.which(tool, path="/usr/bin:/bin:/usr/local/bin"):
            root.add(path)
    root.add_shared_libraries()
    for path in root.programs:
        trim(to + path)
    if os.path.isdir("/usr/lib/locale/C.utf8"):
        root.add_folder("/usr/lib/locale/C.utf8", re.compile(r"$^"))
    subprocess.run(["ldconfig", "-r", to], check=True)
    shutil.rmtree(f"{to}/var", ignore_errors=True)  # ldconfig's own cache
    return root


def settle(to):
    """Same owner and same rights for everything. Gives the number of files and of bytes."""
    count = size = 0
    for at, folders, names in os.walk(to):
        os.chmod(at, 0o755)
        for name in [*folders, *names]:
            path = os.path.join(at, name)
            os.chown(path, 0, 0, follow_symlinks=False)
            facts = os.lstat(path)
            if stat.S_ISREG(facts.st_mode):
                count, size = count + 1, size + facts.st_size
    return count, size


def main():
    kind, to = sys.argv[1], os.path.abspath(sys.argv[2])
    os.makedirs(to)
    build(kind, to)
    count, size = settle(to)
    print(f"{kind}: {count} files, {size / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
