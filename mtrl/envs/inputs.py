"""What callers hand to a vector environment is checked here, before anything changes."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from mtrl.interfaces import EnvSpec


def check_least(minimum: int, **numbers: int | None) -> None:
    """Do nothing where all numbers are at least `minimum`, or None, which stands for a default.

    Raises:
        ValueError: The message names the first that is not.
    """
    for name, value in numbers.items():
        if value is not None and value < minimum:
            raise ValueError(f"{name} is {value}, expected {minimum} or more")


def checked_goal(goal: np.ndarray, spec: EnvSpec) -> Int[np.ndarray, "task env"]:
    """Return the goals of new episodes.

    Raises:
        ValueError: They have another shape than (task, env) or are no indices of goals.
    """
    goal, expected = np.asarray(goal), (spec.num_tasks, spec.envs_per_task)
    if goal.shape != expected or not np.issubdtype(goal.dtype, np.integer):
        raise ValueError(f"goal is {goal.dtype} of shape {goal.shape}, expected integers of shape {expected}")
    outside = np.argwhere((goal < 0) | (goal >= spec.num_goals))
    if len(outside):
        task, env = outside[0]
        raise ValueError(
            f"goal {goal[task, env]} for task {spec.task_names[task]!r}, env {env}, expected 0 to {spec.num_goals - 1}"
        )
    return goal


def checked_action(action: np.ndarray, spec: EnvSpec) -> Float[np.ndarray, "task env action"]:
    """Return the actions of a step.

    Raises:
        ValueError: One is not finite or the array has another shape than (task, env, action).
    """
    action, expected = np.asarray(action), (spec.num_tasks, spec.envs_per_task, spec.action_dim)
    if action.shape != expected:
        raise ValueError(f"action has shape {action.shape}, expected (task, env, action) = {expected}")
    if not np.isfinite(action).all():
        task, env = np.argwhere(~np.isfinite(action))[0][:2]
        raise ValueError(f"action {action[task, env]} for task {spec.task_names[task]!r}, env {env}, is not finite")
    return action


def check_state(state: Mapping[str, Any], spec: EnvSpec) -> None:
    """Do nothing where a state, by its `task_names` and `envs_per_task`, is of the same environments.

    Raises:
        ValueError: It belongs to other tasks or another number of environments.
    """
    found = (tuple(state.get("task_names", ())), state.get("envs_per_task"))  # the toys' states once lacked both
    expected = (spec.task_names, spec.envs_per_task)
    if found != expected:
        raise ValueError(f"the state is of tasks and envs per task {found}, expected {expected}")
