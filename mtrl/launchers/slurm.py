"""Jobs of SLURM, through submitit; with `cluster` local, processes that submitit starts without SLURM."""

import math
import signal
from pathlib import Path
from signal import Signals
from typing import Any, Literal

from mtrl.launchers import EXIT_LOST, Handle, Job
from mtrl.launchers.process import Process
from mtrl.launchers.watched import request_of, watch

WARNING = signal.SIGUSR2
"""What submitit lets SLURM send before a job will be taken away."""

SAVE_SECONDS = 120
"""Between SLURM's warning that a job will be taken away and its end."""


class Slurm:
    """A `Launcher` by SLURM."""

    def __init__(
        self,
        folder: Path,
        *,
        cpus: int,
        gpus: float,
        hours: float,
        partition: str | None = None,
        cluster: Literal["slurm", "local"] = "slurm",
    ) -> None:
        """Describe the jobs.

        Args:
            folder: For what submitit writes; all machines must see it, this package and the same Python.
            cpus: Cores of each job.
            gpus: GPUs of each job, rounded up.
            hours: Time limit of a job. A job that reaches it saves and is put back into the queue.
            partition: SLURM's; its default where None.
            cluster: `local` runs without SLURM.

        Raises:
            RuntimeError: This machine has no SLURM.
        """
        import submitit

        self._executor = submitit.AutoExecutor(folder=folder / "slurm", cluster=cluster, slurm_max_num_timeout=1000)
        self._executor.update_parameters(
            name="mtrl",
            cpus_per_task=cpus,
            gpus_per_node=math.ceil(gpus),
            timeout_min=math.ceil(60 * hours),
            slurm_signal_delay_s=SAVE_SECONDS,
            **({"slurm_partition": partition} if partition else {}),
        )

    def start(self, job: Job) -> Handle:
        """Submit the job."""
        task = SlurmTask(job._replace(log=job.log.resolve()))
        request_of(task.job).unlink(missing_ok=True)
        return _SlurmHandle(self._executor.submit(task), task)

    def close(self) -> None:
        """Do nothing: jobs belong to SLURM."""


class SlurmTask:
    """What a job of SLURM does: it runs a `Job` as a process of its own."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.process: Process | None = None

    def __call__(self) -> int:
        """Return the exit code."""
        # SLURM's warning reaches the job's processes too, and is answered by `checkpoint` alone: one that is ignored
        # stays so in what is started, which by default would die of it.
        answer = signal.signal(WARNING, signal.SIG_IGN)
        try:
            self.process = Process(self.job)
        finally:
            signal.signal(WARNING, answer)
        return watch(self.job, self.process)

    def checkpoint(self) -> Any:
        """Save before SLURM takes the job away, and ask for it to be put back into the queue."""
        from submitit.helpers import DelayedSubmission

        if self.process is not None:
            self.process.stop(signal.SIGTERM)
            self.process.wait()
        return DelayedSubmission(SlurmTask(self.job))


class _SlurmHandle:
    """A submitted job."""

    def __init__(self, submitted: Any, task: SlurmTask) -> None:
        self._submitted, self._task = submitted, task

    def poll(self) -> int | None:
        """Return the exit code; None while the job waits or runs."""
        from submitit.core.utils import FailedJobError, UncompletedJobError

        if not self._submitted.done():
            return None
        try:
            return self._submitted.result()
        except (FailedJobError, UncompletedJobError):
            return EXIT_LOST

    def stop(self, number: Signals) -> None:
        """Take the job out of the queue, or ask it to save and end."""
        del number
        if self._submitted.state == "PENDING":
            self._submitted.cancel(check=False)
        else:
            request_of(self._task.job).touch()  # SLURM's own signals would reach all of its processes
