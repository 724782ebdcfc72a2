"""coffee-push-v3: push the mug under the coffee machine.

Stock: `metaworld.envs.sawyer_coffee_push_v3.SawyerCoffeePushEnvV3`.
"""

from typing import NamedTuple

import numpy as np
from metaworld.sawyer_xyz_env import SawyerXYZEnv

from mtrl.envs.metaworld.kernels.arithmetic import distance, hamacher_product, long_tail, rounded, scaled_distance
from mtrl.envs.metaworld.kernels.compile import kernel
from mtrl.envs.metaworld.kernels.gripper import MEDIUM_DENSITY, Gripper, Point, caging_reward
from mtrl.envs.metaworld.kernels.quaternion import from_matrix
from mtrl.envs.metaworld.kernels.step import make_step
from mtrl.envs.metaworld.kernels.views import body, fixed, geom_mat

SCALE = (2.0, 2.0, 1.0)
"""Emphasis of the errors in the plane."""


class Scene(NamedTuple):
    """What the task looks at."""

    target: Point
    obj: Point
    mug_mat: np.ndarray
    obj_init_pos: Point


def scene(env: SawyerXYZEnv) -> Scene:
    """Find it in an environment that was just reset."""
    return Scene(
        target=fixed(env._target_pos),
        obj=body(env, "obj"),
        mug_mat=geom_mat(env, "mug"),
        obj_init_pos=fixed(env.obj_init_pos),
    )


@kernel
def observe(scene: Scene, objects: np.ndarray) -> None:
    """Write position and orientation of the mug."""
    objects[:3] = scene.obj
    from_matrix(scene.mug_mat, objects[3:7])


@kernel
def evaluate(gripper: Gripper, scene: Scene, obs: np.ndarray, action: np.ndarray) -> tuple[float, bool]:
    """Return reward and success."""
    obj, tcp_opened = obs[4:7], obs[3]
    target_to_obj = scaled_distance(obj, scene.target, SCALE)
    target_to_obj_init = scaled_distance(scene.obj_init_pos, scene.target, SCALE)
    in_place = long_tail(target_to_obj, 0, 0.05, target_to_obj_init)
    tcp_to_obj = distance(obj, gripper.tcp)
    object_grasped, is_single = caging_reward(
        gripper, action[3], obj, scene.obj_init_pos, 0.02, 0.05, 0.04, 0.05, MEDIUM_DENSITY, 0.7
    )
    reward = hamacher_product(object_grasped, in_place, is_single)
    if tcp_to_obj < 0.04 and tcp_opened > 0:
        reward = rounded(reward + rounded(1.0 + 5.0 * in_place, is_single), is_single)
    if target_to_obj < 0.05:
        reward = 10.0
    return reward, distance(obj, scene.target) <= 0.07


step = make_step(observe, evaluate)
