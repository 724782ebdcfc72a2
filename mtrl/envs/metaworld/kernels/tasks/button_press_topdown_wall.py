"""button-press-topdown-wall-v3: press the button from above, behind a wall.

Stock: `metaworld.envs.sawyer_button_press_topdown_wall_v3.SawyerButtonPressTopdownWallEnvV3`.
"""

from typing import NamedTuple

import numpy as np
from metaworld.sawyer_xyz_env import SawyerXYZEnv

from mtrl.envs.metaworld.kernels.arithmetic import distance, hamacher_product, long_tail
from mtrl.envs.metaworld.kernels.compile import kernel
from mtrl.envs.metaworld.kernels.gripper import Gripper, Point
from mtrl.envs.metaworld.kernels.step import make_step
from mtrl.envs.metaworld.kernels.views import body, body_quat, fixed


class Scene(NamedTuple):
    """What the task looks at."""

    target: Point
    button: Point
    button_quat: np.ndarray
    obj_to_target_init: float


def scene(env: SawyerXYZEnv) -> Scene:
    """Find it in an environment that was just reset."""
    return Scene(
        target=fixed(env._target_pos),
        button=body(env, "button"),
        button_quat=body_quat(env, "button"),
        obj_to_target_init=float(env._obj_to_target_init),  # pyright: ignore[reportAttributeAccessIssue]
    )


@kernel
def observe(scene: Scene, objects: np.ndarray) -> None:
    """Write position and orientation of the button."""
    objects[:3] = scene.button
    objects[2] += 0.193
    objects[3:7] = scene.button_quat


@kernel
def evaluate(gripper: Gripper, scene: Scene, obs: np.ndarray, action: np.ndarray) -> tuple[float, bool]:
    """Return reward and success."""
    obj = obs[4:7]
    tcp_to_obj = distance(obj, gripper.tcp)
    tcp_to_obj_init = distance(obj, gripper.init_tcp)
    obj_to_target = abs(scene.target[2] - obj[2])
    tcp_closed = max(obs[3], 0.0)
    near_button = long_tail(tcp_to_obj, 0, 0.01, tcp_to_obj_init)
    button_pressed = long_tail(obj_to_target, 0, 0.005, scene.obj_to_target_init)
    reward = 5 * hamacher_product(tcp_closed, near_button)
    if tcp_to_obj <= 0.03:
        reward += 5 * button_pressed
    return reward, obj_to_target <= 0.024


step = make_step(observe, evaluate)
