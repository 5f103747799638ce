"""Looks up files for a confined child, which may look up none itself: the supervisor's side. Linux; stdlib only.

The child's `openat` and `fstat` wait in the kernel until they are answered here: by a descriptor, facts of a file or
an error. What is given out is read-only: regular files and folders of the image (nothing mounted over it, so no
/proc, /sys or /dev) and of the work folder. So the child reaches nothing whose numbers or times tell of other guests,
and nothing it does with names can be noticed by one.

Not covered: what reading a file does to time.
"""

import ctypes
import errno
import os
import select
import socket
import stat
import struct

_RECV, _SEND, _ADDFD = 0xC0502100, 0xC0182101, 0x40182103
_NUMBERS = {"x86_64": (257, 262, 5), "aarch64": (56, 79, 80)}  # openat, newfstatat, fstat
_STAT_BYTES = {"x86_64": 144, "aarch64": 128}
_OPENAT2, _PIDFD_OPEN, _PIDFD_GETFD = 437, 434, 438  # on both
_NO_XDEV, _NO_MAGICLINKS = 0x01, 0x02
_AT_FDCWD, _AT_SYMLINK_NOFOLLOW, _AT_EMPTY_PATH = -100, 0x100, 0x1000
_KEPT_FLAGS = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NONBLOCK
_WRITING = os.O_ACCMODE | os.O_CREAT | os.O_TRUNC | os.O_APPEND
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
        self._hand, self._pid, self._work, self._roots = hand, pid, os.fsencode(work), [*map(os.fsencode, roots)]
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
        self._child = self._call(_PIDFD_OPEN, self._pid, 0)
        self._bases = {root: os.open(root, os.O_PATH | os.O_DIRECTORY) for root in [self._work, *self._roots, b"/"]}
        question = ctypes.create_string_buffer(80)
        waiting = select.poll()
        waiting.register(listeners[0], select.POLLIN)
        while not waiting.poll()[0][1] & select.POLLHUP:
            ctypes.memset(question, 0, 80)
            try:
                self._ioctl(listeners[0], _RECV, question)
            except OSError as error:
                if error.errno in (errno.EINTR, errno.ENOENT):  # whoever asked was interrupted
                    continue
                raise
            which, _, _, number, _, _, *arguments = struct.unpack("=QIIiIQ6Q", question.raw)
            value, wrong = 0, 0
            try:
                value = self._answer(listeners[0], which, number, arguments)
            except Refused as no:
                wrong = no.number
            except OSError as error:
                wrong = error.errno
            try:
                self._ioctl(listeners[0], _SEND, struct.pack("=QqiI", which, value, -wrong, 0))
            except OSError:
                continue  # it no longer waits

    def _answer(self, listener, which, number, arguments):
        if number == self._openat:
            file = self._open(arguments)
            try:
                flags = os.O_CLOEXEC if arguments[2] & os.O_CLOEXEC else 0
                return self._ioctl(listener, _ADDFD, struct.pack("=QIIII", which, 0, file, 0, flags))
            finally:
                os.close(file)
        if number == self._fstat:
            file, into = self._borrow(arguments[0]), arguments[1]
        elif number == self._newfstatat:
            file, into = self._look(arguments), arguments[2]
        else:
            raise Refused(errno.EPERM)
        try:
            self._facts(file, into)
        finally:
            os.close(file)
        return 0

    def _open(self, arguments):
        folder, flags = _signed(arguments[0]), arguments[2]
        if flags & (_WRITING | os.O_PATH | os.O_DIRECT) or flags & os.O_TMPFILE == os.O_TMPFILE:
            raise Refused(errno.EROFS)
        name = self._name(arguments[1])
        if name in PLAIN_DEVICES:
            return os.open(name, os.O_RDONLY | os.O_CLOEXEC)
        file = self._reach(folder, name, flags & _KEPT_FLAGS | os.O_NONBLOCK)
        if stat.S_IFMT(os.fstat(file).st_mode) not in (stat.S_IFREG, stat.S_IFDIR):
            os.close(file)
            raise Refused(errno.EACCES)
        return file

    def _look(self, arguments):
        folder, flags = _signed(arguments[0]), arguments[3]
        name = self._name(arguments[1])
        if not name and flags & _AT_EMPTY_PATH and folder >= 0:
            return self._borrow(folder)
        return self._reach(folder, name, os.O_PATH | (os.O_NOFOLLOW if flags & _AT_SYMLINK_NOFOLLOW else 0))

    def _reach(self, folder, name, flags):
        """A descriptor for a name of the child's, of the work folder or of the image."""
        if not name:
            raise Refused(errno.ENOENT)
        if folder != _AT_FDCWD and not name.startswith(b"/"):
            raise Refused(errno.EACCES)
        path = os.path.normpath(os.path.join(self._work, name))
        path = b"/" + path.lstrip(b"/")
        root = next(root for root in self._bases if path == root or path.startswith(root.rstrip(b"/") + b"/"))
        base, inner = self._bases[root], path[len(root) :].lstrip(b"/") or b"."
        how = struct.pack("QQQ", flags | os.O_CLOEXEC, 0, _NO_XDEV | _NO_MAGICLINKS)
        try:
            return self._call(_OPENAT2, base, inner, how, len(how))
        except OSError as error:
            raise Refused(errno.EACCES if error.errno in (errno.EXDEV, errno.ELOOP) else error.errno) from None

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
        found, space = b"", ctypes.create_string_buffer(PAGE)
        while b"\0" not in found:
            size = PAGE - address % PAGE
            if len(found) > PAGE:
                raise Refused(errno.ENAMETOOLONG)
            self._move(self._libc.process_vm_readv, space, address, size)
            found, address = found + space.raw[:size], address + size
        return found.partition(b"\0")[0]

    def _move(self, how, ours, theirs, size):
        local = struct.pack("QQ", ctypes.addressof(ours), size)
        remote = struct.pack("QQ", theirs, size)
        if how(self._pid, local, ctypes.c_ulong(1), remote, ctypes.c_ulong(1), ctypes.c_ulong(0)) != size:
            raise Refused(errno.EFAULT)

    def _call(self, *arguments):
        words = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
        back = self._libc.syscall(*words)
        if back < 0:
            raise OSError(ctypes.get_errno(), "syscall")
        return back

    def _ioctl(self, file, request, about):
        back = self._libc.ioctl(file, ctypes.c_ulong(request), about)
        if back < 0:
            raise OSError(ctypes.get_errno(), "ioctl")
        return back


def _signed(word):
    word &= 0xFFFFFFFF
    return word - (1 << 32) if word & 0x80000000 else word
