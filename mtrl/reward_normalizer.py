"""Rewards divided by a running estimate of their deviation, as in published numbers on the first Meta-World."""

from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from mtrl.interfaces import EnvSpec

RATE = 0.001
"""Weight of a new reward in the moving averages."""

EPS = 1e-8


class RewardNormalizer:
    """Divides every environment's rewards by the root of a moving average of their squared distance from the mean.

    The mean itself is not subtracted. A reward counts in the estimate that it is divided by.

    Source: `NormalizedEnv` of garage, which mtenv puts around every environment of Meta-World:
    m <- (1 - a) m + a r, v <- (1 - a) v + a (r - m)^2, r / (sqrt(v) + 1e-8), from m = 0 and v = 1 on.
    """

    def __init__(self, spec: EnvSpec) -> None:
        """Start with mean 0 and variance 1."""
        shape = (spec.num_tasks, spec.envs_per_task)
        self._mean, self._variance = np.zeros(shape), np.ones(shape)

    def __call__(
        self, reward: Float[np.ndarray, "task env"], valid: Bool[np.ndarray, "task env"]
    ) -> Float[np.ndarray, "task env"]:
        """Return the rewards normalised; those that are not valid change no estimate."""
        mean = (1 - RATE) * self._mean + RATE * reward
        variance = (1 - RATE) * self._variance + RATE * np.square(reward - mean)
        self._mean, self._variance = np.where(valid, mean, self._mean), np.where(valid, variance, self._variance)
        return reward / (np.sqrt(self._variance) + EPS)

    def state_dict(self) -> dict[str, Any]:
        """Return the estimates."""
        return {"mean": self._mean.copy(), "variance": self._variance.copy()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict`'s result.

        Raises:
            ValueError: It is of other environments.
        """
        if state["mean"].shape != self._mean.shape:
            raise ValueError(f"rewards of {state['mean'].shape} (task, env) do not fit {self._mean.shape}")
        self._mean, self._variance = state["mean"].copy(), state["variance"].copy()
