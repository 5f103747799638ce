"""Looks up files for a confined child, which may look up none itself: the supervisor's side. Linux; stdlib only.

The child's `openat` and `fstat` wait in the kernel until they are answered here: by a descriptor, facts of a file or
an error. What is given out is read-only: regular files and folders of the image (nothing mounted over it, so no
/proc, /sys or /dev) and of the work folder. So the child reaches nothing whose numbers or times tell of other guests,
and nothing it does with names can be noticed by one.

Not covered: what reading a file does to time.
"""

import contextlib
import ctypes
import errno
import os
import select
import socket
import stat
import struct

# From the kernel's <linux/seccomp.h>: requests to a listener, and what they carry.
_RECV = 0xC0502100
_SEND = 0xC0182101
_ADDFD = 0x40182103
_QUESTION = struct.Struct("=QIIiIQ6Q")  # id, pid, flags, call, architecture, instruction, arguments
_ANSWER = struct.Struct("=QqiI")  # id, value, error, flags
_DESCRIPTOR = struct.Struct("=QIIII")  # id, flags, ours, theirs, flags of theirs

# Calls: what the child asks (openat, newfstatat, fstat), and what is used to answer it.
_NUMBERS = {"x86_64": (257, 262, 5), "aarch64": (56, 79, 80)}
_STAT_BYTES = {"x86_64": 144, "aarch64": 128}
_PIDFD_OPEN = 434
_OPENAT2 = 437
_PIDFD_GETFD = 438

_NO_XDEV = 0x01  # how openat2 looks a name up
_NO_MAGICLINKS = 0x02
_AT_FDCWD = -100
_AT_SYMLINK_NOFOLLOW = 0x100
_AT_EMPTY_PATH = 0x1000
_KEPT_FLAGS = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NONBLOCK
_WRITING = os.O_ACCMODE | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_GIVEN_OUT = (stat.S_IFREG, stat.S_IFDIR)
PAGE = 4096
PLAIN_DEVICES = (b"/dev/null", b"/dev/zero", b"/dev/urandom", b"/dev/random")


class Refused(Exception):
    def __init__(self, number):
        super().__init__(os.strerror(number))
        self.number = number


class Broker:
    """Answers the questions of the child `pid`, whose folder is `work`, once it has handed them over through `hand`.

    `roots` are where its libraries are, for machines on which they lie on a disk of their own.
    """

    def __init__(self, hand, pid, work, roots):
        self._hand = hand
        self._pid = pid
        self._work = os.fsencode(work)
        self._roots = [os.fsencode(root) for root in roots]
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._libc.syscall.restype = ctypes.c_long
        machine = os.uname().machine
        self._openat, self._newfstatat, self._fstat = _NUMBERS.get(machine, (-1, -1, -1))
        self._stat = ctypes.create_string_buffer(_STAT_BYTES.get(machine, 144))

    def serve(self):
        """One thread's work, until the child has ended. OSError when it can't be done here."""
        with socket.socket(fileno=self._hand) as hand:
            _, listeners, _, _ = socket.recv_fds(hand, 1, 1)
        if not listeners:
            return  # the child has ended, or runs without a filter
        self._listener = listeners[0]
        self._child = self._call(_PIDFD_OPEN, self._pid, 0)
        places = [self._work, *self._roots, b"/"]
        self._bases = {place: os.open(place, os.O_PATH | os.O_DIRECTORY) for place in places}
        waiting = select.poll()
        waiting.register(self._listener, select.POLLIN)
        while not waiting.poll()[0][1] & select.POLLHUP:
            self._serve_one()

    def _serve_one(self):
        question = ctypes.create_string_buffer(_QUESTION.size)  # the kernel wants zeros
        try:
            self._ioctl(_RECV, question)
        except OSError as error:
            if error.errno in (errno.EINTR, errno.ENOENT):  # whoever asked was interrupted
                return
            raise
        which, _, _, number, _, _, *arguments = _QUESTION.unpack(question.raw)
        value = wrong = 0
        try:
            value = self._answer(which, number, arguments)
        except Refused as no:
            wrong = no.number
        except OSError as error:
            wrong = error.errno
        with contextlib.suppress(OSError):  # it no longer waits
            self._ioctl(_SEND, _ANSWER.pack(which, value, -wrong, 0))

    def _answer(self, which, number, arguments):
        """What the call is to return. OSError or Refused where it is to fail."""
        if number == self._openat:
            folder, address, flags, *_ = arguments
            return self._give(which, self._open(folder, address, flags), flags & os.O_CLOEXEC)
        if number == self._newfstatat:
            folder, address, into, flags, *_ = arguments
            return self._tell(self._look(folder, address, flags), into)
        if number == self._fstat:
            file, into, *_ = arguments
            return self._tell(self._borrow(file), into)
        raise Refused(errno.EPERM)

    def _give(self, which, file, flags):
        """The number under which the child has this file from now on."""
        try:
            return self._ioctl(_ADDFD, _DESCRIPTOR.pack(which, 0, file, 0, flags))
        finally:
            os.close(file)

    def _tell(self, file, into):
        try:
            self._facts(file, into)
        finally:
            os.close(file)
        return 0

    def _open(self, folder, address, flags):
        if flags & (_WRITING | os.O_PATH | os.O_DIRECT) or flags & os.O_TMPFILE == os.O_TMPFILE:
            raise Refused(errno.EROFS)
        name = self._name(address)
        if name in PLAIN_DEVICES:
            return os.open(name, os.O_RDONLY | os.O_CLOEXEC)
        file = self._reach(folder, name, flags & _KEPT_FLAGS | os.O_NONBLOCK)
        if stat.S_IFMT(os.fstat(file).st_mode) not in _GIVEN_OUT:
            os.close(file)
            raise Refused(errno.EACCES)
        return file

    def _look(self, folder, address, flags):
        name = self._name(address)
        if not name and flags & _AT_EMPTY_PATH and _signed(folder) >= 0:
            return self._borrow(folder)
        follow = os.O_NOFOLLOW if flags & _AT_SYMLINK_NOFOLLOW else 0
        return self._reach(folder, name, os.O_PATH | follow)

    def _reach(self, folder, name, flags):
        """A descriptor for a name of the child's, of the work folder or of the image."""
        if not name:
            raise Refused(errno.ENOENT)
        if _signed(folder) != _AT_FDCWD and not name.startswith(b"/"):
            raise Refused(errno.EACCES)
        path = b"/" + os.path.normpath(os.path.join(self._work, name)).lstrip(b"/")
        place = next(place for place in self._bases if _is_within(path, place))
        inner = path[len(place) :].lstrip(b"/") or b"."
        how = struct.pack("QQQ", flags | os.O_CLOEXEC, 0, _NO_XDEV | _NO_MAGICLINKS)
        try:
            return self._call(_OPENAT2, self._bases[place], inner, how, len(how))
        except OSError as error:
            elsewhere = error.errno in (errno.EXDEV, errno.ELOOP)
            raise Refused(errno.EACCES if elsewhere else error.errno) from None

    def _borrow(self, file):
        return self._call(_PIDFD_GETFD, self._child, _signed(file), 0)

    def _facts(self, file, into):
        """Write what `fstat` says into the child. Not of a socket or pipe: those are numbered by one counter of all."""
        kind = stat.S_IFMT(os.fstat(file).st_mode)
        if kind in (stat.S_IFSOCK, stat.S_IFIFO) or not kind:
            raise Refused(errno.EACCES)
        self._call(self._newfstatat, file, b"", self._stat, _AT_EMPTY_PATH)
        self._move(self._libc.process_vm_writev, self._stat, into, len(self._stat))

    def _name(self, address):
        """The text at an address of the child's, which must end within a page or two."""
        found = b""
        space = ctypes.create_string_buffer(PAGE)
        while b"\0" not in found:
            if len(found) > PAGE:
                raise Refused(errno.ENAMETOOLONG)
            size = PAGE - address % PAGE  # up to the page's end: what lies behind may not be there
            self._move(self._libc.process_vm_readv, space, address, size)
            found += space.raw[:size]
            address += size
        return found.partition(b"\0")[0]

    def _move(self, how, ours, theirs, size):
        local = struct.pack("QQ", ctypes.addressof(ours), size)
        remote = struct.pack("QQ", theirs, size)
        one, flags = ctypes.c_ulong(1), ctypes.c_ulong(0)
        if how(self._pid, local, one, remote, one, flags) != size:
            raise Refused(errno.EFAULT)

    def _call(self, *arguments):
        words = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
        back = self._libc.syscall(*words)
        if back < 0:
            raise OSError(ctypes.get_errno(), "syscall")
        return back

    def _ioctl(self, request, about):
        back = self._libc.ioctl(self._listener, ctypes.c_ulong(request), about)
        if back < 0:
            raise OSError(ctypes.get_errno(), "ioctl")
        return back


def _is_within(path, place):
    return path == place or path.startswith(place.rstrip(b"/") + b"/")


def _signed(word):
    """An `int` to the kernel, which ignores the upper half of the register."""
    word &= 0xFFFFFFFF
    return word - (1 << 32) if word & 0x80000000 else word
