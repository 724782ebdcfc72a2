"""shelf-place-v3: put the block on the shelf. `metaworld.envs.sawyer_shelf_place_v3.SawyerShelfPlaceEnvV3`."""

from typing import NamedTuple

import numpy as np
from metaworld.sawyer_xyz_env import SawyerXYZEnv

from mtrl.envs.metaworld.kernels.arithmetic import distance, hamacher_product, long_tail, rounded
from mtrl.envs.metaworld.kernels.compile import kernel
from mtrl.envs.metaworld.kernels.gripper import PLAIN, Gripper, Point, caging_reward
from mtrl.envs.metaworld.kernels.quaternion import from_matrix
from mtrl.envs.metaworld.kernels.step import make_step
from mtrl.envs.metaworld.kernels.views import body, fixed, geom_mat

TARGET_RADIUS = 0.05


class Scene(NamedTuple):
    """What the task looks at."""

    target: Point
    obj: Point
    obj_mat: np.ndarray
    obj_init_pos: Point


def scene(env: SawyerXYZEnv) -> Scene:
    """Find it in an environment that was just reset."""
    return Scene(
        target=fixed(env._target_pos),
        obj=body(env, "obj"),
        obj_mat=geom_mat(env, "objGeom"),
        obj_init_pos=fixed(env.obj_init_pos),
    )


@kernel
def observe(scene: Scene, objects: np.ndarray) -> None:
    """Write position and orientation of the block."""
    objects[:3] = scene.obj
    from_matrix(scene.obj_mat, objects[3:7])


@kernel
def evaluate(gripper: Gripper, scene: Scene, obs: np.ndarray, action: np.ndarray) -> tuple[float, bool]:
    """Return reward and success."""
    tcp, obj, tcp_opened, target = gripper.tcp, obs[4:7], obs[3], scene.target
    obj_to_target = distance(obj, target)
    tcp_to_obj = distance(obj, tcp)
    in_place = long_tail(obj_to_target, 0.0, TARGET_RADIUS, distance(scene.obj_init_pos, target))
    object_grasped, is_single = caging_reward(
        gripper, action[3], obj, scene.obj_init_pos, 0.02, 0.05, 0.01, 0.01, PLAIN
    )
    reward = hamacher_product(object_grasped, in_place, is_single)
    is_below = 0.0 < obj[2] < 0.24 and target[0] - 0.15 < obj[0] < target[0] + 0.15
    if is_below and target[1] - 3 * TARGET_RADIUS < obj[1] < target[1]:
        z_scaling = (0.24 - obj[2]) / 0.24
        y_scaling = (obj[1] - (target[1] - 3 * TARGET_RADIUS)) / (3 * TARGET_RADIUS)
        bound_loss = hamacher_product(y_scaling, z_scaling)
        in_place = min(max(in_place - bound_loss, 0.0), 1.0)
        is_single = False  # here stock's in_place turns from a Python number into a float64, which the sum then is too
    if is_below and obj[1] > target[1]:
        in_place = 0.0
    if tcp_to_obj < 0.025 and tcp_opened > 0 and obj[2] - 0.01 > scene.obj_init_pos[2]:
        reward = rounded(reward + rounded(1.0 + 5.0 * in_place, is_single), is_single)
    if obj_to_target < TARGET_RADIUS:
        reward = 10.0
    return reward, obj_to_target <= 0.07


step = make_step(observe, evaluate)
