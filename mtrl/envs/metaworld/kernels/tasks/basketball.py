"""basketball-v3: drop the ball into the basket. `metaworld.envs.sawyer_basketball_v3.SawyerBasketballEnvV3`."""

from typing import NamedTuple

import numpy as np
from metaworld.sawyer_xyz_env import SawyerXYZEnv

from mtrl.envs.metaworld.kernels.arithmetic import distance, hamacher_product, long_tail, scaled_distance
from mtrl.envs.metaworld.kernels.compile import kernel
from mtrl.envs.metaworld.kernels.gripper import HIGH_DENSITY, Gripper, Point, caging_reward
from mtrl.envs.metaworld.kernels.step import make_step
from mtrl.envs.metaworld.kernels.views import body, body_quat, fixed, site

TARGET_RADIUS = 0.08
SCALE = (1.0, 1.0, 2.0)
"""Emphasis of the error in height."""


class Scene(NamedTuple):
    """What the task looks at."""

    target: Point
    """Live: it moves when the simulation first places the basket."""
    obj: Point
    obj_quat: np.ndarray
    obj_init_pos: Point


def scene(env: SawyerXYZEnv) -> Scene:
    """Find it in an environment that was just reset."""
    return Scene(
        target=site(env, "goal"),
        obj=body(env, "bsktball"),
        obj_quat=body_quat(env, "bsktball"),
        obj_init_pos=fixed(env.obj_init_pos),
    )


@kernel
def observe(scene: Scene, objects: np.ndarray) -> None:
    """Write position and orientation of the ball."""
    objects[:3] = scene.obj
    objects[3:7] = scene.obj_quat


@kernel
def evaluate(gripper: Gripper, scene: Scene, obs: np.ndarray, action: np.ndarray) -> tuple[float, bool]:
    """Return reward and success."""
    obj, tcp_opened = obs[4:7], obs[3]
    target = scene.target.copy()
    target[2] = 0.3  # slightly above the hoop
    target_to_obj = scaled_distance(obj, target, SCALE)
    target_to_obj_init = scaled_distance(scene.obj_init_pos, target, SCALE)
    in_place = long_tail(target_to_obj, 0, TARGET_RADIUS, target_to_obj_init)
    tcp_to_obj = distance(obj, gripper.tcp)
    object_grasped, is_single = caging_reward(
        gripper, action[3], obj, scene.obj_init_pos, 0.025, 0.06, 0.01, 0.005, HIGH_DENSITY
    )
    lifted = tcp_to_obj < 0.035 and tcp_opened > 0 and obj[2] - 0.01 > scene.obj_init_pos[2]
    if lifted:
        object_grasped, is_single = 1.0, False
    reward = hamacher_product(object_grasped, in_place, is_single)
    if lifted:
        reward += 1.0 + 5.0 * in_place
    if target_to_obj < TARGET_RADIUS:
        reward = 10.0
    return reward, target_to_obj <= TARGET_RADIUS


step = make_step(observe, evaluate)
