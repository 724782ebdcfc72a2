"""What the episodes of the exploring policy came to."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from mtrl.interfaces import Step


class EpisodeStatistics:
    """Success and return of the exploring policy's episodes, per task, since the last record.

    An episode that broke off (its last step is not `valid`) counts as none, even if it was solved before: to count only
    the solved ones would flatter the policy.
    """

    def __init__(self, num_tasks: int, envs_per_task: int) -> None:
        self._return = np.zeros((num_tasks, envs_per_task))
        self._success = np.zeros((num_tasks, envs_per_task), dtype=bool)
        self._finished = np.zeros((3, num_tasks))  # episodes, successes, sum of returns
        self._invalid_steps = np.zeros(num_tasks)

    def add(self, step: Step) -> None:
        """Take in one vector step."""
        reward = np.where(step.valid, step.reward, 0)
        self._return += reward
        self._success |= step.success
        self._invalid_steps += (~step.valid).sum(1)
        ended = step.terminated | step.truncated
        whole = ended & step.valid
        self._finished += [whole.sum(1), (whole & self._success).sum(1), (whole * self._return).sum(1)]
        self._return[ended] = 0
        self._success[ended] = False

    def break_off(self) -> None:
        """Forget the episodes under way: new ones begin."""
        self._return[:] = 0
        self._success[:] = False

    def pop(self) -> dict[str, np.ndarray]:
        """Return success rate and mean return per task (NaN where no episode ended) and start anew.

        With them come the steps so far that were no transitions: those of an unstable simulation or a lost worker.
        """
        episodes, successes, returns = self._finished
        count = np.where(episodes > 0, episodes, math.nan)
        self._finished = np.zeros_like(self._finished)
        rates = {"train_success": successes / count, "train_return": returns / count}
        return rates | {"invalid_steps": self._invalid_steps.copy()}

    def state_dict(self) -> dict[str, Any]:
        """Return everything."""
        return {
            "return": self._return,
            "success": self._success,
            "finished": self._finished,
            "invalid_steps": self._invalid_steps,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore `state_dict`'s result."""
        self._return, self._success, self._finished = state["return"], state["success"], state["finished"]
        self._invalid_steps = state["invalid_steps"]
