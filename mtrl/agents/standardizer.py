"""Observations as the networks see them: every feature shifted and scaled by what the first batch says of it."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mtrl.agents.component import check_state, copy_into


class Standardizer:
    """Subtracts every feature's mean and divides by its deviation, both over all tasks of the first batch.

    Fixed from then on: running statistics would change the meaning of what has been learned. Tasks share them, so that
    networks can compare observations of different tasks.
    """

    def __init__(self, obs_dim: int, min_std: float | None, device: torch.device) -> None:
        """Start as the identity.

        Args:
            obs_dim: Number of features.
            min_std: Least deviation to divide by, in the observations' units; None stays the identity.
            device: Of the observations.
        """
        self._min_std = min_std
        self._statistics = {"mean": torch.zeros(obs_dim, device=device), "std": torch.ones(obs_dim, device=device)}
        self._is_fitted = min_std is None

    def fit_once(self, obs: Float[Tensor, "task batch obs"]) -> None:
        """Take the statistics of these observations, unless there were some before."""
        if self._is_fitted:
            return
        self._is_fitted = True
        std, mean = torch.std_mean(obs.flatten(0, 1), dim=0, correction=0)
        std = std.clamp(min=self._min_std)
        is_finite = std.isfinite() & mean.isfinite()
        found = {"mean": torch.where(is_finite, mean, 0.0), "std": torch.where(is_finite, std, 1.0)}
        copy_into(self._statistics, found)

    def __call__(self, obs: Float[Tensor, "*batch obs"]) -> Float[Tensor, "*batch obs"]:
        """Return the observations as the networks see them."""
        return (obs - self._statistics["mean"]) / self._statistics["std"]

    def state_dict(self) -> dict[str, Any]:
        """Return the statistics and whether they were taken."""
        return {**self._statistics, "is_fitted": self._is_fitted}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict`'s result.

        Raises:
            ValueError: It is of other observations.
        """
        check_state(self.state_dict(), state, "standardizer")
        copy_into(self._statistics, state)
        self._is_fitted = state["is_fitted"]
