"""Writes the allow-lists of system calls beside itself: `python sandbox/seccomp_list.py`.

    seccomp.json            every guest, but for
    seccomp_predict.json    `predict`: what its supervisor needs to confine the child, whose own list is far shorter and
                            lies in glass_filter.py
    seccomp_gpu.json        guests with a GPU, whose driver has needs of its own

What Python, torch and a plain shell need; all else fails with EPERM. It is narrower than Docker's own. Two things are
asked of every call before it is allowed: that it doesn't reach out of the container, and that it can't be used to talk
to another guest on the same machine, which means it neither drops pages that guests share nor tells whether they are
there. `PLAIN` and `FILTERED` say for each why not. Left out on purpose, although Docker's default has (or once had)
some of it:

    ptrace, process_vm_*, pidfd_getfd, kcmp     reaching into PID 1, which holds the pipe
    mount, unshare, setns, pivot_root, the new
      mount API, CLONE_NEW* in clone            namespaces
    io_uring_*, userfaultfd, bpf, keyctl & co,
      perf_event_open, splice, tee, vmsplice,
      SysV IPC, POSIX queues, legacy aio,
      quotactl, fanotify                        kernel surface with a record of exploits, and of no use here
    socket, but for AF_UNIX                     a guest has no network; netlink and the rest are surface
    personality, modify_ldt, iopl, swap*, reboot, *_module, kexec, settime, set*id, capset
    fadvise64, sync, syncfs, sync_file_range    drop or clean pages of files that others have open
    readahead, mincore, cachestat, openat2      tell (openat2: by RESOLVE_CACHED) what the kernel has in memory
    mlock & co, process_madvise                 keep in memory, or push out of it
    flock, inotify_*                            state of an inode, and guests share inodes
    MAP_HUGETLB, MFD_HUGETLB                    number an inode from one counter of the machine, even when they fail
    pidfd_*, CLONE_PIDFD, SO_PEERPIDFD          a pidfd's inode number counts every process of the machine
    sysinfo, getrusage                          counters of the machine, and of the own page faults
    rt_sigqueueinfo, rt_tgsigqueueinfo, membarrier, get_robust_list     of no use here

clone3 fails with ENOSYS, because its flags lie in memory where a filter can't see them: libc then falls back to clone.
Other architectures than the native one (i386 and x32 on x86-64) are not listed, so their calls kill the caller.

Not covered: what the allowed calls can do with a kernel bug; on a GPU, ioctl; gVisor brings its own kernel and ignores
these files.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ENOSYS, EAFNOSUPPORT = 38, 97
AF_UNIX = 1
MAP_HUGETLB, MFD_HUGETLB = 0x40000, 0x4
CLONE_PIDFD = 0x00001000
# NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET
CLONE_NAMESPACES = 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000

# Why a call neither drops nor probes pages that guests share -> the calls.
PLAIN = {
    "takes or gives back a descriptor": "close close_range dup dup2 dup3",
    "opens by name: reads no page, and what the lookup caches shows in time alone (RESOLVE_CACHED is openat2's)": """
        creat open openat""",
    "reads what is in a file, and waits for it: the kernel keeps from the caller whether it had to fetch": """
        copy_file_range lseek pread64 preadv read readv sendfile""",
    "writes files of the guest's own tmpfs, which no other guest has; the image is read-only": """
        chmod chown fallocate fchmod fchmodat fchmodat2 fchown fchownat fdatasync fsync ftruncate lchown link linkat
        mkdir mkdirat pwrite64 pwritev rename renameat renameat2 rmdir symlink symlinkat truncate unlink unlinkat utime
        utimensat utimes write writev""",
    "makes only fifos and sockets, on the own tmpfs: devices need a capability": "mknod mknodat",
    "reads names and facts of an inode, which no guest changes: the image is read-only, its access times rest": """
        access faccessat faccessat2 fgetxattr flistxattr fstat getdents getdents64 getxattr lgetxattr listxattr
        llistxattr lstat newfstatat readlink readlinkat stat statx""",
    "tells the size and free space of a file system, which a guest can change on its own tmpfs alone": "fstatfs statfs",
    "a property of this process": """
        arch_prctl capget chdir fchdir getcwd getegid geteuid getgid getgroups getpgid getpgrp getpid getppid
        getresgid getresuid getrlimit getsid gettid getuid rseq set_robust_list set_tid_address setrlimit setsid
        umask""",
    "starts or ends processes of this container": "execve execveat exit exit_group fork vfork",
    "signals and waiting within this container; PID 1 has no handler, and the kernel drops what would end it": """
        kill pause restart_syscall rt_sigaction rt_sigpending rt_sigprocmask rt_sigreturn rt_sigsuspend rt_sigtimedwait
        sigaltstack signalfd signalfd4 tgkill tkill""",
    "tells how a process of this container is scheduled": """
        getcpu getpriority sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr
        sched_getparam sched_getscheduler sched_rr_get_interval sched_yield""",
    "memory of this process: unmapping a file drops nothing from the page cache": """
        brk mprotect mremap munmap""",
    "clocks and timers of this process": """
        alarm clock_getres clock_gettime clock_nanosleep getitimer gettimeofday nanosleep setitimer time timer_create
        timer_delete timer_getoverrun timer_gettime timer_settime timerfd_create timerfd_gettime timerfd_settime
        times""",
    "waiting for descriptors or memory of this container": """
        epoll_create epoll_create1 epoll_ctl epoll_pwait epoll_pwait2 epoll_wait eventfd eventfd2 poll
        ppoll pselect6 select""",
    "waits for memory; guests of one image could meet on a page of its files, so predict's own list has it private": """
        futex""",
    "pipes and sockets between processes of this container": """
        accept accept4 bind connect getpeername getsockname listen pipe pipe2 recvfrom recvmmsg recvmsg sendmmsg sendmsg
        sendto shutdown socketpair""",
    "has nothing to do with files": "getrandom uname",
    "takes rights away from the caller": "landlock_add_rule landlock_create_ruleset landlock_restrict_self",
}

Case = tuple[tuple[int, int], ...]  # (index, value) of the arguments that must be so, together
NAMED_FCNTL = {"F_DUPFD": 0, "F_GETFD": 1, "F_SETFD": 2, "F_GETFL": 3, "F_SETFL": 4, "F_DUPFD_CLOEXEC": 1030}
NAMED_MADVISE = {
    "MADV_NORMAL": 0, "MADV_DONTNEED": 4, "MADV_FREE": 8, "MADV_DONTFORK": 10, "MADV_DOFORK": 11, "MADV_HUGEPAGE": 14,
    "MADV_NOHUGEPAGE": 15, "MADV_DONTDUMP": 16, "MADV_DODUMP": 17, "MADV_WIPEONFORK": 18, "MADV_KEEPONFORK": 19,
}  # fmt: skip
NAMED_IOCTL = {
    "TCGETS": 0x5401, "TCSETS": 0x5402, "TCSETSW": 0x5403, "TCSETSF": 0x5404, "TIOCGPGRP": 0x540F, "TIOCSPGRP": 0x5410,
    "TIOCGWINSZ": 0x5413, "FIONREAD": 0x541B, "FIONBIO": 0x5421, "FIONCLEX": 0x5450, "FIOCLEX": 0x5451,
    "TCGETS2": 0x802C542A,
}  # fmt: skip
NAMED_SOCKET_OPTIONS = {
    "SO_REUSEADDR": 2, "SO_TYPE": 3, "SO_ERROR": 4, "SO_SNDBUF": 7, "SO_RCVBUF": 8, "SO_KEEPALIVE": 9, "SO_LINGER": 13,
    "SO_REUSEPORT": 15, "SO_PASSCRED": 16, "SO_PEERCRED": 17, "SO_RCVTIMEO": 20, "SO_SNDTIMEO": 21, "SO_ACCEPTCONN": 30,
    "SO_PROTOCOL": 38, "SO_DOMAIN": 39,
}  # fmt: skip
NAMED_PRCTL = {
    "PR_SET_PDEATHSIG": 1, "PR_GET_DUMPABLE": 3, "PR_SET_DUMPABLE": 4, "PR_SET_NAME": 15, "PR_GET_NAME": 16,
    "PR_GET_SECCOMP": 21, "PR_CAPBSET_READ": 23, "PR_SET_TIMERSLACK": 29, "PR_SET_CHILD_SUBREAPER": 36,
    "PR_SET_NO_NEW_PRIVS": 38, "PR_GET_NO_NEW_PRIVS": 39, "PR_SET_THP_DISABLE": 41, "PR_SET_VMA": 0x53564D41,
}  # fmt: skip


def each(index: int, values: dict[str, int], also: tuple[int, int] | None = None) -> tuple[Case, ...]:
    return tuple((*([also] if also else []), (index, value)) for value in values.values())


# Calls that are allowed with these arguments alone, and why they then neither drop nor probe.
FILTERED: dict[str, tuple[str, tuple[Case, ...]]] = {
    "fcntl": (
        "no locks, leases, notices or pipe sizes: what is left is about the own descriptor",
        each(1, NAMED_FCNTL),
    ),
    # A peer's pidfd would tell how many threads and processes the machine has made, a cookie how many sockets.
    "getsockopt": ("facts of an own socket; no pidfds, no cookies", each(2, NAMED_SOCKET_OPTIONS, also=(1, 1))),
    "setsockopt": ("properties of an own socket; no pidfds", each(2, NAMED_SOCKET_OPTIONS, also=(1, 1))),
    "ioctl": ("terminals and descriptors; no extents of files, no pseudo-terminals", each(1, NAMED_IOCTL)),
    "madvise": (
        "what allocators need, on own memory; on a file's mapping DONTNEED only unmaps",
        each(2, NAMED_MADVISE),
    ),
    "msync": ("writes back own files; MS_INVALIDATE is refused", each(2, {"MS_ASYNC": 1, "MS_SYNC": 4})),
    "prctl": ("properties of this process; no merging of pages (KSM), no sharing of cores", each(0, NAMED_PRCTL)),
    "preadv2": ("as preadv; RWF_NOWAIT would tell whether a page is there", (((5, 0),),)),
    "pwritev2": ("as pwritev; RWF_DONTCACHE would drop pages", (((5, 0),),)),
    # PID 1 has the child's uid, so that a pid in these would reach the supervisor.
    "prlimit64": ("limits of the caller alone", (((0, 0),),)),
    "sched_setaffinity": ("the caller alone", (((0, 0),),)),
    "setpgid": ("the caller alone", (((0, 0),),)),
    "setpriority": ("the caller alone: as PRIO_PROCESS, since 0 means PID 1's group or user too", (((0, 0), (1, 0)),)),
    # Its fourth argument, and waitid's fifth, would tell the faults of a child.
    "wait4": ("waits for a child, without its usage", (((3, 0),),)),
    "waitid": ("waits for a child, without its usage", (((4, 0),),)),
}
# Calls that are allowed without these flags alone: why, which argument, and the flags.
WITHOUT: dict[str, tuple[str, int, int]] = {
    "clone": ("a thread or process of this container: no namespaces, no pidfd", 0, CLONE_NAMESPACES | CLONE_PIDFD),
    "memfd_create": ("memory of this process; no huge pages, which are numbered as pipes are", 1, MFD_HUGETLB),
    "mmap": ("memory of this process; no huge pages, which are numbered even where there are none", 3, MAP_HUGETLB),
}
# What the supervisor of a `predict` guest needs beside. The child's own filter refuses it to bundle code.
BROKERED = {
    "openat2": "looks up files for the child, within the image and the work folder",
    "pidfd_getfd": "looks at a descriptor of the child's",
    "pidfd_open": "names the child",
    "process_vm_readv": "reads the child's question",
    "process_vm_writev": "writes the answer",
    "seccomp": "takes rights away from the child",
}
BROKERED_IOCTL = {
    "SECCOMP_IOCTL_NOTIF_RECV": 0xC0502100, "SECCOMP_IOCTL_NOTIF_SEND": 0xC0182101,
    "SECCOMP_IOCTL_NOTIF_ADDFD": 0x40182103,
}  # fmt: skip
# What drops or probes, or did in an attack. Allowed to no bundle code, whatever reason is given.
DROPS_OR_PROBES = """
    cachestat fadvise64 fanotify_init fanotify_mark flock getrusage inotify_add_watch inotify_init inotify_init1
    inotify_rm_watch io_setup io_submit io_uring_enter io_uring_setup lookup_dcookie map_shadow_stack mincore mlock
    mlock2 mlockall munlock munlockall name_to_handle_at open_by_handle_at openat2 pidfd_open pidfd_send_signal
    process_madvise process_mrelease quotactl readahead remap_file_pages splice swapon sync sync_file_range syncfs
    sysinfo tee uselib vmsplice
"""


def reasons() -> dict[str, str]:
    """Every call that a guest may make, and why it neither drops nor probes a page that guests share."""
    found = {name: why for why, names in PLAIN.items() for name in names.split()}
    found |= {name: why for name, (why, _) in FILTERED.items()}
    found |= {name: why for name, (why, _, _) in WITHOUT.items()}
    found["socket"] = "AF_UNIX, within this container"
    return found


def rule(names: list[str], action: str = "SCMP_ACT_ALLOW", **more: Any) -> dict[str, Any]:
    return {"names": names, "action": action, **more}


def argument(index: int, value: int, op: str = "SCMP_CMP_EQ", other: int = 0) -> dict[str, Any]:
    return {"index": index, "value": value, "valueTwo": other, "op": op}


def profile(*, gpu: bool = False, predict: bool = False) -> dict[str, Any]:
    """One list, as Docker reads it. With a GPU any ioctl passes: its driver has hundreds."""
    plain = sorted(
        [name for names in PLAIN.values() for name in names.split()] + ["ioctl"] * gpu + [*BROKERED] * predict
    )
    filtered = [
        rule([name], args=[argument(index, value) for index, value in case])
        for name, (_, cases) in FILTERED.items()
        if not (gpu and name == "ioctl")
        for case in cases
    ]
    filtered += [rule(["ioctl"], args=[argument(1, value)]) for value in BROKERED_IOCTL.values() if predict]
    filtered += [
        rule([name], args=[argument(index, flags, "SCMP_CMP_MASKED_EQ")]) for name, (_, index, flags) in WITHOUT.items()
    ]
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "archMap": [
            {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": []},
            {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": []},
        ],
        "syscalls": [
            rule(plain),
            *filtered,
            rule(["clone3"], "SCMP_ACT_ERRNO", errnoRet=ENOSYS),
            rule(["socket"], args=[argument(0, AF_UNIX)]),
            rule(["socket"], "SCMP_ACT_ERRNO", errnoRet=EAFNOSUPPORT, args=[argument(0, AF_UNIX, "SCMP_CMP_NE")]),
        ],
    }


LISTS = {
    "seccomp.json": profile(),
    "seccomp_predict.json": profile(predict=True),
    "seccomp_gpu.json": profile(gpu=True),
}

if __name__ == "__main__":
    for name, content in LISTS.items():
        (Path(__file__).parent / name).write_text(json.dumps(content, indent=1) + "\n")
