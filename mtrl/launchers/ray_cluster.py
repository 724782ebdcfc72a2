"""Jobs as tasks of a Ray cluster: one that is named, or one of this machine alone.

The machines of a named cluster need this package, the same Python under the same path, and the sweep's folder.
"""

# pyright: reportMissingImports=false
# Ray is an extra, and too large for the development install.

import logging
import os
import signal
from pathlib import Path
from signal import Signals
from typing import Any

from mtrl.launchers import EXIT_LOST, Handle, Job
from mtrl.launchers.process import Process
from mtrl.launchers.watched import request_of, watch

_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "token",  # of both kinds of cluster: who has no token may start nothing
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # a run without a share of a GPU sees none
}

_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""Lets a cluster that Ray starts listen on 127.0.0.1 alone, as on Windows and macOS. Otherwise it listens everywhere,
also where it is told that address."""


class RayCluster:
    """A `Launcher` on a Ray cluster."""

    def __init__(self, address: str | None, *, cpus: int, gpus: float) -> None:
        """Connect, or start a cluster that ends with this process and is reachable from this machine alone.

        Args:
            address: Of the cluster; None to start one.
            cpus: Cores of each job.
            gpus: GPUs of each job; 0.25 lets four share one.

        Raises:
            ValueError: There is no such cluster, or it does not let us in.
        """
        for name, value in (_ENVIRONMENT | ({} if address else _LOOPBACK)).items():
            os.environ.setdefault(name, value)
        import ray

        try:
            ray.init(  # "local", since None would join a cluster that runs here or that RAY_ADDRESS names
                address or "local",
                include_dashboard=None if address else False,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        except (ConnectionError, RuntimeError, ValueError) as problem:
            raise ValueError(f"--ray-address: cannot use {address}: {str(problem).strip()}") from problem
        self._task = ray.remote(_run).options(num_cpus=cpus, num_gpus=gpus, max_retries=0)

    def start(self, job: Job) -> Handle:
        """Hand the job to the cluster, which starts it where there is room."""
        job = job._replace(log=job.log.resolve())
        request_of(job).unlink(missing_ok=True)
        return _RayHandle(self._task.remote(job, Path.cwd()), job)

    def close(self) -> None:
        """Disconnect; a cluster that was started here ends."""
        import ray

        ray.shutdown()


class _RayHandle:
    """A task of the cluster."""

    def __init__(self, result: Any, job: Job) -> None:
        self._result, self._job = result, job
        self._is_asked = False

    def poll(self) -> int | None:
        """Return the exit code; None while the task waits or runs."""
        import ray
        import ray.exceptions

        if not ray.wait([self._result], timeout=0)[0]:
            return None
        try:
            return ray.get(self._result)
        except ray.exceptions.TaskCancelledError:
            return -signal.SIGINT
        except ray.exceptions.RayTaskError:  # it could not be started
            return EXIT_LOST
        except ray.exceptions.RayError:  # the machine or Ray's process there is gone
            return -signal.SIGKILL

    def stop(self, number: Signals) -> None:
        """Ask the task to save and end, the second time end it at once."""
        import ray

        del number
        if self._is_asked:
            ray.cancel(self._result, force=True)
        self._is_asked = True
        request_of(self._job).touch()


def _run(job: Job, folder: Path) -> int:
    """Run the job as a process, as the cluster's task."""
    os.chdir(folder)
    return watch(job, Process(job))
