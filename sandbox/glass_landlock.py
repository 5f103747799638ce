"""Keeps bundle code away from /proc and /sys, by Landlock. Linux; stdlib only.

/proc tells a process how many others map a page (smaps, pagemap), and both are full of counters of the whole machine.
No engine can mask paths of processes that don't exist yet. So the child gives up these folders, for itself and all
that it starts, before any bundle code is there; the supervisor keeps them. What it may write is not changed by this:
that is the read-only root's matter. Signals then end at the border too: the child can't reach the supervisor by one.

Lost inside: `ps` and its like, the listings of /proc and of / itself, pseudo-terminals. /dev/stdin, /dev/stderr and
/dev/fd/N work on, since what is behind them is no file of /proc.

Not covered: names under /proc are still looked up, and `stat` still tells numbers of inodes there (glass_filter.py
is why a `predict` guest can't); kernels without Landlock, where `restrict` fails.
"""

import ctypes
import errno
import os
import struct

_CREATE, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # on every machine
_PR_SET_NO_NEW_PRIVS = 38
_PATH_BENEATH = 1
_OF_FILES = 0b0100_0000_0000_0111  # execute, write, read, truncate
_RIGHTS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1}  # by version: what there is to be given up
_SIGNALS = 2
_READ = 1 << 2
GIVEN_UP = ("proc", "sys")
# The machine's make, which torch reads when it is imported. They don't change.
KEPT = (
    "/proc/cpuinfo",
    "/sys/devices/system/cpu/online",
    "/sys/devices/system/cpu/possible",
    "/sys/devices/system/cpu/present",
)
NOT_OF_DEV = ("pts", "ptmx", "console")


def version():
    """The kernel's, 0 where it has none."""
    return max(0, ctypes.CDLL(None, use_errno=True).syscall(_CREATE, None, ctypes.c_size_t(0), 1))


def restrict():
    """Bind this thread, and all that it starts from now on. OSError where the kernel can't."""
    libc, known = ctypes.CDLL(None, use_errno=True), version()
    if not known:
        raise OSError(errno.ENOSYS, "no Landlock")

    def call(*arguments):
        back = libc.syscall(*[ctypes.c_long(each) if isinstance(each, int) else each for each in arguments])
        if back < 0:
            raise OSError(ctypes.get_errno(), "Landlock")
        return back

    rights = _RIGHTS[min(known, 3)]
    asked = struct.pack("QQQ", rights, 0, _SIGNALS)[: 24 if known >= 6 else 16 if known >= 4 else 8]
    rules = call(_CREATE, asked, len(asked), 0)
    for path in _kept():
        file = os.open(path, os.O_PATH | os.O_CLOEXEC)
        given = _READ if path in KEPT else rights if os.path.isdir(path) else rights & _OF_FILES
        call(_ADD_RULE, rules, _PATH_BENEATH, struct.pack("=Qi", given, file), 0)
        os.close(file)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "no_new_privs")
    call(_RESTRICT_SELF, rules, 0)
    os.close(rules)


def _kept():
    """Everything but what is given up. No links: those of /dev lead into /proc, and others to what is listed anyway."""
    paths = [f"/{name}" for name in os.listdir("/") if name not in (*GIVEN_UP, "dev")]
    paths += [f"/dev/{name}" for name in os.listdir("/dev") if name not in NOT_OF_DEV]
    return [path for path in [*paths, *KEPT] if os.path.exists(path) and not os.path.islink(path)]
