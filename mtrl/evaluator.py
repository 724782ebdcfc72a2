"""Evaluation: chosen goals of every task, each exactly once, with the deterministic policy."""

import logging
from collections.abc import Callable, Iterator
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

NO_GOAL = -1
"""Stands for an index of a goal where an environment has none left to run: it runs the last one again, for nothing."""

_LOGGER = logging.getLogger(__name__)


class Evaluation(NamedTuple):
    """What each (task, goal) gave.

    An episode with an invalid step, of an unstable simulation or a lost worker, is run once more; a goal whose second
    episode breaks off too counts as failed.
    """

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
    """Run one episode of every task of `env` for every goal, and another where the first broke off.

    Args:
        env: Used for nothing else: its episodes are started and left anywhere.
        policy: Observations of all environments -> actions.
        goals: Goal indices.
        report: Told after each round how many episodes it had, without those to be repeated.

    Raises:
        NonFiniteError: An action, observation or reward is not finite.
    """
    spec = env.spec
    shape = (spec.num_tasks, len(goals))
    result = Evaluation(goals, np.zeros(shape, dtype=bool), np.zeros(shape, dtype=bool), np.zeros(shape))
    is_missing = np.ones(shape, dtype=bool)
    for is_last in (False, True):
        for column in _rounds(is_missing, spec.envs_per_task):
            *found, valid = _episodes(env, policy, goals[column])
            task, copy = row = np.nonzero(column != NO_GOAL)
            place = task, column[row]
            for whole, part in zip(result[1:], found, strict=True):
                whole[place] = part[row]
            is_missing[place] = ~valid[row]
            report(len(copy) if is_last else int(valid[row].sum()))
    for task, is_lost in enumerate(is_missing):
        if is_lost.any():
            lost = ", ".join(map(str, goals[is_lost]))
            _LOGGER.warning(
                "task %r: episodes broke off twice and count as failed, goals %s", spec.task_names[task], lost
            )
    return result


def _rounds(is_missing: Bool[np.ndarray, "task goal"], width: int) -> Iterator[Int[np.ndarray, "task env"]]:
    """Deal the missing columns of every task out to rounds of `width` side by side, `NO_GOAL` where none is left."""
    missing = [np.flatnonzero(row) for row in is_missing]
    for start in range(0, max(map(len, missing)), width):
        column = np.full((len(missing), width), NO_GOAL)
        for task, own in enumerate(missing):
            part = own[start : start + width]
            column[task, : len(part)] = part
        yield column


def _episodes(
    env: VectorEnv, policy: Policy, goal: Int[np.ndarray, "task env"]
) -> tuple[
    Bool[np.ndarray, "task env"],
    Bool[np.ndarray, "task env"],
    Float[np.ndarray, "task env"],
    Bool[np.ndarray, "task env"],
]:
    """Run the first episode of every environment to its end.

    Returns:
        Any success, success at the end, return, and whether all steps were valid; there is no success where not.
    """
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
    return success & valid, success_at_end & valid, returns, valid
