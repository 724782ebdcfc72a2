"""Evaluation: chosen goals of every task, each exactly once, with the deterministic policy."""

from collections.abc import Callable
from contextlib import closing
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from mtrl.interfaces import VectorEnv
from mtrl.nonfinite import check_action, check_obs, check_step

Policy = Callable[[Float[np.ndarray, "task env obs"]], Float[np.ndarray, "task env action"]]

MakeEnv = Callable[[tuple[str, ...], int], VectorEnv]
"""Builds environments of some of the tasks: (task names, copies of each) -> environments."""

Report = Callable[[int], None]

ENVS_AT_ONCE = 10
"""Environments alive at a time during an evaluation. A Meta-World environment takes about 25 MB."""


class Evaluation(NamedTuple):
    """What each (task, goal) gave. Goals whose episode had an invalid step count as failed."""

    goals: Int[np.ndarray, " goal"]
    """Indices of the goals, the same for every task."""
    success: Bool[np.ndarray, "task goal"]
    """Solved at any step of the episode (Meta-World's definition)."""
    success_at_end: Bool[np.ndarray, "task goal"]
    returns: Float[np.ndarray, "task goal"]
    """Sum of rewards, undiscounted."""


def spread_goals(num_goals: int, count: int) -> Int[np.ndarray, " goal"]:
    """Return `count` goal indices spread evenly over all: always the same ones.

    Raises:
        ValueError: There are fewer goals than that, or the count is below 1.
    """
    if not 1 <= count <= num_goals:
        raise ValueError(f"the number of goals to evaluate must lie between 1 and {num_goals}, got {count}")
    return np.linspace(0, num_goals - 1, count).round().astype(np.int64)


def evaluate(
    make_env: MakeEnv,
    task_names: tuple[str, ...],
    policy: Policy,
    goals: Int[np.ndarray, " goal"],
    *,
    only: tuple[str, ...] | None = None,
    report: Report = lambda episodes: None,
) -> Evaluation:
    """Run one episode of every task for every goal, in environments that exist for nothing else.

    A few tasks at a time, so that fifty of them need no more memory than ten. How many run side by side can change the
    last bit of a network's output, and an episode that hangs by it.

    Args:
        make_env: Builds the environments; they are closed again.
        task_names: All tasks the policy knows, in its order.
        policy: Observations of all tasks -> actions.
        goals: Goal indices; one that is there twice is run twice.
        only: The tasks to evaluate, in the order of the result; all by default.
        report: Told now and then how many more episodes have ended.

    Raises:
        NonFiniteError: An action, observation or reward is not finite.
    """
    chosen = [task_names.index(name) for name in only or task_names]
    parts = []
    for first in range(0, len(chosen), ENVS_AT_ONCE):
        group = chosen[first : first + ENVS_AT_ONCE]
        names = tuple(task_names[task] for task in group)
        copies = min(len(goals), ENVS_AT_ONCE // len(names))
        with closing(make_env(names, copies)) as env:
            parts.append(evaluate_env(env, _restrict(policy, len(task_names), group), goals, report))
    columns = zip(*(part[1:] for part in parts), strict=True)
    return Evaluation(goals, *(np.concatenate(column) for column in columns))


def _restrict(policy: Policy, num_tasks: int, group: list[int]) -> Policy:
    """Return the policy of some of the tasks; the others are shown zeros, and their actions dropped."""

    def restricted(obs: Float[np.ndarray, "task env obs"]) -> Float[np.ndarray, "task env action"]:
        everything = np.zeros((num_tasks, *obs.shape[1:]), dtype=obs.dtype)
        everything[group] = obs
        return policy(everything)[group]

    return restricted


def evaluate_env(
    env: VectorEnv, policy: Policy, goals: Int[np.ndarray, " goal"], report: Report = lambda episodes: None
) -> Evaluation:
    """Run one episode of every task of `env` for every goal.

    Args:
        env: Used for nothing else: its episodes are started and left anywhere.
        policy: Observations of all environments -> actions.
        goals: Goal indices; a last round with too few goals repeats one and leaves the repetition out.
        report: Told after each round how many episodes it had.

    Raises:
        NonFiniteError: An action, observation or reward is not finite.
    """
    spec = env.spec
    shape = (spec.num_tasks, len(goals))
    result = Evaluation(goals, np.zeros(shape, dtype=bool), np.zeros(shape, dtype=bool), np.zeros(shape))
    for start in range(0, len(goals), spec.envs_per_task):
        chosen = goals[start : start + spec.envs_per_task]
        columns = slice(start, start + len(chosen))
        padded = np.pad(chosen, (0, spec.envs_per_task - len(chosen)), mode="edge")
        success, success_at_end, returns = _episodes(env, policy, np.tile(padded, (spec.num_tasks, 1)))
        result.success[:, columns] = success[:, : len(chosen)]
        result.success_at_end[:, columns] = success_at_end[:, : len(chosen)]
        result.returns[:, columns] = returns[:, : len(chosen)]
        report(spec.num_tasks * len(chosen))
    return result


def _episodes(
    env: VectorEnv, policy: Policy, goal: Int[np.ndarray, "task env"]
) -> tuple[Bool[np.ndarray, "task env"], Bool[np.ndarray, "task env"], Float[np.ndarray, "task env"]]:
    """Run the first episode of every environment to its end; return any success, success at the end, and return."""
    names = env.spec.task_names
    obs = env.reset(goal)
    check_obs(obs, names)
    running = np.ones(goal.shape, dtype=bool)
    valid = np.ones(goal.shape, dtype=bool)
    success = np.zeros(goal.shape, dtype=bool)
    success_at_end = np.zeros(goal.shape, dtype=bool)
    returns = np.zeros(goal.shape)
    while running.any():
        action = policy(obs)
        check_action(action, names)
        step = env.step(action)
        check_step(step, names)
        valid &= step.valid | ~running
        success |= step.success & running
        success_at_end[running] = step.success[running]
        returns += np.where(running & step.valid, step.reward, 0)
        running &= ~(step.terminated | step.truncated)
        obs = step.obs
    return success & valid, success_at_end & valid, returns
