"""The step of all environments of a process in one compiled call: action, physics, observation, reward, bookkeeping."""

import math
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, Int32, Int64, UInt8, UInt64

from mtrl.envs.metaworld.kernels.compile import kernel
from mtrl.envs.metaworld.kernels.gripper import Gripper
from mtrl.envs.metaworld.kernels.memory import call, call_with_two, fused_multiply_add, transfer, unpacker
from mtrl.envs.metaworld.kernels.step import Frame
from mtrl.envs.shared_arrays import IDLE

FRAME_SKIP = 5


class Simulation(NamedTuple):
    """What drives the physics of one environment."""

    task: UInt64[np.ndarray, " 2"]
    """Addresses of the task's compiled step and of its packed `Frame`, `Gripper` and scene."""
    model_and_data: UInt64[np.ndarray, " 2"]
    """Addresses of MuJoCo's structures."""
    warnings: Int32[np.ndarray, " sign"]
    """How often MuJoCo saw each sign of exploding numbers, at every second place."""
    num_steps: Int64[np.ndarray, " 2"]
    """Of this episode, and of a whole one."""
    action_scale: float
    mocap: Float[np.ndarray, " 3"]
    mocap_low: Float[np.ndarray, " 3"]
    mocap_high: Float[np.ndarray, " 3"]
    ctrl: Float[np.ndarray, " 2"]
    right_claw: Float[np.ndarray, " 3"]
    left_claw: Float[np.ndarray, " 3"]


_unpack = unpacker(Frame, Gripper)
_unpack_simulation = unpacker(Simulation)


class Work(NamedTuple):
    """The environments of a process, and what stepping them needs."""

    rows: Any
    """Of `mtrl.envs.shared_arrays`, with the actions."""
    places: Int[np.ndarray, " env"]
    """Which row belongs to which environment."""
    simulations: UInt64[np.ndarray, " env"]
    """Addresses of packed `Simulation`s."""
    unconfirmed: Bool[np.ndarray, " env"]
    """Whose success Python has to confirm."""
    progress: Int[np.ndarray, " worker"]
    """Tells others which row is being worked on."""
    worker: int
    """Place in `progress`."""
    mj_step: int
    mj_forward: int
    """Addresses of MuJoCo's functions."""
    is_fused: bool
    """How NumPy rounds a dot product on this processor, see `dot`."""


@kernel
def step_rows(work: Any) -> bool:
    """Step the environments of a `Work` and write what came of it into their rows.

    Say whether Python is wanted: an episode ended, or a success has to be confirmed.
    """
    is_wanted = False
    for i in range(len(work.places)):
        work.progress[work.worker] = work.places[i]
        row = work.rows[work.places[i]]
        (simulation,) = _unpack_simulation(work.simulations[i])
        frame, gripper = _unpack(simulation.task[1])
        frame.action[:] = row["action"]
        _move(frame.action, simulation)
        for _ in range(FRAME_SKIP):
            call_with_two(work.mj_step, simulation.model_and_data[0], simulation.model_and_data[1])
        call_with_two(work.mj_forward, simulation.model_and_data[0], simulation.model_and_data[1])
        frame.obs[18:36] = frame.current
        frame.current[:3] = gripper.hand
        gap = simulation.right_claw - simulation.left_claw
        frame.current[3] = min(max(math.sqrt(dot(gap, work.is_fused)) / 0.1, 0.0), 1.0)
        call(simulation.task[0], simulation.task[1])
        simulation.num_steps[0] += 1
        row["terminated"] = False
        row["valid"] = _is_stable(frame, simulation)
        if row["valid"]:
            row["obs"][:] = frame.obs
            row["reward"] = frame.outcome[0]
            row["success"] = frame.outcome[1] > 0
            row["truncated"] = simulation.num_steps[0] == simulation.num_steps[1]
        else:
            row["reward"] = 0.0
            row["success"] = False
            row["truncated"] = True
        row["final_obs"][:] = row["obs"]
        is_wanted = is_wanted or row["truncated"] or (row["success"] and work.unconfirmed[i])
    work.progress[work.worker] = IDLE
    return is_wanted


class Wire(NamedTuple):
    """How a worker answers a step and hears of the next one without Python."""

    send: int
    recv: int
    """Addresses of the system's functions."""
    descriptor: int
    order: UInt8[np.ndarray, " byte"]
    """To step, as it arrives."""
    answer: UInt8[np.ndarray, " byte"]
    received: UInt8[np.ndarray, " byte"]
    """Room for what arrives."""


@kernel
def serve_rows(wire: Any, work: Any) -> int:
    """Step, answer and wait for the next order, as long as that is to step.

    Between two runs of the physics nothing else then displaces them from the processor's caches.

    Returns:
        How many bytes arrived that are another order, or part of one; below 0 where Python is wanted: that
        step is not answered yet.
    """
    while not step_rows(work):
        size = len(wire.answer)
        if transfer(wire.send, wire.descriptor, wire.answer.ctypes.data, size) != size:
            return -1  # Python finds out why
        count = transfer(wire.recv, wire.descriptor, wire.received.ctypes.data, len(wire.received))
        if count != len(wire.order):
            return max(count, 0)
        for i in range(count):
            if wire.received[i] != wire.order[i]:
                return count
    return -1


@kernel
def dot(vector: Float[np.ndarray, " 3"], is_fused: bool) -> float:
    """Return the dot product of a vector with itself as NumPy's does: its libraries round after each step or not."""
    x, y, z = vector
    if is_fused:
        return fused_multiply_add(z, z, fused_multiply_add(y, y, x * x))
    return x * x + y * y + z * z


@kernel
def _move(action: Float32[np.ndarray, " 4"], simulation: Simulation) -> None:
    """Move the point that pulls the hand, inside its bounds, and close or open the gripper.

    As in `SawyerXYZEnv.set_xyz_action`: the offset is a float32, the position is not.
    """
    for i in range(3):
        part = min(max(action[i], np.float32(-1)), np.float32(1))
        position = simulation.mocap[i] + np.float64(np.float32(part * np.float32(simulation.action_scale)))
        simulation.mocap[i] = min(max(position, simulation.mocap_low[i]), simulation.mocap_high[i])
    simulation.ctrl[0] = action[3]
    simulation.ctrl[1] = -action[3]


@kernel
def _is_stable(frame: Frame, simulation: Simulation) -> bool:
    """Say whether the simulation has held since the last reset."""
    for number in simulation.warnings[::2]:
        if number > 0:
            return False
    for value in frame.obs:
        if not math.isfinite(value):
            return False
    return math.isfinite(frame.outcome[0])
