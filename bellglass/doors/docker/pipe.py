"""Our end of an attached container, as a byte stream.

Not covered: whose bytes they are, beyond the descriptor that wrote them. wire.py judges what they say.
"""

from __future__ import annotations

import contextlib
import socket
import struct

from bellglass.errors import GuestFault

BUFFER_BYTES = 256 * 1024
MOST_STDERR_BYTES = 64 * 1024
_HEADER = struct.Struct(">BxxxL")  # which descriptor, how many bytes


class AttachedPipe:
    """ports.Stream over an attached container: takes the engine's 8-byte headers off what the guest says.

    The engine's headers say which descriptor wrote. Descriptor 1 is the wire. Descriptor 2 is the supervisor's last
    words when it can't start; a little is kept for the error message, and more of it ends the guest.
    """

    def __init__(self, end: socket.socket, timeout: float | None = None) -> None:
        end.settimeout(timeout)
        self._end = end
        self._buffer = memoryview(bytearray(BUFFER_BYTES))
        self._start = self._stop = 0  # what the buffer holds
        self._left, self._stream = 0, 1  # of the piece under way
        self._stderr_bytes = 0
        self.stderr = b""

    def read_into(self, into: memoryview) -> int:
        """As much as has arrived and fits; waits only for the first byte."""
        if len(into) == 0:
            raise ValueError("nothing fits into an empty buffer")
        filled = 0
        while filled < len(into):
            if self._left == 0 and not self._next_header(wait=filled == 0):
                break
            if self._start == self._stop:
                if filled:
                    break
                if not self._fill():
                    return 0
            take = min(self._left, self._stop - self._start)
            if self._stream == 1:
                take = min(take, len(into) - filled)
                into[filled : filled + take] = self._buffer[self._start : self._start + take]
                filled += take
            else:
                self._keep_stderr(bytes(self._buffer[self._start : self._start + take]))
            self._start += take
            self._left -= take
        return filled

    def write(self, data: bytes | memoryview) -> None:
        self._end.sendall(data)

    def close(self) -> None:
        """Both directions, at once: a reader and a writer on other threads wake up. The descriptor stays reserved."""
        with contextlib.suppress(OSError):
            self._end.shutdown(socket.SHUT_RDWR)

    def dispose(self) -> None:
        self._end.close()

    def _next_header(self, wait: bool) -> bool:
        while self._stop - self._start < _HEADER.size:
            if not wait or not self._fill():
                return False
        self._stream, self._left = _HEADER.unpack_from(self._buffer, self._start)
        self._start += _HEADER.size
        return True

    def _fill(self) -> bool:
        """One read into the buffer, behind what it holds. False at the end of the stream."""
        held = self._stop - self._start
        if held:
            self._buffer[:held] = bytes(self._buffer[self._start : self._stop])
        self._start, self._stop = 0, held
        count = self._end.recv_into(self._buffer[held:])
        self._stop += count
        return count > 0

    def _keep_stderr(self, data: bytes) -> None:
        self.stderr = (self.stderr + data)[-2000:]
        self._stderr_bytes += len(data)
        if self._stderr_bytes > MOST_STDERR_BYTES:
            raise GuestFault("flood", "the supervisor's stderr")
