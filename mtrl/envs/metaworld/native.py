"""One Meta-World task without Meta-World's Python step, as a `SingleEnv`. Runs in a worker process.

The physics are MuJoCo's own calls; observation, reward and success are compiled (`mtrl.envs.metaworld.kernels`). What a
reset leads to depends on task and goal alone, so it is simulated once and then restored.
"""

# MuJoCo's names come from compiled modules, which the type checker cannot see into.
# pyright: reportAttributeAccessIssue=false

import math
from typing import Any

import mujoco
import numpy as np
from jaxtyping import Float
from metaworld.env_dict import ALL_V3_ENVIRONMENTS

from mtrl.envs.metaworld import kernels
from mtrl.envs.metaworld.kernels.step import Frame, move
from mtrl.envs.metaworld.kernels.views import body, gripper
from mtrl.envs.metaworld.model_cache import with_kept_model
from mtrl.envs.metaworld.reset_cache import ResetCache
from mtrl.envs.metaworld.sawyer import SawyerEnv
from mtrl.envs.metaworld.snapshot import restore, take
from mtrl.envs.worker_process import Transition

FRAME_SKIP = 5


class NativeSawyerEnv:
    """One copy of one task, equal to `SawyerEnv` bit for bit in simulation and observations."""

    def __init__(self, task_name: str, goals: Float[np.ndarray, "goal vector"]) -> None:
        """Build the stock environment, which holds the simulation, and find what the kernels look at."""
        self._stock = SawyerEnv(task_name, goals, with_kept_model(ALL_V3_ENVIRONMENTS[task_name]))
        env = self._stock.env
        self._task = kernels.load(task_name)
        self._model, self._data = env.model, env.data
        self._mocap = (
            np.float32(env.action_scale),
            env.data.mocap_pos[0],
            np.array(env.mocap_low, dtype=np.float64),
            np.array(env.mocap_high, dtype=np.float64),
            env.data.ctrl,
        )
        self._bounds = env.sawyer_observation_space.low, env.sawyer_observation_space.high
        self._claws = body(env, "rightclaw"), body(env, "leftclaw")
        self._resets = ResetCache(task_name, goals)
        self._compile()

    def reset(self, goal: int) -> Float[np.ndarray, " obs"]:
        """Start an episode with the goal of that index."""
        self.set_state(self._resets.state(goal, self._stock))
        return self._last_obs

    def step(self, action: Float[np.ndarray, " action"]) -> Transition:
        """Advance by one action. Where the simulation broke down, stand still and say so in `valid`."""
        action = np.asarray(action, np.float32)
        move(action, *self._mocap)
        mujoco.mj_step(self._model, self._data, nstep=FRAME_SKIP)
        mujoco.mj_forward(self._model, self._data)
        self._num_steps += 1
        gap = self._claws[0] - self._claws[1]
        # The dot product is the one in np.linalg.norm: how it rounds depends on the processor.
        reward, success = self._task.step(self._gripper, self._scene, self._frame, math.sqrt(gap.dot(gap)), action)
        if not (math.isfinite(reward) and self._stock.is_stable(self._frame.obs)):
            mujoco.mj_resetData(self._model, self._data)
            return Transition(self._last_obs, 0.0, terminated=False, truncated=True, success=False, valid=False)
        self._last_obs = self._frame.obs.astype(np.float32)
        return Transition(self._last_obs, reward, False, self._num_steps == self._stock.env.max_path_length, success)

    def get_state(self) -> dict[str, Any]:
        """Return goal, simulation and attributes; bit-identical continuation, also in mid-episode."""
        env = self._stock.env
        env.curr_path_length = self._num_steps
        env._prev_obs = self._frame.current.copy()  # noqa: SLF001
        if hasattr(self._task, "keep"):
            self._task.keep(env, self._scene)
        return {"goal": self._stock.goal, "last_obs": self._last_obs.copy(), **take(env)}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore what `get_state` returned."""
        restore(self._stock.env, state)
        self._stock.goal = int(state["goal"])
        self._bind()
        self._last_obs = np.array(state["last_obs"])

    def close(self) -> None:
        """Free the renderer, the only thing that is not plain memory."""
        self._stock.close()

    def _compile(self) -> None:
        """Compile the task now: in the first step of a run it would look like a worker that hangs."""
        move(np.zeros(4, np.float32), *self._mocap)
        self.reset(0)
        self._task.step(self._gripper, self._scene, self._frame, 0.0, np.zeros(4, np.float32))

    def _bind(self) -> None:
        """Hand the numbers of this episode to the kernels."""
        env = self._stock.env
        self._gripper = gripper(env)
        self._scene = self._task.scene(env)
        self._num_steps = env.curr_path_length
        self._frame = Frame(np.zeros(39), np.array(env._prev_obs), *self._bounds)  # noqa: SLF001
        self._last_obs = self._stock.last_obs
