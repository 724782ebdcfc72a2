"""handle-pull-v3: pull the handle up. `metaworld.envs.sawyer_handle_pull_v3.SawyerHandlePullEnvV3`."""

from typing import NamedTuple

import numpy as np
from metaworld.sawyer_xyz_env import SawyerXYZEnv

from mtrl.envs.metaworld.kernels.arithmetic import distance, hamacher_product, long_tail, rounded
from mtrl.envs.metaworld.kernels.compile import kernel
from mtrl.envs.metaworld.kernels.gripper import HIGH_DENSITY, Gripper, Point, caging_reward
from mtrl.envs.metaworld.kernels.step import make_step
from mtrl.envs.metaworld.kernels.views import fixed, site

TARGET_RADIUS = 0.05


class Scene(NamedTuple):
    """What the task looks at."""

    target: Point
    handle: Point
    obj_init_pos: Point


def scene(env: SawyerXYZEnv) -> Scene:
    """Find it in an environment that was just reset."""
    return Scene(
        target=fixed(env._target_pos),
        handle=site(env, "handleRight"),
        obj_init_pos=fixed(env.obj_init_pos),
    )


@kernel
def observe(scene: Scene, objects: np.ndarray) -> None:
    """Write the position of the handle; stock shows no orientation."""
    objects[:3] = scene.handle


@kernel
def evaluate(gripper: Gripper, scene: Scene, obs: np.ndarray, action: np.ndarray) -> tuple[float, bool]:
    """Return reward and success."""
    obj, tcp_opened, target = obs[4:7], obs[3], scene.target
    target_to_obj = abs(target[2] - obj[2])
    target_to_obj_init = abs(target[2] - scene.obj_init_pos[2])
    in_place = long_tail(target_to_obj, 0.0, TARGET_RADIUS, target_to_obj_init)
    object_grasped, is_single = caging_reward(
        gripper, action[3], obj, scene.obj_init_pos, 0.022, 0.05, 0.01, 0.01, HIGH_DENSITY
    )
    reward = hamacher_product(object_grasped, in_place, is_single)
    tcp_to_obj = distance(obj, gripper.tcp)
    # y where z is meant: stock's.
    if tcp_to_obj < 0.035 and tcp_opened > 0 and obj[1] - 0.01 > scene.obj_init_pos[2]:
        reward = rounded(reward + rounded(1.0 + 5.0 * in_place, is_single), is_single)
    if target_to_obj < TARGET_RADIUS:
        reward = 10.0
    return reward, target_to_obj <= TARGET_RADIUS


step = make_step(observe, evaluate)
