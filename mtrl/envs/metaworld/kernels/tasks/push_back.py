"""push-back-v3: push the puck back to the goal. `metaworld.envs.sawyer_push_back_v3.SawyerPushBackEnvV3`."""

from typing import NamedTuple

import numpy as np
from metaworld.sawyer_xyz_env import SawyerXYZEnv

from mtrl.envs.metaworld.kernels.arithmetic import distance, hamacher_product, long_tail
from mtrl.envs.metaworld.kernels.compile import kernel
from mtrl.envs.metaworld.kernels.gripper import Gripper, Point, pads_reward
from mtrl.envs.metaworld.kernels.quaternion import from_matrix
from mtrl.envs.metaworld.kernels.step import make_step
from mtrl.envs.metaworld.kernels.views import fixed, geom, geom_mat

OBJ_RADIUS = 0.007
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
    obj, tcp_opened = obs[4:7], obs[3]
    tcp_to_obj = distance(obj, gripper.tcp)
    target_to_obj = distance(obj, scene.target)
    target_to_obj_init = distance(scene.obj_init_pos, scene.target)
    in_place = long_tail(target_to_obj, 0.0, TARGET_RADIUS, target_to_obj_init)
    object_grasped = pads_reward(gripper, obj, scene.obj_init_pos, OBJ_RADIUS, OBJ_RADIUS + 0.003, 0.01)
    reward = hamacher_product(object_grasped, in_place)
    if tcp_to_obj < 0.01 and 0 < tcp_opened < 0.55 and target_to_obj_init - target_to_obj > 0.01:
        reward += 1.0 + 5.0 * in_place
    if target_to_obj < TARGET_RADIUS:
        reward = 10.0
    return reward, target_to_obj <= 0.07


step = make_step(observe, evaluate)
