"""Where a run writes its numbers: metrics.jsonl, TensorBoard, and what a person sees."""

import contextlib
import io
import json
import logging
import math
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from tensorboard.compat.proto.event_pb2 import Event, SessionLog  # pyright: ignore - its classes are made at run time
from tensorboard.compat.proto.summary_pb2 import Summary  # pyright: ignore - the same
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard.summary import image

from mtrl.append_file import AppendFile

Values = Mapping[str, float | np.ndarray]
"""Numbers by name: a scalar, one per task, or one per pair of tasks."""

COMPLAINT_SECONDS = 60.0
"""Between two warnings that something cannot be written."""

_IMAGE_PIXELS = 256


METRICS_FILE = "metrics.jsonl"
EVENT_FILES = "events.out.tfevents."
"""What the names of TensorBoard's files begin with; they are read in the order of the seconds that follow."""

Report = Callable[[OSError], None]


class JsonLines:
    """Appends one JSON object per record to a file."""

    def __init__(self, folder: Path, task_names: Sequence[str], sizes: Mapping[str, int], report: Report) -> None:
        """Open the file; what a run that got further wrote after the given size is dropped."""
        self._file = AppendFile(folder / METRICS_FILE, sizes.get(METRICS_FILE, 0), report)
        self._task_names = task_names

    def write(self, kind: str, step: int, values: Values) -> None:
        """Append one record: kind, step, wall-clock time, then the values, per task under NAME/TASK."""
        record: dict[str, object] = {"kind": kind, "step": step, "time": round(time.time(), 3)}
        for name, value in flatten(values, self._task_names).items():
            record[name] = _plain(value)
        self._file.append((json.dumps(record) + "\n").encode())

    def flush(self) -> dict[str, int]:
        """Return the size of the file when all records are on the disk.

        Raises:
            OSError: They do not fit or cannot be written.
        """
        return {METRICS_FILE: self._file.flush()}

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class TensorBoard:
    """Writes scalars, one curve per task, and matrices as heat maps.

    Not by torch's SummaryWriter: it writes in another thread, and cannot go on after the disk was full.
    """

    def __init__(
        self, folder: Path, task_names: Sequence[str], sizes: Mapping[str, int], first_step: int, report: Report
    ) -> None:
        """Begin a new file; what a run that got further wrote into earlier ones after the given sizes is dropped."""
        self._task_names = task_names
        self._earlier = {}
        second = int(time.time())
        for path in sorted(folder.glob(f"{EVENT_FILES}*")):
            if path.name in sizes:
                AppendFile(path, sizes[path.name], report).close()
                self._earlier[path.name] = sizes[path.name]
                second = max(second, int(path.name.split(".")[3]) + 1)
            else:
                path.unlink()
        self._file = AppendFile(folder / f"{EVENT_FILES}{second:010d}.{platform.node()}.{os.getpid()}", 0, report)
        self._add(Event(file_version="brain.Event:2"))
        if sizes:  # viewers that are open forget what they have seen of the dropped points
            self._add(Event(step=first_step + 1, session_log=SessionLog(status=SessionLog.START)))

    def write(self, kind: str, step: int, values: Values) -> None:
        """Add one point to every curve."""
        del kind
        summary = Summary()
        for name, value in flatten(values, self._task_names).items():
            if isinstance(value, np.ndarray):
                summary.MergeFrom(image(name, heat_map(value, _limit(name, value)), dataformats="HWC"))
            else:
                summary.value.add(tag=name, simple_value=value)
        self._add(Event(step=step, summary=summary))

    def flush(self) -> dict[str, int]:
        """Return the sizes of all files when all points are on the disk.

        Raises:
            OSError: They do not fit or cannot be written.
        """
        return {**self._earlier, self._file.path.name: self._file.flush()}

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _add(self, event: Event) -> None:
        event.wall_time = time.time()
        record = io.BytesIO()
        RecordWriter(record).write(event.SerializeToString())
        self._file.append(record.getvalue())


class Console:
    """Tells a person how the run goes: a status line on a terminal, a line per evaluation in any case."""

    def __init__(self, total_steps: int, task_names: Sequence[str]) -> None:
        self._is_terminal = sys.stdout.isatty()
        self._total_steps = total_steps
        self._task_names = task_names
        self._start: tuple[float, int] | None = None
        self._is_learning = False
        self._last_status = 0.0
        self._success = "no episode yet"
        self._is_evaluated = False

    def status(self, step: int, num_updates: int) -> None:
        """Redraw the status line, at most once a second; nothing where the output is no terminal.

        Speed and time left are those since learning began: the random steps before it are many times faster.
        """
        now = time.monotonic()
        if self._start is None or (num_updates > 0 and not self._is_learning):
            self._start = (now, step)
        self._is_learning = num_updates > 0
        if self._is_terminal and now - self._last_status >= 1:
            self._last_status = now
            phase = "learning" if self._is_learning else "random steps"
            text = f"{self._progress(step)} | {phase} | {self._success}"
            width = shutil.get_terminal_size().columns - 1  # a line that wraps cannot be redrawn
            _emit(f"\r\033[K{text[:width]}")

    def training(self, success: np.ndarray) -> None:
        """Take in the exploring policy's success per task (NaN: no episode); shown until there is an evaluation."""
        if not self._is_evaluated and not np.isnan(success).all():
            self._success = f"training success {np.nanmean(success):.3f}"

    def evaluation(self, step: int, success: np.ndarray, returns: np.ndarray) -> None:
        """Print one line: progress, mean and worst-task success, mean return.

        Args:
            step: Environment steps so far.
            success: Success rate per task.
            returns: Mean return per task.
        """
        self._is_evaluated = True
        worst = int(success.argmin())
        self._success = f"success {success.mean():.3f}, worst {success[worst]:.2f} {self._task_names[worst]}"
        self.line(f"{self._progress(step)} | {self._success} | return {returns.mean():.1f}")

    def line(self, text: str) -> None:
        """Print a line of its own."""
        _emit(f"{self._erase}{text}\n")

    def warn(self, text: str) -> None:
        """Print a line of its own to standard error."""
        _emit(f"{self._erase}{text}\n", to="stderr")

    @property
    def _erase(self) -> str:
        return "\r\033[K" if self._is_terminal else ""

    def _progress(self, step: int) -> str:
        """Return steps, share, speed and time left."""
        start_time, start_step = self._start or (time.monotonic(), step)
        elapsed = time.monotonic() - start_time
        rate = (step - start_step) / elapsed if elapsed > 0 else 0.0
        left = duration((self._total_steps - step) / rate) if rate > 0 and self._is_learning else "?"
        share = 100 * step / self._total_steps
        return f"{step:,}/{self._total_steps:,} steps ({share:.1f}%) | {rate:,.0f} steps/s | {left} left"


class Complaints:
    """Tells a person what cannot be written while the run goes on, at most once a minute."""

    def __init__(self, warn: Callable[[str], None]) -> None:
        self._warn = warn
        self._last = -math.inf
        self._problems: dict[str, str] = {}

    def add(self, problem: OSError) -> None:
        """Tell of a file that cannot be written: at once, or after the minute together with the others."""
        self._problems[str(problem.filename)] = problem.strerror or str(problem)
        now = time.monotonic()
        if now - self._last < COMPLAINT_SECONDS:
            return
        self._last = now
        files = ", ".join(f"{name} ({reason})" for name, reason in self._problems.items())
        self._problems.clear()
        self._warn(f"warning: cannot write {files}; training goes on, and writing is tried again")


class Progress:
    """Tells a person on standard error how many of the episodes have ended, and how long the others will take."""

    def __init__(self, num_episodes: int) -> None:
        self._is_terminal = sys.stderr.isatty()
        self._num_episodes = num_episodes
        self._num_ended = 0
        self._start = time.monotonic()
        self._show()

    def add(self, episodes: int) -> None:
        """Take in how many more have ended; print a line at each tenth, or redraw the line of a terminal."""
        before, self._num_ended = self._num_ended, self._num_ended + episodes
        if self._is_terminal or 10 * self._num_ended // self._num_episodes > 10 * before // self._num_episodes:
            self._show()

    def close(self) -> None:
        """Erase the line of a terminal."""
        if self._is_terminal:
            sys.stderr.write("\r\033[K")

    def _show(self) -> None:
        text = f"{self._num_ended:,}/{self._num_episodes:,} episodes"
        if self._num_ended:
            elapsed = time.monotonic() - self._start
            text += f" | {duration(elapsed / self._num_ended * (self._num_episodes - self._num_ended))} left"
        sys.stderr.write(f"\r\033[K{text}" if self._is_terminal else f"{text}\n")
        sys.stderr.flush()


class _WarningLines(logging.Handler):
    """Prints warnings on standard error, each on lines of its own."""

    def emit(self, record: logging.LogRecord) -> None:
        erase = "\r\033[K" if sys.stderr.isatty() else ""
        with contextlib.suppress(OSError):  # a pipe without a reader, a terminal that was closed
            sys.stderr.write(f"{erase}warning: {record.getMessage()}\n")
            sys.stderr.flush()


_WARNING_LINES = _WarningLines(logging.WARNING)


def show_warnings() -> None:
    """Print what this package warns of, in this process, from now on. Does nothing the second time."""
    logging.getLogger("mtrl").addHandler(_WARNING_LINES)


def say(line: str) -> None:
    """Print a line at once, also where the output is a pipe."""
    _emit(line + "\n")


def _emit(text: str, to: Literal["stdout", "stderr"] = "stdout") -> None:
    """Write at once; where nobody can read it any more, a run goes on in silence."""
    stream = getattr(sys, to)
    with contextlib.suppress(OSError):  # a pipe without a reader, a file on a full disk
        stream.write(text)
        stream.flush()


def duration(seconds: float) -> str:
    """Write a time span in its two largest units."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d {hours}h"
    if hours:
        return f"{hours}h {minutes:02d}m"
    return f"{minutes}m {seconds:02d}s" if minutes else f"{seconds}s"


def flatten(values: Values, task_names: Sequence[str]) -> dict[str, float | np.ndarray]:
    """Give every task's value a name of its own: NAME/TASK. Scalars and matrices keep their name."""
    flat: dict[str, float | np.ndarray] = {}
    for name, value in values.items():
        if isinstance(value, np.ndarray) and value.ndim == 1:
            flat.update({f"{name}/{task}": float(v) for task, v in zip(task_names, value, strict=True)})
        else:
            flat[name] = value if isinstance(value, np.ndarray) and value.ndim == 2 else float(value)
    return flat


def _limit(name: str, matrix: np.ndarray) -> float:
    """Return the value drawn in full colour: 1 for cosines, the largest of matrices that have no fixed range."""
    if name.endswith("cosine"):
        return 1.0
    largest = np.abs(matrix, where=np.isfinite(matrix), out=np.zeros_like(matrix)).max()
    return float(largest) or 1.0


def heat_map(matrix: np.ndarray, limit: float = 1.0) -> np.ndarray:
    """Draw values in [-limit, limit] as an image (height, width, 3): blue is the lowest, white 0, red the highest."""
    clipped = np.nan_to_num(matrix / limit).clip(-1, 1)
    fading = 1 - np.abs(clipped)
    image = np.stack([np.where(clipped < 0, fading, 1), fading, np.where(clipped > 0, fading, 1)], axis=-1)
    scale = max(1, _IMAGE_PIXELS // len(matrix))
    return (255 * image).astype(np.uint8).repeat(scale, axis=0).repeat(scale, axis=1)


def _plain(value: float | np.ndarray) -> object:
    """Return what JSON can hold; numbers that are not finite become null."""
    if isinstance(value, np.ndarray):
        return [_plain(row) for row in value]
    return float(f"{value:.6g}") if np.isfinite(value) else None
