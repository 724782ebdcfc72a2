"""One Meta-World task on MuJoCo, as a `SingleEnv`. Runs in a worker process.

The environment object is Meta-World's own and is never copied or pickled: some of its attributes (`init_left_pad`,
`_target_pos`, ...) are views of MuJoCo's memory, and a copy freezes them and changes the rewards.
"""

# MuJoCo's names come from compiled modules, which the type checker cannot see into.
# pyright: reportAttributeAccessIssue=false

import logging
import pickle
from dataclasses import dataclass
from typing import Any, Literal

import mujoco
import numpy as np
from jaxtyping import Float, UInt8
from metaworld.env_dict import ALL_V3_ENVIRONMENTS
from metaworld.sawyer_xyz_env import SawyerXYZEnv
from metaworld.types import Task

from mtrl.envs.metaworld.rendering import Renderer
from mtrl.envs.metaworld.snapshot import restore, take
from mtrl.envs.metaworld.tasks import MAX_EPISODE_STEPS
from mtrl.envs.worker_process import SingleEnv, Transition

UNSTABLE = (mujoco.mjtWarning.mjWARN_BADQPOS, mujoco.mjtWarning.mjWARN_BADQVEL, mujoco.mjtWarning.mjWARN_BADQACC)
"""MuJoCo's signs that numbers exploded; it then resets the simulation by itself in the middle of an episode."""

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class SawyerFactory:
    """Builds environments by task index; picklable."""

    task_names: tuple[str, ...]
    goals: dict[str, Float[np.ndarray, "goal vector"]]
    engine: Literal["stock", "native"] = "native"
    info: bool = False
    """Whether the native engine computes Meta-World's info as well; the stock one always does."""
    max_episode_steps: int = MAX_EPISODE_STEPS

    def __call__(self, task: int, env: int) -> SingleEnv:
        """Build one environment; the copies of a task differ only in what they are told to do."""
        name = self.task_names[task]
        if self.engine == "native":
            from mtrl.envs.metaworld.native import NativeSawyerEnv  # the compiler takes half a second to load

            native = NativeSawyerEnv(name, self.goals[name], self.max_episode_steps)
            if not self.info:
                return native
            from mtrl.envs.metaworld.native_info import InformedSawyerEnv

            return InformedSawyerEnv(native)
        return SawyerEnv(name, self.goals[name], max_episode_steps=self.max_episode_steps)


class SawyerEnv:
    """One copy of one task: Meta-World's environment behind the goals of its benchmark."""

    def __init__(
        self,
        task_name: str,
        goals: Float[np.ndarray, "goal vector"],
        variant: type[SawyerXYZEnv] | None = None,
        max_episode_steps: int = MAX_EPISODE_STEPS,
    ) -> None:
        """Build the stock environment, or a variant of its class; `goals` are the random vectors of the benchmark."""
        mujoco.set_mju_user_warning(_LOGGER.warning)  # MuJoCo's own way is a file in the current directory
        env_class = ALL_V3_ENVIRONMENTS[task_name]
        # The class holds the limit, not the environment: attributes of an environment are part of the states kept.
        limited = type(env_class.__name__, (variant or env_class,), {"max_path_length": max_episode_steps})
        self.env: SawyerXYZEnv = limited(reward_function_version="v2")
        self._signs = [self.env.data.warning[sign] for sign in UNSTABLE]  # live: MuJoCo counts in them
        self._tasks = [_stock_task(task_name, env_class, vector) for vector in goals]
        self.env.set_task(self._tasks[0])  # with the goal in sight from now on, also where a state is restored
        self._renderer: Renderer | None = None
        self.goal = -1
        self.last_obs = np.zeros(0, np.float32)

    def reset(self, goal: int) -> Float[np.ndarray, " obs"]:
        """Start an episode with the goal of that index, by the stock reset."""
        self.goal = goal
        self.env.set_task(self._tasks[goal])
        obs, _ = self.env.reset()
        self.last_obs = obs.astype(np.float32)
        return self.last_obs

    def step(self, action: Float[np.ndarray, " action"]) -> Transition:
        """Advance by one action. Where the simulation broke down, stand still and say so in `valid`."""
        obs, reward, terminated, truncated, info = self.env.step(action)
        if not (self.is_stable(obs) and np.isfinite(reward)):
            mujoco.mj_resetData(self.env.model, self.env.data)
            return Transition(self.last_obs, 0.0, terminated=False, truncated=True, success=False, valid=False)
        self.last_obs = obs.astype(np.float32)
        return Transition(self.last_obs, float(reward), terminated, truncated, bool(info["success"]), info=info)

    def get_state(self) -> dict[str, Any]:
        """Return goal, simulation and attributes; bit-identical continuation, also in mid-episode."""
        return {"goal": self.goal, "last_obs": self.last_obs.copy(), **take(self.env)}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore what `get_state` returned."""
        self.goal = int(state["goal"])
        restore(self.env, state)
        self.last_obs = np.array(state["last_obs"])

    def render(self, camera: str, width: int, height: int) -> UInt8[np.ndarray, "height width 3"]:
        """Return an upright picture of the present state. Changes nothing that matters to the simulation.

        Raises:
            RenderingError: This machine cannot.
        """
        if self._renderer is None:
            self._renderer = Renderer(self.env.model)
        return self._renderer.render(self.env.data, camera, width, height)

    def close(self) -> None:
        """Free the renderer, the only thing that is not plain memory."""
        if self._renderer:
            self._renderer.close()
        self.env.close()

    def is_stable(self, obs: Float[np.ndarray, " obs"]) -> bool:
        """Say whether the simulation has held since the last reset."""
        if self.env._did_see_sim_exception or not np.isfinite(obs).all():  # noqa: SLF001
            return False
        return not any(sign.number for sign in self._signs)


def _stock_task(task_name: str, env_class: type[SawyerXYZEnv], vector: Float[np.ndarray, " vector"]) -> Task:
    data = {"rand_vec": vector, "env_cls": env_class, "partially_observable": False}
    return Task(env_name=task_name, data=pickle.dumps(data))
