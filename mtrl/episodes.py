"""What the episodes of the exploring policy came to."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from mtrl.interfaces import Step


class EpisodeStatistics:
    """Success and return of the exploring policy's episodes, per task, since the last record."""

    def __init__(self, num_tasks: int, envs_per_task: int) -> None:
        self._return = np.zeros((num_tasks, envs_per_task))
        self._success = np.zeros((num_tasks, envs_per_task), dtype=bool)
        self._finished = np.zeros((3, num_tasks))  # episodes, successes, sum of returns

    def add(self, step: Step) -> None:
        """Take in one vector step."""
        self._return += np.where(step.valid, step.reward, 0)
        self._success |= step.success
        ended = step.terminated | step.truncated
        self._finished += [ended.sum(1), (ended & self._success).sum(1), (ended * self._return).sum(1)]
        self._return[ended] = 0
        self._success[ended] = False

    def pop(self) -> dict[str, np.ndarray]:
        """Return success rate and mean return per task (NaN where no episode ended) and start anew."""
        episodes, successes, returns = self._finished
        count = np.where(episodes > 0, episodes, math.nan)
        self._finished = np.zeros_like(self._finished)
        return {"train_success": successes / count, "train_return": returns / count}

    def state_dict(self) -> dict[str, Any]:
        """Return everything."""
        return {"return": self._return, "success": self._success, "finished": self._finished}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore `state_dict`'s result."""
        self._return, self._success, self._finished = state["return"], state["success"], state["finished"]
