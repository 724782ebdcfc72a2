"""Offer a `VectorEnv` of ours as a Gymnasium vector environment."""

import warnings
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from gymnasium.vector import VectorEnv as GymnasiumVectorEnv
from gymnasium.vector.utils import batch_space
from jaxtyping import Bool, Float

from mtrl.interfaces import VectorEnv


def as_gymnasium(env: VectorEnv) -> "GymnasiumAdapter":
    """Return `env` as a Gymnasium vector environment of task x env flat copies, ordered by task.

    Autoreset is SAME_STEP. Every step's info holds plain arrays: `final_obs` (the true successor in all rows),
    `success`, `task`, `goal` and `valid`, each with its Gymnasium mask (`_success`, ...); `_final_obs` marks the ended
    episodes.
    Goals are chosen by `reset(options={"goal": array of shape (task, env)})`.
    """
    return GymnasiumAdapter(env)


class GymnasiumAdapter(GymnasiumVectorEnv):
    """See `as_gymnasium`."""

    def __init__(self, env: VectorEnv) -> None:
        spec = env.spec
        self._env = env
        self._shape = (spec.num_tasks, spec.envs_per_task)
        self._task = np.repeat(np.arange(spec.num_tasks), spec.envs_per_task)
        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}
        self.num_envs = spec.num_tasks * spec.envs_per_task
        self.single_observation_space = spaces.Box(-np.inf, np.inf, (spec.obs_dim,), np.float32)
        self.single_action_space = spaces.Box(-1.0, 1.0, (spec.action_dim,), np.float32)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Float[np.ndarray, "row obs"], dict[str, Any]]:
        """Start a new episode everywhere. `seed` has no effect: the goal streams are seeded by `make`."""
        if seed is not None:
            warnings.warn("reset(seed=...) has no effect; give the seed to mtrl.envs.make", UserWarning, stacklevel=2)
        obs = self._env.reset((options or {}).get("goal"))
        return obs.reshape(self.num_envs, -1), self._infos(task=self._task)

    def step(
        self, actions: Float[np.ndarray, "row action"]
    ) -> tuple[
        Float[np.ndarray, "row obs"],
        Float[np.ndarray, " row"],
        Bool[np.ndarray, " row"],
        Bool[np.ndarray, " row"],
        dict[str, Any],
    ]:
        """Advance all environments; an ended episode is followed at once by a new one."""
        step = self._env.step(np.asarray(actions, np.float32).reshape(*self._shape, -1))
        terminated, truncated = step.terminated.reshape(-1), step.truncated.reshape(-1)
        infos = self._infos(
            task=self._task,
            success=step.success.reshape(-1),
            goal=step.goal.reshape(-1),
            valid=step.valid.reshape(-1),
            final_obs=step.final_obs.reshape(self.num_envs, -1),
        )
        infos["_final_obs"] = terminated | truncated
        return step.obs.reshape(self.num_envs, -1), step.reward.reshape(-1), terminated, truncated, infos

    def close_extras(self, **kwargs: object) -> None:
        """Close the environment beneath; called by `close`."""
        del kwargs
        self._env.close()

    def _infos(self, **arrays: np.ndarray) -> dict[str, Any]:
        masks = {f"_{name}": np.ones(self.num_envs, np.bool_) for name in arrays}
        return {name: array.copy() for name, array in arrays.items()} | masks
