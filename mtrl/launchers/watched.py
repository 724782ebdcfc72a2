"""One job as a process, asked to stop by a file: signals do not reach a process on another machine."""

import signal
import time
from pathlib import Path

from mtrl.launchers import Job
from mtrl.launchers.process import Process

POLL_SECONDS = 0.5


def request_of(job: Job) -> Path:
    """Return the file whose existence asks the job to save and end."""
    return job.log.with_suffix(".stop")


def watch(job: Job, process: Process) -> int:
    """Return the exit code when there is one; pass requests on as SIGTERM: Ray blocks SIGINT in its processes."""
    while (code := process.poll()) is None:
        if request_of(job).exists():
            request_of(job).unlink()
            process.stop(signal.SIGTERM)
        time.sleep(POLL_SECONDS)
    return code
