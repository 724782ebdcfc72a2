"""One Meta-World task without Meta-World's Python step, as a `SingleEnv`. Runs in a worker process.

The physics are MuJoCo's own functions; all around them is compiled (`mtrl.envs.metaworld.kernels`), and a process steps
all its environments in one call. What a reset leads to depends on task and goal alone, so it is simulated once and then
restored.
"""

# MuJoCo's names come from compiled modules, which the type checker cannot see into.
# pyright: reportAttributeAccessIssue=false

import ctypes
import functools
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import mujoco
import numpy as np
from jaxtyping import Float, Int, Shaped, UInt8
from metaworld.env_dict import ALL_V3_ENVIRONMENTS
from metaworld.sawyer_xyz_env import SawyerXYZEnv

from mtrl.envs.metaworld import kernels
from mtrl.envs.metaworld.kernels.gripper import Gripper
from mtrl.envs.metaworld.kernels.loop import Simulation, Wire, Work, dot, serve_rows, step_rows
from mtrl.envs.metaworld.kernels.memory import num_words, pack
from mtrl.envs.metaworld.kernels.step import Frame
from mtrl.envs.metaworld.kernels.views import body, gripper
from mtrl.envs.metaworld.model_cache import with_kept_model
from mtrl.envs.metaworld.reset_cache import ResetCache
from mtrl.envs.metaworld.sawyer import UNSTABLE, SawyerEnv
from mtrl.envs.metaworld.snapshot import take
from mtrl.envs.metaworld.tasks import ACTION_DIM, MAX_EPISODE_STEPS, OBS_DIM
from mtrl.envs.shared_arrays import row_type
from mtrl.envs.worker_process import Batch, Transition


class Host(NamedTuple):
    """What compiled code must know of the machine and its libraries."""

    mj_step: int
    mj_forward: int
    """Addresses of MuJoCo's functions."""
    is_fused: bool
    """Whether NumPy's dot product rounds once where it multiplies and adds."""


@functools.cache
def host() -> Host:
    """Return what is true here."""
    library = ctypes.CDLL(str(next(Path(mujoco.__file__).parent.glob("libmujoco*"))))
    mj_step, mj_forward = _address(library.mj_step), _address(library.mj_forward)
    vectors = np.random.default_rng(0).normal(size=(100, 3))
    return Host(mj_step, mj_forward, is_fused=all(dot(vector, True) == vector.dot(vector) for vector in vectors))


class NativeSawyerEnv:
    """One copy of one task, equal to `SawyerEnv` bit for bit in simulation and observations."""

    def __init__(
        self, task_name: str, goals: Float[np.ndarray, "goal vector"], max_episode_steps: int = MAX_EPISODE_STEPS
    ) -> None:
        """Build the stock environment, which holds the simulation, and find what the kernels look at."""
        self.stock = SawyerEnv(
            task_name, goals, with_kept_model(ALL_V3_ENVIRONMENTS[task_name]), max_episode_steps=max_episode_steps
        )
        self.task = kernels.load(task_name)
        self.row = np.zeros(1, row_type(OBS_DIM, ACTION_DIM))
        env = self.stock.env
        low, high = env.sawyer_observation_space.low, env.sawyer_observation_space.high
        self._frame = Frame(np.zeros(39), np.zeros(18), low, high, np.zeros(4, np.float32), np.zeros(2))
        self._task_words = np.zeros(num_words(Frame, Gripper, self.task.Scene), np.uint64)
        self._num_steps = np.array([0, env.max_path_length])
        self._simulation = Simulation(
            task=np.array([self.task.step.address, self._task_words.ctypes.data], np.uint64),
            model_and_data=np.array([env.model._address, env.data._address], np.uint64),  # noqa: SLF001
            warnings=_warnings(env.data),
            num_steps=self._num_steps,
            action_scale=env.action_scale,
            mocap=env.data.mocap_pos[0],
            mocap_low=np.array(env.mocap_low, dtype=np.float64),
            mocap_high=np.array(env.mocap_high, dtype=np.float64),
            ctrl=env.data.ctrl,
            right_claw=body(env, "rightclaw"),
            left_claw=body(env, "leftclaw"),
        )
        self.words = pack(self._simulation)
        self._resets = ResetCache(task_name, goals)
        self._step, _ = NativeSawyerEnv.batch({0: self}, self.row, np.zeros(1, np.int64), 0)

    @staticmethod
    def batch(
        envs: "Mapping[int, NativeSawyerEnv]",
        rows: Shaped[np.ndarray, " row"],
        progress: Int[np.ndarray, " worker"],
        worker: int,
    ) -> Batch:
        """Return what steps these environments, by row. They live in their rows from now on."""
        for row, env in envs.items():
            env.row[:], env.row = rows[row : row + 1], rows[row : row + 1]
        places = np.array(list(envs))
        simulations = np.array([env.words.ctypes.data for env in envs.values()], np.uint64)
        unconfirmed = np.array([hasattr(env.task, "confirm") for env in envs.values()])
        work = Work(rows, places, simulations, unconfirmed, progress, worker, *host())
        # Compile it now: in the first step of a run that would look like a worker that hangs.
        nothing = work._replace(places=places[:0])
        step_rows(nothing)
        serve_rows(_wire(-1, b" ", b" "), nothing)

        def confirm() -> None:
            for env in itertools.compress(envs.values(), unconfirmed):
                if env.row["success"][0]:
                    env.row["success"] = env.task.confirm(env.stock.env)

        def step() -> bool:
            is_wanted = step_rows(work)
            confirm()
            return is_wanted

        def serve(descriptor: int, order: bytes, answer: bytes) -> bytes | None:
            wire = _wire(descriptor, order, answer)
            count = serve_rows(wire, work)
            if count >= 0:
                return wire.received[:count].tobytes()
            confirm()
            return None

        return Batch(step, serve)

    def reset(self, goal: int) -> Float[np.ndarray, " obs"]:
        """Start an episode with the goal of that index."""
        state = self._resets.state(goal, self.stock)
        mujoco.mj_resetData(self.stock.env.model, self.stock.env.data)  # forget what warnings there were
        self.set_state(state)
        return self.row["obs"][0].copy()

    def step(self, action: Float[np.ndarray, " action"]) -> Transition:
        """Advance by one action. Where the simulation broke down, stand still and say so in `valid`."""
        self.row["action"] = action
        self._step()
        row = self.row[0]
        reward = float(self._frame.outcome[0]) if row["valid"] else 0.0
        return Transition(
            row["obs"].copy(), reward, False, bool(row["truncated"]), bool(row["success"]), bool(row["valid"])
        )

    def get_state(self) -> dict[str, Any]:
        """Return goal, simulation and attributes; bit-identical continuation, also in mid-episode."""
        env = self._synchronised()
        return {"goal": self.stock.goal, "last_obs": self.row["obs"][0].copy(), **take(env)}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore what `get_state` returned."""
        self.stock.set_state(state)
        self._bind()

    def info(self, action: Float[np.ndarray, " action"]) -> dict[str, float]:
        """Return stock's info of the step just made with `action`, by stock's own code."""
        _, info = self._synchronised().evaluate_state(self._frame.obs.copy(), np.asarray(action, np.float32))
        return info

    def render(self, camera: str, width: int, height: int) -> UInt8[np.ndarray, "height width 3"]:
        """Return an upright picture of the present state; see `SawyerEnv.render`."""
        return self.stock.render(camera, width, height)

    def close(self) -> None:
        """Free the renderer, the only thing that is not plain memory."""
        self.stock.close()

    def _synchronised(self) -> SawyerXYZEnv:
        """Return the stock environment, its attributes brought in step with what the kernels hold."""
        env = self.stock.env
        env.curr_path_length = int(self._num_steps[0])
        env._prev_obs = self._frame.current.copy()  # noqa: SLF001
        if hasattr(self.task, "keep"):
            self.task.keep(env, self._scene)
        return env

    def _bind(self) -> None:
        """Hand the numbers of this episode to the kernels."""
        env = self.stock.env
        self._gripper, self._scene = gripper(env), self.task.scene(env)
        self._task_words[:] = pack(self._frame, self._gripper, self._scene)
        self._num_steps[0] = env.curr_path_length
        self._frame.obs[:] = 0
        self._frame.current[:] = env._prev_obs  # noqa: SLF001
        self.row["obs"] = self.stock.last_obs


@functools.cache
def _wire(descriptor: int, order: bytes, answer: bytes) -> Wire:
    send, recv = (_address(function) for function in (ctypes.CDLL(None).send, ctypes.CDLL(None).recv))
    as_sent, as_received = (np.frombuffer(bytearray(content), np.uint8) for content in (answer, order))
    return Wire(send, recv, descriptor, as_received, as_sent, np.zeros(4096, np.uint8))


def _address(function: Any) -> int:
    return ctypes.cast(function, ctypes.c_void_p).value or 0


def _warnings(data: mujoco.MjData) -> np.ndarray:
    """Return the counts of `UNSTABLE`, live; between them lie other numbers."""
    numbers = data.warning.number[int(UNSTABLE[0]) : int(UNSTABLE[-1]) + 1]
    return np.lib.stride_tricks.as_strided(numbers, (2 * len(UNSTABLE) - 1,), (numbers.itemsize,))
