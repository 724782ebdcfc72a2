"""Values that no reward can justify: critics that diverge, noticed before their numbers overflow."""

import logging
import math
import time
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

_LOGGER = logging.getLogger(__name__)

_SLACK = 2.0
"""How far critics may be off before it is called divergence: they err, and rewards greater than all seen may exist."""

_SECONDS_BETWEEN_WARNINGS = 60.0


class ValueWatch:
    """Warns where a task's mean Q is beyond what its rewards can add up to.

    A soft value is a sum of discounted rewards and entropy bonuses, so |Q| <= max |r + alpha H| / (1 - gamma). Warned
    is beyond twice that, with the greatest reward so far and the greatest bonus in the records of this process.
    """

    def __init__(self, task_names: Sequence[str], gamma: float) -> None:
        """Watch these tasks, whose values are discounted by `gamma`; where that is 1 there is no bound."""
        self._task_names = task_names
        self._horizon = 1 / (1 - gamma) if gamma < 1 else math.inf
        self._bonus = np.zeros(len(task_names))
        self._warned_at = np.full(len(task_names), -math.inf)

    def look(
        self,
        q: Float[np.ndarray, " task"],
        largest_reward: Float[np.ndarray, " task"],
        bonus: Float[np.ndarray, " task"],
        now: float | None = None,
    ) -> None:
        """Warn, in one line and at most once a minute for each task.

        Args:
            q: Mean value of a batch.
            largest_reward: Greatest absolute reward so far.
            bonus: Temperature times entropy.
            now: Seconds on a clock that only goes forward; by default the system's.
        """
        now = time.monotonic() if now is None else now
        self._bonus = np.fmax(self._bonus, np.abs(bonus))
        bound = (largest_reward + self._bonus) * self._horizon
        is_beyond = (np.abs(q) > _SLACK * bound) & (now - self._warned_at >= _SECONDS_BETWEEN_WARNINGS)
        if not is_beyond.any():
            return
        self._warned_at[is_beyond] = now
        tasks = [
            f"{name} {q[task]:.3g} (at most {bound[task]:.3g})"
            for task, name in enumerate(self._task_names)
            if is_beyond[task]
        ]
        _LOGGER.warning(
            "mean Q beyond what rewards and entropy can add up to, the critics diverge: %s", ", ".join(tasks)
        )
