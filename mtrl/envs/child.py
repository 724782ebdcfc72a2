"""One child process: how it starts, how it ended, and how it is made to end.

Plain child processes instead of `multiprocessing`: its workers import the user's main module (and with it torch, 200 MB
each), need a main guard in every script, and leave a fork server and a resource tracker behind. These inherit two
descriptors, a connection and the shared memory, and end when the first closes. POSIX only.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass

from mtrl.envs.channel import Channel, open_pair
from mtrl.signals import HANDLED

BOOTSTRAP = "import json, sys; sys.path[:] = json.loads(sys.argv[5]); from mtrl.envs.worker_process import main; main()"
"""A worker finds modules where its parent does, tests and user code included."""

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")

KILL_SECONDS = 5.0
"""How long a killed process may take to be gone. One that hangs in a file system may take for ever, but does nothing
more of its own."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Child:
    """A worker process and the connection to it."""

    index: int
    rows: tuple[int, ...]
    process: subprocess.Popen[bytes]
    channel: Channel

    def __str__(self) -> str:
        return f"worker {self.index} (pid {self.process.pid})"

    def how_it_ended(self) -> str:
        """Say why its end of the connection is closed."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=1.0)
        code = self.process.returncode
        if code is None:
            return "closed its connection"
        names = {number.value: number.name for number in signal.Signals}
        return f"was killed by {names.get(-code, f'signal {-code}')}" if code < 0 else f"ended with exit code {code}"

    def end(self) -> None:
        """Kill it if it still runs, collect it and close the connection."""
        self.process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(KILL_SECONDS)
        self.channel.close()


def start(index: int, rows: tuple[int, ...], memory: int) -> Child:
    """Start a worker process, which waits for its `Job`.

    Args:
        index: What to call it.
        rows: The environments it will hold.
        memory: Descriptor of the shared arrays.
    """
    channel, theirs = open_pair()
    # The death signal follows the starting thread, not the process: ask for it only where both end together.
    signal_on_death = sys.platform == "linux" and threading.current_thread() is threading.main_thread()
    numbers = (theirs.fileno(), memory, os.getpid(), int(signal_on_death))
    with theirs, _terminal_signals_blocked():
        process = subprocess.Popen(
            [sys.executable, "-c", BOOTSTRAP, *map(str, numbers), json.dumps(sys.path)],
            stdin=subprocess.DEVNULL,
            pass_fds=(theirs.fileno(), memory),  # and no others: a copy of a sibling's connection would keep it open
            env=os.environ | ONE_THREAD,
        )
    return Child(index=index, rows=rows, process=process, channel=channel)


@contextlib.contextmanager
def _terminal_signals_blocked() -> Iterator[None]:
    """Shield the processes started meanwhile until they can ignore these signals themselves: they inherit the mask."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
