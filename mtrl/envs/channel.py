"""Messages between a process and its parent. No end waits longer for the other than it is told.

Connections of `multiprocessing` can be asked whether something has arrived, but not to give up in the middle of a
message: one process that stops there would stop the other.
"""

import socket
import struct
import time

_LENGTH = struct.Struct("!Q")

_LAST_SECONDS = 1.0
"""What a message may take to arrive that has begun to, where no time is left."""


class Channel:
    """One end of a connection that carries whole messages."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end

    def fileno(self) -> int:
        """Return the descriptor, for `select`."""
        return self._end.fileno()

    def send(self, message: bytes, seconds: float | None = None) -> None:
        """Send a message.

        Raises:
            TimeoutError: The other end did not take it within `seconds`.
            ConnectionError: The other end is closed.
        """
        self._end.settimeout(seconds)
        self._end.sendall(_LENGTH.pack(len(message)) + message)

    def receive(self, seconds: float | None = None) -> bytes:
        """Wait for the next message.

        Raises:
            TimeoutError: It did not arrive whole within `seconds`, or a second where they are fewer.
            ConnectionError: The other end is closed.
        """
        deadline = None if seconds is None else time.monotonic() + max(seconds, _LAST_SECONDS)
        (length,) = _LENGTH.unpack(self._read(_LENGTH.size, deadline))
        return bytes(self._read(length, deadline))

    def close(self) -> None:
        """Close this end."""
        self._end.close()

    def _read(self, length: int, deadline: float | None) -> bytearray:
        content = bytearray(length)
        free = memoryview(content)
        while free:
            self._end.settimeout(None if deadline is None else max(deadline - time.monotonic(), 1e-3))
            count = self._end.recv_into(free)
            if count == 0:
                raise ConnectionResetError("the other end is closed")
            free = free[count:]
        return content


def open_pair() -> tuple[Channel, socket.socket]:
    """Return our end of a new connection, and the other one to be inherited by a process."""
    ours, theirs = socket.socketpair()
    return Channel(ours), theirs
