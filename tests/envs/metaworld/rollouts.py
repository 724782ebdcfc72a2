"""What a task does after a reset, in numbers. As a program: what it does after the resets of the cache.

Free of torch, as everything that runs in a worker.
"""

import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np

from mtrl.envs.metaworld.goals import goal_vectors
from mtrl.envs.metaworld.reset_cache import ResetCache
from mtrl.envs.metaworld.sawyer import SawyerEnv
from mtrl.envs.metaworld.tasks import MT50
from mtrl.envs.worker_process import Transition

GOALS = goal_vectors("mt50", MT50, 0)

GOAL = 3

NUM_STEPS = 60


class Given:
    """An environment that is reset and asked for its state, nothing else."""

    def __init__(self, state: dict[str, Any] | None) -> None:
        self.state, self.resets = state, []

    def reset(self, goal: int) -> np.ndarray:
        """Count the reset."""
        self.resets.append(goal)
        return np.zeros(1, np.float32)

    def step(self, action: np.ndarray) -> Transition:
        raise NotImplementedError

    def get_state(self) -> dict[str, Any]:
        """Return the state it was given."""
        assert self.state is not None, f"goals {self.resets} are simulated again"
        return self.state

    def set_state(self, state: dict[str, Any]) -> None:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError


def rollout(env: Any, obs: np.ndarray, simulation: Any) -> dict[str, np.ndarray]:
    """Step with random actions an environment that has just shown its first observation."""
    generator = np.random.default_rng(0)
    rows = [(obs, 0.0, False, simulation.qpos.copy(), simulation.qvel.copy())]
    for _ in range(NUM_STEPS):
        found = env.step(generator.uniform(-1, 1, 4).astype(np.float32))
        rows.append((found.obs, found.reward, found.success, simulation.qpos.copy(), simulation.qvel.copy()))
    names = ("obs", "reward", "success", "qpos", "qvel")
    return {name: np.array(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)}


def main() -> None:
    """Write a rollout per task into a folder; `cold` may simulate resets, `warm` may not."""
    temperature, folder, *names = sys.argv[1:]
    for name in names:
        env = SawyerEnv(name, GOALS[name])
        source = SawyerEnv(name, GOALS[name]) if temperature == "cold" else Given(None)
        env.set_state(ResetCache(name, GOALS[name]).state(GOAL, source))
        Path(folder, name).write_bytes(pickle.dumps(rollout(env, env.last_obs, env.env.data)))
    sys.exit("torch" in sys.modules)


if __name__ == "__main__":
    main()
