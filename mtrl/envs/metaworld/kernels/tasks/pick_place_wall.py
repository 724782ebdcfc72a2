"""pick-place-wall-v3: bring the puck over the wall to the goal.

`metaworld.envs.sawyer_pick_place_wall_v3.SawyerPickPlaceWallEnvV3`.
"""

from typing import NamedTuple

import numpy as np
from metaworld.sawyer_xyz_env import SawyerXYZEnv

from mtrl.envs.metaworld.kernels.arithmetic import distance, hamacher_product, long_tail, rounded, scaled_distance
from mtrl.envs.metaworld.kernels.compile import kernel
from mtrl.envs.metaworld.kernels.gripper import PLAIN, Gripper, Point, caging_reward
from mtrl.envs.metaworld.kernels.quaternion import from_matrix
from mtrl.envs.metaworld.kernels.step import make_step
from mtrl.envs.metaworld.kernels.views import fixed, geom, geom_mat

TARGET_RADIUS = 0.05
IN_PLACE_SCALING = (1.0, 1.0, 3.0)


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
        obj=geom(env, "objGeom"),
        obj_mat=geom_mat(env, "objGeom"),
        obj_init_pos=fixed(env.obj_init_pos),
    )


@kernel
def observe(scene: Scene, objects: np.ndarray) -> None:
    """Write position and orientation of the puck."""
    objects[:3] = scene.obj
    from_matrix(scene.obj_mat, objects[3:7])


@kernel
def evaluate(gripper: Gripper, scene: Scene, obs: np.ndarray, action: np.ndarray) -> tuple[float, bool]:
    """Return reward and success."""
    obj, tcp_opened, target, init_obj = obs[4:7], obs[3], scene.target, scene.obj_init_pos
    midpoint = np.array([target[0], 0.77, 0.25])
    tcp_to_obj = distance(obj, gripper.tcp)
    obj_to_midpoint = scaled_distance(obj, midpoint, IN_PLACE_SCALING)
    obj_to_midpoint_init = scaled_distance(init_obj, midpoint, IN_PLACE_SCALING)
    obj_to_target = distance(obj, target)
    obj_to_target_init = distance(init_obj, target)
    in_place_part1 = long_tail(obj_to_midpoint, 0.0, TARGET_RADIUS, obj_to_midpoint_init)
    in_place_part2 = long_tail(obj_to_target, 0.0, TARGET_RADIUS, obj_to_target_init)
    object_grasped, is_single = caging_reward(gripper, action[3], obj, init_obj, 0.015, 0.05, 0.01, 0.005, PLAIN)
    reward = hamacher_product(object_grasped, in_place_part1, is_single)
    if tcp_to_obj < 0.02 and tcp_opened > 0 and obj[2] - 0.015 > init_obj[2]:
        reward = rounded(reward + 1.0, is_single)
        if obj[1] > 0.75:
            more = 3.0 * in_place_part2
            reward = rounded(reward + 4.0, is_single)
        else:
            more = 4.0 * in_place_part1
        reward = rounded(reward + rounded(more, is_single), is_single)
    if obj_to_target < TARGET_RADIUS:
        reward = 10.0
    return reward, obj_to_target <= 0.07


step = make_step(observe, evaluate)
