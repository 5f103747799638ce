"""Writes seccomp.json, the system calls that a guest may make: `python sandbox/seccomp_list.py > sandbox/seccomp.json`.

An allow-list: what Python, torch and a plain shell need. All else fails with EPERM; it is narrower than Docker's own.
Left out on purpose, although Docker's default has (or once had) some of it:

    ptrace, process_vm_*, pidfd_getfd, kcmp     reaching into PID 1, which holds the pipe
    mount, unshare, setns, pivot_root, the new
      mount API, CLONE_NEW* in clone            namespaces
    io_uring_*, userfaultfd, bpf, keyctl & co,
      perf_event_open, splice, tee, vmsplice,
      SysV IPC, POSIX queues, legacy aio,
      quotactl, fanotify                        kernel surface with a record of exploits, and of no use here
    socket, but for AF_UNIX                     a guest has no network; netlink and the rest are surface
    personality, modify_ldt, iopl, swap*, reboot, *_module, kexec, settime, set*id, capset

clone3 fails with ENOSYS, because its flags lie in memory where a filter can't see them: libc then falls back to clone.
Other architectures than the native one (i386 and x32 on x86-64) are not listed, so their calls kill the caller.

Not covered: what the allowed calls can do with a kernel bug; ioctl and prctl are not filtered by argument; gVisor
brings its own kernel and ignores this file.
"""

from __future__ import annotations

import json
import sys
from typing import Any

ENOSYS, EAFNOSUPPORT = 38, 97
AF_UNIX = 1
# NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET
CLONE_NAMESPACES = 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000

FILES = """
    access chdir chmod chown close close_range copy_file_range creat dup dup2 dup3 faccessat faccessat2
    fadvise64 fallocate fchdir fchmod fchmodat fchmodat2 fchown fchownat fcntl fdatasync fgetxattr flistxattr
    flock fstat fstatfs fsync ftruncate getcwd getdents getdents64 getxattr inotify_add_watch inotify_init
    inotify_init1 inotify_rm_watch ioctl lchown lgetxattr link linkat listxattr llistxattr lseek lstat mkdir
    mkdirat mknod mknodat newfstatat open openat openat2 pipe pipe2 pread64 preadv preadv2 pwrite64 pwritev
    pwritev2 read readahead readlink readlinkat readv rename renameat renameat2 rmdir sendfile stat statfs
    statx symlink symlinkat sync sync_file_range syncfs truncate umask unlink unlinkat utime utimensat utimes
    write writev
"""  # mknod makes only fifos and sockets here: devices need a capability
MEMORY = """
    brk madvise membarrier memfd_create mincore mlock mlock2 mlockall mmap mprotect mremap msync munlock
    munlockall munmap
"""
PROCESSES = """
    arch_prctl capget execve execveat exit exit_group fork get_robust_list getcpu getegid geteuid getgid
    getgroups getpgid getpgrp getpid getppid getpriority getresgid getresuid getrlimit getrusage getsid gettid
    getuid kill pause pidfd_open pidfd_send_signal prctl prlimit64 rseq sched_get_priority_max
    sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler
    sched_rr_get_interval sched_setaffinity sched_yield set_robust_list set_tid_address setpgid setpriority
    setrlimit setsid tgkill tkill vfork wait4 waitid
"""
SIGNALS = """
    alarm restart_syscall rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend
    rt_sigtimedwait rt_tgsigqueueinfo sigaltstack signalfd signalfd4
"""
TIME = """
    clock_getres clock_gettime clock_nanosleep getitimer gettimeofday nanosleep setitimer time timer_create
    timer_delete timer_getoverrun timer_gettime timer_settime timerfd_create timerfd_gettime timerfd_settime
    times
"""
WAITING = """
    epoll_create epoll_create1 epoll_ctl epoll_pwait epoll_pwait2 epoll_wait eventfd eventfd2 futex
    futex_waitv poll ppoll pselect6 select
"""
LOCAL_SOCKETS = """
    accept accept4 bind connect getpeername getsockname getsockopt listen recvfrom recvmmsg recvmsg sendmmsg
    sendmsg sendto setsockopt shutdown socketpair
"""
SYSTEM = "getrandom sysinfo uname"


def rule(names: list[str], action: str = "SCMP_ACT_ALLOW", **more: Any) -> dict[str, Any]:
    return {"names": names, "action": action, **more}


def argument(index: int, value: int, op: str, other: int = 0) -> dict[str, Any]:
    return {"index": index, "value": value, "valueTwo": other, "op": op}


def profile() -> dict[str, Any]:
    groups = (FILES, MEMORY, PROCESSES, SIGNALS, TIME, WAITING, LOCAL_SOCKETS, SYSTEM)
    plain = sorted({name for group in groups for name in group.split()})
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "archMap": [
            {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": []},
            {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": []},
        ],
        "syscalls": [
            rule(plain),
            rule(["clone"], args=[argument(0, CLONE_NAMESPACES, "SCMP_CMP_MASKED_EQ")]),
            rule(["clone3"], "SCMP_ACT_ERRNO", errnoRet=ENOSYS),
            rule(["socket"], args=[argument(0, AF_UNIX, "SCMP_CMP_EQ")]),
            rule(["socket"], "SCMP_ACT_ERRNO", errnoRet=EAFNOSUPPORT, args=[argument(0, AF_UNIX, "SCMP_CMP_NE")]),
        ],
    }


if __name__ == "__main__":
    json.dump(profile(), sys.stdout, indent=1)
    sys.stdout.write("\n")
