"""Any Gymnasium environments as tasks: the suite `gymnasium`, a list of ids.

    gymnasium:Pendulum-v1,MountainCarContinuous-v0     what `gymnasium.make` takes
    gymnasium:my_tasks:Slope-v0,my_tasks:Stairs-v0     ids that importing the module `my_tasks` registers

Tasks need not have the same spaces. Observations, whatever `gymnasium.spaces.utils.flatten` makes of them in float32,
are padded with zeros at their end to the longest of the suite. The policy acts in [-1, 1] in as many entries as the
longest action has; a task takes its first ones, scaled to its bounds, and ignores the others.

A goal is a seed for `reset`: 50 per task, which depend on `goal_seed` and the id alone. `docs/gymnasium.md` has
examples and says what else a task must know.
"""

import difflib
import pickle
import warnings
from typing import TYPE_CHECKING, NamedTuple

from mtrl.registry import import_module

if TYPE_CHECKING:
    from gymnasium import Env, Space
    from gymnasium.envs.registration import EnvSpec

    from mtrl.envs.workers import WorkerVectorEnv

NUM_GOALS = 50
"""Goals per task, as in the other suites."""

DEFAULT_EPISODE_STEPS = 1000
"""Where an id is registered without a limit: that of most of Gymnasium's continuous tasks. A cut episode bootstraps, so
that nothing wrong is learned, and without a limit one that never ends would stop an evaluation for ever."""


class _Sizes(NamedTuple):
    """What is found by building a task once."""

    obs_dim: int
    action_dim: int
    max_episode_steps: int


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
) -> "WorkerVectorEnv":
    """Build Gymnasium environments. Every id is built once in this process first, to know its spaces.

    Args:
        name: The suite.
        tasks: Ids.
        whole: Ids of the suite these are some of: they decide to what length observations and actions are padded.
        seed: Seed of the order in which goals are visited.
        goal_seed: Seed of the goals, from which each is drawn as a seed for `reset`.
        envs_per_task: Copies of each task.
        workers: Processes; the number of usable cores where None.
        engine: Has no effect.
        info: Has no effect.

    Raises:
        ValueError: An environment cannot be built, has a space that does not fit, or cannot be built elsewhere.
    """
    # Imported late: the command line asks this module for names, and answers before torch is loaded.
    from mtrl.envs.gymnasium_env import GymnasiumFactory, GymnasiumTask
    from mtrl.envs.workers import WorkerVectorEnv
    from mtrl.interfaces import EnvSpec

    del name, engine, info
    tasks = tasks or whole
    sizes = {task: _sizes(task) for task in dict.fromkeys((*tasks, *whole))}
    spec = EnvSpec(
        task_names=tasks,
        envs_per_task=envs_per_task,
        obs_dim=max(one.obs_dim for one in sizes.values()),
        action_dim=max(one.action_dim for one in sizes.values()),
        max_episode_steps=max(one.max_episode_steps for one in sizes.values()),
        num_goals=NUM_GOALS,
    )
    told = tuple(
        GymnasiumTask(
            name=task,
            source=_source(task),
            max_episode_steps=sizes[task].max_episode_steps,
            seeds=goal_seeds(find(task).id, goal_seed),
        )
        for task in tasks
    )
    factory = GymnasiumFactory(tasks=told, obs_dim=spec.obs_dim)
    return WorkerVectorEnv(spec, factory, seed=seed, workers=workers)


def find(task: str) -> "EnvSpec":
    """Return what is registered under an id, `module:id` included.

    Raises:
        ValueError: The module cannot be imported, or nothing is registered so; the message names the nearest id.
    """
    from gymnasium import registry

    if task in registry:
        return registry[task]
    module, colon, env_id = task.partition(":")
    if colon:
        import_module(module, f"Gymnasium environment {task!r}")
    else:
        env_id = task
    if env_id in registry:
        return registry[env_id]
    near = difflib.get_close_matches(env_id, registry, n=1, cutoff=0.5)
    hint = f" Did you mean {module + colon if colon else ''}{near[0]}?" if near else ""
    raise ValueError(
        f"unknown Gymnasium environment {task!r}.{hint} Expected one of the {len(registry)} ids that "
        "gymnasium.pprint_registry() lists, or module:id where importing the module registers it."
    )


def goal_seeds(env_id: str, goal_seed: int) -> tuple[int, ...]:
    """Return the seed of each goal: below 2**31, since some simulators take no larger one."""
    from mtrl.seeding import seed_sequence

    return tuple(int(word) >> 1 for word in seed_sequence(goal_seed, "gymnasium", env_id).generate_state(NUM_GOALS))


def _source(task: str) -> "str | EnvSpec":
    """Return what a worker, which has imported nothing, can build the task from.

    Raises:
        ValueError: Only this process can build it.
    """
    from gymnasium import registry

    if task not in registry:
        return task
    spec = registry[task]
    try:
        is_sendable = b"__main__" not in pickle.dumps(spec)
    except (pickle.PicklingError, AttributeError, TypeError):  # a lambda; a class in a function; a lock
        is_sendable = False
    if not is_sendable:
        raise ValueError(
            f"Gymnasium environment {task!r} is registered with {spec.entry_point!r} and {spec.kwargs}, which exist in "
            "this process only; expected a class of a module, registered there: name it module:id"
        )
    return spec


def _sizes(task: str) -> _Sizes:
    """Build the environment in this process, and measure and close it.

    Raises:
        ValueError: It cannot be built, or a space does not fit.
    """
    spec = find(task)
    env = _build(task, spec)
    try:
        obs_dim, action_dim = _obs_dim(task, env.observation_space), _action_dim(task, env.action_space)
    finally:
        env.close()
    if spec.max_episode_steps is None:
        warnings.warn(
            f"Gymnasium environment {task!r} is registered without max_episode_steps: its episodes are cut after "
            f"{DEFAULT_EPISODE_STEPS:,} steps",
            stacklevel=2,
        )
    return _Sizes(obs_dim, action_dim, spec.max_episode_steps or DEFAULT_EPISODE_STEPS)


def _build(task: str, spec: "EnvSpec") -> "Env":
    import gymnasium

    try:
        return gymnasium.make(spec)
    except Exception as failure:  # whatever a constructor raises is the user's to read
        raise ValueError(
            f"Gymnasium environment {task!r} cannot be built: {type(failure).__name__}: {failure}"
        ) from failure


def _obs_dim(task: str, space: "Space") -> int:
    from gymnasium.spaces.utils import flatdim

    try:
        return flatdim(space)
    except (ValueError, NotImplementedError) as problem:
        raise ValueError(
            f"Gymnasium environment {task!r} has the observation space {space}; expected one that "
            "gymnasium.spaces.utils.flatten turns into an array: Box, Discrete, MultiBinary, MultiDiscrete, Text, or "
            "Dict, Tuple and OneOf of these"
        ) from problem


def _action_dim(task: str, space: "Space") -> int:
    import numpy as np
    from gymnasium.spaces import Box

    if not (isinstance(space, Box) and np.issubdtype(space.dtype, np.floating) and space.is_bounded("both")):
        raise ValueError(
            f"Gymnasium environment {task!r} has the action space {space}; expected a Box of floating point numbers "
            "with finite bounds"
        )
    return int(space.low.size)
