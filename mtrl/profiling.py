"""What a run's time goes into: some updates, and all that happens between them, traced by torch's profiler."""

import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.autograd.profiler import record_function
from torch.profiler import ProfilerActivity, profile

from mtrl.timing import Stopwatch, unmarked

FIRST_UPDATES = 10
"""Updates before the trace begins: memory is handed out, kernels are chosen and caches filled in them."""

ROWS = 10
"""Operations in the table."""

TRACE_FILE = "profile.json"


class UpdateProfile:
    """Traces some updates once, writes the trace and tells what was dear in it.

    The sections of the stopwatch are ranges of the trace, which `chrome://tracing` and ui.perfetto.dev show.
    """

    def __init__(
        self, num_updates: int, device: torch.device, stopwatch: Stopwatch, file: Path, say: Callable[[str], None]
    ) -> None:
        """Trace `num_updates` updates after the first few, to `file`; nothing where the run has that file already."""
        self._left = 0 if file.exists() else FIRST_UPDATES + num_updates
        self._num_updates = num_updates
        self._device, self._stopwatch, self._file, self._say = device, stopwatch, file, say
        self._profile: profile | None = None
        self._began = 0.0
        self._seconds_before: dict[str, float] = {}

    @property
    def is_due(self) -> bool:
        """Return whether the trace has not ended: until then updates are computed step by step."""
        return self._left > 0

    def after_update(self) -> None:
        """Begin or end the trace where it is time to; called after every update, outside all sections."""
        if self._left == 0:
            return
        self._left -= 1
        if self._left == self._num_updates:
            self._begin()
        elif self._left == 0:
            self._end(self._num_updates)

    def close(self) -> None:
        """End the trace with the run, where that comes first."""
        if self._profile is not None:
            self._end(self._num_updates - self._left)
        elif self._left > 0:
            self._say(f"--profile: the run ended before its trace began, after {FIRST_UPDATES} updates")
        self._left = 0

    def _begin(self) -> None:
        activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (self._device.type == "cuda")
        self._profile = profile(activities=activities)
        self._stopwatch.mark = record_function
        self._seconds_before = dict(self._stopwatch.seconds)
        self._profile.start()
        self._began = time.perf_counter()

    def _end(self, num_updates: int) -> None:
        assert self._profile is not None
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        seconds = time.perf_counter() - self._began
        self._profile.stop()
        self._stopwatch.mark = unmarked
        where = self._write(self._profile)
        self._say(
            f"traced {num_updates} updates and what came between: {1e3 * seconds / max(1, num_updates):.1f} ms each"
        )
        for line in self._table(self._profile):
            self._say(line)
        self._say(self._stopwatch.budget(self._seconds_before))
        self._say(where)
        self._profile = None

    def _write(self, found: profile) -> str:
        """Write the trace, whole or not at all; say where it is."""
        partial = self._file.with_name(f".partial-{self._file.name}")
        try:
            found.export_chrome_trace(str(partial))
            partial.replace(self._file)
        except (OSError, RuntimeError) as problem:
            partial.unlink(missing_ok=True)
            return f"the trace could not be written: {problem}"
        return f"trace: {self._file}; open it in chrome://tracing or ui.perfetto.dev"

    def _table(self, found: profile) -> list[str]:
        """Return the dearest operations: their own time, its share of all operations' and how often they ran."""
        is_gpu = self._device.type == "cuda"
        events = [event for event in found.key_averages() if event.key not in self._stopwatch.seconds]
        if is_gpu:  # each kernel once: the operation that launched it has its time as well
            events = [event for event in events if event.device_type.name != "CPU" and not event.is_user_annotation]
        times = [event.self_device_time_total if is_gpu else event.self_cpu_time_total for event in events]
        total = sum(times) or 1.0
        dearest = sorted(zip(times, events, strict=True), key=lambda pair: -pair[0])[:ROWS]
        lines = [f"{'operation':<44}{'ms':>10}{'share':>8}{'calls':>8}"]
        for microseconds, event in dearest:
            share = f"{microseconds / total:.1%}"
            lines.append(f"{event.key[:43]:<44}{microseconds / 1e3:>10.1f}{share:>8}{event.count:>8}")
        return lines
