"""Who steps the environments in a benchmark, each behind one method: `run(actions)` returns what the steps took.

`Physics` and `Stock` follow a `Native`: they are given its actions, begin the same episodes with the same goals, and so
pass through the same states. Stock vector environments and EnvPool draw goals of their own.
"""

# MuJoCo's names come from compiled modules, which the type checker cannot see into.
# pyright: reportAttributeAccessIssue=false

import contextlib
import ctypes
import functools
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self

import gymnasium as gym
import metaworld  # noqa: F401 - registers the environments of gymnasium
import mujoco
import numba
import numpy as np
from jaxtyping import Bool, Float, Int

from mtrl import envs
from mtrl.envs.metaworld.goals import goal_vectors
from mtrl.envs.metaworld.sawyer import SawyerEnv
from mtrl.envs.workers import WorkerVectorEnv

SUBSTEPS = 5
"""MuJoCo steps in a step of Meta-World."""

SEED = 0
ENVPOOL = Path(__file__).with_name("env_envpool.py")


class Block(NamedTuple):
    """What some vector steps took, in seconds."""

    wall: Float[np.ndarray, " time"]
    """Of each vector step."""
    cpu: float
    """Of all of them and all processes that take part."""
    workers_cpu: float = 0.0
    """The part of it that worker processes took."""
    has_ends: bool = False
    """Whether an episode ended; only a `Native` knows."""


class Track(NamedTuple):
    """What a `Native` did in its last block."""

    goal: Int[np.ndarray, "time row"]
    has_ended: Bool[np.ndarray, "time row"]


class Variant(Protocol):
    """Some way of stepping all environments."""

    name: str

    def run(self, actions: Float[np.ndarray, "time row action"]) -> Block:
        """Take the steps; an episode that ends is followed by a new one."""
        ...

    def close(self) -> None:
        """Free processes and memory."""
        ...


class Clock:
    """CPU seconds of this process and of others, in nanoseconds' resolution; Linux."""

    def __init__(self, process_ids: Sequence[int] = ()) -> None:
        self._others = [_cpu_clock(process_id) for process_id in process_ids]

    def own(self) -> float:
        """Return those of this process."""
        return time.process_time()

    def others(self) -> float:
        """Return those of the other processes together."""
        return sum(map(time.clock_gettime, self._others))


def _cpu_clock(process_id: int) -> int:
    clock = ctypes.c_int()
    code = ctypes.CDLL(None).clock_getcpuclockid(process_id, ctypes.byref(clock))
    if code:
        raise OSError(code, f"the CPU clock of process {process_id}: {os.strerror(code)}")
    return clock.value


@contextlib.contextmanager
def one_core() -> Iterator[None]:
    """Bind this process and those it starts meanwhile to one core, the last of the usable ones."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


# ------------------------------------------------------------------------------------------------- mtrl and its physics


class Native:
    """The native engine behind the vector environment."""

    def __init__(self, env_name: str, *, workers: int, copies: int = 1, goals: int = 0) -> None:
        """Start the workers, and begin an episode with each of the first goals, so that later resets are restored."""
        self.name = f"native, {workers} worker{'s' if workers > 1 else ''}"
        env = envs.make(env_name, seed=SEED, engine="native", workers=workers, envs_per_task=copies)
        assert isinstance(env, WorkerVectorEnv)
        self._env, self._clock = env, Clock(env.process_ids)
        self._shape = env.spec.num_tasks, copies
        start = time.perf_counter()
        for goal in range(goals):
            self.reset(goal)
        self.visiting_seconds = time.perf_counter() - start
        self.obs = env.reset()
        self.track = Track(np.zeros((0, 0), np.int64), np.zeros((0, 0), np.bool_))

    def reset(self, goal: int) -> None:
        """Begin an episode with that goal everywhere."""
        self._env.reset(np.full(self._shape, goal))

    def run(self, actions: Float[np.ndarray, "time row action"]) -> Block:
        """Step, and remember goals and ends."""
        shaped = actions.reshape(len(actions), *self._shape, -1)
        wall, steps = np.zeros(len(actions)), []
        own, others = self._clock.own(), self._clock.others()
        for index, action in enumerate(shaped):
            start = time.perf_counter()
            steps.append(self._env.step(action))
            wall[index] = time.perf_counter() - start
        own, others = self._clock.own() - own, self._clock.others() - others
        self.obs = steps[-1].obs
        self.track = Track(
            np.array([step.goal.ravel() for step in steps]),
            np.array([(step.terminated | step.truncated).ravel() for step in steps]),
        )
        return Block(wall, own + others, others, bool(self.track.has_ended.any()))

    def close(self) -> None:
        """End the workers."""
        self._env.close()


class Follower:
    """Stock environments that begin the episodes of a `Native`."""

    name = "follower"

    def __init__(self, env_name: str, leader: Native, copies: int) -> None:
        suite, _ = envs.parse(env_name)
        names = envs.task_names(env_name)
        goals = goal_vectors(suite, names, 0)
        self.leader = leader
        self._rows = [SawyerEnv(name, goals[name]) for name in names for _ in range(copies)]
        self._must_begin = np.ones(len(self._rows), np.bool_)

    def begin_episodes(self, index: int) -> None:
        """Begin the episodes whose first step is the leader's step of that index."""
        for row in np.flatnonzero(self._must_begin):
            self._rows[row].reset(int(self.leader.track.goal[index, row]))
        self._must_begin = self.leader.track.has_ended[index]

    def hands(self) -> Float[np.ndarray, "row xyz"]:
        """Return where the hands are: the first three numbers of an observation."""
        return np.array([row.env.get_endeff_pos() for row in self._rows]).astype(np.float32)

    def close(self) -> None:
        """Free the environments."""
        for row in self._rows:
            row.close()


class Physics(Follower):
    """MuJoCo's calls alone, by a compiled loop: nothing that steps Meta-World can do without them.

    Only the calls are timed: neither the mocap's move before them nor resets.
    """

    name = "physics"

    def __init__(self, env_name: str, leader: Native, copies: int = 1) -> None:
        super().__init__(env_name, leader, copies)
        self._step = physics()
        self._models = np.array([row.env.model._address for row in self._rows], np.uint64)  # noqa: SLF001
        self._data = np.array([row.env.data._address for row in self._rows], np.uint64)  # noqa: SLF001

    def run(self, actions: Float[np.ndarray, "time row action"]) -> Block:
        """Step."""
        wall, cpu = np.zeros(len(actions)), 0.0
        for index, action in enumerate(actions):
            self.begin_episodes(index)
            for row, (*move, grip) in zip(self._rows, action, strict=True):
                row.env.set_xyz_action(np.array(move, np.float32))
                row.env.data.ctrl[:] = grip, -grip
            start, start_cpu = time.perf_counter(), time.process_time()
            self._step(self._models, self._data)
            cpu += time.process_time() - start_cpu
            wall[index] = time.perf_counter() - start
        return Block(wall, cpu)


@functools.cache
def physics() -> Callable[[Int[np.ndarray, " row"], Int[np.ndarray, " row"]], None]:
    """Compile the MuJoCo calls of one vector step; the arguments are addresses of models and data."""
    (path,) = Path(mujoco.__file__).parent.glob("libmujoco*")
    library = ctypes.CDLL(str(path))
    step, forward = library.mj_step, library.mj_forward
    for function in (step, forward):
        function.argtypes, function.restype = (ctypes.c_size_t, ctypes.c_size_t), None

    @numba.njit(nogil=True)
    def run(models: Int[np.ndarray, " row"], data: Int[np.ndarray, " row"]) -> None:
        for row in range(len(models)):
            for _ in range(SUBSTEPS):
                step(models[row], data[row])
            forward(models[row], data[row])

    nothing = np.zeros(0, np.uint64)
    run(nothing, nothing)
    return run


# ---------------------------------------------------------------------------------------------------------------- stock


class Stock(Follower):
    """`step` of Meta-World's own classes in a loop; resets are `set_task` and `reset`."""

    name = "stock `env.step`"

    def __init__(self, env_name: str, leader: Native, copies: int = 1) -> None:
        super().__init__(env_name, leader, copies)

    def run(self, actions: Float[np.ndarray, "time row action"]) -> Block:
        """Step."""
        wall, cpu = np.zeros(len(actions)), time.process_time()
        for index, action in enumerate(actions):
            start = time.perf_counter()
            self.begin_episodes(index)
            for row, own_action in zip(self._rows, action, strict=True):
                row.env.step(own_action)
            wall[index] = time.perf_counter() - start
        return Block(wall, time.process_time() - cpu)


class StockVector:
    """What `gymnasium.make_vec` builds of Meta-World."""

    def __init__(self, env_name: str, strategy: str) -> None:
        self.name = f"stock `{strategy.capitalize()}VectorEnv`"
        made, options = stock_arguments(env_name)
        self._env: Any = gym.make_vec(made, vector_strategy=strategy, **options).unwrapped
        self._clock = Clock([process.pid for process in getattr(self._env, "processes", ())])
        self._env.reset()

    def run(self, actions: Float[np.ndarray, "time row action"]) -> Block:
        """Step."""
        wall = np.zeros(len(actions))
        own, others = self._clock.own(), self._clock.others()
        for index, action in enumerate(actions):
            start = time.perf_counter()
            self._env.step(action)
            wall[index] = time.perf_counter() - start
        own, others = self._clock.own() - own, self._clock.others() - others
        return Block(wall, own + others, others)

    def close(self) -> None:
        """End the processes."""
        self._env.close()


def stock_arguments(env_name: str) -> tuple[str, dict[str, Any]]:
    """Return what `gymnasium.make_vec` wants for the tasks of an environment."""
    suite, tasks = envs.parse(env_name)
    if tasks is None:
        return f"Meta-World/{suite.upper()}", {"seed": SEED}
    return "Meta-World/custom-mt-envs", {"seed": SEED, "envs_list": list(tasks)}


# -------------------------------------------------------------------------------------------------------------- EnvPool


class EnvPool:
    """EnvPool's Meta-World in a process of its own, run by an interpreter that has it."""

    name = "EnvPool"

    def __init__(self, env_name: str, python: str) -> None:
        """Start it.

        Raises:
            ModuleNotFoundError: The interpreter has no EnvPool.
        """
        self._process = subprocess.Popen(
            [python, str(ENVPOOL), *envs.task_names(env_name)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        )
        self.version = self._answer()["version"]
        if self.version is None:
            self.close()
            raise ModuleNotFoundError(f"{python} has no envpool")

    @classmethod
    def if_installed(cls, env_name: str, python: str) -> list[Self]:
        """Return it, or nothing where the interpreter has no EnvPool."""
        try:
            return [cls(env_name, python)]
        except ModuleNotFoundError:
            return []

    def run(self, actions: Float[np.ndarray, "time row action"]) -> Block:
        """Take as many steps, by random actions that it draws itself."""
        assert self._process.stdin is not None
        print(len(actions), file=self._process.stdin, flush=True)
        answer = self._answer()
        return Block(np.array(answer["wall"]), answer["cpu"], answer["cpu"])

    def close(self) -> None:
        """End the process."""
        self._process.communicate()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"EnvPool's process ended with code {self._process.wait()}")
        return json.loads(line)
