"""The life of a sweep: jobs are started, at most so many at a time; what becomes of each is told to a person."""

import contextlib
import re
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from types import FrameType

from mtrl import signals
from mtrl.launchers import Handle, Launcher
from mtrl.sweep_plan import Run

POLL_SECONDS, STATUS_SECONDS = 0.1, 1.0

REPEAT_SECONDS = 1.5 * signals.REPEAT_SECONDS
"""A job hears of the first signal later than the sweep, and must not take the second for the same."""

_STEP = re.compile(rb'^{"kind": "\w+", "step": (\d+)', re.MULTILINE)

_TAIL_BYTES = 2**20
"""Of the records that are searched for the newest; one of fifty tasks takes some 200 kB."""


class SweepLoop:
    """Runs what is unfinished. A job that fails or is killed is told and does not stop the others."""

    def __init__(self, runs: Sequence[Run], launcher: Launcher, num_jobs: int) -> None:
        """Start nothing yet.

        Args:
            runs: All runs of the sweep.
            launcher: Where the unfinished ones are started.
            num_jobs: At most so many at a time.
        """
        self.failed: list[Run] = []
        self.received: signal.Signals | None = None
        """The first signal; no job is started after it."""
        self._received_at = 0.0
        self._waiting = [run for run in runs if not run.is_finished()]
        self._num_runs, self._num_finished = len(runs), len(runs) - len(self._waiting)
        self._launcher, self._num_jobs = launcher, num_jobs
        self._running: dict[str, tuple[Run, Handle, float]] = {}
        self._is_terminal = sys.stdout.isatty()
        self._next_status = 0.0

    def run(self) -> None:
        """Start jobs until all have ended, or until a signal came and those that ran have ended."""
        before = signals.install(self._receive)
        self._say(f"{self._num_finished} of {self._num_runs} runs are finished")
        try:
            while self._running or (self._waiting and not self.received):
                while self._waiting and len(self._running) < self._num_jobs and not self.received:
                    self._start(self._waiting.pop(0))
                time.sleep(POLL_SECONDS)
                for run, handle, began in list(self._running.values()):
                    if (code := handle.poll()) is not None:
                        del self._running[run.name]
                        self._end(run, code, time.monotonic() - began)
                self._show()
        finally:
            self._stop_all()
            for number, handler in before.items():
                signal.signal(number, handler)

    def _stop_all(self) -> None:
        """Let jobs that still run, because the sweep itself failed, save and end."""
        for _, handle, _ in self._running.values():
            with contextlib.suppress(OSError):
                handle.stop(signal.SIGTERM)
        while any(handle.poll() is None for _, handle, _ in self._running.values()):
            time.sleep(POLL_SECONDS)

    def _start(self, run: Run) -> None:
        steps = run.steps_saved()
        self._say(f"{run.name}: " + (f"continues from step {steps:,}" if steps else "begins"))
        try:
            handle = self._launcher.start(run.job(sys.executable))
        except OSError as problem:
            self.failed.append(run)
            self._say(f"{run.name}: cannot be started: {problem}")
            return
        self._running[run.name] = (run, handle, time.monotonic())
        if self.received:  # while it was started
            handle.stop(self.received)

    def _end(self, run: Run, code: int, seconds: float) -> None:
        """Tell what became of a job."""
        took = f"after {seconds:.0f} s"
        if run.is_finished():
            self._num_finished += 1
            self._say(f"{run.name}: finished {took}")
        elif code == 0:
            self._say(f"{run.name}: out of time {took}, saved at step {run.steps_saved():,}")
        elif self.received:
            self._say(f"{run.name}: stopped {took}, saved at step {run.steps_saved():,}")
        else:
            self.failed.append(run)
            self._say(f"{run.name}: {_cause(code)} {took}; see {run.log}{_last_error(run)}")

    def _receive(self, number: int, frame: FrameType | None) -> None:
        """Pass the signal on: jobs save and end at the first, and end at once at the second."""
        del frame
        if self.received and time.monotonic() - self._received_at < REPEAT_SECONDS:
            return
        if not self.received:
            self.received, self._received_at = signal.Signals(number), time.monotonic()
        for _, handle, _ in list(self._running.values()):
            with contextlib.suppress(OSError):
                handle.stop(signal.Signals(number))

    def _show(self) -> None:
        """Redraw the status line of a terminal."""
        if not self._is_terminal or time.monotonic() < self._next_status:
            return
        self._next_status = time.monotonic() + STATUS_SECONDS
        running = ", ".join(
            f"{run.name} {100 * _step(run) // run.total_steps}%" for run, _, _ in self._running.values()
        )
        text = f"{self._num_finished}/{self._num_runs} finished, {len(self._waiting)} waiting"
        text += f", {len(self.failed)} failed" * bool(self.failed)
        text = "stopping: " * bool(self.received) + f"{text} | {running}"
        with contextlib.suppress(OSError):
            sys.stdout.write(f"\r\033[K{text[: shutil.get_terminal_size().columns - 1]}")
            sys.stdout.flush()

    def _say(self, line: str) -> None:
        erase = "\r\033[K" if self._is_terminal else ""
        with contextlib.suppress(OSError):  # nobody may read any more; the sweep goes on
            sys.stdout.write(f"{erase}{line}\n")
            sys.stdout.flush()


def _cause(code: int) -> str:
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"failed with code {code}"


def _last_error(run: Run) -> str:
    """Return what the job's last start said of its failure, as the end of a sentence."""
    with contextlib.suppress(OSError):
        lines = run.log.read_text(encoding="utf-8", errors="replace").rpartition("\n$ ")[2].splitlines()
        errors = [line for line in lines if line.startswith("error: ")] or lines[1:][-1:]
        return "".join(f": {line}" for line in errors[:1])
    return ""


def _step(run: Run) -> int:
    """Return the environment steps of the newest record."""
    try:
        with (run.run_dir / "metrics.jsonl").open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - _TAIL_BYTES))
            return int((_STEP.findall(file.read()) or [0])[-1])
    except OSError:
        return 0
