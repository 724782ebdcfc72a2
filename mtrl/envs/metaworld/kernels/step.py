"""One step of one task after the physics, as a compiled function: observation, reward and success."""

import inspect
import typing
from collections.abc import Callable
from types import FunctionType
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Float32

from mtrl.envs.metaworld.kernels.compile import Entry, kernel
from mtrl.envs.metaworld.kernels.gripper import Gripper, update_tcp
from mtrl.envs.metaworld.kernels.memory import unpacker

Observe = Callable[[Any, Float[np.ndarray, " 14"]], None]
"""Writes positions and orientations of the task's objects, the rest stays 0."""

Evaluate = Callable[[Gripper, Any, Float[np.ndarray, " 39"], Float[np.ndarray, " action"]], tuple[float, bool]]
"""From the observation to reward and success."""


class Frame(NamedTuple):
    """What one environment's step reads and writes."""

    obs: Float[np.ndarray, " 39"]
    """Now, a step before, goal; cut to the bounds."""
    current: Float[np.ndarray, " 18"]
    """The first part, not cut: what the next observation tells of the step before."""
    low: Float[np.ndarray, " 39"]
    high: Float[np.ndarray, " 39"]
    action: Float32[np.ndarray, " 4"]
    outcome: Float[np.ndarray, " 2"]
    """Reward and success."""


def make_step(observe: Observe, evaluate: Evaluate) -> Entry:
    """Compile a task's step. It finds `Frame`, `Gripper` and the task's scene at the address it is given.

    The opening of the gripper is in `current` already.
    """
    observe_in_python: Any = inspect.unwrap(getattr(observe, "py_func", observe))
    scene = typing.get_type_hints(observe_in_python)["scene"]
    names = {"observe": observe, "evaluate": evaluate, "unpack": unpacker(Frame, Gripper, scene)}
    template: Any = inspect.unwrap(_step)
    # A function with names of its own, not a closure: those are compiled anew in every process.
    step = FunctionType(template.__code__, template.__globals__ | names, "step")
    step.__module__ = observe_in_python.__module__  # the cache tells functions apart by these names
    step.__qualname__ = f"step_{step.__module__.rpartition('.')[2]}"
    return Entry(step)


def observe(scene: Any, objects: Any) -> None:
    """Stand for the task's function of this name in `_step`."""


def evaluate(gripper: Any, scene: Any, obs: Any, action: Any) -> Any:
    """Stand for the task's function of this name in `_step`."""


def unpack(address: int) -> Any:
    """Stand for what finds the task's tuples in `_step`."""


def _step(address: int) -> None:
    frame, gripper, scene = unpack(address)
    observe(scene, frame.current[4:])
    _complete(frame, gripper, scene.target)
    frame.outcome[0], frame.outcome[1] = evaluate(gripper, scene, frame.obs, frame.action)


@kernel
def _complete(frame: Frame, gripper: Gripper, target: Float[np.ndarray, " 3"]) -> None:
    frame.obs[:18] = frame.current
    frame.obs[36:] = target
    for i in range(39):  # not min and max: what is no number stays none
        if frame.obs[i] < frame.low[i]:
            frame.obs[i] = frame.low[i]
        elif frame.obs[i] > frame.high[i]:
            frame.obs[i] = frame.high[i]
    update_tcp(gripper)
