"""A stopwatch with named sections, for the time budget of a run."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stopwatch:
    """Adds up the time spent in named sections.

    Sections may nest; the time of an inner one does not count for the outer one, so the sections add up to the whole.
    It reads the host's clock: on a GPU, work is only enqueued inside a section and is paid for at the next
    synchronisation.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._inner = [0.0]  # per open section, the time its inner sections took

    @contextmanager
    def __call__(self, section: str) -> Iterator[None]:
        """Count the body of the `with` statement under `section`."""
        start = time.perf_counter()
        self._inner.append(0.0)
        try:
            yield
        finally:
            elapsed = time.perf_counter() - start
            own = elapsed - self._inner.pop()
            self._inner[-1] += elapsed
            self.seconds[section] = self.seconds.get(section, 0.0) + own
