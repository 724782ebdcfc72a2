"""plate-slide-v3: slide the plate into the cabinet. `metaworld.envs.sawyer_plate_slide_v3.SawyerPlateSlideEnvV3`."""

from typing import NamedTuple

import numpy as np
from metaworld.sawyer_xyz_env import SawyerXYZEnv

from mtrl.envs.metaworld.kernels.arithmetic import distance, hamacher_product, long_tail
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
    in_place = long_tail(obj_to_target, 0.0, TARGET_RADIUS, distance(scene.obj_init_pos, target))
    tcp_to_obj = distance(tcp, obj)
    obj_grasped_margin = distance(gripper.init_tcp, scene.obj_init_pos)
    object_grasped = long_tail(tcp_to_obj, 0.0, TARGET_RADIUS, obj_grasped_margin)
    reward = 8 * hamacher_product(object_grasped, in_place)
    if obj_to_target < TARGET_RADIUS:
        reward = 10.0
    return reward, obj_to_target <= 0.07


step = make_step(observe, evaluate)
