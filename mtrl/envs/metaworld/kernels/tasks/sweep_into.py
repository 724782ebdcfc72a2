"""sweep-into-v3: sweep the puck into the hole. `metaworld.envs.sawyer_sweep_into_goal_v3.SawyerSweepIntoGoalEnvV3`."""

from typing import NamedTuple

import numpy as np
from metaworld.sawyer_xyz_env import SawyerXYZEnv

from mtrl.envs.metaworld.kernels.arithmetic import distance, hamacher_product, long_tail
from mtrl.envs.metaworld.kernels.compile import kernel
from mtrl.envs.metaworld.kernels.gripper import Gripper, Point, pads_reward
from mtrl.envs.metaworld.kernels.quaternion import from_matrix
from mtrl.envs.metaworld.kernels.step import make_step
from mtrl.envs.metaworld.kernels.views import body, fixed, geom_mat

OBJ_RADIUS = 0.02
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
    """Write position and orientation of the puck."""
    objects[:3] = scene.obj
    from_matrix(scene.obj_mat, objects[3:7])


@kernel
def evaluate(gripper: Gripper, scene: Scene, obs: np.ndarray, action: np.ndarray) -> tuple[float, bool]:
    """Return reward and success."""
    obj = obs[4:7]
    target = np.array([scene.target[0], scene.target[1], obj[2]])
    obj_to_target = distance(obj, target)
    in_place = long_tail(obj_to_target, 0.0, TARGET_RADIUS, distance(scene.obj_init_pos, target))
    object_grasped = pads_reward(gripper, obj, scene.obj_init_pos, OBJ_RADIUS, OBJ_RADIUS + 0.005, 0.01)
    in_place_and_object_grasped = hamacher_product(object_grasped, in_place)
    reward = 2 * object_grasped + 6 * in_place_and_object_grasped
    if obj_to_target < TARGET_RADIUS:
        reward = 10.0
    return reward, obj_to_target <= 0.05


step = make_step(observe, evaluate)
