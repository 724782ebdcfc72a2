"""Where the runs of a sweep are started: on this machine, on a Ray cluster, through SLURM."""

from collections.abc import Sequence
from pathlib import Path
from signal import Signals
from typing import NamedTuple, Protocol, runtime_checkable

__all__ = ["EXIT_LOST", "Handle", "Job", "Launcher"]

EXIT_LOST = 1
"""Stands for the exit code of a job that was never started, or that the cluster ended."""


class Job(NamedTuple):
    """A command to be run once, and the file that gets what it prints."""

    name: str
    command: Sequence[str]
    log: Path


@runtime_checkable
class Handle(Protocol):
    """A job that was started."""

    def poll(self) -> int | None:
        """Return the exit code, minus the number of the signal that killed it; None while it waits or runs."""
        ...

    def stop(self, number: Signals) -> None:
        """Ask the job to save and end. It may take seconds, and may have ended."""
        ...


@runtime_checkable
class Launcher(Protocol):
    """A place where jobs run."""

    def start(self, job: Job) -> Handle:
        """Start the job; returns at once."""
        ...

    def close(self) -> None:
        """Give back what belongs to the launcher; jobs have ended by then."""
        ...
