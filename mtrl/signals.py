"""Turn the first SIGINT or SIGTERM into a request to stop, and the second into the end."""

import contextlib
import os
import signal
from types import FrameType


class StopRequest:
    """Remembers the first SIGINT or SIGTERM, so that a loop can finish its step, save and leave.

    A second signal does what it does by default: it ends the process at once.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None

    def install(self) -> None:
        """Take over the two signals. Only the main thread may."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._receive)

    @property
    def exit_code(self) -> int:
        """128 + signal number, as shells report it; 0 without a signal."""
        return 0 if self.received is None else 128 + self.received

    def _receive(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.received = signal.Signals(number)
        for handled in (signal.SIGINT, signal.SIGTERM):
            signal.signal(handled, signal.SIG_DFL)
        with contextlib.suppress(OSError):  # the reader of a pipe may have got the same Ctrl-C and be gone
            os.write(2, b"\nstopping after this step and saving; a second signal leaves without\n")  # safe in a handler
