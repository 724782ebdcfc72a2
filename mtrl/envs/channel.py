"""Messages between a process and its parent. No end waits longer for the other than it is told.

Connections of `multiprocessing` can be asked whether something has arrived, but not to give up in the middle of a
message: one process that stops there would stop the other.
"""

import select
import socket
import struct
import time

_LENGTH = struct.Struct("!Q")

_LAST_SECONDS = 1.0
"""What a message may take to arrive that has begun to, where no time is left."""

_MOST_AT_ONCE = 4096
"""Bytes read in one go. Most messages are shorter, and room for more would cost more than reading them."""


class Channel:
    """One end of a connection that carries whole messages."""

    def __init__(self, end: socket.socket) -> None:
        """Take an end: one that does not block, or one that may wait for ever."""
        self._end = end
        self._received = bytearray()

    def fileno(self) -> int:
        """Return the descriptor, for `select`."""
        return self._end.fileno()

    def send(self, message: bytes, seconds: float | None = None) -> None:
        """Send a message.

        Raises:
            TimeoutError: The other end did not take it within `seconds`.
            ConnectionError: The other end is closed.
        """
        rest = memoryview(frame(message))
        deadline = None if seconds is None else time.monotonic() + seconds
        while rest:
            try:
                rest = rest[self._end.send(rest) :]
            except BlockingIOError:
                self._wait(select.POLLOUT, deadline)

    def receive(self, seconds: float | None = None) -> bytes:
        """Wait for the next message.

        Raises:
            TimeoutError: It did not arrive whole within `seconds`, or a second where they are fewer.
            ConnectionError: The other end is closed.
        """
        deadline = None if seconds is None else time.monotonic() + max(seconds, _LAST_SECONDS)
        received, start = self._received, _LENGTH.size
        while len(received) < start or len(received) < start + _LENGTH.unpack_from(received)[0]:
            try:
                part = self._end.recv(_MOST_AT_ONCE)  # mostly a whole message
            except BlockingIOError:
                self._wait(select.POLLIN, deadline)
                continue
            if not part:
                raise ConnectionResetError("the other end is closed")
            received += part
        end = start + _LENGTH.unpack_from(received)[0]
        message = bytes(received[start:end])
        del received[:end]
        return message

    @property
    def holds_more(self) -> bool:
        """Whether something has been read from the descriptor that `receive` has not returned yet."""
        return bool(self._received)

    def put_back(self, content: bytes) -> None:
        """Let `receive` begin with what someone else has read from the descriptor."""
        self._received += content

    def close(self) -> None:
        """Close this end."""
        self._end.close()

    def _wait(self, event: int, deadline: float | None) -> None:
        poller = select.poll()
        poller.register(self._end, event)
        if not poller.poll(None if deadline is None else max(deadline - time.monotonic(), 0.0) * 1000):
            raise TimeoutError


def frame(message: bytes) -> bytes:
    """Return a message as it travels."""
    return _LENGTH.pack(len(message)) + message


def open_pair() -> tuple[Channel, socket.socket]:
    """Return our end of a new connection, and the other one to be inherited by a process."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    return Channel(ours), theirs
