"""A stopwatch with named sections, and the speeds and shares that follow from it."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext


def unmarked(section: str) -> AbstractContextManager[object]:
    """Leave the section as it is."""
    del section
    return nullcontext()


class Stopwatch:
    """Adds up the time spent in named sections.

    Sections may nest; the time of an inner one does not count for the outer one, so the sections add up to the whole.
    It reads the host's clock: on a GPU, work is only enqueued inside a section and is paid for at the next
    synchronisation.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.mark: Callable[[str], AbstractContextManager[object]] = unmarked
        """Entered with every section, by its name; a profiler's ranges, for example."""
        self._inner = [0.0]  # per open section, the time its inner sections took

    @contextmanager
    def __call__(self, section: str) -> Iterator[None]:
        """Count the body of the `with` statement under `section`."""
        start = time.perf_counter()
        self._inner.append(0.0)
        try:
            with self.mark(section):
                yield
        finally:
            elapsed = time.perf_counter() - start
            own = elapsed - self._inner.pop()
            self._inner[-1] += elapsed
            self.seconds[section] = self.seconds.get(section, 0.0) + own

    def budget(self, before: Mapping[str, float] | None = None) -> str:
        """Return what the time went into, largest first; with earlier `seconds`, the time since then."""
        spent = {name: seconds - (before or {}).get(name, 0.0) for name, seconds in self.seconds.items()}
        total = sum(spent.values())
        shares = sorted(spent.items(), key=lambda item: -item[1])
        return "time: " + ", ".join(f"{name} {100 * seconds / total:.1f}%" for name, seconds in shares if seconds > 0)


class Rates:
    """Speeds and time shares since the last record."""

    def __init__(self, steps: int, updates: int) -> None:
        self._seconds: dict[str, float] = {}
        self._counts = (steps, updates)

    def since_last(self, steps: int, updates: int, stopwatch: Stopwatch) -> dict[str, float]:
        """Return environment steps and updates per second and each section's share of the time; NaN without any."""
        spent = {name: seconds - self._seconds.get(name, 0.0) for name, seconds in stopwatch.seconds.items()}
        total = sum(spent.values()) or math.nan
        last_steps, last_updates = self._counts
        self._seconds, self._counts = dict(stopwatch.seconds), (steps, updates)
        return {
            "speed/env_steps_per_second": (steps - last_steps) / total,
            "speed/updates_per_second": (updates - last_updates) / total,
            **{f"time_share/{name}": seconds / total for name, seconds in spent.items()},
        }
