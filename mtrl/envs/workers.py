"""A vector environment over worker processes, for any suite that can offer a `SingleEnv`."""

import logging
from collections.abc import Sequence
from types import TracebackType
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from mtrl.envs.inputs import check_least, check_state, checked_action, checked_goal
from mtrl.envs.shared_arrays import Sizes
from mtrl.envs.worker_pool import MAX_RESTARTS, Rows, WorkerError, WorkerPool
from mtrl.envs.worker_process import Command, EnvFactory, RenderingError, View
from mtrl.interfaces import EnvSpec, Step
from mtrl.machine import usable_cores
from mtrl.registry import check_name
from mtrl.seeding import numpy_generator

__all__ = ["RenderingError", "WorkerError", "WorkerVectorEnv"]

_LOGGER = logging.getLogger(__name__)


class WorkerVectorEnv:
    """A `VectorEnv` whose environments live in worker processes, several in each.

    The results do not depend on the number of workers. Every environment draws its goals from a stream of its own,
    named after its task, so they depend neither on the other tasks. All returned arrays are copies.

    A worker that dies, hangs or raises is replaced. Its environments begin new episodes with their next goals; the step
    that reports it says in their rows that it is not `valid`, and all other rows are as if nothing had happened. What
    happened is logged as a warning. Workers that fail once too often end the environment with a `WorkerError`.
    """

    def __init__(
        self,
        spec: EnvSpec,
        make_env: EnvFactory,
        *,
        seed: int,
        workers: int | None = None,
        timeout: float = 60.0,
        startup_timeout: float = 300.0,
        max_restarts: int = MAX_RESTARTS,
    ) -> None:
        """Start the processes and build all environments.

        Args:
            spec: Names and sizes; the environments must match.
            make_env: Builds the environment of (task index, environment index) in the worker.
            seed: Seed of the goal streams.
            workers: Processes; the number of usable cores by default, and never more than environments.
            timeout: Seconds that one step, reset, picture or other command may take before its worker counts as hung.
            startup_timeout: Seconds that building an environment, the first time with what is compiled for it, or
                restoring all may take.
            max_restarts: Workers that may be replaced within ten minutes; one more failure is a `WorkerError`.

        Raises:
            ValueError: A number is out of range.
            WorkerError: An environment cannot be built.
        """
        check_least(1, envs_per_task=spec.envs_per_task, workers=workers)
        check_least(0, max_restarts=max_restarts)
        self._spec = spec
        self._shape = (spec.num_tasks, spec.envs_per_task)
        rows = Rows(task_names=spec.task_names, envs_per_task=spec.envs_per_task)
        sizes = Sizes(
            rows=len(rows),
            obs_dim=spec.obs_dim,
            action_dim=spec.action_dim,
            workers=min(workers or usable_cores(), len(rows)),
            info_names=spec.info_names,
        )
        self._goal_streams = [
            numpy_generator(seed, "goal", name, env) for name in spec.task_names for env in range(spec.envs_per_task)
        ]
        self._goal = np.full(len(rows), -1)
        self._next_goal = np.zeros(len(rows), np.int64)
        self._draw_next_goals(np.ones(len(rows), np.bool_))
        self._has_started = False
        self._timeout, self._startup_timeout = timeout, startup_timeout
        self._pool = WorkerPool(
            rows, sizes, make_env, timeout=timeout, startup_timeout=startup_timeout, max_restarts=max_restarts
        )

    @property
    def spec(self) -> EnvSpec:
        """Names and sizes."""
        return self._spec

    @property
    def process_ids(self) -> tuple[int, ...]:
        """The workers' process ids; that of a worker changes when it is replaced."""
        return self._pool.process_ids

    @property
    def worker_restarts(self) -> int:
        """Workers replaced so far."""
        return self._pool.num_restarts

    def reset(self, goal: Int[np.ndarray, "task env"] | None = None) -> Float[np.ndarray, "task env obs"]:
        """Start a new episode everywhere.

        Args:
            goal: Goals of these first episodes; those that follow, and all by default, come from the streams.

        Raises:
            ValueError: `goal` has another shape than (task, env) or is no index of a goal.
            WorkerError: Workers failed, died or hung once too often.
        """
        self._pool.require_free(Command.RESET)
        if goal is None:
            self._goal[:] = self._next_goal
            self._draw_next_goals(np.ones_like(self._goal, np.bool_))
        else:
            self._goal[:] = checked_goal(goal, self._spec).reshape(-1)
        self._begin_episodes()
        return self._obs()

    def step(self, action: Float[np.ndarray, "task env action"]) -> Step:
        """Advance every environment by one action; an ended episode is followed at once by a new one.

        A row that is not `valid` counts as truncated: a new episode began there too.

        Raises:
            ValueError: An action is not finite or the array has the wrong shape.
            WorkerError: Workers failed, died or hung once too often.
        """
        self.step_async(action)
        return self.step_wait()

    def step_async(self, action: Float[np.ndarray, "task env action"]) -> None:
        """Begin a step; `step_wait` returns what came of it. In between the environments work, and can do nothing else.

        Raises:
            ValueError: An action is not finite or the array has the wrong shape.
        """
        self._pool.require_free(Command.STEP)
        self._require_started()
        arrays = self._pool.arrays
        arrays.action[:] = checked_action(action, self._spec).reshape(arrays.action.shape)
        arrays.goal[:] = self._next_goal
        self._pool.begin(Command.STEP)

    def step_wait(self) -> Step:
        """Finish the step that was begun.

        Raises:
            WorkerError: Workers failed, died or hung once too often.
        """
        self._pool.finish()
        arrays = self._pool.arrays
        step = Step(
            obs=self._obs(),
            final_obs=arrays.final_obs.reshape(*self._shape, -1).copy(),
            reward=arrays.reward.reshape(self._shape).copy(),
            terminated=arrays.terminated.reshape(self._shape).copy(),
            truncated=arrays.truncated.reshape(self._shape).copy(),
            success=arrays.success.reshape(self._shape).copy(),
            goal=self._goal.reshape(self._shape).copy(),
            valid=arrays.valid.reshape(self._shape).copy(),
            info=arrays.info.reshape(*self._shape, len(self._spec.info_names)).copy(),
        )
        has_ended = arrays.terminated | arrays.truncated
        if has_ended.any():
            self._goal[has_ended] = self._next_goal[has_ended]
            self._draw_next_goals(has_ended)
        arrays.goal[:] = self._goal
        arrays.broken[:] = False
        return step

    def get_state(self) -> dict[str, Any]:
        """Return everything that determines the future, as plain types and arrays; also in mid-episode.

        Where a worker is found to have failed, its episodes are begun again, and the next step says that they are not
        `valid`, also one after `set_state`. Where all workers have failed for good, the goals to come are still known,
        and `set_state` begins new episodes everywhere.
        """
        self._require_started()
        states = self._states_of_envs()
        return {
            "task_names": list(self._spec.task_names),
            "envs_per_task": self._spec.envs_per_task,
            "goal": self._goal.copy(),
            "next_goal": self._next_goal.copy(),
            "goal_streams": [stream.bit_generator.state for stream in self._goal_streams],
            "obs": self._pool.arrays.obs.copy(),
            "broken": self._pool.arrays.broken.copy(),
            "envs": states,
        }

    def set_state(self, state: dict[str, Any]) -> Float[np.ndarray, "task env obs"]:
        """Restore what `get_state` returned; return the observations to act on next.

        Raises:
            ValueError: The state belongs to other tasks or another number of environments.
            WorkerError: Workers failed, died or hung once too often.
        """
        self._pool.require_free(Command.SET_STATE)
        check_state(state, self._spec)
        self._goal[:] = state["goal"]
        self._next_goal[:] = state["next_goal"]
        for stream, stream_state in zip(self._goal_streams, state["goal_streams"], strict=True):
            stream.bit_generator.state = stream_state
        if state["envs"] is None:
            _LOGGER.warning("the episodes were lost with the environments' processes; new ones begin")
            self._begin_episodes()
            self._pool.arrays.broken[:] = True
            return self._obs()
        self._pool.arrays.goal[:] = self._goal
        self._pool.ask_rows(Command.SET_STATE, state["envs"], timeout=self._startup_timeout)
        self._pool.arrays.obs[:] = state["obs"]
        self._pool.arrays.broken[:] = state["broken"]
        self._has_started = True
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
        """Return pictures, upright, of what the next step starts from. Changes nothing.

        The first picture of an environment sets its renderer up, which costs time and memory until `close`: without a
        GPU about a second and 150 MB. Look at some of many tasks.

        Args:
            camera: One of `spec.cameras`, the first by default.
            width: In pixels.
            height: In pixels.
            tasks: Names of the tasks to look at, all by default; axis 0 of the result has their order.
            envs: Indices of each task's environments to look at, all by default; axis 1 has their order.

        Raises:
            NotImplementedError: There is nothing to see in these environments.
            ValueError: There is no such camera, task or environment, or a size is below 1.
            RenderingError: This machine cannot render; the message says what it needs. The environment lives on.
            WorkerError: A worker failed, died or hung.
        """
        self._require_started()
        tasks = self._spec.task_names if tasks is None else tuple(tasks)
        envs = tuple(range(self._spec.envs_per_task) if envs is None else envs)
        view = self._checked_view(camera, width, height)
        rows = self._checked_rows(tasks, envs)
        payload = [view if row in rows else None for row in range(len(self._goal))]
        answers: dict[int, np.ndarray | RenderingError] = {}
        for part in self._pool.ask_rows(Command.RENDER, payload, timeout=self._timeout * max(1, len(rows))):
            answers |= part
        for answer in answers.values():
            if isinstance(answer, RenderingError):
                raise answer
        pictures = np.array([answers[row] for row in rows], np.uint8)
        return pictures.reshape(len(tasks), len(envs), height, width, 3)

    def close(self) -> None:
        """Free processes and shared memory. Safe to call twice."""
        self._pool.close()

    def __enter__(self) -> "WorkerVectorEnv":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _begin_episodes(self) -> None:
        self._pool.arrays.goal[:] = self._goal
        self._pool.ask(Command.RESET)
        self._pool.arrays.broken[:] = False
        self._has_started = True

    def _states_of_envs(self) -> list[dict[str, Any]] | None:
        """Return the state of every row, None where the workers have failed for good."""
        states: dict[int, dict[str, Any]] = {}
        was_known = self._pool.has_failed
        try:
            for part in self._pool.ask(Command.GET_STATE):
                states |= part
        except WorkerError as failure:
            if not was_known:
                _LOGGER.warning("%s; all episodes are lost", str(failure).partition("\n")[0])
            return None
        return [states[row] for row in range(len(self._goal))]

    def _obs(self) -> Float[np.ndarray, "task env obs"]:
        return self._pool.arrays.obs.reshape(*self._shape, -1).copy()

    def _draw_next_goals(self, where: Bool[np.ndarray, " row"]) -> None:
        for row in np.flatnonzero(where):
            self._next_goal[row] = self._goal_streams[row].integers(self._spec.num_goals)

    def _require_started(self) -> None:
        if not self._has_started:
            raise RuntimeError("call reset() or set_state() first")

    def _checked_view(self, camera: str | None, width: int, height: int) -> View:
        cameras = self._spec.cameras
        if not cameras:
            raise NotImplementedError(f"there is nothing to see in {', '.join(self._spec.task_names)}: no cameras")
        camera = cameras[0] if camera is None else camera
        check_name(cameras, "camera", camera)
        check_least(1, width=width, height=height)
        return camera, width, height

    def _checked_rows(self, tasks: Sequence[str], envs: Sequence[int]) -> list[int]:
        for task in tasks:
            check_name(self._spec.task_names, "task", task)
        for env in envs:
            if not 0 <= env < self._spec.envs_per_task:
                raise ValueError(f"env {env}, expected 0 to {self._spec.envs_per_task - 1}")
        return [self._spec.task_names.index(task) * self._spec.envs_per_task + env for task in tasks for env in envs]
