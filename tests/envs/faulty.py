"""A suite whose environments fail in the way its name tells. Free of torch, as everything that runs in a worker.

Environment 1 of task `east` fails in the run itself; environment 2, of which a run has none, in its evaluations.
"""

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mtrl.envs.worker_process import SingleEnv, Transition
from tests.envs.fakes import CountingEnv

if TYPE_CHECKING:
    from mtrl.envs.workers import WorkerVectorEnv

TIMEOUT = 2.0
"""Seconds until a step counts as hung."""

FAILING_STEP = 25
"""Of the environment's life, 5 of the run: the 20 before it measure what the run will cost."""

FIRST_RESET = 8
"""That of the run: one before the 20 measured steps, one after every third of them, and this."""


def _raise(transition: Transition) -> Transition:
    raise ValueError(f"the {transition.reward:g} broke\nin two lines")


def _hang(transition: Transition) -> Transition:
    time.sleep(3600)
    return transition


def _kill(transition: Transition) -> Transition:
    os.kill(os.getpid(), signal.SIGKILL)
    return transition


def _nan_obs(transition: Transition) -> Transition:
    return transition._replace(obs=np.array([1, 2, np.nan, np.nan], np.float32))


STEP_FAULTS: dict[str, Callable[[Transition], Transition]] = {
    "raising": _raise,
    "hanging": _hang,
    "killed": _kill,
    "nan_obs": _nan_obs,
    "nan_reward": lambda transition: transition._replace(reward=float("nan")),
    "infinite_reward": lambda transition: transition._replace(reward=1e39),  # finite, but not as float32
    "unstable": lambda transition: _nan_obs(transition)._replace(reward=float("nan"), valid=False),
}


@dataclass(frozen=True, kw_only=True)
class FailingFactory:
    """Builds the environments; picklable."""

    fault: str
    env: int
    at_step: int
    at_reset: int

    def __call__(self, task: int, env: int) -> SingleEnv:
        return FailingEnv(task, env, self)


class FailingEnv(CountingEnv):
    """Behaves until its time has come."""

    def __init__(self, task: int, env: int, how: FailingFactory) -> None:
        super().__init__(task, env)
        self.at_step, self.at_reset = how.at_step, how.at_reset
        self.fault = how.fault if (task, env) == (1, how.env) else ""
        self.num_steps = self.num_resets = 0
        if self.fault == "raising_at_construction":
            raise ValueError("no room")

    def reset(self, goal: int) -> np.ndarray:
        self.num_resets += 1
        obs = super().reset(goal)
        if self.num_resets == self.at_reset and self.fault == "raising_at_reset":
            raise ValueError("stuck")
        if self.num_resets == self.at_reset and self.fault == "nan_at_reset":
            obs[2] = np.nan
        return obs

    def step(self, action: np.ndarray) -> Transition:
        self.num_steps += 1
        transition = super().step(np.zeros_like(action))  # whose size would mean something to `CountingEnv`
        if self.num_steps == self.at_step and self.fault in STEP_FAULTS:
            return STEP_FAULTS[self.fault](transition)
        return transition


def make(
    name: str,
    tasks: tuple[str, ...] | None,
    *,
    whole: tuple[str, ...],
    seed: int,
    goal_seed: int,
    envs_per_task: int,
    workers: int | None,
    engine: str,
    info: bool,
) -> "WorkerVectorEnv":
    """Build the suite `faulty_FAULT`, failing for good in the run, `faulty_FAULT_in_evaluation` or `faulty_FAULT_once`.

    In the last one the worker is replaced, and what comes instead does not live long enough to fail.
    """
    from mtrl.envs.workers import WorkerVectorEnv
    from tests.envs.harness import make_spec

    del whole, goal_seed, engine, info
    fault = name.removeprefix("faulty_")
    in_evaluation, once = fault.endswith("_in_evaluation"), fault.endswith("_once")
    factory = FailingFactory(
        fault=fault.removesuffix("_in_evaluation").removesuffix("_once"),
        env=2 if in_evaluation else 1,
        at_step=2 if in_evaluation else FAILING_STEP,
        at_reset=1 if in_evaluation else FIRST_RESET,
    )
    spec = make_spec(tasks or make_spec().task_names, envs_per_task)
    return WorkerVectorEnv(spec, factory, seed=seed, workers=workers, timeout=TIMEOUT, max_restarts=1 if once else 0)
