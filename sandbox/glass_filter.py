"""The second filter of system calls: what bundle code may do in a `predict` guest. Linux; stdlib only.

The container's list binds the supervisor too, which needs processes, pipes and /proc. This one binds the child alone,
from `start` on, in every thread: memory, reading files, threads, clocks, and its own link. It holds what torch was seen
to need for `load` and `predict`, so that a guest which saw a judge's text has nothing left that another guest can
notice: no processes, pipes, sockets, memfd, eventfd, timers, signals to others; and no name of a file is looked up by
it at all. `openat` and `fstat` are asked of the supervisor (glass_broker.py): under /proc even a refused lookup counts
up a number of the whole machine.

Not covered: time; machines other than x86-64 and arm64, where `load` fails.
"""

import ctypes
import errno
import os
import socket
import struct
import sys

_PR_SET_NO_NEW_PRIVS = 38
_SET_MODE_FILTER = 1
_TSYNC = 0x01  # bind every thread
_NEW_LISTENER = 0x08
_TSYNC_ESRCH = 0x10

# What becomes of a call.
_ALLOW = 0x7FFF0000
_ERRNO = 0x00050000
_ASK = 0x7FC00000
_KILL = 0x80000000

# Steps of a filter's program, and where it finds what in memory.
_LOAD = 0x20
_AND = 0x54
_COMPARE = 0x15
_RETURN = 0x06
_AT_NUMBER = 0
_AT_MACHINE = 4
_AT_ARGUMENTS = 16

# column in the tables below, the machine's name to a filter, the number of `seccomp`
_MACHINES = {"x86_64": (0, 0xC000003E, 317), "aarch64": (1, 0xC00000B7, 277)}

CLONE_THREAD = 0x00010000
CLONE_OTHERS = 0x7E021000  # namespaces and pidfd, as in seccomp_list.py
MAP_SHARED = 0x01
MAP_DROPPABLE = 0x08
MAP_ANONYMOUS = 0x20
MAP_HUGETLB = 0x40000
FUTEX_PRIVATE = 128

# name: its number on x86-64 and on arm64
PLAIN = {
    "read": (0, 63),
    "readv": (19, 65),
    "pread64": (17, 67),
    "preadv": (295, 69),
    "close": (3, 57),
    "lseek": (8, 62),
    "getdents64": (217, 61),
    "getcwd": (79, 17),
    "brk": (12, 214),
    "munmap": (11, 215),
    "mprotect": (10, 226),
    "mremap": (25, 216),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "sigaltstack": (131, 132),
    "clock_gettime": (228, 113),
    "clock_getres": (229, 114),
    "clock_nanosleep": (230, 115),
    "nanosleep": (35, 101),
    "gettimeofday": (96, 169),
    "time": (201, None),
    "sched_yield": (24, 124),
    "sched_getaffinity": (204, 123),
    "getcpu": (309, 168),
    "gettid": (186, 178),
    "getpid": (39, 172),
    "getuid": (102, 174),
    "geteuid": (107, 175),
    "getgid": (104, 176),
    "getegid": (108, 177),
    "getrandom": (318, 278),
    "uname": (63, 160),
    "exit": (60, 93),
    "exit_group": (231, 94),
    "rseq": (334, 293),
    "set_robust_list": (273, 99),
    "restart_syscall": (219, 128),
    "arch_prctl": (158, None),
}
ASKED = {"openat": (257, 56), "newfstatat": (262, 79), "fstat": (5, 80)}
ANSWERED = {  # with an error after which libraries take another way
    "clone3": ((435, 435), errno.ENOSYS),
    "statx": ((332, 291), errno.ENOSYS),
    "ioctl": ((16, 29), errno.ENOTTY),
}
FILTERED = {
    "write": (1, 64),
    "writev": (20, 66),
    "sendmsg": (46, 211),
    "mmap": (9, 222),
    "madvise": (28, 233),
    "fcntl": (72, 25),
    "clone": (56, 220),
    "tgkill": (234, 131),
    "prlimit64": (302, 261),
    "futex": (202, 98),
}


def _cases(link, hand):
    """name: the cases in which it is allowed. A case is a list of (half, mask, value), which must all hold.

    Halves are 32 bits: argument 3 is halves 6 (low) and 7. What is an `int` to the kernel has only its low half.
    """
    # Shared anonymous memory and huge pages have an inode, numbered from one counter of the machine, even where the
    # call then fails; droppable memory tells when the machine was short of it, and so does what was freed lazily.
    never_mapped = MAP_HUGETLB | MAP_DROPPABLE
    return {
        "write": [[_is(0, fd)] for fd in (1, 2, link)],
        "writev": [[_is(0, fd)] for fd in (1, 2, link)],
        "sendmsg": [[_is(0, hand)]],  # once, to hand over the questions; then that descriptor is closed
        "mmap": [[_lacks(3, MAP_SHARED | never_mapped)], [_lacks(3, MAP_ANONYMOUS | never_mapped)]],
        "madvise": [[_is(2, advice)] for advice in (0, 4, 10, 11, 14, 15, 16, 17, 18, 19)],
        # Only within the own process: guests of one image could wait on a page of one of its files, and whoever wakes
        # them is told how many there were.
        "futex": [[_has(1, FUTEX_PRIVATE)]],
        "fcntl": [[_is(1, command)] for command in (1, 2, 3)],  # F_GETFD, F_SETFD, F_GETFL
        "clone": [[_has(0, CLONE_THREAD, of=CLONE_THREAD | CLONE_OTHERS)]],
        "tgkill": [[_is(0, os.getpid())]],
        "prlimit64": [[_is(0, 0), *_is_null(2)]],  # reads the own limits
    }


def _is(argument, value):
    return 2 * argument, 0xFFFFFFFF, value


def _is_null(argument):
    return [(half, 0xFFFFFFFF, 0) for half in (2 * argument, 2 * argument + 1)]


def _has(argument, flags, of=0):
    """Whether it has these flags; and, of those in `of`, no other."""
    return 2 * argument, flags | of, flags


def _lacks(argument, flags):
    return 2 * argument, flags, 0


def _step(code, value, yes=0, no=0):
    """One step; `yes` and `no` are how many to leave out after it."""
    return struct.pack("=HBBI", code, yes, no, value)


def _return(value):
    return _step(_RETURN, value)


def _allowed_in(cases):
    """Steps that allow a call in one of these cases, and refuse it otherwise."""
    steps = []
    for case in cases:
        body = []
        for number, (half, mask, value) in enumerate(case):
            left = 3 * (len(case) - number - 1) + 1  # what must be left out where this one doesn't hold
            body.append(_step(_LOAD, _AT_ARGUMENTS + 4 * half))
            body.append(_step(_AND, mask))
            body.append(_step(_COMPARE, value, no=left))
        steps += [*body, _return(_ALLOW)]
    return [*steps, _return(_ERRNO | errno.EPERM)]


def program(link, hand, machine):
    """The filter for this machine, as the kernel wants it."""
    column, audit, _ = _MACHINES[machine]
    cases = _cases(link, hand)
    bodies = [(numbers, [_return(_ALLOW)]) for numbers in PLAIN.values()]
    bodies += [(numbers, [_return(_ASK)]) for numbers in ASKED.values()]
    bodies += [(numbers, [_return(_ERRNO | number)]) for numbers, number in ANSWERED.values()]
    bodies += [(FILTERED[name], _allowed_in(cases[name])) for name in FILTERED]
    steps = [_step(_LOAD, _AT_MACHINE), _step(_COMPARE, audit, yes=1), _return(_KILL), _step(_LOAD, _AT_NUMBER)]
    for numbers, body in bodies:
        if numbers[column] is not None:
            steps += [_step(_COMPARE, numbers[column], no=len(body)), *body]
    return [*steps, _return(_ERRNO | errno.EPERM)]


def confine(link, hand):
    """Bind every thread of this process, and hand its questions to whoever is at the other end of `hand`. OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "no_new_privs")
    machine = os.uname().machine
    if sys.byteorder != "little" or machine not in _MACHINES:
        raise OSError(errno.ENOSYS, f"no filter for {machine}")
    steps = program(link, hand, machine)
    code = ctypes.create_string_buffer(b"".join(steps))
    header = struct.pack("HxxxxxxQ", len(steps), ctypes.addressof(code))
    flags = _TSYNC | _TSYNC_ESRCH | _NEW_LISTENER
    with socket.socket(fileno=hand) as giving:
        numbers = map(ctypes.c_long, (_MACHINES[machine][2], _SET_MODE_FILTER, flags))
        listener = libc.syscall(*numbers, header)
        if listener < 0:
            raise OSError(ctypes.get_errno(), "seccomp")
        socket.send_fds(giving, [b"?"], [listener])
        os.close(listener)
