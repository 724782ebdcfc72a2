"""One Gymnasium environment as a `SingleEnv`. Runs in a worker process.

The environment is never copied or pickled: what it was and did since its reset, a seed and the actions, is its state.
"""

from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.spaces import Box
from gymnasium.spaces.utils import flatten
from jaxtyping import Float

from mtrl.envs.gymnasium_tasks import find
from mtrl.envs.worker_process import Transition

SUCCESS_KEYS = ("success", "is_success")
"""Where environments put into `info` whether the task is solved: Meta-World's word, then that of Gymnasium-Robotics."""


@dataclass(frozen=True, kw_only=True)
class GymnasiumTask:
    """What a worker is told of a task."""

    name: str
    source: str | EnvSpec
    """What to build: an id whose module must be imported first, or what was registered under an id."""
    max_episode_steps: int
    seeds: tuple[int, ...]
    """Of the reset to each goal."""


@dataclass(frozen=True, kw_only=True)
class GymnasiumFactory:
    """Builds environments by task index; picklable."""

    tasks: tuple[GymnasiumTask, ...]
    obs_dim: int
    """Of the longest observation."""

    def __call__(self, task: int, env: int) -> "GymnasiumEnv":
        """Build one environment; the copies of a task differ only in the goals they are given."""
        return GymnasiumEnv(self.tasks[task], self.obs_dim)


class GymnasiumEnv:
    """One copy of one task: what `gymnasium.make` returns, behind flat observations and actions in [-1, 1]."""

    def __init__(self, task: GymnasiumTask, obs_dim: int) -> None:
        """Build the environment.

        Args:
            task: Its spaces were found to fit.
            obs_dim: Length of the observations; shorter ones end with zeros.
        """
        self._task = task
        self._obs_dim = obs_dim
        spec = find(task.source) if isinstance(task.source, str) else task.source
        self.env = gymnasium.make(spec, max_episode_steps=task.max_episode_steps)
        space = self.env.action_space
        assert isinstance(space, Box)
        self._action_space = space
        self._action_dim = space.low.size
        self._low, self._high = (bound.astype(np.float64).reshape(-1) for bound in (space.low, space.high))
        self._goal = -1
        self._seed = -1
        self._actions: list[Float[np.ndarray, " action"]] = []
        """Since the reset, as the policy chose them."""
        self._last_obs = np.zeros(obs_dim, np.float32)

    def reset(self, goal: int) -> Float[np.ndarray, " obs"]:
        """Start an episode with the seed of that goal."""
        self._goal = goal
        return self._reset(self._task.seeds[goal])

    def step(self, action: Float[np.ndarray, " action"]) -> Transition:
        """Advance by one action. Numbers that are not finite are passed on: they stop the run, which names them."""
        action = np.array(action[: self._action_dim])
        obs, reward, terminated, truncated, info = self.env.step(self._scaled(action))
        self._actions.append(action)
        self._last_obs = self._flat(obs)
        solved = next((info[key] for key in SUCCESS_KEYS if key in info), False)
        return Transition(self._last_obs, float(reward), bool(terminated), bool(truncated), bool(solved))

    def get_state(self) -> dict[str, Any]:
        """Return the seed of the last reset, the actions since, and what they led to."""
        return {
            "goal": self._goal,
            "seed": self._seed,
            "actions": np.array(self._actions, np.float32).reshape(len(self._actions), self._action_dim),
            "last_obs": self._last_obs.copy(),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Reset with the seed and repeat the actions.

        Raises:
            RuntimeError: The last observation is another than it was, in whatever bit.
        """
        self._goal = int(state["goal"])
        self._reset(int(state["seed"]))
        for action in state["actions"]:
            self.step(action)
        expected = np.asarray(state["last_obs"])
        if self._last_obs.tobytes() != expected.tobytes():
            raise RuntimeError(
                f"{self._task.name!r} is not deterministic given its seed: after reset(seed={self._seed}) and "
                f"{len(self._actions):,} actions it observed {expected} when its state was taken, and now "
                f"{self._last_obs}; such an environment cannot be continued in the middle of an episode"
            )

    def close(self) -> None:
        """Close the environment."""
        self.env.close()

    def _reset(self, seed: int) -> Float[np.ndarray, " obs"]:
        obs, _ = self.env.reset(seed=seed)
        self._seed = seed
        self._actions = []
        self._last_obs = self._flat(obs)
        return self._last_obs

    def _scaled(self, action: Float[np.ndarray, " action"]) -> Float[np.ndarray, "..."]:
        """Map [-1, 1] to the bounds; bounds of -1 and 1 leave every bit as it is."""
        centre = self._low / 2 + self._high / 2
        half_width = self._high / 2 - self._low / 2
        scaled = np.clip(centre + half_width * action, self._low, self._high)
        return scaled.astype(self._action_space.dtype).reshape(self._action_space.shape)

    def _flat(self, obs: Any) -> Float[np.ndarray, " obs"]:
        flat = np.asarray(flatten(self.env.observation_space, obs))
        padded = np.zeros(self._obs_dim, np.float32)
        padded[: len(flat)] = flat
        return padded
