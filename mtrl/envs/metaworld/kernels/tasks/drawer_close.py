"""drawer-close-v3: push the drawer shut. `metaworld.envs.sawyer_drawer_close_v3.SawyerDrawerCloseEnvV3`."""

from typing import NamedTuple

import numpy as np
from metaworld.sawyer_xyz_env import SawyerXYZEnv

from mtrl.envs.metaworld.kernels.arithmetic import distance, gaussian, hamacher_product, long_tail, rounded
from mtrl.envs.metaworld.kernels.compile import kernel
from mtrl.envs.metaworld.kernels.gripper import Gripper, Point
from mtrl.envs.metaworld.kernels.step import make_step
from mtrl.envs.metaworld.kernels.views import body, fixed

TARGET_RADIUS = 0.05  # of all tasks: stock does not use this task's own `_TARGET_RADIUS`
HANDLE_REACH_RADIUS = 0.005


class Scene(NamedTuple):
    """What the task looks at."""

    target: Point
    drawer: Point
    obj_init_pos: Point


def scene(env: SawyerXYZEnv) -> Scene:
    """Find it in an environment that was just reset."""
    return Scene(
        target=fixed(env._target_pos),
        drawer=body(env, "drawer_link"),
        obj_init_pos=fixed(env.obj_init_pos),
    )


@kernel
def observe(scene: Scene, objects: np.ndarray) -> None:
    """Write the position of the handle; stock shows no orientation."""
    objects[:3] = scene.drawer
    objects[1] -= 0.16
    objects[2] += 0.05


@kernel
def evaluate(gripper: Gripper, scene: Scene, obs: np.ndarray, action: np.ndarray) -> tuple[float, bool]:
    """Return reward and success."""
    obj = obs[4:7]
    target_to_obj = distance(obj, scene.target)
    in_place_margin = abs(distance(scene.obj_init_pos, scene.target) - TARGET_RADIUS)
    in_place = long_tail(target_to_obj, 0.0, TARGET_RADIUS, in_place_margin)
    reach_margin = abs(distance(scene.obj_init_pos, gripper.init_tcp) - HANDLE_REACH_RADIUS)
    reach = gaussian(distance(obj, gripper.tcp), 0.0, HANDLE_REACH_RADIUS, reach_margin)
    # The effort is a float32 unless it is cut to a Python number.
    effort = action[3]
    is_single = 0 < effort <= 1
    reach = hamacher_product(reach, min(max(effort, 0.0), 1.0), is_single)
    reward = rounded(hamacher_product(reach, in_place, is_single) * 10, is_single)
    success = target_to_obj <= TARGET_RADIUS + 0.015
    if success:
        reward = 10.0
    return reward, success


step = make_step(observe, evaluate)
