"""Turn the first signal, or the end of the time allowed, into a request to stop; a second signal is the end."""

import contextlib
import os
import signal
import time
from types import FrameType

HANDLED = tuple(signal.Signals[name] for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name))
"""Ctrl-C, and what schedulers send before they take a machine away."""


class StopRequest:
    """Remembers the first signal, so that a loop can finish its step, save and leave; or that time is up.

    A second signal does what it does by default: it ends the process at once.
    """

    def __init__(self, max_hours: float | None = None) -> None:
        """Start the clock: `max_hours` from now, time is up."""
        self.received: signal.Signals | None = None
        self._max_hours = max_hours
        self._deadline = float("inf") if max_hours is None else time.monotonic() + 3600 * max_hours

    def install(self) -> None:
        """Take over the signals. Only the main thread may."""
        for number in HANDLED:
            signal.signal(number, self._receive)

    @property
    def reason(self) -> str | None:
        """What asks to stop; None where nothing does."""
        if self.received is not None:
            return self.received.name
        return f"--max-hours {self._max_hours:g}" if time.monotonic() >= self._deadline else None

    @property
    def exit_code(self) -> int:
        """128 + signal number, as shells report it; 0 without a signal."""
        return 0 if self.received is None else 128 + self.received

    def _receive(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.received = signal.Signals(number)
        for handled in HANDLED:
            signal.signal(handled, signal.SIG_DFL)
        with contextlib.suppress(OSError):  # the reader of a pipe may have got the same Ctrl-C and be gone
            os.write(2, b"\nstopping after this step and saving; a second signal leaves without\n")  # safe in a handler
