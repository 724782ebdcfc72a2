"""Jobs as processes of this machine."""

from mtrl.launchers import Handle, Job
from mtrl.launchers.process import Process


class Local:
    """A `Launcher` on this machine."""

    def start(self, job: Job) -> Handle:
        """Start a process."""
        return Process(job)

    def close(self) -> None:
        """Do nothing: processes end by themselves."""
