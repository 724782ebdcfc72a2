"""Point masses that must go separate ways: multi-task suites in pure array code that are learned in under a minute.

Every task starts at the same place and sees the same observation, but its goal lies in a direction of its own, or its
actions have effects of their own, so the best actions of different tasks oppose each other.

    toy          four tasks, one in each direction
    toy_scaled   toy with every task's reward replaced by another strictly increasing function of it: what is optimal
                 to reach stays so, the scales differ by orders of magnitude
    toy_exp      toy with the reward r of one task, reach-west, replaced by exp(5 r)
    toy_power    toy with the reward r of one task, reach-south, replaced by sign(r) r^4
    toy_groups   two families of three tasks, straight and mirrored: the goals lie in the same three directions, but
                 the actions of the second move the other way, so that what one family learns misleads the other
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8

from mtrl.envs.inputs import check_least, check_state, checked_action, checked_goal
from mtrl.envs.toy_tasks import GROUP_TASKS, NUM_GOALS, TASKS
from mtrl.interfaces import EnvSpec, Step
from mtrl.seeding import numpy_generator

DIRECTIONS = {
    "reach-east": (1.0, 0.0),
    "reach-north": (0.0, 1.0),
    "reach-west": (-1.0, 0.0),
    "reach-south": (0.0, -1.0),
    "straight-left": (0.9, 0.4),
    "straight-middle": (1.0, 0.0),
    "straight-right": (0.9, -0.4),
    "mirrored-left": (0.9, 0.4),
    "mirrored-middle": (1.0, 0.0),
    "mirrored-right": (0.9, -0.4),
}
"""Where each task's goals lie, seen from the start."""


def _exponential(reward: np.ndarray) -> np.ndarray:
    return np.exp(5 * reward)


def _power(reward: np.ndarray) -> np.ndarray:
    return np.sign(reward) * reward**4


REWARDS: dict[str, dict[str, Callable[[np.ndarray], np.ndarray]]] = {
    "toy": {},
    "toy_scaled": {"reach-north": lambda r: 100 * r, "reach-west": _exponential, "reach-south": _power},
    "toy_exp": {"reach-west": _exponential},
    "toy_power": {"reach-south": _power},
    "toy_groups": {},
}
"""Strictly increasing transforms of the reward in [-1, 1], by suite and task; other tasks keep theirs."""

MAX_EPISODE_STEPS = 50
GOAL_DISTANCE = 0.7
GOAL_SPREAD = 0.2
SUCCESS_RADIUS = 0.1
MAX_SPEED = 0.1
INERTIA = 0.5


def make(
    name: str,
    tasks: tuple[str, ...] | None,
    *,
    whole: tuple[str, ...] = (),
    seed: int,
    goal_seed: int,
    envs_per_task: int,
    workers: int | None,
    engine: str = "",
    info: bool = False,
) -> "Toy":
    """Build the suite `name` with the given tasks, all by default.

    Raises:
        ValueError: `envs_per_task` or `workers` is below 1.
    """
    check_least(1, envs_per_task=envs_per_task, workers=workers)
    del whole, workers, engine, info  # stepping all copies is one array operation, and a step has no more to tell
    tasks = tasks or (GROUP_TASKS if name == "toy_groups" else TASKS)
    return Toy(tasks, seed=seed, goal_seed=goal_seed, envs_per_task=envs_per_task, rewards=REWARDS[name])


class Toy:
    """All point masses, stepped as one array.

    Observation: position (2), velocity (2), offset of the goal from the task's own direction (2). The direction itself
    is not observed. Action: acceleration (2), its opposite in mirrored tasks. Reward: 1 - distance to the goal, in
    [-1, 1], then the transform. Success: closer than 0.1 to the goal. Episodes are cut after 50 steps and never
    terminate.
    """

    def __init__(
        self,
        tasks: tuple[str, ...],
        *,
        seed: int,
        goal_seed: int,
        envs_per_task: int,
        rewards: dict[str, Callable[[np.ndarray], np.ndarray]] = REWARDS["toy"],
    ) -> None:
        self._spec = EnvSpec(
            task_names=tasks,
            envs_per_task=envs_per_task,
            obs_dim=6,
            action_dim=2,
            max_episode_steps=MAX_EPISODE_STEPS,
            num_goals=NUM_GOALS,
        )
        self._rewards = [rewards.get(task) for task in tasks]
        self._offsets = np.stack(
            [numpy_generator(goal_seed, "toy", t).uniform(-GOAL_SPREAD, GOAL_SPREAD, (NUM_GOALS, 2)) for t in tasks]
        )
        self._signs = np.array([-1.0 if task.startswith("mirrored") else 1.0 for task in tasks])[:, None, None]
        self._directions = np.array([DIRECTIONS[task] for task in tasks])[:, None]
        self._streams = [[numpy_generator(seed, "goal", task, env) for env in range(envs_per_task)] for task in tasks]
        shape = (len(tasks), envs_per_task)
        self._position = np.zeros((*shape, 2))
        self._velocity = np.zeros((*shape, 2))
        self._goal = np.zeros(shape, dtype=np.int64)
        self._time = 0  # episodes have one length, so all end together
        self._action = np.zeros((*shape, 2))

    @property
    def spec(self) -> EnvSpec:
        """Names and sizes."""
        return self._spec

    @property
    def worker_restarts(self) -> int:
        """None: there are no workers."""
        return 0

    def reset(self, goal: Int[np.ndarray, "task env"] | None = None) -> Float[np.ndarray, "task env obs"]:
        """Start a new episode everywhere.

        Raises:
            ValueError: `goal` has another shape than (task, env) or is no index of a goal.
        """
        if goal is None:
            goal = np.array([[stream.integers(NUM_GOALS) for stream in streams] for streams in self._streams])
        self._goal = checked_goal(goal, self._spec).astype(np.int64)
        self._position[:] = 0
        self._velocity[:] = 0
        self._time = 0
        return self._obs()

    def step(self, action: Float[np.ndarray, "task env action"]) -> Step:
        """Advance every point mass by one action.

        Raises:
            ValueError: An action is not finite or the array has the wrong shape.
        """
        self.step_async(action)
        return self.step_wait()

    def step_async(self, action: Float[np.ndarray, "task env action"]) -> None:
        """Take the actions of the next step; there is nobody else to work on it.

        Raises:
            ValueError: An action is not finite or the array has the wrong shape.
        """
        self._action = checked_action(action, self._spec).copy()

    def step_wait(self) -> Step:
        """Do the step."""
        push = np.clip(self._action, -1, 1)
        self._velocity = INERTIA * self._velocity + (1 - INERTIA) * MAX_SPEED * self._signs * push
        self._position = np.clip(self._position + self._velocity, -1, 1)
        self._time += 1
        target = GOAL_DISTANCE * self._directions + self._offset()
        distance = np.linalg.norm(self._position - target, axis=-1)
        final_obs = self._obs()
        goal = self._goal
        shape = distance.shape
        is_cut = self._time == MAX_EPISODE_STEPS
        return Step(
            obs=self.reset() if is_cut else final_obs,
            final_obs=final_obs,
            reward=self._reward(distance),
            terminated=np.zeros(shape, dtype=bool),
            truncated=np.full(shape, is_cut),
            success=distance < SUCCESS_RADIUS,
            goal=goal,
            valid=np.ones(shape, dtype=bool),
            info=np.zeros((*shape, 0)),
        )

    def get_state(self) -> dict[str, Any]:
        """Return everything that determines the future."""
        return {
            "task_names": list(self._spec.task_names),
            "envs_per_task": self._spec.envs_per_task,
            "position": self._position.copy(),
            "velocity": self._velocity.copy(),
            "goal": self._goal.copy(),
            "time": self._time,
            "streams": [[stream.bit_generator.state for stream in streams] for streams in self._streams],
        }

    def set_state(self, state: dict[str, Any]) -> Float[np.ndarray, "task env obs"]:
        """Restore what `get_state` returned.

        Raises:
            ValueError: The state belongs to other tasks or another number of environments.
        """
        check_state(state, self._spec)
        self._position = state["position"].copy()
        self._velocity = state["velocity"].copy()
        self._goal = state["goal"].copy()
        self._time = state["time"]
        for streams, states in zip(self._streams, state["streams"], strict=True):
            for stream, stream_state in zip(streams, states, strict=True):
                stream.bit_generator.state = stream_state
        return self._obs()

    def render(
        self,
        camera: str | None = None,
        *,
        width: int = 480,
        height: int = 480,
        tasks: Sequence[str] | None = None,
        envs: Sequence[int] | None = None,
    ) -> UInt8[np.ndarray, "task env height width 3"]:
        """Raise: there are no pictures of point masses.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError("there is nothing to see in the toy suites: no cameras")

    def close(self) -> None:
        """Nothing to free."""

    def _offset(self) -> Float[np.ndarray, "task env 2"]:
        return np.take_along_axis(self._offsets, self._goal[..., None], axis=1)

    def _obs(self) -> Float[np.ndarray, "task env obs"]:
        return np.concatenate([self._position, self._velocity, self._offset()], axis=-1, dtype=np.float32)

    def _reward(self, distance: Float[np.ndarray, "task env"]) -> Float[np.ndarray, "task env"]:
        reward = np.clip(1 - distance, -1, 1)
        for task, transform in enumerate(self._rewards):
            if transform is not None:
                reward[task] = transform(reward[task])
        return reward.astype(np.float32)
