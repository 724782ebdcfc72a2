"""Environments that fail at random, in the same way for the same seed.

Free of torch, as everything that runs in a worker.
"""

import os
import signal
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from mtrl.envs.worker_process import EnvFactory, SingleEnv, Transition


@dataclass(frozen=True, kw_only=True)
class FaultyFactory:
    """Builds environments that fail with these chances per step; picklable."""

    make_env: EnvFactory
    seed: int
    p_crash: float = 0.0
    """The process is killed."""
    p_hang: float = 0.0
    """The step does not return."""
    p_nan: float = 0.0
    """The simulation breaks down: numbers that are none, in a step that is not valid."""

    def __call__(self, task: int, env: int) -> SingleEnv:
        return FaultyEnv(self.make_env(task, env), (task, env), self)


class FaultyEnv:
    """An environment that fails where its seed says so.

    Whether a step fails depends on seed, task, environment, goal and time in the episode alone: not on the process. So
    an episode that is begun again with the same goal fails again, and one with the next goal fails elsewhere.
    """

    def __init__(self, env: SingleEnv, place: tuple[int, int], how: FaultyFactory) -> None:
        self.env, self.place, self.how, self.goal, self.time = env, place, how, -1, 0

    def reset(self, goal: int) -> np.ndarray:
        self.goal, self.time = goal, 0
        return self.env.reset(goal)

    def step(self, action: np.ndarray) -> Transition:
        self.time += 1
        crash, hang, nan = np.random.default_rng([self.how.seed, *self.place, self.goal, self.time]).random(3)
        if crash < self.how.p_crash:
            os.kill(os.getpid(), signal.SIGKILL)
        if hang < self.how.p_hang:
            time.sleep(3600)
        transition = self.env.step(action)
        if nan < self.how.p_nan:
            return transition._replace(obs=np.full_like(transition.obs, np.nan), reward=float("nan"), valid=False)
        return transition

    def get_state(self) -> dict[str, Any]:
        return {"goal": self.goal, "time": self.time, "env": self.env.get_state()}

    def set_state(self, state: dict[str, Any]) -> None:
        self.goal, self.time = state["goal"], state["time"]
        self.env.set_state(state["env"])

    def close(self) -> None:
        self.env.close()
