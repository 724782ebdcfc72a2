"""door-close-v3: push the door shut by its handle. `metaworld.envs.sawyer_door_close_v3.SawyerDoorCloseEnvV3`."""

from typing import NamedTuple

import numpy as np
from metaworld.sawyer_xyz_env import SawyerXYZEnv

from mtrl.envs.metaworld.kernels.arithmetic import distance, gaussian
from mtrl.envs.metaworld.kernels.compile import kernel
from mtrl.envs.metaworld.kernels.gripper import Gripper, Point
from mtrl.envs.metaworld.kernels.quaternion import from_matrix
from mtrl.envs.metaworld.kernels.step import make_step
from mtrl.envs.metaworld.kernels.views import fixed, geom, geom_mat

TARGET_RADIUS = 0.05


class Scene(NamedTuple):
    """What the task looks at."""

    target: Point
    handle: Point
    handle_mat: np.ndarray
    obj_init_pos: Point
    hand_init_pos: Point


def scene(env: SawyerXYZEnv) -> Scene:
    """Find it in an environment that was just reset."""
    return Scene(
        target=fixed(env._target_pos),
        handle=geom(env, "handle"),
        handle_mat=geom_mat(env, "handle"),
        obj_init_pos=fixed(env.obj_init_pos),
        hand_init_pos=fixed(env.hand_init_pos),
    )


@kernel
def observe(scene: Scene, objects: np.ndarray) -> None:
    """Write position and orientation of the handle."""
    objects[:3] = scene.handle
    from_matrix(scene.handle_mat, objects[3:7])


@kernel
def evaluate(gripper: Gripper, scene: Scene, obs: np.ndarray, action: np.ndarray) -> tuple[float, bool]:
    """Return reward and success."""
    obj, target = obs[4:7], scene.target
    tcp_to_target = distance(gripper.tcp, target)
    obj_to_target = distance(obj, target)
    in_place = gaussian(obj_to_target, 0.0, TARGET_RADIUS, distance(scene.obj_init_pos, target))
    hand_margin = distance(scene.hand_init_pos, obj) + 0.1
    hand_in_place = gaussian(tcp_to_target, 0.0, 0.25 * TARGET_RADIUS, hand_margin)
    reward = 3 * hand_in_place + 6 * in_place
    if obj_to_target < TARGET_RADIUS:
        reward = 10.0
    return reward, obj_to_target <= 0.08


step = make_step(observe, evaluate)
