"""button-press-wall-v3: press the button behind a wall.

Stock: `metaworld.envs.sawyer_button_press_wall_v3.SawyerButtonPressWallEnvV3`.
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
    objects[1] -= 0.193
    objects[3:7] = scene.button_quat


@kernel
def evaluate(gripper: Gripper, scene: Scene, obs: np.ndarray, action: np.ndarray) -> tuple[float, bool]:
    """Return reward and success."""
    obj = obs[4:7]
    tcp_to_obj = distance(obj, gripper.tcp)
    tcp_to_obj_init = distance(obj, gripper.init_tcp)
    obj_to_target = abs(scene.target[1] - obj[1])
    near_button = long_tail(tcp_to_obj, 0, 0.01, tcp_to_obj_init)
    button_pressed = long_tail(obj_to_target, 0, 0.005, scene.obj_to_target_init)
    if tcp_to_obj > 0.07:
        tcp_status = (1 - obs[3]) / 2.0
        reward = 2 * hamacher_product(tcp_status, near_button)
    else:
        reward = 2.0
        reward += 2 * (1 + obs[3])
        reward += 4 * button_pressed**2
    return reward, obj_to_target <= 0.03


step = make_step(observe, evaluate)
