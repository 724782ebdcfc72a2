"""Small environments for the mechanics of workers. Their data identifies itself.

Free of torch, as everything that runs in a worker.
"""

import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mtrl.envs.worker_process import Batch, RenderingError, SingleEnv, Transition

EPISODE_STEPS = 3
NUM_GOALS = 1000


class CountingEnv:
    """Observes (task, env, goal, step); the reward is 100 * task + step. Episodes are cut after three steps.

    An action below -0.5 terminates, an action above 0.5 is an unstable simulation.
    """

    def __init__(self, task: int, env: int) -> None:
        self.task, self.env, self.goal, self.time = task, env, -1, 0

    def reset(self, goal: int) -> np.ndarray:
        self.goal, self.time = goal, 0
        return self._obs()

    def step(self, action: np.ndarray) -> Transition:
        self.time += 1
        return Transition(
            obs=self._obs(),
            reward=100.0 * self.task + self.time,
            terminated=bool(action[0] < -0.5),
            truncated=self.time == EPISODE_STEPS,
            success=self.time == 2,
            valid=not action[0] > 0.5,
            info={} if action[0] > 0.5 else self._info(),
        )

    def get_state(self) -> dict[str, Any]:
        return {"goal": self.goal, "time": np.array([self.time])}

    def set_state(self, state: dict[str, Any]) -> None:
        self.goal, self.time = state["goal"], int(state["time"][0])

    def render(self, camera: str, width: int, height: int) -> np.ndarray:
        """Every pixel is (task, env, 100 from behind or 0 from the front, plus the step)."""
        return np.full((height, width, 3), (self.task, self.env, 100 * (camera == "behind") + self.time), np.uint8)

    def close(self) -> None:
        pass

    def _info(self) -> dict[str, float]:
        return {
            "hundredfold": 100.0 * self.task + self.time,
            "third": self.time / 3,
            "success": float(self.time == 2),
        }

    def _obs(self) -> np.ndarray:
        return np.array([self.task, self.env, self.goal, self.time], np.float32)


class MisbehavingEnv(CountingEnv):
    """Does something bad at its second step, in task 1, environment 0 only."""

    def __init__(self, task: int, env: int, misbehave: Callable[[], object]) -> None:
        super().__init__(task, env)
        self.misbehave = misbehave

    def step(self, action: np.ndarray) -> Transition:
        if (self.task, self.env, self.time) == (1, 0, 1):
            self.misbehave()
        return super().step(action)


class SlowlyRestoredEnv(CountingEnv):
    """Is never done with restoring its state."""

    def set_state(self, state: dict[str, Any]) -> None:
        time.sleep(3600)


class StubbornEnv(CountingEnv):
    """Raises in the method of that name, always: in task 1, environment 0, or everywhere in steps whose action is 1."""

    def __init__(self, task: int, env: int, method: str) -> None:
        super().__init__(task, env)
        self.method = method if method == "step" or (task, env) == (1, 0) else ""

    def reset(self, goal: int) -> np.ndarray:
        if self.method == "reset":
            _divide_by_zero()
        return super().reset(goal)

    def step(self, action: np.ndarray) -> Transition:
        if self.method == "step" and action[0] == 1:
            _divide_by_zero()
        return super().step(action)

    def get_state(self) -> dict[str, Any]:
        if self.method == "get_state":
            _divide_by_zero()
        return super().get_state()


class SlowEnv(CountingEnv):
    """Takes 0.1 s for a step in task 1, as long as it runs."""

    def step(self, action: np.ndarray) -> Transition:
        if self.task == 1:
            start = time.process_time()
            while time.process_time() < start + 0.1:
                pass
        return super().step(action)


class ServedEnv(CountingEnv):
    """Steps of all environments change nothing; like compiled code, it answers and waits for the next order itself."""

    @staticmethod
    def batch(envs: Mapping[int, Any], rows: np.ndarray, progress: np.ndarray, worker: int) -> Batch:
        def serve(descriptor: int, order: bytes, answer: bytes) -> bytes | None:
            received = order
            while received == order:
                os.write(descriptor, answer)
                received = os.read(descriptor, 4096)
            return received

        return Batch(lambda: False, serve)


class InspectingEnv(CountingEnv):
    """Its observation tells whether torch is imported, the thread setting and the process id."""

    def _obs(self) -> np.ndarray:
        return np.array(["torch" in sys.modules, int(os.environ["OMP_NUM_THREADS"]), os.getpid(), 0], np.float32)


class UnseenEnv(CountingEnv):
    """Task 1 cannot be rendered on this machine."""

    def render(self, camera: str, width: int, height: int) -> np.ndarray:
        if self.task == 1:
            raise RenderingError("no light")
        return super().render(camera, width, height)


def counting(task: int, env: int) -> SingleEnv:
    return CountingEnv(task, env)


def inspecting(task: int, env: int) -> SingleEnv:
    return InspectingEnv(task, env)


def unseen(task: int, env: int) -> SingleEnv:
    return UnseenEnv(task, env)


def raising(task: int, env: int) -> SingleEnv:
    return MisbehavingEnv(task, env, _divide_by_zero)


def hanging(task: int, env: int) -> SingleEnv:
    return MisbehavingEnv(task, env, lambda: time.sleep(3600))


def slowly_restored(task: int, env: int) -> SingleEnv:
    return SlowlyRestoredEnv(task, env)


def slowly_built(task: int, env: int) -> SingleEnv:
    time.sleep(2)
    return CountingEnv(task, env)


def never_built(task: int, env: int) -> SingleEnv:
    if (task, env) == (1, 0):
        time.sleep(3600)
    return CountingEnv(task, env)


def served(task: int, env: int) -> SingleEnv:
    return ServedEnv(task, env)


def slow(task: int, env: int) -> SingleEnv:
    return SlowEnv(task, env)


def exiting(task: int, env: int) -> SingleEnv:
    return MisbehavingEnv(task, env, lambda: os._exit(7))


def raising_at_construction(task: int, env: int) -> SingleEnv:
    if (task, env) == (1, 1):
        _divide_by_zero()
    return CountingEnv(task, env)


def raising_at_reset(task: int, env: int) -> SingleEnv:
    return StubbornEnv(task, env, "reset")


def raising_at_actions(task: int, env: int) -> SingleEnv:
    return StubbornEnv(task, env, "step")


def raising_at_get_state(task: int, env: int) -> SingleEnv:
    return StubbornEnv(task, env, "get_state")


def _divide_by_zero() -> float:
    return 1 / 0
