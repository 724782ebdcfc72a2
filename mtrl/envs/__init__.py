"""Vectorised multi-task environments by name.

    mt10                      a benchmark: mt10, mt25, mt50 (or toy and its variants)
    mt10:reach-v3,push-v3     some of its tasks, in this order, with the goals they have in it
    mt1:reach-v3              one task with the goals of its own benchmark
    reach-v3,push-v3          some tasks of mt50
    gymnasium:Pendulum-v1,Hopper-v5      any Gymnasium environments, padded to one size (`mtrl.envs.gymnasium_tasks`)

Names can be checked without importing torch or MuJoCo; for the last form Gymnasium is imported, and the module of an id
written module:id.
"""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from mtrl.envs import gymnasium_tasks, toy_tasks
from mtrl.envs.metaworld.tasks import BENCHMARKS, CAMERAS, MAX_EPISODE_STEPS, MT10, MT25, MT50, NUM_GOALS
from mtrl.registry import check_name

if TYPE_CHECKING:
    from mtrl.interfaces import VectorEnv

__all__ = ["Config", "cameras", "check", "check_task", "make", "modules", "names", "num_goals", "parse", "task_names"]


Engine = Literal["stock", "native"]
"""Who steps Meta-World: its own classes, or compiled code that equals them."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """How environments are stepped."""

    engine: Engine = "native"
    """Meta-World by MuJoCo's functions with all around them compiled, or by its own classes: the same numbers in four
    times the time. What is compiled when a task is first used, about 2 s each, is kept. Other suites ignore it."""
    max_episode_steps: int | None = None
    """Cut episodes of Meta-World after so many steps; 500 by default. The published numbers on its first version have
    150."""
    num_goals: int | None = None
    """Use the first so many goals of each task of Meta-World; by default all 50."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name, most in (("max_episode_steps", MAX_EPISODE_STEPS), ("num_goals", NUM_GOALS)):
            value = getattr(self, name)
            if value is not None and not 1 <= value <= most:
                raise ValueError(f"{name} must lie between 1 and {most}, got {value}")

    def limits(self) -> dict[str, int]:
        """Return what is limited, by name."""
        limits = {"max_episode_steps": self.max_episode_steps, "num_goals": self.num_goals}
        return {name: value for name, value in limits.items() if value is not None}


class _Suite(NamedTuple):
    """What must be known of a suite before it is built."""

    make: str
    """The function that builds it, as "module:function"."""
    tasks: tuple[str, ...]
    """None named here: those of Gymnasium's registry."""
    num_goals: int
    """Goals per task."""
    cameras: tuple[str, ...] = ()
    """From where pictures can be made, the default first."""


_REGISTRY = {
    "toy": _Suite("mtrl.envs.toy:make", toy_tasks.TASKS, toy_tasks.NUM_GOALS),
    "toy_scaled": _Suite("mtrl.envs.toy:make", toy_tasks.TASKS, toy_tasks.NUM_GOALS),
    "toy_exp": _Suite("mtrl.envs.toy:make", toy_tasks.TASKS, toy_tasks.NUM_GOALS),
    "toy_power": _Suite("mtrl.envs.toy:make", toy_tasks.TASKS, toy_tasks.NUM_GOALS),
    "toy_groups": _Suite("mtrl.envs.toy:make", toy_tasks.GROUP_TASKS, toy_tasks.NUM_GOALS),
    "mt1": _Suite("mtrl.envs.metaworld:make", MT50, NUM_GOALS, CAMERAS),  # any task, one at a time
    "mt10": _Suite("mtrl.envs.metaworld:make", MT10, NUM_GOALS, CAMERAS),
    "mt25": _Suite("mtrl.envs.metaworld:make", MT25, NUM_GOALS, CAMERAS),
    "mt50": _Suite("mtrl.envs.metaworld:make", MT50, NUM_GOALS, CAMERAS),
    "gymnasium": _Suite("mtrl.envs.gymnasium_tasks:make", (), gymnasium_tasks.NUM_GOALS),
}

_BARE_TASKS_SUITE = "mt50"


def names() -> tuple[str, ...]:
    """Return the registered suites."""
    return tuple(_REGISTRY)


def parse(name: str) -> tuple[str, tuple[str, ...] | None]:
    """Split a name into its suite and its tasks, None for all of them. Checks neither."""
    suite, colon, tasks = name.partition(":")
    if colon:
        return suite, tuple(tasks.split(","))
    if "," in name or "-v" in name:
        return _BARE_TASKS_SUITE, tuple(name.split(","))
    return name, None


def modules(name: str) -> tuple[str, ...]:
    """Return the modules that are imported to find the tasks of the environment `name`, by which it names them."""
    suite, tasks = parse(name)
    return tuple(task.partition(":")[0] for task in tasks or () if suite == "gymnasium" and ":" in task)


def task_names(name: str) -> tuple[str, ...]:
    """Return the tasks of the environment `name`, in its order.

    Raises:
        ValueError: There is no such environment.
    """
    check(name)
    suite, tasks = parse(name)
    return tasks or _REGISTRY[suite].tasks


def num_goals(name: str, config: Config | None = None) -> int:
    """Return the number of goals each task of the environment `name` has, as far as `config` leaves them.

    Raises:
        ValueError: There is no such environment, or it knows no such limit.
    """
    check(name)
    limits = config.limits() if config else {}
    _check_limits(name, limits)
    return limits.get("num_goals", _REGISTRY[parse(name)[0]].num_goals)


def _check_limits(name: str, limits: Mapping[str, int]) -> None:
    if limits and parse(name)[0] not in BENCHMARKS:
        raise ValueError(f"{' and '.join(limits)} can be set for Meta-World only, not for environment {name!r}")


def cameras(name: str) -> tuple[str, ...]:
    """Return from where pictures of the environment `name` can be made, the default first; none where nothing is seen.

    Raises:
        ValueError: There is no such environment.
    """
    check(name)
    return _REGISTRY[parse(name)[0]].cameras


def check(name: str) -> None:
    """Raise unless `name` names an environment.

    Raises:
        ValueError: The message says what was found, what was expected and which valid choice is nearest.
    """
    suite, tasks = parse(name)
    check_name(_REGISTRY, "environment", suite, also_near=() if tasks else MT50)
    if tasks is None:
        if suite == "mt1":
            raise ValueError("environment 'mt1' needs a task, as in 'mt1:reach-v3'")
        if suite == "gymnasium":
            raise ValueError("environment 'gymnasium' needs ids, as in 'gymnasium:Pendulum-v1,Hopper-v5'")
        return
    for task in tasks:
        if suite == "gymnasium":
            gymnasium_tasks.find(task)
        else:
            check_name(_REGISTRY[suite].tasks, f"task of {suite}", task)
    if suite == "mt1" and len(tasks) > 1:
        raise ValueError(f"environment {name!r}: mt1 is one task; name several as in 'mt10:reach-v3,push-v3'")
    repeated = sorted({task for task in tasks if tasks.count(task) > 1})
    if repeated:
        raise ValueError(f"environment {name!r} names {', '.join(repeated)} more than once, expected each task once")


def check_task(name: str, task: str) -> None:
    """Raise unless the environment `name` has the task.

    Raises:
        ValueError: The message lists the tasks and the nearest one.
    """
    check_name(task_names(name), f"task of {name}", task)


def make(
    name: str,
    *,
    only: tuple[str, ...] | None = None,
    seed: int = 0,
    goal_seed: int = 0,
    envs_per_task: int = 1,
    workers: int | None = None,
    engine: Engine = "native",
    max_episode_steps: int | None = None,
    num_goals: int | None = None,
    info: bool = False,
) -> "VectorEnv":
    """Build the vector environment `name`.

    Args:
        name: A suite, a suite with tasks, or tasks: see the module's docstring.
        only: Which of the tasks to build; they have the sizes and goals that they have among all. All by default.
        seed: Seed of each environment's own stream of goals, and of whatever else an environment draws.
        goal_seed: Seed of the goals themselves. Runs that differ only in `seed` share their goals.
        envs_per_task: Copies of each task, stepped side by side.
        workers: Processes; the number of usable cores by default, never more than environments.
        engine: Who steps Meta-World, see `Config`.
        max_episode_steps: Cut episodes of Meta-World after so many steps.
        num_goals: Use the first so many goals of each task of Meta-World.
        info: Whether `Step.info` holds what a suite can further tell about every step. Meta-World tells the seven
            numbers of its info; toy tells nothing.

    Raises:
        ValueError: There is no such environment or task, `only` names none or one twice, or a number is out of range.
    """
    whole = task_names(name)
    limits = Config(max_episode_steps=max_episode_steps, num_goals=num_goals).limits()
    _check_limits(name, limits)
    if only is not None and not len(only) == len(set(only)) > 0:
        raise ValueError(f"only is {only}, expected at least one task of {name}, and each once")
    for task in only or ():
        check_task(name, task)
    suite, tasks = parse(name)
    module, _, function = _REGISTRY[suite].make.partition(":")
    build: Callable[..., VectorEnv] = getattr(importlib.import_module(module), function)
    return build(
        suite,
        only or tasks,
        whole=whole,
        seed=seed,
        goal_seed=goal_seed,
        envs_per_task=envs_per_task,
        workers=workers,
        engine=engine,
        info=info,
        **limits,
    )
