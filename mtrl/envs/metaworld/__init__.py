"""Meta-World v3 on MuJoCo: rewards v2, visible goal, 500 steps, the benchmarks' own 50 goals per task."""

from typing import TYPE_CHECKING, Literal

from mtrl.envs.metaworld.tasks import MAX_EPISODE_STEPS, NUM_GOALS

if TYPE_CHECKING:
    from mtrl.interfaces import VectorEnv


def make(
    name: str,
    tasks: tuple[str, ...] | None,
    *,
    whole: tuple[str, ...] = (),
    seed: int,
    goal_seed: int,
    envs_per_task: int,
    workers: int | None,
    engine: Literal["stock", "native"] = "native",
    info: bool = False,
    max_episode_steps: int = MAX_EPISODE_STEPS,
    num_goals: int = NUM_GOALS,
) -> "VectorEnv":
    """Build the tasks of the benchmark `name`, all of them where `tasks` is None.

    Observations are Meta-World's 39 numbers in float32, without one-hot: the task is axis 0.

    Args:
        name: One of `mtrl.envs.metaworld.tasks.BENCHMARKS`.
        tasks: A part of the benchmark's tasks, in the order wanted; they keep the goals they have in it.
        whole: Has no effect: all tasks have one size.
        seed: Seed of the order in which goals are visited.
        goal_seed: Seed of the benchmark's goals, Meta-World's own `seed`.
        envs_per_task: Copies of each task.
        workers: Processes; the number of usable cores where None.
        engine: Whether Meta-World's own classes step, or compiled code that equals them.
        info: Whether every step carries Meta-World's info. It is Meta-World's own code that computes it, so that it
            costs the native engine much of its speed.
        max_episode_steps: Steps after which an episode is cut.
        num_goals: Of every task, the first of its goals.
    """
    # Imported late: the command line asks this package for names, and answers before torch is loaded.
    from mtrl.envs.metaworld import opengl

    opengl.do_without()
    from mtrl.envs.metaworld.goals import goal_vectors
    from mtrl.envs.metaworld.sawyer import SawyerFactory
    from mtrl.envs.metaworld.tasks import (
        ACTION_DIM,
        BENCHMARKS,
        CAMERAS,
        INFO_NAMES,
        OBS_DIM,
        STEPS_PER_SECOND,
    )
    from mtrl.envs.workers import WorkerVectorEnv
    from mtrl.interfaces import EnvSpec

    del whole
    task_names = tasks or BENCHMARKS[name]
    spec = EnvSpec(
        task_names=task_names,
        envs_per_task=envs_per_task,
        obs_dim=OBS_DIM,
        action_dim=ACTION_DIM,
        max_episode_steps=max_episode_steps,
        num_goals=num_goals,
        info_names=INFO_NAMES if info else (),
        cameras=CAMERAS,
        steps_per_second=STEPS_PER_SECOND,
    )
    goals = {task: vectors[:num_goals] for task, vectors in goal_vectors(name, task_names, goal_seed).items()}
    factory = SawyerFactory(
        task_names=task_names, goals=goals, engine=engine, info=info, max_episode_steps=max_episode_steps
    )
    return WorkerVectorEnv(spec, factory, seed=seed, workers=workers)
