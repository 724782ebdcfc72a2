"""hand-insert-v3: push the block into the hole. `metaworld.envs.sawyer_hand_insert_v3.SawyerHandInsertEnvV3`."""

from typing import NamedTuple

import numpy as np
from metaworld.sawyer_xyz_env import SawyerXYZEnv

from mtrl.envs.metaworld.kernels.arithmetic import distance, hamacher_product, long_tail, rounded
from mtrl.envs.metaworld.kernels.compile import kernel
from mtrl.envs.metaworld.kernels.gripper import HIGH_DENSITY, Gripper, Point, caging_reward
from mtrl.envs.metaworld.kernels.step import make_step
from mtrl.envs.metaworld.kernels.views import body, body_quat, fixed

TARGET_RADIUS = 0.05


class Scene(NamedTuple):
    """What the task looks at."""

    target: Point
    obj: Point
    obj_quat: np.ndarray
    obj_init_pos: Point


def scene(env: SawyerXYZEnv) -> Scene:
    """Find it in an environment that was just reset."""
    return Scene(
        target=fixed(env._target_pos),
        obj=body(env, "obj"),
        obj_quat=body_quat(env, "obj"),
        obj_init_pos=fixed(env.obj_init_pos),
    )


@kernel
def observe(scene: Scene, objects: np.ndarray) -> None:
    """Write position and orientation of the block."""
    objects[:3] = scene.obj
    objects[3:7] = scene.obj_quat


@kernel
def evaluate(gripper: Gripper, scene: Scene, obs: np.ndarray, action: np.ndarray) -> tuple[float, bool]:
    """Return reward and success."""
    obj, tcp_opened = obs[4:7], obs[3]
    target_to_obj = distance(obj, scene.target)
    in_place = long_tail(target_to_obj, 0.0, TARGET_RADIUS, distance(scene.obj_init_pos, scene.target))
    object_grasped, is_single = caging_reward(
        gripper, action[3], obj, scene.obj_init_pos, 0.015, 0.05, 0.01, 0.005, HIGH_DENSITY
    )
    reward = hamacher_product(object_grasped, in_place, is_single)
    if distance(obj, gripper.tcp) < 0.02 and tcp_opened > 0:
        reward = rounded(reward + rounded(1.0 + 7.0 * in_place, is_single), is_single)
    if target_to_obj < TARGET_RADIUS:
        reward = 10.0
    return reward, target_to_obj <= TARGET_RADIUS


step = make_step(observe, evaluate)
