"""Turn the first signal, or the end of the time allowed, into a request to stop; a second signal is the end."""

import contextlib
import os
import signal
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")
HANDLED = tuple(signal.Signals[name] for name in _NAMES if hasattr(signal, name))
"""Ctrl-C, a terminal that closes, and what schedulers send before they take a machine away."""

REPEAT_SECONDS = 1.0
"""A signal this soon after the first is the same request: `timeout` and schedulers signal a process and its group."""


def install(receive: Callable[[int, FrameType | None], None]) -> dict[signal.Signals, Any]:
    """Hand the signals to `receive`, but for a hang-up that `nohup` has switched off; return the handlers before."""
    before = {number: signal.getsignal(number) for number in HANDLED}
    before = {n: handler for n, handler in before.items() if n.name != "SIGHUP" or handler is not signal.SIG_IGN}
    for number in before:
        signal.signal(number, receive)
    return before


class StopRequest:
    """Remembers the first signal, so that a loop can finish its step, save and leave; or that time is up.

    A second signal, more than `REPEAT_SECONDS` later, does what it does by default: it ends the process at once.
    """

    def __init__(self, max_hours: float | None = None) -> None:
        """Start the clock: `max_hours` from now, time is up."""
        self.received: signal.Signals | None = None
        self._received_at = 0.0
        self._max_hours = max_hours
        self._deadline = float("inf") if max_hours is None else time.monotonic() + 3600 * max_hours

    def install(self) -> None:
        """Take over the signals. Only the main thread may."""
        install(self._receive)

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
        if self.received is not None:
            if time.monotonic() - self._received_at > REPEAT_SECONDS:
                signal.signal(number, signal.SIG_DFL)
                signal.raise_signal(number)
            return
        self.received, self._received_at = signal.Signals(number), time.monotonic()
        with contextlib.suppress(OSError):  # the reader of a pipe may have got the same Ctrl-C and be gone
            os.write(2, b"\nstopping after this step and saving; a second signal leaves without\n")  # safe in a handler
