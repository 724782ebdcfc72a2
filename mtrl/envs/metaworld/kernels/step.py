"""One step after the physics: observation, reward and success of one task, as one compiled function."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from mtrl.envs.metaworld.kernels.compile import kernel
from mtrl.envs.metaworld.kernels.gripper import Gripper, update_tcp

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


@kernel
def move(
    action: Float[np.ndarray, " action"],
    scale: np.float32,
    mocap: Float[np.ndarray, " 3"],
    low: Float[np.ndarray, " 3"],
    high: Float[np.ndarray, " 3"],
    ctrl: Float[np.ndarray, " 2"],
) -> None:
    """Move the point that pulls the hand, inside its bounds, and close or open the gripper.

    As in `SawyerXYZEnv.set_xyz_action`: the offset is a float32, the position is not.
    """
    for i in range(3):
        part = min(max(action[i], np.float32(-1)), np.float32(1))
        mocap[i] = min(max(mocap[i] + np.float64(np.float32(part * scale)), low[i]), high[i])
    ctrl[0] = action[3]
    ctrl[1] = -action[3]


def make_step(observe: Observe, evaluate: Evaluate) -> Callable[..., tuple[float, bool]]:
    """Compile a task's step: (gripper, scene, frame, opening of the fingers, action) -> (reward, success)."""

    @kernel
    def step(gripper: Any, scene: Any, frame: Any, opening: float, action: Any) -> tuple[float, bool]:
        frame.obs[18:36] = frame.current
        frame.current[:3] = gripper.hand
        frame.current[3] = min(max(opening / 0.1, 0.0), 1.0)
        observe(scene, frame.current[4:])
        frame.obs[:18] = frame.current
        frame.obs[36:] = scene.target
        for i in range(39):  # not min and max: what is no number stays none
            if frame.obs[i] < frame.low[i]:
                frame.obs[i] = frame.low[i]
            elif frame.obs[i] > frame.high[i]:
                frame.obs[i] = frame.high[i]
        update_tcp(gripper)
        return evaluate(gripper, scene, frame.obs, action)

    return step
