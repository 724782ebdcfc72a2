"""One job as a process of its own, whose output goes to a file."""

import shlex
import subprocess
from signal import Signals

from mtrl.launchers import Job


class Process:
    """A `Handle` on a process of this machine.

    It has a process group of its own: Ctrl-C in a terminal reaches whoever started it, who passes it on once.
    """

    def __init__(self, job: Job) -> None:
        job.log.parent.mkdir(parents=True, exist_ok=True)
        with job.log.open("a", encoding="utf-8") as log:
            log.write(f"$ {shlex.join(job.command)}\n")
            log.flush()
            self._process = subprocess.Popen(
                job.command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, process_group=0
            )

    @property
    def process_id(self) -> int:
        """Of the process."""
        return self._process.pid

    def poll(self) -> int | None:
        """Return the exit code; None while it runs."""
        return self._process.poll()

    def wait(self) -> int:
        """Return the exit code when there is one."""
        return self._process.wait()

    def stop(self, number: Signals) -> None:
        """Send the signal."""
        self._process.send_signal(number)
