"""plate-slide-back-v3: slide the plate out. `metaworld.envs.sawyer_plate_slide_back_v3.SawyerPlateSlideBackEnvV3`."""

from typing import NamedTuple

import numpy as np
from metaworld.sawyer_xyz_env import SawyerXYZEnv

from mtrl.envs.metaworld.kernels.arithmetic import distance, long_tail
from mtrl.envs.metaworld.kernels.compile import kernel
from mtrl.envs.metaworld.kernels.gripper import Gripper, Point
from mtrl.envs.metaworld.kernels.quaternion import from_matrix
from mtrl.envs.metaworld.kernels.step import make_step
from mtrl.envs.metaworld.kernels.views import fixed, geom, geom_mat

TARGET_RADIUS = 0.05


class Scene(NamedTuple):
    """What the task looks at."""

    target: Point
    puck: Point
    puck_mat: np.ndarray
    obj_init_pos: Point


def scene(env: SawyerXYZEnv) -> Scene:
    """Find it in an environment that was just reset."""
    return Scene(
        target=fixed(env._target_pos),
        puck=geom(env, "puck"),
        puck_mat=geom_mat(env, "puck"),
        obj_init_pos=fixed(env.obj_init_pos),
    )


@kernel
def observe(scene: Scene, objects: np.ndarray) -> None:
    """Write position and orientation of the plate."""
    objects[:3] = scene.puck
    from_matrix(scene.puck_mat, objects[3:7])


@kernel
def evaluate(gripper: Gripper, scene: Scene, obs: np.ndarray, action: np.ndarray) -> tuple[float, bool]:
    """Return reward and success."""
    tcp, obj, target = gripper.tcp, obs[4:7], scene.target
    obj_to_target = distance(obj, target)
    in_place_margin = distance(scene.obj_init_pos, target)
    in_place = long_tail(obj_to_target, 0.0, TARGET_RADIUS, in_place_margin - TARGET_RADIUS)
    tcp_to_obj = distance(tcp, obj)
    obj_grasped_margin = distance(gripper.init_tcp, scene.obj_init_pos)
    object_grasped = long_tail(tcp_to_obj, 0.0, TARGET_RADIUS, obj_grasped_margin - TARGET_RADIUS)
    reward = 1.5 * object_grasped
    if tcp[2] <= 0.03 and tcp_to_obj < 0.07:
        reward = 2.0 + (7.0 * in_place)
    if obj_to_target < TARGET_RADIUS:
        reward = 10.0
    return reward, obj_to_target <= 0.07


step = make_step(observe, evaluate)
