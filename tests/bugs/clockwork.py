"""Environments whose every number tells where it comes from, and which end in every way at known times.

Free of torch, as everything that runs in a worker.
"""

from typing import Any

import numpy as np

from mtrl.envs.worker_process import SingleEnv, Transition

TIME_LIMIT = 4
"""All others are cut here."""
TERMINAL_TIME = 3
"""Task 1 terminates here, before the time limit."""
UNSTABLE_TIME = 2
"""Environment 1 of task 2 breaks down here, which is no transition and begins a new episode."""

MARK, ENV, GOAL, CLOCK, ACTION = range(5)
"""The features of an observation. MARK is 100 * task + time in the episode, CLOCK counts the environment's steps over
all its episodes, ACTION is the one that led here."""


class ClockworkEnv:
    """Observes what `MARK` to `ACTION` say; the reward is the successor's mark + env / 8."""

    def __init__(self, task: int, env: int) -> None:
        self.task, self.env, self.goal, self.time, self.clock, self.action = task, env, -1, 0, 0, 0.0

    def reset(self, goal: int) -> np.ndarray:
        self.goal, self.time, self.action = goal, 0, 0.0
        return self._obs()

    def step(self, action: np.ndarray) -> Transition:
        self.time += 1
        self.clock += 1
        self.action = float(action[0])
        return Transition(
            obs=self._obs(),
            reward=100.0 * self.task + self.time + self.env / 8,
            terminated=self.task == 1 and self.time == TERMINAL_TIME,
            truncated=self.time == TIME_LIMIT,
            success=False,
            valid=not ((self.task, self.env) == (2, 1) and self.time == UNSTABLE_TIME),
        )

    def get_state(self) -> dict[str, Any]:
        return {"goal": self.goal, "time": self.time, "clock": self.clock, "action": self.action}

    def set_state(self, state: dict[str, Any]) -> None:
        self.goal, self.time, self.clock, self.action = (state[name] for name in ("goal", "time", "clock", "action"))

    def close(self) -> None:
        pass

    def _obs(self) -> np.ndarray:
        return np.array([100 * self.task + self.time, self.env, self.goal, self.clock, self.action], np.float32)


class NextStepEnv(ClockworkEnv):
    """Resets itself one step after the end, at the cost of a step that ignores its action (Gymnasium's NEXT_STEP)."""

    waiting_goal: int | None = None

    def reset(self, goal: int) -> np.ndarray:
        if self.goal == -1:
            return super().reset(goal)
        self.waiting_goal = goal
        return self._obs()

    def step(self, action: np.ndarray) -> Transition:
        if self.waiting_goal is None:
            return super().step(action)
        obs = super().reset(self.waiting_goal)
        self.waiting_goal = None
        return Transition(obs, reward=0.0, terminated=False, truncated=False, success=False)


def clockwork(task: int, env: int) -> SingleEnv:
    return ClockworkEnv(task, env)


def next_step(task: int, env: int) -> SingleEnv:
    return NextStepEnv(task, env)


def is_step(task: int, env: int, clock: int) -> bool:
    """Whether the step that begins at this reading of the clock is a real transition."""
    return (task, env) != (2, 1) or clock % UNSTABLE_TIME != UNSTABLE_TIME - 1
