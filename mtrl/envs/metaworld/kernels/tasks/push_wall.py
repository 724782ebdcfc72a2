"""push-wall-v3: push the puck past the wall. `metaworld.envs.sawyer_push_wall_v3.SawyerPushWallEnvV3`."""

from typing import NamedTuple

import numpy as np
from metaworld.sawyer_xyz_env import SawyerXYZEnv

from mtrl.envs.metaworld.kernels.arithmetic import distance, long_tail, rounded, scaled_distance
from mtrl.envs.metaworld.kernels.compile import kernel
from mtrl.envs.metaworld.kernels.gripper import HIGH_DENSITY, Gripper, Point, caging_reward
from mtrl.envs.metaworld.kernels.quaternion import from_matrix
from mtrl.envs.metaworld.kernels.step import make_step
from mtrl.envs.metaworld.kernels.views import fixed, geom, geom_mat

TARGET_RADIUS = 0.05
IN_PLACE_SCALING = (3.0, 1.0, 1.0)


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
    tcp, obj, tcp_opened = gripper.tcp, obs[4:7], obs[3]
    midpoint = np.array([-0.05, 0.77, obj[2]])
    target = scene.target
    tcp_to_obj = distance(obj, tcp)
    obj_to_midpoint = scaled_distance(obj, midpoint, IN_PLACE_SCALING)
    obj_to_midpoint_init = scaled_distance(scene.obj_init_pos, midpoint, IN_PLACE_SCALING)
    obj_to_target = distance(obj, target)
    obj_to_target_init = distance(scene.obj_init_pos, target)
    in_place_part1 = long_tail(obj_to_midpoint, 0.0, TARGET_RADIUS, obj_to_midpoint_init)
    in_place_part2 = long_tail(obj_to_target, 0.0, TARGET_RADIUS, obj_to_target_init)
    object_grasped, is_single = caging_reward(
        gripper, action[3], obj, scene.obj_init_pos, 0.015, 0.05, 0.01, 0.005, HIGH_DENSITY
    )
    reward = 2 * object_grasped
    if tcp_to_obj < 0.02 and tcp_opened > 0:
        near = rounded(reward + 1.0, is_single)
        reward = rounded(near + rounded(4.0 * in_place_part1, is_single), is_single)
        if obj[1] > 0.75:
            reward = rounded(rounded(near + 4.0, is_single) + rounded(3.0 * in_place_part2, is_single), is_single)
    if obj_to_target < TARGET_RADIUS:
        reward = 10.0
    return reward, obj_to_target <= 0.07


step = make_step(observe, evaluate)
