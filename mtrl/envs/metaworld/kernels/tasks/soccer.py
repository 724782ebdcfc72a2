"""soccer-v3: push the ball into the goal. `metaworld.envs.sawyer_soccer_v3.SawyerSoccerEnvV3`."""

from typing import NamedTuple

import numpy as np
from metaworld.sawyer_xyz_env import SawyerXYZEnv

from mtrl.envs.metaworld.kernels.arithmetic import distance, long_tail, scaled_distance
from mtrl.envs.metaworld.kernels.compile import kernel
from mtrl.envs.metaworld.kernels.gripper import Gripper, Point, pads_reward
from mtrl.envs.metaworld.kernels.quaternion import from_matrix
from mtrl.envs.metaworld.kernels.step import make_step
from mtrl.envs.metaworld.kernels.views import body, body_mat, fixed

OBJ_RADIUS = 0.013
TARGET_RADIUS = 0.07
X_SCALING = (3.0, 1.0, 1.0)


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
        obj=body(env, "soccer_ball"),
        obj_mat=body_mat(env, "soccer_ball"),
        obj_init_pos=fixed(env.obj_init_pos),
    )


@kernel
def observe(scene: Scene, objects: np.ndarray) -> None:
    """Write position and orientation of the ball."""
    objects[:3] = scene.obj
    from_matrix(scene.obj_mat, objects[3:7])


@kernel
def evaluate(gripper: Gripper, scene: Scene, obs: np.ndarray, action: np.ndarray) -> tuple[float, bool]:
    """Return reward and success."""
    obj, target = obs[4:7], scene.target
    target_to_obj = scaled_distance(obj, target, X_SCALING)
    target_to_obj_init = scaled_distance(obj, scene.obj_init_pos, X_SCALING)
    in_place = long_tail(target_to_obj, 0.0, TARGET_RADIUS, target_to_obj_init)
    goal_line = target[1] - 0.1
    if obj[1] > goal_line and abs(obj[0] - target[0]) > 0.10:
        in_place = min(max(in_place - 2 * ((obj[1] - goal_line) / (1 - goal_line)), 0.0), 1.0)
    object_grasped = pads_reward(gripper, obj, scene.obj_init_pos, OBJ_RADIUS, OBJ_RADIUS + 0.01, 0.005)
    reward = 3 * object_grasped + 6.5 * in_place
    if target_to_obj < TARGET_RADIUS:
        reward = 10.0
    return reward, distance(obj, target) <= 0.07


step = make_step(observe, evaluate)
